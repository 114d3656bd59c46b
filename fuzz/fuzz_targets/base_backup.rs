#![no_main]
//! See `fuzz::base_backup`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::base_backup::run(input));
