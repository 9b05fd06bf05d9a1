//! A virtual server changes its group (MECHANISMS §2 point 4): whom a packet of a flow that nobody on its way knows comes to, by what
//! the nodes know of the change.

use super::flows::node;
use crate::packets::{SYN, tcp};
use crate::world::{Spec, World, standard, virtual_server};
use proptest::prelude::*;
use std::cmp::Ordering;
use std::sync::Arc;
use steerage::base::{FlowKey, GroupId, VirtualServerId, WorkerId};
use steerage::path::meta::Meta;
use steerage::path::steer::{self, Decision};
use steerage::path::verdict::Verdict;
use steerage::table::placement::{Home, Placement};
use steerage::view::{Buckets, Services, View};
use steerage::wire::backplane::Stage;

const NODES: usize = 5;
const BEFORE: GroupId = GroupId(0);
const AFTER: GroupId = GroupId(1);

/// Whose a bucket is and was.
type At = (usize, Option<usize>);

/// The packet's virtual server in one group and then the other, as all nodes know it before and after.
struct Scene {
    views: Vec<[View; 2]>,
    meta: Meta,
}

impl Scene {
    fn new() -> Self {
        let members: Vec<_> = (1..=NODES).map(|n| format!("\"n{n}\"")).collect();
        let group = format!("[[group]]\nname = \"edge\"\nmembers = [{}]\n", members.join(", "));
        let cluster = standard(None) + &group + &virtual_server("moves", "10.99.0.9", "tcp", "dsr-l2", "all");
        let mut world = World::new(Spec { nodes: NODES, cluster, ..Spec::default() });
        let views = world.nodes.iter_mut().map(|n| n.node.manager().view().clone()).map(|view| {
            let packet = tcp("192.168.1.5", 3000, "10.99.0.9", 80, SYN);
            let id = view.virtual_server(&key(&packet)).unwrap();
            [(BEFORE, None), (AFTER, Some(BEFORE))].map(|(group, former)| {
                let mut services = Services::clone(&view.services);
                let server = &mut services.virtual_servers[id.index()];
                (server.group, server.former) = (group, former);
                let (in_force, regrouping): (u32, Vec<VirtualServerId>) =
                    if former.is_none() { (6, vec![id]) } else { (7, vec![]) };
                let regrouping = regrouping.into();
                View { services: Arc::new(services), in_force, decided: 7, regrouping, ..view.clone() }
            })
        });
        let views: Vec<_> = views.collect();
        let key = key(&tcp("192.168.1.5", 3000, "10.99.0.9", 80, SYN));
        let meta = Meta { key, hash: views[0][0].hash_key.flow(&key), ..Meta::EMPTY };
        Self { views, meta }
    }

    fn place(&mut self, before: At, after: At) {
        let all = |(owner, previous): At| -> Buckets {
            let home = Home { owner: Some(node(owner)), previous: previous.map(node) };
            Placement::of(|_| home).into()
        };
        for view in self.views.iter_mut().flatten() {
            view.place(vec![all(before), all(after)]);
        }
    }

    /// The nodes that a packet comes to, one after the other, if none has a session, and how that ends; `new`: who goes by the
    /// change already.
    fn way(&self, receiver: usize, new: &[bool; NODES]) -> (Vec<usize>, Result<Decision, Verdict>) {
        let (mut at, mut stage, mut knows) = (receiver, Stage::Receive, Ordering::Equal);
        let mut way = vec![receiver];
        loop {
            let view = &self.views[at - 1][usize::from(new[at - 1])];
            let meta = Meta { stage, sender_knows: knows, ..self.meta };
            let decision = steer::by_tuple(view, WorkerId(0), &meta);
            let (next, to) = match decision {
                Ok(Decision::Node(owner)) => (Stage::Owner, owner.node),
                Ok(Decision::Ask(next, asked)) => (next, asked.node),
                Ok(Decision::Return(owner)) => (Stage::Returned, owner.node),
                end => return (way, end),
            };
            assert!(next > stage && to != node(at), "{way:?}: {decision:?}");
            (at, stage) = (to.index() + 1, next);
            way.push(at);
            knows = 7.cmp(&self.views[at - 1][usize::from(new[at - 1])].in_force);
        }
    }
}

fn key(packet: &crate::packets::Packet) -> FlowKey {
    FlowKey::new(packet.src, packet.dst, packet.src_port, packet.dst_port, 6)
}

fn at() -> impl Strategy<Value = At> {
    (1..=NODES, prop::option::of(1..=NODES))
        .prop_map(|(owner, previous)| (owner, previous.filter(|node| *node != owner)))
}

#[test]
fn the_former_group_is_asked_behind_the_new_one() {
    let mut scene = Scene::new();
    scene.place((3, Some(4)), (1, Some(2)));
    let way = |scene: &Scene, receiver| scene.way(receiver, &[true; NODES]);
    let opens = |(way, end): (Vec<usize>, _)| matches!(end, Ok(Decision::Open(_))).then_some(way);
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 3, 4, 2, 1]));
    assert_eq!(opens(way(&scene, 1)), Some(vec![1, 3, 4, 2, 1]));
    assert_eq!(opens(way(&scene, 3)), Some(vec![3, 4, 2, 1]), "it knows itself that it has nothing");
    assert_eq!(opens(way(&scene, 2)), Some(vec![2, 3, 4, 2, 1]));
    // Nobody asks the dead.
    for view in scene.views.iter_mut().flatten() {
        view.nodes[2].up = false;
    }
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 4, 2, 1]));
    // And nobody is asked twice.
    scene.place((1, Some(2)), (1, Some(2)));
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 2, 1]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever each node knows of the change by then, a packet comes to all that may have its session before another takes it,
    /// and to an end.
    #[test]
    fn who_may_have_a_session_is_asked_before_another_takes_the_flow(before in at(), after in at()) {
        thread_local!(static SCENE: std::cell::RefCell<Scene> = std::cell::RefCell::new(Scene::new()));
        SCENE.with_borrow_mut(|scene| {
            scene.place(before, after);
            for known in 0..1 << NODES {
                let new: [bool; NODES] = std::array::from_fn(|i| known >> i & 1 == 1);
                for receiver in 1..=NODES {
                    let (way, end) = scene.way(receiver, &new);
                    prop_assert!(way.len() <= 6, "{:?}", way);
                    if matches!(end, Err(Verdict::StageExhausted)) && known + 1 < 1 << NODES {
                        continue;
                    }
                    prop_assert!(matches!(end, Ok(Decision::Open(_))), "{:?}: {:?}", way, end);
                    let taker = way[way.len() - 1];
                    let holders = [Some(before.0), before.1];
                    for holder in holders.into_iter().flatten() {
                        prop_assert!(way.contains(&holder), "{:?} at {:?}, then {:?}: n{} took it", way, before, after, taker);
                    }
                    let all = known + 1 == 1 << NODES;
                    prop_assert!(!all || taker == after.0 && after.1.is_none_or(|node| way.contains(&node)));
                }
            }
            Ok(())
        })?;
    }
}

/// Nodes that take nothing but what is theirs: the control for the above.
#[test]
fn control_without_the_former_group_its_nodes_are_not_asked() {
    let mut scene = Scene::new();
    scene.place((3, Some(4)), (1, Some(2)));
    for view in scene.views.iter_mut().flatten() {
        let mut services = Services::clone(&view.services);
        services.virtual_servers.iter_mut().for_each(|server| server.former = None);
        view.services = Arc::new(services);
    }
    let (way, _) = scene.way(5, &[true; NODES]);
    assert_eq!(way, [5, 1, 2, 1]);
}
