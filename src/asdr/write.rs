//! Writing: what an owner does, and what its copies do with it.

use super::busy::{Waiter, Work};
use super::entry::{Value, Version};
use super::shard::{Answer, Moment, Operation, Outbox, Refusal, Shard, Unknown};
use super::store::{EntryId, IDLE, State};
use crate::base::planted::{self, Bug};
use crate::base::{NodeId, NodeSet, Tick};
use crate::wire::state::{Content, Fact, Message, Name, Record};

/// What is to be written.
pub(super) enum New {
    Value(Value, u32),
    Nothing,
}

/// When something ends that lives for so many ticks; zero of either: it doesn't.
fn expiry(m: Moment, ticks: u32) -> Tick {
    if ticks == 0 { Tick(0) } else { Tick(m.now.tick().0.saturating_add(ticks)) }
}

/// How many ticks it has left.
fn left(m: Moment, expires: Tick) -> u32 {
    if expires == Tick(0) { 0 } else { expires.since(m.now.tick()).max(1) }
}

impl Shard {
    /// Does what is asked of an entry that is known and that nobody waits for.
    pub(super) fn apply(
        &mut self,
        m: Moment,
        entry: EntryId,
        waiter: Waiter,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        let version = self.store.head(entry).version;
        let current = match self.store.content(entry) {
            Content::Value(value) if self.is_known(entry) => {
                value.try_into().ok().map(|value: Value| (value, version))
            }
            _ => None,
        };
        let new = match &waiter.operation {
            Operation::Read => {
                return Some(
                    current.map_or(Answer::NotFound, |(value, version)| Answer::Found(value, version)),
                );
            }
            Operation::Set { value, ticks } => New::Value(value.clone(), *ticks),
            Operation::Compare { expected, value, ticks } => {
                if current.as_ref().map_or(Version::NONE, |(_, version)| *version) != *expected {
                    return Some(Answer::Conflict(current));
                }
                New::Value(value.clone(), *ticks)
            }
            Operation::Delete if current.is_none() && (self.is_known(entry) || self.is_whole(entry)) => {
                return Some(Answer::Done(Version::NONE));
            }
            Operation::Delete => New::Nothing,
            Operation::Add { amount, ticks } => {
                let number = match &current {
                    None => Some(0),
                    Some((value, _)) => <[u8; 8]>::try_from(&value[..]).ok().map(i64::from_be_bytes),
                };
                let Some(number) = number else { return Some(Answer::Refused(Refusal::NoNumber)) };
                let sum = number.saturating_add(*amount).to_be_bytes();
                New::Value(sum.into_iter().collect(), *ticks)
            }
        };
        self.write(m, entry, &new, Some(waiter), out)
    }

    /// What this owner took over it writes as its own, or, if it has expired, away; whoever asks waits behind that.
    pub(super) fn rewrite(
        &mut self,
        m: Moment,
        entry: EntryId,
        expired: bool,
        waiter: Waiter,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        self.counts.rewritten += 1;
        let head = *self.store.head(entry);
        let new = match self.store.content(entry) {
            Content::Value(value) if !expired => {
                New::Value(value.iter().copied().collect(), left(m, head.expires))
            }
            _ => New::Nothing,
        };
        if let Some(refused) = self.write(m, entry, &new, None, out) {
            return Some(refused);
        }
        // It stands where it was: what was written is no longer.
        self.run(m, entry, waiter, out)
    }

    /// An entry has expired: that is a write like any other.
    pub(super) fn expire(&mut self, m: Moment, entry: EntryId, out: &mut impl Outbox) {
        self.write(m, entry, &New::Nothing, None, out);
    }

    /// Writes an entry here and at all copies. None: whoever waits is told once all complete ones have it (or nobody waits).
    pub(super) fn write(
        &mut self,
        m: Moment,
        entry: EntryId,
        new: &New,
        waiter: Option<Waiter>,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        let head = *self.store.head(entry);
        let bucket = head.bucket();
        let place = &self.places[bucket];
        let copies: NodeSet = place.chain.copies.iter().map(|copy| copy.node).collect();
        let needed = self.needed(bucket);
        let (Some(version), epoch, stay) = (place.last.next(), place.chain.epoch, place.stay) else {
            return Some(Answer::Refused(Refusal::Full));
        };
        if !copies.is_empty() && !self.busy.has_room(head.busy != IDLE) {
            return Some(Answer::Refused(Refusal::Busy));
        }
        let (content, expires) = match new {
            New::Value(value, ticks) => (Content::Value(value), expiry(m, *ticks)),
            New::Nothing => (Content::Deleted, (m.now + self.bounds.grace).tick()),
        };
        let Some(entry) = self.set(entry, stay, version, content) else {
            return Some(Answer::Refused(Refusal::Full));
        };
        let kept = self.store.head_mut(entry);
        (kept.expires, kept.unsure) = (expires, false);
        self.places[bucket].last = version;
        self.counts.writes += 1;
        let done = Answer::Done(version);
        if copies.is_empty() {
            self.settle(bucket);
            return waiter.map(|_| done);
        }
        let at = match head.busy {
            IDLE => self.busy.take(entry, bucket, epoch)?,
            at => at,
        };
        self.store.head_mut(entry).busy = at;
        self.busy.turn(at);
        let blocks = !needed.is_empty() && !planted::is(Bug::StateUnreplicated);
        let due = m.now + self.bounds.again;
        let busy = self.busy.get_mut(at);
        (busy.work, busy.missing, busy.blocks, busy.due) = (Work::Write, copies, blocks, due);
        self.places[bucket].open += u32::from(blocks);
        self.tell(m, at, out);
        if !blocks {
            self.settle(bucket);
            return waiter.map(|_| done);
        }
        if let Some(waiter) = waiter {
            self.busy.wait(at, Waiter { answer: Some(done), ..waiter });
        }
        None
    }

    /// Gives an entry what it says from now on, as of the bucket's `stay`, and tells where it stands then; none: there is no room,
    /// which is counted.
    fn set(&mut self, entry: EntryId, stay: u16, version: Version, content: Content<'_>) -> Option<EntryId> {
        self.digest(entry);
        let set = self.store.set(entry, version, content);
        if let Ok(entry) = set {
            self.store.head_mut(entry).stay = stay;
        }
        self.digest(set.unwrap_or(entry));
        let Ok(entry) = set else {
            self.counts.full += 1;
            return None;
        };
        let busy = self.store.head(entry).busy;
        if busy != IDLE {
            self.busy.get_mut(busy).entry = entry;
        }
        Some(entry)
    }

    /// The copies that have to have a write before anybody is answered by it.
    pub(super) fn needed(&self, bucket: usize) -> NodeSet {
        let place = &self.places[bucket];
        place.chain.complete().collect::<NodeSet>().with(place.declared)
    }

    /// Takes an entry into its bucket's digest, or out of it: what is known to have a value stands there.
    pub(super) fn digest(&mut self, entry: EntryId) {
        let head = self.store.head(entry);
        let place = &mut self.places[head.bucket()];
        if head.state == State::Value && head.stay == place.stay {
            place.digest ^= self.store.print(entry);
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, entry: EntryId) {
        self.digest(entry);
        self.store.remove(entry);
    }

    /// If no write of a bucket is under way, all are everywhere.
    fn settle(&mut self, bucket: usize) {
        let place = &mut self.places[bucket];
        if place.open == 0 {
            place.stable = place.stable.max(place.last);
        }
    }

    /// Sends a written entry to the copies that haven't said that they have it.
    fn tell(&mut self, m: Moment, at: u16, out: &mut impl Outbox) {
        let busy = *self.busy.get(at);
        let name = self.store.name(busy.entry);
        let fact = self.fact(m, busy.entry);
        let stable = self.places[busy.bucket].stable.0;
        let record = self.record(busy.bucket, self.busy.token(at), Message::Put { name, fact, stable });
        busy.missing.iter().for_each(|copy| out.send(copy, &record));
    }

    /// What is known of an entry, for others.
    pub(super) fn fact(&self, m: Moment, entry: EntryId) -> Fact<'_> {
        let head = self.store.head(entry);
        let (version, content) = (head.version.0, self.store.content(entry));
        Fact { version, ticks: left(m, head.expires), unsure: head.unsure, content }
    }

    /// A record of a bucket in the epoch that this shard goes by.
    pub(super) fn record<'a>(&self, bucket: usize, token: u32, message: Message<'a>) -> Record<'a> {
        let epoch = self.places[bucket].chain.epoch;
        let (group, bucket) = self.bucket(bucket);
        Record { group, bucket, epoch, token, message }
    }

    /// The owner has written an entry of which this is a copy.
    pub(super) fn put(
        &mut self,
        m: Moment,
        from: NodeId,
        bucket: usize,
        record: &Record<'_>,
        (name, fact, stable): (Name<'_>, &Fact<'_>, u64),
        out: &mut impl Outbox,
    ) {
        let chain = &self.places[bucket].chain;
        let due = chain.is_owned_by(from) && chain.copy(self.me).is_some();
        if !due && !planted::is(Bug::StateEpochIgnored) {
            self.counts.outdated += 1;
            return;
        }
        // What a complete copy had, and has no more, was deleted and is forgotten: that is said again. What an owner goes on to
        // write in its next epoch it may never have had.
        let (place, version) = (&self.places[bucket], Version(fact.version));
        let had = place.whole && version <= place.stable && version.epoch() == place.chain.epoch;
        let forgotten = had && self.store.find(bucket, name).is_none();
        let lost = planted::is(Bug::UpdateDropped) && fact.version % 8 == 3;
        let kept = forgotten || lost || self.keep(m, bucket, name, fact);
        if kept {
            let place = &mut self.places[bucket];
            place.stable = place.stable.max(Version(stable));
        }
        let message = if kept { Message::Stored } else { Message::Full };
        out.send(from, &Record { message, ..*record });
    }

    /// A copy has no room for what was put. The owner keeps it, as something that not all copies have; whoever waits is told that it
    /// was refused.
    pub(super) fn full_at(&mut self, m: Moment, from: NodeId, token: u32, out: &mut impl Outbox) {
        let Some(at) = self.busy.of(token).filter(|at| self.busy.get(*at).work == Work::Write) else {
            return;
        };
        let busy = *self.busy.get(at);
        if busy.blocks && self.needed(busy.bucket).contains(from) {
            self.store.head_mut(busy.entry).unsure = true;
            let mut waiting = self.busy.all_waiters(at);
            while let Some(mut waiter) = self.busy.next(&mut waiting) {
                // Whose turn is yet to come would make it be written again, and again.
                if matches!(waiter.answer, None | Some(Answer::Done(_))) {
                    waiter.answer = Some(Answer::Refused(Refusal::Full));
                }
                self.busy.wait(at, waiter);
            }
        }
        self.stored_by(m, from, token, out);
    }

    /// Another node asks for an entry to be deleted, which has this value unless it was written since.
    pub(super) fn delete_if(
        &mut self,
        m: Moment,
        bucket: usize,
        name: Name<'_>,
        content: Content<'_>,
        out: &mut impl Outbox,
    ) {
        let entry = self.store.find(bucket, name).filter(|entry| self.is_known(*entry));
        let same = entry.filter(|entry| self.store.content(*entry) == content);
        let mine = self.places[bucket].chain.is_owned_by(self.me) && m.is_leased();
        if let Some(entry) = same.filter(|entry| mine && self.store.head(*entry).busy == IDLE) {
            self.write(m, entry, &New::Nothing, None, out);
        }
    }

    /// Keeps what another says of a key, unless something newer is here already; `false`: there is no room.
    pub(super) fn keep(&mut self, m: Moment, bucket: usize, name: Name<'_>, fact: &Fact<'_>) -> bool {
        let entry = match self.store.find(bucket, name) {
            Some(entry) => entry,
            None => {
                let room = if let Content::Value(value) = fact.content { value.len() } else { 0 };
                let Ok(entry) = self.store.insert(bucket, name, room) else {
                    self.counts.full += 1;
                    return false;
                };
                entry
            }
        };
        self.keep_at(m, entry, fact)
    }

    /// The same, where the key's entry stands.
    pub(super) fn keep_at(&mut self, m: Moment, entry: EntryId, fact: &Fact<'_>) -> bool {
        let head = self.store.head(entry);
        let stay = self.places[head.bucket()].stay;
        if head.stay == stay && head.state != State::Asked && head.version >= Version(fact.version) {
            return true;
        }
        let Some(entry) = self.set(entry, stay, Version(fact.version), fact.content) else { return false };
        let head = self.store.head_mut(entry);
        (head.unsure, head.expires) = (fact.unsure, expiry(m, fact.ticks));
        true
    }

    /// A copy has what was put.
    pub(super) fn stored_by(&mut self, m: Moment, from: NodeId, token: u32, out: &mut impl Outbox) {
        let Some(at) = self.busy.of(token).filter(|at| self.busy.get(*at).work == Work::Write) else {
            return;
        };
        let busy = self.busy.get_mut(at);
        busy.missing = busy.missing.without(NodeSet::of(from));
        self.stored(m, at, out);
    }

    /// Answers whoever waits for a write if all complete copies have it, and goes on with the key.
    pub(super) fn stored(&mut self, m: Moment, at: u16, out: &mut impl Outbox) {
        let busy = *self.busy.get(at);
        let needed = self.needed(busy.bucket);
        let lacks = busy.missing.iter().any(|node| needed.contains(node));
        if busy.blocks && !lacks {
            self.busy.get_mut(at).blocks = false;
            let place = &mut self.places[busy.bucket];
            place.open = place.open.saturating_sub(1);
            self.settle(busy.bucket);
            self.go_on(m, at, out);
        }
        self.release(at);
    }

    /// A busy key that nothing is waited for any more is free.
    pub(super) fn release(&mut self, at: u16) {
        let busy = *self.busy.get(at);
        if busy.work == Work::Write && !busy.blocks && busy.missing.is_empty() {
            self.store.head_mut(busy.entry).busy = IDLE;
            self.busy.give_back(at);
        }
    }

    /// Tells whoever waited for a key what is to be said, and does what the others have asked for, until one of them has to wait
    /// again.
    pub(super) fn go_on(&mut self, m: Moment, at: u16, out: &mut impl Outbox) {
        let mut waiting = self.busy.all_waiters(at);
        while let Some(mut waiter) = self.busy.next(&mut waiting) {
            let ticket = waiter.ticket;
            let answer = match waiter.answer.take() {
                _ if !m.is_leased() => Some(Answer::Unknown(Unknown::Unleased)),
                Some(answer) => Some(answer),
                None => self.run(m, self.busy.get(at).entry, waiter, out),
            };
            self.answers.extend(answer.map(|answer| (ticket, answer)));
        }
    }

    /// What was asked for was not answered in time.
    pub(super) fn overdue(&mut self, m: Moment, at: u16, out: &mut impl Outbox) {
        let patience = self.bounds.patience;
        let tired = |waiter: &Waiter| m.now.since(waiter.since) >= patience;
        if self.busy.first(at).is_some_and(tired) {
            let mut waiting = self.busy.all_waiters(at);
            while let Some(waiter) = self.busy.next(&mut waiting) {
                if tired(&waiter) {
                    self.answers.push_back((waiter.ticket, Answer::Unknown(Unknown::Unanswered)));
                } else {
                    self.busy.wait(at, waiter);
                }
            }
        }
        self.busy.get_mut(at).due = m.now + self.bounds.again;
        self.counts.resent += 1;
        match self.busy.get(at).work {
            Work::Write => self.tell(m, at, out),
            Work::Hunt(_) => self.next_hop(at, out),
            Work::Free => {}
        }
    }
}
