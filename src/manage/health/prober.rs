//! One node's checks: which probes are due, what came of them, what the node has to say.

use super::check::{Check, State};
use super::{Outcome, Report, repeat};
use crate::base::rng::Rng;
use crate::base::{Addr, Instant, RealServerId};
use crate::cluster::health::shortened;
use crate::cluster::namespace::{HealthSpec, Probe};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Probes in flight at once: each has a socket, and a process may open 1024 files unless told otherwise.
pub const MAX_IN_FLIGHT: usize = 768;

/// The first probes of real servers that come together are spread over at most this time.
const SPREAD: Duration = Duration::from_secs(1);

/// A probe that nothing was heard of for so long beyond its timeout is lost.
const GRACE: Duration = Duration::from_secs(5);

/// An interval lasts 19/20 to 21/20 of its length, so that nodes and checks don't fall into step.
const JITTER: u32 = 20;

/// What is probed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The real server.
    pub server: RealServerId,
    /// Its own address.
    pub address: Addr,
    /// Its port.
    pub port: u16,
    /// The check.
    pub spec: Arc<HealthSpec>,
}

impl Target {
    /// Where its probes go: to its own address, whatever way packets are forwarded to it, and to its port unless the check
    /// names another.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.address.ip(), self.spec.port.unwrap_or(self.port))
    }
}

/// One probe of a prober's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// What a prober has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Probes begun.
    pub begun: u64,
    /// Probes that were good.
    pub good: u64,
    /// Probes that were bad.
    pub bad: u64,
    /// Probes that this node could not make.
    pub unable: u64,
    /// Probes that nothing was heard of.
    pub lost: u64,
    /// Probes begun more than half an interval late, because too many were in flight.
    pub late: u64,
}

/// A real server's place in the schedule.
#[derive(Debug)]
struct Watched {
    target: Target,
    check: Check,
    /// When the next probe is due; none while one is in flight.
    due: Option<Instant>,
    /// The probe in flight and its beginning.
    flying: Option<(Attempt, Instant)>,
    /// The state that was reported last, and when.
    reported: Option<(State, Instant)>,
}

/// The checks of one node.
#[derive(Debug)]
pub struct Prober {
    rng: Rng,
    watched: BTreeMap<RealServerId, Watched>,
    due: BTreeSet<(Instant, RealServerId)>,
    flying: BTreeMap<Attempt, RealServerId>,
    /// When to give up each probe in flight.
    given_up: BTreeSet<(Instant, Attempt)>,
    /// Real servers of which a report has to go out.
    outbox: BTreeSet<RealServerId>,
    attempts: u64,
    reports: u64,
    counts: Counts,
}

impl Prober {
    /// Without checks. `seed` sets the jitter; it should differ from node to node.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            watched: BTreeMap::new(),
            due: BTreeSet::new(),
            flying: BTreeMap::new(),
            given_up: BTreeSet::new(),
            outbox: BTreeSet::new(),
            attempts: 0,
            reports: 0,
            counts: Counts::default(),
        }
    }

    /// Checks a real server from now on. One that is checked already in the same way goes on as it was; one that is checked
    /// in another starts anew. One whose check is [`Probe::None`] is not checked.
    pub fn put(&mut self, now: Instant, target: Target) {
        let server = target.server;
        if self.watched.get(&server).is_some_and(|watched| watched.target == target) {
            return;
        }
        self.remove(server);
        if target.spec.probe == Probe::None {
            return;
        }
        let due = now + self.part(target.spec.interval.min(SPREAD));
        let check = Check::new(&target.spec);
        self.due.insert((due, server));
        self.watched.insert(server, Watched { target, check, due: Some(due), flying: None, reported: None });
    }

    /// Checks a real server no more.
    pub fn remove(&mut self, server: RealServerId) {
        let Some(watched) = self.watched.remove(&server) else { return };
        if let Some(due) = watched.due {
            self.due.remove(&(due, server));
        }
        if let Some((attempt, begun)) = watched.flying {
            self.flying.remove(&attempt);
            self.given_up.remove(&(lost_at(begun, &watched.target.spec), attempt));
        }
        self.outbox.remove(&server);
    }

    /// The real servers that are checked, by id.
    pub fn servers(&self) -> impl Iterator<Item = RealServerId> {
        self.watched.keys().copied()
    }

    /// What this node thinks of a real server; none if it doesn't check it.
    pub fn state(&self, server: RealServerId) -> Option<State> {
        self.watched.get(&server).map(|watched| watched.check.state())
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A random part of `whole`.
    fn part(&mut self, whole: Duration) -> Duration {
        let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.below(nanos.max(1)))
    }

    /// Begins the probes that are due, the longest overdue first, as long as `begin` takes them and not too many are in
    /// flight. What is not begun is tried again next turn.
    pub fn turn(&mut self, now: Instant, mut begin: impl FnMut(Attempt, &Target) -> bool) {
        while let Some((at, attempt)) = self.given_up.first().copied().filter(|(at, _)| *at <= now) {
            self.given_up.remove(&(at, attempt));
            self.counts.lost += 1;
            self.land(now, attempt, None);
        }
        while self.flying.len() < MAX_IN_FLIGHT {
            let Some((at, server)) = self.due.first().copied().filter(|(at, _)| *at <= now) else { return };
            let Some(watched) = self.watched.get_mut(&server) else {
                self.due.remove(&(at, server));
                continue;
            };
            let attempt = Attempt(self.attempts);
            if !begin(attempt, &watched.target) {
                return;
            }
            self.attempts += 1;
            self.due.remove(&(at, server));
            watched.due = None;
            watched.flying = Some((attempt, now));
            let spec = &watched.target.spec;
            self.counts.begun += 1;
            self.counts.late += u64::from(now.since(at) > spec.interval / 2);
            self.given_up.insert((lost_at(now, spec), attempt));
            self.flying.insert(attempt, server);
        }
    }

    /// Takes in what a probe came to. An attempt that was given up, or whose real server is checked no more, is ignored.
    pub fn outcome(&mut self, now: Instant, attempt: Attempt, outcome: Outcome) {
        if !self.flying.contains_key(&attempt) {
            return;
        }
        match outcome {
            Outcome::Good(_) => self.counts.good += 1,
            Outcome::Bad(_) => self.counts.bad += 1,
            Outcome::Unable(_) => self.counts.unable += 1,
        }
        self.land(now, attempt, Some(outcome));
    }

    fn land(&mut self, now: Instant, attempt: Attempt, outcome: Option<Outcome>) {
        let Some(server) = self.flying.remove(&attempt) else { return };
        let Some(interval) = self.watched.get(&server).map(|watched| watched.target.spec.interval) else {
            return;
        };
        let jittered = interval - interval / JITTER + self.part(interval / JITTER * 2);
        let Some(watched) = self.watched.get_mut(&server) else { return };
        let spec = &watched.target.spec;
        if let Some((_, begun)) = watched.flying.take() {
            self.given_up.remove(&(lost_at(begun, spec), attempt));
            // One probe at a time: the next waits for this one.
            let due = now.max(begun + jittered);
            watched.due = Some(due);
            self.due.insert((due, server));
        }
        // What this node can't probe it says nothing of, so that its reports lose their worth.
        let Some(outcome) = outcome.filter(|outcome| !matches!(outcome, Outcome::Unable(_))) else { return };
        watched.check.count(now, outcome);
        let state = watched.check.state();
        let known = watched.reported.is_some_and(|(s, at)| s == state && now.since(at) < repeat(spec));
        if state != State::Unknown && !known {
            self.outbox.insert(server);
        }
    }

    /// Reports everything again, to a new leader.
    pub fn report_all(&mut self) {
        let known = self.watched.iter().filter(|(_, watched)| watched.check.state() != State::Unknown);
        self.outbox.extend(known.map(|(server, _)| *server));
    }

    /// Takes at most `most` reports that have to go out.
    pub fn reports(&mut self, now: Instant, most: usize) -> Vec<Report> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(server) = self.outbox.pop_first() else { break };
            let Some(watched) = self.watched.get_mut(&server) else { continue };
            let state = watched.check.state();
            watched.reported = Some((state, now));
            self.reports += 1;
            let reason = shortened(&watched.check.reason()).to_owned();
            taken.push(Report { server, number: self.reports, up: state == State::Up, reason });
        }
        taken
    }
}

#[cfg(test)]
impl Prober {
    /// Whether each real server is either due or in flight, once, and nothing is kept of others.
    pub(super) fn is_whole(&self) -> bool {
        let due = self.watched.iter().filter_map(|(server, w)| w.due.map(|due| (due, *server)));
        let flying =
            self.watched.iter().filter_map(|(server, w)| w.flying.map(|(attempt, _)| (attempt, *server)));
        self.watched.values().all(|w| w.due.is_some() != w.flying.is_some())
            && due.collect::<BTreeSet<_>>() == self.due
            && flying.collect::<BTreeMap<_, _>>() == self.flying
            && self.given_up.iter().map(|(_, attempt)| *attempt).collect::<BTreeSet<_>>()
                == self.flying.keys().copied().collect()
            && self.outbox.iter().all(|server| self.watched.contains_key(server))
    }
}

/// When a probe begun then is lost.
fn lost_at(begun: Instant, spec: &HealthSpec) -> Instant {
    begun + spec.timeout + GRACE
}
