//! The manager's seat in the council: what is decided becomes Views, and what this node knows becomes part of what is decided
//! (MECHANISMS §0, §6).
//!
//! A new version is compiled as soon as it is decided, and what it gives to others is given up at once, but what it takes is
//! taken when it is in force: see [`seen_by`].

use super::Manager;
use crate::base::hash::{mix, siphash13_bytes};
use crate::base::limits::BUCKETS;
use crate::base::{Bucket, GroupId, HashKey, Incarnation, Instant, NodeId, NodeSet};
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::council::{Council, News, Report, Times};
use crate::cluster::fleet::{Member, Phase, TakenOver, Why};
use crate::cluster::lead::Patience;
use crate::cluster::log::Log;
use crate::cluster::namespace::{Change, Fault, Faults, Key, Namespace, Object, RequestId, Write};
use crate::cluster::place::seen_by;
use crate::cluster::state::{Entry, State};
use crate::manage::compile;
use crate::manage::config::Config;
use crate::manage::preview::{self, Sight};
use crate::table::placement::{Home, Placement};
use crate::view::{BucketSet, Buckets, Hop, Quarantine, View};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// Between two lives of one process, and two proposals of what is drained.
const PAUSE: Duration = Duration::from_millis(500);

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

/// What was compiled of a version that may not be in force yet.
struct Compiled {
    /// The namespace and the health that it is made of.
    digest: u64,
    config: Config,
    view: View,
}

/// A version that something waits for: all workers running this View.
#[derive(Clone, Copy)]
struct Awaited {
    version: u64,
    view: u64,
}

/// See the module's text.
pub struct Seat {
    council: Council<AnyLog>,
    /// What a new cluster begins with, until it has begun.
    founding: Option<Write>,
    asked: Option<Ask>,
    /// What others have asked for through this node, and what became of it.
    answers: BTreeMap<Ask, Option<Answer>>,
    /// Digest of what the configuration is made of; none yet.
    configured: Option<u64>,
    next: Option<Compiled>,
    /// Why the latest version can't be compiled.
    misfit: Option<String>,
    preparing: Option<Awaited>,
    adopting: Option<Awaited>,
    quarantine: BTreeMap<GroupId, Quarantine>,
    /// VIPs of another may be under its lease until then.
    vips_from: Instant,
    reborn: Instant,
    drained_due: Instant,
    /// What was decided of the nodes, as far as it was told.
    members: BTreeMap<NodeId, Member>,
    /// Since when all workers of all nodes run the version in force.
    settled: Option<(u64, Instant)>,
    /// Digest of what didn't suit this node: as long as nothing else is decided, another life would fare no better.
    unfit: Option<u64>,
}

impl Seat {
    fn state(&self) -> &State {
        self.council.state()
    }

    /// Of all that the configuration follows from.
    fn digest(&self) -> u64 {
        mix(self.state().namespace().digest() ^ self.state().standings().digest())
    }

    /// Whether another life may begin now.
    fn may_begin(&self, now: Instant) -> bool {
        let unfit = self.unfit.is_some_and(|digest| digest == self.digest());
        now.since(self.reborn) >= PAUSE && !unfit && !self.council.stopped()
    }

    /// Whether nothing that is decided is heard of here any more.
    pub(super) fn deaf(&self) -> bool {
        self.council.stopped()
    }

    /// Whether the workers run what was decided, be it in force or about to be replaced, and buckets have owners.
    pub(super) fn serves(&self) -> bool {
        let all = self.state().published().maps().get(&GroupId(0));
        let placed = all.is_some_and(|map| map.get(Bucket(0)).owner.is_some());
        self.council.report().adopted > 0 && placed
    }

    /// A node's life, and whether it serves in it.
    pub(super) fn life(&self, node: NodeId) -> (Incarnation, bool) {
        let member = self.state().fleet().member(node);
        member.map_or((Incarnation(0), false), |m| (m.incarnation, m.phase.serves()))
    }

    /// Takes note of what may be under others' leases for a while; `true` if it is known only now for how long. What was
    /// decided may have been decided since this turn read the clock, so the wait counts from the next turn's.
    fn quarantine(&mut self, news: &News, now: Instant) -> bool {
        let (open, until) = (Instant(u64::MAX), now + self.council.waits());
        let mut timed = false;
        for end in self.quarantine.values_mut().map(|q| &mut q.until).chain([&mut self.vips_from]) {
            if *end == open {
                (*end, timed) = (until, true);
            }
        }
        self.quarantine.retain(|_, quarantine| now < quarantine.until);
        let mut add = |group: GroupId, buckets: BucketSet| {
            let none = Quarantine { buckets: BucketSet::EMPTY, until: open };
            let all = self.quarantine.entry(group).or_insert(none);
            all.buckets.extend(&buckets);
            all.until = open;
        };
        if let Some((taken, _)) = &news.taken_over {
            let taken: &TakenOver = taken;
            for (group, buckets) in taken {
                let mut set = BucketSet::EMPTY;
                buckets.iter().for_each(|bucket| set.insert(*bucket));
                add(*group, set);
            }
            self.vips_from = open;
        }
        if news.installed.is_some() {
            let mut every = BucketSet::EMPTY;
            (0..BUCKETS as u16).for_each(|bucket| every.insert(Bucket(bucket)));
            for group in self.council.state().fleet().maps().keys() {
                add(*group, every);
            }
            self.vips_from = open;
        }
        timed
    }

    /// Whose each group's buckets are, as this node has to see it.
    fn buckets(&self, me: NodeId, groups: usize) -> Vec<Buckets> {
        let (published, latest) = (self.state().published().maps(), self.state().fleet().maps());
        let each = (0..groups as u16).map(GroupId).map(|group| {
            let placement = match (published.get(&group), latest.get(&group)) {
                (Some(published), Some(latest)) => Placement::of(|bucket| {
                    let (owner, previous) = seen_by(me, published.get(bucket), latest.get(bucket));
                    Home { owner, previous }
                }),
                _ => Placement::initial(0, &[]),
            };
            Buckets { placement, quarantine: self.quarantine.get(&group).copied().map(Box::new) }
        });
        each.collect()
    }
}

/// What a new cluster begins with. Whoever proposes the same proposes it under the same id.
fn founding(objects: &[(Key, Object)]) -> Write {
    let changes: Vec<_> = objects
        .iter()
        .map(|(key, object)| Change { key: key.clone(), expected: Some(0), value: Some(object.clone()) })
        .collect();
    let bytes = postcard::to_allocvec(&changes).unwrap_or_default();
    let half = |n| u128::from(siphash13_bytes(HashKey([n, 0]), &bytes));
    Write { request: RequestId(half(1) << 64 | half(2)), who: "cluster file".into(), at: 0, changes }
}

impl Manager {
    /// From now on this node decides together with those that hold the same log, and owns nothing until they let it. It begins
    /// a new cluster with these objects if there are any and nothing is decided yet.
    pub fn decide_by(&mut self, log: AnyLog, first: Option<&[(Key, Object)]>, now: Instant) {
        let state = State::new(Namespace::default());
        self.lease.set(Instant::ZERO);
        let seat = Seat {
            council: Council::new(self.config.me, self.incarnation, times(&self.config), log, state, now),
            founding: first.map(founding),
            asked: None,
            answers: BTreeMap::new(),
            configured: None,
            next: None,
            misfit: None,
            preparing: None,
            adopting: None,
            quarantine: BTreeMap::new(),
            vips_from: Instant::ZERO,
            reborn: now,
            drained_due: now,
            members: BTreeMap::new(),
            settled: None,
            unfit: None,
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
        let sessions = self.sessions();
        let Self { seat, config, .. } = self;
        let seat = seat.as_mut()?;
        let suits = |space: &Namespace| preview::misfits(config, space);
        Some(preview::look(&mut seat.council, (config.me, sessions), changes, suits))
    }

    /// What keeps this node from serving by these changes, if they can be made: the cluster might take them, and the node would
    /// be taken out.
    pub fn misfits(&mut self, changes: &[Change]) -> Vec<Fault> {
        let Self { seat: Some(seat), config, .. } = self else { return Vec::new() };
        let found = seat.council.preview(changes, |space| preview::misfits(config, space));
        found.unwrap_or_default()
    }

    /// Has something decided; none without a log. [`Self::answer`] tells what became of it.
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Option<Ask> {
        let seat = self.seat.as_mut()?;
        let ask = seat.council.ask(entry, now);
        seat.answers.insert(ask, None);
        Some(ask)
    }

    /// Has something decided that shows in the state; asked for again if it doesn't.
    pub(super) fn want(&mut self, entry: Entry, now: Instant) {
        if let Some(seat) = &mut self.seat {
            seat.council.ask(entry, now);
        }
    }

    /// What became of what was asked for, once it is known.
    pub fn answer(&mut self, ask: Ask) -> Option<Answer> {
        let answers = &mut self.seat.as_mut()?.answers;
        answers.get(&ask)?.as_ref()?;
        answers.remove(&ask)?
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

    /// A turn of the council; `true` if a new View is due.
    pub(super) fn follow(&mut self, now: Instant) -> bool {
        let ready = self.able();
        let Some(seat) = &mut self.seat else { return false };
        seat.council.hears(self.peers.heard_of_late(now));
        let mut news = seat.council.turn(now);
        let over = seat.council.ended().filter(|_| seat.may_begin(now)).cloned();
        if let Some(why) = over {
            let last = seat.life(self.config.me).0.max(self.incarnation);
            self.incarnation = Incarnation(last.0 + 1);
            error!("this node was taken out: {why}; it begins life {} and comes back", self.incarnation);
            (seat.reborn, seat.misfit) = (now, None);
            seat.council.begin(self.incarnation);
            news.changed = true;
        }
        self.lease.set(seat.council.lease().unwrap_or(Instant::ZERO));
        let timed = seat.quarantine(&news, now);
        seat.found(now);
        while let Some((ask, answer)) = seat.council.answered() {
            if seat.asked == Some(ask) {
                seat.asked = None;
                seat.founded(&answer);
            } else {
                // Of what the node itself asks for, what becomes of it shows in the state.
                seat.answers.entry(ask).and_modify(|known| *known = Some(answer));
            }
        }
        // What a snapshot gives may be under the leases of the dead. Who doesn't serve yet waits for those to end.
        let ready = ready && (now >= seat.vips_from || seat.life(self.config.me) == (self.incarnation, true));
        let vips_due = seat.vips_from > Instant::ZERO && now >= seat.vips_from;
        if vips_due {
            seat.vips_from = Instant::ZERO;
        }
        if news.changed || news.in_force {
            self.tell_members();
            self.compile_next();
        }
        let told = self.report();
        self.note_adoption(ready);
        if self.report() != told {
            // The leader waits for this.
            self.heartbeat_due = now;
        }
        self.tell_drained(now);
        if news.changed || news.in_force {
            self.await_workers(&news);
        }
        news.changed || news.in_force || vips_due || timed
    }

    /// Tells the operator what has become of nodes.
    fn tell_members(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let (now, state) = (seat.council.state().fleet().members(), seat.council.state());
        for (node, member) in now.iter().filter(|(node, member)| seat.members.get(node) != Some(member)) {
            let name =
                state.namespace().nodes().find(|(id, ..)| id == node).map(|(_, name, _)| name.as_str());
            let (name, life) = (name.unwrap_or("?"), member.incarnation);
            match &member.phase {
                Phase::Offline(why) => warn!("node {name}, life {life}, is offline: {why}"),
                phase => info!("node {name}, life {life}, is {phase:?}"),
            }
        }
        seat.members = now.clone();
    }

    /// Compiles the namespace, if it isn't what was compiled last.
    fn compile_next(&mut self) {
        let Some(seat) = &mut self.seat else { return };
        let state = seat.council.state();
        let (space, standings) = (state.namespace(), state.standings());
        let digest = seat.digest();
        if space.is_empty() || seat.configured == Some(digest) && seat.next.is_none() {
            return;
        }
        if seat.next.as_ref().is_none_or(|next| next.digest != digest) {
            let caps: Vec<_> = self.devices.iter().map(|device| device.caps.clone()).collect();
            let compiled = self.config.with(space).map_err(|faults| {
                let each: Vec<_> = faults.iter().map(ToString::to_string).collect();
                each.join("; ")
            });
            let compiled = compiled.map(|config| config.judged(space, standings)).and_then(|config| {
                let before = (&self.config, self.views.current());
                let view = compile::recompile(&config, self.incarnation, &caps, before);
                let view = view.map_err(|e| e.to_string())?;
                // The workers must not wait for the kernel at the first packet to a new one.
                let ids = self.views.current().services.real_servers.len()..view.services.real_servers.len();
                self.workers.iter().for_each(|w| w.counters.real_servers.populate(ids.clone()));
                Ok(Compiled { digest, config, view })
            });
            match compiled {
                Ok(compiled) => {
                    seat.council.expect(times(&compiled.config));
                    (seat.next, seat.misfit) = (Some(compiled), None);
                }
                Err(why) => {
                    error!("what was decided doesn't suit this node: {why}");
                    (seat.next, seat.unfit) = (None, Some(digest));
                    seat.council.fail(Why::Apply(why.clone()));
                    seat.misfit = Some(why);
                }
            }
        }
    }

    /// Takes what was compiled as this node's configuration once it is in force; the View that it makes.
    pub(super) fn in_force(&mut self, now: Instant) -> Option<View> {
        let seat = self.seat.as_mut()?;
        let state = seat.council.state();
        if state.in_force() != state.version() {
            return None;
        }
        let Compiled { digest, config, view } = seat.next.take()?;
        seat.configured = Some(digest);
        self.config = config;
        seat.council.go_by(times(&self.config));
        self.peers.resize(self.config.cluster.nodes.slots(), self.config.cluster.suspicion);
        let current = self.views.current().hops.iter().map(Hop::place);
        if !current.eq(view.hops.iter().map(Hop::place)) {
            self.neighbours.want(&view.hops, now);
        }
        Some(view)
    }

    /// What a View says by what is decided. What is new is not answered for while another may do so.
    pub(super) fn decided(&self, view: &mut View, now: Instant) -> Vec<crate::base::Addr> {
        let Some(seat) = &self.seat else { return Vec::new() };
        let buckets = seat.buckets(view.me, view.services.groups.len());
        if *view.buckets != *buckets {
            view.place(buckets);
        }
        let (published, latest) = (seat.state().published().serving(), seat.state().fleet().serving());
        let of =
            |config: &Config, serving: NodeSet| compile::advertised(config, |node| serving.contains(node));
        // What the next version gives to another is given up before it is in force.
        let next = seat.next.as_ref().map_or(&self.config, |next| &next.config);
        let both: BTreeSet<_> = of(next, latest).into_iter().collect();
        let held_back = now < seat.vips_from;
        let mut ours = of(&self.config, published);
        ours.retain(|a| both.contains(a) && (!held_back || view.advertised.get(a).is_some()));
        ours
    }

    /// The version that is decided is prepared, and the one in force adopted, when the workers run the next View.
    fn await_workers(&mut self, news: &News) {
        let view = self.views.current().version + 1;
        let Some(seat) = &mut self.seat else { return };
        let (version, in_force) = (seat.state().version(), seat.state().in_force());
        if news.changed {
            seat.preparing = Some(Awaited { version, view });
        }
        if news.in_force {
            seat.adopting = Some(Awaited { version: in_force, view });
        }
    }

    /// Tells the council how far the workers are.
    fn note_adoption(&mut self, ready: bool) {
        let running = self.workers.iter().map(|w| w.counters.view.get()).min().unwrap_or(0);
        let Some(seat) = &mut self.seat else { return };
        let mut prepared = seat.council.report().prepared;
        if let Some(due) = seat.preparing.filter(|due| running >= due.view) {
            seat.preparing = None;
            if seat.misfit.is_none() {
                prepared = due.version;
            }
        }
        seat.council.prepared(prepared, ready && seat.misfit.is_none());
        if let Some(due) = seat.adopting.filter(|due| running >= due.view) {
            seat.adopting = None;
            seat.council.adopted(due.version);
            debug!(version = due.version, "in force");
        }
    }

    /// Has it decided that nothing is left here of what others have taken over (MECHANISMS §4 point 4).
    fn tell_drained(&mut self, now: Instant) {
        let me = self.config.me;
        let Some(seat) = &mut self.seat else { return };
        let state = seat.council.state();
        // What all have once adopted stays so while the placement does, whatever else is decided.
        let placed = self.views.current().placed;
        seat.settled = seat.settled.filter(|(known, _)| *known == placed);
        if state.version() != state.in_force() || seat.adopting.is_some() || !seat.council.all_adopted() {
            return;
        }
        let (_, since) = *seat.settled.get_or_insert((placed, now));
        if now < seat.drained_due {
            return;
        }
        seat.drained_due = now + PAUSE;
        let mut told = Vec::new();
        for (group, map) in state.fleet().maps() {
            let Some(counted) = self.census.holding(*group).filter(|counted| counted.began >= since) else {
                continue;
            };
            let left = map
                .iter()
                .filter(|(bucket, place)| place.previous == Some(me) && !counted.buckets.has(*bucket));
            let left: Vec<Bucket> = left.map(|(bucket, _)| bucket).collect();
            if !left.is_empty() {
                told.push(Entry::Drained(*group, me, self.incarnation, left));
            }
        }
        for entry in told {
            // What becomes of it shows in the state.
            seat.council.ask(entry, now);
        }
    }
}

impl Seat {
    /// Begins a new cluster, if that is this node's to do.
    fn found(&mut self, now: Instant) {
        if !self.state().namespace().is_empty() {
            self.founding = None;
        }
        if let Some(write) = &self.founding
            && self.asked.is_none()
            && self.council.quorum()
        {
            self.asked = Some(self.council.ask(Entry::Write(write.clone()), now));
        }
    }

    fn founded(&mut self, answer: &Answer) {
        match answer {
            Answer::Written(crate::cluster::namespace::Outcome::Applied { .. }) | Answer::Decided(_) => {
                self.founding = None;
            }
            Answer::Written(crate::cluster::namespace::Outcome::Refused { faults, .. }) => {
                let each: Vec<_> = faults.iter().map(ToString::to_string).collect();
                error!("the cluster can't begin with its file: {}", each.join("; "));
                self.founding = None;
            }
            // There is no leader yet, or it was lost: again.
            Answer::Refused(_) | Answer::Unknown => {}
        }
    }
}
