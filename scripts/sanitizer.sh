# Sourced by scripts that run tests/fuzz: cargo with AddressSanitizer and coverage counters.
# shellcheck shell=bash

# sanitized ARGUMENTS…: cargo for the crate in tests/fuzz, in release with assertions on. The stable toolchain has all that
# this needs, but lets only those use it who ask so. Build scripts and macros, which run here, are built without.
sanitized() {
    local host flags options
    # What safe code can't do wrong needn't be looked for: it costs a third of the time.
    options=detect_stack_use_after_return=0:malloc_context_size=4:quarantine_size_mb=16
    host=$(rustc -vV | sed -n 's/^host: //p')
    flags="-Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
    flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
    (
        cd tests/fuzz || exit 1
        export RUSTC_BOOTSTRAP=1 RUSTFLAGS=$flags ASAN_OPTIONS=$options CARGO_BUILD_TARGET=$host
        export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}/fuzz
        cargo "$@"
    )
}
