#![no_main]
//! See `fuzz::wal_record`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::wal_record::run(input));
