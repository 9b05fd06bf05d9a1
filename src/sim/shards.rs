//! The shared state of a cluster alone: a shard a node, whose records are lost, doubled, late and out of order, while nodes crash,
//! stall and are cut off, and buckets change hands. Every operation is recorded, and each key's history has to be linearizable.

mod governor;

use super::linear::{self, Call, Said};
use crate::asdr::{Answer, Bounds, Event, Key, Kind, Moment, Operation, Outbox, Shard, Ticket, Version};
use crate::base::planted::{self, Bug};
use crate::base::rng::Rng;
use crate::base::{Bucket, GroupId, HashKey, Instant, NodeId};
use crate::wire::state::{MAX_RECORD, Record};
use governor::Governor;
use std::collections::BTreeMap;
use std::time::Duration;

/// A step of virtual time.
const STEP: Duration = Duration::from_millis(1);
/// How long an answer to the question for a lease is good, counted by the asker's clock.
const LEASE: Duration = Duration::from_millis(100);
/// Between questions for the lease.
const RENEWAL: Duration = Duration::from_millis(20);
const NODES: u16 = 5;
const BUCKETS: u16 = 8;
/// A key is asked for so often, then another takes its place: a history's length costs more than its number.
const ASKED: usize = 120;
/// Keys that are asked for at a time.
const KEYS: usize = 32;
/// The key of hashing; nothing depends on it.
const HASH_KEY: HashKey = HashKey([1, 2]);
const GROUP: GroupId = GroupId(0);

const BOUNDS: Bounds = Bounds {
    entries: [20_000, 16, 16],
    groups: 1,
    worker: (0, 1),
    busy: 256,
    waiters: 1024,
    again: Duration::from_millis(10),
    patience: Duration::from_millis(300),
    grace: Duration::from_secs(2),
    audit: Duration::from_millis(300),
};

/// What a world is like.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Records of a hundred that are lost, and that come twice.
    pub lost: u64,
    /// See above.
    pub doubled: u64,
    /// Milliseconds that a record takes at most.
    pub late: u64,
    /// Steps between faults of nodes, on average; zero: there are none.
    pub between: u64,
}

impl Faults {
    /// As bad as it may be.
    pub const ALL: Self = Self { lost: 10, doubled: 5, late: 15, between: 250 };
}

/// What a run has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Operations asked for, and those of which it isn't known whether they were done.
    pub operations: usize,
    /// See above.
    pub unknown: usize,
    /// Not done, and said so.
    pub refused: usize,
    /// Lives that began; buckets that changed hands.
    pub lives: u32,
    /// See above.
    pub moved: u32,
    /// Chain walks, and entries that owners wrote again.
    pub hunts: u64,
    /// See above.
    pub rewritten: u64,
    /// Copies that audits found to differ, and entries that they should have had.
    pub differing: u64,
    /// See above.
    pub mended: u32,
    /// Keys whose histories were looked at.
    pub keys: usize,
}

/// A key whose history has no order.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The key, and its history.
    pub key: u64,
    /// See above.
    pub history: Vec<linear::Operation>,
}

struct Node {
    /// None: it has crashed.
    shard: Option<Shard>,
    /// Its clock runs at so many thousandths of the world's.
    clock: u64,
    lease: Instant,
    ask_at: Instant,
    stalled_until: Instant,
    cut_until: Instant,
    /// Chains of buckets by the governor's numbers, and when they come.
    chains: Vec<(Instant, u64, Bucket)>,
    /// Hunts and rewritten entries that were counted.
    told: (u64, u64, u64),
    /// The number of each bucket's chain here.
    has: [u64; BUCKETS as usize],
}

struct Asked {
    key: u64,
    node: u16,
    operation: linear::Operation,
}

/// A record on its way: when it comes, from whom, to whom.
struct Flying(Instant, u16, u16, Vec<u8>);

struct World {
    now: Instant,
    rng: Rng,
    faults: Faults,
    nodes: Vec<Node>,
    governor: Governor,
    flying: Vec<Flying>,
    asked: BTreeMap<u64, Asked>,
    /// The histories of all keys, and what each was last seen to be.
    keys: BTreeMap<u64, Vec<linear::Operation>>,
    seen: BTreeMap<u64, (Option<u64>, Version)>,
    next: u64,
    figures: Figures,
}

/// Records that a node's turn sends.
struct Sent(Vec<(NodeId, Vec<u8>)>);

impl Outbox for Sent {
    fn send(&mut self, to: NodeId, record: &Record<'_>) {
        let mut bytes = vec![0; MAX_RECORD];
        let len = record.write(&mut bytes);
        bytes.truncate(len);
        self.0.push((to, bytes));
    }
}

/// Lives for so many steps, with so many `copies` of each bucket besides the owner's, and a fault planted if one is named.
///
/// # Errors
/// A key whose history nobody can explain.
pub fn run(
    seed: u64,
    steps: u64,
    copies: usize,
    faults: Faults,
    plant: Option<Bug>,
) -> Result<Figures, Box<Violation>> {
    planted::plant(plant);
    let mut world = World::new(seed, copies, faults);
    (0..steps).for_each(|_| world.step());
    planted::plant(None);
    for at in 0..world.nodes.len() {
        world.note(at);
    }
    world.forget(|_| true);
    world.figures.keys = world.keys.len();
    world.figures.moved = world.governor.moved;
    let bad = world.keys.into_iter().find(|(_, history)| !linear::is_linearizable(history));
    match bad {
        Some((key, history)) => Err(Box::new(Violation { key, history })),
        None => Ok(world.figures),
    }
}

fn key(number: u64) -> Key {
    let bytes = number.to_be_bytes();
    Key { kind: Kind::Persistence, bytes: bytes.into_iter().collect() }
}

fn bucket(number: u64) -> Bucket {
    Bucket((number % u64::from(BUCKETS)) as u16)
}

impl World {
    fn new(seed: u64, copies: usize, faults: Faults) -> Self {
        let mut rng = Rng::new(seed);
        let governor = Governor::new(NODES, BUCKETS, copies);
        let node = |number: u16| Node {
            shard: Some(Shard::new(NodeId(number), HASH_KEY, BOUNDS)),
            clock: 950 + rng.below(101),
            lease: Instant::ZERO,
            ask_at: Instant::ZERO,
            stalled_until: Instant::ZERO,
            cut_until: Instant::ZERO,
            chains: (0..BUCKETS).map(|bucket| (Instant::ZERO, 1, Bucket(bucket))).collect(),
            told: (0, 0, 0),
            has: [0; BUCKETS as usize],
        };
        let nodes = (0..NODES).map(node).collect();
        let now = Instant(1_000_000_000);
        Self {
            now,
            rng,
            faults,
            nodes,
            governor,
            flying: Vec::new(),
            asked: BTreeMap::new(),
            keys: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 0,
            figures: Figures::default(),
        }
    }

    fn step(&mut self) {
        self.now = self.now + STEP;
        self.fault();
        for at in 0..self.nodes.len() {
            self.turn(at);
        }
        let heard: Vec<bool> = self.nodes.iter().map(|node| node.hears(self.now)).collect();
        let published = self.governor.turn(self.now, &mut self.rng, &heard);
        for (node, number, bucket) in published {
            let late = Duration::from_millis(self.rng.below(30));
            self.nodes[usize::from(node)].chains.push((self.now + late, number, bucket));
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if node.shard.is_none() && node.cut_until <= self.now && !self.governor.renews(at as u16) {
                node.shard = Some(Shard::new(NodeId(at as u16), HASH_KEY, BOUNDS));
            }
        }
    }

    /// What happens to a node now and then, unless no complete copy of a bucket would be left.
    fn fault(&mut self) {
        if self.faults.between == 0 || self.rng.below(self.faults.between) > 0 {
            return;
        }
        let at = self.rng.below(u64::from(NODES)) as u16;
        let whole = |node: u16| self.nodes[usize::from(node)].hears(self.now) && node != at;
        if !self.governor.can_lose(&whole) {
            return;
        }
        let long = Duration::from_millis(30 + self.rng.below(600));
        let kind = self.rng.below(3);
        let node = &mut self.nodes[usize::from(at)];
        match kind {
            0 => {
                node.shard = None;
                node.cut_until = self.now + long;
                node.chains.clear();
                node.has = [0; BUCKETS as usize];
                node.lease = Instant::ZERO;
                self.figures.lives += 1;
                self.forget(|asked| asked.node == at);
            }
            1 => node.stalled_until = self.now + long,
            _ => node.cut_until = self.now + long,
        }
    }

    /// Nobody will ever know what became of these.
    fn forget(&mut self, which: impl Fn(&Asked) -> bool) {
        let gone: Vec<u64> =
            self.asked.iter().filter(|(_, asked)| which(asked)).map(|(ticket, _)| *ticket).collect();
        for ticket in gone {
            let Some(asked) = self.asked.remove(&ticket) else { continue };
            self.figures.unknown += 1;
            self.keys
                .entry(asked.key)
                .or_default()
                .push(linear::Operation { said: Said::Unknown, ..asked.operation });
        }
    }

    fn turn(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        if node.stalled_until > now {
            return;
        }
        let Some(mut shard) = node.shard.take() else { return };
        let clock = Instant(now.0 / 1000 * node.clock);
        if node.ask_at <= clock {
            node.ask_at = clock + RENEWAL;
            // The answer takes no time: what counts is when was asked.
            if node.cut_until <= now && self.governor.renews(at as u16) {
                node.lease = clock + LEASE;
            }
        }
        let m = Moment { now: clock, lease: node.lease };
        let mut sent = Sent(Vec::new());
        let come: Vec<_> =
            node.chains.extract_if(.., |(due, ..)| *due <= now && node.cut_until <= now).collect();
        for (_, number, bucket) in come {
            if node.has[bucket.index()] < number {
                node.has[bucket.index()] = number;
                shard.adopt(m, GROUP, bucket, self.governor.chain(bucket, number), &mut sent);
                self.governor.adopted(at as u16, bucket, number);
            }
        }
        let cut = node.cut_until > now;
        let come: Vec<Flying> =
            self.flying.extract_if(.., |f| f.0 <= now && usize::from(f.2) == at).collect();
        for Flying(_, from, _, bytes) in come.into_iter().filter(|_| !cut) {
            match Record::parse(&bytes) {
                Ok((record, [])) => shard.receive(m, NodeId(from), &record, &mut sent),
                other => unreachable!("{other:?}"),
            }
        }
        shard.turn(m, &mut sent);
        for _ in 0..3 {
            self.client(at, m, &mut shard, &mut sent);
        }
        while let Some(event) = shard.event() {
            match event {
                Event::Complete { bucket, copy, epoch, .. } if !cut => {
                    self.governor.complete(bucket, copy, epoch);
                }
                Event::Complete { .. } => {}
                Event::Mended { entries, .. } => self.figures.mended += entries,
            }
        }
        let counts = shard.counts();
        let told =
            std::mem::replace(&mut self.nodes[at].told, (counts.hunts, counts.rewritten, counts.differing));
        self.figures.hunts += counts.hunts.saturating_sub(told.0);
        self.figures.rewritten += counts.rewritten.saturating_sub(told.1);
        self.figures.differing += counts.differing.saturating_sub(told.2);
        self.nodes[at].shard = Some(shard);
        self.note(at);
        for (to, bytes) in sent.0 {
            self.fly(at as u16, to.0, bytes, cut);
        }
    }

    fn fly(&mut self, from: u16, to: u16, bytes: Vec<u8>, cut: bool) {
        let twice = self.rng.below(100) < self.faults.doubled;
        for _ in 0..=u8::from(twice) {
            let lost = cut || self.rng.below(100) < self.faults.lost;
            let late = Duration::from_millis(self.rng.below(self.faults.late + 1));
            if !lost {
                self.flying.push(Flying(self.now + late, from, to, bytes.clone()));
            }
        }
    }

    /// Somebody at a node asks for a key, if it is that node's, as far as it knows.
    fn client(&mut self, at: usize, m: Moment, shard: &mut Shard, sent: &mut Sent) {
        let mut number = self.rng.below(KEYS as u64);
        while self.keys.get(&number).map_or(0, Vec::len) >= ASKED {
            number += KEYS as u64;
        }
        let bucket = bucket(number);
        // Most know whom to ask.
        if self.governor.owner(bucket) != Some(NodeId(at as u16)) && self.rng.below(20) > 0 {
            return;
        }
        let seen = self.seen.get(&number).copied();
        // Every fourth key is a counter.
        let counter = number % 4 == 3;
        let new = self.next + 1;
        let set = |value: u64| value.to_be_bytes().into_iter().collect();
        let (operation, call) = match self.rng.below(10) {
            0..=4 => (Operation::Read, Call::Read),
            5 | 6 if counter => (Operation::Add { amount: 3, ticks: 0 }, Call::Add(3)),
            5 | 6 => (Operation::Set { value: set(new), ticks: 0 }, Call::Write(new)),
            7 | 8 if !counter => {
                let (was, expected) = seen.unwrap_or_default();
                (Operation::Compare { expected, value: set(new), ticks: 0 }, Call::Swap(was, new))
            }
            9 => (Operation::Delete, Call::Delete),
            _ => (Operation::Read, Call::Read),
        };
        self.next = new;
        let operation_of = linear::Operation { begin: self.now.0, end: 0, call, said: Said::Unknown };
        let asked = Asked { key: number, node: at as u16, operation: operation_of };
        self.figures.operations += 1;
        match shard.ask(m, (GROUP, bucket), &key(number), operation, Ticket(new), sent) {
            Some(answer) => self.answered(asked, &answer),
            None => _ = self.asked.insert(new, asked),
        }
    }

    /// Takes a node's answers.
    fn note(&mut self, at: usize) {
        while let Some((ticket, answer)) = self.nodes[at].shard.as_mut().and_then(Shard::answer) {
            if let Some(asked) = self.asked.remove(&ticket.0) {
                self.answered(asked, &answer);
            }
        }
    }

    fn answered(&mut self, asked: Asked, answer: &Answer) {
        let number = |value: &[u8]| u64::from_be_bytes(value.try_into().unwrap_or_default());
        let said = match answer {
            Answer::Found(value, version) => {
                self.seen.insert(asked.key, (Some(number(value)), *version));
                Said::Is(Some(number(value)))
            }
            Answer::NotFound | Answer::Conflict(None) => {
                self.seen.insert(asked.key, (None, Version::NONE));
                Said::Is(None)
            }
            Answer::Done(_) => Said::Done,
            Answer::Conflict(Some((value, _))) => Said::Is(Some(number(value))),
            Answer::Unknown(_) => Said::Unknown,
            Answer::Refused(_) => {
                self.figures.refused += 1;
                return;
            }
        };
        self.figures.unknown += usize::from(said == Said::Unknown);
        let operation = linear::Operation { end: self.now.0, said, ..asked.operation };
        self.keys.entry(asked.key).or_default().push(operation);
    }
}

impl Node {
    /// Whether others hear it.
    fn hears(&self, now: Instant) -> bool {
        self.shard.is_some() && self.stalled_until <= now && self.cut_until <= now
    }
}
