//! Any writes whatever.

use super::*;
use proptest::prelude::*;

/// One of the objects that a few names and values make, right or wrong.
fn any_change() -> impl Strategy<Value = Change> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let group = || prop::sample::select(vec!["all", "a", "b"]);
    let address =
        || prop::sample::select(vec!["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.2.0.1", "10.2.0.2", "fd00::1"]);
    let nodes = || prop::collection::vec(name(), 0..3).prop_map(|all| format!("{all:?}"));
    let fields = prop_oneof![
        (0..4u16).prop_map(|n| ("cluster".to_owned(), format!(r#"{{"data_port": {}}}"#, 6590 + 4 * n))),
        (name(), 1..6u8, 0..3u32, 1..4u16).prop_map(|(n, a, w, c)| {
            (format!("node/{n}"), format!(r#"{{"backplane": "10.1.0.{a}", "workers": {c}, "weight": {w}}}"#))
        }),
        (name(), nodes(), nodes())
            .prop_map(|(n, m, b)| (format!("group/{n}"), format!(r#"{{"members": {m}, "backups": {b}}}"#))),
        (address(), group(), name())
            .prop_map(|(a, g, n)| (format!("snat/{a}"), format!(r#"{{"group": "{g}", "node": "{n}"}}"#))),
        (address(), group(), name())
            .prop_map(|(a, g, n)| (format!("vip/{a}"), format!(r#"{{"group": "{g}", "preferred": "{n}"}}"#))),
        name().prop_map(|n| (format!("profile/{n}"), r#"{"idle": "5s"}"#.to_owned())),
        (name(), address(), 80..82u16, group(), prop::sample::select(vec!["nat", "ipip", "dsr-l2"]), name())
            .prop_map(|(n, a, p, g, f, o)| {
                let fields = format!(
                    r#"{{"address": "{a}", "port": {p}, "group": "{g}", "forward": "{f}", "profile": "{o}"}}"#
                );
                (format!("virtual_server/{n}"), fields)
            }),
        (name(), name(), address(), 0..2u32).prop_map(|(v, n, a, w)| {
            (format!("virtual_server/{v}/real_server/{n}"), format!(r#"{{"address": "{a}", "weight": {w}}}"#))
        }),
        (name(), name()).prop_map(|(n, v)| (
            format!("limit/{n}"),
            format!(r#"{{"virtual_server": "{v}", "connections": 5}}"#)
        )),
    ];
    (fields, prop::bool::weighted(0.2), prop::option::weighted(0.2, 0..20u64)).prop_map(
        |((key, fields), remove, expected)| {
            let fields = if remove { "" } else { &fields };
            Change { expected, ..change(&key, fields) }
        },
    )
}

fn any_writes() -> impl Strategy<Value = Vec<Write>> {
    let one = (0..40u128, prop::collection::vec(any_change(), 1..7));
    prop::collection::vec(one.prop_map(|(request, changes)| write(request, changes)), 1..40)
}

/// A namespace that such changes can build upon.
fn base() -> Namespace {
    let objects = [
        ("cluster", "{}"),
        ("node/a", r#"{"backplane": "10.1.0.1", "workers": 1}"#),
        ("node/b", r#"{"backplane": "10.1.0.2", "workers": 1}"#),
        ("group/a", r#"{"members": ["a", "b"]}"#),
        ("snat/10.2.0.9", r#"{"node": "a"}"#),
        ("profile/a", "{}"),
        ("virtual_server/a", r#"{"address": "10.9.0.1", "port": 80, "forward": "nat"}"#),
        ("virtual_server/a/real_server/a", r#"{"address": "10.2.0.7"}"#),
    ];
    let mut base = Namespace::default();
    let changes = objects.iter().map(|(key, fields)| change(key, fields)).collect();
    assert_eq!(base.apply(1, &write(1000, changes)), Outcome::Applied { index: 1 });
    base
}

/// The rules by looking at all of it, not only at what a change touches.
fn is_right(space: &Namespace) {
    let objects: Vec<_> = space.iter().map(|(key, entry)| (key.clone(), entry.object.clone())).collect();
    if !objects.is_empty() {
        let findings = Namespace::draft(objects).1;
        assert_eq!(findings, [], "what was let pass bit by bit is wrong as a whole");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn copies_agree(writes in any_writes(), cut in any::<prop::sample::Index>(), seeded in any::<bool>()) {
        let mut one = if seeded { base() } else { Namespace::default() };
        let mut other = one.clone();
        let cut = cut.index(writes.len());
        for (i, write) in writes.iter().enumerate() {
            if i == cut {
                other = Namespace::decode(&other.encode().unwrap()).unwrap();
            }
            let index = i as u64 + 2;
            let before = one.clone();
            let outcome = one.apply(index, write);
            prop_assert_eq!(&outcome, &other.apply(index, write));
            prop_assert_eq!(one.digest(), other.digest());
            if outcome == (Outcome::Applied { index }) {
                is_right(&one);
            } else {
                let same = (&before.entries, before.next, &before.index, &before.trail, before.digest());
                prop_assert_eq!((&one.entries, one.next, &one.index, &one.trail, one.digest()), same);
            }
        }
        prop_assert_eq!(&one, &other);
        let again = Namespace::decode(&one.encode().unwrap()).unwrap();
        prop_assert_eq!(again, one, "the indices are those that the objects make");
    }

    #[test]
    fn differences_lead_there(writes in any_writes(), more in any_writes()) {
        let [mut one, mut two] = [base(), base()];
        for (i, write) in writes.iter().enumerate() {
            one.apply(i as u64 + 2, write);
        }
        for (i, write) in more.iter().enumerate() {
            two.apply(i as u64 + 2, write);
        }
        let mut wanted: Vec<_> = two.iter().map(|(key, entry)| (key.clone(), entry.object.clone())).collect();
        // The cluster's settings are never removed: whoever wants none wants the usual ones.
        if two.get(&Key::Cluster).is_none() {
            wanted.insert(0, object("cluster", "{}"));
        }
        let changes = one.diff(&wanted);
        let outcome = one.apply(100, &write(5000, changes));
        prop_assert_eq!(outcome, Outcome::Applied { index: 100 });
        let got: Vec<_> = one.iter().map(|(key, entry)| (key.clone(), entry.object.clone())).collect();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn random_bytes_are_no_namespace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        bytes.insert(0, 1);
        _ = Namespace::decode(&bytes);
    }
}
