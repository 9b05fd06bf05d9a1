//! Keys on which an owner waits for others, and who waits for them.

use super::entry::Value;
use super::shard::{Answer, Operation, Ticket};
use super::store::{EntryId, IDLE};
use crate::base::{Instant, NodeSet};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Nothing: the record is free.
    Free,
    /// Copies that have to store what was written.
    Write,
    /// What a complete copy knows; so many were asked before.
    Hunt(u8),
}

/// A key on which others are waited for.
#[derive(Clone, Copy, Debug)]
pub struct Busy {
    /// What for.
    pub work: Work,
    /// The key's entry.
    pub entry: EntryId,
    /// Its bucket's number, and the epoch in which this began.
    pub bucket: usize,
    /// See above.
    pub epoch: u32,
    /// Copies that haven't said that they have it, the incomplete among them.
    pub missing: NodeSet,
    /// Nobody may be answered by it yet.
    pub blocks: bool,
    /// When to ask again.
    pub due: Instant,
    /// Differs each time that what is waited for is another.
    turn: u16,
    first: u16,
    last: u16,
    /// The records of the same bucket around it.
    before: u16,
    behind: u16,
}

/// Somebody who waits for a key.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Whose question.
    pub ticket: Ticket,
    /// The question.
    pub operation: Operation,
    /// Since when.
    pub since: Instant,
    /// It has been done, and this is to be said once it may be.
    pub answer: Option<Answer>,
    pub(super) next: u16,
}

/// All of both, in arrays of fixed size.
pub struct BusyTable {
    busy: Box<[Busy]>,
    free: Vec<u16>,
    /// By bucket, the first of its records.
    heads: Box<[u16]>,
    waiters: Box<[Waiter]>,
    free_waiters: Vec<u16>,
    cursor: usize,
}

impl BusyTable {
    /// For so many keys and so many who wait, each fewer than 65,535, in so many buckets.
    pub fn new(keys: u16, waiters: u16, buckets: usize) -> Self {
        let busy = Busy {
            work: Work::Free,
            entry: EntryId::NONE,
            bucket: 0,
            epoch: 0,
            missing: NodeSet::EMPTY,
            blocks: false,
            due: Instant::ZERO,
            turn: 0,
            first: IDLE,
            last: IDLE,
            before: IDLE,
            behind: IDLE,
        };
        let waiter = Waiter {
            ticket: Ticket(0),
            operation: Operation::Read,
            since: Instant::ZERO,
            answer: None,
            next: IDLE,
        };
        Self {
            busy: vec![busy; usize::from(keys)].into(),
            free: (0..keys).rev().collect(),
            heads: vec![IDLE; buckets].into(),
            waiters: vec![waiter; usize::from(waiters)].into(),
            free_waiters: (0..waiters).rev().collect(),
            cursor: 0,
        }
    }

    /// Whether nobody waits for any key.
    pub fn is_empty(&self) -> bool {
        self.busy.len() == self.free.len()
    }

    /// Whether a key (unless it has a record) and one who waits for it would find room.
    pub fn has_room(&self, recorded: bool) -> bool {
        (recorded || !self.free.is_empty()) && !self.free_waiters.is_empty()
    }

    /// A record for a key; none if all are in use.
    pub fn take(&mut self, entry: EntryId, bucket: usize, epoch: u32) -> Option<u16> {
        let at = self.free.pop()?;
        let behind = std::mem::replace(&mut self.heads[bucket], at);
        if let Some(behind) = self.busy.get_mut(usize::from(behind)) {
            behind.before = at;
        }
        let busy = &mut self.busy[usize::from(at)];
        let turn = busy.turn;
        *busy = Busy {
            work: Work::Write,
            entry,
            bucket,
            epoch,
            missing: NodeSet::EMPTY,
            blocks: false,
            due: Instant::ZERO,
            turn,
            first: IDLE,
            last: IDLE,
            before: IDLE,
            behind,
        };
        Some(at)
    }

    /// Gives a record back, for which nobody waits any more.
    pub fn give_back(&mut self, at: u16) {
        let busy = &mut self.busy[usize::from(at)];
        debug_assert!(busy.first == IDLE && busy.work != Work::Free);
        busy.work = Work::Free;
        busy.turn = busy.turn.wrapping_add(1);
        let Busy { bucket, before, behind, .. } = *busy;
        match self.busy.get_mut(usize::from(before)) {
            Some(before) => before.behind = behind,
            None => self.heads[bucket] = behind,
        }
        if let Some(behind) = self.busy.get_mut(usize::from(behind)) {
            behind.before = before;
        }
        self.free.push(at);
    }

    /// The first record of a bucket.
    pub fn first_in(&self, bucket: usize) -> Option<u16> {
        Some(self.heads[bucket]).filter(|at| *at != IDLE)
    }

    /// The next record of the same bucket.
    pub fn next_in(&self, at: u16) -> Option<u16> {
        Some(self.busy[usize::from(at)].behind).filter(|at| *at != IDLE)
    }

    /// The records of a bucket.
    pub fn all_in(&self, bucket: usize) -> impl Iterator<Item = &Busy> {
        let all = std::iter::successors(self.first_in(bucket), |at| self.next_in(*at));
        all.map(|at| &self.busy[usize::from(at)])
    }

    /// A record.
    pub fn get(&self, at: u16) -> &Busy {
        &self.busy[usize::from(at)]
    }

    /// A record, writable.
    pub fn get_mut(&mut self, at: u16) -> &mut Busy {
        &mut self.busy[usize::from(at)]
    }

    /// What a record waits for is another thing now: answers to what was asked before don't count.
    pub fn turn(&mut self, at: u16) -> u32 {
        let busy = &mut self.busy[usize::from(at)];
        busy.turn = busy.turn.wrapping_add(1);
        self.token(at)
    }

    /// What answers have to bear.
    pub fn token(&self, at: u16) -> u32 {
        u32::from(self.busy[usize::from(at)].turn) << 16 | u32::from(at)
    }

    /// The record that an answer is for; none: it isn't waited for any more.
    pub fn of(&self, token: u32) -> Option<u16> {
        let at = token as u16;
        let busy = self.busy.get(usize::from(at))?;
        (busy.work != Work::Free && self.token(at) == token).then_some(at)
    }

    /// Lets somebody wait for a key, behind the others; `false` if there is no room.
    pub fn wait(&mut self, at: u16, waiter: Waiter) -> bool {
        let Some(place) = self.free_waiters.pop() else { return false };
        self.waiters[usize::from(place)] = Waiter { next: IDLE, ..waiter };
        let busy = &mut self.busy[usize::from(at)];
        match busy.last {
            IDLE => busy.first = place,
            last => self.waiters[usize::from(last)].next = place,
        }
        busy.last = place;
        true
    }

    /// Takes all who wait for a key, as a chain that [`BusyTable::next`] goes along.
    pub fn all_waiters(&mut self, at: u16) -> Waiting {
        let busy = &mut self.busy[usize::from(at)];
        busy.last = IDLE;
        Waiting(std::mem::replace(&mut busy.first, IDLE))
    }

    /// The next of them.
    pub fn next(&mut self, waiting: &mut Waiting) -> Option<Waiter> {
        let at = waiting.0;
        if at == IDLE {
            return None;
        }
        let waiter = self.waiters[usize::from(at)].clone();
        waiting.0 = waiter.next;
        self.free_waiters.push(at);
        Some(waiter)
    }

    /// The first of those who wait for a key.
    pub fn first(&self, at: u16) -> Option<&Waiter> {
        self.waiters.get(usize::from(self.busy[usize::from(at)].first))
    }

    /// The records in use among the next `most`.
    pub fn visit(&mut self, most: usize) -> impl Iterator<Item = u16> + use<> {
        let (from, len) = (self.cursor, self.busy.len());
        let most = most.min(len);
        self.cursor = if len == 0 { 0 } else { (from + most) % len };
        (from..from + most).map(move |at| (at % len) as u16)
    }

    /// All places of records, used or not.
    pub fn places(&self) -> std::ops::Range<u16> {
        0..self.busy.len() as u16
    }
}

impl Waiter {
    /// Somebody who asks.
    pub fn new(ticket: Ticket, operation: Operation, since: Instant) -> Self {
        Self { ticket, operation, since, answer: None, next: IDLE }
    }

    /// The value that a write has to store.
    pub fn value(&self) -> Option<&Value> {
        match &self.operation {
            Operation::Set { value, .. } | Operation::Compare { value, .. } => Some(value),
            Operation::Read | Operation::Delete | Operation::Add { .. } => None,
        }
    }
}

/// Those who waited for a key.
pub struct Waiting(u16);
