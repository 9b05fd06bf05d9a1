//! libFuzzer's entry to [`steerage_fuzz::decode`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::decode::one(bytes));
