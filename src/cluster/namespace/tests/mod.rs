//! Whole namespaces: what they refuse, what they remember, that copies agree.

mod large;
mod persistence;
mod random;
mod rules;
mod writes;

use super::*;

/// An object from its key and its fields as JSON.
#[track_caller]
fn object(key: &str, fields: &str) -> (Key, Object) {
    let key: Key = key.parse().unwrap();
    let mut from = serde_json::Deserializer::from_str(fields);
    let object = Object::read(key.kind(), &mut from).unwrap_or_else(|error| panic!("{key}: {error}"));
    (key, object)
}

/// A change to `fields`, or of no fields a removal.
#[track_caller]
fn change(key: &str, fields: &str) -> Change {
    let key_only = || key.parse().unwrap();
    match fields {
        "" => Change { key: key_only(), expected: None, value: None },
        fields => {
            let (key, object) = object(key, fields);
            Change { key, expected: None, value: Some(object) }
        }
    }
}

/// A write of these changes under a request of its own.
fn write(request: u128, changes: Vec<Change>) -> Write {
    Write { request: RequestId(request), who: "olga".to_owned(), at: 1_700_000_000_000, changes }
}

const SMALL: &[(&str, &str)] = &[
    ("cluster", "{}"),
    ("node/n1", r#"{"backplane": "10.20.0.11", "workers": 2, "management": "10.30.0.11:7000"}"#),
    ("node/n2", r#"{"backplane": "10.20.0.12", "workers": 3}"#),
    ("node/n3", r#"{"backplane": "10.20.0.13", "workers": 2, "weight": 0}"#),
    ("group/edge", r#"{"members": ["n1", "n2"], "backups": ["n3"]}"#),
    ("group/far", r#"{"members": ["n2"]}"#),
    ("snat/10.10.0.101", r#"{"node": "n1"}"#),
    ("snat/10.10.0.102", r#"{"node": "n2", "group": "edge"}"#),
    ("vip/203.0.113.1", r#"{"group": "edge", "preferred": "n2"}"#),
    ("profile/slow", r#"{"idle": "1h", "health": {"type": "tcp"}}"#),
    ("virtual_server/web", r#"{"address": "203.0.113.1", "port": 80, "forward": "nat", "group": "edge"}"#),
    ("virtual_server/web/real_server/s1", r#"{"address": "10.10.0.21", "port": 8080}"#),
    ("virtual_server/web/real_server/s2", r#"{"address": "10.10.0.22", "weight": 0}"#),
    (
        "virtual_server/dns",
        r#"{"address": "203.0.113.2", "port": 53, "protocol": "udp", "forward": "dsr-l2", "ingress": "local", "profile": "slow"}"#,
    ),
    ("virtual_server/dns/real_server/s1", r#"{"address": "10.10.0.21", "health": {"type": "icmp"}}"#),
    ("limit/guests", r#"{"virtual_server": "web", "connections": 1000}"#),
];

/// A namespace with something of every kind.
#[track_caller]
fn small() -> Namespace {
    let mut space = Namespace::default();
    let changes = SMALL.iter().map(|(key, fields)| change(key, fields)).collect();
    assert_eq!(space.apply(1, &write(1, changes)), Outcome::Applied { index: 1 });
    space
}

/// What a write of these changes is refused for, a line each; it must leave the namespace as it was.
#[track_caller]
fn refused(space: &mut Namespace, changes: &[(&str, &str)]) -> String {
    let before = space.clone();
    let changes: Vec<Change> = changes.iter().map(|(key, fields)| change(key, fields)).collect();
    let (faults, more) = space.preview(9, &changes, |_| "made").unwrap_err();
    assert_eq!(*space, before, "a preview leaves no trace");
    assert_eq!(more, 0);
    faults.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_is_looked_at_in_a_preview_is_what_a_write_makes() {
    let space = small();
    let server = || space.iter().find(|(key, _)| key.kind() == Kind::RealServer).unwrap();
    let (key, entry) = server();
    let Object::RealServer(mut spec) = entry.object.clone() else { panic!("no real server") };
    spec.weight += 1;
    let changes = vec![Change { key: key.clone(), expected: None, value: Some(Object::RealServer(spec)) }];
    let mut previewed = space.clone();
    let seen = previewed.preview(9, &changes, |space| {
        (space.digest(), space.iter().map(|(_, e)| e.clone()).collect::<Vec<_>>())
    });
    assert_eq!(previewed, space, "a preview leaves no trace");
    let mut written = space.clone();
    written.apply(9, &write(9, changes));
    let made = (written.digest(), written.iter().map(|(_, e)| e.clone()).collect::<Vec<_>>());
    assert_eq!(seen, Ok(made), "revisions among it");
}
