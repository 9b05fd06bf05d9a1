//! A virtual server changes its group (MECHANISMS §2 point 4): whom a packet of a flow that nobody on its way knows comes to, by what
//! the nodes know of the change.

use super::flows::node;
use crate::packets::{SYN, tcp};
use crate::world::{Spec, World, standard, virtual_server};
use proptest::prelude::*;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::sync::Arc;
use steerage::base::{FlowKey, GroupId, WorkerId};
use steerage::path::meta::Meta;
use steerage::path::steer::{self, Decision};
use steerage::path::verdict::Verdict;
use steerage::table::placement::{Home, Placement};
use steerage::view::{Buckets, Services, View};
use steerage::wire::backplane::Stage;

const NODES: usize = 5;
const ALL: GroupId = GroupId(0);
const EDGE: GroupId = GroupId(1);

/// Whose a bucket is and was.
type At = (usize, Option<usize>);

/// A virtual server's group, the one before if there may be sessions in it, and the one that it is about to be in.
type Known = (GroupId, Option<GroupId>, Option<GroupId>);

/// What nodes know before and after a change: that it leaves a group, goes back to it, and has nothing there any more.
const LEAVES: [Known; 2] = [(ALL, None, Some(EDGE)), (EDGE, Some(ALL), None)];
const RETURNS: [Known; 2] = [(EDGE, Some(ALL), Some(ALL)), (ALL, Some(EDGE), None)];
const FORGETS: [Known; 2] = [(EDGE, Some(ALL), None), (EDGE, None, None)];
const FORGETS_HIGHER: [Known; 2] = [(ALL, Some(EDGE), None), (ALL, None, None)];

/// All nodes, by what they know before and after.
struct Scene {
    views: Vec<[View; 2]>,
    meta: Meta,
}

impl Scene {
    fn new(change: [Known; 2]) -> Self {
        let members: Vec<_> = (1..=NODES).map(|n| format!("\"n{n}\"")).collect();
        let group = format!("[[group]]\nname = \"edge\"\nmembers = [{}]\n", members.join(", "));
        let cluster = standard(None) + &group + &virtual_server("moves", "10.99.0.9", "tcp", "dsr-l2", "all");
        let mut world = World::new(Spec { nodes: NODES, cluster, ..Spec::default() });
        let packet = tcp("192.168.1.5", 3000, "10.99.0.9", 80, SYN);
        let key = FlowKey::new(packet.src, packet.dst, packet.src_port, packet.dst_port, 6);
        let views = world.nodes.iter_mut().map(|n| n.node.manager().view().clone()).map(|view| {
            let id = view.virtual_server(&key).unwrap();
            let mut version = 5;
            change.map(|(group, former, next)| {
                let mut services = Services::clone(&view.services);
                let server = &mut services.virtual_servers[id.index()];
                (server.group, server.former) = (group, former);
                let regrouping = next.map(|next| (id, next)).into_iter().collect();
                version += 1;
                View {
                    services: Arc::new(services),
                    in_force: version,
                    decided: 7,
                    regrouping,
                    ..view.clone()
                }
            })
        });
        let views: Vec<_> = views.collect();
        let meta = Meta { key, hash: views[0][0].hash_key.flow(&key), ..Meta::EMPTY };
        Self { views, meta }
    }

    /// What all nodes know, whatever they know of the virtual server: whose the bucket is in either group.
    fn place(&mut self, in_all: At, in_edge: At) {
        let all = |(owner, previous): At| -> Buckets {
            let home = Home { owner: Some(node(owner)), previous: previous.map(node) };
            Placement::of(|_| home).into()
        };
        for view in self.views.iter_mut().flatten() {
            view.place(vec![all(in_all), all(in_edge)]);
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

fn opens((way, end): (Vec<usize>, Result<Decision, Verdict>)) -> Option<Vec<usize>> {
    matches!(end, Ok(Decision::Open(_))).then_some(way)
}

#[test]
fn both_groups_are_asked() {
    let mut scene = Scene::new(LEAVES);
    scene.place((3, Some(4)), (1, Some(2)));
    let way = |scene: &Scene, receiver| scene.way(receiver, &[true; NODES]);
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 3, 4, 1, 2, 1]));
    assert_eq!(opens(way(&scene, 1)), Some(vec![1, 3, 4, 1, 2, 1]));
    // While nothing else moves it is one frame more than else, and comes home as often.
    scene.place((3, None), (1, None));
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 3, 1]));
    assert_eq!(opens(way(&scene, 3)), Some(vec![3, 1]), "it knows itself that it has nothing");
    scene.place((1, None), (1, None));
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1]));
    // Nobody asks the dead.
    scene.place((3, Some(4)), (1, Some(2)));
    for view in scene.views.iter_mut().flatten() {
        view.nodes[2].up = false;
    }
    assert_eq!(opens(way(&scene, 5)), Some(vec![5, 1, 4, 1, 2, 1]));
    // And without an owner those that have connections are asked all the same.
    for view in scene.views.iter_mut().flatten() {
        let nobody = Placement::of(|_| Home { owner: None, previous: None });
        let all = Placement::of(|_| Home { owner: Some(node(2)), previous: None });
        view.place(vec![all.into(), nobody.into()]);
    }
    assert_eq!(way(&scene, 5), (vec![5, 2], Err(Verdict::NoOwner)));
}

fn at() -> impl Strategy<Value = At> {
    (1..=NODES, prop::option::of(1..=NODES))
        .prop_map(|(owner, previous)| (owner, previous.filter(|node| *node != owner)))
}

thread_local! {
    static SCENES: RefCell<[Scene; 4]> =
        RefCell::new([LEAVES, RETURNS, FORGETS, FORGETS_HIGHER].map(Scene::new));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever each node knows of a change by then, a packet comes to all that may have its session before another takes it, and
    /// to an end. It is dropped only while nodes disagree whose it is.
    #[test]
    fn who_may_have_a_session_is_asked_before_another_takes_the_flow(in_all in at(), in_edge in at()) {
        SCENES.with_borrow_mut(|scenes| {
            for (which, scene) in scenes.iter_mut().enumerate() {
                scene.place(in_all, in_edge);
                for known in 0..1 << NODES {
                    let new: [bool; NODES] = std::array::from_fn(|i| known >> i & 1 == 1);
                    for receiver in 1..=NODES {
                        let (way, end) = scene.way(receiver, &new);
                        prop_assert!(way.len() <= 7, "{:?}", way);
                        let agreed = known == 0 || known + 1 == 1 << NODES || which > 1;
                        if matches!(end, Err(Verdict::StageExhausted)) && !agreed {
                            continue;
                        }
                        prop_assert!(matches!(end, Ok(Decision::Open(_))), "{:?}: {:?}", way, end);
                        // What is forgotten has nothing.
                        let holders = match which {
                            2 => vec![in_edge],
                            3 => vec![in_all],
                            _ => vec![in_all, in_edge],
                        };
                        for holder in holders.into_iter().flat_map(|(owner, previous)| [Some(owner), previous]).flatten() {
                            prop_assert!(way.contains(&holder), "{} {:?} {:?}: {:?} of {:?}", which, in_all, in_edge, way, new);
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[test]
fn control_without_the_former_group_its_nodes_are_not_asked() {
    let mut scene = Scene::new(FORGETS);
    scene.place((3, Some(4)), (1, Some(2)));
    assert_eq!(opens(scene.way(5, &[true; NODES])), Some(vec![5, 1, 2, 1]));
}
