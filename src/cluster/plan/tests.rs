use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SEED: u64 = 7;

/// Lets a placement come to rest, all learning at once; the number of rounds.
fn settle(map: &mut Map, shares: &[Share], copies: usize, limit: usize) -> usize {
    for round in 0..10_000 {
        let steps = next(map, shares, copies, limit);
        let moves =
            steps.iter().filter(|s| matches!(s, Step::Own(b, _) if map.get(*b).owner.is_some())).count();
        assert!(moves <= limit, "{moves} buckets move at once");
        map.take(&steps);
        let learners: Vec<_> = map
            .iter()
            .flat_map(|(b, p)| {
                p.replicas.iter().filter(|r| !r.complete).map(move |r| Step::Complete(b, r.node))
            })
            .collect();
        map.take(&learners);
        // Nobody has sessions for long.
        let before: Vec<_> = map.iter().filter_map(|(b, p)| p.previous.map(|node| (node, b))).collect();
        before.iter().for_each(|(node, bucket)| {
            map.forget_previous(*node, &[*bucket]);
        });
        if steps.is_empty() && learners.is_empty() {
            return round;
        }
    }
    panic!("it never rests");
}

/// A placement that has come to rest from nothing.
fn rested(shares: &[Share], copies: usize) -> Map {
    let mut map = Map::default();
    settle(&mut map, shares, copies, BUCKETS);
    map
}

fn shares(of: &BTreeMap<u16, u32>) -> Vec<Share> {
    of.iter().map(|(node, weight)| Share { node: NodeId(*node), weight: *weight }).collect()
}

/// Exact share, rounded down or up; copies elsewhere, all complete.
fn assert_at_rest(map: &Map, members: &BTreeMap<u16, u32>, copies: usize) {
    let total: u64 = members.values().map(|w| u64::from(*w)).sum();
    if total == 0 {
        return;
    }
    for (node, weight) in members {
        let (count, part) = (map.count(NodeId(*node)) as u64, BUCKETS as u64 * u64::from(*weight));
        assert!(
            (part / total..=part.div_ceil(total)).contains(&count),
            "node {node} of weight {weight} in {total} owns {count}"
        );
    }
    let able = members.values().filter(|w| **w > 0).count();
    for (bucket, place) in map.iter() {
        assert_eq!(place.replicas.len(), (copies - 1).min(able - 1), "bucket {bucket}: {place:?}");
        assert!(place.replicas.iter().all(|r| r.complete && Some(r.node) != place.owner));
    }
}

fn owners(map: &Map) -> Vec<Option<NodeId>> {
    map.iter().map(|(_, p)| p.owner).collect()
}

#[derive(Clone, Debug)]
enum Act {
    Join(u16, u32),
    Drain(u16),
    Fail(u16),
    Weigh(u16, u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..64u16, 1..5u32).prop_map(|(n, w)| Act::Join(n, w)),
        1 => (0..64u16).prop_map(Act::Drain),
        2 => (0..64u16).prop_map(Act::Fail),
        1 => (0..64u16, 0..9u32).prop_map(|(n, w)| Act::Weigh(n, w)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_life_of_a_cluster_comes_to_rest(
        first in prop::collection::btree_map(0..64u16, 1..5u32, 1..12),
        acts in prop::collection::vec(act(), 1..12),
        copies in 1..=MAX_REPLICAS,
    ) {
        let mut members = first;
        let mut map = rested(&shares(&members), copies);
        assert_at_rest(&map, &members, copies);
        for act in acts {
            let before = map.clone();
            match act {
                Act::Join(node, weight) => {
                    members.entry(node).or_insert(weight);
                }
                Act::Weigh(node, weight) => {
                    members.entry(node).and_modify(|w| *w = weight);
                }
                Act::Drain(node) => {
                    if let Some(weight) = members.get_mut(&node) {
                        *weight = 0;
                        settle(&mut map, &shares(&members), copies, 512);
                        members.remove(&node);
                    }
                }
                Act::Fail(node) => {
                    members.remove(&node);
                    let moved = map.fail(SEED, NodeId(node), &shares(&members));
                    for (bucket, place) in before.iter() {
                        let now = map.get(bucket);
                        // Only promotes, and only what the dead node owned.
                        prop_assert_eq!(moved.contains(&bucket), place.owner == Some(NodeId(node)));
                        if place.owner != Some(NodeId(node)) {
                            prop_assert_eq!(now.owner, place.owner);
                            prop_assert_eq!(now.epoch, place.epoch);
                        } else if let Some(heir) = place.replicas.first() {
                            prop_assert_eq!(now.owner, Some(heir.node));
                            prop_assert!(now.epoch > place.epoch);
                        }
                        prop_assert!(now.previous != Some(NodeId(node)) && !now.has_replica(NodeId(node)));
                    }
                }
            }
            settle(&mut map, &shares(&members), copies, 512);
            assert_at_rest(&map, &members, copies);
            for (bucket, place) in before.iter() {
                prop_assert!(map.get(bucket).epoch >= place.epoch);
                if map.get(bucket).owner != place.owner {
                    prop_assert!(map.get(bucket).epoch > place.epoch);
                }
            }
        }
    }

    /// Of equals, whoever leaves takes only its own buckets along, and whoever comes takes only what it owns afterwards.
    #[test]
    fn a_leave_and_a_join_move_only_what_they_must(nodes in 2..=64u16, which in any::<prop::sample::Index>()) {
        let mut members: BTreeMap<u16, u32> = (0..nodes).map(|n| (n, 1)).collect();
        let mut map = rested(&shares(&members), 2);
        let node = which.index(usize::from(nodes)) as u16;
        let before = owners(&map);
        members.remove(&node);
        map.fail(SEED, NodeId(node), &shares(&members));
        settle(&mut map, &shares(&members), 2, 64);
        let without = owners(&map);
        for (a, b) in before.iter().zip(&without) {
            prop_assert!(a == b || *a == Some(NodeId(node)));
        }
        members.insert(node, 1);
        settle(&mut map, &shares(&members), 2, 64);
        for (a, b) in without.iter().zip(owners(&map)) {
            prop_assert!(*a == b || b == Some(NodeId(node)));
        }
    }
}

#[test]
fn a_move_is_learnt_completed_owned_and_remembered() {
    let both = [Share { node: NodeId(0), weight: 1 }, Share { node: NodeId(1), weight: 1 }];
    let mut map = rested(&both[..1], 2);
    let bucket = Bucket(0);
    let steps = next(&map, &both, 2, 1);
    assert_eq!(
        steps,
        [Step::Learn(bucket, NodeId(1)), Step::Learn(Bucket(1), NodeId(1))],
        "one to own, one to stand by"
    );
    map.take(&steps);
    assert!(!next(&map, &both, 2, 1).contains(&Step::Own(bucket, NodeId(1))), "not before it has learnt all");
    assert!(!map.take(&[Step::Own(bucket, NodeId(1))]), "nor if someone says so");
    map.take(&[Step::Complete(bucket, NodeId(1))]);
    let steps = next(&map, &both, 2, 1);
    assert!(steps.contains(&Step::Own(bucket, NodeId(1))), "{steps:?}");
    assert!(map.take(&steps));
    assert!(!map.take(&steps), "that was it");
    let place = map.get(bucket);
    assert_eq!((place.owner, place.previous), (Some(NodeId(1)), Some(NodeId(0))));
    assert!(place.epoch > map.get(Bucket(9)).epoch);
    assert!(place.replicas.iter().any(|r| r.node == NodeId(0) && r.complete));
    assert_eq!(map.forget_previous(NodeId(1), &[bucket]), [], "it isn't the one");
    assert_eq!(map.forget_previous(NodeId(0), &[bucket, Bucket(1)]), [bucket]);
    assert_eq!(map.get(bucket).previous, None);
}

#[test]
fn a_bucket_that_its_previous_owner_still_serves_stays() {
    let [a, b, c] = [0, 1, 2].map(|n| Share { node: NodeId(n), weight: 1 });
    let mut map = rested(&[a, b], 2);
    let moved: Vec<_> = map.iter().filter(|(_, p)| p.owner == Some(a.node)).map(|(b, _)| b).collect();
    map.take(&moved.iter().map(|bucket| Step::Own(*bucket, b.node)).collect::<Vec<_>>());
    assert_eq!(map.count(b.node), BUCKETS);
    for _ in 0..20 {
        let steps = next(&map, &[b, c], 2, BUCKETS);
        map.take(&steps);
        map.take(&map.clone().learners(NodeSet(7)));
    }
    assert!(moved.iter().all(|bucket| map.get(*bucket).owner == Some(b.node)));
    map.forget_previous(a.node, &moved);
    settle(&mut map, &[b, c], 2, BUCKETS);
    assert_eq!(map.count(c.node), BUCKETS / 2);
}

#[test]
fn the_last_node_leaves_and_another_comes() {
    let [a, b] = [0, 1].map(|n| Share { node: NodeId(n), weight: 1 });
    let mut map = rested(&[a], 2);
    assert_eq!(map.fail(SEED, a.node, &[]).len(), BUCKETS);
    assert!(map.iter().all(|(_, p)| p.owner.is_none()));
    settle(&mut map, &[b], 2, 64);
    assert_eq!(map.count(b.node), BUCKETS);
}
