//! Capsule's runtime as the host of workers, and capsule's header parsers against ours. Each test that starts DPDK runs in a
//! process of its own. Needs root and two CPUs: one for the runtime's main thread, one for a worker.
#![cfg(feature = "capsule")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // The helpers are as much part of the tests as the tests.

mod carry;
mod host;
mod parsers;
mod process;

#[path = "../dpdk/capture.rs"]
mod capture;
#[path = "../dpdk/child.rs"]
mod child;

use child::{child, prefix};
use steerage::io::DeviceConfig;
use steerage::io::capsule::HostConfig;
use steerage::io::dpdk::{BufferConfig, EalConfig};

/// Where these tests' workers run; the main thread has the first CPU.
const CORE: usize = 1;

fn host_config() -> HostConfig {
    let second = std::path::Path::new("/sys/devices/system/cpu").join(format!("cpu{CORE}"));
    assert!(second.exists(), "these tests need two CPUs");
    HostConfig {
        main_core: 0,
        cores: vec![CORE],
        eal: EalConfig {
            hugepages: false,
            memory_mb: 128,
            file_prefix: prefix(std::process::id()),
            args: Vec::new(),
        },
        buffers: BufferConfig { buffers: 4096, bytes: 2048 },
    }
}

fn device(name: &str, device: &str) -> DeviceConfig {
    DeviceConfig {
        name: name.into(),
        device: device.into(),
        queues: 1,
        mtu: 1500,
        rx_descriptors: 512,
        tx_descriptors: 512,
        promiscuous: true,
    }
}

/// Ends the host's `run`, as an operator's signal does. Capsule starts the turns before it looks out for signals.
fn terminate() {
    let begin = std::time::Instant::now();
    while !caught(signal_hook::consts::SIGTERM) {
        assert!(begin.elapsed().as_secs() < 5, "the host doesn't look out for signals");
        std::thread::yield_now();
    }
    signal_hook::low_level::raise(signal_hook::consts::SIGTERM).unwrap();
}

/// Whether the process has a handler for `signal` (`SigCgt` in proc_pid_status(5)).
fn caught(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}
