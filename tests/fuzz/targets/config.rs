//! libFuzzer's entry to [`steerage_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::config::one(bytes));
