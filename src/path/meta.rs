//! What the stages know of a packet, beside the frame.

use super::port::Burst;
use crate::base::limits::BURST;
use crate::base::{FlowHash, FlowKey, InterfaceId};
use crate::view::Packet;
use crate::wire::backplane::Stage;
use arrayvec::ArrayVec;

/// What stands behind a packet's IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP or UDP, with ports in the key.
    Flow,
    /// ICMP, without.
    Icmp,
}

/// Facts of one packet. The frame starts at the IP header and ends where that says.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// The tuple.
    pub key: FlowKey,
    /// Its hash; zero until someone needs it.
    pub hash: FlowHash,
    /// What stands behind the IP header.
    pub kind: Kind,
    /// How far the packet has come.
    pub stage: Stage,
    /// Where it came in, if it did so on this node.
    pub interface: InterfaceId,
    /// TCP control bits; zero for UDP.
    pub tcp_flags: u8,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// DSCP and ECN.
    pub class: u8,
    /// The packet must not be fragmented (always so in IPv6).
    pub dont_fragment: bool,
    /// Offset of the transport header.
    pub l4: u16,
    /// Bytes of the packet.
    pub len: u16,
}

impl Meta {
    /// What headers in front of the packet need to know of it.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet { len: usize::from(self.len), v4: self.key.is_v4(), class: self.class, hash: self.hash }
    }
}

/// A burst of packets with their facts.
pub struct Batch<F> {
    /// The frames.
    pub frames: Burst<F>,
    /// Their facts, in the same order.
    pub meta: ArrayVec<Meta, BURST>,
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Self { frames: ArrayVec::new(), meta: ArrayVec::new() }
    }
}

impl<F> Batch<F> {
    /// Adds a packet; there must be room.
    #[inline]
    pub fn push(&mut self, frame: F, meta: Meta) {
        self.frames.push(frame);
        self.meta.push(meta);
    }

    /// Packets that still fit.
    #[inline]
    pub fn room(&self) -> usize {
        self.frames.remaining_capacity()
    }
}
