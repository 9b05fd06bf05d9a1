//! Packet devices: memory (tests, benches), pcap files, DPDK.

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod pcap;

pub use crate::path::port::{DeviceConfig, OpenDevice};
