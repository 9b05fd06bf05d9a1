//! The nodes, the wires and switches between them and the hosts, and one step of virtual time.
//!
//! Every station sends over a wire of its own: nodes in front and on the backplane, the router, the client on the link, the
//! servers. Behind the wires stand two switches, without memory: they know who has which Ethernet address. Clients and
//! servers give a packet for the cluster to any node, as a router with many equal ways does.

use super::cluster::{Appliance, Hashing, Waiting, back_mac, front_mac, node_of};
use super::hop::Hop;
use super::host::{self, Lookup};
use super::leader::Leader;
use super::load::Flow;
use super::oracle::{Arrival, Came, Oracle, Oracles, TTL, Violation, time};
use super::packet::{self, Packet, Words};
use super::plan::{Change, NODES, Place, Plan, SERVERS, Spray, front, server};
use crate::base::hash::mix;
use crate::base::planted::{self, Bug};
use crate::base::rng::Rng;
use crate::base::{Addr, GroupId, Instant, Mac, WorkerId};
use crate::io::fault::{ALL, Rates, Wire};
use crate::io::memory::MemoryLink;
use crate::manage::stats::Stats;
use crate::view::{Ingress, Owned, Owner, snat_bucket};
use crate::wire::eth::{self, Eth};
use crate::wire::protocol;
use std::time::Duration;

/// A host in front: the servers, then the router, then the client on the link.
const HOSTS: usize = SERVERS + 2;
const ROUTER: usize = SERVERS;
const CLIENT: usize = SERVERS + 1;
/// Wires: nodes in front, nodes on the backplane, hosts.
const BACK: usize = NODES;
const HOST: usize = 2 * NODES;
const WIRES: usize = 2 * NODES + HOSTS;
/// Between two changes of the router's mind about all flows.
const EPOCH: Duration = Duration::from_millis(700);

fn host_mac(host: usize) -> Mac {
    Mac([2, 0, 0, 0, 9, host as u8])
}

/// Whether a host has an address.
fn has(host: usize, address: Addr) -> bool {
    let own = |v6| match host {
        ROUTER => front(v6, 254),
        CLIENT => front(v6, 1),
        _ => server(v6, host),
    };
    own(!address.is_v4()) == address
}

/// Everything in virtual time. See the module's text.
pub struct World {
    /// What the seed decided.
    pub plan: Plan,
    /// Virtual time.
    pub now: Instant,
    /// The nodes; none where one is dead.
    pub nodes: Vec<Option<Appliance>>,
    /// What must hold.
    pub oracles: Oracles,
    /// Who talks to whom.
    pub flows: Vec<Flow>,
    /// The faults are over.
    pub last: bool,
    /// Parts lose their core.
    pub stalls: bool,
    /// What happened to nodes.
    pub log: Vec<String>,
    wires: Vec<Wire>,
    rng: Rng,
    /// Where buckets move; and when that began.
    leader: Option<(Leader, Instant)>,
}

impl World {
    /// Nodes that have just started.
    pub fn new(plan: Plan) -> Self {
        let now = Instant::ZERO;
        let nodes: Vec<_> =
            (0..NODES).map(|i| Some(Appliance::start(&plan, i, 1, Change::None, now))).collect();
        let view = nodes.iter().flatten().map(|a: &Appliance| a.view.clone()).next();
        let oracles = view.map(|view| Oracles::new(&plan, &view));
        let oracles = oracles.unwrap_or_else(|| unreachable!("there are {NODES} nodes"));
        Self {
            now,
            nodes,
            oracles,
            flows: Vec::new(),
            last: false,
            stalls: false,
            log: Vec::new(),
            wires: (0..WIRES).map(|i| Wire::new(mix(plan.seed ^ mix(i as u64)))).collect(),
            rng: Rng::new(mix(plan.seed ^ 0x776f_726c_6400)),
            leader: None,
            plan,
        }
    }

    /// From now on buckets move, if they do in this world, and all nodes hear from one place where they are.
    pub fn lead(&mut self, begin: Instant) {
        let view = self.nodes.iter().flatten().map(|a: &Appliance| &a.view).next();
        let Some(view) = view.filter(|_| !self.plan.moves.is_empty()) else { return };
        let leader = Leader::new(&self.plan, view);
        self.nodes
            .iter_mut()
            .flatten()
            .for_each(|a| a.node.manager().place(leader.version, leader.placement()));
        self.leader = Some((leader, begin));
    }

    fn decide(&mut self) {
        let Some((leader, begin)) = &mut self.leader else { return };
        let moved = leader.turn(&mut self.nodes, *begin, self.now);
        self.oracles.doubted = leader.doubted;
        let Some(moved) = moved else { return };
        for (group, bucket) in &moved.buckets {
            self.oracles.moves(*group, *bucket, moved.which.to);
        }
        let (count, from, to) = (moved.buckets.len(), moved.which.from + 1, moved.which.to + 1);
        self.log.push(format!("{} {count} buckets move from n{from} to n{to}", time(self.now)));
    }

    /// Sets what wires do: hosts', nodes' in front, nodes' on the backplane.
    pub fn faults(&mut self, [hosts, front, back]: [Rates; 3]) {
        for (i, wire) in self.wires.iter_mut().enumerate() {
            wire.set(match i {
                ..BACK => front,
                BACK..HOST => back,
                HOST.. => hosts,
            });
        }
    }

    /// Whether nothing is on a wire.
    pub fn wires_are_empty(&self) -> bool {
        self.wires.iter().all(|w| w.under_way() == 0)
    }

    /// What a node tells of itself.
    pub fn stats(&mut self, node: usize) -> Option<Stats> {
        let now = self.now;
        self.nodes[node].as_mut().map(|a| a.node.manager().stats(now))
    }

    /// Ends a node's life, in the middle of whatever it does.
    pub fn kill(&mut self, node: usize) -> Result<(), Violation> {
        self.log.push(format!("{} n{} dies", time(self.now), node + 1));
        self.oracles.died(node);
        self.take_down(node)
    }

    /// Ends all.
    pub fn end(&mut self) -> Result<(), Violation> {
        (0..NODES).try_for_each(|node| self.take_down(node))
    }

    fn take_down(&mut self, node: usize) -> Result<(), Violation> {
        let Some(appliance) = self.nodes[node].take() else { return Ok(()) };
        if let Some((leader, _)) = &mut self.leader {
            leader.forgets(node);
        }
        appliance.end().map_err(|(free, all)| {
            let what = format!("n{} ends, and {free} of its {all} buffers are back", node + 1);
            self.oracles.violation(Oracle::Buffers, None, self.now, what)
        })
    }

    /// Begins a node's next life.
    pub fn restart(&mut self, node: usize, change: Change) {
        let life = self.oracles.life(node);
        let mut appliance = Appliance::start(&self.plan, node, life, change, self.now);
        if let Some((leader, _)) = &mut self.leader {
            leader.forgets(node);
            appliance.view.place(leader.placement());
            appliance.node.manager().place(leader.version, leader.placement());
        }
        self.oracles.started(node, change, &appliance.view, self.now);
        self.nodes[node] = Some(appliance);
        self.nodes.iter_mut().flatten().for_each(|a| a.unsure = true);
        let how = match change {
            Change::None => "",
            Change::Workers => ", with three workers",
            Change::Weights => ", with other weights of the nodes in its file",
            Change::Servers => ", with other weights of the servers in its file",
        };
        self.log.push(format!("{} n{} starts its life {life}{how}", time(self.now), node + 1));
    }

    /// One step of virtual time: what is due arrives, every part has a turn, what it sent goes onto the wires, and clients
    /// look at their clocks.
    pub fn step(&mut self, step: Duration) -> Result<(), Violation> {
        self.now = self.now + step;
        for wire in 0..WIRES {
            while let Some(frame) = self.wires[wire].receive(self.now) {
                self.oracles.delivered(wire, &frame, self.now);
                self.switch(wire, &frame)?;
            }
        }
        self.decide();
        self.turns()?;
        for node in 0..NODES {
            self.collect(node)?;
        }
        self.learn_lives();
        for index in 0..self.flows.len() {
            if let Some(words) = self.flows[index].tick(self.now, self.last) {
                self.send_words(words, true, None);
            }
        }
        Ok(())
    }

    /// Puts a frame on a station's wire.
    fn send(&mut self, wire: usize, frame: Vec<u8>) {
        let fate = self.wires[wire].send(frame.clone(), self.now);
        self.oracles.on_wire(&frame, fate, (BACK..HOST).contains(&wire), self.now);
    }

    /// A client or server says something. `reply`: where a server sends it, and which server that is.
    fn send_words(&mut self, words: Words, to_server: bool, reply: Option<(usize, Packet)>) {
        let words = self.oracles.sends(words, to_server, self.now);
        let flow = &self.flows[words.flow as usize];
        let (place, nat) = (flow.plan.place, flow.plan.method == super::plan::Method::Nat);
        let host = match place {
            Place::Away => ROUTER,
            Place::OnLink => CLIENT,
        };
        let (key, from) = match reply {
            // To whom it was from, whatever that is.
            Some((server, question)) => (question.key.reversed(), server),
            None => (flow.plan.key, host),
        };
        let packet = Packet { key, ttl: TTL, words, filler: flow.plan.filler };
        let to = if reply.is_some() && !nat { host_mac(host) } else { front_mac(self.any_node(words.flow)) };
        let frame = packet.frame(to, host_mac(from));
        let hop = if reply.is_some() { Hop::Server(from as u8) } else { Hop::Client };
        self.oracles.hop(&frame, hop, self.now);
        self.send(HOST + from, frame);
    }

    /// The node that gets a packet for the cluster.
    fn any_node(&mut self, flow: u32) -> usize {
        match self.plan.spray {
            Spray::Packet => self.rng.below(NODES as u64) as usize,
            Spray::Flow => {
                let epoch = self.now.0 / EPOCH.as_nanos() as u64;
                (mix(u64::from(flow) << 32 ^ epoch ^ self.plan.seed) % NODES as u64) as usize
            }
        }
    }

    /// Carries a frame from a wire to whom it is for.
    fn switch(&mut self, wire: usize, frame: &[u8]) -> Result<(), Violation> {
        let Ok(header) = Eth::new(frame) else { return Ok(()) };
        let (dst, back) = (header.dst(), (BACK..HOST).contains(&wire));
        for node in (0..NODES).filter(|n| *n != if back { wire - BACK } else { wire }) {
            let mac = if back { back_mac(node) } else { front_mac(node) };
            if dst.is_multicast() || dst == mac {
                debug_assert!(dst.is_multicast() || node_of(dst) == Some(node));
                self.give_node(node, back, frame)?;
            }
        }
        for host in (0..HOSTS).filter(|h| !back && HOST + h != wire) {
            if dst.is_multicast() || dst == host_mac(host) {
                self.give_host(host, frame, dst.is_multicast())?;
            }
        }
        Ok(())
    }

    fn give_node(&mut self, node: usize, back: bool, frame: &[u8]) -> Result<(), Violation> {
        let spread = self.rng.next_u64() as usize;
        let Some(appliance) = &mut self.nodes[node] else {
            self.oracles.hop(frame, Hop::Dead(node as u8), self.now);
            return Ok(());
        };
        appliance.tally.lookups_in += u64::from(host::lookup(frame).is_some());
        let (queue, hop) = if back {
            appliance.tally.back_in += 1;
            let queue = back_queue(frame, appliance.back.len());
            (queue, Hop::BackIn(node as u8, queue as u8))
        } else {
            appliance.tally.front_in += 1;
            let queue = spread % appliance.front.len();
            Self::expect_hash(appliance, node, queue, frame, &self.oracles);
            (queue, Hop::FrontIn(node as u8, queue as u8))
        };
        self.oracles.hop(frame, hop, self.now);
        let link = if back { &appliance.back[queue] } else { &appliance.front[queue] };
        if link.inject(frame) {
            return Ok(());
        }
        let what = format!("n{} has no buffer for a frame, with {} free", node + 1, appliance.pools.free());
        Err(self.oracles.violation(Oracle::Buffers, packet::number(frame), self.now, what))
    }

    /// Notes a frame of which a worker isn't the owner, by what stands in its node's files.
    fn expect_hash(appliance: &mut Appliance, node: usize, queue: usize, frame: &[u8], oracles: &Oracles) {
        let hashing = &mut appliance.hashing[queue];
        hashing.queued += 1;
        let Some(key) = packet::tuple(&frame[eth::HEADER_LEN..]) else { return };
        let (view, hash) = (&appliance.view, appliance.view.hash_key.flow(&key));
        let (group, bucket) = match (view.virtual_server(&key), view.services.owned.get(&key.dst)) {
            (Some(id), _) => {
                let server = &view.services.virtual_servers[id.index()];
                let member = view.services.groups[server.group.index()].has(view.me);
                if member && server.ingress == Ingress::Local {
                    return;
                }
                (server.group, hash.bucket())
            }
            (None, Some(Owned::Snat { .. })) => (GroupId(0), snat_bucket(key.dst_port)),
            _ => return,
        };
        let Some(Owner { node: owner, worker }) = view.owner(group, bucket) else { return };
        if owner.index() != node || worker.index() != queue {
            hashing.waiting.push_back(Waiting {
                number: hashing.queued,
                hash: hash.0,
                owner: owner.index(),
                flow: oracles.flow_of(frame),
            });
        }
    }

    /// A worker has taken all up to frame `taken` of its front queue: how many of those it had to hash, because it never had
    /// their tuples since it heard of their owner's present life.
    fn had_to_hash(
        appliance: &mut Appliance,
        node: usize,
        worker: usize,
        taken: u64,
        oracles: &Oracles,
    ) -> u64 {
        let Hashing { waiting, seen, .. } = &mut appliance.hashing[worker];
        let mut expected = 0;
        while let Some(&Waiting { hash, owner, flow, .. }) = waiting.front().filter(|w| w.number <= taken) {
            waiting.pop_front();
            let life = oracles.life(owner);
            let known = if owner == node { life } else { appliance.known[owner] };
            let new = seen.insert((hash, known));
            // Where it isn't sure what the worker knows or what the packet is, nothing is expected, now or later.
            if appliance.unsure || flow.is_none_or(|f| oracles.disputed(f) || oracles.moved(f)) {
                seen.extend((0..=life).map(|life| (hash, life)));
            } else if new && known != 0 {
                expected += 1;
            }
        }
        expected
    }

    /// Takes note of which lives the nodes have heard of.
    fn learn_lives(&mut self) {
        let alive: Vec<bool> = self.nodes.iter().map(Option::is_some).collect();
        for (node, appliance) in self.nodes.iter_mut().enumerate() {
            let Some(appliance) = appliance.as_mut().filter(|a| a.unsure) else { continue };
            let stats = appliance.node.manager().stats(self.now);
            if stats.view != stats.view_adopted {
                continue;
            }
            let others = (0..NODES).filter(|n| *n != node);
            for (other, peer) in others.zip(&stats.peers) {
                appliance.known[other] = peer.incarnation;
            }
            let lives = |n: usize| appliance.known[n] == self.oracles.life(n);
            appliance.unsure = !(0..NODES).all(|n| n == node || !alive[n] || lives(n));
        }
    }

    /// A turn of every part that has its core, in any order.
    fn turns(&mut self) -> Result<(), Violation> {
        let mut parts: Vec<(usize, usize)> = Vec::with_capacity(NODES * 4);
        for (node, appliance) in self.nodes.iter().enumerate() {
            parts.extend((0..appliance.as_ref().map_or(0, |a| a.workers + 1)).map(|part| (node, part)));
        }
        for i in (1..parts.len()).rev() {
            parts.swap(i, self.rng.below(i as u64 + 1) as usize);
        }
        for (node, part) in parts {
            let falls_asleep = self.stalls && self.rng.below(ALL) < self.plan.stalls;
            let stall = self.plan.stall.as_nanos() as u64;
            let wakes = self.now + Duration::from_nanos(if falls_asleep { self.rng.below(stall) } else { 0 });
            let Some(appliance) = &mut self.nodes[node] else { continue };
            let clock = match appliance.sleeps[part] {
                Some((_, until)) if self.now < until => continue,
                // It goes on with the time that it read before.
                Some((clock, _)) => clock,
                None => self.now,
            };
            appliance.sleeps[part] = None;
            if falls_asleep {
                appliance.sleeps[part] = Some((clock, wakes));
                continue;
            }
            if part == appliance.workers {
                appliance.node.manager().turn(clock);
                continue;
            }
            let worker = appliance.node.worker(WorkerId(part as u16));
            let hashed = worker.counters().hashed.get();
            worker.turn(clock);
            let counters = worker.counters();
            assert!(
                !planted::is(Bug::WorkerPanics) || counters.rx.get() < 100,
                "a panic planted in worker {part}"
            );
            let (taken, hashed) = (counters.rx.get(), counters.hashed.get() - hashed);
            let expected = Self::had_to_hash(appliance, node, part, taken, &self.oracles);
            if hashed < expected {
                let what = format!(
                    "worker {part} of n{} has hashed {hashed} packets of a turn in which {expected} belong to nodes about \
                     whose present lives it can't have decided before",
                    node + 1
                );
                return Err(self.oracles.violation(Oracle::Steering, None, self.now, what));
            }
        }
        Ok(())
    }

    /// Takes what a node has sent.
    fn collect(&mut self, node: usize) -> Result<(), Violation> {
        let Some(appliance) = &mut self.nodes[node] else { return Ok(()) };
        let all = |links: &[MemoryLink]| -> Vec<Vec<u8>> {
            links.iter().flat_map(|link| std::iter::from_fn(|| link.collect())).collect()
        };
        let (front, back) = (all(&appliance.front), all(&appliance.back));
        appliance.tally.front_out += front.len() as u64;
        appliance.tally.back_out += back.len() as u64;
        for frame in front.iter().chain(&back) {
            match host::lookup(frame) {
                Some(Lookup::Answer(_)) => appliance.tally.answers_out += 1,
                Some(Lookup::Question(..) | Lookup::Claim(_)) => appliance.tally.asked_out += 1,
                None => {}
            }
        }
        for frame in back {
            self.oracles.crosses(node, &frame, self.now)?;
            self.send(BACK + node, frame);
        }
        for frame in front {
            self.oracles.hop(&frame, Hop::FrontOut(node as u8), self.now);
            if planted::is(Bug::SentTwice) {
                self.send(node, frame.clone());
            }
            self.send(node, frame);
        }
        Ok(())
    }

    fn give_host(&mut self, host: usize, frame: &[u8], group: bool) -> Result<(), Violation> {
        match host::lookup(frame) {
            Some(Lookup::Question(target, asker, mac)) if has(host, target) => {
                self.send(HOST + host, host::answer(host_mac(host), target, asker, mac));
                return Ok(());
            }
            Some(_) => return Ok(()),
            None if group => return Ok(()),
            None => {}
        }
        let read = if host < SERVERS {
            host::unwrap(|address| has(host, address), &frame[eth::HEADER_LEN..])
        } else {
            Packet::read(&frame[eth::HEADER_LEN..]).map(|packet| (Arrival::Plain, packet))
        };
        let (arrival, packet) = match read {
            Ok(read) => read,
            Err(bad) => return self.oracles.refuses(frame, bad, self.now),
        };
        let Some(flow) = self.flows.get_mut(packet.words.flow as usize) else {
            let number = Some(packet.words.number);
            return Err(self.oracles.violation(Oracle::Misdelivered, number, self.now, "of no flow"));
        };
        if host >= SERVERS {
            self.oracles.hop(frame, Hop::AtClient, self.now);
            self.oracles.at_client(&packet, flow, self.now)?;
            let place = if host == ROUTER { Place::Away } else { Place::OnLink };
            if flow.plan.place != place {
                let number = Some(packet.words.number);
                let what = format!("for {:?} and at another host", packet.key.dst);
                return Err(self.oracles.violation(Oracle::Misdelivered, number, self.now, what));
            }
            let answer = flow.at_client(&packet.words, self.now, self.last);
            if let Some(words) = answer {
                self.send_words(words, true, None);
            }
            return Ok(());
        }
        self.oracles.hop(frame, Hop::AtServer(host as u8), self.now);
        let from = Eth::new(frame).ok().and_then(|header| node_of(header.src()));
        let came = Came { from, server: host, arrival };
        self.oracles.at_server(came, &packet, flow, self.now)?;
        let answer = flow.at_server(&packet.words);
        if let Some(words) = answer {
            self.send_words(words, false, Some((host, packet)));
        }
        Ok(())
    }
}

/// The backplane queue of a frame, by its outer destination port, as a card with a flow rule for each data port chooses it.
pub fn back_queue(frame: &[u8], queues: usize) -> usize {
    let data = packet::tuple(&frame[eth::HEADER_LEN..]).filter(|key| key.protocol == protocol::UDP);
    let queue = data.and_then(|key| usize::from(key.dst_port).checked_sub(6600));
    queue.filter(|q| *q < queues).unwrap_or(0)
}
