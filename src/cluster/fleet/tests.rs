use super::*;
use crate::base::limits::BUCKETS;
use crate::cluster::plan;
use proptest::prelude::*;

const A: GroupId = GroupId(0);
const B: GroupId = GroupId(1);

fn fleet(nodes: u16) -> Fleet {
    let all: NodeSet = (0..nodes).map(NodeId).collect();
    let mut fleet = Fleet::default();
    fleet.set_topology(Topology {
        nodes: (0..nodes).map(|n| (NodeId(n), 1)).collect(),
        groups: [
            (A, GroupShape { seed: 1, members: all, backups: NodeSet::EMPTY }),
            (B, GroupShape { seed: 2, members: NodeSet::of(NodeId(0)), backups: NodeSet::of(NodeId(1)) }),
        ]
        .into(),
    });
    for node in (0..nodes).map(NodeId) {
        fleet.join(node, Incarnation(1)).unwrap();
        assert!(fleet.activate(node, Incarnation(1)));
    }
    settle(&mut fleet);
    fleet
}

/// Whether a node has anything to do with a bucket of all nodes' group.
fn named(fleet: &Fleet, node: NodeId) -> bool {
    fleet.maps()[&A].iter().any(|(_, place)| {
        place.owner == Some(node) || place.previous == Some(node) || place.has_replica(node)
    })
}

fn settle(fleet: &mut Fleet) {
    for group in [A, B] {
        for _ in 0..1000 {
            let mut steps = plan::next(&fleet.maps()[&group], &fleet.shares(group), COPIES, 512);
            let learners = fleet.maps()[&group].learners(fleet.serving());
            steps.extend(learners);
            if steps.is_empty() {
                break;
            }
            fleet.take(group, &steps);
        }
    }
}

#[test]
fn a_node_owns_nothing_before_it_is_active_and_only_its_life_counts() {
    let mut fleet = fleet(2);
    let mut wider = fleet.topology().clone();
    wider.nodes.insert(NodeId(2), 1);
    wider.groups.get_mut(&A).unwrap().members = NodeSet(7);
    assert_eq!(fleet.join(NodeId(2), Incarnation(5)), None, "the namespace doesn't have it");
    fleet.set_topology(wider);
    assert_eq!(fleet.join(NodeId(2), Incarnation(5)), Some(vec![]));
    settle(&mut fleet);
    assert!(!named(&fleet, NodeId(2)));
    assert!(!fleet.activate(NodeId(2), Incarnation(4)), "another life");
    assert!(fleet.activate(NodeId(2), Incarnation(5)) && !fleet.activate(NodeId(2), Incarnation(5)));
    settle(&mut fleet);
    assert!(fleet.maps()[&A].count(NodeId(2)).abs_diff(BUCKETS / 3) <= 1);
    assert_eq!(fleet.join(NodeId(2), Incarnation(5)), None, "it did");
    let taken = fleet.join(NodeId(2), Incarnation(6)).unwrap();
    assert_eq!(taken[0].1.len(), BUCKETS / 3, "what its last life owned is others'");
    assert!(!named(&fleet, NodeId(2)));
    assert_eq!(fleet.offline(NodeId(2), Incarnation(5), Why::Silent), None, "that life was over");
    assert_eq!(fleet.member(NodeId(2)).unwrap().phase, Phase::Joining);
}

#[test]
fn a_drained_node_gives_all_and_is_taken_back() {
    let mut fleet = fleet(3);
    assert!(fleet.drain(NodeId(1), true) && !fleet.drain(NodeId(1), true));
    settle(&mut fleet);
    let map = &fleet.maps()[&A];
    assert_eq!(map.count(NodeId(1)), 0);
    let held: Vec<_> = map.iter().filter(|(_, p)| p.previous == Some(NodeId(1))).map(|(b, _)| b).collect();
    assert!(held.len().abs_diff(BUCKETS / 3) <= 1, "it may have sessions still");
    assert!(!fleet.drained(A, NodeId(1), Incarnation(9), &held), "another life");
    assert!(fleet.drained(A, NodeId(1), Incarnation(1), &held));
    assert!(!named(&fleet, NodeId(1)));
    assert!(fleet.drain(NodeId(1), false));
    settle(&mut fleet);
    assert!(fleet.maps()[&A].count(NodeId(1)) > 1300);
}

#[test]
fn a_drained_node_stays_so_through_its_lives() {
    let mut fleet = fleet(3);
    assert!(!fleet.drain(NodeId(7), true), "the namespace doesn't have it");
    assert!(fleet.drain(NodeId(1), true));
    assert_eq!((fleet.draining(), fleet.serving()), (NodeSet::of(NodeId(1)), NodeSet(7)));
    fleet.join(NodeId(1), Incarnation(2)).unwrap();
    assert!(fleet.activate(NodeId(1), Incarnation(2)));
    assert_eq!(fleet.member(NodeId(1)).unwrap().phase, Phase::Draining);
    settle(&mut fleet);
    assert_eq!(fleet.maps()[&A].count(NodeId(1)), 0);
    // It may be taken back while it is away, too.
    fleet.offline(NodeId(1), Incarnation(2), Why::Silent);
    assert!(fleet.drain(NodeId(1), false) && !fleet.is_drained(NodeId(1)));
    fleet.join(NodeId(1), Incarnation(3)).unwrap();
    assert!(fleet.activate(NodeId(1), Incarnation(3)) && fleet.draining().is_empty());
}

#[test]
fn a_group_falls_to_its_backup_and_back() {
    let mut fleet = fleet(3);
    assert_eq!(fleet.maps()[&B].count(NodeId(0)), BUCKETS);
    fleet.offline(NodeId(0), Incarnation(1), Why::Silent);
    assert_eq!(fleet.maps()[&B].count(NodeId(1)), BUCKETS, "at once");
    fleet.join(NodeId(0), Incarnation(2)).unwrap();
    fleet.activate(NodeId(0), Incarnation(2));
    settle(&mut fleet);
    assert_eq!(fleet.maps()[&B].count(NodeId(0)), BUCKETS);
    // With both gone there is nobody.
    fleet.offline(NodeId(0), Incarnation(2), Why::Stuck(0));
    fleet.offline(NodeId(1), Incarnation(1), Why::Silent);
    assert!(fleet.maps()[&B].iter().all(|(_, p)| p.owner.is_none()));
}

#[test]
fn a_node_that_is_removed_leaves_nothing_behind() {
    let mut fleet = fleet(3);
    let mut narrower = fleet.topology().clone();
    narrower.nodes.remove(&NodeId(2));
    narrower.groups.get_mut(&A).unwrap().members = NodeSet(3);
    fleet.set_topology(narrower);
    assert!(named(&fleet, NodeId(2)), "its life isn't over yet");
    assert_eq!(fleet.removed().collect::<Vec<_>>(), [(NodeId(2), Incarnation(1))]);
    assert_eq!(fleet.join(NodeId(2), Incarnation(2)), None, "nor does another begin");
    let taken = fleet.offline(NodeId(2), Incarnation(1), Why::Removed).unwrap();
    assert!(taken[0].1.len().abs_diff(BUCKETS / 3) <= 1);
    assert_eq!(fleet.removed().next(), None);
    assert!(!named(&fleet, NodeId(2)));
    assert_eq!(fleet.member(NodeId(2)).unwrap().phase, Phase::Offline(Why::Removed));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Whatever becomes of the nodes of one group leaves the other group's placement as it is, to the byte.
    #[test]
    fn groups_do_not_touch_each_other(acts in prop::collection::vec((2..6u16, 0..4u8), 1..20)) {
        let mut fleet = fleet(6);
        let before = postcard::to_allocvec(&fleet.maps()[&B]).unwrap();
        let mut lives = [1; 6];
        for (node, act) in acts {
            let (id, life) = (NodeId(node), &mut lives[usize::from(node)]);
            match act {
                0 => { fleet.offline(id, Incarnation(*life), Why::Silent); }
                1 => {
                    *life += 1;
                    fleet.join(id, Incarnation(*life)).unwrap();
                    fleet.activate(id, Incarnation(*life));
                }
                drain => { fleet.drain(id, drain == 2); }
            }
            settle(&mut fleet);
            prop_assert_eq!(&postcard::to_allocvec(&fleet.maps()[&B]).unwrap(), &before);
        }
    }
}
