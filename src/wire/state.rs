//! Records of shared state between the workers of two nodes (MECHANISMS §1): what one asks or tells of one bucket. A frame holds
//! as many as fit. None says anything that may not be said twice, or after a later one: who gets it compares epoch and version.

use super::{Malformed, be16, be32, be64, need, put};
use crate::base::{Bucket, GroupId};

/// Bytes of the longest key.
pub const MAX_KEY: usize = 48;
/// Bytes of the longest value.
pub const MAX_VALUE: usize = 64;
/// Bytes of the longest record: they all fit a frame of the smallest MTU that IPv6 allows.
pub const MAX_RECORD: usize = 1024;

const HEAD_LEN: usize = 14;
const FACT_LEN: usize = 16;
/// Bytes of the longest entry in a page.
pub const MAX_ITEM: usize = 2 + FACT_LEN + MAX_KEY + MAX_VALUE;
/// Bytes of a page without entries.
const PAGE_LEN: usize = HEAD_LEN + 16;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// This value.
    Value(&'a [u8]),
    /// It was deleted.
    Deleted,
    /// Nothing, and there is nothing to know.
    Absent,
}

/// A key's content, as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact<'a> {
    /// Higher is newer; epoch and sequence, as the sender numbers them.
    pub version: u64,
    /// Ticks until it expires (or, if deleted, is forgotten); zero: it doesn't.
    pub ticks: u32,
    /// The sender can't say that every complete copy has it.
    pub unsure: bool,
    /// What it is.
    pub content: Content<'a>,
}

/// An entry's name: kind and bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// The kind's number.
    pub kind: u8,
    /// At most [`MAX_KEY`] bytes.
    pub key: &'a [u8],
}

/// What is said of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The owner has written an entry; every write of this epoch up to version `stable` is at all complete copies.
    Put {
        /// Which.
        name: Name<'a>,
        /// What it is now.
        fact: Fact<'a>,
        /// See above.
        stable: u64,
    },
    /// The entry is here, in the version that was put or a later one.
    Stored,
    /// The owner asks for an entry.
    Hunt(Name<'a>),
    /// The answer.
    Found(Fact<'a>),
    /// Asks for the entries whose versions are below this, the highest first.
    Pull {
        /// See above.
        below: u64,
    },
    /// Some of those; `next`: below which the others are; zero: there are no others. Every write of this epoch up to version
    /// `stable` is at all complete copies.
    Page {
        /// See above.
        next: u64,
        /// See above.
        stable: u64,
        /// The entries.
        items: Items<'a>,
    },
    /// The sender has pulled all there is.
    Learnt,
    /// The sender goes by a later epoch, which the record names: what it answers has no effect.
    Outdated,
    /// A copy has no room for what was put.
    Full,
    /// The owner is asked to delete an entry, if that still has this value. Nobody waits for it.
    Delete {
        /// Which.
        name: Name<'a>,
        /// Its value; its version says nothing.
        fact: Fact<'a>,
    },
    /// The owner's last write, and the digest of all values that it has, while nothing is under way.
    Audit {
        /// See above.
        last: u64,
        /// See above.
        digest: u64,
    },
    /// A complete copy had another digest when that was the owner's last write.
    Differs {
        /// See above.
        last: u64,
    },
}

/// A message and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The bucket's group.
    pub group: GroupId,
    /// The bucket.
    pub bucket: Bucket,
    /// When its owner took it, as the sender knows it.
    pub epoch: u32,
    /// The asker's own number for what it asks; the answer has it again.
    pub token: u32,
    /// What is said.
    pub message: Message<'a>,
}

/// Entries of a page, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// What [`PageWriter`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(b: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = b;
        while !rest.is_empty() {
            rest = item(rest)?.2;
        }
        Ok(Self(b))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = (Name<'a>, Fact<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, fact, rest) = item(self.0).ok()?;
        self.0 = rest;
        Some((name, fact))
    }
}

/// Collects a page's entries.
#[derive(Clone, Debug, Default)]
pub struct PageWriter(arrayvec::ArrayVec<u8, { MAX_RECORD - PAGE_LEN }>);

impl PageWriter {
    /// Adds an entry; `false` if the page is full.
    pub fn push(&mut self, name: Name<'_>, fact: &Fact<'_>) -> bool {
        let mut bytes = [0; MAX_ITEM];
        let mut at = put_name(&mut bytes, 0, name);
        at = put_fact(&mut bytes, at, fact);
        self.0.try_extend_from_slice(&bytes[..at]).is_ok()
    }

    /// What was added.
    pub fn items(&self) -> Items<'_> {
        Items(&self.0)
    }
}

fn put_name(out: &mut [u8], at: usize, name: Name<'_>) -> usize {
    let len = name.key.len().min(MAX_KEY);
    put(out, at, [name.kind, len as u8]);
    out[at + 2..at + 2 + len].copy_from_slice(&name.key[..len]);
    at + 2 + len
}

fn name(b: &[u8]) -> Result<(Name<'_>, &[u8]), Malformed> {
    need(b, 2)?;
    let len = usize::from(b[1]);
    if len > MAX_KEY {
        return Err(Malformed::Length);
    }
    need(b, 2 + len)?;
    Ok((Name { kind: b[0], key: &b[2..2 + len] }, &b[2 + len..]))
}

const UNSURE: u8 = 0x80;

fn put_fact(out: &mut [u8], at: usize, fact: &Fact<'_>) -> usize {
    let (what, value): (u8, &[u8]) = match fact.content {
        Content::Value(value) => (1, &value[..value.len().min(MAX_VALUE)]),
        Content::Deleted => (2, &[]),
        Content::Absent => (3, &[]),
    };
    put(out, at, fact.version.to_be_bytes());
    put(out, at + 8, fact.ticks.to_be_bytes());
    put(out, at + 12, [what | if fact.unsure { UNSURE } else { 0 }, value.len() as u8, 0, 0]);
    out[at + FACT_LEN..at + FACT_LEN + value.len()].copy_from_slice(value);
    at + FACT_LEN + value.len()
}

fn fact(b: &[u8]) -> Result<(Fact<'_>, &[u8]), Malformed> {
    need(b, FACT_LEN)?;
    let len = usize::from(b[13]);
    if len > MAX_VALUE {
        return Err(Malformed::Length);
    }
    need(b, FACT_LEN + len)?;
    let (value, rest) = b[FACT_LEN..].split_at(len);
    let content = match (b[12] & !UNSURE, len) {
        (1, _) => Content::Value(value),
        (2, 0) => Content::Deleted,
        (3, 0) => Content::Absent,
        _ => return Err(Malformed::Value),
    };
    let fact = Fact { version: be64(b, 0), ticks: be32(b, 8), unsure: b[12] & UNSURE != 0, content };
    Ok((fact, rest))
}

fn item(b: &[u8]) -> Result<(Name<'_>, Fact<'_>, &[u8]), Malformed> {
    let (name, rest) = name(b)?;
    let (fact, rest) = fact(rest)?;
    Ok((name, fact, rest))
}

impl<'a> Record<'a> {
    /// Reads the record that these bytes begin with, and gives what stands behind it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(b: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        need(b, HEAD_LEN)?;
        let len = usize::from(be16(b, 0));
        if !(HEAD_LEN..=MAX_RECORD).contains(&len) {
            return Err(Malformed::Length);
        }
        need(b, len)?;
        let (record, rest) = b.split_at(len);
        let body = &record[HEAD_LEN..];
        let (message, behind): (_, &[u8]) = match record[2] {
            1 => {
                need(body, 8)?;
                let (name, fact, behind) = item(&body[8..])?;
                (Message::Put { name, fact, stable: be64(body, 0) }, behind)
            }
            2 => (Message::Stored, body),
            3 => {
                let (name, behind) = name(body)?;
                (Message::Hunt(name), behind)
            }
            4 => {
                let (fact, behind) = fact(body)?;
                (Message::Found(fact), behind)
            }
            5 => {
                need(body, 8)?;
                (Message::Pull { below: be64(body, 0) }, &body[8..])
            }
            6 => {
                need(body, 16)?;
                let (next, stable) = (be64(body, 0), be64(body, 8));
                (Message::Page { next, stable, items: Items::parse(&body[16..])? }, &[])
            }
            7 => (Message::Learnt, body),
            8 => (Message::Outdated, body),
            9 => (Message::Full, body),
            10 => {
                let (name, fact, behind) = item(body)?;
                (Message::Delete { name, fact }, behind)
            }
            11 => {
                need(body, 16)?;
                (Message::Audit { last: be64(body, 0), digest: be64(body, 8) }, &body[16..])
            }
            12 => {
                need(body, 8)?;
                (Message::Differs { last: be64(body, 0) }, &body[8..])
            }
            _ => return Err(Malformed::Value),
        };
        if !behind.is_empty() {
            return Err(Malformed::Length);
        }
        let bucket = be16(record, 6);
        if usize::from(bucket) >= crate::base::limits::BUCKETS {
            return Err(Malformed::Value);
        }
        let (group, token) = (GroupId(u16::from(record[3])), be32(record, 8));
        // The epoch has 24 bits: see `asdr`.
        let epoch = u32::from(be16(record, 4)) << 16 | u32::from(be16(record, 12));
        Ok((Self { group, bucket: Bucket(bucket), epoch, token, message }, rest))
    }

    /// Writes the record, at most [`MAX_RECORD`] bytes; returns how many.
    pub fn write(&self, out: &mut [u8]) -> usize {
        let at = HEAD_LEN;
        let (kind, end) = match &self.message {
            Message::Put { name, fact, stable } => {
                put(out, at, stable.to_be_bytes());
                let at = put_name(out, at + 8, *name);
                (1, put_fact(out, at, fact))
            }
            Message::Stored => (2, at),
            Message::Hunt(name) => (3, put_name(out, at, *name)),
            Message::Found(fact) => (4, put_fact(out, at, fact)),
            Message::Pull { below } => {
                put(out, at, below.to_be_bytes());
                (5, at + 8)
            }
            Message::Page { next, stable, items } => {
                put(out, at, next.to_be_bytes());
                put(out, at + 8, stable.to_be_bytes());
                let at = at + 16;
                out[at..at + items.0.len()].copy_from_slice(items.0);
                (6, at + items.0.len())
            }
            Message::Learnt => (7, at),
            Message::Outdated => (8, at),
            Message::Full => (9, at),
            Message::Delete { name, fact } => {
                let at = put_name(out, at, *name);
                (10, put_fact(out, at, fact))
            }
            Message::Audit { last, digest } => {
                put(out, at, last.to_be_bytes());
                put(out, at + 8, digest.to_be_bytes());
                (11, at + 16)
            }
            Message::Differs { last } => {
                put(out, at, last.to_be_bytes());
                (12, at + 8)
            }
        };
        put(out, 0, (end as u16).to_be_bytes());
        put(out, 2, [kind, self.group.0 as u8]);
        put(out, 4, ((self.epoch >> 16) as u16).to_be_bytes());
        put(out, 6, self.bucket.0.to_be_bytes());
        put(out, 8, self.token.to_be_bytes());
        put(out, 12, (self.epoch as u16).to_be_bytes());
        end
    }
}
