#![no_main]
//! See `fuzz::layer_file`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::layer_file::run(input));
