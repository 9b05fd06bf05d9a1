//! Packet devices: memory (tests, benches), pcap files, DPDK, DPDK under capsule's runtime.

#[cfg(feature = "capsule")]
pub mod capsule;
#[cfg(feature = "dpdk")]
pub mod dpdk;
#[cfg(feature = "sim")]
pub mod fault;
pub mod memory;
pub mod pcap;

/// Least bytes of packet data in a buffer: beyond what a stage looks at, room for an answer that quotes a packet.
pub const LEAST_BUFFER_BYTES: u16 = 512;

pub use crate::path::port::{DeviceConfig, OpenDevice};
