//! The fuzzers' own tests: the committed inputs, a short guided search of each target, ten million nasty packets; and for
//! each a control. Run by `scripts/test`, which builds them with AddressSanitizer.

mod nasty;
mod replay;
mod search;

/// The folder of the crate.
fn home() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// AddressSanitizer maps a shadow of the whole address space, and nothing else here is that large.
#[test]
fn the_sanitizer_is_there() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
    let kilobytes: u64 = size.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(kilobytes > 10 << 30, "only {kilobytes} kB: not built by scripts/fuzz or scripts/test");
}
