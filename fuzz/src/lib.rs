//! Fuzz targets: what must hold for any bytes whatever from disk, network or another process.
//!
//! A target is a function that takes bytes and panics if a property is broken, and some inputs that
//! are well-formed, from which mutations reach deeper than from noise. The same functions are run by
//! the smoke test (`tests/smoke.rs`, in `make test`) with a simple mutator of our own, and by
//! libFuzzer, guided by coverage, for as long as one likes (`make fuzz`).

#![forbid(unsafe_code)]
// A broken property is a panic: that is what fuzzers look for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod base_backup;
pub mod block_image;
pub mod file_names;
pub mod layer_file;
pub mod mutate;
pub mod page_stream;
pub mod small_files;
pub mod wal_record;
pub mod wal_stream;

/// One target.
pub struct Target {
    /// Its name, as `make fuzz TARGET=` has it.
    pub name: &'static str,
    /// Panics if a property does not hold for the input.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the smoke test tries: some targets take longer for one than others.
    pub smoke_inputs: u32,
}

/// All targets.
pub const TARGETS: [Target; 8] = [
    Target {
        name: "wal_stream",
        run: wal_stream::run,
        seeds: wal_stream::seeds,
        smoke_inputs: 20_000,
    },
    Target {
        name: "wal_record",
        run: wal_record::run,
        seeds: wal_record::seeds,
        smoke_inputs: 60_000,
    },
    Target {
        name: "block_image",
        run: block_image::run,
        seeds: block_image::seeds,
        smoke_inputs: 40_000,
    },
    Target {
        name: "page_stream",
        run: page_stream::run,
        seeds: page_stream::seeds,
        smoke_inputs: 60_000,
    },
    Target {
        name: "base_backup",
        run: base_backup::run,
        seeds: base_backup::seeds,
        smoke_inputs: 1_000,
    },
    Target {
        name: "file_names",
        run: file_names::run,
        seeds: file_names::seeds,
        smoke_inputs: 100_000,
    },
    Target {
        name: "small_files",
        run: small_files::run,
        seeds: small_files::seeds,
        smoke_inputs: 4_000,
    },
    Target {
        name: "layer_file",
        run: layer_file::run,
        seeds: layer_file::seeds,
        smoke_inputs: 6_000,
    },
];
