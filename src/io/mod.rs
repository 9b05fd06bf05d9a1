//! Packet devices: memory (tests, benches), pcap files, DPDK.

#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod pcap;

use crate::path::port::{DeviceMonitor, Port};

/// One device as the configuration asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The port's name in the configuration, for messages.
    pub name: String,
    /// The device: a PCI address (`0000:3b:00.0`), a DPDK virtual device with its arguments
    /// (`net_af_xdp0,iface=front`), `memory`, or `pcap:IN:OUT` (files).
    pub device: String,
    /// Receive and transmit queue pairs, one for each worker that polls the device.
    pub queues: u16,
    /// Largest layer-3 packet, in bytes.
    pub mtu: u16,
    /// Descriptors of a receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of a transmit queue.
    pub tx_descriptors: u16,
    /// Receive frames for any Ethernet address.
    pub promiscuous: bool,
}

/// A device that is up: one [`Port`] for each queue pair, in queue order.
pub struct OpenDevice<P: Port> {
    /// The queue pairs.
    pub queues: Vec<P>,
    /// Its counters.
    pub monitor: Box<dyn DeviceMonitor>,
}
