//! The leader's side: reports of several nodes in, changes of the committed health out.
//!
//! A real server changes when a majority of its probers has said something believable of late and a majority of those
//! agrees. It goes down by any majority, but comes up by an undivided one, or by one that has held for [`HOLD`] intervals:
//! so where two nodes disagree for long, a third that can't make up its mind doesn't make it flap.
//!
//! The first judgements of a new virtual server's real servers are made together: until then all have their share, and were one
//! found well before the others, it would have all of it for a while.

use super::{Report, believed};
use crate::base::{Instant, NodeId, NodeSet, RealServerId, VirtualServerId};
use crate::cluster::health::{Change, Health, STEPS, Standing};
use crate::cluster::namespace::HealthSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Intervals that a divided majority has to hold before it brings a real server up.
pub const HOLD: u32 = 10;

/// Intervals for which the first judgement of a virtual server waits for the others.
const GATHER: u32 = 3;

/// A proposal whose change has not come by then is made again: it may have been refused, or lost with its leader.
const AGAIN: Duration = Duration::from_secs(1);

/// How the reports of one real server are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Whose real server it is.
    pub of: VirtualServerId,
    /// How long the first judgement of that virtual server waits for the others.
    pub gather: Duration,
    /// How long a report is believed.
    pub believed: Duration,
    /// How long a divided majority has to hold before it brings the real server up.
    pub hold: Duration,
    /// How long one that has come up takes to get its whole share; none: it has it at once.
    pub slow_start: Option<Duration>,
}

impl Watch {
    /// As it follows from the check, and the slow start of its virtual server.
    pub fn new(of: VirtualServerId, spec: &HealthSpec, slow_start: Option<Duration>) -> Self {
        let (gather, hold) = (spec.interval * GATHER, spec.interval * HOLD);
        Self { of, gather, believed: believed(spec), hold, slow_start }
    }
}

/// What one node said last.
#[derive(Debug)]
struct Vote {
    number: u64,
    up: bool,
    reason: String,
    heard: Instant,
}

#[derive(Debug)]
struct Case {
    watch: Watch,
    probers: NodeSet,
    committed: Health,
    /// When `committed` became what it is, as far as this leader knows.
    since: Instant,
    votes: BTreeMap<NodeId, Vote>,
    /// Since when a majority has been saying that it is up.
    up_since: Option<Instant>,
    proposed: Option<(Health, Instant)>,
    /// Since when it could be judged for the first time.
    judged_since: Option<Instant>,
    /// When to look at it again.
    wake: Option<Instant>,
}

/// The real servers of one virtual server.
#[derive(Debug, Default)]
struct Fellows {
    all: BTreeSet<RealServerId>,
    /// How many of them are judged; and how many aren't and can't be yet.
    judged: usize,
    open: usize,
}

impl Fellows {
    /// One of them is counted, or no more.
    fn count(&mut self, case: &Case, counts: bool) {
        let judged = usize::from(case.committed != Health::Unknown);
        let open = usize::from(case.committed == Health::Unknown && case.judged_since.is_none());
        if counts {
            (self.judged, self.open) = (self.judged + judged, self.open + open);
        } else {
            (self.judged, self.open) = (self.judged - judged, self.open - open);
        }
    }
}

/// What a case comes to now: what to propose, and when to look at it again at the latest.
struct Finding {
    proposal: Option<Standing>,
    wake: Option<Instant>,
}

/// All real servers as the leader sees them. A new leader begins with a new one: it knows what is committed, and the
/// reports come again.
#[derive(Debug, Default)]
pub struct Judge {
    cases: BTreeMap<RealServerId, Case>,
    /// Those of each virtual server.
    fellows: BTreeMap<VirtualServerId, Fellows>,
    /// Real servers of which something has changed.
    dirty: BTreeSet<RealServerId>,
    wakes: BTreeSet<(Instant, RealServerId)>,
}

impl Judge {
    /// Without real servers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a real server from now on, or in another way. Reports of nodes that don't probe it count for nothing.
    pub fn put(
        &mut self,
        now: Instant,
        server: RealServerId,
        watch: Watch,
        probers: NodeSet,
        committed: Health,
    ) {
        let case = self.cases.entry(server).or_insert_with(|| Case {
            watch,
            probers,
            committed,
            since: now,
            votes: BTreeMap::new(),
            up_since: None,
            proposed: None,
            judged_since: None,
            wake: None,
        });
        // A real server's id is one virtual server's for ever.
        debug_assert_eq!(case.watch.of, watch.of);
        let fellows = self.fellows.entry(watch.of).or_default();
        if fellows.all.insert(server) {
            fellows.count(case, true);
        }
        case.watch = watch;
        case.probers = probers;
        case.votes.retain(|node, _| probers.contains(*node));
        self.committed(now, server, committed);
        self.dirty.insert(server);
    }

    /// Watches it no more.
    pub fn remove(&mut self, server: RealServerId) {
        let Some(case) = self.cases.remove(&server) else { return };
        if let Some(wake) = case.wake {
            self.wakes.remove(&(wake, server));
        }
        self.dirty.remove(&server);
        if let Some(fellows) = self.fellows.get_mut(&case.watch.of) {
            fellows.all.remove(&server);
            fellows.count(&case, false);
            if fellows.all.is_empty() {
                self.fellows.remove(&case.watch.of);
            }
        }
    }

    /// What the log has made of a real server, by this leader's proposal or another's.
    pub fn committed(&mut self, now: Instant, server: RealServerId, health: Health) {
        let Some(case) = self.cases.get_mut(&server) else { return };
        if case.committed != health {
            let fellows = self.fellows.entry(case.watch.of).or_default();
            fellows.count(case, false);
            case.committed = health;
            case.since = now;
            case.proposed = None;
            fellows.count(case, true);
            self.dirty.insert(server);
        }
    }

    /// A node reports. The caller lets through only what a node says in its present life.
    pub fn hear(&mut self, now: Instant, from: NodeId, report: Report) {
        let Some(case) = self.cases.get_mut(&report.server) else { return };
        if !case.probers.contains(from) || case.votes.get(&from).is_some_and(|v| v.number >= report.number) {
            return;
        }
        let Report { server, number, up, reason } = report;
        case.votes.insert(from, Vote { number, up, reason, heard: now });
        self.dirty.insert(server);
    }

    /// A node has begun another life: what it said counts no more, and it numbers its reports anew.
    pub fn forget(&mut self, node: NodeId) {
        for (server, case) in &mut self.cases {
            if case.votes.remove(&node).is_some() {
                self.dirty.insert(*server);
            }
        }
    }

    /// What to propose now, at most `most` changes; what is left comes next turn.
    pub fn turn(&mut self, now: Instant, most: usize) -> Vec<Change> {
        while let Some((at, server)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, server));
            if let Some(case) = self.cases.get_mut(&server) {
                case.wake = None;
            }
            self.dirty.insert(server);
        }
        let mut changes = Vec::new();
        while changes.len() < most {
            let Some(server) = self.dirty.pop_first() else { break };
            let Some(case) = self.cases.get_mut(&server) else { continue };
            let mut finding = case.look(now);
            if case.committed == Health::Unknown {
                let fellows = self.fellows.entry(case.watch.of).or_default();
                let (was, could) = (case.judged_since, finding.proposal.is_some() || case.proposed.is_some());
                fellows.count(case, false);
                case.judged_since = could.then(|| was.unwrap_or(now));
                fellows.count(case, true);
                let due = was.unwrap_or(now) + case.watch.gather;
                if fellows.judged == 0 && fellows.open > 0 && now < due {
                    if finding.proposal.take().is_some() {
                        case.proposed = None;
                    }
                    finding.wake = Some(finding.wake.map_or(due, |wake| wake.min(due)));
                } else if could && was.is_none() {
                    // The others waited for this one.
                    self.dirty.extend(fellows.all.iter().filter(|fellow| **fellow != server));
                }
            }
            if let Some(wake) = case.wake.take() {
                self.wakes.remove(&(wake, server));
            }
            case.wake = finding.wake;
            self.wakes.extend(finding.wake.map(|wake| (wake, server)));
            let from = case.committed;
            changes.extend(finding.proposal.map(|to| Change { server, from, to }));
        }
        changes
    }
}

impl Case {
    fn look(&mut self, now: Instant) -> Finding {
        let believed = self.watch.believed;
        self.votes.retain(|_, vote| now.since(vote.heard) < believed);
        let mut wake = self.votes.values().map(|vote| vote.heard + believed).min();
        let mut at = |instant: Instant| wake = Some(wake.map_or(instant, |wake| wake.min(instant)));

        let fresh = self.votes.len();
        let ups = self.votes.values().filter(|vote| vote.up).count();
        let enough = fresh * 2 > self.probers.len();
        let (up, down) = (enough && ups * 2 > fresh, enough && (fresh - ups) * 2 > fresh);
        self.up_since = if up { self.up_since.or(Some(now)) } else { None };

        let wanted = match self.committed {
            Health::Unknown | Health::Up(_) if down => Some(Health::Down),
            Health::Unknown if up => Some(self.first_step()),
            Health::Down if up && ups == fresh => Some(self.first_step()),
            Health::Down if up => {
                let held = self.up_since.unwrap_or(now) + self.watch.hold;
                if held <= now {
                    Some(self.first_step())
                } else {
                    at(held);
                    None
                }
            }
            Health::Up(step) if step < STEPS => match self.watch.slow_start {
                None => Some(Health::FULL),
                Some(whole) => {
                    let next = self.since + whole / u32::from(STEPS);
                    if next <= now {
                        Some(Health::Up(step + 1))
                    } else {
                        at(next);
                        None
                    }
                }
            },
            _ => None,
        };
        let Some(health) = wanted else {
            self.proposed = None;
            return Finding { proposal: None, wake };
        };
        if let Some((proposed, then)) = self.proposed
            && proposed == health
            && now < then + AGAIN
        {
            at(then + AGAIN);
            return Finding { proposal: None, wake };
        }
        self.proposed = Some((health, now));
        at(now + AGAIN);
        Finding { proposal: Some(Standing { health, reason: self.reason(health, ups) }), wake }
    }

    /// What it is when it has just come up.
    fn first_step(&self) -> Health {
        if self.watch.slow_start.is_some() { Health::Up(1) } else { Health::FULL }
    }

    fn reason(&self, to: Health, ups: usize) -> String {
        let fresh = self.votes.len();
        match to {
            Health::Up(_) if self.committed.is_up() => "slow start".to_owned(),
            Health::Up(_) | Health::Unknown => format!("up for {ups} of {fresh} nodes"),
            Health::Down => {
                let why = self.votes.values().find(|vote| !vote.up).map_or("", |vote| vote.reason.as_str());
                format!("down for {} of {fresh} nodes: {why}", fresh - ups)
            }
        }
    }
}

#[cfg(test)]
impl Judge {
    /// Whether it waits for nothing but reports.
    pub(super) fn is_asleep(&self) -> bool {
        self.dirty.is_empty() && self.wakes.is_empty()
    }
}
