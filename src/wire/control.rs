//! Control frames between nodes, on a UDP port of their own: heartbeats, and letters of any content. Each ends in a code under the cluster's
//! authentication key, and carries a counter that never goes back, so that an old one can't be played again.

use super::{Malformed, be16, be32, be64, need, put};
use crate::base::limits::MAX_WORKERS;
use crate::base::{HashKey, Incarnation, NodeId, NodeSet, hash};
use arrayvec::ArrayVec;

const MAGIC: u8 = 0x5c;
const VERSION: u8 = 2;
const KIND_HEARTBEAT: u8 = 1;
const KIND_LETTER: u8 = 2;
const LETTER_LEN: usize = 24;
const FIXED_LEN: usize = 66;
const MAC_LEN: usize = 8;

/// Bytes of the longest control message.
pub const MAX_LEN: usize = FIXED_LEN + 4 * MAX_WORKERS + MAC_LEN;

/// Bytes of the longest letter's content.
pub const MAX_LETTER: usize = MAX_LEN - LETTER_LEN - MAC_LEN;

/// Something that one node has to tell another, in a form that is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Who says it.
    pub sender: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Higher in every letter of this life.
    pub counter: u64,
    /// What it says.
    pub content: ArrayVec<u8, MAX_LETTER>,
}

impl Letter {
    /// Reads a message and checks its code. A wrong code is `Value`, and so is another kind of message; the counter is the
    /// caller's to compare.
    pub fn parse(b: &[u8], key: HashKey) -> Result<Self, Malformed> {
        need(b, LETTER_LEN + MAC_LEN)?;
        if b[0] != MAGIC || b[1] != VERSION {
            return Err(Malformed::Version);
        }
        if b[2] != KIND_LETTER || b[3] != 0 {
            return Err(Malformed::Value);
        }
        let len = usize::from(be16(b, 6));
        if len > MAX_LETTER {
            return Err(Malformed::Length);
        }
        let end = LETTER_LEN + len;
        need(b, end + MAC_LEN)?;
        if hash::mac(key, &b[..end]) != be64(b, end) {
            return Err(Malformed::Value);
        }
        Ok(Self {
            sender: NodeId(be16(b, 4)),
            incarnation: Incarnation(be32(b, 8)),
            counter: be64(b, 16),
            content: b[LETTER_LEN..end].iter().copied().collect(),
        })
    }

    /// Writes the message with its code; returns its length, at most [`MAX_LEN`].
    pub fn write(&self, out: &mut [u8], key: HashKey) -> usize {
        out[..LETTER_LEN].fill(0);
        put(out, 0, [MAGIC, VERSION, KIND_LETTER, 0]);
        put(out, 4, self.sender.0.to_be_bytes());
        put(out, 6, (self.content.len() as u16).to_be_bytes());
        put(out, 8, self.incarnation.0.to_be_bytes());
        put(out, 16, self.counter.to_be_bytes());
        let end = LETTER_LEN + self.content.len();
        out[LETTER_LEN..end].copy_from_slice(&self.content);
        let code = hash::mac(key, &out[..end]);
        put(out, end, code.to_be_bytes());
        end + MAC_LEN
    }
}

/// "I am here": sent to every peer at the configured interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who says it.
    pub sender: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Higher in every frame of this life.
    pub counter: u64,
    /// What its workers run: the version of the state that is in force there; or, without a log, its own View's.
    pub view: u64,
    /// What it goes by, digested: its state after the entry at `index`; or, without a log, its cluster file. Nodes that don't
    /// agree on it steer apart.
    pub configuration: u64,
    /// The last entry of the log that it has applied; zero without a log.
    pub index: u64,
    /// The version of the state that it has prepared; zero without a log.
    pub prepared: u64,
    /// Whom it has heard of late over the backplane.
    pub hears: NodeSet,
    /// It can serve.
    pub ready: bool,
    /// Turns of each worker so far, modulo 2^32: one that stands still is stuck.
    pub turns: ArrayVec<u32, MAX_WORKERS>,
}

impl Heartbeat {
    /// Reads a message and checks its code. A wrong code is `Value`; the counter is the caller's to compare.
    pub fn parse(b: &[u8], key: HashKey) -> Result<Self, Malformed> {
        need(b, FIXED_LEN + MAC_LEN)?;
        if b[0] != MAGIC || b[1] != VERSION {
            return Err(Malformed::Version);
        }
        if b[2] != KIND_HEARTBEAT || b[3] > 1 {
            return Err(Malformed::Value);
        }
        let workers = usize::from(be16(b, 64));
        if workers > MAX_WORKERS {
            return Err(Malformed::Length);
        }
        let end = FIXED_LEN + 4 * workers;
        need(b, end + MAC_LEN)?;
        if hash::mac(key, &b[..end]) != be64(b, end) {
            return Err(Malformed::Value);
        }
        Ok(Self {
            sender: NodeId(be16(b, 4)),
            incarnation: Incarnation(be32(b, 8)),
            counter: be64(b, 16),
            view: be64(b, 24),
            configuration: be64(b, 32),
            index: be64(b, 40),
            prepared: be64(b, 48),
            hears: NodeSet(be64(b, 56)),
            ready: b[3] == 1,
            turns: (0..workers).map(|i| be32(b, FIXED_LEN + 4 * i)).collect(),
        })
    }

    /// Writes the message with its code; returns its length, at most [`MAX_LEN`].
    pub fn write(&self, out: &mut [u8], key: HashKey) -> usize {
        out[..FIXED_LEN].fill(0);
        put(out, 0, [MAGIC, VERSION, KIND_HEARTBEAT, u8::from(self.ready)]);
        put(out, 4, self.sender.0.to_be_bytes());
        put(out, 8, self.incarnation.0.to_be_bytes());
        put(out, 16, self.counter.to_be_bytes());
        put(out, 24, self.view.to_be_bytes());
        put(out, 32, self.configuration.to_be_bytes());
        put(out, 40, self.index.to_be_bytes());
        put(out, 48, self.prepared.to_be_bytes());
        put(out, 56, self.hears.0.to_be_bytes());
        put(out, 64, (self.turns.len() as u16).to_be_bytes());
        for (i, turns) in self.turns.iter().enumerate() {
            put(out, FIXED_LEN + 4 * i, turns.to_be_bytes());
        }
        let end = FIXED_LEN + 4 * self.turns.len();
        let code = hash::mac(key, &out[..end]);
        put(out, end, code.to_be_bytes());
        end + MAC_LEN
    }
}
