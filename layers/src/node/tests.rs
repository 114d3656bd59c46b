//! Nodes that no builder writes: their checksums would be right, and still they are refused.

use super::*;

const LSNS: Range<Lsn> = Lsn::new(100)..Lsn::new(200);

/// A reference to a block of 50 bytes at an offset below 128.
fn reference(key: u8, delta: u8, offset: u8) -> [u8; 6] {
    [0, 1, key, delta, offset, 50]
}

fn parse(level: u8, references: &[&[u8]], offset: u64) -> Result<usize, &'static str> {
    let raw = [&[level][..], &references.concat()].concat();
    Node::parse(&raw, &LSNS, offset).map(|node| node.len())
}

#[test]
fn good_nodes_are_read() {
    let (first, second) = (reference(b'a', 5, 80), reference(b'b', 0, 127));
    assert_eq!(parse(0, &[&first], 130), Ok(1));
    assert_eq!(parse(0, &[], 130), Ok(0));
    // With filters in front of the leaves.
    let with_filter = |key, offset| [&reference(key, 0, offset)[..], &[offset - 20, 20]].concat();
    assert_eq!(parse(1, &[&with_filter(b'a', 100)], 150), Ok(1));
    // The same key again, at a later position.
    let near = [0, 1, b'a', 6, 0x82, 1, 50];
    assert_eq!(parse(0, &[&first, &near], 180), Ok(2));
    assert!(parse(0, &[&first, &second], 200).is_err(), "127 is within the first block");
}

#[test]
fn references_have_to_ascend_and_stand_in_front() {
    let first = reference(b'b', 5, 80);
    let later = |key: u8, delta: u8| [0, 1, key, delta, 0x82, 1, 50];
    assert_eq!(parse(0, &[&first, &later(b'c', 0)], 180), Ok(2));
    assert!(parse(0, &[&first, &later(b'c', 0)], 179).is_err(), "it ends behind the node's place");
    assert!(parse(0, &[&first, &later(b'a', 9)], 180).is_err(), "a lower key");
    assert!(parse(0, &[&first, &later(b'b', 5)], 180).is_err(), "the same place");
    assert!(parse(0, &[&first, &later(b'c', 100)], 180).is_err(), "a position after the range");
    assert!(parse(0, &[&reference(b'b', 5, 79)], 180).is_err(), "a block within the header");
    assert!(parse(0, &[&[0, 1, b'b', 5, 80, 16]], 180).is_err(), "a block without content");
    let filter_behind = [&reference(b'a', 0, 80)[..], &[100, 20]].concat();
    assert!(parse(1, &[&filter_behind], 180).is_err(), "a filter within its leaf");
}

#[test]
fn levels_and_lengths_have_to_fit() {
    assert!(Node::parse(&[], &LSNS, 100).is_err(), "not even a level");
    assert!(parse(1, &[], 100).is_err(), "nothing under a higher level");
    assert!(parse(13, &[&reference(b'a', 5, 80)], 200).is_err(), "a level that no file needs");
    let whole = reference(b'a', 5, 80);
    for length in 1..whole.len() {
        assert!(parse(0, &[&whole[..length]], 200).is_err(), "cut off at {length}");
    }
    assert!(
        parse(0, &[&[1, 1, b'a', 5, 80, 50]], 200).is_err(),
        "a first key with a part in common"
    );
    let long_key = [&[0, 65][..], &[b'k'; 65], &[5, 80, 50]].concat();
    assert!(parse(0, &[&long_key], 200).is_err(), "a key that is too long");
}
