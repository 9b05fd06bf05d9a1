//! libFuzzer's entry to [`steerage_fuzz::parse`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::parse::one(bytes));
