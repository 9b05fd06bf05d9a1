//! What the stages know of a packet, beside the frame.

use super::port::Burst;
use crate::base::limits::BURST;
use crate::base::{FlowHash, FlowKey, InterfaceId, VirtualServerId};
use crate::view::Packet;
use crate::wire::backplane::Stage;
use arrayvec::ArrayVec;
use std::cmp::Ordering;
use std::num::NonZeroU32;

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
    /// How what is decided, as far as who steered it here knows, compares to what this node goes by.
    pub sender_knows: Ordering,
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
    /// The virtual server that balances it on this node without state, if that is known to be so.
    pub local: Option<LocalServer>,
}

/// A virtual server's id in a shape that leaves room for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalServer(NonZeroU32);

impl LocalServer {
    /// A virtual server that any node balances.
    #[inline(always)]
    pub fn new(id: VirtualServerId) -> Option<Self> {
        NonZeroU32::new(id.0.wrapping_add(1)).map(Self)
    }

    /// Which.
    #[inline(always)]
    pub fn id(self) -> VirtualServerId {
        VirtualServerId(self.0.get() - 1)
    }
}

const _: () = assert!(size_of::<Meta>() == 64);

impl Meta {
    /// Facts of nothing.
    pub const EMPTY: Self = Self {
        key: FlowKey::NONE,
        hash: FlowHash(0),
        kind: Kind::Flow,
        stage: Stage::Receive,
        sender_knows: Ordering::Equal,
        interface: InterfaceId(0),
        tcp_flags: 0,
        ttl: 0,
        class: 0,
        dont_fragment: false,
        l4: 0,
        len: 0,
        local: None,
    };

    /// What headers in front of the packet need to know of it.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        Packet { len: usize::from(self.len), v4: self.key.is_v4(), class: self.class, hash: self.hash }
    }
}

/// A burst of packets with their facts.
pub struct Batch<F> {
    frames: Burst<F>,
    /// Those of the frames, in the same order; what stands behind is free.
    meta: [Meta; BURST],
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Self { frames: ArrayVec::new(), meta: [Meta::EMPTY; BURST] }
    }
}

impl<F> Batch<F> {
    /// Where the next packet's facts are to be written. There must be room.
    #[inline(always)]
    pub fn slot(&mut self) -> &mut Meta {
        &mut self.meta[self.frames.len()]
    }

    /// Adds a packet, whose facts were written.
    #[inline(always)]
    pub fn push(&mut self, frame: F) {
        self.frames.push(frame);
    }

    /// The packets' facts.
    #[inline(always)]
    pub fn meta(&self) -> &[Meta] {
        &self.meta[..self.frames.len()]
    }

    /// Takes the packets out, in order.
    #[inline(always)]
    pub fn drain(&mut self) -> impl Iterator<Item = (F, &Meta)> {
        self.frames.drain(..).zip(&self.meta)
    }
}
