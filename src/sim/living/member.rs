//! One node of a living cluster, with the far ends of its ports, its line to the others, and its probes.

use super::plan::{Plan, SERVERS, node_at, server_at};
use crate::base::{Incarnation, Instant, Mac, WorkerId};
use crate::cluster::log::ReplicaId;
use crate::cluster::namespace::{Key, Object};
use crate::io::memory::{self, MemoryLink, MemoryPools, MemoryPort};
use crate::manage::config::Config;
use crate::manage::health::{Attempt, Outcome, Target};
use crate::manage::manager::Manager;
use crate::manage::manager::checks::Probing;
use crate::manage::manager::heartbeats::Courier;
use crate::node::Node;
use crate::sim::cluster::{back_mac, front_mac};
use crate::sim::log::{Model, ModelLog};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Data buffers of a node.
const BUFFERS: usize = 512;
const BUFFER_BYTES: usize = 1792;
/// Frames that fit a queue.
const DEPTH: usize = 512;

/// Turns of a worker in a step, at most.
const TURNS: usize = 8;

/// Whether each real server lives.
pub type Living = Arc<[AtomicBool; SERVERS]>;

/// What a node has sent over the management network and what has come for it.
#[derive(Debug, Default)]
struct Post {
    sent: Vec<(usize, Vec<u8>)>,
    come: VecDeque<Vec<u8>>,
}

/// A node's line on the management network; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Post>>);

impl Line {
    fn post(&self) -> MutexGuard<'_, Post> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was sent since the last call, and to which nodes.
    pub fn collect(&self) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.post().sent)
    }

    /// A message has come.
    pub fn deliver(&self, message: &[u8]) {
        self.post().come.push_back(message.to_vec());
    }
}

impl Courier for Line {
    fn send(&mut self, to: SocketAddr, message: &[u8]) {
        if let Some(node) = node_at(to) {
            self.post().sent.push((node, message.to_vec()));
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let message = self.post().come.pop_front()?;
        let len = message.len().min(buffer.len());
        buffer[..len].copy_from_slice(&message[..len]);
        Some(len)
    }
}

/// Probes that end in the next turn.
struct Probes {
    living: Living,
    made: VecDeque<(Attempt, Outcome)>,
}

impl Probing for Probes {
    fn begin(&mut self, attempt: Attempt, target: &Target) -> bool {
        let lives = server_at(target.address).is_some_and(|i| self.living[i].load(Ordering::Relaxed));
        let bad = || Outcome::Bad("it doesn't answer".into());
        let outcome = if lives { Outcome::Good(Duration::from_millis(1)) } else { bad() };
        self.made.push_back((attempt, outcome));
        true
    }

    fn answer(&mut self) -> Option<(Attempt, Outcome)> {
        self.made.pop_front()
    }
}

/// One process of a node.
pub struct Member {
    /// It.
    pub node: Node<MemoryPort>,
    /// The far ends of its front queues.
    pub front: Vec<MemoryLink>,
    /// The far ends of its backplane queues.
    pub back: Vec<MemoryLink>,
    /// Its line to the others.
    pub line: Line,
    /// Its clock runs at this many thousandths of the world's.
    pub clock: u64,
    /// Until when each part has no core, the manager last; and whether it has read the clock before that, and what it said.
    pub sleeps: Vec<Option<(Instant, Option<Instant>)>>,
    /// What its clock shows while a turn ends.
    shows: Arc<AtomicU64>,
    pools: MemoryPools,
    buffers: usize,
}

impl Member {
    /// Starts node `index`'s process; `first`: what it is to begin a new cluster with.
    pub fn start(
        (plan, index): (&Plan, usize),
        life: Incarnation,
        model: &Arc<Mutex<Model>>,
        living: &Living,
        first: Option<&[(Key, Object)]>,
        (clock, now): (u64, Instant),
    ) -> Self {
        let config = plan.config(index);
        let pools = MemoryPools::new(BUFFERS, BUFFER_BYTES);
        let open = |port: usize, mac: Mac| memory::open(&config.ports[port].device, mac, &pools, DEPTH);
        let ((front_device, front), (back_device, back)) =
            (open(0, front_mac(index)), open(1, back_mac(index)));
        let now = at(now, clock);
        let devices = vec![front_device, back_device];
        let mut node = match Node::new(&config, life, devices, now) {
            Ok(node) => node,
            Err(error) => panic!("the simulator's own configuration is wrong: {error}"),
        };
        let line = Line::default();
        let manager = node.manager();
        manager.carry_by(Box::new(line.clone()));
        manager.probe_by(Box::new(Probes { living: living.clone(), made: VecDeque::new() }));
        let log = ModelLog::start(model, ReplicaId(index as u16));
        manager.decide_by(Box::new(log), first, now);
        let shows = Arc::new(AtomicU64::new(0));
        for worker in 0..plan.workers {
            let shows = shows.clone();
            let clock = move || Instant(shows.load(Ordering::Relaxed));
            node.worker(WorkerId(worker as u16)).read_clock_by(Arc::new(clock));
        }
        let sleeps = vec![None; plan.workers + 1];
        Self { node, front, back, line, clock, sleeps, shows, buffers: pools.free(), pools }
    }

    /// What its clock shows.
    pub fn local(&self, now: Instant) -> Instant {
        at(now, self.clock)
    }

    /// Its management side.
    pub fn manager(&mut self) -> &mut Manager {
        self.node.manager()
    }

    /// A turn of a part: a worker, or behind them the manager. It began at `now`, and ends at `end`.
    pub fn turn(&mut self, part: usize, now: Instant, end: Instant) {
        self.shows.store(end.0, Ordering::Relaxed);
        if part + 1 == self.sleeps.len() {
            self.node.manager().turn(now);
        } else {
            // A worker turns a hundred thousand times a second; in a step it gets done what there is to do.
            let worker = self.node.worker(WorkerId(part as u16));
            (0..TURNS).any(|_| !worker.turn(now));
        }
    }

    /// Buffers that are free, of how many.
    pub fn buffers(&self) -> (usize, usize) {
        (self.pools.free(), self.buffers)
    }

    /// Ends it. Buffers that are free then, of how many.
    pub fn end(self) -> (usize, usize) {
        let Self { node, front, back, pools, buffers, .. } = self;
        drop((node, front, back));
        (pools.free(), buffers)
    }
}

/// What a clock of this speed shows.
fn at(now: Instant, clock: u64) -> Instant {
    Instant(now.0 / 1000 * clock)
}

/// What all nodes' files say but for one, as a cluster begins with it.
pub fn founding(config: &Config, but: Option<&str>) -> Vec<(Key, Object)> {
    let objects = config.log.iter().flat_map(|log| &log.objects);
    fn of(object: &Object) -> Option<&str> {
        match object {
            Object::Snat(spec) => Some(spec.node.as_str()),
            _ => None,
        }
    }
    let others = objects.filter(|(key, object)| {
        but.is_none_or(|but| {
            !matches!(key, Key::Node(name) if name.as_str() == but) && of(object) != Some(but)
        })
    });
    others.cloned().collect()
}
