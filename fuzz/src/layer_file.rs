//! Layer files, as they are and with their checksums made right: a reader that believes in a file must
//! still not trip over it.
//!
//! Whatever is given out is in order and within the file's limits; a file that `verify` finds good gives
//! the same by key as by scan.

use std::collections::BTreeMap;

use layers::{
    BlockCache, Builder, Compression, Entry, FileId, KeyRange, LayerKind, LayerSpec, Lsn, Options,
    Owner, Reader,
};

const OWNER: Owner = Owner(*b"the fuzzer's own");
/// Sizes that FORMAT.md gives.
const HEADER_BYTES: usize = 80;
const BLOCK_HEADER_BYTES: usize = 16;
const FOOTER_BYTES: usize = 248;
/// Entries that are looked at; compressed blocks can have very many. What they have in common with those
/// before them costs nothing in the file.
const ENTRIES_MAX: usize = 20_000;

/// Whether the checksums are made right, then a file.
pub fn run(input: &[u8]) {
    let Some((&mode, file)) = input.split_first() else { return };
    let mut file = file.to_vec();
    if mode % 4 != 0 {
        seal(&mut file);
    }
    let cache = BlockCache::new(1 << 20);
    let Ok(reader) = Reader::open(&file[..], OWNER, &cache) else { return };
    let good = reader.verify().is_ok();
    let mut found = Vec::new();
    for entry in reader.scan(KeyRange::ALL).take(ENTRIES_MAX) {
        let Ok(entry) = entry else {
            assert!(!good, "a file that was verified cannot be scanned");
            break;
        };
        let in_order = |last: &Entry| (&last.key, last.lsn) < (&entry.key, entry.lsn);
        assert!(found.last().is_none_or(in_order), "a scan is out of order");
        assert!(reader.lsns().contains(&entry.lsn), "a position outside the file's range");
        assert!(entry.key.len() <= 64);
        found.push(entry);
    }
    let whole = found.len() < ENTRIES_MAX;
    let mut by_key: BTreeMap<&[u8], Vec<&Entry>> = BTreeMap::new();
    for entry in &found {
        by_key.entry(&entry.key).or_default().push(entry);
    }
    for (key, expected) in by_key.into_iter().take(200) {
        let versions = reader.get(key, Lsn::MAX).collect::<Result<Vec<_>, _>>();
        match versions {
            Err(_) => assert!(!good, "a file that was verified cannot be read by key"),
            Ok(versions) if good && whole => {
                let same = versions
                    .iter()
                    .rev()
                    .map(|v| (v.lsn, v.kind, &v.value))
                    .eq(expected.iter().map(|e| (e.lsn, e.kind, &e.value)));
                assert!(same, "a key has other versions than a scan gives");
            }
            Ok(versions) => assert!(versions.is_sorted_by(|a, b| a.lsn > b.lsn)),
        }
    }
}

/// Makes all checksums right, by the format's description: of the header, of as many blocks as stand one
/// behind the other, and of the footer.
fn seal(file: &mut [u8]) {
    if file.len() < HEADER_BYTES + FOOTER_BYTES {
        return;
    }
    let end = file.len() - FOOTER_BYTES;
    checksum_of_all_before(file, 12);
    checksum_of_all_before(file, HEADER_BYTES - 4);
    let id: [u8; 16] = file[16..32].try_into().unwrap();
    let mut offset = HEADER_BYTES;
    while offset + BLOCK_HEADER_BYTES <= end {
        let stored = u32::from_le_bytes(file[offset + 8..offset + 12].try_into().unwrap());
        let next = offset + BLOCK_HEADER_BYTES + stored as usize;
        if next > end {
            break;
        }
        let mut checksum = crc32c::crc32c(&id);
        checksum = crc32c::crc32c_append(checksum, &(offset as u64).to_le_bytes());
        checksum = crc32c::crc32c_append(checksum, &file[offset..offset + 12]);
        checksum = crc32c::crc32c_append(checksum, &file[offset + 16..next]);
        file[offset + 12..offset + 16].copy_from_slice(&checksum.to_le_bytes());
        offset = next;
    }
    checksum_of_all_before(&mut file[end..], FOOTER_BYTES - 4);
}

fn checksum_of_all_before(bytes: &mut [u8], at: usize) {
    let checksum = crc32c::crc32c(&bytes[..at]).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&checksum);
}

/// Files of both kinds, of all codecs, with long values and with more than one level of index.
pub fn seeds() -> Vec<Vec<u8>> {
    let none = Compression::None;
    let zstd = Compression::Zstd { level: 1 };
    [(none, 12), (none, 200), (Compression::Lz4, 60), (zstd, 60), (none, 0)]
        .into_iter()
        .flat_map(|(compression, keys)| {
            [LayerKind::Delta, LayerKind::Image]
                .map(|kind| [vec![1], layer(kind, compression, keys)].concat())
        })
        .collect()
}

fn layer(kind: LayerKind, compression: Compression, keys: u32) -> Vec<u8> {
    let versions = match kind {
        LayerKind::Delta => 3,
        LayerKind::Image => 1,
    };
    let lsns = Lsn::new(100)..Lsn::new(100 + versions);
    let spec = LayerSpec { file: FileId([7; 16]), owner: OWNER, kind, lsns };
    let options = Options { compression, block_bytes: 256 };
    let mut builder = Builder::new(Vec::new(), spec, &options).unwrap();
    for n in 0..keys {
        let key = [&n.to_be_bytes()[..], &[n as u8; 50]].concat();
        for version in 0..versions {
            let length = if n == 3 { 300 } else { (n % 40) as usize };
            builder.add(&key, Lsn::new(100 + version), 1, &vec![n as u8; length]).unwrap();
        }
    }
    builder.finish(KeyRange::ALL).unwrap().1
}
