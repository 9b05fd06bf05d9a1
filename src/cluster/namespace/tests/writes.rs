//! What a namespace remembers of its changes.

use super::*;
use crate::cluster::namespace::write::{RECORDS, REQUESTS};

const S1: &str = "virtual_server/web/real_server/s1";

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn weight(n: u32) -> Change {
    change(S1, &format!(r#"{{"address": "10.10.0.21", "port": 8080, "weight": {n}}}"#))
}

#[test]
fn keys_read_as_written() {
    for (text, _) in SMALL {
        assert_eq!(key(text).to_string(), *text);
    }
    for bad in [
        "",
        "node",
        "node/",
        "node/a/b",
        "cluster/x",
        "snat/x",
        "snat/::ffff:1.2.3.4",
        "virtual_server/a/b/c",
        "node/é",
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
    assert_eq!(key("vip/2001:DB8::0").to_string(), "vip/2001:db8::", "one text for one object");
}

#[test]
fn objects_read_as_written_in_both_forms() {
    for (text, entry) in small().iter() {
        let json = serde_json::to_string(&entry.object).unwrap();
        assert_eq!(serde_json::from_str::<Object>(&json).unwrap(), entry.object, "{json}");
        let bytes = postcard::to_allocvec(&entry.object).unwrap();
        assert_eq!(postcard::from_bytes::<Object>(&bytes).unwrap(), entry.object, "{text}");
        let json = entry.object.write(serde_json::value::Serializer).unwrap();
        assert_eq!(Object::read(text.kind(), json).unwrap(), entry.object);
    }
    let unknown = serde_json::json!({"address": "10.0.0.1", "wieght": 1});
    let error = Object::read(Kind::RealServer, unknown).unwrap_err().to_string();
    assert!(error.contains("unknown field `wieght`"), "{error}");
}

#[test]
fn versions_and_ids() {
    let mut space = small();
    let of = |space: &Namespace, text: &str| space.get(&key(text)).map(|e| (e.version, e.revision, e.id));
    assert_eq!(of(&space, "group/far"), Some((1, 1, 2)), "behind the group of all nodes");
    assert_eq!(of(&space, S1), Some((1, 1, 0)));
    space.apply(5, &write(5, vec![weight(7)]));
    assert_eq!(of(&space, S1), Some((5, 5, 0)));
    assert_eq!(of(&space, "virtual_server/web"), Some((1, 5, 0)), "what stands below it changed");
    assert_eq!(of(&space, "virtual_server/dns"), Some((1, 1, 1)));
}

/// Sessions know real servers by id: it stands for one address, port and protocol.
#[test]
fn a_real_server_that_moves_gets_another_id() {
    let web = |fields: &str| {
        let all = format!(r#"{{"address": "203.0.113.1", "forward": "nat", "group": "edge", {fields}}}"#);
        change("virtual_server/web", &all)
    };
    let s2 = "virtual_server/web/real_server/s2";
    // What changes, and whether s1 (with a port of its own) and s2 (without) are elsewhere then.
    for (what, changes, moved) in [
        ("weight", vec![weight(7)], (false, false)),
        ("address", vec![change(S1, r#"{"address": "10.10.0.29", "port": 8080}"#)], (true, false)),
        ("port", vec![change(S1, r#"{"address": "10.10.0.21", "port": 8081}"#)], (true, false)),
        (
            "the same port, said",
            vec![change(s2, r#"{"address": "10.10.0.22", "weight": 0, "port": 80}"#)],
            (false, false),
        ),
        ("the virtual server's port", vec![web(r#""port": 81"#)], (false, true)),
        (
            "that, and the real servers stay",
            vec![web(r#""port": 81"#), change(s2, r#"{"address": "10.10.0.22", "port": 80}"#)],
            (false, false),
        ),
        (
            "that, with a new one beside",
            vec![
                web(r#""port": 81"#),
                change("virtual_server/web/real_server/s3", r#"{"address": "10.10.0.23"}"#),
            ],
            (false, true),
        ),
        ("its protocol", vec![web(r#""port": 80, "protocol": "udp""#)], (true, true)),
        ("its idle time", vec![web(r#""port": 80, "idle": "9m""#)], (false, false)),
    ] {
        let mut space = small();
        let ids = |space: &Namespace| [S1, s2].map(|text| space.get(&key(text)).unwrap().id);
        let before = ids(&space);
        let whole = space.clone();
        assert!(
            space.preview(4, &changes, |_| ()).is_ok() && space == whole,
            "{what}: a preview leaves no trace"
        );
        let count = changes.len();
        assert_eq!(space.apply(5, &write(5, changes)), Outcome::Applied { index: 5 }, "{what}");
        let after = ids(&space);
        assert_eq!((before[0] != after[0], before[1] != after[1]), moved, "{what}");
        assert_eq!(
            space.trail().filter(|record| record.index == 5).count(),
            count,
            "{what}: who changed nothing isn't there"
        );
    }
}

#[test]
fn compare_and_set() {
    let mut space = small();
    let mut first = weight(2);
    first.expected = Some(1);
    let mut second = weight(3);
    second.expected = Some(1);
    assert_eq!(space.apply(5, &write(5, vec![first])), Outcome::Applied { index: 5 });
    let Outcome::Refused { faults, .. } = space.apply(6, &write(6, vec![second.clone()])) else { panic!() };
    assert_eq!(
        faults[0].to_string(),
        format!("{S1}: is at version 5, and was to be at 1 (somebody else has changed it: look again)")
    );
    second.expected = Some(0);
    let Outcome::Refused { faults, .. } = space.apply(7, &write(7, vec![second])) else { panic!() };
    assert_eq!(faults[0].message, "exists already, at version 5");
    let absent = Change { expected: Some(3), ..change("node/n9", "") };
    let Outcome::Refused { faults, .. } = space.apply(8, &write(8, vec![absent])) else { panic!() };
    assert_eq!(faults[0].message, "does not exist, and was to be at version 3");
}

#[test]
fn a_request_is_made_once() {
    let mut space = small();
    let first = write(77, vec![weight(2)]);
    assert_eq!(space.apply(5, &first), Outcome::Applied { index: 5 });
    space.apply(6, &write(78, vec![weight(3)]));
    let digest = space.digest();
    assert_eq!(space.apply(7, &first), Outcome::Applied { index: 5 }, "the first outcome again");
    assert_eq!(space.digest(), digest, "and nothing done");
    assert_eq!(space.outcome(RequestId(77)), Some(&Outcome::Applied { index: 5 }));
    let bad = write(79, vec![change("node/n9", "")]);
    let outcome = space.apply(8, &bad);
    assert!(matches!(outcome, Outcome::Refused { .. }));
    assert_eq!(space.apply(9, &bad), outcome);
    // What is forgotten is bounded.
    for i in 0..REQUESTS as u64 {
        space.apply(10 + i, &write(1000 + u128::from(i), Vec::new()));
    }
    assert_eq!(space.outcome(RequestId(77)), None);
    assert_eq!(space.outcome(RequestId(1000)), Some(&Outcome::Applied { index: 10 }));
}

#[test]
fn what_is_the_same_is_no_change() {
    let mut space = small();
    let digest = space.digest();
    let same = small()
        .iter()
        .map(|(key, e)| Change { key: key.clone(), expected: Some(1), value: Some(e.object.clone()) })
        .collect();
    assert_eq!(space.apply(5, &write(5, same)), Outcome::Applied { index: 5 });
    assert_eq!(space.digest(), digest);
    assert_eq!(space.trail().count(), SMALL.len());
}

#[test]
fn who_changed_what() {
    let mut space = small();
    space.apply(5, &write(0xab, vec![weight(2)]));
    space.apply(6, &write(6, vec![change("limit/guests", "")]));
    let s1 = key(S1);
    let seen: Vec<String> = space
        .history(&s1)
        .map(|r| format!("{} {} {} {:?} {}", r.index, r.who, r.request, r.before, r.summary))
        .collect();
    assert_eq!(
        seen,
        [
            format!("1 olga {:032x} None + {S1}: address \"10.10.0.21\", port 8080, weight 1", 1),
            format!("5 olga 000000000000000000000000000000ab Some(1) ~ {S1}: weight 1 → 2"),
        ]
    );
    assert_eq!(space.trail().last().unwrap().summary, "- limit/guests");
    for i in 0..RECORDS as u64 {
        space.apply(10 + i, &write(1000 + u128::from(i), vec![weight(10 + i as u32 % 2)]));
    }
    assert_eq!((space.trail().count(), space.trail().next().unwrap().index), (RECORDS, 10));
}

#[test]
fn differences() {
    let space = small();
    let mut wanted: Vec<(Key, Object)> = SMALL.iter().map(|(key, fields)| object(key, fields)).collect();
    assert_eq!(space.diff(&wanted), []);
    wanted.retain(|(key, _)| !matches!(key, Key::Limit(_) | Key::Cluster));
    wanted.push(object("node/n4", r#"{"backplane": "10.20.0.14", "workers": 4}"#));
    for (at, fields) in [
        ("virtual_server/web/real_server/s1", r#"{"address": "10.10.0.21", "weight": 5}"#),
        ("profile/slow", r#"{"idle": "60s", "health": {"type": "tcp", "rise": 3}}"#),
    ] {
        let (at, object) = object(at, fields);
        wanted.iter_mut().find(|(key, _)| *key == at).unwrap().1 = object;
    }
    let changes = space.diff(&wanted);
    let shown: Vec<String> = space.describe(&changes).iter().map(Difference::to_string).collect();
    assert_eq!(
        shown,
        [
            "- limit/guests",
            r#"~ profile/slow: health.rise 2 → 3, idle "1h" → "1m""#,
            "~ virtual_server/web/real_server/s1: port 8080 → unset, weight 1 → 5",
            r#"+ node/n4: backplane "10.20.0.14", weight 1, workers 4"#,
        ]
    );
    let versions: Vec<Option<u64>> = changes.iter().map(|change| change.expected).collect();
    assert_eq!(versions, [Some(1), Some(1), Some(1), Some(0)]);
    let mut after = space.clone();
    assert_eq!(after.apply(2, &write(2, changes)), Outcome::Applied { index: 2 });
    assert_eq!(after.diff(&wanted), []);
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = small().encode().unwrap();
    assert_eq!(Namespace::decode(&bytes).unwrap(), small());
    assert!(matches!(Namespace::decode(&[]), Err(DecodeError::Damaged(_))));
    assert_eq!(Namespace::decode(&[9]), Err(DecodeError::Version(9)));
    for end in 1..bytes.len() {
        assert!(matches!(Namespace::decode(&bytes[..end]), Err(DecodeError::Damaged(_))), "{end}");
    }
    // Behind the layout, their count, and the cluster's own: how many ids nodes have had.
    let with_nodes = |ids| [&bytes[..3], &[ids], &bytes[4..]].concat();
    assert!(Namespace::decode(&with_nodes(64)).is_ok());
    assert!(matches!(Namespace::decode(&with_nodes(65)), Err(DecodeError::Damaged(_))), "ids are indices");
    let mut stray = small();
    let digest = stray.digest();
    stray.apply(2, &write(2, vec![weight(9)]));
    assert_ne!(stray.digest(), digest);
}
