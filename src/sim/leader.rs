//! Who decides where buckets are, in worlds in which they move: the cluster's leader as the nodes see it. Each of them learns
//! of a placement in its own time. Two rules are the leader's to keep: a bucket with a previous owner moves nowhere; and nothing
//! moves, and no previous owner is forgotten, before every node has long known the placement before, and that one has counted
//! nothing since.

use super::cluster::Appliance;
use super::plan::{Move, NODES, Plan};
use crate::base::hash::mix;
use crate::base::limits::BUCKETS;
use crate::base::rng::Rng;
use crate::base::{Bucket, GroupId, Instant, NodeId};
use crate::table::placement::{Home, Placement};
use crate::view::{Buckets, View};
use std::collections::VecDeque;
use std::time::Duration;

/// Between two looks at what the nodes know and have counted.
const LOOK: Duration = Duration::from_millis(50);

/// What a look has led to.
#[derive(Debug)]
pub struct Moved {
    /// Which move.
    pub which: Move,
    /// The buckets, with their group.
    pub buckets: Vec<(GroupId, Bucket)>,
}

/// See the module's text.
pub struct Leader {
    rng: Rng,
    slack: Duration,
    /// The longest that a node goes without knowing of a placement.
    lag: Duration,
    /// By group.
    homes: Vec<Vec<Home>>,
    /// By group: its nodes.
    members: Vec<u64>,
    moves: VecDeque<Move>,
    /// By node: when it learns of which placement.
    due: [VecDeque<(Instant, u32, Vec<Buckets>)>; NODES],
    /// Of the last placement.
    pub version: u32,
    look_due: Instant,
    /// Since then all nodes have known the last placement.
    settled: Option<Instant>,
    /// When a node was last seen to count another that has spoken to it as down, which may live.
    pub doubted: Option<Instant>,
}

impl Leader {
    /// A leader of nodes that have begun with `view`'s placement.
    pub fn new(plan: &Plan, view: &View) -> Self {
        let each = |group: &Buckets| (0..BUCKETS as u16).map(|b| group.placement.home(Bucket(b))).collect();
        Self {
            rng: Rng::new(mix(plan.seed ^ 0x6c65_6164)),
            slack: plan.slack(),
            lag: plan.lag,
            homes: view.buckets.iter().map(each).collect(),
            members: view.services.groups.iter().map(|group| group.members).collect(),
            moves: plan.moves.iter().copied().collect(),
            due: Default::default(),
            version: 1,
            look_due: Instant::ZERO,
            settled: None,
            doubted: None,
        }
    }

    /// The last placement.
    pub fn placement(&self) -> Vec<Buckets> {
        let each = |homes: &Vec<Home>| Placement::of(|b| homes[b.index()]).into();
        self.homes.iter().map(each).collect()
    }

    /// A node is dead, or begins a life in which it knows the last placement.
    pub fn forgets(&mut self, node: usize) {
        self.due[node].clear();
        self.settled = None;
    }

    /// Tells nodes what they are to learn now, and now and then decides; `begin`: when the traffic began.
    pub fn turn(&mut self, nodes: &mut [Option<Appliance>], begin: Instant, now: Instant) -> Option<Moved> {
        for (appliance, due) in nodes.iter_mut().zip(&mut self.due) {
            while due.front().is_some_and(|(at, ..)| *at <= now) {
                if let (Some((_, version, buckets)), Some(appliance)) = (due.pop_front(), appliance.as_mut())
                {
                    appliance.node.manager().place(version, buckets);
                }
            }
        }
        if now < self.look_due {
            return None;
        }
        self.look_due = now + LOOK;
        let mut all_know = true;
        for (appliance, due) in nodes.iter_mut().zip(&self.due) {
            let Some(appliance) = appliance else { continue };
            let stats = appliance.node.manager().stats(now);
            all_know &= due.is_empty() && stats.view == stats.view_adopted;
            if stats.peers.iter().any(|peer| !peer.up && peer.incarnation != 0) {
                self.doubted = Some(now);
            }
        }
        if !all_know {
            self.settled = None;
            return None;
        }
        let since = *self.settled.get_or_insert(now) + self.slack;
        if now < since {
            return None;
        }
        if let Some(which) = self.moves.front().copied().filter(|next| begin + next.at <= now) {
            self.moves.pop_front();
            let buckets = self.apply(which, nodes);
            self.commit(nodes, now);
            return Some(Moved { which, buckets });
        }
        if self.forget(nodes, since) {
            self.commit(nodes, now);
        }
        None
    }

    /// A dead node takes none. From one that is dead they are taken over; it may be back before all know of that.
    fn apply(
        &mut self,
        Move { from, to, salt, .. }: Move,
        nodes: &[Option<Appliance>],
    ) -> Vec<(GroupId, Bucket)> {
        let mut moved = Vec::new();
        if nodes[to].is_none() {
            return moved;
        }
        let (from, to) = (NodeId(from as u16), NodeId(to as u16));
        let groups = self.homes.iter_mut().zip(&self.members).enumerate();
        for (group, (homes, _)) in groups.filter(|(_, (_, members))| **members >> to.0 & 1 == 1) {
            for (i, home) in homes.iter_mut().enumerate() {
                let chosen = mix(salt ^ mix(i as u64)) & 1 == 1 && home.owner == Some(from);
                if chosen && home.previous.is_none() {
                    *home = Home { owner: Some(to), previous: Some(from) };
                    moved.push((GroupId(group as u16), Bucket(i as u16)));
                }
            }
        }
        moved
    }

    /// Clears previous owners that are dead, or have counted nothing in a bucket since then; whether there were any.
    fn forget(&mut self, nodes: &mut [Option<Appliance>], since: Instant) -> bool {
        let mut any = false;
        for (group, homes) in self.homes.iter_mut().enumerate() {
            for (node, appliance) in nodes.iter_mut().enumerate() {
                let previous = Some(NodeId(node as u16));
                let holding =
                    appliance.as_mut().map(|a| a.node.manager().census().holding(GroupId(group as u16)));
                for (i, home) in homes.iter_mut().enumerate().filter(|(_, home)| home.previous == previous) {
                    let gone = match holding {
                        None => true,
                        Some(None) => false,
                        Some(Some(counted)) => {
                            counted.began >= since && !counted.buckets.has(Bucket(i as u16))
                        }
                    };
                    if gone {
                        (home.previous, any) = (None, true);
                    }
                }
            }
        }
        any
    }

    fn commit(&mut self, nodes: &mut [Option<Appliance>], now: Instant) {
        (self.settled, self.version) = (None, self.version + 1);
        nodes.iter_mut().flatten().for_each(|appliance| appliance.node.manager().decide(self.version));
        let placement = self.placement();
        for due in &mut self.due {
            let lag = Duration::from_nanos(self.rng.below(self.lag.as_nanos() as u64 + 1));
            due.push_back((now + lag, self.version, placement.clone()));
        }
    }
}
