//! A model of the replicated log: it does all that the contract of [`crate::cluster::log`] allows, in virtual time and from a
//! seed, with the whole cluster's log in one hand.
//!
//! Replicas append, vote and fall behind as in Raft (Ongaro and Ousterhout 2014), but who is elected is known at once, and
//! nothing is sent: a replica that is within the leader's reach has what the leader has after a while. So leaders are lost
//! with entries that some have stored, proposals end in doubt, and replicas that were away are given a snapshot.

use crate::base::hash::mix;
use crate::base::planted::{self, Bug};
use crate::base::rng::Rng;
use crate::base::{Incarnation, Instant};
use crate::cluster::fences::Fences;
use crate::cluster::log::{Log, Outcome, Output, Refusal, Replica, ReplicaId, Ticket};
use crate::cluster::state::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Entries after which a snapshot is asked for.
const COMPACTION: usize = 64;
/// An election takes this long, and up to as much again.
const ELECTION: Duration = Duration::from_millis(150);
/// A proposal that has found no leader for this long is refused.
const PATIENCE: Duration = Duration::from_millis(600);

#[derive(Clone, Debug)]
struct Item {
    term: u64,
    /// None: a leader's first entry, which is nobody's.
    bytes: Option<Vec<u8>>,
    fences: Fences,
    /// Who proposed it, in which of its lives.
    origin: Option<(ReplicaId, u64, Ticket)>,
}

#[derive(Debug)]
struct Proposal {
    from: ReplicaId,
    life: u64,
    ticket: Ticket,
    bytes: Vec<u8>,
    fences: Fences,
    made: Instant,
}

#[derive(Debug, Default)]
struct Seat {
    votes: bool,
    alive: bool,
    life: u64,
    items: Vec<Arc<Item>>,
    /// Items that the state machine of this life has been given.
    delivered: usize,
    outputs: VecDeque<Output>,
    snapshot: Option<(usize, Vec<u8>)>,
    asked: bool,
    role: Option<(Option<ReplicaId>, u64, bool)>,
    /// Up to here it was told what became of its proposals.
    told: usize,
    /// It doesn't lead if another can.
    resigned: bool,
    /// What it is sent waits until then.
    lags_until: Instant,
    tickets: u64,
}

/// The log of a whole cluster.
#[derive(Debug)]
pub struct Model {
    seats: BTreeMap<ReplicaId, Seat>,
    /// Pairs that don't hear each other.
    cut: Vec<(ReplicaId, ReplicaId)>,
    rng: Rng,
    term: u64,
    leader: Option<ReplicaId>,
    election_due: Instant,
    committed: usize,
    proposals: Vec<Proposal>,
    renewals: Vec<(ReplicaId, u64, Incarnation, Instant)>,
    now: Instant,
}

impl Model {
    /// A log of these replicas, of which the first `voters` vote. None of them lives yet.
    pub fn new(seed: u64, replicas: impl IntoIterator<Item = ReplicaId>, voters: usize) -> Self {
        let seat = |(i, id)| (id, Seat { votes: i < voters, ..Seat::default() });
        Self {
            seats: replicas.into_iter().enumerate().map(seat).collect(),
            cut: Vec::new(),
            rng: Rng::new(mix(seed ^ 0x6c6f_6700)),
            term: 0,
            leader: None,
            election_due: Instant::ZERO,
            committed: 0,
            proposals: Vec::new(),
            renewals: Vec::new(),
            now: Instant::ZERO,
        }
    }

    /// Entries that are committed, all leaders' own among them.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// Whether that entry is committed, at `index` or before it.
    pub fn holds(&self, index: u64, entry: &Entry) -> bool {
        let wanted = entry.encode().ok();
        let longest = self.seats.values().map(|s| &s.items).max_by_key(|items| items.len());
        let items = longest.map(Vec::as_slice).unwrap_or_default();
        let committed = items.iter().take(self.committed.min(index as usize));
        wanted.is_some() && committed.into_iter().any(|item| item.bytes == wanted)
    }

    /// Who leads.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// Pairs that don't hear each other from now on.
    pub fn cut(&mut self, cut: Vec<(ReplicaId, ReplicaId)>) {
        self.cut = cut;
    }

    /// A replica hears nothing until then, as if its link or disk were slow.
    pub fn lag(&mut self, id: ReplicaId, until: Instant) {
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.lags_until = until;
        }
    }

    /// A replica's process is gone; what it has stored stays, but for some of the last writes, which were on their way to the
    /// disk: nobody has been told of them.
    pub fn kill(&mut self, id: ReplicaId) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        seat.alive = false;
        seat.outputs.clear();
        let stored = self.committed.min(seat.items.len());
        let written = stored + self.rng.below((seat.items.len() - stored + 1) as u64) as usize;
        let torn = seat.items.split_off(written);
        for (from, life, ticket) in torn.into_iter().filter_map(|item| item.origin) {
            let origin = Some((from, life, ticket));
            if !self.seats.values().any(|seat| seat.items.iter().any(|item| item.origin == origin)) {
                self.doubt(from, life, ticket);
            }
        }
    }

    fn start(&mut self, id: ReplicaId) {
        let replicas = self.replicas();
        let Some(seat) = self.seats.get_mut(&id) else { return };
        (seat.alive, seat.resigned) = (true, false);
        (seat.role, seat.asked, seat.tickets, seat.told) = (None, false, 0, 0);
        seat.life += 1;
        seat.outputs.clear();
        seat.delivered = seat.snapshot.as_ref().map_or(0, |(index, _)| *index);
        if let Some((index, bytes)) = seat.snapshot.clone() {
            seat.outputs.push_back(Output::Install { index: index as u64, bytes });
        }
        seat.outputs.push_back(Output::Replicas(replicas));
    }

    fn replicas(&self) -> Vec<Replica> {
        let each = self.seats.iter().map(|(id, seat)| Replica {
            id: *id,
            name: format!("r{id}"),
            address: String::new(),
            votes: seat.votes,
        });
        each.collect()
    }

    /// In both directions, though a wire may be cut in one: the log goes over TCP, which carries nothing for long either way once
    /// the acknowledgements are lost.
    fn hears(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let alive = |id| self.seats.get(&id).is_some_and(|s| s.alive);
        alive(a) && alive(b) && !self.cut.iter().any(|(x, y)| (*x, *y) == (a, b) || (*x, *y) == (b, a))
    }

    fn majority(&self) -> usize {
        self.seats.values().filter(|s| s.votes).count() / 2 + 1
    }

    fn voters(&self) -> Vec<ReplicaId> {
        self.seats.iter().filter(|(_, s)| s.votes).map(|(id, _)| *id).collect()
    }

    fn reaches_majority(&self, id: ReplicaId) -> bool {
        self.voters().into_iter().filter(|v| self.hears(id, *v)).count() >= self.majority()
    }

    /// Virtual time goes on.
    pub fn turn(&mut self, now: Instant) {
        self.now = now;
        if self.leader.is_some_and(|leader| !self.reaches_majority(leader)) {
            self.leader = None;
            self.election_due = now + ELECTION + self.rng_up_to(ELECTION);
        }
        if self.leader.is_none() && now >= self.election_due {
            self.elect();
        }
        self.hear_proposals();
        self.replicate();
        self.commit();
        self.renew();
        for id in self.seats.keys().copied().collect::<Vec<_>>() {
            self.deliver(id);
        }
    }

    fn rng_up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(most.as_nanos() as u64 + 1))
    }

    /// Of those whom a majority would vote for, any may win.
    fn elect(&mut self) {
        let rank = |seat: &Seat| (seat.items.last().map_or(0, |i| i.term), seat.items.len());
        let able: Vec<_> = self
            .voters()
            .into_iter()
            .filter(|candidate| {
                let own = rank(&self.seats[candidate]);
                let votes = self
                    .voters()
                    .into_iter()
                    .filter(|v| self.hears(*candidate, *v) && rank(&self.seats[v]) <= own)
                    .count();
                votes >= self.majority()
            })
            .collect();
        if able.is_empty() {
            return;
        }
        let willing: Vec<_> = able.iter().copied().filter(|id| !self.seats[id].resigned).collect();
        let able = if willing.is_empty() { able } else { willing };
        let winner = able[self.rng.below(able.len() as u64) as usize];
        self.term += 1;
        self.leader = Some(winner);
        let item = Item { term: self.term, bytes: None, fences: Fences::NONE, origin: None };
        if let Some(seat) = self.seats.get_mut(&winner) {
            seat.items.push(Arc::new(item));
        }
    }

    fn hear_proposals(&mut self) {
        let proposals = std::mem::take(&mut self.proposals);
        for proposal in proposals {
            let Proposal { from, life, ticket, made, .. } = proposal;
            let heard = self.leader.filter(|leader| self.hears(from, *leader));
            let term = self.term;
            match heard.and_then(|leader| self.seats.get_mut(&leader)) {
                Some(_) if planted::is(Bug::AcknowledgedEarly) && self.rng.below(4) == 0 => {
                    let index = self.seats.values().map(|s| s.items.len()).max().unwrap_or(0) as u64 + 1;
                    self.tell(from, life, Output::Outcome(ticket, Outcome::Committed(index)));
                }
                Some(seat) => seat.items.push(Arc::new(Item {
                    term,
                    bytes: Some(proposal.bytes),
                    fences: proposal.fences,
                    origin: Some((from, life, ticket)),
                })),
                None if self.now.since(made) > PATIENCE => {
                    let refused = Outcome::Refused(Refusal::NoLeader);
                    self.tell(from, life, Output::Outcome(ticket, refused));
                }
                None => self.proposals.push(proposal),
            }
        }
    }

    fn tell(&mut self, to: ReplicaId, life: u64, output: Output) {
        if let Some(seat) = self.seats.get_mut(&to).filter(|s| s.alive && s.life == life) {
            seat.outputs.push_back(output);
        }
    }

    /// Whoever hears the leader gets what it has, most times.
    fn replicate(&mut self) {
        let Some(leader) = self.leader else { return };
        let items = self.seats[&leader].items.clone();
        for id in self.seats.keys().copied().collect::<Vec<_>>() {
            if id == leader || !self.hears(leader, id) || self.rng.below(3) == 0 {
                continue;
            }
            let now = self.now;
            let Some(seat) = self.seats.get_mut(&id).filter(|s| now >= s.lags_until) else { continue };
            let same = shared(&seat.items, &items);
            let lost: Vec<_> = seat.items.drain(same..).filter_map(|item| item.origin).collect();
            seat.items.extend_from_slice(&items[same..]);
            // What is cut off here may still be stored elsewhere.
            for (from, life, ticket) in lost {
                let known = items.iter().any(|i| i.origin == Some((from, life, ticket)));
                if !known {
                    self.doubt(from, life, ticket);
                }
            }
        }
    }

    fn doubt(&mut self, from: ReplicaId, life: u64, ticket: Ticket) {
        let told = Output::Outcome(ticket, Outcome::Unknown);
        let known = self.seats.get(&from).is_some_and(|s| s.outputs.contains(&told));
        if !known {
            self.tell(from, life, told);
        }
    }

    fn commit(&mut self) {
        let Some(leader) = self.leader else { return };
        let items = &self.seats[&leader].items;
        let mut stored: Vec<_> = self.voters().iter().map(|v| shared(&self.seats[v].items, items)).collect();
        stored.sort_unstable_by(|a, b| b.cmp(a));
        let most = stored[self.majority() - 1];
        if most > self.committed && items[most - 1].term == self.term {
            self.committed = most;
        }
    }

    /// Who votes stays as it is, so whoever asks has the same voters in mind as who answers.
    fn renew(&mut self) {
        let renewals = std::mem::take(&mut self.renewals);
        for (from, token, of, made) in renewals {
            let life = self.seats.get(&from).map_or(0, |s| s.life);
            let agrees = |voter: &ReplicaId| {
                let lags = self.seats[voter].lags_until > made;
                let fenced = from.node().is_some_and(|node| self.fenced(*voter).has(node, of));
                self.hears(from, *voter) && !lags && (!fenced || planted::is(Bug::FenceIgnored))
            };
            if self.voters().iter().filter(|voter| agrees(voter)).count() >= self.majority() {
                self.tell(from, life, Output::Renewed { token });
            }
        }
    }

    fn steps_down(&mut self, id: ReplicaId) {
        if self.leader == Some(id) {
            self.leader = None;
            self.election_due = self.now + ELECTION + self.rng_up_to(ELECTION);
        }
    }

    fn resign(&mut self, id: ReplicaId) {
        self.steps_down(id);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.resigned = true;
        }
    }

    /// Everything anew, if this replica has no snapshot or another has one that is as new.
    fn restore(&mut self, id: ReplicaId, from: ReplicaId) {
        self.steps_down(id);
        let near = self.hears(id, from);
        let other = self.seats.get(&from).filter(|_| near).and_then(|seat| seat.snapshot.clone());
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let own = seat.snapshot.as_ref().map(|(at, _)| *at);
        let fits = |at: usize| own.is_some_and(|own| at >= own) && at <= seat.delivered;
        match (own, other.filter(|(at, _)| fits(*at))) {
            (None, _) => {
                seat.outputs.push_back(Output::Anew);
                seat.delivered = 0;
            }
            (Some(_), Some((at, bytes))) => {
                seat.outputs.push_back(Output::Anew);
                seat.outputs.push_back(Output::Install { index: at as u64, bytes: bytes.clone() });
                (seat.delivered, seat.snapshot) = (at, Some((at, bytes)));
            }
            (Some(_), None) => {
                if let Some(other) = self.seats.get_mut(&from).filter(|_| near) {
                    other.outputs.push_back(Output::WantSnapshot);
                }
                return;
            }
        }
        seat.asked = false;
    }

    fn fenced(&self, voter: ReplicaId) -> Fences {
        let items = self.seats.get(&voter).map(|s| s.items.as_slice()).unwrap_or_default();
        items.iter().map(|item| &item.fences).collect()
    }

    fn deliver(&mut self, id: ReplicaId) {
        let leader = self.leader.filter(|leader| self.hears(id, *leader));
        let (term, committed) = (self.term, self.committed);
        // What it has besides the leader's entries is to be cut off.
        let same = match leader {
            Some(leader) if leader != id => shared(&self.seats[&id].items, &self.seats[&leader].items),
            _ => self.seats[&id].items.len(),
        };
        let jump = self.rng.below(4) == 0;
        let own = self.seats[&id].delivered;
        let snapshot = leader.filter(|l| *l != id && jump).and_then(|l| self.seats[&l].snapshot.as_ref());
        let far = |(at, _): &&(usize, Vec<u8>)| *at >= own + COMPACTION && *at <= same.min(committed);
        let snapshot = snapshot.filter(far).cloned();
        let mut outcomes = Vec::new();
        let Some(seat) = self.seats.get_mut(&id).filter(|s| s.alive) else { return };
        let role = (leader, term, leader.is_some());
        if seat.role != Some(role) {
            seat.role = Some(role);
            seat.outputs.push_back(Output::Role { leader, term, quorum: leader.is_some() });
        }
        if leader.is_none() {
            return;
        }
        let ready = same.min(committed);
        // One that is far behind may be given the leader's snapshot instead of the entries.
        if let Some((at, bytes)) = snapshot {
            seat.outputs.push_back(Output::Install { index: at as u64, bytes: bytes.clone() });
            for item in &seat.items[seat.delivered.max(seat.told).min(at)..at] {
                outcomes.extend(item.origin);
            }
            (seat.delivered, seat.snapshot) = (at, Some((at, bytes)));
        }
        while seat.delivered < ready {
            let item = &seat.items[seat.delivered];
            seat.delivered += 1;
            if let Some(bytes) = item.bytes.clone() {
                seat.outputs.push_back(Output::Entry { index: seat.delivered as u64, bytes });
            }
            let known = seat.delivered <= seat.told;
            if let Some((from, life, ticket)) = item.origin.filter(|_| !known)
                && (from, life) == (id, seat.life)
            {
                let outcome = Outcome::Committed(seat.delivered as u64);
                seat.outputs.push_back(Output::Outcome(ticket, outcome));
            }
        }
        seat.told = seat.told.max(seat.delivered);
        let since = seat.delivered - seat.snapshot.as_ref().map_or(0, |(at, _)| *at);
        if since >= COMPACTION && !seat.asked {
            seat.asked = true;
            seat.outputs.push_back(Output::WantSnapshot);
        }
        for (from, life, ticket) in outcomes {
            if from == id {
                let index = self.seats[&id].delivered as u64;
                self.tell(id, life, Output::Outcome(ticket, Outcome::Committed(index)));
            }
        }
    }
}

/// How long a beginning two logs share. Where an entry's term is the same in both, so is all before it.
fn shared(a: &[Arc<Item>], b: &[Arc<Item>]) -> usize {
    let most = a.len().min(b.len());
    (0..=most).rev().find(|n| *n == 0 || Arc::ptr_eq(&a[n - 1], &b[n - 1])).unwrap_or(0)
}

/// One replica's end of a [`Model`].
#[derive(Clone, Debug)]
pub struct ModelLog {
    model: Arc<Mutex<Model>>,
    id: ReplicaId,
}

impl ModelLog {
    /// Begins a life of a replica.
    pub fn start(model: &Arc<Mutex<Model>>, id: ReplicaId) -> Self {
        let log = Self { model: model.clone(), id };
        log.model().start(id);
        log
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for ModelLog {
    fn propose(&mut self, bytes: Vec<u8>, fences: Fences) -> Ticket {
        let mut model = self.model();
        let (now, from) = (model.now, self.id);
        let Some(seat) = model.seats.get_mut(&from) else { return Ticket(0) };
        seat.tickets += 1;
        let (life, ticket) = (seat.life, Ticket(seat.tickets));
        model.proposals.push(Proposal { from, life, ticket, bytes, fences, made: now });
        ticket
    }

    fn set_replicas(&mut self, _: Vec<Replica>) -> Ticket {
        let mut model = self.model();
        let from = self.id;
        let Some(seat) = model.seats.get_mut(&from) else { return Ticket(0) };
        seat.tickets += 1;
        let refused = Refusal::Replicas("the model's replicas stay as they are".into());
        seat.outputs.push_back(Output::Outcome(Ticket(seat.tickets), Outcome::Refused(refused)));
        Ticket(seat.tickets)
    }

    fn take(&mut self) -> Option<Output> {
        self.model().seats.get_mut(&self.id)?.outputs.pop_front()
    }

    fn snapshot(&mut self, index: u64, bytes: Vec<u8>) {
        if let Some(seat) = self.model().seats.get_mut(&self.id) {
            (seat.snapshot, seat.asked) = (Some((index as usize, bytes)), false);
        }
    }

    fn restore(&mut self, from: ReplicaId) {
        let id = self.id;
        self.model().restore(id, from);
    }

    fn resign(&mut self) {
        let id = self.id;
        self.model().resign(id);
    }

    fn renew(&mut self, token: u64, life: Incarnation) {
        let mut model = self.model();
        let renewal = (self.id, token, life, model.now);
        model.renewals.push(renewal);
    }

    fn fenced(&self) -> Fences {
        self.model().fenced(self.id)
    }
}
