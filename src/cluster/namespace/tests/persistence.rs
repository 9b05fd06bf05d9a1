//! Clients that keep their real servers: when that may change.

use super::*;

const SIP: &[(&str, &str)] = &[
    ("virtual_server/sip", r#"{"address": "203.0.113.3", "port": 5060, "forward": "ipip"}"#),
    ("virtual_server/sip/real_server/s1", r#"{"address": "10.10.0.21"}"#),
    ("persistence/sip", r#"{"timeout": "10m", "prefix_v4": 24}"#),
];

fn with_sip() -> Namespace {
    let mut space = small();
    let changes = SIP.iter().map(|(key, fields)| change(key, fields)).collect();
    assert_eq!(space.apply(2, &write(2, changes)), Outcome::Applied { index: 2 });
    space
}

#[test]
fn it_comes_and_goes_with_its_virtual_server_and_its_timeout_may_change() {
    let mut space = with_sip();
    let timeout = change("persistence/sip", r#"{"timeout": "1m", "prefix_v4": 24}"#);
    assert_eq!(space.apply(3, &write(3, vec![timeout])), Outcome::Applied { index: 3 });
    let server = space.get(&"virtual_server/sip".parse().unwrap()).unwrap();
    assert_eq!((server.version, server.revision), (2, 3), "who is made of it is made anew");
    let gone = SIP.iter().rev().map(|(key, _)| change(key, "")).collect();
    assert_eq!(space.apply(4, &write(4, gone)), Outcome::Applied { index: 4 });
}

#[test]
fn what_would_move_connections_is_refused() {
    let space = &mut with_sip();
    for (changes, why) in [
        (
            &[("persistence/web", "{}")][..],
            "persistence/web: would make its connections others' buckets: it comes",
        ),
        (&[("persistence/sip", "")], "persistence/sip: would make its connections others' buckets: it goes"),
        (
            &[("persistence/sip", r#"{"prefix_v4": 32}"#)],
            "other prefixes would make its connections others' buckets",
        ),
        (&[("persistence/sop", "{}")], "there is no virtual_server \"sop\""),
        (
            &[("virtual_server/sip", ""), ("virtual_server/sip/real_server/s1", "")],
            "is in use by persistence/sip",
        ),
        (
            &[(
                "virtual_server/sip",
                r#"{"address": "203.0.113.3", "port": 5060, "forward": "ipip", "ingress": "local"}"#,
            )],
            "\"local\" keeps no state, and persistence needs it",
        ),
    ] {
        let said = refused(space, changes);
        assert!(said.contains(why), "{changes:?}: {said}");
    }
    for (field, fields) in [
        ("timeout", r#"{"timeout": "0s"}"#),
        ("timeout", r#"{"timeout": "1999ms"}"#),
        ("prefix_v4", r#"{"prefix_v4": 33}"#),
        ("prefix_v4", r#"{"prefix_v4": 0}"#),
        ("prefix_v6", r#"{"prefix_v6": 129}"#),
    ] {
        let key = "persistence/sip".parse().unwrap();
        let mut from = serde_json::Deserializer::from_str(fields);
        let Ok(object) = Object::read(Kind::Persistence, &mut from) else { continue };
        let change = Change { key, expected: None, value: Some(object) };
        let (faults, _) = space.preview(9, &[change], |_| ()).unwrap_err();
        assert!(faults.iter().any(|fault| fault.field.as_deref() == Some(field)), "{fields}: {faults:?}");
    }
}

/// What the first release didn't know shows in bytes and digest only once there is any.
#[test]
fn without_any_the_namespace_is_what_the_last_release_knew() {
    let (plain, mut space) = (small(), with_sip());
    let bytes = |space: &Namespace| space.encode().unwrap();
    assert_eq!(bytes(&plain)[1], Kind::FIRST as u8, "so many next ids");
    assert_eq!(bytes(&space)[1], Kind::ALL.len() as u8);
    for space in [&plain, &space] {
        assert_eq!(Namespace::decode(&bytes(space)).unwrap(), *space);
    }
    let digest = space.digest();
    space.apply(3, &write(3, SIP.iter().rev().map(|(key, _)| change(key, "")).collect()));
    assert_ne!(space.digest(), digest);
    assert_eq!(Namespace::decode(&bytes(&space)).unwrap().digest(), space.digest());
}
