//! Where placements come to rest if nothing else happens: what a change is going to move, told before it is made.

use super::fleet::{COPIES, Fleet, Topology, Why};
use super::place::Map;
use super::plan;
use crate::base::limits::BUCKETS;
use crate::base::{Bucket, GroupId, Incarnation, NodeId};
use std::collections::BTreeMap;

/// A placement is at rest after a handful of rounds in which all that is planned is done at once.
const ROUNDS: usize = 64;

/// The nodes as they will be by another topology, once those that are new serve.
pub fn with(fleet: &Fleet, topology: &Topology) -> Fleet {
    let mut next = fleet.clone();
    next.set_topology(topology.clone());
    for (node, life) in next.removed().collect::<Vec<_>>() {
        // Whose buckets go to whom in between doesn't matter here.
        let _ = next.offline(node, life, Why::Removed);
    }
    for node in topology.nodes.keys().filter(|node| !fleet.topology().nodes.contains_key(node)) {
        let life = Incarnation(next.member(*node).map_or(0, |member| member.incarnation.0) + 1);
        let _ = next.join(*node, life);
        next.activate(*node, life);
    }
    next
}

/// A group's placement when it has come to rest; none without such a group.
pub fn at_rest(fleet: &Fleet, group: GroupId) -> Option<Map> {
    let mut map = Map::clone(fleet.maps().get(&group)?).without_state();
    let shares = fleet.shares(group);
    for _ in 0..ROUNDS {
        // The last sessions of a bucket that was handed over end some day.
        let mut held: BTreeMap<NodeId, Vec<Bucket>> = BTreeMap::new();
        for (bucket, place) in map.iter() {
            if let Some(previous) = place.previous {
                held.entry(previous).or_default().push(bucket);
            }
        }
        for (node, buckets) in held {
            map.forget_previous(node, &buckets);
        }
        let learnt = map.learners(fleet.serving());
        let steps = plan::next(&map, &shares, COPIES, BUCKETS);
        if !(map.take(&learnt) | map.take(&steps)) {
            break;
        }
    }
    Some(map)
}

/// The buckets whose owner differs.
pub fn moved<'a>(from: &'a Map, to: &'a Map) -> impl Iterator<Item = Bucket> + 'a {
    let both = from.iter().zip(to.iter());
    both.filter(|((_, from), (_, to))| from.owner != to.owner).map(|((bucket, _), _)| bucket)
}

#[cfg(test)]
mod tests {
    use super::super::fleet::GroupShape;
    use super::*;

    fn topology(weights: &[(u16, u32)]) -> Topology {
        let nodes: BTreeMap<NodeId, u32> = weights.iter().map(|(n, w)| (NodeId(*n), *w)).collect();
        let members = nodes.keys().copied().collect();
        let groups = [(GroupId(0), GroupShape { seed: 7, members, ..GroupShape::default() })].into();
        Topology { nodes, groups }
    }

    /// These nodes, all serving and at rest.
    fn fleet(weights: &[(u16, u32)]) -> Fleet {
        let fleet = with(&Fleet::default(), &topology(weights));
        settled(&fleet)
    }

    /// What the log's entries make of a fleet, a few buckets at a time.
    fn settled(fleet: &Fleet) -> Fleet {
        let mut fleet = fleet.clone();
        for _ in 0..10_000 {
            let map = fleet.maps()[&GroupId(0)].clone();
            for node in fleet.serving().iter() {
                let life = fleet.member(node).unwrap().incarnation;
                let all: Vec<_> = map.iter().map(|(bucket, _)| bucket).collect();
                fleet.drained(GroupId(0), node, life, &all);
            }
            let learnt = map.learners(fleet.serving());
            let steps = plan::next(&map, &fleet.shares(GroupId(0)), COPIES, 100);
            if !(fleet.take(GroupId(0), &learnt) | fleet.take(GroupId(0), &steps)) {
                return fleet;
            }
        }
        panic!("it doesn't come to rest");
    }

    #[test]
    fn a_forecast_is_what_comes_about() {
        let before = fleet(&[(0, 1), (1, 1), (2, 1)]);
        let owned = |fleet: &Fleet, node| fleet.maps()[&GroupId(0)].count(NodeId(node));
        for weights in [
            &[(0, 1), (1, 1), (2, 1), (3, 1)][..],
            &[(0, 1), (1, 1)],
            &[(0, 2), (1, 1), (2, 1)],
            &[(0, 1), (1, 1), (2, 1)],
        ] {
            let next = with(&before, &topology(weights));
            let forecast = at_rest(&next, GroupId(0)).unwrap();
            let after = settled(&next);
            for node in 0..4 {
                assert_eq!(forecast.count(NodeId(node)), owned(&after, node), "{weights:?}: node {node}");
            }
            let now = &before.maps()[&GroupId(0)];
            let (told, came) =
                (moved(now, &forecast).count(), moved(now, &after.maps()[&GroupId(0)]).count());
            assert_eq!(told, came, "{weights:?}");
        }
    }

    #[test]
    fn a_group_that_is_not_there_has_no_rest() {
        assert_eq!(at_rest(&Fleet::default(), GroupId(3)), None);
    }
}
