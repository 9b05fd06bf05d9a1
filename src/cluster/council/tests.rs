use super::super::fences::Fences;
use super::super::namespace::{By, Key, Name, NodeSpec, Object, RequestId};
use super::*;
use crate::base::Addr;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// What a log was told, and what it is to tell.
#[derive(Default)]
struct Both {
    outputs: VecDeque<Output>,
    proposed: Vec<Entry>,
    restored_from: Vec<u16>,
    resigned: usize,
    snapshots: Vec<u64>,
}

#[derive(Clone, Default)]
struct Scripted(Rc<RefCell<Both>>);

impl Log for Scripted {
    fn propose(&mut self, bytes: Vec<u8>, _: Fences) -> Ticket {
        self.0.borrow_mut().proposed.push(Entry::decode(&bytes).unwrap());
        Ticket(0)
    }

    fn set_replicas(&mut self, _: Vec<Replica>) -> Ticket {
        Ticket(0)
    }

    fn take(&mut self) -> Option<Output> {
        self.0.borrow_mut().outputs.pop_front()
    }

    fn snapshot(&mut self, index: u64, _: Vec<u8>) {
        self.0.borrow_mut().snapshots.push(index);
    }

    fn restore(&mut self, from: ReplicaId) {
        self.0.borrow_mut().restored_from.push(from.0);
    }

    fn resign(&mut self) {
        self.0.borrow_mut().resigned += 1;
    }

    fn renew(&mut self, token: u64, _: Incarnation) {
        self.0.borrow_mut().outputs.push_back(Output::Renewed { token });
    }

    fn fenced(&self) -> Fences {
        Fences::NONE
    }
}

const MS: Duration = Duration::from_millis(1);
const TIMES: Times = Times {
    renewal: Duration::from_millis(50),
    lease: Duration::from_millis(350),
    patience: Patience { suspicion: Duration::from_millis(400), prepare: Duration::from_millis(1500) },
};

/// Node 1 of three, whose first life serves, in its council; and the time.
struct Scene {
    log: Scripted,
    council: Council<Scripted>,
    now: Instant,
    index: u64,
}

fn first() -> State {
    let node = |n: u16| {
        let spec = NodeSpec {
            backplane: Addr::v4([10, 0, 0, n as u8 + 1]),
            workers: 1,
            weight: 1,
            management: None,
        };
        (Key::Node(Name::new(&format!("n{n}")).unwrap()), Object::Node(spec))
    };
    State::new(Namespace::draft((0..3).map(node)).0)
}

const ME: NodeId = NodeId(1);

impl Scene {
    fn new() -> Self {
        let (log, now) = (Scripted::default(), Instant::ZERO);
        let council = Council::new(ME, Incarnation(1), TIMES, log.clone(), first(), now);
        let mut scene = Self { log, council, now, index: 0 };
        let replica =
            |id| Replica { id: ReplicaId(id), name: format!("n{id}"), address: String::new(), votes: true };
        scene.give(Output::Replicas([0, 1, 2].map(replica).into()));
        for node in [0, 1, 2].map(NodeId) {
            scene.append(&Entry::Join(node, Incarnation(1)));
            scene.append(&Entry::Activate(node, Incarnation(1)));
        }
        scene.turn();
        let version = scene.council.state().version();
        scene.append(&Entry::InForce(version));
        scene.turn();
        scene.council.prepared(version, true);
        scene.council.adopted(version);
        scene.council.hears(NodeSet(7));
        scene.turn();
        assert!(scene.council.lease().is_some(), "it serves");
        scene
    }

    fn give(&mut self, output: Output) {
        self.log.0.borrow_mut().outputs.push_back(output);
    }

    fn append(&mut self, entry: &Entry) {
        self.index += 1;
        self.give(Output::Entry { index: self.index, bytes: entry.encode().unwrap() });
    }

    fn turn(&mut self) -> News {
        self.now = self.now + 50 * MS;
        self.council.turn(self.now)
    }

    /// Another node says that it has this digest at the last entry that this one has.
    fn told(&mut self, node: u16, digest: u64) {
        let (index, hears) = (self.council.state().index(), NodeSet(7));
        let report = Report { index, digest, prepared: 1, hears, ..Report::default() };
        self.council.heard(NodeId(node), Incarnation(1), &report, None, self.now);
    }

    fn digest(&self) -> u64 {
        self.council.state().digest()
    }
}

#[test]
fn a_state_that_lacks_an_entry_is_had_anew_from_one_node_after_the_other() {
    let mut scene = Scene::new();
    let digest = scene.digest();
    [0, 2].into_iter().for_each(|node| scene.told(node, digest));
    let good = scene.council.state().clone();
    scene.index += 1;
    scene.give(Output::Entry { index: scene.index, bytes: vec![0xff; 9] });
    scene.append(&Entry::Drain(ME, true, By { request: RequestId(1), who: "olga".into(), at: 0 }));
    scene.give(Output::WantSnapshot);
    scene.turn();
    assert!(matches!(scene.council.ended(), Some(Why::Apply(why)) if why.starts_with("entry 8: ")));
    assert_eq!((scene.council.lease(), scene.council.state()), (None, &good), "nothing is put on top of it");
    let report = scene.council.report();
    assert_eq!((report.index, report.prepared, report.ready), (0, 0, false), "it says that it can't go on");
    assert_eq!(scene.log.0.borrow().snapshots, [0; 0], "nor is it stored");
    scene.council.begin(Incarnation(2));
    scene.council.prepared(99, true);
    assert!(!scene.council.report().ready, "not by that state");
    for _ in 0..25 {
        [0, 2].into_iter().for_each(|node| scene.told(node, digest));
        scene.turn();
    }
    assert_eq!(scene.log.0.borrow().restored_from, [0, 2], "one a second");
    scene.give(Output::Anew);
    scene.give(Output::Install { index: 7, bytes: good.encode().unwrap() });
    scene.index = 7;
    scene.append(&Entry::Join(ME, Incarnation(2)));
    let news = scene.turn();
    assert!(news.installed && news.changed && scene.council.ended().is_none());
    assert_eq!(scene.council.state().index(), 8);
    assert_eq!((scene.council.report().index, scene.council.report().prepared), (8, 0));
    for _ in 0..25 {
        scene.turn();
    }
    assert_eq!(scene.log.0.borrow().restored_from.len(), 2, "it has what it needs");
}

#[test]
fn whose_state_differs_from_most_is_at_fault_and_gives_up_leading() {
    let mut scene = Scene::new();
    scene.give(Output::Role { leader: Some(ME.into()), term: 1, quorum: true });
    let digest = scene.digest();
    scene.told(0, digest ^ 1);
    scene.turn();
    assert!(scene.council.ended().is_none() && scene.council.divided().is_some(), "of two, neither");
    assert!(scene.log.0.borrow().proposed.iter().all(|entry| !matches!(entry, Entry::Offline(..))));
    scene.told(2, digest ^ 1);
    let before = scene.log.0.borrow().proposed.len();
    scene.turn();
    assert_eq!(scene.council.ended(), Some(&Why::Digest));
    assert_eq!(scene.log.0.borrow().restored_from, [0]);
    assert_eq!(scene.log.0.borrow().proposed.len(), before, "it leads by what it has no more");
}

#[test]
fn the_leader_takes_out_whose_state_differs_from_most_and_who_cant_go_on() {
    let mut scene = Scene::new();
    scene.give(Output::Role { leader: Some(ME.into()), term: 1, quorum: true });
    let digest = scene.digest();
    scene.told(0, digest ^ 1);
    scene.told(2, digest);
    scene.turn();
    let offline = |node, why| Entry::Offline(NodeId(node), Incarnation(1), why);
    assert_eq!(scene.log.0.borrow().proposed, [offline(0, Why::Digest)]);
    let report = Report { trouble: Trouble::Log, ..Report::default() };
    scene.council.heard(NodeId(2), Incarnation(1), &report, None, scene.now);
    scene.turn();
    assert!(scene.log.0.borrow().proposed.contains(&offline(2, Why::Ended(Trouble::Log))));
}

/// What nodes say that run this software, or the last release.
fn speaking(speaks: WireVersion) -> Report {
    Report { prepared: 1, ready: true, hears: NodeSet(7), speaks, ..Report::default() }
}

#[test]
fn what_all_can_speak_is_spoken_once_all_have_said_so() {
    let (old, new) = (WireVersion::OLDEST, WireVersion::NEWEST);
    let mut scene = Scene::new();
    scene.give(Output::Role { leader: Some(ME.into()), term: 1, quorum: true });
    let entry = |lives: [u32; 3]| {
        Entry::Speak(new, (0..3).map(|node| (NodeId(node), Incarnation(lives[usize::from(node)]))).collect())
    };
    let raised = |scene: &Scene| {
        let proposed = &scene.log.0.borrow().proposed;
        proposed.iter().any(|entry| matches!(entry, Entry::Speak(..)))
    };
    let said = |scene: &mut Scene, node: u16, life, speaks| {
        scene.council.heard(NodeId(node), Incarnation(life), &speaking(speaks), None, scene.now);
        scene.turn();
    };
    said(&mut scene, 0, 1, new);
    assert!(!raised(&scene), "nothing is known of node 2");
    said(&mut scene, 2, 1, old);
    assert!(!raised(&scene), "it can't");
    // It is renewed. What it said before it was taken out holds until it says something else.
    scene.append(&Entry::Offline(NodeId(2), Incarnation(1), Why::Silent));
    scene.turn();
    assert!(!raised(&scene), "it is to come back as it was");
    scene.append(&Entry::Join(NodeId(2), Incarnation(3)));
    said(&mut scene, 2, 2, new);
    assert!(!raised(&scene), "that was an earlier life");
    said(&mut scene, 2, 3, new);
    assert!(scene.log.0.borrow().proposed.contains(&entry([1, 1, 3])));
    scene.append(&entry([1, 1, 3]));
    scene.turn();
    assert_eq!(scene.council.state().wire(), new);
    // Another that can't is not let in, and keeps nobody from anything.
    let joins = |scene: &Scene, life| {
        scene.log.0.borrow().proposed.contains(&Entry::Join(NodeId(0), Incarnation(life)))
    };
    said(&mut scene, 0, 2, old);
    assert!(!joins(&scene, 2));
    said(&mut scene, 0, 3, new);
    assert!(joins(&scene, 3));
}

#[test]
fn what_is_spoken_and_cant_be_here_ends_the_life() {
    let newer = WireVersion(WireVersion::NEWEST.0 + 1);
    let mut state = first();
    let speak = Entry::Speak(newer, (0..3).map(|node| (NodeId(node), Incarnation(1))).collect());
    state.apply(1, &speak);
    let snapshot = Output::Install { index: 9, bytes: state.encode().unwrap() };
    for by_snapshot in [false, true] {
        let mut scene = Scene::new();
        match by_snapshot {
            true => scene.give(snapshot.clone()),
            false => scene.append(&speak),
        }
        scene.turn();
        assert!(matches!(scene.council.ended(), Some(Why::Apply(why)) if why.contains("wire version")));
        assert!(scene.council.lease().is_none() && !scene.council.report().ready);
        (0..50).for_each(|_| _ = scene.turn());
        assert!(scene.log.0.borrow().restored_from.is_empty(), "another's state would be no better");
        assert!(scene.log.0.borrow().resigned > 1, "others could wait for it to lead on");
    }
}

#[test]
fn a_log_that_has_stopped_ends_the_life_and_there_is_no_other() {
    let mut scene = Scene::new();
    scene.give(Output::Failed("no space".into()));
    scene.turn();
    assert!(matches!(scene.council.ended(), Some(Why::Apply(why)) if why.contains("no space")));
    assert!(scene.council.stopped() && scene.council.lease().is_none());
    let report = scene.council.report();
    assert_eq!((report.prepared, report.trouble), (0, Trouble::Log));
    for number in 0..9 {
        let trouble = Trouble::numbered(number);
        assert_eq!(trouble.number(), if trouble == Trouble::Unsaid { 0 } else { number });
    }
}

#[test]
fn what_begins_anew_unasked_ends_the_life() {
    let mut scene = Scene::new();
    scene.give(Output::Anew);
    scene.turn();
    assert!(scene.council.ended().is_some() && scene.council.lease().is_none());
    assert_eq!(scene.council.state().index(), 0);
}
