//! The manager's seat in the council: what is decided becomes Views, and what this node knows becomes part of what is decided
//! (MECHANISMS §0, §6).
//!
//! A new version is compiled as soon as it is decided, and what it gives to others is given up at once, but what it takes is
//! taken when it is in force: see [`seen_by`](crate::cluster::place::seen_by).

mod compiling;
mod following;
mod founding;

use super::Manager;
use crate::base::version::WireVersion;
use crate::base::{Bucket, GroupId, Incarnation, Instant, NodeId, RealServerId};
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::council::{Council, Report, Times};
use crate::cluster::fleet::{Member, Why};
use crate::cluster::lead::Patience;
use crate::cluster::log::Log;
use crate::cluster::namespace::{Change, Fault, Faults, Key, Namespace, Object};
use crate::cluster::state::{Entry, State};
use crate::manage::config::Config;
use crate::manage::preview::{self, Here, Sight};
use crate::view::{Learnt, Quarantine};
use compiling::Compiled;
use following::{Awaited, PAUSE};
use founding::Founding;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a node may take to make a View of a new version.
const PREPARE: Duration = Duration::from_millis(1500);

/// The protocol's times, which follow from how soon a silent node is suspected: its lease is over by then, so that a successor,
/// who waits for the lease to end after that, waits for little more.
fn times(config: &Config) -> Times {
    let suspicion = config.cluster.suspicion;
    Times {
        renewal: config.cluster.heartbeat,
        lease: suspicion * 7 / 8,
        patience: Patience { suspicion, prepare: PREPARE },
    }
}

/// A replica of any kind.
pub type AnyLog = Box<dyn Log + Send>;

/// See the module's text.
pub struct Seat {
    council: Council<AnyLog>,
    /// What a new cluster begins with, until it has begun.
    founding: Option<Founding>,
    /// Digest of what the configuration is made of; none yet.
    configured: Option<u64>,
    next: Option<Compiled>,
    /// Digest of what the latest version's configuration is to be made of.
    latest: Option<u64>,
    /// Digest of what didn't suit this node: as long as nothing else is decided, another life would fare no better.
    unfit: Option<u64>,
    preparing: Option<Awaited>,
    adopting: Option<Awaited>,
    /// As the last View has it.
    placed: BTreeMap<GroupId, compiling::Placed>,
    quarantine: BTreeMap<GroupId, Quarantine>,
    /// VIPs of another may be under its lease until then.
    vips_from: Instant,
    reborn: Instant,
    /// How long the present life lasts at least.
    pause: Duration,
    drained_due: Instant,
    /// What was decided of the nodes, as far as it was told.
    members: BTreeMap<NodeId, Member>,
    /// Since when all workers of all nodes run the version in force, by its placement and the virtual servers that left groups.
    settled: Option<((u64, u64), Instant)>,
    /// See [`Council::divided`], as it was last told.
    divided: Option<u64>,
    /// Something is decided that the View doesn't say yet.
    stale: bool,
    /// Copies that are complete, as this node's workers say, and when it was last proposed that they are.
    learnt: BTreeMap<(GroupId, Learnt), Option<Instant>>,
    learnt_due: Instant,
}

impl Seat {
    fn state(&self) -> &State {
        self.council.state()
    }

    /// Whether something is decided that the View doesn't say yet; it will from here on.
    pub(super) fn take_stale(&mut self) -> bool {
        std::mem::take(&mut self.stale)
    }

    /// Whether this node can serve by what is decided.
    fn fits(&self) -> bool {
        self.unfit.is_none() || self.unfit != self.latest
    }

    /// Whether the workers run what was decided, be it in force or about to be replaced, and buckets have owners.
    pub(super) fn serves(&self) -> bool {
        let all = self.state().published().maps().get(&GroupId(0));
        let placed = all.is_some_and(|map| map.get(Bucket(0)).owner.is_some());
        self.council.report().adopted > 0 && placed
    }

    /// What this node speaks: as all do, unless it can't, which ends its life.
    pub(super) fn wire(&self) -> WireVersion {
        self.state().wire().clamp(WireVersion::OLDEST, WireVersion::own())
    }

    /// A node's life, and whether it serves in it.
    pub(super) fn life(&self, node: NodeId) -> (Incarnation, bool) {
        let member = self.state().fleet().member(node);
        member.map_or((Incarnation(0), false), |m| (m.incarnation, m.phase.serves()))
    }
}

impl Manager {
    /// From now on this node decides together with those that hold the same log, and owns nothing until they let it. It begins
    /// a new cluster with these objects if there are any and nothing is decided yet.
    pub fn decide_by(&mut self, log: AnyLog, first: Option<&[(Key, Object)]>, now: Instant) {
        let state = State::new(Namespace::default());
        self.lease.set(Instant::ZERO);
        let seat = Seat {
            council: Council::new(self.config.me, self.incarnation, times(&self.config), log, state, now),
            founding: first.map(Founding::new),
            configured: None,
            next: None,
            latest: None,
            unfit: None,
            preparing: None,
            adopting: None,
            placed: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            vips_from: Instant::ZERO,
            reborn: now,
            pause: PAUSE,
            drained_due: now,
            members: BTreeMap::new(),
            settled: None,
            divided: None,
            stale: true,
            learnt: BTreeMap::new(),
            learnt_due: now,
        };
        self.seat = Some(seat);
        self.publish(now);
    }

    /// The council, if this node has a seat in it.
    pub fn council(&self) -> Option<&Council<AnyLog>> {
        self.seat.as_ref().map(|seat| &seat.council)
    }

    /// What this node serves by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sessions on this node now.
    pub fn sessions(&self) -> u64 {
        self.workers.iter().map(|w| w.counters.sessions.get()).sum()
    }

    /// What these changes would do if they were written now; none without a log.
    pub fn preview(&mut self, changes: &[Change]) -> Option<Result<Sight, Faults>> {
        let here = Here { me: self.config.me, sessions: self.sessions() };
        let Self { seat, config, workers, .. } = self;
        let seat = seat.as_mut()?;
        let with = |real: RealServerId| {
            let each = workers.iter().filter_map(|worker| worker.counters.real_servers.get(real.index()));
            each.map(|flows| flows.sessions.get()).sum()
        };
        let suits = |space: &Namespace| preview::misfits(config, space);
        Some(preview::look(&mut seat.council, here, changes, with, suits))
    }

    /// What it would do to drain a node now, or to take it back; none without a log, or such a node.
    pub fn preview_drain(&self, node: NodeId, drain: bool) -> Option<Sight> {
        let here = Here { me: self.config.me, sessions: self.sessions() };
        preview::look_at_drain(self.council()?, here, node, drain)
    }

    /// What keeps this node from serving by these changes, if they can be made, or a node of the last release from reading them:
    /// the cluster might take them, and the node would be taken out.
    pub fn misfits(&mut self, changes: &[Change]) -> Vec<Fault> {
        let Self { seat: Some(seat), config, .. } = self else { return Vec::new() };
        let unread = preview::unread(&seat.council, changes);
        if !unread.is_empty() {
            return unread;
        }
        let found = seat.council.preview(changes, |space| preview::misfits(config, space));
        found.unwrap_or_default()
    }

    /// Has something decided; none without a log. [`Self::answer`] tells what became of it.
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Option<Ask> {
        Some(self.seat.as_mut()?.council.ask(entry, now))
    }

    /// Has something decided that shows in the state; asked for again if it doesn't.
    pub(super) fn want(&mut self, entry: Entry, now: Instant) {
        if let Some(seat) = &mut self.seat {
            seat.council.want(entry, now);
        }
    }

    /// What became of what was asked for, once it is known.
    pub fn answer(&mut self, ask: Ask) -> Option<Answer> {
        self.seat.as_mut()?.council.answer(ask)
    }

    /// What this node tells of itself in heartbeats, if it has a seat.
    pub(super) fn report(&self) -> Option<Report> {
        self.seat.as_ref().map(|seat| seat.council.report())
    }

    /// A peer's heartbeat that was news.
    pub(super) fn reported(
        &mut self,
        node: NodeId,
        life: Incarnation,
        report: &Report,
        stuck: Option<u16>,
        now: Instant,
    ) {
        if let Some(seat) = &mut self.seat {
            seat.council.heard(node, life, report, stuck, now);
        }
    }

    /// This node's own workers, as a heartbeat tells of them.
    pub(super) fn judge_own(&mut self, turns: &[u32], now: Instant) {
        let patience = self.config.cluster.suspicion;
        let stuck = self.own_turns.told(turns, patience, now);
        if let (Some(worker), Some(seat)) = (stuck, &mut self.seat)
            && seat.life(self.config.me) == (self.incarnation, true)
        {
            seat.council.fail(Why::Stuck(worker));
        }
        self.stuck = stuck.is_some();
    }
}
