//! What goes wrong in a living cluster, and what people do to it.

use super::oracle::Violation;
use super::plan::{Plan, SERVERS, groups, name};
use super::world::World;
use crate::base::hash::mix;
use crate::base::rng::Rng;
use crate::base::{Instant, NodeId};
use crate::cluster::fleet::Phase;
use crate::cluster::log::ReplicaId;
use crate::cluster::namespace::{By, Change, Key, Name, Object, RequestId, VirtualServerSpec, Write};
use crate::cluster::state::Entry;
use crate::view::Ingress;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// See the module's text.
pub struct Faults {
    rng: Rng,
    pace: Duration,
    due: Instant,
    /// When the router deals anew, if that follows from something.
    deals: Option<Instant>,
    /// The node that joins, until it was started.
    joiner: Option<usize>,
}

impl Faults {
    /// From `begin` on.
    pub fn new(plan: &Plan, begin: Instant) -> Self {
        let rng = Rng::new(mix(plan.seed ^ 0x6661_756c_7473));
        let joiner = plan.joins.then_some(plan.nodes - 1);
        Self { rng, pace: plan.pace, due: begin + plan.pace, deals: None, joiner }
    }

    /// What is due now.
    pub fn turn(&mut self, world: &mut World) -> Result<(), Violation> {
        if self.deals.is_some_and(|due| world.now >= due) {
            self.deals = None;
            world.deal_anew();
        }
        if world.now < self.due {
            return Ok(());
        }
        let pace = self.pace.as_millis() as u64;
        self.due = world.now + Duration::from_millis(self.rng.below(2 * pace));
        let nodes = world.plan.founders();
        let node = self.rng.below(nodes as u64) as usize;
        match self.rng.below(18) {
            0..3 => self.kill_or_start(world, node)?,
            3 => self.part(world),
            4 => {
                world.tell(format!("n{} is cut off", node + 1));
                self.isolate(world, node, [true, true]);
            }
            5 => {
                world.tell(format!("n{} has no backplane", node + 1));
                self.isolate(world, node, [true, false]);
            }
            6 => {
                world.tell(format!("n{} has no management network", node + 1));
                self.isolate(world, node, [false, true]);
            }
            7 | 8 => heal_networks(world),
            9 => {
                let long = Duration::from_millis(self.rng.below(1200));
                world.tell(format!("n{} stands still for {long:?}", node + 1));
                let until = world.now + long;
                if let Some(member) = &mut world.members[node] {
                    member.sleeps.iter_mut().for_each(|sleep| *sleep = Some((until, None)));
                }
                world.model().lag(ReplicaId(node as u16), until);
            }
            10 => {
                let until = world.now + Duration::from_millis(self.rng.below(900));
                world.model().lag(ReplicaId(node as u16), until);
            }
            11 | 12 => {
                let server = self.rng.below(SERVERS as u64) as usize;
                // At most one is dead at a time.
                let dead = (0..SERVERS).find(|s| !world.living[*s].load(Ordering::Relaxed));
                set_server(world, dead.unwrap_or(server), dead.is_some());
            }
            13 => world.deal_anew(),
            14 => {
                let (target, drain) = (self.rng.below(nodes as u64) as usize, self.rng.below(2) == 0);
                world.tell(format!("n{} is told that n{} drains: {drain}", node + 1, target + 1));
                let by = self.by();
                world.ask(node, Entry::Drain(NodeId(target as u16), drain, by));
            }
            15 | 16 => {
                let (what, write) = self.migration(world);
                world.tell(format!("n{} is told that {what}", node + 1));
                world.ask(node, Entry::Write(write));
                // Once that is in force, so that packets come to nodes that have no steering session of then.
                self.deals = Some(world.now + Duration::from_millis(200 + self.rng.below(600)));
            }
            _ => match self.joiner.take() {
                Some(joiner) => self.join(world, node, joiner),
                None => {
                    let target = self.rng.below(nodes as u64) as usize;
                    let write = self.node_of_weight(world, target);
                    world.tell(format!("n{} is told another weight of n{}", node + 1, target + 1));
                    world.ask(node, Entry::Write(write));
                }
            },
        }
        Ok(())
    }

    fn kill_or_start(&mut self, world: &mut World, node: usize) -> Result<(), Violation> {
        match world.members[node] {
            Some(_) => world.kill(node),
            None => {
                world.start(node);
                Ok(())
            }
        }
    }

    /// Two sides that don't hear each other on one of the networks or both, or hear some.
    fn part(&mut self, world: &mut World) {
        let nodes = world.plan.nodes;
        let side: Vec<bool> = (0..nodes).map(|_| self.rng.below(2) == 0).collect();
        let (whole, networks) = (self.rng.below(3) > 0, self.rng.below(3));
        world.tell(format!("networks part, {}", if whole { "whole" } else { "here and there" }));
        for (network, cut) in world.cut.iter_mut().enumerate() {
            if networks != 2 && network as u64 != networks {
                continue;
            }
            for a in 0..nodes {
                for b in (0..nodes).filter(|b| side[a] != side[*b]) {
                    if whole || self.rng.below(2) == 0 {
                        cut.insert((a, b));
                    }
                }
            }
        }
        world.cut_log();
    }

    fn isolate(&mut self, world: &mut World, node: usize, networks: [bool; 2]) {
        for (cut, _) in world.cut.iter_mut().zip(networks).filter(|(_, cut)| *cut) {
            for other in (0..world.plan.nodes).filter(|other| *other != node) {
                cut.extend([(node, other), (other, node)]);
            }
        }
        world.cut_log();
    }

    /// Somebody adds the node that joins, and starts it.
    fn join(&mut self, world: &mut World, by: usize, joiner: usize) {
        world.tell(format!("n{} is told of n{}", by + 1, joiner + 1));
        let write = self.joining(world, joiner);
        world.ask(by, Entry::Write(write));
        world.start(joiner);
    }

    fn joining(&mut self, world: &World, joiner: usize) -> Write {
        let config = world.plan.config(joiner);
        let objects = config.log.iter().flat_map(|log| log.objects.clone());
        let of_it = |(key, object): &(Key, Object)| match object {
            Object::Node(_) => matches!(key, Key::Node(known) if known.as_str() == name(joiner)),
            Object::Snat(spec) => spec.node.as_str() == name(joiner),
            _ => false,
        };
        let changes =
            objects.filter(of_it).map(|(key, object)| Change { key, expected: Some(0), value: Some(object) });
        self.write(changes.collect())
    }

    fn node_of_weight(&mut self, world: &World, node: usize) -> Write {
        let config = world.plan.config(node);
        let mut objects = config.log.iter().flat_map(|log| &log.objects);
        let spec = objects.find_map(|(key, object)| match (key, object) {
            (Key::Node(known), Object::Node(spec)) if known.as_str() == name(node) => Some(spec.clone()),
            _ => None,
        });
        let weight = 1 + self.rng.below(3) as u32;
        let change = spec.zip(Name::new(&name(node)).ok()).map(|(mut spec, name)| {
            spec.weight = weight;
            Change { key: Key::Node(name), expected: None, value: Some(Object::Node(spec)) }
        });
        self.write(change.into_iter().collect())
    }

    /// Some of the virtual servers that keep sessions move to one group. What still has sessions in a third one would keep the
    /// others, so mostly it stays.
    fn migration(&mut self, world: &World) -> (String, Write) {
        let space = world.oracles.judged.state.namespace();
        let Ok(group) = Name::new(groups()[self.rng.below(3) as usize]) else {
            return ("nothing".into(), self.write(Vec::new()));
        };
        let (target, daring) = (space.group_id(&group), self.rng.below(8) == 0);
        let mut changes = Vec::new();
        for (id, name, spec) in space.virtual_servers().filter(|(.., spec)| spec.ingress == Ingress::Steered)
        {
            let former = space.formers().get(id).map(|former| former.group);
            if (daring || former.is_none_or(|former| Some(former) == target)) && self.rng.below(2) == 0 {
                let spec = VirtualServerSpec { group: group.clone(), ..spec.clone() };
                let value = Some(Object::VirtualServer(Box::new(spec)));
                changes.push(Change { key: Key::VirtualServer(name.clone()), expected: None, value });
            }
        }
        (format!("{} virtual servers are group {:?}'s", changes.len(), group.as_str()), self.write(changes))
    }

    fn by(&mut self) -> By {
        By { request: RequestId(u128::from(self.rng.next_u64())), who: "somebody".into(), at: 0 }
    }

    fn write(&mut self, changes: Vec<Change>) -> Write {
        let By { request, who, at } = self.by();
        Write { request, who, at, changes }
    }

    /// All is well again, and who is dead is started.
    pub fn heal(&mut self, world: &mut World) {
        world.tell("the faults are over");
        world.faults(Default::default());
        world.stalls = false;
        heal_networks(world);
        for server in 0..SERVERS {
            if !world.living[server].load(Ordering::Relaxed) {
                set_server(world, server, true);
            }
        }
        self.joiner = None;
        for node in 0..world.plan.nodes {
            if world.members[node].is_none() {
                world.start(node);
            }
        }
    }

    /// Somebody sees to it that the cluster is as it should be in the end; to be called now and then.
    pub fn insist(&mut self, world: &mut World) {
        let state = &world.oracles.judged.state;
        let draining =
            |node: &NodeId| state.fleet().member(*node).is_some_and(|m| m.phase == Phase::Draining);
        let drained: Vec<_> = (0..world.plan.nodes as u16).map(NodeId).filter(draining).collect();
        let joiner = world.plan.joins.then_some(world.plan.nodes - 1);
        let known = state.namespace().nodes().count();
        for node in drained {
            let by = self.by();
            world.ask(0, Entry::Drain(node, false, by));
        }
        if let Some(joiner) = joiner.filter(|_| known < world.plan.nodes) {
            let write = self.joining(world, joiner);
            world.ask(0, Entry::Write(write));
        }
    }
}

fn heal_networks(world: &mut World) {
    if world.cut.iter().any(|cut| !cut.is_empty()) {
        world.tell("the networks are whole");
    }
    world.cut = Default::default();
    world.cut_log();
}

fn set_server(world: &mut World, server: usize, lives: bool) {
    world.tell(format!("server {server} {}", if lives { "is back" } else { "dies" }));
    world.living[server].store(lives, Ordering::Relaxed);
    if !lives {
        world.oracles.server_dies(server);
    }
}
