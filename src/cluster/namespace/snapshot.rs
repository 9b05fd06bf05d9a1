//! A namespace as bytes, for the log's snapshots, and as a digest, by which nodes notice that theirs differ.

use super::key::{Key, Kind};
use super::write::{Requests, Trail};
use super::{Entry, Namespace, ids};
use crate::base::HashKey;
use crate::base::hash::siphash13_bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The layout of the bytes.
const VERSION: u8 = 1;
/// Not a secret: a digest tells nodes that have gone astray from each other, not forgeries.
const KEY: HashKey = HashKey([0x6e61_6d65_7370_6163, 0x6573_2064_6967_6573]);

/// Why bytes are no namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It was written by another version of this program.
    #[error("a namespace of layout {0}, and this program reads {VERSION}")]
    Version(u8),
    /// It isn't whole.
    #[error("a namespace's bytes are damaged: {0}")]
    Damaged(String),
}

/// All that the indices and the sum follow from.
#[derive(Serialize, Deserialize)]
struct Stored<E, R, T> {
    next: Vec<u32>,
    entries: E,
    requests: R,
    trail: T,
}

/// What one entry adds to the digest.
pub(super) fn hash(key: &Key, entry: &Entry) -> u64 {
    digest_of(&(key, entry))
}

pub(super) fn digest_of<T: Serialize>(value: &T) -> u64 {
    // Nothing in it is of unknown length, which is all that could fail.
    siphash13_bytes(KEY, &postcard::to_allocvec(value).unwrap_or_default())
}

impl Namespace {
    /// The same on all nodes that hold the same objects, versions and ids, whatever the way there. It takes no time worth
    /// mentioning: each change has kept it up.
    pub fn digest(&self) -> u64 {
        let (first, later) = self.next.split_at(Kind::FIRST);
        let first: &[u32; Kind::FIRST] = first.try_into().unwrap_or(&[0; Kind::FIRST]);
        let all = (self.sum, first, self.entries.len() as u64);
        if later.iter().all(|next| *next == 0) { digest_of(&all) } else { digest_of(&(all, later)) }
    }

    /// The next ids as they are stored: those of kinds that the first release didn't have as far as there ever were any.
    fn ids_stored(&self) -> &[u32] {
        let last = self.next.iter().rposition(|next| *next > 0).map_or(0, |last| last + 1);
        &self.next[..last.max(Kind::FIRST)]
    }

    /// All of it as bytes.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let stored = Stored {
            next: self.ids_stored().to_vec(),
            entries: &self.entries,
            requests: &self.requests,
            trail: &self.trail,
        };
        postcard::to_extend(&stored, vec![VERSION])
    }

    /// From [`Self::encode`]'s bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let damaged = |what: &dyn std::fmt::Display| DecodeError::Damaged(what.to_string());
        let (version, bytes) = bytes.split_first().ok_or_else(|| damaged(&"there are none"))?;
        if *version != VERSION {
            return Err(DecodeError::Version(*version));
        }
        let stored: Stored<BTreeMap<Key, Entry>, Requests, Trail> =
            postcard::from_bytes(bytes).map_err(|error| damaged(&error))?;
        let mut next = [0; Kind::ALL.len()];
        if !(Kind::FIRST..=next.len()).contains(&stored.next.len()) {
            return Err(damaged(&"it has other kinds of object"));
        }
        next[..stored.next.len()].copy_from_slice(&stored.next);
        // Ids are array indices from here on.
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| next[*kind as usize] as usize > ids(*kind)) {
            return Err(damaged(&format_args!("it has more ids of a {} than there are", kind.word())));
        }
        for (key, entry) in &stored.entries {
            if entry.object.kind() != key.kind() || entry.id >= next[key.kind() as usize] {
                return Err(damaged(&format_args!("{key} has another kind or id than it can have")));
            }
        }
        let space = Self::of_entries(stored.entries);
        Ok(Self { next, requests: stored.requests, trail: stored.trail, ..space })
    }

    /// A namespace as somebody has seen it, object by object: good to be compared with ([`Self::diff`]), while the next ids, the
    /// trail and the requests are not known.
    pub fn of_entries(entries: BTreeMap<Key, Entry>) -> Self {
        let mut space = Self::default();
        for (key, entry) in &entries {
            space.index.note(key, &entry.object, true);
            space.sum = space.sum.wrapping_add(hash(key, entry));
        }
        space.entries = entries;
        space
    }
}
