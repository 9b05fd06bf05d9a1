//! DPDK's own messages: led into `tracing`, and the last ones kept, so that an error can say what DPDK said.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Messages kept.
const KEPT: usize = 16;

static LAST: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

fn last() -> MutexGuard<'static, VecDeque<String>> {
    LAST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes DPDK's messages away from standard error and syslog. To be called once, before anything else of DPDK.
pub(super) fn divert() {
    // SAFETY: `write` has the type and the behaviour that fopencookie(3) asks of it, and lives for ever.
    let stream = unsafe { dpdk_sys::steerage_log_stream(Some(write)) };
    if !stream.is_null() {
        // SAFETY: the stream was just opened and is never closed.
        unsafe { dpdk_sys::rte_openlog_stream(stream) };
    }
}

/// Takes the messages of libbpf and libxdp, which AF_XDP's driver loads, away from standard error. To be called when the
/// drivers are loaded.
pub(super) fn divert_libraries() {
    // SAFETY: `library_line` has the type that is asked for, and lives for ever.
    unsafe { dpdk_sys::steerage_log_libraries(Some(library_line)) };
}

/// A message of libbpf or libxdp. They try what older kernels lack and complain of it, so only what the kernel said itself
/// is kept for errors.
unsafe extern "C" fn library_line(text: *const c_char) {
    // SAFETY: the shim hands over a string that lives as long as the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if line.contains("Kernel error message") {
            keep(dpdk_sys::RTE_LOG_ERR as c_int, line);
        } else {
            tracing::debug!(target: "dpdk", "{line}");
        }
    }
}

/// Forgets what was said so far.
pub(super) fn forget() {
    last().clear();
}

/// What DPDK said since [`forget`], in one line; `fallback` if it said nothing.
pub(super) fn said(fallback: &str) -> String {
    let lines = last();
    if lines.is_empty() {
        fallback.to_owned()
    } else {
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }
}

/// The stream's write function: one call for each message.
unsafe extern "C" fn write(_cookie: *mut c_void, bytes: *const c_char, length: usize) -> isize {
    if bytes.is_null() || length == 0 {
        return 0;
    }
    // SAFETY: fopencookie(3) hands over `length` readable bytes for the time of the call.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    // SAFETY: reads a thread-local that DPDK sets around each message.
    let level = unsafe { dpdk_sys::rte_log_cur_msg_loglevel() };
    for line in String::from_utf8_lossy(bytes).lines().map(str::trim).filter(|l| !l.is_empty()) {
        keep(level, line);
    }
    length as isize
}

fn keep(level: c_int, line: &str) {
    // Level 0 is a message before DPDK's log is set up; those are kept too.
    if level <= dpdk_sys::RTE_LOG_ERR as c_int {
        tracing::debug!(target: "dpdk", "{line}");
    } else {
        tracing::trace!(target: "dpdk", "{line}");
    }
    let mut last = last();
    if last.len() == KEPT {
        last.pop_front();
    }
    last.push_back(line.to_owned());
}
