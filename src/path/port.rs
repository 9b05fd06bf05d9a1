//! What the path needs of a packet device. The implementations stand in `io`.

use crate::base::Mac;
use crate::base::limits::BURST;
use arrayvec::ArrayVec;

/// Up to [`BURST`] frames.
pub type Burst<F> = ArrayVec<F, BURST>;

/// What the device says of a received frame's IPv4 header checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxChecksum {
    /// Not looked at: software has to.
    Unknown,
    /// Right.
    Good,
    /// Wrong.
    Bad,
}

/// A packet buffer. Dropping it gives the memory back to its pool.
pub trait Frame: Sized + Send + 'static {
    /// The bytes of the first segment: the whole frame, or at least [`HEAD_BYTES`](crate::base::limits::HEAD_BYTES) of it.
    fn head(&self) -> &[u8];
    /// The same, writable.
    fn head_mut(&mut self) -> &mut [u8];
    /// Bytes of the whole frame, all segments.
    fn len(&self) -> usize;
    /// Whether the frame holds no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Moves the start `n` bytes to the front; the new bytes hold anything. `false`, and no change, without headroom.
    #[must_use]
    fn grow_front(&mut self, n: usize) -> bool;
    /// Moves the start `n` bytes to the back. `false`, and no change, if the first segment is shorter.
    #[must_use]
    fn shrink_front(&mut self, n: usize) -> bool;
    /// Appends `n` bytes of any content to a frame of one segment. `false`, and no change, without tailroom.
    #[must_use]
    fn grow_back(&mut self, n: usize) -> bool;
    /// Cuts the frame to `len` bytes (Ethernet padding, a quoted packet); longer than it is: no change.
    fn truncate(&mut self, len: usize);
    /// What the device says of the IPv4 header checksum.
    fn rx_checksum(&self) -> RxChecksum;
}

/// Which buffers a frame that we originate comes from. Control frames have their own, so that a flood of data can't
/// starve them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Answers to packets: ARP, ND, ICMP.
    Data,
    /// Heartbeats and state.
    Control,
}

/// What a port is and can do; fixed after start-up.
#[derive(Clone, Debug)]
pub struct PortCaps {
    /// Its Ethernet address.
    pub mac: Mac,
    /// Largest layer-3 packet it carries, in bytes.
    pub mtu: u16,
}

/// One worker's queue pair of a packet device.
pub trait Port: Send + 'static {
    /// Its buffers. All ports of a node share one kind, so that a frame received here can leave there.
    type Frame: Frame;
    /// What it is and can do.
    fn caps(&self) -> &PortCaps;
    /// Appends received frames to `into`, as many as it has room for; returns how many. Never waits.
    fn rx(&mut self, into: &mut Burst<Self::Frame>) -> usize;
    /// Sends all of `from` and leaves it empty; returns how many the device did not take (they are freed). Never waits.
    fn tx(&mut self, from: &mut Burst<Self::Frame>) -> usize;
    /// An empty frame with [`HEADROOM`](crate::base::limits::HEADROOM) in front, or none if the pool is used up.
    fn alloc(&mut self, pool: Pool) -> Option<Self::Frame>;
}

/// A device's own counters and link, read by the management thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceStats {
    /// The carrier is there.
    pub link_up: bool,
    /// Link speed in Mbit/s; zero where unknown.
    pub link_mbps: u32,
    /// Frames received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that the device dropped because no one fetched them.
    pub rx_missed: u64,
    /// Frames received with an error.
    pub rx_errors: u64,
    /// Receive buffers that could not be allocated.
    pub rx_no_buffer: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
}

/// Reads a device's counters. Used by one thread at a time, beside the workers.
pub trait DeviceMonitor: Send {
    /// The counters now.
    fn stats(&mut self) -> DeviceStats;
}

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
