//! One worker's part of the table: what it owns and what it has copies of.

use super::audit::Audit;
use super::busy::{BusyTable, Waiter, Work};
use super::entry::{Key, Value, Version};
use super::store::{EntryId, IDLE, State, Store};
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::{Bucket, GroupId, HashKey, Instant, NodeId, NodeSet, Pace, Tick};
use crate::view::chain::{Chain, Copy};
use crate::wire::state::{Content, Fact, Message, Name, Record};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two looks at whether an entry's time is over.
const ROUND: Duration = Duration::from_secs(1);
/// Of entries, and of busy keys, that a turn looks at.
const SLICE: usize = 64;

/// The caller's own number for what it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Now.
    pub now: Instant,
    /// Until when this node may answer for what it owns.
    pub lease: Instant,
}

impl Moment {
    /// Whether the node may answer.
    pub(super) fn is_leased(self) -> bool {
        self.now < self.lease || planted::is(Bug::StateUnleased)
    }
}

/// What may be asked of a key. `ticks`: how long it lives from now on; zero: for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// What is it?
    Read,
    /// It shall be this.
    Set {
        /// This.
        value: Value,
        /// See above.
        ticks: u32,
    },
    /// It shall be this if it has been what it was at a version ([`Version::NONE`]: nothing).
    Compare {
        /// That version.
        expected: Version,
        /// This.
        value: Value,
        /// See above.
        ticks: u32,
    },
    /// It shall be nothing.
    Delete,
    /// It shall be so much more than it is: eight bytes, big-endian; nothing is zero.
    Add {
        /// So much.
        amount: i64,
        /// See above.
        ticks: u32,
    },
}

/// What is said to who asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is this.
    Found(Value, Version),
    /// It is nothing.
    NotFound,
    /// It is as was wanted, and every complete copy knows.
    Done(Version),
    /// It was something else than expected, and is that still.
    Conflict(Option<(Value, Version)>),
    /// Whether it was done, or what is there, can't be said.
    Unknown(Unknown),
    /// It was not done.
    Refused(Refusal),
}

/// Why something isn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Copies haven't answered in time.
    Unanswered,
    /// The bucket has been given to another.
    Moved,
    /// The node's lease has ended meanwhile.
    Unleased,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The bucket is another's.
    NotOwner,
    /// The node may not answer.
    Unleased,
    /// There is no room for the entry.
    Full,
    /// Too many wait.
    Busy,
    /// What is there is no number.
    NoNumber,
}

/// What others have to learn of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A copy has all of a bucket, as its owner in this epoch says; told until it is committed. In another epoch it isn't so.
    Complete {
        /// Which bucket.
        group: GroupId,
        /// See above.
        bucket: Bucket,
        /// See above.
        epoch: u32,
        /// Who has it.
        copy: Copy,
    },
    /// An audit found a copy that differs from what its owner has although it had said that it has it; that is written again.
    Mended {
        /// Which bucket.
        group: GroupId,
        /// See above.
        bucket: Bucket,
        /// Whose copy.
        copy: NodeId,
        /// How many entries.
        entries: u32,
    },
}

/// Takes records to the worker of a node that has the record's bucket.
pub trait Outbox {
    /// Sends a record, or loses it.
    fn send(&mut self, to: NodeId, record: &Record<'_>);
}

/// How large a shard is, and how patient.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Entries of up to 32, 64 and 112 bytes of key and value.
    pub entries: [usize; 3],
    /// Groups of which buckets come here.
    pub groups: usize,
    /// Which worker this is, of how many: each has the buckets whose numbers leave its own as the rest.
    pub worker: (u16, u16),
    /// Keys on which others are waited for at once.
    pub busy: u16,
    /// Who waits for them.
    pub waiters: u16,
    /// When what wasn't answered is sent again.
    pub again: Duration,
    /// How long somebody waits.
    pub patience: Duration,
    /// How long it is known of a key that it was deleted: longer than a record takes on its way.
    pub grace: Duration,
    /// In which time every bucket is compared with its copies once; zero: they aren't.
    pub audit: Duration,
}

impl Bounds {
    /// Buckets of a group that come here.
    pub(super) fn each(&self) -> usize {
        BUCKETS.div_ceil(usize::from(self.worker.1))
    }
}

/// What a shard has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that began here as the owner's.
    pub writes: u64,
    /// Records sent again.
    pub resent: u64,
    /// Chain walks begun.
    pub hunts: u64,
    /// Pages taken.
    pub pages: u64,
    /// Records of an epoch that is over, or of who isn't the owner, or the like: they had no effect.
    pub outdated: u64,
    /// Records of an epoch that isn't known here yet.
    pub early: u64,
    /// Entries that found no room.
    pub full: u64,
    /// Entries that an owner wrote again as it couldn't know who has them.
    pub rewritten: u64,
    /// Audits that found a copy to differ.
    pub differing: u64,
}

/// A bucket as this shard has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub chain: Chain,
    /// Counts how often what is here was found to be of no use; entries of an earlier one aren't trusted.
    pub stay: u16,
    /// All that is to be had is here.
    pub whole: bool,
    /// As the owner: the last write. As a copy: none.
    pub last: Version,
    /// Every write of this epoch up to here is at all complete copies.
    pub stable: Version,
    /// Of all that is known to have a value here: the prints of the entries, without order.
    pub digest: u64,
    /// Blocking writes.
    pub open: u32,
    /// Copies that have said that they have all, and are counted upon from then on.
    pub declared: NodeSet,
    /// It stands among those to be pulled.
    pub learns: bool,
    pub pull: super::learn::Pull,
}

/// See the module's text.
pub struct Shard {
    pub(super) me: NodeId,
    pub(super) bounds: Bounds,
    pub(super) store: Store,
    pub(super) places: Box<[Place]>,
    /// Of which so many may be other than they were made.
    pub(super) used: usize,
    pub(super) audit: Audit,
    pub(super) busy: BusyTable,
    pub(super) answers: VecDeque<(Ticket, Answer)>,
    pub(super) events: VecDeque<Event>,
    pub(super) counts: Counts,
    /// How far it has looked at busy keys, and at entries' ages.
    looked: Pace,
    aged: Pace,
    /// Buckets of which this node has, or is to have, a copy that is not complete; and maybe some of which it had.
    pub(super) learning: VecDeque<u32>,
}

impl Shard {
    /// An empty shard, which has no bucket yet.
    pub fn new(me: NodeId, hash_key: HashKey, bounds: Bounds) -> Self {
        let buckets = bounds.groups * bounds.each();
        Self {
            me,
            bounds,
            store: Store::new(hash_key, bounds.entries, buckets),
            places: vec![Place::default(); buckets].into(),
            used: 0,
            audit: Audit::default(),
            busy: BusyTable::new(bounds.busy, bounds.waiters, buckets),
            answers: VecDeque::with_capacity(2 * usize::from(bounds.waiters)),
            events: VecDeque::with_capacity(BUCKETS),
            counts: Counts::default(),
            looked: Pace::default(),
            aged: Pace::default(),
            learning: VecDeque::with_capacity(buckets),
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Another life of the node begins: nothing that is here is of any use, and nobody is to be answered.
    pub fn forget(&mut self) {
        for at in self.busy.places() {
            if self.busy.get(at).work != Work::Free {
                self.abort(at, Answer::Unknown(Unknown::Moved));
            }
        }
        for place in &mut self.places[..self.used] {
            let stay = place.stay.wrapping_add(1);
            *place = Place { stay, ..Place::default() };
        }
        self.answers.clear();
        self.events.clear();
        self.learning.clear();
    }

    /// The next answer to what was asked.
    pub fn answer(&mut self) -> Option<(Ticket, Answer)> {
        self.answers.pop_front()
    }

    /// The next thing that others have to learn.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Entries here, and the bytes of memory that all of them may take.
    pub fn size(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    /// A bucket's number here; none: there is no such group.
    pub(super) fn at(&self, group: GroupId, bucket: Bucket) -> Option<usize> {
        let (worker, workers) = self.bounds.worker;
        let at = group.index() * self.bounds.each() + usize::from(bucket.0 / workers);
        let here =
            group.index() < self.bounds.groups && bucket.index() < BUCKETS && bucket.0 % workers == worker;
        here.then_some(at)
    }

    /// The reverse.
    pub(super) fn bucket(&self, at: usize) -> (GroupId, Bucket) {
        let ((worker, workers), each) = (self.bounds.worker, self.bounds.each());
        (GroupId((at / each) as u16), Bucket((at % each) as u16 * workers + worker))
    }

    /// Who has a bucket from now on. A chain that names this node in a `since` that it had under another life is not to be given:
    /// what is said there of completeness is believed.
    pub fn adopt(&mut self, m: Moment, group: GroupId, bucket: Bucket, chain: &Chain, out: &mut impl Outbox) {
        let Some(at) = self.at(group, bucket) else { return };
        let me = self.me;
        let place = &mut self.places[at];
        if place.chain == *chain {
            return;
        }
        self.used = self.used.max(at + 1);
        let old = std::mem::replace(&mut place.chain, chain.clone());
        let (was, is) = (old.place_of(me), chain.place_of(me));
        if !place.learns && is.is_some_and(|copy| !copy.complete) {
            place.learns = true;
            self.learning.push_back(at as u32);
        }
        let stays = matches!((was, is), (Some(was), Some(is)) if was.since == is.since);
        // What is here may lack what was written meanwhile; and what the last owner wrote may never have come, unless all knew that
        // this copy is complete.
        let (complete, anew) = (is.is_some_and(|copy| copy.complete), old.epoch != chain.epoch);
        if !stays || anew && !complete {
            place.stay = place.stay.wrapping_add(1);
            place.digest = 0;
            place.whole = false;
            place.stable = Version::NONE;
        } else if anew {
            self.doubt(at);
        }
        let place = &mut self.places[at];
        place.whole |= complete;
        if anew {
            place.last = Version::new(chain.epoch, 0);
            place.stable = place.last;
            place.declared = NodeSet::EMPTY;
            place.open = 0;
        }
        let kept = |node: &NodeId| {
            chain.copy(*node).map(|copy| copy.since) == old.copy(*node).map(|copy| copy.since)
        };
        place.declared = place.declared.iter().filter(kept).collect();
        place.pull.restart();
        let mut next = self.busy.first_in(at);
        while let Some(busy) = next {
            next = self.busy.next_in(busy);
            self.review(m, busy, &old, out);
        }
    }

    /// The owner of a bucket has changed: what the last one hasn't said to be at all complete copies may be here alone.
    fn doubt(&mut self, bucket: usize) {
        let (stable, stay) = (self.places[bucket].stable, self.places[bucket].stay);
        let mut next = self.store.newest(bucket);
        while let Some(entry) = next.filter(|entry| self.store.head(*entry).version > stable) {
            let head = self.store.head_mut(entry);
            head.unsure |= head.stay == stay;
            next = self.store.older(entry);
        }
    }

    /// What a busy key of a bucket comes to when its chain has changed.
    fn review(&mut self, m: Moment, at: u16, old: &Chain, out: &mut impl Outbox) {
        let busy = self.busy.get(at);
        let (bucket, work) = (busy.bucket, busy.work);
        let chain = &self.places[bucket].chain;
        if busy.epoch != chain.epoch || !chain.is_owned_by(self.me) {
            return self.abort(at, Answer::Unknown(Unknown::Moved));
        }
        if work != Work::Write {
            return;
        }
        // Who is a copy since now was asked for nothing so far.
        let asked = |copy: &&Copy| old.copy(copy.node).is_some_and(|old| old.since == copy.since);
        let missing = busy.missing;
        let missing = chain.copies.iter().filter(|copy| !asked(copy) || missing.contains(copy.node));
        let missing = missing.map(|copy| copy.node).collect();
        let busy = self.busy.get_mut(at);
        (busy.missing, busy.due) = (missing, m.now);
        self.stored(m, at, out);
    }

    /// Whoever waits for a key is told this, and the key is free.
    pub(super) fn abort(&mut self, at: u16, answer: Answer) {
        let mut waiting = self.busy.all_waiters(at);
        while let Some(waiter) = self.busy.next(&mut waiting) {
            self.answers.push_back((waiter.ticket, answer.clone()));
        }
        let entry = self.busy.get(at).entry;
        self.store.head_mut(entry).busy = IDLE;
        self.busy.give_back(at);
        if self.store.head(entry).state == State::Asked {
            self.remove(entry);
        }
    }

    /// Asks for something to be done to a key of this bucket. None: the answer comes later, under the ticket.
    pub fn ask(
        &mut self,
        m: Moment,
        (group, bucket): (GroupId, Bucket),
        key: &Key,
        operation: Operation,
        ticket: Ticket,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        let Some(at) = self.at(group, bucket).filter(|at| self.places[*at].chain.is_owned_by(self.me)) else {
            return Some(Answer::Refused(Refusal::NotOwner));
        };
        if !m.is_leased() {
            return Some(Answer::Refused(Refusal::Unleased));
        }
        let waiter = Waiter::new(ticket, operation, m.now);
        self.attempt(m, at, key.name(), waiter, out)
    }

    /// Asks the owner of this bucket to delete an entry, if that still has this value. It may be lost.
    pub fn ask_owner_to_delete(
        &self,
        (group, bucket): (GroupId, Bucket),
        key: &Key,
        value: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(at) = self.at(group, bucket) else { return };
        let fact = Fact { version: 0, ticks: 0, unsure: false, content: Content::Value(value) };
        let record = self.record(at, 0, Message::Delete { name: key.name(), fact });
        if let Some(owner) = &self.places[at].chain.owner {
            out.send(owner.node, &record);
        }
    }

    /// Does what is asked, or lets it wait.
    fn attempt(
        &mut self,
        m: Moment,
        bucket: usize,
        name: Name<'_>,
        waiter: Waiter,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        match self.store.find(bucket, name) {
            Some(entry) => self.run(m, entry, waiter, out),
            None if self.places[bucket].whole && waiter.operation == Operation::Read => {
                Some(Answer::NotFound)
            }
            None if self.places[bucket].whole && waiter.operation == Operation::Delete => {
                Some(Answer::Done(Version::NONE))
            }
            None => {
                let value = waiter.value().map_or(8, |value| value.len());
                let Ok(entry) = self.store.insert(bucket, name, value) else { return self.no_room() };
                let Place { stay, whole, .. } = self.places[bucket];
                if whole {
                    let head = self.store.head_mut(entry);
                    (head.stay, head.state) = (stay, State::Absent);
                }
                self.run(m, entry, waiter, out)
            }
        }
    }

    pub(super) fn no_room(&mut self) -> Option<Answer> {
        self.counts.full += 1;
        Some(Answer::Refused(Refusal::Full))
    }

    /// Whether others are waited for on an entry.
    pub(super) fn is_busy(&self, entry: EntryId) -> bool {
        self.store.head(entry).busy != IDLE
    }

    /// Whether what an entry says is what the last owner left, as far as anybody can know.
    pub(super) fn is_known(&self, entry: EntryId) -> bool {
        let head = self.store.head(entry);
        let lasts = head.stay == self.places[head.bucket()].stay || planted::is(Bug::StateEpochIgnored);
        lasts && head.state != State::Asked
    }

    /// Whether there is nothing of an entry's bucket that isn't here.
    pub(super) fn is_whole(&self, entry: EntryId) -> bool {
        self.places[self.store.head(entry).bucket()].whole
    }

    /// Does what is asked of an entry, or lets it wait.
    pub(super) fn run(
        &mut self,
        m: Moment,
        entry: EntryId,
        waiter: Waiter,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        let head = *self.store.head(entry);
        if head.busy != IDLE && self.busy.get(head.busy).blocks {
            return self.wait(head.busy, waiter);
        }
        // Whoever sets or deletes need not know what was there.
        let blind = matches!(waiter.operation, Operation::Set { .. } | Operation::Delete);
        if !self.is_known(entry) && !self.is_whole(entry) && !blind {
            return self.hunt(m, entry, waiter, out);
        }
        let expired = head.state == State::Value && head.expires != Tick(0) && head.expires <= m.now.tick();
        if self.is_known(entry) && (expired || self.is_doubtful(entry)) {
            return self.rewrite(m, entry, expired, waiter, out);
        }
        self.apply(m, entry, waiter, out)
    }

    pub(super) fn wait(&mut self, at: u16, waiter: Waiter) -> Option<Answer> {
        (!self.busy.wait(at, waiter)).then_some(Answer::Refused(Refusal::Busy))
    }

    /// Whether a complete copy may lack what this owner took over in an entry.
    fn is_doubtful(&self, entry: EntryId) -> bool {
        let head = self.store.head(entry);
        head.unsure && !self.needed(head.bucket()).is_empty()
    }

    /// A record of another node's.
    pub fn receive(&mut self, m: Moment, from: NodeId, record: &Record<'_>, out: &mut impl Outbox) {
        let Some(at) = self.at(record.group, record.bucket) else {
            self.counts.outdated += 1;
            return;
        };
        let chain = &self.places[at].chain;
        if record.epoch > chain.epoch {
            self.counts.early += 1;
            return;
        }
        if record.epoch < chain.epoch && !planted::is(Bug::StateEpochIgnored) {
            self.counts.outdated += 1;
            if record.message != Message::Outdated {
                let record = Record { epoch: chain.epoch, message: Message::Outdated, ..*record };
                out.send(from, &record);
            }
            return;
        }
        match &record.message {
            Message::Put { name, fact, stable } => self.put(m, from, at, record, (*name, fact, *stable), out),
            Message::Stored => self.stored_by(m, from, record.token, out),
            Message::Hunt(name) => self.hunted(m, from, at, record, *name, out),
            Message::Found(fact) => self.found(m, from, record.token, fact, out),
            Message::Pull { below } => self.pulled(from, at, record, *below, m, out),
            Message::Page { next, items, .. }
                if self.compared(m, from, at, (record.token, *next), *items, out) => {}
            Message::Page { next, stable, items } => {
                self.page(m, from, at, (record.token, *next, *stable), *items, out);
            }
            Message::Learnt => self.learnt(from, at, record),
            // The View that tells of it comes by itself.
            Message::Outdated => self.counts.outdated += 1,
            Message::Full => self.full_at(m, from, record.token, out),
            Message::Delete { name, fact } => self.delete_if(m, at, *name, fact.content, out),
            Message::Audit { last, digest } => self.audited(from, at, record, (*last, *digest), out),
            Message::Differs { last } => self.differs(m, from, at, *last, out),
        }
    }

    /// What is due: records are sent again, whoever has waited too long is told, buckets are pulled, old entries go.
    pub fn turn(&mut self, m: Moment, out: &mut impl Outbox) {
        if !self.busy.is_empty() {
            let (all, round) = (self.busy.places().len(), self.bounds.again / 2);
            let due = self.looked.due(m.now, all, round, SLICE);
            for at in self.busy.visit(due) {
                if self.busy.get(at).work != Work::Free && self.busy.get(at).due <= m.now {
                    self.overdue(m, at, out);
                }
            }
        }
        self.pull(m, out);
        self.audit(m, out);
        let due = self.aged.due(m.now, self.store.places(), ROUND, SLICE);
        for _ in 0..due {
            if let Some(entry) = self.store.step() {
                self.age(m, entry, out);
            }
        }
    }

    /// What becomes of an entry that the cursor comes by.
    fn age(&mut self, m: Moment, entry: EntryId, out: &mut impl Outbox) {
        let head = *self.store.head(entry);
        if head.busy != IDLE {
            return;
        }
        let place = &self.places[head.bucket()];
        let mine = place.chain.place_of(self.me).is_some();
        let stale = place.whole && (head.stay != place.stay || head.state == State::Absent)
            || head.state == State::Asked;
        let over = head.expires != Tick(0) && head.expires <= m.now.tick();
        if !mine || stale || head.state == State::Deleted && over {
            self.remove(entry);
        } else if over
            && head.state == State::Value
            && place.whole
            && place.chain.is_owned_by(self.me)
            && m.is_leased()
        {
            self.expire(m, entry, out);
        }
    }
}
