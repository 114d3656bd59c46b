#![no_main]
//! See `fuzz::page_stream`.

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::page_stream::run(input));
