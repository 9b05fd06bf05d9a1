//! What the leader of the log sees to: that lives of nodes are let in and taken out, that Views come into force, and that
//! placements come to rest (MECHANISMS §0).
//!
//! It proposes; the entries decide. So that two who both think that they lead do no harm, every entry is good or without
//! effect whoever proposes it, and in whatever order.

use super::fleet::{COPIES, Phase, Trouble, Why};
use super::plan;
use super::state::{Entry, State};
use crate::base::planted::{self, Bug};
use crate::base::version::{Software, WireVersion};
use crate::base::{Incarnation, Instant, NodeId, NodeSet};
use std::collections::BTreeMap;
use std::time::Duration;

/// Buckets of a group that are under way to another node at a time.
const MOVES: usize = 512;
/// After this long a proposal whose effect isn't seen is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// Times that the leader goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Silence after which a node is taken out.
    pub suspicion: Duration,
    /// How long a node may take to prepare a View.
    pub prepare: Duration,
}

/// What the leader knows of a node by its heartbeats (its own life included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its latest life that was heard.
    pub incarnation: Incarnation,
    /// When that was.
    pub heard: Instant,
    /// It says that it can serve.
    pub ready: bool,
    /// The version that it has prepared.
    pub prepared: u64,
    /// The version that its workers run.
    pub adopted: u64,
    /// Whom it hears over the backplane.
    pub hears: NodeSet,
    /// What keeps it from going on, if it prepares nothing any more.
    pub trouble: Trouble,
    /// The newest wire version that it can speak.
    pub speaks: WireVersion,
    /// What it runs, if it says so.
    pub software: Software,
    /// What is wrong with it that it doesn't say.
    pub fault: Option<Why>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Lead {
    patience: Patience,
    /// Since when this node leads.
    since: Option<Instant>,
    /// What was proposed, and when.
    proposed: Vec<(Entry, Instant)>,
    /// The version that waits to be prepared, and since when.
    waiting: (u64, Instant),
    /// The version by which all placements were found at rest.
    rests: u64,
}

impl Lead {
    /// Of a node that doesn't lead yet.
    pub fn new(patience: Patience) -> Self {
        Self { patience, since: None, proposed: Vec::new(), waiting: (0, Instant::ZERO), rests: 0 }
    }

    /// The times that it goes by from now on.
    pub fn patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Whether this node leads from now on.
    pub fn leads(&mut self, leads: bool, now: Instant) {
        if leads != self.since.is_some() {
            self.since = leads.then_some(now);
            self.proposed.clear();
            (self.waiting, self.rests) = ((0, now), 0);
        }
    }

    /// The entries that are to be proposed now; none while another leads.
    pub fn turn(&mut self, state: &State, seen: &BTreeMap<NodeId, Seen>, now: Instant) -> Vec<Entry> {
        let Some(since) = self.since else { return Vec::new() };
        if self.waiting.0 != state.version() {
            self.waiting = (state.version(), now);
        }
        let mut wanted = self.lives(state, seen, since, now);
        wanted.extend(speak(state, seen));
        wanted.extend(self.in_force(state, seen, now));
        // Placements move on from what is in force: a node learns and owns by Views that it runs.
        if wanted.is_empty() && state.in_force() == state.version() && self.rests != state.version() {
            wanted.extend(self.placements(state, seen, since, now));
        }
        self.proposed.retain(|(entry, at)| now.since(*at) < AGAIN && wanted.contains(entry));
        wanted.retain(|entry| !self.proposed.iter().any(|(known, _)| known == entry));
        self.proposed.extend(wanted.iter().map(|entry| (entry.clone(), now)));
        wanted
    }

    /// Lives that begin, are ready, or are over.
    fn lives(
        &self,
        state: &State,
        seen: &BTreeMap<NodeId, Seen>,
        since: Instant,
        now: Instant,
    ) -> Vec<Entry> {
        let fleet = state.fleet();
        let (serving, all) = (fleet.serving(), seen);
        let unheard: NodeSet = serving.iter().filter(|node| self.unheard(*node, serving, all, now)).collect();
        // When the backplane itself is down, nobody would be left to serve what is local.
        let unheard = if unheard.len() * 2 < serving.len() { unheard } else { NodeSet::EMPTY };
        let removed = fleet.removed().map(|(node, life)| Entry::Offline(node, life, Why::Removed));
        let mut wanted: Vec<_> = removed.collect();
        for (node, member) in fleet.members() {
            let life = member.incarnation;
            if matches!(member.phase, Phase::Offline(_)) || !fleet.topology().nodes.contains_key(node) {
                continue;
            }
            let seen = seen.get(node).filter(|s| s.incarnation == life);
            // All listen all the time. Who begins to lead may have been cut off until now, so it does for a moment more; of
            // whom it has never heard it can say nothing yet.
            let listened =
                Instant(since.0.saturating_sub((self.patience.suspicion * 3 / 4).as_nanos() as u64));
            let heard = seen.map_or(since, |s| s.heard.max(listened));
            let why = if now.since(heard) > self.patience.suspicion {
                Some(Why::Silent)
            } else {
                // Who serves has prepared something before: who takes that back is at an end.
                let ended = seen.filter(|s| member.phase.serves() && s.prepared == 0);
                let ended = ended.map(|s| Why::Ended(s.trouble));
                let fault = seen.and_then(|s| s.fault.clone()).or(ended);
                fault.or(unheard.contains(*node).then_some(Why::Unheard))
            };
            match (why, seen) {
                (Some(why), _) => wanted.push(Entry::Offline(*node, life, why)),
                (None, Some(seen))
                    if member.phase == Phase::Joining
                        && seen.ready
                        && seen.prepared >= state.in_force()
                        && !self.unheard(*node, serving, all, now) =>
                {
                    wanted.push(Entry::Activate(*node, life));
                }
                _ => {}
            }
        }
        for (node, seen) in seen {
            let last = fleet.member(*node).map_or(Incarnation(0), |m| m.incarnation);
            let fresh = now.since(seen.heard) <= self.patience.suspicion;
            let known = fleet.topology().nodes.contains_key(node);
            if fresh && known && seen.incarnation > last && seen.speaks >= state.wire() {
                wanted.push(Entry::Join(*node, seen.incarnation));
            }
        }
        wanted
    }

    /// Whether most of the others that serve don't hear a node over the backplane, though it may be heard otherwise. Of two
    /// nodes neither can say whose fault that is.
    fn unheard(&self, node: NodeId, serving: NodeSet, seen: &BTreeMap<NodeId, Seen>, now: Instant) -> bool {
        let others = serving.without(NodeSet::of(node));
        let fresh = others.iter().filter_map(|other| seen.get(&other));
        let fresh = fresh.filter(|other| now.since(other.heard) <= self.patience.suspicion);
        others.len() >= 2 && fresh.filter(|other| !other.hears.contains(node)).count() * 2 > others.len()
    }

    /// A version that all who serve have prepared comes into force; who takes too long is taken out.
    fn in_force(&self, state: &State, seen: &BTreeMap<NodeId, Seen>, now: Instant) -> Vec<Entry> {
        if state.in_force() >= state.version() || state.fleet().removed().next().is_some() {
            return Vec::new();
        }
        let late = now.since(self.waiting.1) > self.patience.prepare;
        let mut behind = Vec::new();
        for node in state.fleet().serving().iter() {
            let Some(life) = state.fleet().member(node).map(|m| m.incarnation) else { continue };
            let ready = seen
                .get(&node)
                .filter(|s| s.incarnation == life)
                .is_some_and(|s| s.prepared >= state.version());
            if !ready {
                behind.push(Entry::Offline(node, life, Why::Unprepared(state.version())));
            }
        }
        match behind.is_empty() || planted::is(Bug::InForceEarly) {
            true => vec![Entry::InForce(state.version())],
            false if late => behind,
            false => Vec::new(),
        }
    }

    /// What is next on each placement's way to rest.
    fn placements(
        &mut self,
        state: &State,
        seen: &BTreeMap<NodeId, Seen>,
        since: Instant,
        now: Instant,
    ) -> Vec<Entry> {
        let fleet = state.fleet();
        let settled: NodeSet = fleet
            .serving()
            .iter()
            .filter(|node| seen.get(node).is_some_and(|s| s.adopted >= state.in_force()))
            .collect();
        // The first nodes of a cluster come up one after the other; what the first took, the others would have to be given.
        let first = fleet.maps().values().all(|map| map.iter().all(|(_, place)| place.owner.is_none()));
        let expected = fleet.topology().nodes.keys().all(|node| fleet.serving().contains(*node));
        if first && !expected && now.since(since) < self.patience.suspicion * 2 {
            return Vec::new();
        }
        let mut learning = false;
        let each = fleet.maps().iter().filter_map(|(group, map)| {
            learning |= !map.learners(fleet.serving()).is_empty();
            // Where nodes share state, owners tell who has all.
            let mut steps = if map.shares_state() { Vec::new() } else { map.learners(settled) };
            if steps.is_empty() {
                steps = plan::next(map, &fleet.shares(*group), COPIES, MOVES);
            }
            (!steps.is_empty()).then_some(Entry::Steps(*group, steps))
        });
        let wanted: Vec<_> = each.collect();
        if wanted.is_empty() && !learning {
            self.rests = state.version();
        }
        wanted
    }
}

/// What all nodes of the cluster can speak, if they don't yet: those that are out, too, as they are to come back. Of whom the
/// leader hasn't heard in the latest life that joined it can't say.
fn speak(state: &State, seen: &BTreeMap<NodeId, Seen>) -> Option<Entry> {
    let fleet = state.fleet();
    let last = |node: &NodeId| fleet.member(*node).map_or(Incarnation(0), |member| member.incarnation);
    let nodes = fleet.topology().nodes.keys();
    let said = nodes.map(|node| Some((*node, seen.get(node).filter(|seen| seen.incarnation >= last(node))?)));
    let said: Vec<_> = said.collect::<Option<_>>()?;
    let common = said.iter().map(|(_, seen)| seen.speaks).min()?;
    let lives = said.iter().map(|(node, seen)| (*node, seen.incarnation)).collect();
    (common > state.wire()).then_some(Entry::Speak(common, lives))
}
