//! Learning: who becomes a copy, or an owner that has returned, pulls what there is, page by page, the newest first; what is written
//! meanwhile comes by itself.

use super::entry::Version;
use super::shard::{Event, Moment, Outbox, Shard};
use crate::base::limits::BUCKETS;
use crate::base::{Instant, NodeId, NodeSet};
use crate::view::chain::Copy;
use crate::wire::state::{Items, Message, PageWriter, Record};

/// Buckets that a turn looks at, and of which it may pull so many.
const SLICE: usize = 64;
const PULLS: usize = 8;

/// How far a bucket is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pull {
    /// What is at and above this is here.
    below: u64,
    /// All of it.
    done: bool,
    /// When to ask (again).
    due: Instant,
    /// How often was asked: who is asked differs, and what comes of an earlier question isn't taken.
    asked: u32,
}

impl Default for Pull {
    fn default() -> Self {
        Self { below: u64::MAX, done: false, due: Instant::ZERO, asked: 0 }
    }
}

impl Pull {
    /// From the beginning; what comes of earlier questions isn't taken any more.
    pub(super) fn restart(&mut self) {
        let asked = self.asked.wrapping_add(1);
        *self = Self { asked, ..Self::default() };
    }
}

impl Shard {
    /// Asks for what is lacking, a few buckets a turn.
    pub(super) fn pull(&mut self, m: Moment, out: &mut impl Outbox) {
        let mut left = PULLS;
        for _ in 0..SLICE.min(self.learning.len()) {
            // The next turn goes on from here, or those behind would never have theirs.
            if left == 0 {
                return;
            }
            let Some(next) = self.learning.pop_front() else { return };
            let at = next as usize;
            let place = &mut self.places[at];
            let copy = place.chain.place_of(self.me).filter(|copy| !copy.complete);
            place.learns = copy.is_some();
            let Some(copy) = copy else { continue };
            self.learning.push_back(next);
            let place = &self.places[at];
            if place.pull.due > m.now {
                continue;
            }
            left -= 1;
            let own = place.chain.is_owned_by(self.me);
            self.places[at].pull.due = m.now + self.bounds.again;
            if self.places[at].whole {
                if own {
                    self.tell_complete(at, copy);
                }
            } else if self.places[at].pull.done {
                let owner = self.places[at].chain.owner.filter(|_| !own);
                let record = self.record(at, copy.since, Message::Learnt);
                owner.into_iter().for_each(|owner| out.send(owner.node, &record));
            } else {
                self.ask_page(at, out);
            }
        }
    }

    fn ask_page(&mut self, at: usize, out: &mut impl Outbox) {
        let place = &mut self.places[at];
        place.pull.asked = place.pull.asked.wrapping_add(1);
        let (asked, below) = (place.pull.asked, place.pull.below);
        let place = &self.places[at];
        let from = if place.chain.is_owned_by(self.me) {
            let count = place.chain.complete().count().max(1);
            place.chain.complete().nth(asked as usize % count)
        } else {
            place.chain.owner.map(|owner| owner.node)
        };
        let record = self.record(at, asked, Message::Pull { below });
        from.into_iter().for_each(|from| out.send(from, &record));
    }

    /// Somebody of the chain pulls what is here.
    pub(super) fn pulled(
        &mut self,
        from: NodeId,
        bucket: usize,
        record: &Record<'_>,
        below: u64,
        m: Moment,
        out: &mut impl Outbox,
    ) {
        let place = &self.places[bucket];
        let own = place.chain.is_owned_by(self.me) && place.chain.copy(from).is_some();
        let copy = place.chain.is_owned_by(from) && place.chain.copy(self.me).is_some();
        if !(own || copy) || !place.whole {
            self.counts.outdated += 1;
            return;
        }
        let mut page = PageWriter::default();
        let mut next = 0;
        let mut last = below;
        let entries = std::iter::successors(self.store.newest(bucket), |entry| self.store.older(*entry));
        for entry in entries {
            let version = self.store.head(entry).version;
            if version.0 >= below || version == Version::NONE || !self.is_known(entry) {
                continue;
            }
            if !page.push(self.store.name(entry), &self.fact(m, entry)) {
                next = last;
                break;
            }
            last = version.0;
        }
        let message = Message::Page { next, stable: self.places[bucket].stable.0, items: page.items() };
        out.send(from, &Record { message, ..*record });
    }

    /// What was pulled.
    pub(super) fn page(
        &mut self,
        m: Moment,
        from: NodeId,
        bucket: usize,
        (token, next, stable): (u32, u64, u64),
        items: Items<'_>,
        out: &mut impl Outbox,
    ) {
        let place = &self.places[bucket];
        if place.whole || place.pull.done || place.pull.asked != token || place.chain.place_of(from).is_none()
        {
            self.counts.outdated += 1;
            return;
        }
        for (name, fact) in items {
            if !self.keep(m, bucket, name, &fact) {
                return;
            }
        }
        self.counts.pages += 1;
        let again = m.now + self.bounds.again;
        let own = self.places[bucket].chain.is_owned_by(self.me);
        let place = &mut self.places[bucket];
        place.stable = place.stable.max(Version(stable));
        place.pull.below = next;
        place.pull.done = next == 0;
        place.pull.due = if place.pull.done { m.now } else { again };
        if !place.pull.done {
            self.ask_page(bucket, out);
        } else if own {
            place.whole = true;
        }
    }

    /// A copy has pulled all that there was when it became one. It has all there is if nothing that was written since is on its way
    /// to it.
    pub(super) fn learnt(&mut self, from: NodeId, bucket: usize, record: &Record<'_>) {
        let place = &self.places[bucket];
        let copy = place.chain.copy(from).filter(|copy| copy.since == record.token);
        let (Some(copy), true, true) = (copy, place.chain.is_owned_by(self.me), place.whole) else {
            self.counts.outdated += 1;
            return;
        };
        let lacks = self
            .busy
            .all_in(bucket)
            .any(|busy| busy.work == super::busy::Work::Write && busy.missing.contains(from));
        if !lacks {
            // From here on no write is acknowledged without it: it may be the next owner at any time.
            self.places[bucket].declared = self.places[bucket].declared.with(NodeSet::of(from));
            self.tell_complete(bucket, copy);
        }
    }

    /// If nobody listens it is told another time.
    fn tell_complete(&mut self, at: usize, copy: Copy) {
        let (group, bucket) = self.bucket(at);
        let epoch = self.places[at].chain.epoch;
        if self.events.len() < BUCKETS {
            self.events.push_back(Event::Complete { group, bucket, epoch, copy });
        }
    }
}
