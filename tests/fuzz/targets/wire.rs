//! libFuzzer's entry to [`steerage_fuzz::wire`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::wire::one(bytes));
