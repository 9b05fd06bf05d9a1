//! Control frames between nodes, on a UDP port of their own: heartbeats, letters of any content, and records of shared state. Each
//! ends in a code under the cluster's authentication key, and carries a counter that never goes back, so that an old one can't be
//! played again.

use super::{Malformed, be16, be32, be64, need, put};
use crate::base::limits::MAX_WORKERS;
use crate::base::version::{Software, WireVersion};
use crate::base::{HashKey, Incarnation, NodeId, NodeSet, WorkerId, hash};
use arrayvec::ArrayVec;

const MAGIC: u8 = 0x5c;
const KIND_HEARTBEAT: u8 = 1;
const KIND_LETTER: u8 = 2;
const KIND_RECORDS: u8 = 3;
/// Bytes that all messages begin with.
const HEADER_LEN: usize = 24;
/// Bytes of a letter before its content.
const LETTER_LEN: usize = HEADER_LEN + 4;
/// Bytes of a heartbeat before the workers' turns, in the first wire version.
const FIXED_LEN: usize = 66;
/// Bytes behind those in later ones.
const SOFTWARE_LEN: usize = 6;
const MAC_LEN: usize = 8;

/// Bytes of the longest control message.
pub const MAX_LEN: usize = FIXED_LEN + SOFTWARE_LEN + 4 * MAX_WORKERS + MAC_LEN;

/// Bytes of the longest letter's content, in every wire version.
pub const MAX_LETTER: usize = FIXED_LEN + 4 * MAX_WORKERS - LETTER_LEN;

/// Bytes of a heartbeat before the workers' turns.
fn fixed_len(wire: WireVersion) -> usize {
    FIXED_LEN + if wire >= WireVersion::TELLS_SOFTWARE { SOFTWARE_LEN } else { 0 }
}

/// What all messages begin with.
struct Head {
    wire: WireVersion,
    kind: u8,
    flag: bool,
    sender: NodeId,
    incarnation: Incarnation,
    counter: u64,
}

impl Head {
    /// Reads the header of a message of this kind, which has `fixed` bytes at least (none: a heartbeat's), and how many more
    /// `more` tells from those (none: too many). Checks the code, and tells where the message ends before it.
    fn open(
        b: &[u8],
        key: HashKey,
        (kind, fixed): (u8, Option<usize>),
        more: impl FnOnce(&[u8]) -> Option<usize>,
    ) -> Result<(Self, usize), Malformed> {
        need(b, HEADER_LEN + MAC_LEN)?;
        let wire = WireVersion(b[1]);
        if b[0] != MAGIC || !wire.is_read() {
            return Err(Malformed::Version);
        }
        let fixed = fixed.unwrap_or(fixed_len(wire));
        need(b, fixed + MAC_LEN)?;
        if b[2] != kind || b[3] > 1 {
            return Err(Malformed::Value);
        }
        let end = fixed + more(b).ok_or(Malformed::Length)?;
        need(b, end + MAC_LEN)?;
        if hash::mac(key, &b[..end]) != be64(b, end) {
            return Err(Malformed::Value);
        }
        let head = Self {
            wire,
            kind,
            flag: b[3] == 1,
            sender: NodeId(be16(b, 4)),
            incarnation: Incarnation(be32(b, 8)),
            counter: be64(b, 16),
        };
        Ok((head, end))
    }

    /// Writes the header, whose other bytes are zero or the message's own, and the code behind a message that ends at `end`;
    /// returns its length with the code.
    fn seal(&self, out: &mut [u8], end: usize, key: HashKey) -> usize {
        put(out, 0, [MAGIC, self.wire.0, self.kind, u8::from(self.flag)]);
        put(out, 4, self.sender.0.to_be_bytes());
        put(out, 8, self.incarnation.0.to_be_bytes());
        put(out, 16, self.counter.to_be_bytes());
        let code = hash::mac(key, &out[..end]);
        put(out, end, code.to_be_bytes());
        end + MAC_LEN
    }
}

/// Bytes of a message of records before those.
pub const RECORDS_LEN: usize = HEADER_LEN + 4;

/// Bytes of the longest message of records: such frames pass where any of IPv6 do, the outer headers counted.
pub const MAX_RECORDS: usize = 1200;

/// From which worker to which records go that fill a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Records {
    /// Who says it, and which life of it.
    pub sender: (NodeId, Incarnation),
    /// Which worker of it.
    pub from: WorkerId,
    /// Higher in every such message of this worker's.
    pub counter: u64,
    /// Whom it is for.
    pub receiver: NodeId,
    /// Which worker of that.
    pub to: WorkerId,
}

impl Records {
    /// Whether a control message is one of records, if it is any.
    pub fn is(b: &[u8]) -> bool {
        b.get(2) == Some(&KIND_RECORDS)
    }

    /// Reads a message and checks its code; gives the records as they stand there, one or more ([`super::state::Record`]). The
    /// oldest wire version has no such message.
    ///
    /// # Errors
    /// As [`Heartbeat::parse`].
    pub fn parse(b: &[u8], key: HashKey) -> Result<(Self, &[u8]), Malformed> {
        let length = |b: &[u8]| Some(usize::from(be16(b, 6))).filter(|len| *len <= MAX_RECORDS);
        let (head, end) = Head::open(b, key, (KIND_RECORDS, Some(RECORDS_LEN)), length)?;
        if head.flag || head.wire < WireVersion::SHARES_STATE {
            return Err(Malformed::Value);
        }
        let records = Self {
            sender: (head.sender, head.incarnation),
            from: WorkerId(be16(b, HEADER_LEN)),
            counter: head.counter,
            receiver: NodeId(be16(b, 12)),
            to: WorkerId(be16(b, HEADER_LEN + 2)),
        };
        Ok((records, &b[RECORDS_LEN..end]))
    }

    /// Writes what stands around the records, which end at `end`; returns the message's length.
    pub fn seal(&self, out: &mut [u8], end: usize, key: HashKey) -> usize {
        let (sender, incarnation) = self.sender;
        out[..RECORDS_LEN].fill(0);
        put(out, 6, ((end - RECORDS_LEN) as u16).to_be_bytes());
        put(out, 12, self.receiver.0.to_be_bytes());
        put(out, HEADER_LEN, self.from.0.to_be_bytes());
        put(out, HEADER_LEN + 2, self.to.0.to_be_bytes());
        let (wire, kind, counter) = (WireVersion::SHARES_STATE, KIND_RECORDS, self.counter);
        Head { wire, kind, flag: false, sender, incarnation, counter }.seal(out, end, key)
    }
}

/// Something that one node has to tell another, in a form that is theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// What it is written in.
    pub wire: WireVersion,
    /// Who says it.
    pub sender: NodeId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Whom it is for, and which life of it: another, who hasn't read it, must not be given it later.
    pub receiver: (NodeId, Incarnation),
    /// Higher in every letter of this life.
    pub counter: u64,
    /// What it says.
    pub content: ArrayVec<u8, MAX_LETTER>,
}

impl Letter {
    /// Reads a message and checks its code. A wrong code is `Value`, and so is another kind of message; the counter is the
    /// caller's to compare.
    pub fn parse(b: &[u8], key: HashKey) -> Result<Self, Malformed> {
        let length = |b: &[u8]| Some(usize::from(be16(b, 6))).filter(|len| *len <= MAX_LETTER);
        let (head, end) = Head::open(b, key, (KIND_LETTER, Some(LETTER_LEN)), length)?;
        if head.flag {
            return Err(Malformed::Value);
        }
        Ok(Self {
            wire: head.wire,
            sender: head.sender,
            incarnation: head.incarnation,
            receiver: (NodeId(be16(b, 12)), Incarnation(be32(b, HEADER_LEN))),
            counter: head.counter,
            content: b[LETTER_LEN..end].iter().copied().collect(),
        })
    }

    /// Writes the message with its code; returns its length, at most [`MAX_LEN`].
    pub fn write(&self, out: &mut [u8], key: HashKey) -> usize {
        let Self { wire, sender, incarnation, counter, .. } = *self;
        let end = LETTER_LEN + self.content.len();
        out[..LETTER_LEN].fill(0);
        put(out, 6, (self.content.len() as u16).to_be_bytes());
        put(out, 12, self.receiver.0.0.to_be_bytes());
        put(out, HEADER_LEN, self.receiver.1.0.to_be_bytes());
        out[LETTER_LEN..end].copy_from_slice(&self.content);
        Head { wire, kind: KIND_LETTER, flag: false, sender, incarnation, counter }.seal(out, end, key)
    }
}

/// "I am here": sent to every peer at the configured interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it is written in.
    pub wire: WireVersion,
    /// The newest wire version that its sender can speak.
    pub speaks: WireVersion,
    /// What its sender runs; the first wire version doesn't say.
    pub software: Software,
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
    /// What keeps it from going on, by a number; zero: nothing.
    pub trouble: u16,
    /// Turns of each worker so far, modulo 2^32: one that stands still is stuck.
    pub turns: ArrayVec<u32, MAX_WORKERS>,
}

impl Heartbeat {
    /// Reads a message and checks its code. A wrong code is `Value`; the counter is the caller's to compare.
    pub fn parse(b: &[u8], key: HashKey) -> Result<Self, Malformed> {
        let turns = |b: &[u8]| {
            let workers = usize::from(be16(b, 64));
            (workers <= MAX_WORKERS).then_some(4 * workers)
        };
        let (head, end) = Head::open(b, key, (KIND_HEARTBEAT, None), turns)?;
        let fixed = fixed_len(head.wire);
        let said = fixed > FIXED_LEN;
        Ok(Self {
            wire: head.wire,
            // Who knows of no newer one says nothing.
            speaks: WireVersion(b[12]).max(head.wire),
            software: Software([0, 2, 4].map(|at| if said { be16(b, FIXED_LEN + at) } else { 0 })),
            sender: head.sender,
            incarnation: head.incarnation,
            counter: head.counter,
            view: be64(b, 24),
            configuration: be64(b, 32),
            index: be64(b, 40),
            prepared: be64(b, 48),
            hears: NodeSet(be64(b, 56)),
            ready: head.flag,
            trouble: be16(b, 6),
            turns: (fixed..end).step_by(4).map(|at| be32(b, at)).collect(),
        })
    }

    /// Writes the message with its code; returns its length, at most [`MAX_LEN`].
    pub fn write(&self, out: &mut [u8], key: HashKey) -> usize {
        let Self { wire, sender, incarnation, counter, ready: flag, .. } = *self;
        let fixed = fixed_len(wire);
        let end = fixed + 4 * self.turns.len();
        out[..fixed].fill(0);
        put(out, 6, self.trouble.to_be_bytes());
        put(out, 12, [self.speaks.0]);
        if fixed > FIXED_LEN {
            let words = self.software.0.map(u16::to_be_bytes);
            out[FIXED_LEN..fixed].copy_from_slice(words.as_flattened());
        }
        put(out, 24, self.view.to_be_bytes());
        put(out, 32, self.configuration.to_be_bytes());
        put(out, 40, self.index.to_be_bytes());
        put(out, 48, self.prepared.to_be_bytes());
        put(out, 56, self.hears.0.to_be_bytes());
        put(out, 64, (self.turns.len() as u16).to_be_bytes());
        for (i, turns) in self.turns.iter().enumerate() {
            put(out, fixed + 4 * i, turns.to_be_bytes());
        }
        Head { wire, kind: KIND_HEARTBEAT, flag, sender, incarnation, counter }.seal(out, end, key)
    }
}
