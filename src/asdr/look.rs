//! What is seen of a shard without asking anybody.

use super::entry::{Key, Kind};
use super::shard::Shard;
use super::store::State;
use crate::base::{Bucket, GroupId, Instant, NodeId, Tick};
use crate::wire::state::Content;

/// What is here of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// A value, and how many ticks it lives on (none: for ever), as far as this node knows: not all copies may have it yet.
    Value(&'a [u8], Option<u32>),
    /// Nothing.
    Nothing,
    /// Another node has to be asked, and one is.
    Asked,
    /// Another node has to be asked.
    Unknown,
}

impl Shard {
    /// Who owns a bucket, by the last View that told of it.
    pub fn owner(&self, group: GroupId, bucket: Bucket) -> Option<NodeId> {
        Some(self.places[self.at(group, bucket)?].chain.owner?.node)
    }

    /// What is known of a bucket's entries of one kind, by key: those that have values.
    pub fn values(&self, group: GroupId, bucket: Bucket, kind: Kind) -> impl Iterator<Item = (&[u8], &[u8])> {
        let newest = self.at(group, bucket).and_then(|at| self.store.newest(at));
        let all = std::iter::successors(newest, |entry| self.store.older(*entry));
        all.filter(|entry| self.is_known(*entry)).filter_map(move |entry| {
            let name = self.store.name(entry);
            match self.store.content(entry) {
                Content::Value(value) if name.kind == kind as u8 => Some((name.key, value)),
                _ => None,
            }
        })
    }

    /// What is here of a key. Where no node has all of its bucket, what isn't here is lost.
    pub fn look(&self, now: Instant, group: GroupId, bucket: Bucket, key: &Key) -> Seen<'_> {
        let Some(at) = self.at(group, bucket) else { return Seen::Nothing };
        let place = &self.places[at];
        let nobody_else = || place.whole || place.chain.complete().next().is_none();
        let Some(entry) = self.store.find(at, key.name()) else {
            return if nobody_else() { Seen::Nothing } else { Seen::Unknown };
        };
        if !self.is_known(entry) {
            let asked = self.store.head(entry).state == State::Asked && self.is_busy(entry);
            return match (nobody_else(), asked) {
                (true, _) => Seen::Nothing,
                (false, true) => Seen::Asked,
                (false, false) => Seen::Unknown,
            };
        }
        match (self.store.content(entry), self.store.head(entry).expires) {
            (Content::Value(value), Tick(0)) => Seen::Value(value, None),
            (Content::Value(value), expires) if expires > now.tick() => {
                Seen::Value(value, Some(expires.since(now.tick())))
            }
            _ => Seen::Nothing,
        }
    }
}
