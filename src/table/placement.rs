//! Which node owns each of a group's buckets, and which one owned it before while it is handed over.

use crate::base::hash::mix;
use crate::base::limits::BUCKETS;
use crate::base::rng::Rng;
use crate::base::{Bucket, NodeId};

/// Stands in the map where no node owns the bucket.
const NOBODY: NodeId = NodeId(u16::MAX);

/// Where a bucket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// The node that owns it; none: the group has no node.
    pub owner: Option<NodeId>,
    /// The node that owned it before and may still have sessions of its flows (MECHANISMS §4 point 4).
    pub previous: Option<NodeId>,
}

/// The owner of every bucket of one group: 8 KiB, one load a question; while buckets are handed over, as much again for those
/// that owned them before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    owner: Box<[NodeId; BUCKETS]>,
    /// None: no bucket has a previous owner.
    previous: Option<Box<[NodeId; BUCKETS]>>,
}

impl Placement {
    /// The first placement of a group over `members` (node and weight). It depends on the set of members and on `seed`
    /// (which tells groups apart), not on the members' order; all nodes must agree on it, so a change of the algorithm is
    /// a change of the protocol.
    ///
    /// Each node gets its exact share of the buckets, rounded down or up by the method of largest remainders (ties go by
    /// seed and node); a node of weight zero gets none. Which buckets those are is a seeded random choice, so that a run
    /// of bucket numbers is spread over the nodes. Without any weight, no bucket has an owner.
    ///
    /// # Panics
    /// If a node is given twice, or is `NodeId(u16::MAX)`.
    pub fn initial(seed: u64, members: &[(NodeId, u32)]) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable_by_key(|&(node, _)| node);
        assert!(members.windows(2).all(|pair| pair[0].0 < pair[1].0), "a node is given twice: {members:?}");
        assert!(members.iter().all(|&(node, _)| node != NOBODY), "{NOBODY} is no node");

        let mut owner = Box::new([NOBODY; BUCKETS]);
        let mut free = owner.iter_mut();
        for (node, quota) in quotas(seed, &members) {
            free.by_ref().take(quota).for_each(|owner| *owner = node);
        }
        // Fisher and Yates' shuffle (Knuth, TAOCP vol. 2, algorithm P).
        let mut rng = Rng::new(seed);
        for last in (1..BUCKETS).rev() {
            owner.swap(last, rng.below(last as u64 + 1) as usize);
        }
        Self { owner, previous: None }
    }

    /// The placement that `home` says. A node that is named as the previous owner of what it owns is not kept as such.
    pub fn of(home: impl Fn(Bucket) -> Home) -> Self {
        let mut owner = Box::new([NOBODY; BUCKETS]);
        let mut previous = Box::new([NOBODY; BUCKETS]);
        for (i, (owner, previous)) in owner.iter_mut().zip(previous.iter_mut()).enumerate() {
            let home = home(Bucket(i as u16));
            *owner = home.owner.unwrap_or(NOBODY);
            *previous = home.previous.filter(|node| home.owner != Some(*node)).unwrap_or(NOBODY);
        }
        let handover = previous.iter().any(|node| *node != NOBODY);
        Self { owner, previous: handover.then_some(previous) }
    }

    /// The node that owns `bucket`.
    #[inline]
    pub fn owner(&self, bucket: Bucket) -> Option<NodeId> {
        self.owner.get(bucket.index()).copied().filter(|&node| node != NOBODY)
    }

    /// The node that owned `bucket` before and may still have sessions of its flows.
    #[inline]
    pub fn previous(&self, bucket: Bucket) -> Option<NodeId> {
        self.previous.as_ref()?.get(bucket.index()).copied().filter(|&node| node != NOBODY)
    }

    /// Owner and previous owner.
    pub fn home(&self, bucket: Bucket) -> Home {
        Home { owner: self.owner(bucket), previous: self.previous(bucket) }
    }

    /// Whether `node` is the previous owner of any bucket.
    pub fn leaves(&self, node: NodeId) -> bool {
        self.previous.as_ref().is_some_and(|previous| previous.contains(&node))
    }

    /// The number of buckets that `node` owns.
    pub fn count(&self, node: NodeId) -> usize {
        self.iter().filter(|&(_, owner)| owner == Some(node)).count()
    }

    /// Every bucket and its owner, in the order of the buckets.
    pub fn iter(&self) -> impl Iterator<Item = (Bucket, Option<NodeId>)> + '_ {
        (0..BUCKETS as u16).map(|bucket| (Bucket(bucket), self.owner(Bucket(bucket))))
    }
}

/// The number of buckets of each member; together all, if there is any weight.
fn quotas(seed: u64, members: &[(NodeId, u32)]) -> Vec<(NodeId, usize)> {
    let total: u64 = members.iter().map(|&(_, weight)| u64::from(weight)).sum();
    if total == 0 {
        return Vec::new();
    }
    let share = |weight: u32| BUCKETS as u64 * u64::from(weight);
    let mut quotas: Vec<_> = members.iter().map(|&(node, w)| (node, (share(w) / total) as usize)).collect();
    let left = BUCKETS - quotas.iter().map(|&(_, quota)| quota).sum::<usize>();
    let mut by_remainder: Vec<usize> = (0..members.len()).collect();
    by_remainder.sort_unstable_by_key(|&i| {
        let (node, weight) = members[i];
        (std::cmp::Reverse(share(weight) % total), mix(seed ^ mix(u64::from(node.0))), node)
    });
    // The remainders sum to `left` times the total and each is below it, so there are more than `left` of them.
    for &i in by_remainder.iter().take(left) {
        quotas[i].1 += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(weights: &[u32]) -> Vec<(NodeId, u32)> {
        weights.iter().enumerate().map(|(i, &weight)| (NodeId(i as u16), weight)).collect()
    }

    proptest! {
        #[test]
        fn counts_follow_weights(
            seed in any::<u64>(),
            weights in prop::collection::vec(prop_oneof![Just(0u32), 1..10u32, any::<u32>()], 0..65),
        ) {
            let placement = Placement::initial(seed, &nodes(&weights));
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            let mut sum = 0;
            for (i, &weight) in weights.iter().enumerate() {
                let count = placement.count(NodeId(i as u16));
                sum += count;
                if total > 0 {
                    // |count - share| < 1, in whole numbers.
                    let share = u128::from(weight) * BUCKETS as u128;
                    prop_assert!((count as u128 * u128::from(total)).abs_diff(share) < u128::from(total));
                }
            }
            prop_assert_eq!(sum, if total > 0 { BUCKETS } else { 0 });
            prop_assert_eq!(placement.iter().filter(|(_, owner)| owner.is_none()).count(), BUCKETS - sum);
        }

        #[test]
        fn order_does_not_matter(
            seed in any::<u64>(),
            weights in prop::collection::vec(0..4u32, 1..64),
            shuffled in Just((0..64usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let members = nodes(&weights);
            let other: Vec<_> = shuffled.into_iter().filter_map(|i| members.get(i).copied()).collect();
            prop_assert_eq!(Placement::initial(seed, &members), Placement::initial(seed, &other));
        }

        #[test]
        fn equal_nodes_differ_by_one_bucket(seed in any::<u64>(), count in 1..65usize, weight in 1..u32::MAX) {
            let placement = Placement::initial(seed, &nodes(&vec![weight; count]));
            let counts: Vec<_> = (0..count).map(|i| placement.count(NodeId(i as u16))).collect();
            prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }

        #[test]
        fn neighbours_are_spread(seed in any::<u64>(), count in 2..65usize) {
            let placement = Placement::initial(seed, &nodes(&vec![1; count]));
            let owners: Vec<_> = placement.iter().map(|(_, owner)| owner).collect();
            let same = owners.windows(2).filter(|pair| pair[0] == pair[1]).count() as f64;
            // Independent draws would give a binomial distribution; six deviations never happen by chance.
            let p = 1.0 / count as f64;
            let expected = (BUCKETS - 1) as f64 * p;
            prop_assert!((same - expected).abs() < 6.0 * (expected * (1.0 - p)).sqrt(), "{same} pairs, {expected} expected");
        }
    }

    #[test]
    fn groups_differ() {
        let members = nodes(&[1; 4]);
        assert_ne!(Placement::initial(1, &members), Placement::initial(2, &members));
    }

    #[test]
    fn a_bucket_out_of_range_has_no_owner() {
        assert_eq!(Placement::initial(1, &nodes(&[1])).owner(Bucket(4096)), None);
    }

    #[test]
    #[should_panic(expected = "twice")]
    fn a_node_given_twice_is_a_bug() {
        Placement::initial(1, &[(NodeId(1), 1), (NodeId(1), 2)]);
    }

    #[test]
    fn a_bucket_remembers_whom_it_left() {
        let first = Placement::initial(1, &nodes(&[1, 1]));
        assert!((0..4096).all(|b| first.previous(Bucket(b)).is_none()) && !first.leaves(NodeId(0)));
        let [zero, one] = [0, 1].map(NodeId);
        // The even ones go to node 1; those that it had stay, and have no previous owner whatever is said.
        let next = Placement::of(|b| match b.0 % 2 {
            0 => Home { owner: Some(one), previous: first.owner(b) },
            _ => first.home(b),
        });
        for (bucket, before) in first.iter() {
            let moves = bucket.0 % 2 == 0 && before == Some(zero);
            assert_eq!(next.previous(bucket), moves.then_some(zero));
            assert_eq!(next.owner(bucket), if bucket.0 % 2 == 0 { Some(one) } else { before });
        }
        assert!(next.leaves(zero) && !next.leaves(one));
        assert_eq!(Placement::of(|b| next.home(b)), next);
        assert_eq!(Placement::of(|b| first.home(b)), first);
    }

    /// All nodes must compute the same placement, also those of another version.
    #[test]
    fn the_algorithm_has_not_changed() {
        let placement = Placement::initial(42, &nodes(&[1, 2, 3, 0, 5]));
        let digest = placement
            .iter()
            .fold(0, |digest, (_, owner)| mix(digest ^ owner.map_or(u64::MAX, |node| u64::from(node.0))));
        assert_eq!(digest, 0x4186_465b_1302_c3b0, "{digest:#x}");
    }
}
