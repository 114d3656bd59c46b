//! Blocks that no builder writes: their checksums would be right, and still they are refused.

use super::*;

const LSNS: Range<Lsn> = Lsn::new(100)..Lsn::new(200);
/// Where the blocks are said to begin.
const OFFSET: u64 = 10_000;
/// Key "b" at 105, of kind 7, without a value.
const FIRST: [u8; 6] = [0, 1, b'b', 5, 7, 0];

fn parse(pieces: &[&[u8]]) -> Result<usize, &'static str> {
    DataBlock::parse(pieces.concat(), &LSNS, OFFSET, None).map(|block| block.entry_count())
}

fn varint(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint::put(&mut bytes, number);
    bytes
}

#[test]
fn good_blocks_are_read() {
    assert_eq!(parse(&[&FIRST]), Ok(1));
    assert_eq!(parse(&[&FIRST, &[1, 0, 94, 7, 2, 9]]), Ok(2), "the same key, at the last position");
    assert_eq!(
        parse(&[&FIRST, &[1, 1, 0, 0, 7, 0]]),
        Ok(2),
        "a key that begins with the one before"
    );
    assert_eq!(parse(&[&FIRST, &[0, 1, b'c', 0, 7, 0]]), Ok(2));
    assert_eq!(parse(&[&[0, 0, 0, 7, 0], &[0, 0, 1, 7, 0], &[0, 1, 0, 0, 7, 0]]), Ok(3));
}

#[test]
fn keys_and_positions_have_to_ascend() {
    for (what, second) in [
        ("a lower key", &[0, 1, b'a', 9, 7, 0][..]),
        ("the same key, written whole, at the same position", &[0, 1, b'b', 5, 7, 0]),
        ("the same key, written whole, at a later position", &[0, 1, b'b', 6, 7, 0]),
        ("a beginning of the key before", &[0, 0, 9, 7, 0]),
        ("the same key and position", &[1, 0, 0, 7, 0]),
        ("a position after the range", &[1, 0, 95, 7, 0]),
        ("a position after the range, of a new key", &[0, 1, b'c', 100, 7, 0]),
    ] {
        assert!(parse(&[&FIRST, second]).is_err(), "{what}");
    }
    let far = varint(u64::MAX);
    assert!(parse(&[&FIRST, &[1, 0], &far, &[7, 0]]).is_err(), "a position beyond all numbers");
}

#[test]
fn lengths_have_to_fit() {
    assert!(parse(&[]).is_err(), "no entry");
    assert!(parse(&[&[1, 1, b'b', 5, 7, 0]]).is_err(), "a first key that refers to one before");
    assert!(parse(&[&FIRST, &[2, 1, b'c', 5, 7, 0]]).is_err(), "more in common than there is");
    assert!(parse(&[&[0, 64], &[b'k'; 64], &[5, 7, 0]]).is_ok());
    assert!(parse(&[&[0, 65], &[b'k'; 65], &[5, 7, 0]]).is_err(), "a key that is too long");
    let huge = varint(u64::MAX);
    assert!(parse(&[&FIRST, &[0], &huge, b"c"]).is_err(), "a key beyond the block");
    assert!(parse(&[&FIRST, &huge, &[1], b"c"]).is_err(), "in common beyond the block");
    let whole = [&FIRST[..], &[0, 1, b'c', 5, 7, 6, 1, 2, 3]].concat();
    assert_eq!(parse(&[&whole]), Ok(2));
    for length in FIRST.len() + 1..whole.len() {
        assert!(parse(&[&whole[..length]]).is_err(), "cut off at {length}");
    }
}

#[test]
fn long_values_have_to_be_where_they_can_be() {
    let block = |value_bytes: u64, offset: u64, stored_bytes: u64| {
        let numbers = [varint(value_bytes << 1 | 1), varint(offset), varint(stored_bytes)].concat();
        parse(&[&FIRST[..5], &numbers])
    };
    assert_eq!(block(500, 80, 516), Ok(1));
    assert_eq!(block(500, OFFSET - 516, 516), Ok(1));
    assert!(block(500, OFFSET - 515, 516).is_err(), "it ends in the block itself");
    assert!(block(500, u64::MAX, 516).is_err(), "beyond all files");
    assert!(block(500, 80, 517).is_err(), "more than it can need");
    assert!(block(500, 80, 16).is_err(), "less than it can need");
    assert!(block(0, 80, 16).is_err(), "no value");
    assert!(block((1 << 30) + 1, 80, 9_000).is_err(), "a value that is too long");
    assert!(block(1 << 40, 80, 9_000).is_err(), "a value longer than numbers allow");
}
