#![no_main]
//! See `fuzz::small_files`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::small_files::run(input));
