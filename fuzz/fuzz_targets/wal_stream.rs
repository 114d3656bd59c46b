#![no_main]
//! See `fuzz::wal_stream`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::wal_stream::run(input));
