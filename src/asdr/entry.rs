//! What the table holds: kinds, keys, values, versions.

use crate::wire::state::{MAX_KEY, MAX_VALUE, Name};
use arrayvec::ArrayVec;

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The session of a NATed flow.
    Nat = 1,
    /// Which real server a client stays with.
    Persistence = 2,
    /// What is used of a limit.
    Limit = 3,
}

/// An entry's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What it is for.
    pub kind: Kind,
    /// Which of them.
    pub bytes: ArrayVec<u8, MAX_KEY>,
}

impl Key {
    /// A key; none if it is too long.
    pub fn new(kind: Kind, bytes: &[u8]) -> Option<Self> {
        Some(Self { kind, bytes: bytes.try_into().ok()? })
    }

    pub(super) fn name(&self) -> Name<'_> {
        Name { kind: self.kind as u8, key: &self.bytes }
    }
}

/// What an entry says.
pub type Value = ArrayVec<u8, MAX_VALUE>;

/// When an entry was written: in which epoch of its bucket's owner, and which write of that epoch it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u64);

/// Bits of a version that count an epoch's writes: at a million a second they last twelve days to one bucket of 4096, which then
/// refuses.
const SEQUENCE_BITS: u32 = 40;

impl Version {
    /// Before any write.
    pub const NONE: Self = Self(0);

    /// Of an epoch below 2^24.
    pub fn new(epoch: u32, sequence: u64) -> Self {
        Self(u64::from(epoch) << SEQUENCE_BITS | sequence)
    }

    /// Of which owner.
    pub fn epoch(self) -> u32 {
        (self.0 >> SEQUENCE_BITS) as u32
    }

    /// The next write of the same owner; none after the last.
    pub fn next(self) -> Option<Self> {
        let next = Self(self.0 + 1);
        (next.epoch() == self.epoch()).then_some(next)
    }
}
