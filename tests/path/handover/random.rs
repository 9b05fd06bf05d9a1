//! Any sequence of moves, which each node learns of in its own time: a flow keeps server and SNAT port while the node that has it
//! lives.
//!
//! The test is the cluster's leader. It keeps to two rules: a bucket that still has a previous owner moves nowhere but back to
//! that one, and none moves, or loses its previous owner, before all nodes know where it is and that one has counted nothing.

use super::flows::{Fate, Flow, exchange, node, opening};
use crate::packets::{FIN, RST};
use crate::world::{Spec, World};
use proptest::prelude::*;
use steerage::base::{Bucket, GroupId, NodeId};
use steerage::table::placement::{Home, Placement};
use steerage::view::Buckets;

/// Buckets move in classes of those with the same low bits.
const CLASSES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Open {
        kind: u8,
        v6: bool,
        is_tcp: bool,
        receiver: usize,
    },
    Move {
        class: usize,
        to: usize,
    },
    /// A node learns of the next placement.
    Adopt {
        number: usize,
    },
    /// The flows of a class end, and with them its handover.
    Retire {
        class: usize,
    },
    Restart {
        number: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let number = 1..=3usize;
    prop_oneof![
        4 => (1..=4u8, any::<bool>(), any::<bool>(), number.clone())
            .prop_map(|(kind, v6, is_tcp, receiver)| Op::Open { kind, v6, is_tcp, receiver }),
        4 => (0..CLASSES, number.clone()).prop_map(|(class, to)| Op::Move { class, to }),
        8 => number.clone().prop_map(|number| Op::Adopt { number }),
        1 => (0..CLASSES).prop_map(|class| Op::Retire { class }),
        1 => number.prop_map(|number| Op::Restart { number }),
    ]
}

struct Leader {
    world: World,
    /// All placements so far, by class.
    placements: Vec<[Home; CLASSES]>,
    /// How many of those each node knows.
    known: [usize; 3],
    /// The placement in which a class last changed.
    changed: [usize; CLASSES],
    lives: [u32; 3],
    /// With the node that has it.
    flows: Vec<(Flow, usize)>,
    ports: u16,
    turn: usize,
}

fn class(flow: &Flow) -> usize {
    usize::from(super::bucket(&flow.packet).0) % CLASSES
}

impl Leader {
    fn new() -> Self {
        let tables = "[timeouts]\nudp = \"3s\"\nclosed = \"1s\"";
        let mut world = World::new(Spec { tables, workers: 2, ..Spec::default() });
        let homes: [Home; CLASSES] =
            std::array::from_fn(|class| Home { owner: Some(node(1 + class % 3)), previous: None });
        (1..=3).for_each(|n| world.place_as(n, 1, &Self::buckets(&homes)));
        world.run(2);
        Self {
            world,
            placements: vec![homes],
            known: [1; 3],
            changed: [1; CLASSES],
            lives: [1; 3],
            flows: Vec::new(),
            ports: 3000,
            turn: 0,
        }
    }

    fn buckets(homes: &[Home; CLASSES]) -> Vec<Buckets> {
        vec![Placement::of(|Bucket(b)| homes[usize::from(b) % CLASSES]).into()]
    }

    fn latest(&self) -> [Home; CLASSES] {
        *self.placements.last().unwrap()
    }

    fn commit(&mut self, class: usize, home: Home) {
        let mut homes = self.latest();
        homes[class] = home;
        self.placements.push(homes);
        self.world.decide(self.placements.len() as u32);
        self.world.run(1);
        self.changed[class] = self.placements.len();
    }

    fn adopt(&mut self, number: usize) {
        if let Some(homes) = self.placements.get(self.known[number - 1]) {
            self.known[number - 1] += 1;
            self.world.place_as(number, self.known[number - 1] as u32, &Self::buckets(homes));
            self.world.run(2);
        }
    }

    fn all_know(&self, class: usize) -> bool {
        self.known.iter().all(|known| *known >= self.changed[class])
    }

    /// Nothing may be under way to a node that has been told of nothing.
    fn adopt_all(&mut self) {
        for number in 1..=3 {
            while self.known[number - 1] < self.placements.len() {
                self.adopt(number);
            }
        }
        self.world.run(4);
    }

    /// A packet of each flow in each direction, through any node.
    fn talk(&mut self) {
        for (flow, holder) in &self.flows {
            self.turn += 1;
            let (there, back) = (1 + self.turn % 3, 1 + self.turn / 3 % 3);
            assert_eq!(
                flow.forward(&mut self.world, there),
                Fate::Right,
                "{flow:?} of n{holder} through n{there}"
            );
            assert_eq!(
                flow.backward(&mut self.world, back),
                Fate::Right,
                "{flow:?} of n{holder} through n{back}"
            );
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Open { kind, v6, is_tcp, receiver } => {
                self.ports += 1;
                let first = opening(kind, v6, is_tcp, self.ports);
                // Who has given a bucket away takes none of its flows, and who is to have it may not know that yet: it is sent again.
                if self.known.iter().any(|known| *known < self.placements.len())
                    && exchange(&mut self.world, receiver, &first.frame_to(receiver)).is_empty()
                {
                    self.adopt_all();
                }
                let flow = Flow::open(&mut self.world, receiver, &first);
                let out = exchange(&mut self.world, receiver, &flow.packet.frame_to(receiver));
                self.flows.push((flow, out[0].0));
            }
            Op::Move { class, to } => {
                let Home { owner, previous } = self.latest()[class];
                let allowed = previous.is_none_or(|previous| previous == node(to)) && self.all_know(class);
                if allowed && owner != Some(node(to)) {
                    self.commit(class, Home { owner: Some(node(to)), previous: owner });
                }
            }
            Op::Adopt { number } => self.adopt(number),
            Op::Retire { class } => self.retire(class),
            Op::Restart { number } => {
                self.lives[number - 1] += 1;
                self.world.restart(number, self.lives[number - 1]);
                self.known[number - 1] = self.placements.len();
                let homes = self.latest();
                self.world.place_as(number, self.placements.len() as u32, &Self::buckets(&homes));
                self.world.run(400);
                self.world.take();
                self.flows.retain(|(_, holder)| *holder != number);
            }
        }
    }

    fn retire(&mut self, of: usize) {
        let (ending, staying): (Vec<_>, Vec<_>) =
            self.flows.drain(..).partition(|(flow, _)| class(flow) == of);
        self.flows = staying;
        for (flow, _) in ending.iter().filter(|(flow, _)| flow.packet.flags.is_some()) {
            let last = flow.packet.with_flags(if flow.reply.is_some() { RST } else { FIN });
            self.world.exchange(1, &last.frame_to(1));
        }
        self.adopt_all();
        for _ in 0..6 {
            self.world.run(1000);
            self.talk();
        }
        let Home { owner, previous } = self.latest()[of];
        let Some(NodeId(previous)) = previous else { return };
        let manager = self.world.nodes[usize::from(previous)].node.manager();
        let holding = manager.census().holding(GroupId(0)).expect("all its workers have counted");
        let left = (0..4096).filter(|b| usize::from(*b) % CLASSES == of && holding.buckets.has(Bucket(*b)));
        assert_eq!(left.count(), 0, "sessions of class {of} at its previous owner");
        self.commit(of, Home { owner, previous: None });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 50, ..ProptestConfig::default() })]
    #[test]
    fn flows_survive_any_sequence_of_moves(ops in proptest::collection::vec(op(), 1..40)) {
        let mut leader = Leader::new();
        for op in &ops {
            leader.act(op);
            leader.talk();
        }
        leader.adopt_all();
        leader.talk();
        leader.flows.clear();
        leader.world.assert_no_leak();
    }
}
