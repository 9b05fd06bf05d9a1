//! The nodes, the three networks between them and their hosts, and one step of virtual time.
//!
//! In front stands a switch with the nodes, a router behind which all clients are, and the real servers. The router deals flows
//! to the nodes that it takes for alive by a hash, and anew when those change or it is told to. The backplane and the management
//! network have a switch each; any one of their links may be cut, for both ways or one.

use super::hosts::host_mac;
use super::member::{Living, Member, founding};
use super::oracle::{Oracle, Oracles, Violation};
use super::plan::{Plan, SERVERS, name, vips};
use crate::base::hash::mix;
use crate::base::planted::{self, Bug};
use crate::base::rng::Rng;
use crate::base::{Incarnation, Instant};
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::log::ReplicaId;
use crate::cluster::namespace::Outcome;
use crate::cluster::state::Entry;
use crate::io::fault::{Rates, Wire};
use crate::io::memory::MemoryLink;
use crate::sim::cluster::{back_mac, front_mac};
use crate::sim::host::{self, Lookup};
use crate::sim::load::Flow;
use crate::sim::log::Model;
use crate::sim::world::back_queue;
use crate::wire::eth::Eth;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A step of virtual time.
pub const STEP: Duration = Duration::from_millis(5);
/// The first replicas vote.
const VOTERS: usize = 5;
/// Steps between two questions for a VIP's Ethernet address.
pub(super) const ASKED: u64 = 4;
/// Steps between two looks at what the nodes have decided.
const JUDGED: u64 = 4;

/// Everything in virtual time. See the module's text.
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// Virtual time.
    pub now: Instant,
    /// The nodes; none where one is dead.
    pub members: Vec<Option<Member>>,
    /// Whether each real server lives.
    pub living: Living,
    /// What must hold.
    pub oracles: Oracles,
    /// Who talks to whom.
    pub flows: Vec<Flow>,
    /// What happened.
    pub log: Vec<String>,
    /// Links of the backplane and of the management network that carry nothing, each from one node to another.
    pub cut: [BTreeSet<(usize, usize)>; 2],
    /// Parts lose their core.
    pub stalls: bool,
    /// For faults.
    pub rng: Rng,
    /// Steps so far.
    pub(super) steps: u64,
    model: Arc<Mutex<Model>>,
    /// In front: nodes, then hosts.
    front: Vec<Wire>,
    back: Vec<Wire>,
    management: Vec<Wire>,
    /// The nodes that the router deals to, and what it deals by.
    pub(super) dealt: Vec<usize>,
    pub(super) salt: u64,
    pub(super) died: Vec<Instant>,
    asked: BTreeMap<(usize, Ask), Entry>,
}

impl World {
    /// Nodes that have just started, to begin a cluster.
    pub fn new(plan: Plan) -> Self {
        let wires = |n: usize, salt: u64| {
            (0..n).map(|i| Wire::new(mix(plan.seed ^ mix(salt << 32 | i as u64)))).collect::<Vec<_>>()
        };
        let replicas = (0..plan.nodes as u16).map(ReplicaId);
        let mut world = Self {
            now: Instant::ZERO,
            members: (0..plan.nodes).map(|_| None).collect(),
            living: Arc::new([(); SERVERS].map(|()| true.into())),
            oracles: Oracles::new(&plan),
            flows: Vec::new(),
            log: Vec::new(),
            cut: Default::default(),
            stalls: false,
            rng: Rng::new(mix(plan.seed ^ 0x776f_726c_6401)),
            steps: 0,
            model: Arc::new(Mutex::new(Model::new(plan.seed, replicas, VOTERS.min(plan.founders())))),
            front: wires(plan.nodes + SERVERS + 1, 1),
            back: wires(plan.nodes, 2),
            management: wires(plan.nodes, 3),
            dealt: Vec::new(),
            salt: 0,
            died: vec![Instant::ZERO; plan.nodes],
            asked: BTreeMap::new(),
            plan,
        };
        (0..world.plan.founders()).for_each(|node| world.start(node));
        world
    }

    /// The log.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of what happened.
    pub fn tell(&mut self, what: impl std::fmt::Display) {
        self.log.push(format!("{} {what}", crate::sim::oracle::time(self.now)));
    }

    /// Starts a node that isn't running.
    pub fn start(&mut self, node: usize) {
        let first = self.steps == 0;
        let life = Incarnation(self.oracles.life(node).0 + 1);
        self.oracles.leads(node, life, true, self.now);
        let joiner = self.plan.joins.then(|| name(self.plan.nodes - 1));
        let objects = first.then(|| founding(&self.plan.config(node), joiner.as_deref()));
        let clock = (985 + self.rng.below(31), self.now);
        let (plan, model) = (&self.plan, &self.model);
        let member = Member::start((plan, node), life, model, &self.living, objects.as_deref(), clock);
        self.members[node] = Some(member);
        self.tell(format!("n{} starts", node + 1));
    }

    /// Ends a node's process, in the middle of whatever it does.
    pub fn kill(&mut self, node: usize) -> Result<(), Violation> {
        let Some(mut member) = self.members[node].take() else { return Ok(()) };
        self.oracles.leads(node, member.manager().incarnation(), true, self.now);
        self.oracles.died(node);
        self.died[node] = self.now;
        self.model().kill(ReplicaId(node as u16));
        self.asked.retain(|(of, _), _| *of != node);
        self.tell(format!("n{} dies", node + 1));
        match member.end() {
            (free, all) if free == all => Ok(()),
            (free, all) => {
                let what = format!("n{} ends, and {free} of its {all} buffers are back", node + 1);
                Err(self.oracles.violation(Oracle::Buffers, self.now, what))
            }
        }
    }

    /// Sets what wires do: in front, on the backplane, on the management network.
    pub fn faults(&mut self, [front, back, management]: [Rates; 3]) {
        self.front.iter_mut().for_each(|wire| wire.set(front));
        self.back.iter_mut().for_each(|wire| wire.set(back));
        self.management.iter_mut().for_each(|wire| wire.set(management));
    }

    /// Tells the log which links of the management network are cut now.
    pub fn cut_log(&mut self) {
        let id = |node: usize| ReplicaId(node as u16);
        let cut = self.cut[1].iter().map(|(a, b)| (id(*a), id(*b))).collect();
        self.model().cut(cut);
    }

    /// Asks a node to have something decided.
    pub fn ask(&mut self, node: usize, entry: Entry) {
        let Some(member) = &mut self.members[node] else { return };
        let now = member.local(self.now);
        if let Some(ask) = member.manager().ask(entry.clone(), now) {
            self.asked.insert((node, ask), entry);
        }
    }

    /// One step of virtual time: what is due arrives, every part has a turn, what it sent goes onto the wires, and clients look
    /// at their clocks. `last`: the faults are over.
    pub fn step(&mut self, last: bool) -> Result<(), Violation> {
        (self.now, self.steps) = (self.now + STEP, self.steps + 1);
        self.model().turn(self.now);
        if !self.cut[0].is_empty() {
            self.oracles.judged.apart = Some(self.now);
        }
        self.carry(last)?;
        if self.steps.is_multiple_of(ASKED) {
            self.ask_for_vip();
        }
        self.turns();
        let mut answered = Vec::new();
        for node in 0..self.members.len() {
            self.collect(node, &mut answered)?;
        }
        self.oracles.one_answers(&answered, self.now)?;
        self.hear_answers();
        self.look_around();
        for index in 0..self.flows.len() {
            if let Some(words) = self.flows[index].tick(self.now, last) {
                self.send_words(words, None);
            }
        }
        if self.steps.is_multiple_of(JUDGED) || self.oracles.behind(&mut self.members) {
            self.oracles.judge(&mut self.members, self.now)?;
            for news in std::mem::take(&mut self.oracles.judged.news) {
                self.tell(news);
            }
        }
        Ok(())
    }

    /// Delivers all that is due.
    fn carry(&mut self, last: bool) -> Result<(), Violation> {
        for wire in 0..self.front.len() {
            while let Some(frame) = self.front[wire].receive(self.now) {
                self.oracles.delivered(wire, &frame, self.now);
                self.switch(wire, &frame, last)?;
            }
        }
        for from in 0..self.back.len() {
            while let Some(frame) = self.back[from].receive(self.now) {
                self.oracles.delivered(wire_of(1, from), &frame, self.now);
                let Ok(header) = Eth::new(&frame[..]) else { continue };
                let dst = header.dst();
                for to in (0..self.members.len()).filter(|to| *to != from) {
                    let for_it = dst.is_multicast() || dst == back_mac(to);
                    if !for_it || self.cut[0].contains(&(from, to)) {
                        continue;
                    }
                    if let Some(member) = &self.members[to] {
                        member.back[back_queue(&frame, member.back.len())].inject(&frame);
                    }
                }
            }
        }
        for from in 0..self.management.len() {
            while let Some(message) = self.management[from].receive(self.now) {
                self.oracles.delivered(wire_of(2, from), &message, self.now);
                let Some((to, message)) = message.split_first() else { continue };
                let to = usize::from(*to);
                let member = self.members[to].as_ref().filter(|_| !self.cut[1].contains(&(from, to)));
                if let Some(member) = member {
                    member.line.deliver(message);
                }
            }
        }
        Ok(())
    }

    /// Carries a frame in front to whom it is for.
    fn switch(&mut self, wire: usize, frame: &[u8], last: bool) -> Result<(), Violation> {
        let Ok(header) = Eth::new(frame) else { return Ok(()) };
        let (dst, nodes) = (header.dst(), self.members.len());
        for node in (0..nodes).filter(|n| *n != wire) {
            if (dst.is_multicast() || dst == front_mac(node))
                && let Some(member) = &self.members[node]
            {
                // By receive side scaling, as far as that knows tuples.
                let queue = self.rng.below(member.front.len() as u64) as usize;
                member.front[queue].inject(frame);
            }
        }
        for host in (0..=SERVERS).filter(|host| nodes + host != wire) {
            if dst.is_multicast() || dst == host_mac(host) {
                self.give_host(host, frame, dst.is_multicast(), last)?;
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, wire: usize, frame: Vec<u8>) {
        let fate = self.front[wire].send(frame.clone(), self.now);
        self.oracles.on_wire(&frame, fate.copies);
    }

    /// A turn of every part that has its core, in any order.
    fn turns(&mut self) {
        let parts = self.plan.workers + 1;
        let mut order: Vec<(usize, usize)> =
            (0..self.members.len()).flat_map(|node| (0..parts).map(move |part| (node, part))).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        for (node, part) in order {
            // One in about two seconds of a part's life.
            let nods = self.stalls && self.rng.below(400) == 0;
            let Some(member) = &mut self.members[node] else { continue };
            let local = member.local(self.now);
            let read = match member.sleeps[part] {
                Some((until, _)) if self.now < until => continue,
                Some((_, read)) => read,
                None => None,
            };
            member.sleeps[part] = None;
            if nods {
                let long = if self.rng.below(8) == 0 { 1500 } else { 60 };
                let until = self.now + Duration::from_millis(self.rng.below(long));
                // It goes on with the time that it read before, or it had not come to that yet.
                let read = (self.rng.below(2) == 0).then_some(local);
                member.sleeps[part] = Some((until, read));
                continue;
            }
            member.turn(part, read.unwrap_or(local), local);
        }
    }

    /// Takes what a node has sent; `answered`: who has said that a VIP is its.
    fn collect(
        &mut self,
        node: usize,
        answered: &mut Vec<(crate::base::Addr, usize)>,
    ) -> Result<(), Violation> {
        let Some(member) = &mut self.members[node] else { return Ok(()) };
        let all =
            |links: &[MemoryLink]| -> Vec<_> { links.iter().flat_map(MemoryLink::collect_all).collect() };
        let (front, back) = (all(&member.front), all(&member.back));
        let sent = member.line.collect();
        for frame in back {
            self.oracles.crosses(node, &frame, self.now)?;
            let fate = self.back[node].send(frame.clone(), self.now);
            self.oracles.on_wire(&frame, fate.copies);
        }
        for (to, message) in sent {
            let mut frame = vec![to as u8];
            frame.extend(message);
            self.management[node].send(frame, self.now);
        }
        for frame in front {
            if let Some(Lookup::Answer(address) | Lookup::Claim(address)) = host::lookup(&frame)
                && vips().contains(&address)
            {
                answered.push((address, node));
            }
            if planted::is(Bug::SentTwice) {
                self.send(node, frame.clone());
            }
            self.send(node, frame);
        }
        Ok(())
    }

    /// What became of what was asked for.
    fn hear_answers(&mut self) {
        let Self { members, asked, oracles, .. } = self;
        asked.retain(|(node, ask), entry| {
            let Some(member) = &mut members[*node] else { return false };
            let Some(answer) = member.manager().answer(*ask) else { return true };
            if let Answer::Decided(index) | Answer::Written(Outcome::Applied { index }) = answer {
                oracles.acknowledged(index, *node, entry.clone());
            }
            false
        });
    }
}

/// Tells the wires of all networks apart.
fn wire_of(network: usize, wire: usize) -> usize {
    network << 8 | wire
}
