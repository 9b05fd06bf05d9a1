use super::*;
use crate::base::RealServerId;
use crate::cluster::health::{Health, Standing};
use crate::cluster::namespace::{Change, Key, Object, RequestId};

pub(super) fn object(key: &str, fields: &str) -> (Key, Object) {
    let key: Key = key.parse().unwrap();
    let object = Object::read(key.kind(), &mut serde_json::Deserializer::from_str(fields)).unwrap();
    (key, object)
}

fn state() -> State {
    let objects = [
        object("node/n1", r#"{"backplane": "10.20.0.11", "workers": 1}"#),
        object("node/n2", r#"{"backplane": "10.20.0.12", "workers": 1}"#),
        object("virtual_server/web", r#"{"address": "10.99.0.1", "port": 80, "forward": "nat"}"#),
        object("virtual_server/web/real_server/s1", r#"{"address": "10.30.0.21"}"#),
        object("virtual_server/web/real_server/s2", r#"{"address": "10.30.0.22"}"#),
    ];
    State::new(Namespace::draft(objects).0)
}

pub(super) fn apply(state: &mut State, entries: impl IntoIterator<Item = Entry>) {
    for entry in entries {
        state.apply(state.index() + 1, &entry);
    }
}

pub(super) fn lives(node: u16) -> [Entry; 2] {
    let (node, life) = (NodeId(node), Incarnation(1));
    [Entry::Join(node, life), Entry::Activate(node, life)]
}

/// Both nodes, in the first life of each or a later one, can speak the newest.
pub(super) fn speak(life: u32) -> Entry {
    Entry::Speak(WireVersion::NEWEST, [0, 1].map(|node| (NodeId(node), Incarnation(life))).into())
}

fn by() -> By {
    By { request: RequestId(5), who: "olga".into(), at: 7 }
}

fn down(server: RealServerId) -> Entry {
    let to = Standing { health: Health::Down, reason: "refused".into() };
    Entry::Health(vec![health::Change { server, from: Health::Unknown, to }])
}

#[test]
fn a_snapshot_has_the_digest_of_what_it_was_made_of() {
    let mut state = state();
    apply(&mut state, lives(0).into_iter().chain(lives(1)));
    let steps = (0..9).map(|bucket| Step::Own(Bucket(bucket), NodeId(0))).collect();
    let entries = [Entry::InForce(5), Entry::Steps(GroupId(0), steps), down(RealServerId(0))];
    let mut digests = vec![state.digest()];
    for entry in entries {
        apply(&mut state, [entry]);
        digests.push(state.digest());
        let again = State::decode(&state.encode().unwrap()).unwrap();
        assert_eq!((again.digest(), &again), (state.digest(), &state));
    }
    digests.dedup();
    assert_eq!(digests.len(), 4, "each entry shows in it");
    let mut other = State::decode(&state.encode().unwrap()).unwrap();
    let taken = Entry::Offline(NodeId(0), Incarnation(1), Why::Silent);
    for state in [&mut state, &mut other] {
        apply(state, [taken.clone()]);
    }
    assert_eq!(other.digest(), state.digest());
    // Of one placement alone.
    let own = |node| Entry::Steps(GroupId(0), vec![Step::Own(Bucket(4000), NodeId(node))]);
    apply(&mut state, [own(1)]);
    apply(&mut other, [own(0)]);
    assert_ne!(other.digest(), state.digest());
}

/// Nodes of the last release and of this one hold the same state while they serve together, and give it to each other.
#[test]
fn what_the_oldest_wire_version_says_is_as_it_was() {
    let mut state = state();
    apply(&mut state, lives(0));
    let bytes = state.encode().unwrap();
    let digest = (state.digest(), siphash13_bytes(DIGEST_KEY, &bytes));
    assert_eq!(digest, (0xfc44_1df4_b2b8_18d2, 0xada4_8ca2_c26c_e82e), "{digest:x?}");
    apply(&mut state, [speak(1)]);
    let longer = state.encode().unwrap();
    assert_eq!(State::decode(&longer).unwrap(), state);
    assert!(
        longer.len() > bytes.len() + 2,
        "the version, no group that was left, and who has been with each bucket since when"
    );
    assert!(State::decode(&[longer, vec![0]].concat()).is_err(), "another release's");
}

#[test]
fn the_wire_version_rises_if_all_can_speak_it_in_the_lives_that_there_are() {
    let mut state = state();
    apply(&mut state, lives(0).into_iter().chain(lives(1)));
    let (version, digest) = (state.version(), state.digest());
    assert_eq!(state.wire(), WireVersion::FIRST);
    let one = Entry::Speak(WireVersion::NEWEST, [(NodeId(0), Incarnation(1))].into());
    apply(&mut state, [one]);
    assert_eq!(state.wire(), WireVersion::FIRST, "of node 1 nobody has said anything");
    // It comes back in another life, perhaps as the older release.
    apply(&mut state, [Entry::Join(NodeId(1), Incarnation(2)), speak(1)]);
    assert_eq!(state.wire(), WireVersion::FIRST);
    let old = Entry::Speak(WireVersion::FIRST, [0, 1].map(|node| (NodeId(node), Incarnation(2))).into());
    apply(&mut state, [speak(2), old]);
    assert_eq!(
        (state.wire(), state.version()),
        (WireVersion::NEWEST, version + 2),
        "the life made a version, and that nodes share state"
    );
    assert_ne!(state.digest(), digest);
}

/// A node that is cut off may never hear that it is to give a bucket away: who gets it has to wait for its lease as well.
#[test]
fn what_a_dead_node_was_about_to_give_away_is_taken_over_too() {
    let group = GroupId(0);
    let mut state = state();
    apply(&mut state, lives(0).into_iter().chain(lives(1)));
    let own = |bucket, node| Step::Own(Bucket(bucket), NodeId(node));
    apply(&mut state, [Entry::Steps(group, vec![own(1, 0), own(2, 0)])]);
    let version = state.version();
    apply(&mut state, [Entry::InForce(version)]);
    let learn = [Step::Learn(Bucket(2), NodeId(1)), Step::Complete(Bucket(2), NodeId(1))];
    apply(&mut state, [Entry::Steps(group, learn.into()), Entry::Steps(group, vec![own(2, 1)])]);
    let applied = state.apply(state.index() + 1, &Entry::Offline(NodeId(0), Incarnation(1), Why::Silent));
    assert_eq!(applied.taken_over, [(group, vec![Bucket(1), Bucket(2)])], "the second was node 1's already");
    // Once all go by that it isn't any more.
    let version = state.version();
    apply(&mut state, [Entry::InForce(version)]);
    let applied = state.apply(state.index() + 1, &Entry::Join(NodeId(0), Incarnation(2)));
    assert_eq!(applied.taken_over, []);
}

#[test]
fn a_real_server_takes_its_health_along() {
    let mut state = state();
    let key: Key = "virtual_server/web/real_server/s2".parse().unwrap();
    let id = RealServerId(state.namespace().get(&key).unwrap().id);
    apply(&mut state, [down(id)]);
    assert_eq!(state.standings().health(id), Health::Down);
    let write = |expected| {
        let changes = vec![Change { key: key.clone(), expected, value: None }];
        let By { request, who, at } = by();
        Entry::Write(Write {
            request: RequestId(request.0 + u128::from(expected.is_some())),
            who,
            at,
            changes,
        })
    };
    apply(&mut state, [write(Some(99))]);
    assert_eq!(state.standings().health(id), Health::Down, "refused");
    let mut moved = state.clone();
    apply(&mut state, [write(None)]);
    assert_eq!(state.standings().get(id), None);
    assert_eq!(state.standings(), &Standings::default());
    // One that moves is another, and yet to be checked.
    let fields = serde_json::json!({"address": "10.10.0.29"});
    let value = Some(Object::read(key.kind(), fields).unwrap());
    let changes = vec![Change { key: key.clone(), expected: None, value }];
    let By { request, who, at } = by();
    let request = RequestId(request.0 + 9);
    apply(&mut moved, [Entry::Write(Write { request, who, at, changes })]);
    assert_ne!(RealServerId(moved.namespace().get(&key).unwrap().id), id);
    assert_eq!(moved.standings(), &Standings::default());
}

#[test]
fn a_drain_is_made_once_and_is_in_the_audit_trail() {
    let mut state = state();
    apply(&mut state, lives(0));
    let drain = |id, drain| Entry::Drain(NodeId(0), drain, By { request: RequestId(id), ..by() });
    // The first comes again when it has been taken back.
    apply(&mut state, [drain(1, true), drain(2, true), drain(3, false), drain(1, true)]);
    assert!(!state.fleet().is_drained(NodeId(0)));
    let key = state.namespace().node_key(NodeId(0)).unwrap();
    let told: Vec<_> =
        state.namespace().history(&key).map(|r| (r.index, r.who.as_str(), r.summary.as_str())).collect();
    assert_eq!(told, [(3, "olga", "drained"), (5, "olga", "taken back from being drained")]);
}

#[test]
fn what_a_life_had_is_over_until_a_version_without_it_is_in_force() {
    let mut state = state();
    let (first, second) = (NodeId(0), NodeId(1));
    apply(&mut state, lives(0).into_iter().chain(lives(1)));
    let version = state.version();
    apply(&mut state, [Entry::InForce(version)]);
    assert_eq!(state.over(), NodeSet::EMPTY);
    apply(&mut state, [Entry::Offline(first, Incarnation(1), Why::Silent)]);
    assert_eq!(state.over(), NodeSet::of(first));
    // Its next life has nothing of it.
    let next = Incarnation(2);
    apply(&mut state, [Entry::Join(first, next), Entry::Activate(first, next)]);
    assert_eq!(state.over(), NodeSet::of(first));
    apply(&mut state, [Entry::Join(second, next)]);
    assert_eq!(state.over(), [first, second].into_iter().collect());
    let version = state.version();
    apply(&mut state, [Entry::InForce(version)]);
    assert_eq!(state.over(), NodeSet::EMPTY);
}

#[test]
fn a_snapshot_of_another_placement_is_refused() {
    let whole = state().encode().unwrap();
    assert!(State::decode(&whole).is_ok());
    // An owner, an epoch, no replicas, no previous owner; 4096 times.
    let place = [0, 0, 0, 0];
    let count = [0x80, 0x20];
    let start = whole.windows(6).position(|w| w[..2] == count && w[2..] == place).unwrap();
    let fewer = [&whole[..start], &[0xff, 0x1f], &whole[start + 6..]].concat();
    assert!(State::decode(&fewer).is_err(), "a bucket is missing");
    for (node, there) in [(63, true), (64, false)] {
        let owned = [&whole[..start + 2], &[1, node, 0, 0, 0], &whole[start + 6..]].concat();
        assert_eq!(State::decode(&owned).is_ok(), there, "node {node}");
    }
}
