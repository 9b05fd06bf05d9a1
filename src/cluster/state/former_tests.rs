//! What becomes of the group that a virtual server was in before (MECHANISMS §2 point 4).

use super::tests::{apply, lives, object, speak};
use super::*;
use crate::cluster::namespace::{Change, Former, Key, Object, Outcome, RequestId};

const WEB: VirtualServerId = VirtualServerId(0);

/// Two nodes that serve, a group of each, and a virtual server of both.
fn state() -> State {
    let group = |name: &str| object(&format!("group/{name}"), &format!(r#"{{"members": ["{name}"]}}"#));
    let objects = [
        object("node/n1", r#"{"backplane": "10.20.0.11", "workers": 1}"#),
        object("node/n2", r#"{"backplane": "10.20.0.12", "workers": 1}"#),
        group("n1"),
        group("n2"),
        web("all"),
        object("virtual_server/web/real_server/s1", r#"{"address": "10.30.0.21"}"#),
    ];
    let mut state = State::new(Namespace::draft(objects).0);
    apply(&mut state, lives(0).into_iter().chain(lives(1)));
    state
}

fn web(group: &str) -> (Key, Object) {
    let fields =
        format!(r#"{{"address": "10.99.0.1", "port": 80, "forward": "dsr-l2", "group": "{group}"}}"#);
    object("virtual_server/web", &fields)
}

fn changes(key: &str, value: Option<Object>) -> Vec<Change> {
    vec![Change { key: key.parse().unwrap(), expected: None, value }]
}

/// Makes changes; why they are refused, if they are.
fn write(state: &mut State, changes: Vec<Change>) -> Option<String> {
    let request = RequestId(u128::from(state.index()));
    let foreseen = state.preview(&changes, |_| ()).err();
    apply(state, [Entry::Write(Write { request, who: "olga".into(), at: 7, changes })]);
    let Some(Outcome::Refused { faults, more }) = state.namespace().outcome(request).cloned() else {
        assert_eq!(foreseen, None);
        return None;
    };
    assert_eq!(foreseen, Some((faults.clone(), more)));
    Some(faults.iter().map(ToString::to_string).collect())
}

fn moves(state: &mut State, group: &str) -> Option<String> {
    write(state, changes("virtual_server/web", Some(web(group).1)))
}

/// In which group it was, and who may still have sessions of then.
fn former(state: &State) -> Option<(u16, Vec<u16>)> {
    let Former { group, holders, .. } = state.namespace().formers().get(WEB)?;
    Some((group.0, holders.keys().map(|node| node.0).collect()))
}

fn left(state: &State, node: u16, life: u32, since: u64) -> Entry {
    let known = state.namespace().formers().get(WEB).map_or(0, |former| former.since);
    Entry::Left(NodeId(node), Incarnation(life), vec![(WEB, known - since)])
}

#[test]
fn a_group_that_was_left_matters_until_its_nodes_say_that_they_have_nothing_of_it() {
    let mut state = state();
    assert_eq!(moves(&mut state, "n1"), None);
    assert_eq!(former(&state), None, "the nodes don't speak of it yet");
    apply(&mut state, [speak(1)]);
    assert_eq!(moves(&mut state, "all"), None);
    assert_eq!(former(&state), Some((1, vec![0, 1])));
    let (version, digest) = (state.version(), state.digest());
    assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
    for void in [left(&state, 0, 2, 0), left(&state, 0, 1, 1), left(&state, 5, 1, 0)] {
        apply(&mut state, [void]);
        assert_eq!((former(&state), state.version()), (Some((1, vec![0, 1])), version));
    }
    let first = left(&state, 0, 1, 0);
    apply(&mut state, [first.clone()]);
    assert_eq!((former(&state), state.version()), (Some((1, vec![1])), version), "nobody goes by that");
    assert_ne!(state.digest(), digest);
    assert_eq!(State::decode(&state.encode().unwrap()).unwrap(), state);
    let last = left(&state, 1, 1, 0);
    apply(&mut state, [last]);
    assert_eq!((former(&state), state.version()), (None, version + 1));
    // What was said of that time says nothing of the next.
    moves(&mut state, "n1");
    apply(&mut state, [first]);
    assert_eq!(former(&state), Some((0, vec![0, 1])));
}

#[test]
fn a_life_that_is_over_has_no_sessions() {
    let mut state = state();
    apply(&mut state, [speak(1)]);
    moves(&mut state, "n1");
    apply(&mut state, [Entry::Offline(NodeId(0), Incarnation(1), Why::Silent)]);
    assert_eq!(former(&state), Some((0, vec![1])));
    apply(&mut state, [Entry::Join(NodeId(0), Incarnation(2))]);
    assert_eq!(former(&state), Some((0, vec![1])), "its next one has none of then");
    apply(&mut state, [Entry::Join(NodeId(1), Incarnation(2))]);
    assert_eq!(former(&state), None);
    // Where nobody served there is nothing to keep.
    moves(&mut state, "all");
    assert_eq!(former(&state), None);
}

#[test]
fn who_has_nothing_left_may_inherit_something() {
    let mut state = state();
    apply(&mut state, [speak(1)]);
    moves(&mut state, "n1");
    let (one, other) = (left(&state, 0, 1, 0), left(&state, 1, 1, 0));
    apply(&mut state, [one.clone()]);
    assert_eq!(former(&state), Some((0, vec![1])));
    apply(&mut state, [Entry::Offline(NodeId(1), Incarnation(1), Why::Silent)]);
    assert_eq!(former(&state), Some((0, vec![0])), "it goes on with what the other had");
    let version = state.version();
    apply(&mut state, [one, other]);
    assert_eq!(
        (former(&state), state.version()),
        (Some((0, vec![0])), version),
        "what was said before is void"
    );
    let again = left(&state, 0, 1, 0);
    apply(&mut state, [again]);
    assert_eq!(former(&state), None);
}

#[test]
fn what_is_on_its_way_goes_on_or_back_and_what_it_leaves_stays() {
    let mut state = state();
    apply(&mut state, [speak(1)]);
    moves(&mut state, "n1");
    let why = moves(&mut state, "n2").unwrap();
    assert!(why.contains(r#"virtual_server/web: group: it still has sessions in group "all""#), "{why}");
    assert_eq!(moves(&mut state, "all"), None, "it may go back");
    assert_eq!(former(&state), Some((1, vec![0, 1])), "and what was begun meanwhile is there");
    let why = write(&mut state, changes("group/n1", None)).unwrap();
    assert!(why.contains("group/n1: virtual_server/web was in it before, and still has sessions"), "{why}");
    // Nor can a group be removed by the change by which it is left.
    assert_eq!(moves(&mut state, "n1"), None);
    assert_eq!(former(&state), Some((0, vec![0, 1])));
    let both = [changes("virtual_server/web", Some(web("all").1)), changes("group/n1", None)].concat();
    let why = write(&mut state, both).unwrap();
    assert!(why.contains("group/n1: virtual_server/web was in it before, and still has sessions"), "{why}");
    assert_eq!(moves(&mut state, "all"), None);
    assert_eq!(write(&mut state, changes("group/n2", None)), None);
    // Of what is removed nobody asks any more.
    let real = "virtual_server/web/real_server/s1";
    let both = [changes("virtual_server/web", None), changes(real, None)].concat();
    assert_eq!(write(&mut state, both), None);
    assert_eq!(former(&state), None);
    assert_eq!(write(&mut state, changes("group/n1", None)), None);
}

#[test]
fn a_snapshot_with_formers_that_cannot_be_is_refused() {
    let mut state = state();
    apply(&mut state, [speak(1)]);
    moves(&mut state, "n1");
    let whole = state.encode().unwrap();
    // The wire version; one virtual server, number 0, of group 0; the index; two lives.
    let head = [WireVersion::NEWEST.0, 1, 0, 0];
    let start = (0..whole.len() - 10)
        .find(|at| whole[*at..].starts_with(&head) && whole[at + 5..].starts_with(&[2, 0, 1, 1, 1]));
    let start = start.expect("the former group of one virtual server");
    let holders = start + 5;
    for (at, byte) in [(start + 3, 64), (start + 1, 2), (holders + 3, 64)] {
        let mut damaged = whole.clone();
        damaged[at] = byte;
        assert!(State::decode(&damaged).is_err(), "byte {at}");
    }
    assert!(
        State::decode(&[&whole[..holders], &[0], &whole[holders + 5..]].concat()).is_err(),
        "nobody would ever say that it has nothing left"
    );
}
