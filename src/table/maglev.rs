//! Weighted Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! §3.4): a lookup table in which every real server has its share of the slots, and in which few slots change hands when
//! the set of servers changes.
//!
//! Each server has a permutation of the slots, made from its identity alone. In turn, each takes the first slot of its
//! permutation that nobody has taken yet. A server of the highest weight `max` has a turn in every round; one of weight
//! `w` has its `k`-th turn in round `⌊k · max / w⌋`, so its slots are within one of its share after every round, and even
//! the lightest has one slot.
//!
//! The table depends on the key, the servers' identities and weights, and the number of slots, not on the order in which
//! the servers are given. All nodes must agree on it: a change of the algorithm is a change of the protocol.

use super::index;
use crate::base::hash::{reduce, siphash13};
use crate::base::limits::is_prime;
use crate::base::{HashKey, RealServerId};
use std::sync::Arc;

/// A real server as [`Maglev::build`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// What a lookup answers.
    pub id: RealServerId,
    /// The identity that its permutation is made from: the same on every node, and for as long as the server is the same.
    pub name_hash: u64,
    /// Its share, relative to the others'; with zero it gets no slot.
    pub weight: u32,
}

/// A lookup table; without slots if no server has weight. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    table: Arc<[RealServerId]>,
}

/// A walk through all slots in the order of one server's permutation.
#[derive(Clone, Copy)]
struct Walk {
    at: u32,
    skip: u32,
}

/// The table under construction.
struct Slots {
    table: Box<[RealServerId]>,
    /// One bit a slot: 8 KiB for 65537 slots, where the table itself wouldn't fit into the first-level cache.
    taken: Box<[u64]>,
    left: usize,
}

impl Slots {
    /// Gives the next free slot of `walk` to `id`. There is one, since `left` isn't zero and the walk meets every slot.
    #[inline(always)]
    fn take(&mut self, walk: &mut Walk, id: RealServerId) {
        let slots = self.table.len() as u32;
        let mut at = walk.at;
        loop {
            let slot = at as usize;
            let (word, bit) = (&mut self.taken[slot / 64], 1 << (slot % 64));
            at += walk.skip;
            if at >= slots {
                at -= slots;
            }
            if *word & bit == 0 {
                *word |= bit;
                self.table[slot] = id;
                break;
            }
        }
        walk.at = at;
        self.left -= 1;
    }
}

/// The turns of a server lighter than the heaviest.
struct Turns {
    walk: Walk,
    id: RealServerId,
    weight: u32,
    /// The numerator of the fraction by which `⌊k · max / weight⌋` is short of the quotient.
    carry: u32,
}

/// Servers by the round of their next turn: a list for each round, in the order of arrival.
struct Calendar {
    heads: Box<[u32]>,
    tails: Box<[u32]>,
    next: Box<[u32]>,
}

const NOBODY: u32 = u32::MAX;

impl Calendar {
    fn new(rounds: usize, servers: usize) -> Self {
        let nobody = |n| vec![NOBODY; n].into_boxed_slice();
        Self { heads: nobody(rounds), tails: nobody(rounds), next: nobody(servers) }
    }

    /// Books `server`, which stands in no list, for `round`; past the last round nothing happens any more.
    fn book(&mut self, round: usize, server: u32) {
        let Some(tail) = self.tails.get_mut(round) else { return };
        match std::mem::replace(tail, server) {
            NOBODY => self.heads[round] = server,
            last => self.next[last as usize] = server,
        }
        self.next[server as usize] = NOBODY;
    }
}

impl Maglev {
    /// The table of `slots` slots for `members` under `key`. Two members of one identity have one permutation and are told
    /// apart by their ids.
    ///
    /// # Panics
    /// If `slots` is not a prime (a walk would miss slots) or above 2^31.
    pub fn build(key: HashKey, members: &[Member], slots: usize) -> Self {
        assert!(slots <= 1 << 31 && is_prime(slots), "{slots} slots, which is no fit prime");
        let mut members: Vec<Member> = members.iter().copied().filter(|m| m.weight > 0).collect();
        members.sort_unstable_by_key(|m| (m.name_hash, m.id));
        let Some(max) = members.iter().map(|m| m.weight).max() else { return Self { table: Arc::new([]) } };

        let walk = |m: &Member| {
            let offset = reduce(siphash13(key, [m.name_hash, 0]), slots as u64);
            // Any step from 1 to slots - 1 is coprime to the prime and so meets every slot.
            let skip = reduce(siphash13(key, [m.name_hash, 1]), (slots as u64 - 1).max(1)) + 1;
            Walk { at: offset as u32, skip: (skip % slots as u64) as u32 }
        };
        let (heaviest, lighter): (Vec<Member>, Vec<Member>) = members.iter().partition(|m| m.weight == max);
        let mut heaviest: Vec<(Walk, RealServerId)> = heaviest.iter().map(|m| (walk(m), m.id)).collect();
        let mut lighter: Vec<Turns> =
            lighter.iter().map(|m| Turns { walk: walk(m), id: m.id, weight: m.weight, carry: 0 }).collect();

        // Every round fills a slot for each of the heaviest, so there are no more rounds than this.
        let mut calendar = Calendar::new(slots.div_ceil(heaviest.len()), lighter.len());
        for server in 0..lighter.len() {
            calendar.book(0, server as u32);
        }
        let mut filling = Slots {
            table: vec![RealServerId(0); slots].into(),
            taken: vec![0; slots.div_ceil(64)].into(),
            left: slots,
        };
        for round in 0..calendar.heads.len() {
            for (walk, id) in heaviest.iter_mut().take(filling.left) {
                filling.take(walk, *id);
            }
            let mut server = calendar.heads[round];
            while server != NOBODY && filling.left > 0 {
                let turns = &mut lighter[server as usize];
                filling.take(&mut turns.walk, turns.id);
                let carry = u64::from(turns.carry) + u64::from(max % turns.weight);
                let carried = carry >= u64::from(turns.weight);
                turns.carry = (carry - u64::from(carried) * u64::from(turns.weight)) as u32;
                let after = (max / turns.weight) as usize + usize::from(carried);
                let next = calendar.next[server as usize];
                calendar.book(round + after, server);
                server = next;
            }
        }
        Self { table: filling.table.into() }
    }

    /// The server for 64 uniform bits; none if no server has weight. One load.
    #[inline]
    pub fn lookup(&self, bits: u64) -> Option<RealServerId> {
        self.table.get(self.slot(bits)).copied()
    }

    /// The slot that [`Self::lookup`] reads.
    #[inline(always)]
    pub fn slot(&self, bits: u64) -> usize {
        reduce(bits, self.table.len() as u64) as usize
    }

    /// Starts fetching the slot of these bits.
    #[inline(always)]
    pub fn prefetch(&self, bits: u64) {
        if let Some(slot) = self.table.get(self.slot(bits)) {
            index::prefetch(slot);
        }
    }

    /// Whether it is the very same table, not just an equal one.
    #[cfg(test)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table)
    }

    /// The number of slots; zero if no server has weight.
    pub fn slots(&self) -> usize {
        self.table.len()
    }

    /// The server of every slot, in the order of the slots.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RealServerId> + '_ {
        self.table.iter().copied()
    }
}

#[cfg(test)]
mod tests;
