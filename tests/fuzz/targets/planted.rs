//! libFuzzer's entry to [`steerage_fuzz::planted`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::planted::one(bytes));
