//! The deciding parts of a cluster alone, without packets: councils over the model log, with heartbeats that are lost, cut
//! links, crashes, stalls and clocks that drift. Fast, so that it can be long.

use super::decided::{self, Agreement};
use super::log::{Model, ModelLog};
use crate::base::hash::mix;
use crate::base::limits::BUCKETS;
use crate::base::planted::{self, Bug};
use crate::base::rng::Rng;
use crate::base::{Addr, Bucket, GroupId, Incarnation, Instant, NodeId};
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::council::{Council, Report, Times};
use crate::cluster::lead::Patience;
use crate::cluster::log::ReplicaId;
use crate::cluster::namespace::{
    By, Change, GroupSpec, Key, Name, Namespace, NodeSpec, Object, Outcome, RequestId, Write,
};
use crate::cluster::place::seen_by;
use crate::cluster::state::{Entry, State};
use crate::view::Learnt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A step of virtual time.
const STEP: Duration = Duration::from_millis(5);
/// Between heartbeats.
const BEAT: Duration = Duration::from_millis(50);
/// Further nodes learn.
const VOTERS: usize = 5;
/// By then, after the last fault, the cluster is as if there had been none.
const CONVERGENCE: Duration = Duration::from_secs(12);

const NOBODY: NodeId = NodeId(u16::MAX);

/// As in the profile "lab".
pub const TIMES: Times = Times {
    renewal: Duration::from_millis(50),
    lease: Duration::from_millis(350),
    patience: Patience { suspicion: Duration::from_millis(400), prepare: Duration::from_millis(1500) },
};

/// What must hold, and didn't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: &'static str,
    /// When.
    pub at: Instant,
    /// The particulars.
    pub what: String,
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Virtual time.
    pub lived: Duration,
    /// Entries committed.
    pub entries: usize,
    /// Lives that began.
    pub lives: u32,
    /// Changes of the leader.
    pub leaders: u32,
    /// Buckets that changed hands.
    pub moved: u64,
}

/// One node's deciding part.
struct Seat {
    council: Council<ModelLog>,
    incarnation: u32,
    /// Prepared Views come into being after a while, as compiling takes time: version and when.
    compiling: Option<(u64, Instant)>,
    /// Workers take up what is published after a while.
    adopting: Option<(u64, Instant)>,
    /// Buckets that were another's when it died, and may be under its lease until then.
    quarantine: BTreeMap<(GroupId, Bucket), Instant>,
    all_until: Instant,
    beat_due: Instant,
    learnt_due: Instant,
    stalled_until: Instant,
    /// When it last heard each node.
    heard: BTreeMap<NodeId, Instant>,
    /// Its clock runs at this many thousandths of the world's.
    clock: u64,
    asked: BTreeMap<Ask, Entry>,
}

/// Everything in virtual time. See the module's text.
struct World {
    now: Instant,
    rng: Rng,
    model: Arc<Mutex<Model>>,
    seats: Vec<Option<Seat>>,
    lives: Vec<u32>,
    cut: BTreeSet<(u16, u16)>,
    lossy: bool,
    namespace: Namespace,
    figures: Figures,
    /// Who served each bucket of each group last.
    owners: Vec<NodeId>,
    leader: Option<ReplicaId>,
    /// Proposals of which a node was told that they are committed: where, by whom, and what.
    acknowledged: Vec<(u64, NodeId, Entry)>,
    /// The latest state that was looked at.
    judged: State,
}

/// Whether a fault is planted by which this node's state is wrong for a while: what it knows proves nothing until the end.
fn skips_at_times(node: usize) -> bool {
    node == 1 && (planted::is(Bug::EntrySkippedAtTimes) || planted::is(Bug::NothingRestored))
}

/// Has it decided that who stands by for what this node owns has all of it: by then there was time for that.
fn tell_learnt(council: &mut Council<ModelLog>, me: NodeId, now: Instant) {
    let mut told = Vec::new();
    for (group, map) in council.state().published().maps().iter().filter(|(_, map)| map.shares_state()) {
        let own = map.iter().filter(|(_, place)| place.owner == Some(me));
        let all = own.flat_map(|(bucket, place)| {
            let learn = place.replicas.iter().filter(|replica| !replica.complete);
            let epoch = place.epoch as u32;
            learn.map(move |r| Learnt { bucket, epoch, node: r.node, stay: r.stay })
        });
        let learnt: Vec<_> = all.collect();
        if !learnt.is_empty() {
            told.push(Entry::Learnt(*group, learnt));
        }
    }
    told.into_iter().for_each(|entry| council.want(entry, now));
}

fn name(node: u16) -> Name {
    Name::new(&format!("n{node}")).unwrap_or_else(|_| Name::all())
}

fn described(node: u16) -> (Key, NodeSpec) {
    let backplane = Addr::v4([10, 0, 0, node as u8 + 1]);
    let weight = 1 + u32::from(node % 3 == 2);
    (Key::Node(name(node)), NodeSpec { backplane, workers: 1, weight, management: None })
}

/// Nodes of which every third has twice the weight, and a second group that is served by every other.
fn namespace(nodes: u16) -> Namespace {
    let (some, others) = (0..nodes).map(name).enumerate().partition::<Vec<_>, _>(|(n, _)| n % 2 == 0);
    let node = |n: u16| {
        let (key, spec) = described(n);
        (key, Object::Node(spec))
    };
    let names = |of: Vec<(usize, Name)>| of.into_iter().map(|(_, name)| name).collect();
    let group = GroupSpec { members: names(some), backups: names(others) };
    let group = Name::new("some").map(|name| (Key::Group(name), Object::Group(group)));
    Namespace::draft((0..nodes).map(node).chain(group)).0
}

/// Lives through `seconds` of faults of a cluster of `nodes` from a seed, then until it has come to rest.
pub fn run(seed: u64, nodes: u16, seconds: u64, plant: Option<Bug>) -> Result<Figures, Violation> {
    planted::plant(plant);
    let lived = World::new(seed, nodes).live(Duration::from_secs(seconds));
    planted::plant(None);
    lived
}

impl World {
    fn new(seed: u64, nodes: u16) -> Self {
        let replicas = (0..nodes).map(ReplicaId);
        let mut world = Self {
            now: Instant::ZERO,
            rng: Rng::new(mix(seed ^ 0x636f_756e_6369_6c00)),
            model: Arc::new(Mutex::new(Model::new(seed, replicas, VOTERS))),
            seats: (0..nodes).map(|_| None).collect(),
            lives: vec![0; usize::from(nodes)],
            cut: BTreeSet::new(),
            lossy: false,
            namespace: namespace(nodes),
            figures: Figures::default(),
            owners: vec![NOBODY; 2 * BUCKETS],
            leader: None,
            acknowledged: Vec::new(),
            judged: State::default(),
        };
        (0..nodes).for_each(|node| world.start(node));
        world
    }

    fn start(&mut self, node: u16) {
        let life = &mut self.lives[usize::from(node)];
        *life += 1;
        self.figures.lives += 1;
        let incarnation = *life;
        let clock = 985 + self.rng.below(31);
        let log = ModelLog::start(&self.model, ReplicaId(node));
        let state = State::new(self.namespace.clone());
        let local = self.local(clock);
        let council = Council::new(NodeId(node), Incarnation(incarnation), TIMES, log, state, local);
        self.seats[usize::from(node)] = Some(Seat {
            council,
            incarnation,
            compiling: Some((1, local)),
            adopting: None,
            quarantine: BTreeMap::new(),
            all_until: Instant::ZERO,
            beat_due: local,
            learnt_due: local,
            stalled_until: Instant::ZERO,
            clock,
            asked: BTreeMap::new(),
            heard: BTreeMap::new(),
        });
    }

    /// What a clock of this speed shows.
    fn local(&self, clock: u64) -> Instant {
        Instant(self.now.0 / 1000 * clock)
    }

    fn live(mut self, faulty: Duration) -> Result<Figures, Violation> {
        let mut fault_due = Instant::ZERO + Duration::from_secs(3);
        while self.now.since(Instant::ZERO) < faulty {
            if self.now >= fault_due {
                fault_due = self.now + Duration::from_millis(100 + self.rng.below(2500));
                self.fault();
            }
            self.step()?;
        }
        self.heal();
        let end = self.now + CONVERGENCE;
        while self.now < end {
            self.step()?;
        }
        self.at_rest()?;
        self.figures.lived = self.now.since(Instant::ZERO);
        self.figures.entries = self.model.lock().unwrap_or_else(PoisonError::into_inner).committed();
        Ok(self.figures)
    }

    fn fault(&mut self) {
        let nodes = self.seats.len() as u64;
        let node = self.rng.below(nodes) as u16;
        match self.rng.below(11) {
            0 | 1 => self.kill(node),
            2 => {
                // A partition, or one that only some feel.
                let side: Vec<bool> = (0..nodes).map(|_| self.rng.below(2) == 0).collect();
                let most = self.rng.below(3) > 0;
                for a in 0..nodes as u16 {
                    for b in 0..nodes as u16 {
                        if side[usize::from(a)] != side[usize::from(b)] && (most || self.rng.below(2) == 0) {
                            self.cut.insert((a.min(b), a.max(b)));
                        }
                    }
                }
            }
            3 => {
                (0..nodes as u16).filter(|n| *n != node).for_each(|n| {
                    self.cut.insert((n.min(node), n.max(node)));
                });
            }
            // The leader takes a node for dead that all others hear.
            4 | 5 => {
                let leader = self.leader.map_or(0, |leader| leader.0);
                self.cut.insert((leader.min(node), leader.max(node)));
            }
            6 => self.cut.clear(),
            7 => self.lossy = !self.lossy,
            8 => {
                let until = self.now + Duration::from_millis(self.rng.below(1500));
                if let Some(seat) = &mut self.seats[usize::from(node)] {
                    seat.stalled_until = until;
                }
                self.model().lag(ReplicaId(node), until);
            }
            9 => {
                let (drain, target) = (self.rng.below(2) == 0, self.rng.below(nodes) as u16);
                let by = self.somebody();
                let entry = if self.rng.below(3) == 0 {
                    Entry::Write(self.reweigh(target))
                } else {
                    Entry::Drain(NodeId(target), drain, by)
                };
                self.ask(node, entry);
            }
            _ => {
                let until = self.now + Duration::from_millis(self.rng.below(900));
                self.model().lag(ReplicaId(node), until);
            }
        }
        let cut = self.cut.iter().map(|(a, b)| (ReplicaId(*a), ReplicaId(*b))).collect();
        self.model().cut(cut);
    }

    fn model(&self) -> std::sync::MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&mut self, of: u16, entry: Entry) {
        let Some(seat) = &mut self.seats[usize::from(of)] else { return };
        let local = Instant(self.now.0 / 1000 * seat.clock);
        let ask = seat.council.ask(entry.clone(), local);
        seat.asked.insert(ask, entry);
    }

    fn somebody(&mut self) -> By {
        By { request: RequestId(u128::from(self.rng.next_u64())), who: "somebody".into(), at: 0 }
    }

    /// Someone gives a node another weight.
    fn reweigh(&mut self, node: u16) -> Write {
        let (key, mut spec) = described(node);
        spec.weight = 1 + self.rng.below(3) as u32;
        let value = Some(Object::Node(spec));
        let changes = vec![Change { key, expected: None, value }];
        let By { request, who, at } = self.somebody();
        Write { request, who, at, changes }
    }

    fn kill(&mut self, node: u16) {
        if self.seats[usize::from(node)].take().is_some() {
            self.model().kill(ReplicaId(node));
        } else {
            self.start(node);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.lossy = false;
        self.model().cut(Vec::new());
        for node in 0..self.seats.len() as u16 {
            if self.seats[usize::from(node)].is_none() {
                self.start(node);
            }
        }
        for node in 0..self.seats.len() as u16 {
            let by = self.somebody();
            self.ask(0, Entry::Drain(NodeId(node), false, by));
        }
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.now = self.now + STEP;
        let now = self.now;
        self.model().turn(now);
        let leader = self.model().leader();
        self.figures.leaders += u32::from(leader.is_some() && leader != self.leader);
        self.leader = leader.or(self.leader);
        let mut beats: Vec<(u16, u32, Report)> = Vec::new();
        for node in 0..self.seats.len() {
            self.turn(node as u16, &mut beats);
        }
        for (from, life, report) in beats {
            for to in 0..self.seats.len() as u16 {
                let cut = self.cut.contains(&(from.min(to), from.max(to)));
                if from == to || cut || (self.lossy && self.rng.below(4) == 0) {
                    continue;
                }
                if let Some(seat) = self.seats[usize::from(to)].as_mut().filter(|s| now >= s.stalled_until) {
                    let local = Instant(now.0 / 1000 * seat.clock);
                    seat.heard.insert(NodeId(from), local);
                    seat.council.heard(NodeId(from), Incarnation(life), &report, None, local);
                }
            }
        }
        // Owners change by entries, and those take longer than this.
        if (self.now.0 / STEP.as_nanos() as u64).is_multiple_of(4) { self.judge() } else { Ok(()) }
    }

    fn turn(&mut self, node: u16, beats: &mut Vec<(u16, u32, Report)>) {
        let delay = Duration::from_millis(self.rng.below(30));
        let now = self.now;
        let Some(seat) = self.seats[usize::from(node)].as_mut().filter(|s| now >= s.stalled_until) else {
            return;
        };
        let local = Instant(now.0 / 1000 * seat.clock);
        let late = |at: &Instant| local.since(*at) <= TIMES.patience.suspicion;
        seat.council.hears(seat.heard.iter().filter(|(_, at)| late(at)).map(|(node, _)| *node).collect());
        let news = seat.council.turn(local);
        let state = seat.council.state();
        if news.changed {
            seat.compiling = Some((state.version(), local + delay));
        }
        if news.in_force {
            seat.adopting = Some((state.in_force(), local + delay));
        }
        let until = local + seat.council.waits();
        if let Some(taken) = news.taken_over {
            for (group, buckets) in taken {
                seat.quarantine.extend(buckets.into_iter().map(|b| ((group, b), until)));
            }
        }
        if news.installed {
            seat.all_until = until;
        }
        if let Some((version, _)) = seat.compiling.filter(|(_, at)| local >= *at) {
            seat.compiling = None;
            seat.council.prepared(version, true);
        }
        if let Some((version, _)) = seat.adopting.filter(|(_, at)| local >= *at) {
            seat.adopting = None;
            seat.council.adopted(version);
        }
        let serves = seat.council.lease().is_some_and(|until| local < until);
        if serves && local >= seat.learnt_due {
            seat.learnt_due = local + delay * 4;
            tell_learnt(&mut seat.council, NodeId(node), local);
        }
        let ended = seat.council.ended().is_some();
        for (ask, entry) in std::mem::take(&mut seat.asked) {
            let Some(answer) = seat.council.answer(ask) else {
                seat.asked.insert(ask, entry);
                continue;
            };
            if let Answer::Decided(index) | Answer::Written(Outcome::Applied { index }) = answer {
                self.acknowledged.push((index, NodeId(node), entry));
            }
        }
        if local >= seat.beat_due {
            seat.beat_due = local + BEAT;
            beats.push((node, seat.incarnation, seat.council.report()));
        }
        if ended {
            // It begins another life, in the same process.
            let life = &mut self.lives[usize::from(node)];
            *life += 1;
            self.figures.lives += 1;
            (seat.incarnation, seat.quarantine) = (*life, BTreeMap::new());
            seat.council.begin(Incarnation(*life));
            let version = seat.council.state().version();
            seat.compiling = Some((version, local + delay));
        }
    }

    fn violation(&self, rule: &'static str, what: String) -> Violation {
        Violation { rule, at: self.now, what }
    }

    /// What must hold at any time.
    fn judge(&mut self) -> Result<(), Violation> {
        self.promotions()?;
        let mut owners = vec![NOBODY; self.owners.len()];
        let mut agreement = Agreement::default();
        for (node, seat) in self.seats.iter().enumerate() {
            let Some(seat) = seat else { continue };
            if !skips_at_times(node) {
                agreement.hear(node, &seat.council).map_err(|what| self.violation("digest", what))?;
            }
            let local = Instant(self.now.0 / 1000 * seat.clock);
            if seat.council.lease().is_none_or(|until| local >= until) {
                continue;
            }
            let (me, state) = (NodeId(node as u16), seat.council.state());
            let over = state.over();
            for (group, published) in state.published().maps() {
                let Some(latest) = state.fleet().maps().get(group) else { continue };
                for (bucket, place) in published.iter() {
                    if seen_by(me, over, place, latest.get(bucket)).0 != Some(me)
                        || seat.quarantine.get(&(*group, bucket)).is_some_and(|until| local < *until)
                        || local < seat.all_until
                    {
                        continue;
                    }
                    let owner = &mut owners[group.index() * BUCKETS + bucket.index()];
                    let other = std::mem::replace(owner, me);
                    if other != NOBODY {
                        let what = format!(
                            "bucket {bucket} of group {group} is served by n{other} and n{me}, at versions {:?}",
                            [other, me].map(|n| self.seats[n.index()].as_ref().map(|s| {
                                let state = s.council.state();
                                (state.in_force(), state.version(), state.index())
                            }))
                        );
                        return Err(self.violation("one owner", what));
                    }
                }
            }
        }
        for (last, owner) in self.owners.iter_mut().zip(owners).filter(|(_, owner)| *owner != NOBODY) {
            self.figures.moved += u64::from(*last != NOBODY && *last != owner);
            *last = owner;
        }
        Ok(())
    }

    fn promotions(&mut self) -> Result<(), Violation> {
        let sound = self.seats.iter().enumerate().filter(|(node, _)| !skips_at_times(*node));
        let latest = sound.filter_map(|(_, s)| Some(s.as_ref()?.council.state())).max_by_key(|s| s.index());
        let Some(state) = latest.filter(|s| s.index() > self.judged.index()) else { return Ok(()) };
        let before = std::mem::replace(&mut self.judged, state.clone());
        decided::promotions(&before, &self.judged).map_err(|what| self.violation("promotion", what))
    }

    /// What must hold a while after the last fault.
    fn at_rest(&self) -> Result<(), Violation> {
        let mut first: Option<(u64, u64)> = None;
        for (node, seat) in self.seats.iter().enumerate() {
            let Some(seat) = seat else {
                return Err(self.violation("convergence", format!("n{node} is dead")));
            };
            let here = decided::at_rest(node, Incarnation(seat.incarnation), &seat.council)
                .map_err(|what| self.violation("convergence", what))?;
            if *first.get_or_insert(here) != here {
                return Err(self.violation("convergence", format!("n{node} holds {here:?}, n0 {first:?}")));
            }
        }
        let model = self.model();
        let lost = |(index, _, entry): &&(u64, NodeId, Entry)| {
            // A snapshot vouches for all that it holds; the log itself is never forgotten by the model.
            !model.holds(*index, entry)
        };
        match self.acknowledged.iter().find(lost) {
            Some((index, by, entry)) => {
                let what = format!("{entry:?}, acknowledged to n{by} at {index}, isn't in the log");
                Err(self.violation("acknowledged", what))
            }
            None => Ok(()),
        }
    }
}
