//! A node's part in deciding: it follows the log, keeps the state, holds a lease, and leads when it is its turn.
//!
//! A value that is turned by the manager, which in return makes Views of what is decided. It knows nothing of Views itself.

use super::asks::{Answer, Ask, Asks};
use super::fleet::{Phase, TakenOver, Why};
use super::lead::{Lead, Patience, Seen};
use super::lease::{Lease, successor_waits};
use super::log::{Log, Output, Refusal, Replica, ReplicaId, Ticket};
use super::namespace::{Change, Faults, Namespace};
use super::state::{Entry, State};
use super::voters;
use crate::base::planted::{self, Bug};
use crate::base::{Incarnation, Instant, NodeId, NodeSet};
use std::collections::{BTreeMap, VecDeque};
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
    /// The version that it has prepared.
    pub prepared: u64,
    /// The version that its workers run.
    pub adopted: u64,
    /// It can serve.
    pub ready: bool,
    /// Whom it hears over the backplane.
    pub hears: NodeSet,
}

/// What a turn has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// There is a new version to prepare.
    pub changed: bool,
    /// Another version is in force.
    pub in_force: bool,
    /// Buckets that were taken from the dead: until then their former owner's lease may cover them.
    pub taken_over: Option<(TakenOver, Instant)>,
    /// All that was known was replaced: whatever this node owns now may be covered by another's lease until then.
    pub installed: Option<Instant>,
}

/// After this long the leader asks again for replicas of the log that it didn't get.
const REPLICAS_AGAIN: Duration = Duration::from_secs(1);
/// Digests of late entries that are remembered, to be compared with others'.
const DIGESTS: usize = 256;

/// See the module's text.
pub struct Council<L> {
    me: NodeId,
    incarnation: Incarnation,
    times: Times,
    log: L,
    state: State,
    lease: Lease,
    lead: Lead,
    seen: BTreeMap<NodeId, Seen>,
    digests: VecDeque<(u64, u64)>,
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
            digests: VecDeque::from([(state.index(), state.digest())]),
            report: Report { index: state.index(), digest: state.digest(), ..Report::default() },
            state,
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
        &self.state
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
        self.state.preview(changes, look)
    }

    /// What the nodes have told, each its latest life.
    pub fn seen(&self) -> &BTreeMap<NodeId, Seen> {
        &self.seen
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
        let serves = self.failed.is_none() && self.state.fleet().serves(self.me, self.incarnation);
        self.lease.until().filter(|_| serves)
    }

    /// Whether this life was taken out, and why: all that it holds is void, and another life is to begin.
    pub fn ended(&self) -> Option<&Why> {
        if let Some(why) = &self.failed {
            return Some(why);
        }
        let member = self.state.fleet().member(self.me)?;
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
        (self.report.ready, self.report.prepared, self.report.adopted) = (false, 0, 0);
    }

    /// What this node tells in its heartbeats.
    pub fn report(&self) -> Report {
        self.report
    }

    /// The manager has prepared a View of all up to this version; `ready` if the node could serve by it.
    pub fn prepared(&mut self, version: u64, ready: bool) {
        (self.report.prepared, self.report.ready) = (version, ready);
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
        let differs = self.digests.iter().any(|(i, digest)| *i == report.index && *digest != report.digest);
        let fault = stuck.map(Why::Stuck).or_else(|| differs.then_some(Why::Digest));
        let seen = Seen {
            incarnation,
            heard: now,
            ready: report.ready,
            prepared: report.prepared,
            adopted: report.adopted,
            hears: report.hears,
            fault,
        };
        self.seen.insert(node, seen);
    }

    fn propose(&mut self, entry: &Entry) -> Result<Ticket, postcard::Error> {
        Ok(self.log.propose(entry.encode()?, entry.fences()))
    }

    /// Has something decided; what became of it is told by [`Self::answered`].
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Ask {
        self.asks.ask(entry, now)
    }

    /// What became of something that was asked for.
    pub fn answered(&mut self) -> Option<(Ask, Answer)> {
        self.asks.answered()
    }

    /// Whether all nodes that serve run the version in force, by what they say.
    pub fn all_adopted(&self) -> bool {
        let fleet = self.state.published();
        fleet.serving().iter().all(|node| {
            let life = fleet.member(node).map(|m| m.incarnation);
            let seen = self.seen.get(&node).filter(|s| Some(s.incarnation) == life);
            seen.is_some_and(|s| s.adopted >= self.state.in_force())
        })
    }

    /// Takes what the log has, renews the lease, and sees to the cluster if it leads.
    pub fn turn(&mut self, now: Instant) -> News {
        let mut news = News::default();
        while let Some(output) = self.log.take() {
            self.take(output, &mut news, now);
            // Who serves publishes what is in force before it looks at anything later.
            if news.in_force && self.state.fleet().serves(self.me, self.incarnation) {
                break;
            }
        }
        if now >= self.renewal_due {
            self.renewal_due = now + self.times.renewal;
            let token = self.lease.ask(now);
            self.log.renew(token, self.incarnation);
        }
        let own = self.report;
        if self.failed.is_none() {
            self.heard(self.me, self.incarnation, &own, None, now);
        }
        let leads = self.leads();
        self.lead.leads(leads, now);
        for entry in self.lead.turn(&self.state, &self.seen, now) {
            // What becomes of it shows in the state.
            let _ = self.propose(&entry);
        }
        if leads && now >= self.replicas_due {
            self.see_to_replicas(now);
        }
        let at_rest = self.state.version() == self.state.in_force();
        for (ask, entry) in self.asks.due(at_rest, self.quorum, now) {
            match self.propose(&entry) {
                Ok(ticket) => self.asks.proposed(ticket, ask, entry),
                Err(error) => self.asks.refused(ask, Refusal::Failed(error.to_string())),
            }
        }
        news
    }

    /// Has the log held by those whom the namespace asks for.
    fn see_to_replicas(&mut self, now: Instant) {
        let Some(wanted) = voters::wanted(self.state.namespace(), &self.replicas) else { return };
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

    fn take(&mut self, output: Output, news: &mut News, now: Instant) {
        match output {
            Output::Entry { index, bytes } => match Entry::decode(&bytes) {
                Ok(entry) => {
                    let (in_force, serving) = (self.state.in_force(), self.state.fleet().serving());
                    if planted::is(Bug::EntrySkipped) && self.me.0 == 1 && index % 50 == 0 {
                        return;
                    }
                    let applied = self.state.apply(index, &entry);
                    news.changed |= applied.changed;
                    news.in_force |= self.state.in_force() != in_force;
                    // Who is taken out may have answered for VIPs, also if it owned no bucket.
                    let fewer = !serving.without(self.state.fleet().serving()).is_empty();
                    let fewer = fewer || !applied.taken_over.is_empty();
                    if fewer && !planted::is(Bug::NoQuarantine) {
                        let until = now + self.waits;
                        let (all, latest) = news.taken_over.get_or_insert((TakenOver::new(), until));
                        all.extend(applied.taken_over);
                        *latest = until;
                    }
                    self.note_digest();
                }
                Err(error) => self.failed = Some(Why::Apply(format!("entry {index}: {error}"))),
            },
            Output::Install { index, bytes } => match State::decode(&bytes) {
                Ok(state) => {
                    self.state = if planted::is(Bug::SnapshotTorn) { state.torn(&self.state) } else { state };
                    (news.changed, news.in_force) = (true, true);
                    news.installed = Some(now + self.waits);
                    self.digests.clear();
                    self.note_digest();
                }
                Err(error) => self.failed = Some(Why::Apply(format!("the snapshot at {index}: {error}"))),
            },
            Output::Replicas(replicas) => {
                self.lease.set_voters(replicas.iter().filter(|r| r.votes).map(|r| r.id).collect());
                (self.replicas, self.replicas_due) = (replicas, Instant::ZERO);
            }
            Output::Role { leader, quorum, .. } => (self.leader, self.quorum) = (leader, quorum),
            Output::Renewed { by, token } => self.lease.acknowledged(by, token),
            Output::Outcome(ticket, outcome) => {
                let space = self.state.namespace();
                self.asks.outcome(ticket, outcome, |request| space.outcome(request).cloned());
            }
            Output::WantSnapshot => match self.state.encode() {
                Ok(bytes) => self.log.snapshot(self.state.index(), bytes),
                Err(error) => self.failed = Some(Why::Apply(format!("a snapshot: {error}"))),
            },
            Output::Failed(reason) => {
                (self.leader, self.quorum, self.stopped) = (None, false, true);
                self.failed = Some(Why::Apply(format!("the log has stopped: {reason}")));
                self.asks.lost();
            }
        }
    }

    fn note_digest(&mut self) {
        let (index, digest) = (self.state.index(), self.state.digest());
        if self.digests.len() == DIGESTS {
            self.digests.pop_front();
        }
        self.digests.push_back((index, digest));
        (self.report.index, self.report.digest) = (index, digest);
    }
}
