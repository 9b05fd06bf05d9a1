//! The header of a data frame between nodes, behind outer Ethernet, IP and UDP headers and in front of a whole IP packet
//! (MECHANISMS §0). Control frames stand in [`super::control`].

use super::{Malformed, array, be16, be32, be64, need, put};
use crate::base::{FlowHash, HashKey, Incarnation, NodeId, hash};
use std::cmp::Ordering;

/// Bytes of the header.
pub const HEADER_LEN: usize = 32;
/// First byte: keeps out strays.
pub const MAGIC: u8 = 0x5b;
/// Wire version that we speak.
pub const VERSION: u8 = 1;

/// How far a packet has come. It only ever increases, so no loop is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// At the flow receiver.
    #[default]
    Receive,
    /// At the owner of a datagram's fragments.
    FragmentOwner,
    /// At the flow's owner.
    Owner,
    /// Where the virtual server changes its group, or has done so: at the bucket's owner in that of the two groups which has the
    /// lower number, as it may have the flow's session.
    FirstOwner,
    /// At the bucket's previous owner there, which may have it, too.
    FirstPrevious,
    /// At its owner in the other group.
    SecondOwner,
    /// At its previous owner there.
    SecondPrevious,
    /// Where there is one group, at the bucket's previous owner there.
    PreviousOwner,
    /// At the bucket's owner again, or there at last: whoever else might have had a session of the flow has none. As far as
    /// a packet goes.
    Returned,
}

impl Stage {
    /// By their numbers in frames; those that came later have later numbers.
    const NUMBERED: [Self; 9] = [
        Self::Receive,
        Self::FragmentOwner,
        Self::Owner,
        Self::PreviousOwner,
        Self::Returned,
        Self::FirstOwner,
        Self::FirstPrevious,
        Self::SecondOwner,
        Self::SecondPrevious,
    ];

    fn from_wire(b: u8) -> Result<Self, Malformed> {
        Self::NUMBERED.get(usize::from(b)).copied().ok_or(Malformed::Value)
    }

    fn to_wire(self) -> u8 {
        match self {
            Self::Receive => 0,
            Self::FragmentOwner => 1,
            Self::Owner => 2,
            Self::PreviousOwner => 3,
            Self::Returned => 4,
            Self::FirstOwner => 5,
            Self::FirstPrevious => 6,
            Self::SecondOwner => 7,
            Self::SecondPrevious => 8,
        }
    }
}

/// The header of a steered packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How far the packet has come: the stage that the receiver of this frame is to play.
    pub stage: Stage,
    /// Node that sent the frame.
    pub sender: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The latest version of what the nodes decide that the sender knows of: its low bits; 0 where nothing is decided.
    pub decided: u32,
    /// The packet's flow hash, so that the receiver need not compute it.
    pub hash: FlowHash,
    /// Proves that the sender knows the cluster's key, see [`cookie`].
    pub cookie: u64,
}

/// The cookie of one life of a node: a code over its name in the cluster under the authentication key. It keeps strangers
/// out, not those who can read the backplane.
pub fn cookie(key: HashKey, sender: NodeId, incarnation: Incarnation) -> u64 {
    let mut bytes = [0; 8];
    put(&mut bytes, 0, sender.0.to_be_bytes());
    put(&mut bytes, 4, incarnation.0.to_be_bytes());
    hash::mac(key, &bytes)
}

/// Replaces the flow hash in a written header.
#[inline(always)]
pub fn set_hash(header: &mut [u8; HEADER_LEN], hash: FlowHash) {
    put(header, 16, hash.0.to_be_bytes());
}

impl Header {
    /// How the latest version that the sender knows of compares to this one.
    #[inline]
    pub fn knows(&self, version: u32) -> Ordering {
        (self.decided.wrapping_sub(version) as i32).cmp(&0)
    }

    /// Reads a header; the cookie is the caller's to compare.
    #[inline]
    pub fn parse(b: &[u8]) -> Result<Self, Malformed> {
        need(b, HEADER_LEN)?;
        if b[0] != MAGIC || b[1] != VERSION {
            return Err(Malformed::Version);
        }
        Ok(Self {
            stage: Stage::from_wire(b[2])?,
            sender: NodeId(be16(b, 4)),
            incarnation: Incarnation(be32(b, 8)),
            decided: be32(b, 12),
            hash: FlowHash(u64::from_be_bytes(array(b, 16))),
            cookie: be64(b, 24),
        })
    }

    /// Writes [`HEADER_LEN`] bytes.
    #[inline]
    pub fn write(&self, out: &mut [u8]) {
        put(out, 0, [MAGIC, VERSION, self.stage.to_wire(), 0]);
        put(out, 4, self.sender.0.to_be_bytes());
        put(out, 6, [0, 0]);
        put(out, 8, self.incarnation.0.to_be_bytes());
        put(out, 12, self.decided.to_be_bytes());
        put(out, 16, self.hash.0.to_be_bytes());
        put(out, 24, self.cookie.to_be_bytes());
    }
}
