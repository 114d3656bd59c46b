#![no_main]
//! See `fuzz::block_image`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::block_image::run(input));
