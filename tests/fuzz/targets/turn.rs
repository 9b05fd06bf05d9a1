//! libFuzzer's entry to [`steerage_fuzz::turn`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| steerage_fuzz::turn::one(bytes));
