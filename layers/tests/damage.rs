//! Files in which a byte is another one, that are cut off, or in which blocks changed places: it is
//! noticed, and nothing wrong is ever given out.

#![allow(clippy::unwrap_used)]

mod support;

use layers::{BlockCache, Compression, KeyRange, Owner, ReadError, Reader};
use support::*;

/// Small, but with everything: several leaves would be too large, so one of blocks, runs, and a filter.
fn small_files() -> Vec<(Model, Vec<u8>)> {
    let mut model = Model::new();
    for n in 0..12_u64 {
        let key = format!("base/5/{}", n / 3).into_bytes();
        model.insert((key, 100 + n), (n as u8, vec![n as u8; 20 * n as usize % 130]));
    }
    model.insert((b"base/5/1".to_vec(), 190), (9, noise(3, 300)));
    model.insert((b"pg_xact".to_vec(), 180), (1, vec![7; 700]));
    let mut files = COMPRESSIONS
        .map(|compression| {
            (model.clone(), build(delta(100..200), &options(compression, 256), &model))
        })
        .to_vec();
    let values: Model = (0..5).map(|n| ((vec![b'k', n], 50), (n, vec![n; 60]))).collect();
    files.push((values.clone(), build(image(50), &options(Compression::Lz4, 256), &values)));
    files.push((Model::new(), build(delta(1..2), &options(Compression::None, 256), &Model::new())));
    files
}

/// Whatever can be read is right, and an error is of the right kind.
fn nothing_wrong(model: &Model, file: &[u8]) {
    let reader = match open(file) {
        Ok(reader) => reader,
        Err(error) => return assert!(is_damage(&error), "{error:?}"),
    };
    match scan(&reader, KeyRange::ALL) {
        Ok(found) => assert_eq!(found, entries(model)),
        Err(error) => assert!(is_damage(&error), "{error:?}"),
    }
    // The way goes on behind what is damaged.
    let mut way = reader.walk();
    if let Some((last, _)) = model.keys().next_back() {
        way.read_ahead(last);
    }
    for (key, _) in model.keys() {
        for found in [get(&reader, key, u64::MAX), walk(&mut way, key, u64::MAX)] {
            match found {
                Ok(found) => assert_eq!(found, expected_versions(model, key, u64::MAX)),
                Err(error) => assert!(is_damage(&error), "{error:?}"),
            }
        }
    }
}

fn is_damage(error: &ReadError) -> bool {
    matches!(error, ReadError::Corrupt { .. })
}

fn verify(file: &[u8]) -> Result<(), ReadError> {
    open(file)?.verify().map(|_| ())
}

#[test]
fn each_byte_matters() {
    for (model, file) in small_files() {
        verify(&file).unwrap();
        for at in 0..file.len() {
            for flip in [1 << (at % 8), 0xFF] {
                let mut damaged = file.clone();
                damaged[at] ^= flip;
                match verify(&damaged) {
                    Err(error) if is_damage(&error) => {}
                    other => panic!("byte {at} of {} became another: {other:?}", file.len()),
                }
                nothing_wrong(&model, &damaged);
            }
        }
    }
}

#[test]
fn each_length_but_the_right_one_is_noticed() {
    for (_, file) in small_files() {
        for length in 0..file.len() {
            let error = open(&file[..length]).map(|_| ()).unwrap_err();
            assert!(is_damage(&error), "{length} of {}: {error:?}", file.len());
        }
        for more in [1, 16, 248, 300] {
            let mut longer = file.clone();
            longer.resize(file.len() + more, 0);
            assert!(is_damage(&open(&longer).map(|_| ()).unwrap_err()));
        }
        // The end of the file once more behind it.
        let twice = [&file[..], &file[file.len() - 248..]].concat();
        assert!(is_damage(&open(&twice).map(|_| ()).unwrap_err()));
    }
}

/// Blocks of equal length that change places have good checksums of their own, at other places.
#[test]
fn a_block_in_the_place_of_another_is_noticed() {
    let mut model = Model::new();
    for n in 0..8_u8 {
        model.insert((vec![n], 100), (0, noise(n.into(), 200)));
    }
    let file = build(delta(100..200), &options(Compression::None, 256), &model);
    let needle = |n: u8| {
        let value = noise(n.into(), 200);
        file.windows(200).position(|window| window == value).unwrap()
    };
    let length = needle(1) - needle(0);
    assert_eq!(needle(2) - needle(1), length);
    let before_value = length - 200;
    let (first, second) = (needle(0) - before_value, needle(1) - before_value);
    let mut swapped = file.clone();
    swapped.copy_within(first..first + length, second);
    swapped[first..first + length].copy_from_slice(&file[second..second + length]);
    assert!(is_damage(&verify(&swapped).unwrap_err()));
    nothing_wrong(&model, &swapped);

    // The same block of another file.
    let mut spec = delta(100..200);
    spec.file.0[3] ^= 1;
    let other = build(spec, &options(Compression::None, 256), &model);
    assert_eq!(other.len(), file.len());
    let mut mixed = file.clone();
    mixed[first..first + length].copy_from_slice(&other[first..first + length]);
    assert!(is_damage(&verify(&mixed).unwrap_err()));
    let end = file.len() - 248;
    let footer_of_other = [&file[..end], &other[end..]].concat();
    assert!(is_damage(&open(&footer_of_other).map(|_| ()).unwrap_err()));
}

/// Bytes that nothing refers to are under no checksum, so they must not be there, even if all else is
/// made to fit: here between the filter and the root.
#[test]
fn bytes_between_blocks_are_noticed() {
    let (_, file) = small_files().swap_remove(0);
    let field = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let footer = file.len() - 248;
    let root = field(footer + 32) as usize;
    for gap in [0, 1, 16, 100] {
        let zeros = vec![0; gap];
        let mut changed = [&file[..root], &zeros, &file[root..]].concat();
        let (root, footer) = (root + gap, footer + gap);
        let mut checksum = crc32c::crc32c(&FILE.0);
        checksum = crc32c::crc32c_append(checksum, &(root as u64).to_le_bytes());
        checksum = crc32c::crc32c_append(checksum, &changed[root..root + 12]);
        checksum = crc32c::crc32c_append(checksum, &changed[root + 16..footer]);
        changed[root + 12..root + 16].copy_from_slice(&checksum.to_le_bytes());
        let length = changed.len() as u64;
        changed[footer + 24..footer + 32].copy_from_slice(&length.to_le_bytes());
        changed[footer + 32..footer + 40].copy_from_slice(&(root as u64).to_le_bytes());
        let checksum = crc32c::crc32c(&changed[footer..footer + 244]).to_le_bytes();
        changed[footer + 244..].copy_from_slice(&checksum);
        match verify(&changed) {
            Ok(()) => assert_eq!(gap, 0),
            Err(error) => assert!(gap > 0 && is_damage(&error), "{gap}: {error:?}"),
        }
    }
}

#[test]
fn a_newer_format_and_a_wrong_owner_are_told_apart_from_damage() {
    let (_, file) = small_files().swap_remove(0);
    let mut newer = file.clone();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&newer[..12]).to_le_bytes();
    newer[12..16].copy_from_slice(&checksum);
    let error = open(&newer).map(|_| ()).unwrap_err();
    assert!(matches!(error, ReadError::NewerFormat { found: 2, known: 1 }), "{error:?}");

    let other = Owner([9; 16]);
    let error = Reader::open(&file[..], other, &BlockCache::new(0)).map(|_| ()).unwrap_err();
    assert!(matches!(error, ReadError::WrongOwner { expected, found }
        if expected == other && found == OWNER));
}

/// What fails is the source, not the file.
#[test]
fn an_error_of_the_source_is_not_damage() {
    struct Failing;
    impl layers::ReadAt for Failing {
        fn read_exact_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Err(std::io::Error::other("no"))
        }
        fn length(&self) -> std::io::Result<u64> {
            Ok(10_000)
        }
    }
    let error = Reader::open(Failing, OWNER, &BlockCache::new(0)).map(|_| ()).unwrap_err();
    assert!(matches!(error, ReadError::Io { offset: 0, .. }), "{error:?}");
}
