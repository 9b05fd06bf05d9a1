//! A node's part in deciding: it follows the log, keeps the state, holds a lease, and leads when it is its turn.
//!
//! A value that is turned by the manager, which in return makes Views of what is decided. It knows nothing of Views itself.

use super::asks::{Answer, Ask, Asks};
use super::fleet::{Phase, Trouble, Why};
use super::keeper::{Keeper, News};
use super::lead::{Lead, Patience, Seen};
use super::lease::{Lease, successor_waits};
use super::log::{Log, Output, Refusal, Replica, ReplicaId, Ticket};
use super::namespace::{Change, Faults, Namespace};
use super::state::{Entry, State};
use super::voters;
use crate::base::planted::{self, Bug};
use crate::base::version::{Software, WireVersion};
use crate::base::{Incarnation, Instant, NodeId, NodeSet};
use std::collections::BTreeMap;
use std::time::Duration;

/// Times of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two requests to renew the lease.
    pub renewal: Duration,
    /// What a renewal is good for.
    pub lease: Duration,
    /// The leader's.
    pub patience: Patience,
}

/// What a node says of itself in a heartbeat, besides that it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The last entry that it holds.
    pub index: u64,
    /// The digest of its state there.
    pub digest: u64,
    /// The version that it has prepared; zero, if there was one before: this life can't go on.
    pub prepared: u64,
    /// The version that its workers run.
    pub adopted: u64,
    /// It can serve.
    pub ready: bool,
    /// Whom it hears over the backplane.
    pub hears: NodeSet,
    /// What keeps it from going on, if something does.
    pub trouble: Trouble,
    /// The newest wire version that it can speak.
    pub speaks: WireVersion,
    /// What it runs, if it says so.
    pub software: Software,
}

/// After this long the leader asks again for replicas of the log that it didn't get.
const REPLICAS_AGAIN: Duration = Duration::from_secs(1);

/// See the module's text.
pub struct Council<L> {
    me: NodeId,
    incarnation: Incarnation,
    times: Times,
    log: L,
    keeper: Keeper,
    lease: Lease,
    lead: Lead,
    seen: BTreeMap<NodeId, Seen>,
    report: Report,
    renewal_due: Instant,
    leader: Option<ReplicaId>,
    quorum: bool,
    asks: Asks,
    replicas: Vec<Replica>,
    replicas_due: Instant,
    failed: Option<Why>,
    /// The log has stopped for good.
    stopped: bool,
    waits: Duration,
}

impl<L: Log> Council<L> {
    /// A node that begins a life with this state; what the log holds comes on top of it.
    pub fn new(
        me: NodeId,
        incarnation: Incarnation,
        times: Times,
        log: L,
        state: State,
        now: Instant,
    ) -> Self {
        Self {
            me,
            incarnation,
            times,
            log,
            lease: Lease::new(times.lease),
            lead: Lead::new(times.patience),
            seen: BTreeMap::new(),
            report: Report::default(),
            keeper: Keeper::new(me, state),
            renewal_due: now,
            leader: None,
            quorum: false,
            asks: Asks::default(),
            replicas: Vec::new(),
            replicas_due: now,
            failed: None,
            stopped: false,
            waits: successor_waits(times.lease),
        }
    }

    /// What is decided.
    pub fn state(&self) -> &State {
        self.keeper.state()
    }

    /// What [`State::preview`] gives.
    ///
    /// # Errors
    /// Why they can't be made, and how many more reasons there are.
    pub fn preview<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Namespace) -> T,
    ) -> Result<T, Faults> {
        self.keeper.preview(changes, look)
    }

    /// What the nodes have told, each its latest life.
    pub fn seen(&self) -> &BTreeMap<NodeId, Seen> {
        &self.seen
    }

    /// The entry behind which nodes' states differ and it can't be told whose is wrong, if that was so of late.
    pub fn divided(&self) -> Option<u64> {
        self.keeper.divided()
    }

    /// Who holds the log.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Who leads the log, as far as is known here.
    pub fn leader(&self) -> Option<ReplicaId> {
        self.leader
    }

    /// Whether this node leads the log, and a majority follows.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.me.into()) && self.quorum
    }

    /// Whether a majority of the voters was within reach a moment ago.
    pub fn quorum(&self) -> bool {
        self.quorum
    }

    /// When the right to serve state ends; none if there is none. The clock is to be read again before it is used.
    pub fn lease(&self) -> Option<Instant> {
        if planted::is(Bug::LeaseUnchecked) {
            return Some(Instant(u64::MAX));
        }
        let serves = self.failed.is_none() && self.state().fleet().serves(self.me, self.incarnation);
        self.lease.until().filter(|_| serves)
    }

    /// Whether this life was taken out, and why: all that it holds is void, and another life is to begin.
    pub fn ended(&self) -> Option<&Why> {
        if let Some(why) = &self.failed {
            return Some(why);
        }
        let member = self.state().fleet().member(self.me)?;
        match &member.phase {
            Phase::Offline(why) if member.incarnation == self.incarnation => Some(why),
            _ if member.incarnation > self.incarnation => Some(&Why::Restarted),
            _ => None,
        }
    }

    /// Whether the log has stopped for good: no other life of this process can serve.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Begins another life, with nothing left of the last one.
    pub fn begin(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.lease.give_up();
        self.failed = None;
        self.forget_progress();
    }

    fn forget_progress(&mut self) {
        (self.report.ready, self.report.prepared, self.report.adopted) = (false, 0, 0);
    }

    /// What this node tells in its heartbeats.
    pub fn report(&self) -> Report {
        let (index, digest) = self.keeper.place();
        let own = Report {
            index,
            digest,
            speaks: WireVersion::own(),
            software: Software::OWN,
            ..Report::default()
        };
        let Some(why) = &self.failed else {
            let Report { prepared, adopted, ready, hears, .. } = self.report;
            return Report { prepared, adopted, ready, hears, ..own };
        };
        let trouble = match why {
            _ if self.stopped => Trouble::Log,
            Why::Apply(_) => Trouble::Apply,
            Why::Stuck(_) => Trouble::Stuck,
            Why::Digest => Trouble::Digest,
            _ => Trouble::Unsaid,
        };
        Report { hears: self.report.hears, trouble, ..own }
    }

    /// The manager has prepared a View of all up to this version; `ready` if the node could serve by it.
    pub fn prepared(&mut self, version: u64, ready: bool) {
        // Not by a state that is about to be replaced.
        if !self.keeper.is_spoilt() {
            (self.report.prepared, self.report.ready) = (version, ready);
        }
    }

    /// The workers run this version.
    pub fn adopted(&mut self, version: u64) {
        self.report.adopted = version;
    }

    /// These times are decided, and will be in force: whoever dies may have a lease by them.
    pub fn expect(&mut self, times: Times) {
        self.waits = self.waits.max(successor_waits(times.lease));
    }

    /// These times are in force.
    pub fn go_by(&mut self, times: Times) {
        self.expect(times);
        self.times = times;
        self.lease.lasts(times.lease);
        self.lead.patience(times.patience);
    }

    /// How long what a dead node had is left alone: by the longest lease that it may have.
    pub fn waits(&self) -> Duration {
        self.waits
    }

    /// Whom this node hears over the backplane.
    pub fn hears(&mut self, nodes: NodeSet) {
        self.report.hears = nodes;
    }

    /// This node can't go on.
    pub fn fail(&mut self, why: Why) {
        self.failed = Some(why);
    }

    /// A peer's authentic heartbeat, or this node's own; `stuck`: a worker whose turns stand still.
    pub fn heard(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        report: &Report,
        stuck: Option<u16>,
        now: Instant,
    ) {
        if self.seen.get(&node).is_some_and(|s| s.incarnation > incarnation) {
            return;
        }
        if node != self.me {
            let fresh = self.seen.get(&node).is_none_or(|s| s.incarnation < incarnation);
            self.keeper.told(node, (report.index, report.digest), fresh);
        }
        let seen = Seen {
            incarnation,
            heard: now,
            ready: report.ready,
            prepared: report.prepared,
            adopted: report.adopted,
            hears: report.hears,
            trouble: report.trouble,
            speaks: report.speaks,
            software: report.software,
            fault: stuck.map(Why::Stuck),
        };
        self.seen.insert(node, seen);
    }

    fn propose(&mut self, entry: &Entry) -> Result<Ticket, postcard::Error> {
        Ok(self.log.propose(entry.encode()?, entry.fences()))
    }

    /// Has something decided; what became of it is told by [`Self::answer`].
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Ask {
        self.asks.ask(entry, now)
    }

    /// Has something decided of which it shows in the state whether it was.
    pub fn want(&mut self, entry: Entry, now: Instant) {
        self.asks.want(entry, now);
    }

    /// What became of something that was asked for, once it is known; told once.
    pub fn answer(&mut self, ask: Ask) -> Option<Answer> {
        self.asks.answer(ask)
    }

    /// Whether all nodes that serve run the version in force, by what they say.
    pub fn all_adopted(&self) -> bool {
        let fleet = self.state().published();
        fleet.serving().iter().all(|node| {
            let life = fleet.member(node).map(|m| m.incarnation);
            let seen = self.seen.get(&node).filter(|s| Some(s.incarnation) == life);
            seen.is_some_and(|s| s.adopted >= self.state().in_force())
        })
    }

    /// Takes what the log has, renews the lease, and sees to the cluster if it leads.
    pub fn turn(&mut self, now: Instant) -> News {
        let mut news = News::default();
        while let Some(output) = self.log.take() {
            self.take(output, &mut news);
            // Who serves publishes what is in force before it looks at anything later.
            if news.in_force && self.state().fleet().serves(self.me, self.incarnation) {
                break;
            }
        }
        if now >= self.renewal_due {
            self.renewal_due = now + self.times.renewal;
            let token = self.lease.ask(now);
            self.log.renew(token, self.incarnation);
        }
        if let Err(why) = self.keeper.judge() {
            self.failed = Some(why);
        }
        if self.failed.is_none() {
            let own = self.report();
            self.heard(self.me, self.incarnation, &own, None, now);
        }
        for node in self.keeper.odd().iter() {
            if let Some(seen) = self.seen.get_mut(&node) {
                seen.fault.get_or_insert(Why::Digest);
            }
        }
        self.restore(now);
        let leads = self.leads() && !self.keeper.is_spoilt();
        self.lead.leads(leads, now);
        for entry in self.lead.turn(self.keeper.state(), &self.seen, now) {
            // What becomes of it shows in the state.
            let _ = self.propose(&entry);
        }
        if leads && now >= self.replicas_due {
            self.see_to_replicas(now);
        }
        let at_rest = self.state().version() == self.state().in_force();
        for (ask, entry) in self.asks.due(at_rest, self.quorum, now) {
            match self.propose(&entry) {
                Ok(ticket) => self.asks.proposed(ticket, ask, entry),
                Err(error) => self.asks.refused(ask, Refusal::Failed(error.to_string())),
            }
        }
        news
    }

    /// Has a state that can't be trusted replaced, with the help of those that were heard of late.
    fn restore(&mut self, now: Instant) {
        let patience = self.times.patience.suspicion;
        let others = self.seen.iter().filter(|(_, seen)| now.since(seen.heard) <= patience);
        let others = others.map(|(node, _)| *node).collect();
        self.keeper.restore(&mut self.log, others, now);
    }

    /// Has the log held by those whom the namespace asks for.
    fn see_to_replicas(&mut self, now: Instant) {
        let Some(wanted) = voters::wanted(self.state().namespace(), &self.replicas) else { return };
        let sorted = |mut replicas: Vec<Replica>| {
            replicas.sort_unstable_by_key(|replica| replica.id);
            replicas
        };
        let wanted = sorted(wanted);
        if !self.replicas.is_empty() && wanted != sorted(self.replicas.clone()) {
            self.replicas_due = now + REPLICAS_AGAIN;
            // What becomes of it shows in the replicas that the log tells of.
            let _ = self.log.set_replicas(wanted);
        }
    }

    /// For [`Bug::EntrySkipped`] and the like.
    fn skips(&self, index: u64) -> bool {
        let at_times = planted::is(Bug::EntrySkippedAtTimes) || planted::is(Bug::NothingRestored);
        let skips = planted::is(Bug::EntrySkipped) || at_times && self.incarnation.0 % 2 == 1;
        skips && self.me.0 == 1 && index.is_multiple_of(50)
    }

    fn take(&mut self, output: Output, news: &mut News) {
        let taken = match output {
            Output::Entry { index, .. } if self.skips(index) => Ok(()),
            Output::Entry { index, bytes } => self.keeper.entry(index, &bytes, news),
            Output::Install { index, bytes } => self.keeper.install(index, &bytes, news),
            Output::Anew => {
                self.forget_progress();
                self.keeper.anew(news)
            }
            Output::WantSnapshot => self.keeper.snapshot().map(|snapshot| {
                if let Some((index, bytes)) = snapshot {
                    self.log.snapshot(index, bytes);
                }
            }),
            Output::Failed(reason) => {
                (self.leader, self.quorum, self.stopped) = (None, false, true);
                self.asks.lost();
                Err(Why::Apply(format!("the log has stopped: {reason}")))
            }
            Output::Replicas(replicas) => {
                (self.replicas, self.replicas_due) = (replicas, Instant::ZERO);
                Ok(())
            }
            Output::Role { leader, quorum, .. } => {
                (self.leader, self.quorum) = (leader, quorum);
                Ok(())
            }
            Output::Renewed { token } => {
                self.lease.renewed(token);
                Ok(())
            }
            Output::Outcome(ticket, outcome) => {
                let space = self.keeper.state().namespace();
                self.asks.outcome(ticket, outcome, |request| space.outcome(request).cloned());
                Ok(())
            }
        };
        if let Err(why) = taken {
            self.failed = Some(why);
        }
    }
}

#[cfg(test)]
mod tests;
