#![no_main]
//! See `fuzz::file_names`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::file_names::run(input));
