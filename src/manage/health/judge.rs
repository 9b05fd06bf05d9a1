//! The leader's side: reports of several nodes in, changes of the committed health out.
//!
//! A real server changes when a majority of its probers has said something believable of late and a majority of those
//! agrees. It goes down by any majority, but comes up by an undivided one, or by one that has held for [`HOLD`] intervals:
//! so where two nodes disagree for long, a third that can't make up its mind doesn't make it flap.

use super::{Report, believed};
use crate::base::{Instant, NodeId, NodeSet, RealServerId};
use crate::cluster::health::{Change, Health, STEPS, Standing};
use crate::cluster::namespace::HealthSpec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Intervals that a divided majority has to hold before it brings a real server up.
pub const HOLD: u32 = 10;

/// A proposal whose change has not come by then is made again: it may have been refused, or lost with its leader.
const AGAIN: Duration = Duration::from_secs(1);

/// How the reports of one real server are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// How long a report is believed.
    pub believed: Duration,
    /// How long a divided majority has to hold before it brings the real server up.
    pub hold: Duration,
    /// How long one that has come up takes to get its whole share; none: it has it at once.
    pub slow_start: Option<Duration>,
}

impl Watch {
    /// As it follows from the check, and the slow start of its virtual server.
    pub fn new(spec: &HealthSpec, slow_start: Option<Duration>) -> Self {
        Self { believed: believed(spec), hold: spec.interval * HOLD, slow_start }
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
    /// When to look at it again.
    wake: Option<Instant>,
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
            wake: None,
        });
        case.watch = watch;
        case.probers = probers;
        case.votes.retain(|node, _| probers.contains(*node));
        self.committed(now, server, committed);
        self.dirty.insert(server);
    }

    /// Watches it no more.
    pub fn remove(&mut self, server: RealServerId) {
        if let Some(Case { wake: Some(wake), .. }) = self.cases.remove(&server) {
            self.wakes.remove(&(wake, server));
        }
        self.dirty.remove(&server);
    }

    /// What the log has made of a real server, by this leader's proposal or another's.
    pub fn committed(&mut self, now: Instant, server: RealServerId, health: Health) {
        let Some(case) = self.cases.get_mut(&server) else { return };
        if case.committed != health {
            case.committed = health;
            case.since = now;
            case.proposed = None;
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
            let finding = case.look(now);
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
