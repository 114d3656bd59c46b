//! How small, and how fast, are layer files of real pages and WAL records, by codec and block size?
//!
//! `cargo run --release -p layers --example throughput -- DATADIR`, with the data directory of a stopped
//! PostgreSQL server: an image layer of the pages in `base`, and a delta layer of the records in `pg_wal`,
//! under each page that they reference. README.md has figures.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use layers::{
    BlockCache, Builder, Compression, FileId, KeyRange, LayerKind, LayerSpec, Lsn, Options, Owner,
    Reader,
};
use postgres_formats::BLCKSZ;
use postgres_formats::lsn::WalSegmentSize;
use postgres_formats::wal::{DecodedRecord, WalStreamDecoder};

type Failure = Box<dyn std::error::Error>;
type Entries = BTreeMap<(Vec<u8>, Lsn), Bytes>;

const OWNER: Owner = Owner([1; 16]);
const GETS: usize = 20_000;
/// As much as is looked at of each.
const CONTENT_BYTES_MAX: usize = 400 << 20;

fn main() -> Result<(), Failure> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: throughput DATADIR")?);
    let pages = pages(&dir.join("base"))?;
    let records = records(&dir.join("pg_wal"))?;
    println!("content  compression          block  stored   build   scan     get  cached get");
    println!("                                KiB       %    MB/s   MB/s  1000/s      1000/s");
    for (name, kind, entries) in
        [("pages", LayerKind::Image, &pages), ("records", LayerKind::Delta, &records)]
    {
        let bytes = entries.values().map(Bytes::len).sum::<usize>();
        println!("{name}: {} entries, {} MB", entries.len(), bytes / 1_000_000);
        for compression in [
            Compression::None,
            Compression::Lz4,
            Compression::Zstd { level: 1 },
            Compression::Zstd { level: 3 },
            Compression::Zstd { level: 6 },
            Compression::Adaptive,
        ] {
            measure(name, kind, entries, compression, 32)?;
        }
        for kib in [8, 16, 64] {
            measure(name, kind, entries, Compression::Lz4, kib)?;
            measure(name, kind, entries, Compression::Zstd { level: 1 }, kib)?;
            measure(name, kind, entries, Compression::Adaptive, kib)?;
        }
    }
    Ok(())
}

fn measure(
    name: &str,
    kind: LayerKind,
    entries: &Entries,
    compression: Compression,
    block_kib: usize,
) -> Result<(), Failure> {
    let lsns = match kind {
        LayerKind::Image => Lsn::new(1)..Lsn::new(2),
        LayerKind::Delta => Lsn::new(1)..Lsn::MAX,
    };
    let spec = LayerSpec { file: FileId([2; 16]), owner: OWNER, kind, lsns };
    let options = Options { compression, block_bytes: block_kib * 1024 };
    let started = cpu_seconds()?;
    let mut builder = Builder::new(Vec::new(), spec, &options)?;
    for ((key, lsn), value) in entries {
        builder.add(key, *lsn, 0, value)?;
    }
    let (summary, file) = builder.finish(KeyRange::ALL)?;
    let build = cpu_seconds()? - started;

    let reader = Reader::open(&file[..], OWNER, &BlockCache::new(0))?;
    let started = cpu_seconds()?;
    for entry in reader.scan(KeyRange::ALL) {
        black_box(entry?);
    }
    let scan = cpu_seconds()? - started;

    let mut keys = entries.keys().map(|(key, _)| key).collect::<Vec<_>>();
    keys.dedup();
    // The index and the filters fit, few of the blocks do; then all.
    let cold = gets(&file, &keys, 4 << 20)?;
    let warm = gets(&file, &keys, 4 << 30)?;
    let megabytes = summary.raw_bytes as f64 / 1e6;
    println!(
        "{name:8} {:20} {block_kib:5} {:7.1} {:7.0} {:6.0} {:7.1} {:11.1}",
        format!("{compression:?}"),
        100.0 * summary.file_bytes as f64 / summary.raw_bytes as f64,
        megabytes / build,
        megabytes / scan,
        cold / 1e3,
        warm / 1e3,
    );
    Ok(())
}

/// Newest versions per second, of keys all over the file; the second time round.
fn gets(file: &[u8], keys: &[&Vec<u8>], cache_bytes: u64) -> Result<f64, Failure> {
    let cache = BlockCache::new(cache_bytes);
    let reader = Reader::open(file, OWNER, &cache)?;
    let mut seconds = 0.0;
    for _ in 0..2 {
        let started = cpu_seconds()?;
        for n in 0..GETS {
            let key = keys[n.wrapping_mul(7_919_777) % keys.len()];
            let newest = reader.get(key, Lsn::MAX).next().ok_or("a key has no version")?;
            black_box(newest?);
        }
        seconds = cpu_seconds()? - started;
    }
    Ok(GETS as f64 / seconds)
}

/// Seconds for which this thread has had a processor: what else runs here has little influence on it.
fn cpu_seconds() -> Result<f64, Failure> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split_whitespace().next().ok_or("no times of threads")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

fn key(numbers: [u32; 4], fork: u8) -> Vec<u8> {
    let [spc, db, rel, block] = numbers.map(u32::to_be_bytes);
    [&spc[..], &db, &rel, &[fork], &block].concat()
}

/// The pages of all files of main forks.
fn pages(base: &Path) -> Result<Entries, Failure> {
    let mut entries = Entries::new();
    let mut bytes = 0;
    for db in fs::read_dir(base)? {
        let db = db?;
        let Ok(db_number) = db.file_name().to_string_lossy().parse() else { continue };
        for rel in fs::read_dir(db.path())? {
            let rel = rel?;
            let Ok(rel_number) = rel.file_name().to_string_lossy().parse() else { continue };
            if bytes > CONTENT_BYTES_MAX {
                return Ok(entries);
            }
            let content = Bytes::from(fs::read(rel.path())?);
            bytes += content.len();
            for block in 0..content.len() / BLCKSZ {
                let page = content.slice(block * BLCKSZ..(block + 1) * BLCKSZ);
                let key = key([1663, db_number, rel_number, block as u32], 0);
                entries.insert((key, Lsn::new(1)), page);
            }
        }
    }
    Ok(entries)
}

/// The records of all segments, under each page that they reference.
fn records(wal: &Path) -> Result<Entries, Failure> {
    let mut names: Vec<String> = Vec::new();
    for file in fs::read_dir(wal)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        if name.len() == 24 {
            names.push(name);
        }
    }
    names.sort();
    let first = names.first().ok_or("there is no WAL")?;
    let number = |range| u64::from_str_radix(&first[range], 16);
    let segment = WalSegmentSize::DEFAULT;
    let start = (number(8..16)? << 32) + number(16..24)? * segment.bytes();
    let mut decoder = WalStreamDecoder::new(Lsn::new(start), segment, None);
    let mut entries = Entries::new();
    let mut bytes = 0;
    for name in names {
        let content = fs::read(wal.join(name))?;
        // The end of WAL looks like damage.
        if decoder.feed(decoder.expected_lsn(), &content).is_err() {
            break;
        }
        while let Ok(Some(record)) = decoder.next_record() {
            let decoded = DecodedRecord::parse(&record.bytes)?;
            for block in &decoded.blocks {
                let rel = block.rel;
                let numbers = [rel.spc.0, rel.db.0, rel.rel.0, block.block.0];
                let key = key(numbers, rel.fork as u8);
                bytes += record.bytes.len();
                entries.insert((key, record.end), record.bytes.clone());
            }
        }
        if bytes > CONTENT_BYTES_MAX {
            break;
        }
    }
    Ok(entries)
}
