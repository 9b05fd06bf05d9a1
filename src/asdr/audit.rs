//! The audit (MECHANISMS §1 point 5): now and then an owner says what it has of a bucket, as a digest; a complete copy whose own is
//! another says so, and the owner goes through what that has, page by page. What differs the owner writes again.

use super::entry::{Value, Version};
use super::shard::{Event, Moment, Outbox, Shard};
use super::store::{EntryId, IDLE, State};
use super::write::New;
use crate::base::limits::BUCKETS;
use crate::base::{Instant, NodeId, Pace};
use crate::wire::state::{Content, Fact, Items, Message, Name, Record};
use arrayvec::ArrayVec;

/// Buckets that a turn looks at.
const SLICE: usize = 16;
/// Entries that are written again for one page; what is left the next audit finds.
const MENDS: usize = 32;
/// How often a page is asked for.
const ATTEMPTS: u32 = 8;

/// An entry to be written again, and whether all were sure of it.
type Again = (EntryId, bool);

/// How far an owner is.
#[derive(Default)]
pub struct Audit {
    pace: Pace,
    next: usize,
    /// One bucket at a time.
    mend: Option<Mend>,
    /// Differs for each page that is asked for.
    token: u32,
}

/// A copy that differs.
#[derive(Clone, Copy, Debug)]
struct Mend {
    bucket: usize,
    epoch: u32,
    copy: NodeId,
    /// The last write when that was said. What is newer is under way by itself.
    until: Version,
    /// What is at and above this has been compared.
    below: u64,
    token: u32,
    due: Instant,
    attempts: u32,
    /// Entries written again, apart from those that not all need have: what a dead owner had begun to write.
    entries: u32,
}

impl Shard {
    /// Says of a few buckets what is here, and goes on with the one that a copy has otherwise.
    pub(super) fn audit(&mut self, m: Moment, out: &mut impl Outbox) {
        if self.bounds.audit.is_zero() {
            return;
        }
        let due = self.audit.pace.due(m.now, self.used, self.bounds.audit, SLICE);
        for _ in 0..due {
            let at = self.audit.next;
            self.audit.next = if at + 1 >= self.used { 0 } else { at + 1 };
            self.audit_one(m, at, out);
        }
        if let Some(mend) = self.audit.mend.filter(|mend| mend.due <= m.now) {
            if mend.attempts >= ATTEMPTS || !self.may_mend(m, mend.bucket, mend.copy, mend.epoch) {
                return self.end_mend(mend);
            }
            self.ask_mend(m, mend, out);
        }
    }

    fn audit_one(&mut self, m: Moment, at: usize, out: &mut impl Outbox) {
        let place = &self.places[at];
        // Nothing is under way, and there has been something.
        let rests = place.open == 0 && place.whole && place.stable == place.last;
        let used = place.digest != 0 || place.last != Version::new(place.chain.epoch, 0);
        if !rests || !used || !place.chain.is_owned_by(self.me) || !m.is_leased() {
            return;
        }
        let record = self.record(at, 0, Message::Audit { last: place.last.0, digest: place.digest });
        place.chain.complete().for_each(|copy| out.send(copy, &record));
    }

    /// The owner says what it has.
    pub(super) fn audited(
        &mut self,
        from: NodeId,
        bucket: usize,
        record: &Record<'_>,
        (last, digest): (u64, u64),
        out: &mut impl Outbox,
    ) {
        let place = &self.places[bucket];
        if !place.chain.is_owned_by(from) || !place.whole || place.chain.copy(self.me).is_none() {
            self.counts.outdated += 1;
            return;
        }
        let newest = self.store.newest(bucket).map_or(Version::NONE, |entry| self.store.head(entry).version);
        if place.digest != digest && newest <= Version(last) {
            out.send(from, &Record { message: Message::Differs { last }, ..*record });
        }
    }

    /// A copy has something else than this owner said that it has.
    pub(super) fn differs(
        &mut self,
        m: Moment,
        from: NodeId,
        bucket: usize,
        last: u64,
        out: &mut impl Outbox,
    ) {
        let place = &self.places[bucket];
        let (epoch, until) = (place.chain.epoch, Version(last));
        let quiet = place.open == 0 && place.last == until;
        if self.audit.mend.is_some() || !quiet || !self.may_mend(m, bucket, from, epoch) {
            return;
        }
        self.counts.differing += 1;
        let mend = Mend {
            bucket,
            epoch,
            copy: from,
            until,
            below: u64::MAX,
            token: 0,
            due: m.now,
            attempts: 0,
            entries: 0,
        };
        self.ask_mend(m, mend, out);
    }

    fn may_mend(&self, m: Moment, bucket: usize, copy: NodeId, epoch: u32) -> bool {
        let Some(place) = self.places.get(bucket) else { return false };
        let is_copy = place.chain.complete().any(|node| node == copy);
        place.chain.epoch == epoch
            && place.chain.is_owned_by(self.me)
            && place.whole
            && is_copy
            && m.is_leased()
    }

    fn ask_mend(&mut self, m: Moment, mend: Mend, out: &mut impl Outbox) {
        self.audit.token = self.audit.token.wrapping_add(1);
        let (token, due, attempts) = (self.audit.token, m.now + self.bounds.again, mend.attempts + 1);
        self.audit.mend = Some(Mend { token, due, attempts, ..mend });
        let record = self.record(mend.bucket, token, Message::Pull { below: mend.below });
        out.send(mend.copy, &record);
    }

    fn end_mend(&mut self, mend: Mend) {
        self.audit.mend = None;
        if mend.entries > 0 && self.events.len() < BUCKETS {
            let (group, bucket) = self.bucket(mend.bucket);
            let (copy, entries) = (mend.copy, mend.entries);
            self.events.push_back(Event::Mended { group, bucket, copy, entries });
        }
    }

    /// Whether a page is one that was asked for to compare it; it is compared then.
    pub(super) fn compared(
        &mut self,
        m: Moment,
        from: NodeId,
        bucket: usize,
        (token, next): (u32, u64),
        items: Items<'_>,
        out: &mut impl Outbox,
    ) -> bool {
        let asked = |mend: &Mend| (mend.bucket, mend.copy, mend.token) == (bucket, from, token);
        let Some(mut mend) = self.audit.mend.filter(asked) else { return false };
        if !self.may_mend(m, bucket, from, mend.epoch) || next >= mend.below {
            self.end_mend(mend);
            return true;
        }
        let mut again = ArrayVec::<Again, MENDS>::new();
        self.lacking(&mend, next, items, &mut again);
        self.surplus(&mend, items, &mut again);
        for (entry, certain) in again {
            let new = match self.store.content(entry) {
                Content::Value(value) => {
                    let value: Value = value.iter().copied().collect();
                    New::Value(value, self.fact(m, entry).ticks)
                }
                Content::Deleted | Content::Absent => New::Nothing,
            };
            if self.write(m, entry, &new, None, out).is_none() {
                mend.entries += u32::from(certain);
            }
        }
        if next == 0 {
            self.end_mend(mend);
        } else {
            self.ask_mend(m, Mend { below: next, attempts: 0, ..mend }, out);
        }
        true
    }

    /// What the owner has, and the copy has not, or otherwise, of the versions that a page is of.
    fn lacking(&self, mend: &Mend, next: u64, items: Items<'_>, again: &mut ArrayVec<Again, MENDS>) {
        let all = std::iter::successors(self.store.newest(mend.bucket), |entry| self.store.older(*entry));
        let of_page = all
            .skip_while(|entry| self.store.head(*entry).version.0 >= mend.below)
            .take_while(|entry| self.store.head(*entry).version.0 >= next.max(1));
        for entry in of_page {
            let head = self.store.head(entry);
            let value = head.state == State::Value && self.is_known(entry);
            if !value || head.busy != IDLE || head.version > mend.until {
                continue;
            }
            let (name, content) = (self.store.name(entry), self.store.content(entry));
            let same = |(other, fact): (Name<'_>, Fact<'_>)| {
                other == name && fact.version == head.version.0 && fact.content == content
            };
            if !items.into_iter().any(same) && again.try_push((entry, !head.unsure)).is_err() {
                return;
            }
        }
    }

    /// What the copy has of keys of which the owner has nothing.
    fn surplus(&mut self, mend: &Mend, items: Items<'_>, again: &mut ArrayVec<Again, MENDS>) {
        for (name, fact) in items {
            let is_old = Version(fact.version) <= mend.until;
            if !matches!(fact.content, Content::Value(_)) || !is_old || again.is_full() {
                continue;
            }
            let entry = match self.store.find(mend.bucket, name) {
                Some(entry) => entry,
                None => {
                    let Ok(entry) = self.store.insert(mend.bucket, name, 0) else { continue };
                    let stay = self.places[mend.bucket].stay;
                    let head = self.store.head_mut(entry);
                    (head.stay, head.state) = (stay, State::Absent);
                    entry
                }
            };
            let head = self.store.head(entry);
            let nothing = head.state != State::Value || !self.is_known(entry);
            if nothing && head.busy == IDLE && head.version <= mend.until {
                again.push((entry, !fact.unsure));
            }
        }
    }
}
