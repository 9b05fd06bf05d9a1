//! Hunting: an owner that isn't complete asks complete copies for a key (MECHANISMS §1, points 3 and 4).

use super::busy::{Waiter, Work};
use super::shard::{Answer, Moment, Outbox, Refusal, Shard, Unknown};
use super::store::{EntryId, State};
use crate::base::{NodeId, NodeSet};
use crate::wire::state::{Content, Fact, Message, Name, Record};

impl Shard {
    /// Begins a hunt for an entry that isn't known. One at a time: others who ask for it wait for the same.
    pub(super) fn hunt(
        &mut self,
        m: Moment,
        entry: EntryId,
        waiter: Waiter,
        out: &mut impl Outbox,
    ) -> Option<Answer> {
        let bucket = self.store.head(entry).bucket();
        let epoch = self.places[bucket].chain.epoch;
        let nobody = self.places[bucket].chain.complete().next().is_none();
        let at =
            if nobody || !self.busy.has_room(false) { None } else { self.busy.take(entry, bucket, epoch) };
        let Some(at) = at else {
            if self.store.head(entry).state == State::Asked {
                self.remove(entry);
            }
            return Some(if nobody {
                Answer::Unknown(Unknown::Unanswered)
            } else {
                Answer::Refused(Refusal::Busy)
            });
        };
        self.counts.hunts += 1;
        self.store.head_mut(entry).busy = at;
        let busy = self.busy.get_mut(at);
        (busy.work, busy.blocks, busy.due) = (Work::Hunt(0), true, m.now + self.bounds.again);
        self.busy.wait(at, waiter);
        self.ask_hop(at, 0, out);
        None
    }

    fn ask_hop(&mut self, at: u16, hop: u8, out: &mut impl Outbox) {
        let token = self.busy.token(at);
        let busy = self.busy.get(at);
        let hops = self.places[busy.bucket].chain.complete().count().max(1);
        let node = self.places[busy.bucket].chain.complete().nth(usize::from(hop) % hops);
        let record = self.record(busy.bucket, token, Message::Hunt(self.store.name(busy.entry)));
        node.into_iter().for_each(|node| out.send(node, &record));
    }

    /// A hop hasn't answered: the next one is asked, and after the last the first again, as long as somebody waits.
    pub(super) fn next_hop(&mut self, at: u16, out: &mut impl Outbox) {
        let Work::Hunt(hop) = self.busy.get(at).work else { return };
        if self.busy.first(at).is_none() {
            return self.abort(at, Answer::Unknown(Unknown::Unanswered));
        }
        let hop = hop.wrapping_add(1);
        self.busy.get_mut(at).work = Work::Hunt(hop);
        self.ask_hop(at, hop, out);
    }

    /// The owner asks what this complete copy knows of a key.
    pub(super) fn hunted(
        &mut self,
        m: Moment,
        from: NodeId,
        bucket: usize,
        record: &Record<'_>,
        name: Name<'_>,
        out: &mut impl Outbox,
    ) {
        let place = &self.places[bucket];
        if !place.chain.is_owned_by(from) || !place.whole || place.chain.copy(self.me).is_none() {
            self.counts.outdated += 1;
            return;
        }
        let known = self.store.find(bucket, name).filter(|entry| self.is_known(*entry));
        let absent = Fact { version: 0, ticks: 0, unsure: false, content: Content::Absent };
        let fact = known.map_or(absent, |entry| self.fact(m, entry));
        out.send(from, &Record { message: Message::Found(fact), ..*record });
    }

    /// A complete copy has told what it knows of a key.
    pub(super) fn found(
        &mut self,
        m: Moment,
        from: NodeId,
        token: u32,
        fact: &Fact<'_>,
        out: &mut impl Outbox,
    ) {
        let hunting = |at: &u16| matches!(self.busy.get(*at).work, Work::Hunt(_));
        let Some(at) = self.busy.of(token).filter(hunting) else { return };
        let busy = *self.busy.get(at);
        if !self.places[busy.bucket].chain.complete().any(|node| node == from) {
            self.counts.outdated += 1;
            return;
        }
        // It may have come with a page meanwhile.
        if !self.keep_at(m, busy.entry, fact) {
            return;
        }
        let busy = self.busy.get_mut(at);
        (busy.work, busy.missing, busy.blocks) = (Work::Write, NodeSet::EMPTY, false);
        self.busy.turn(at);
        self.go_on(m, at, out);
        self.release(at);
    }
}
