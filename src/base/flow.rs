//! The canonical tuple that names a flow.

use super::Addr;
use std::fmt;

/// Source, destination, ports and protocol of one direction of a flow, either family: 40 bytes, no padding left to chance,
/// so that keys compare and hash as five words.
#[derive(Clone, Copy, Eq, Default)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port (host order); zero for protocols without ports.
    pub src_port: u16,
    /// Destination port (host order).
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    zero: [u8; 3],
}

impl PartialEq for FlowKey {
    /// In words and without a branch: looked up keys mostly are equal.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let word = |a: &Addr| u128::from_ne_bytes(a.0);
        let addresses = (word(&self.src) ^ word(&other.src)) | (word(&self.dst) ^ word(&other.dst));
        (addresses as u64 | (addresses >> 64) as u64 | (self.tail() ^ other.tail())) == 0
    }
}

impl FlowKey {
    /// Ports and protocol in one word.
    #[inline(always)]
    pub(super) fn tail(&self) -> u64 {
        u64::from(self.src_port) | u64::from(self.dst_port) << 16 | u64::from(self.protocol) << 32
    }

    /// No flow's.
    pub const NONE: Self = Self {
        src: Addr::UNSPECIFIED,
        dst: Addr::UNSPECIFIED,
        src_port: 0,
        dst_port: 0,
        protocol: 0,
        zero: [0; 3],
    };

    /// A key from its parts.
    #[inline(always)]
    pub fn new(src: Addr, dst: Addr, src_port: u16, dst_port: u16, protocol: u8) -> Self {
        Self { src, dst, src_port, dst_port, protocol, zero: [0; 3] }
    }

    /// The same flow seen from the other side.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self::new(self.dst, self.src, self.dst_port, self.src_port, self.protocol)
    }

    /// Whether it is an IPv4 flow.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.src.is_v4()
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]:{} -> [{}]:{}", self.protocol, self.src, self.src_port, self.dst, self.dst_port)
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40);
