//! Who decides in the world of shards, in a cluster's stead: one that never fails, publishes in two steps, and knows who is silent.

use super::{LEASE, STEP};
use crate::asdr::{Chain, Copy};
use crate::base::rng::Rng;
use crate::base::{Bucket, Instant, NodeId};
use std::time::Duration;

/// Silence that takes a node out.
const SUSPICION: Duration = Duration::from_millis(60);
/// Steps between changes of a bucket at rest, on average.
const CHANGES: u64 = 150;

/// A node, as far as it is heard.
struct Member {
    heard: Instant,
    /// Taken out since then.
    out: Option<Instant>,
}

struct Placed {
    /// All that were decided; number 1 is the first.
    chains: Vec<Chain>,
    /// The last that all may go by.
    in_force: u64,
    /// The last that each node goes by.
    adopted: Vec<u64>,
}

impl Placed {
    fn latest(&self) -> u64 {
        self.chains.len() as u64
    }

    fn last(&self) -> &Chain {
        &self.chains[self.chains.len() - 1]
    }

    fn forced(&self) -> &Chain {
        &self.chains[self.in_force as usize - 1]
    }
}

/// See the module's text.
pub struct Governor {
    members: Vec<Member>,
    placed: Vec<Placed>,
    copies: usize,
    since: u32,
    /// Buckets that changed hands.
    pub moved: u32,
}

/// A node, the number of a chain, its bucket.
pub type Published = (u16, u64, Bucket);

impl Governor {
    /// Nodes and buckets, and how many copies there are to be besides the owner's.
    pub fn new(nodes: u16, buckets: u16, copies: usize) -> Self {
        let copy = |node: u16| Copy { node: NodeId(node % nodes), since: 0, complete: true };
        let chain = |bucket: u16| Chain {
            epoch: 1,
            owner: Some(copy(bucket)),
            copies: (1..=copies as u16).map(|i| copy(bucket + i)).collect(),
        };
        let placed = |bucket: u16| Placed {
            chains: vec![chain(bucket)],
            in_force: 1,
            adopted: vec![0; usize::from(nodes)],
        };
        let members = (0..nodes).map(|_| Member { heard: Instant::ZERO, out: None }).collect();
        Self { members, placed: (0..buckets).map(placed).collect(), copies, since: 0, moved: 0 }
    }

    /// A bucket's chain by its number.
    pub fn chain(&self, bucket: Bucket, number: u64) -> &Chain {
        &self.placed[bucket.index()].chains[number as usize - 1]
    }

    /// A node goes by a chain.
    pub fn adopted(&mut self, node: u16, bucket: Bucket, number: u64) {
        self.placed[bucket.index()].adopted[usize::from(node)] = number;
    }

    /// Whether a node's lease is renewed.
    pub fn renews(&self, node: u16) -> bool {
        self.members[usize::from(node)].out.is_none()
    }

    /// Whether each bucket would keep a complete copy, if only these nodes were left.
    pub fn can_lose(&self, whole: &impl Fn(u16) -> bool) -> bool {
        let stays = |copy: &Copy| copy.complete && whole(copy.node.0) && self.renews(copy.node.0);
        self.placed.iter().all(|placed| {
            let both = [placed.last(), placed.forced()];
            let of = |chain: &Chain| {
                chain.owner.into_iter().chain(chain.copies.iter().copied()).collect::<Vec<_>>()
            };
            of(both[0]).iter().filter(|copy| stays(copy)).any(|copy| of(both[1]).contains(copy))
        })
    }

    /// A copy says that it is complete, or its owner does, in an epoch.
    pub fn complete(&mut self, bucket: Bucket, copy: Copy, epoch: u32) {
        let placed = &mut self.placed[bucket.index()];
        let mut chain = placed.last().clone();
        let same = |c: &&mut Copy| c.node == copy.node && c.since == copy.since && !c.complete;
        let found =
            chain.owner.iter_mut().chain(&mut chain.copies).find(same).map(|copy| copy.complete = true);
        if found.is_some() && chain.epoch == epoch {
            placed.chains.push(chain);
        }
    }

    /// Takes out who is silent, takes in who is back, changes buckets; what is to be given to whom.
    pub fn turn(&mut self, now: Instant, rng: &mut Rng, heard: &[bool]) -> Vec<Published> {
        let mut published = Vec::new();
        for (node, heard) in heard.iter().enumerate() {
            let at = NodeId(node as u16);
            let member = &mut self.members[node];
            if *heard {
                member.heard = now;
            }
            // Its lease may run for so long by a clock that is slow.
            let over = member.out.is_some_and(|out| now.since(out) > LEASE * 115 / 100);
            if member.out.is_none() && now.since(member.heard) > SUSPICION && now.0 > 1_500_000_000 {
                member.out = Some(now);
                self.lost(at);
            } else if over
                && *heard
                && self.placed.iter().all(|placed| placed.forced().place_of(at).is_none())
            {
                // In another life it must not be taken for what it was.
                self.members[node].out = None;
                let all = self.placed.iter().enumerate();
                published.extend(all.map(|(b, placed)| (node as u16, placed.in_force, Bucket(b as u16))));
            }
        }
        for bucket in 0..self.placed.len() {
            let placed = &self.placed[bucket];
            // While somebody of a chain is silent it may lose its last complete copy by a change.
            let silent = (0..heard.len())
                .any(|node| !heard[node] && placed.last().place_of(NodeId(node as u16)).is_some());
            if placed.in_force == placed.latest() && !silent && rng.below(CHANGES) == 0 {
                self.change(bucket, rng);
            }
            self.publish(now, bucket, &mut published);
        }
        published
    }

    /// Lets the last chain of a bucket be in force, once who served it before goes by it, or can't serve any more.
    fn publish(&mut self, now: Instant, bucket: usize, published: &mut Vec<Published>) {
        let placed = &mut self.placed[bucket];
        let latest = placed.latest();
        if placed.in_force == latest {
            return;
        }
        let (was, is) = (placed.forced().owner, placed.last().owner);
        let ceded = was.is_none_or(|was| {
            let member = &self.members[was.node.index()];
            let over = member.out.is_some_and(|out| now.since(out) > LEASE * 115 / 100);
            let stays =
                is.is_some_and(|is| is.node == was.node) && placed.forced().epoch == placed.last().epoch;
            stays || over || placed.adopted[was.node.index()] == latest
        });
        if ceded {
            placed.in_force = latest;
            published
                .extend((0..self.members.len() as u16).map(|node| (node, latest, Bucket(bucket as u16))));
        } else if let Some(was) = was {
            // Again and again, since it may be out of reach.
            if now.0 / 1_000_000 % 10 < STEP.as_millis() as u64 {
                published.push((was.node.0, latest, Bucket(bucket as u16)));
            }
        }
    }

    /// A node is taken out: who stands by takes what it owned.
    fn lost(&mut self, dead: NodeId) {
        for placed in &mut self.placed {
            let mut chain = placed.last().clone();
            chain.copies.retain(|copy| copy.node != dead);
            if chain.is_owned_by(dead) {
                let heir = chain
                    .copies
                    .iter()
                    .position(|copy| copy.complete)
                    .or((!chain.copies.is_empty()).then_some(0));
                chain.owner = heir.map(|heir| chain.copies.remove(heir));
                chain.epoch += 1;
                self.moved += 1;
            }
            if chain != *placed.last() {
                placed.chains.push(chain);
            }
        }
    }

    /// One of the changes that a cluster makes while nothing fails.
    fn change(&mut self, bucket: usize, rng: &mut Rng) {
        let mut chain = self.placed[bucket].last().clone();
        let outside = |node: &u16| self.renews(*node) && chain.place_of(NodeId(*node)).is_none();
        let outside: Vec<u16> = (0..self.members.len() as u16).filter(outside).collect();
        let complete = chain.complete().count();
        self.since += 1;
        let pick = rng.below(outside.len().max(1) as u64) as usize;
        if let (Some(node), true) = (outside.get(pick), chain.copies.len() <= self.copies) {
            let copy = Copy { node: NodeId(*node), since: self.since, complete: false };
            // It may own the bucket at once, as whoever comes back with all that it has to learn.
            if chain.owner.is_some_and(|owner| owner.complete) && rng.below(2) == 0 {
                chain.copies.truncate(crate::asdr::MAX_COPIES - 1);
                chain.copies.insert(0, copy);
                self.hand_over(&mut chain, 0);
            } else {
                chain.copies.push(copy);
            }
        } else if complete > self.copies && rng.below(2) == 0 {
            chain.copies.pop();
        } else if !chain.copies.is_empty() {
            let at = rng.below(chain.copies.len() as u64) as usize;
            // Who isn't complete may own it, too, if somebody is whom it can ask.
            if !chain.copies[at].complete && !chain.owner.is_some_and(|owner| owner.complete) {
                return;
            }
            self.hand_over(&mut chain, at);
        }
        self.placed[bucket].chains.push(chain);
    }

    /// Makes a copy the owner, and the owner the first of the copies.
    fn hand_over(&mut self, chain: &mut Chain, at: usize) {
        let next = chain.copies.remove(at);
        if let Some(owner) = chain.owner.replace(next) {
            chain.copies.insert(0, owner);
        }
        chain.epoch += 1;
        self.moved += 1;
    }

    /// Who owns a bucket, by the chain that is in force.
    pub fn owner(&self, bucket: Bucket) -> Option<NodeId> {
        self.placed[bucket.index()].forced().owner.map(|owner| owner.node)
    }
}
