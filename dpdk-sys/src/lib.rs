//! Bindings to the DPDK that the system provides, made by bindgen from its headers, and shims for its inline functions
//! (`steerage_…`, described in `wrapper.h`). Everything here is as unsafe as C; `steerage::io::dpdk` is the safe side.
#![allow(unsafe_code, missing_docs)]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
