//! Copies that have something else than they said.

use super::*;
use crate::base::planted::{self, Bug};
use crate::wire::state::{Content, Fact, Name};

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];

/// Node 0 owns the bucket, 1 has a complete copy.
fn pair() -> Net {
    let mut net = Net::new(2);
    net.adopt(&chain(1, copy(0, 1, true), &[copy(1, 1, true)]));
    net
}

fn named(number: usize) -> String {
    format!("{}{number}", NAMES[number % NAMES.len()])
}

/// What a node has, by its own look.
fn seen(net: &Net, node: usize, name: &str) -> Option<Vec<u8>> {
    match net.shards[node].look(net.now, GROUP, BUCKET, &key(name)) {
        Seen::Value(value, _) => Some(value.to_vec()),
        _ => None,
    }
}

fn differing(net: &Net, names: usize) -> usize {
    (0..names).filter(|n| seen(net, 0, &named(*n)) != seen(net, 1, &named(*n))).count()
}

fn mended(net: &mut Net) -> u32 {
    let events = std::iter::from_fn(|| net.shards[0].event());
    let entries = events.map(|event| match event {
        Event::Mended { copy, entries, .. } => {
            assert_eq!(copy, NodeId(1));
            entries
        }
        Event::Complete { .. } => panic!("all are"),
    });
    entries.sum()
}

/// Writes of which the copy drops one in eight.
fn with_dropped(net: &mut Net, names: usize) -> usize {
    planted::plant(Some(Bug::UpdateDropped));
    for n in 0..names {
        assert!(
            matches!(net.tell(0, &named(n), set("new")), Answer::Done(_)),
            "the copy says that it has it"
        );
    }
    planted::plant(None);
    let lost = differing(net, names);
    assert!(lost * 9 >= names, "{lost} of {names}");
    lost
}

#[test]
fn a_dropped_update_is_found_and_written_again_within_one_round() {
    let mut net = pair();
    let lost = with_dropped(&mut net, 150);
    net.pass(BOUNDS.audit + BOUNDS.audit / 2);
    assert_eq!((differing(&net, 150), mended(&mut net) as usize), (0, lost));
    // The copy is as good as the owner now.
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 1, true), &[]));
    for n in 0..150 {
        assert_eq!(net.found(1, &named(n)), Some(value("new")), "{}", named(n));
    }
}

/// A newer value that was dropped is no less one than a first.
#[test]
fn an_old_value_gives_way() {
    let mut net = pair();
    for n in 0..40 {
        net.tell(0, &named(n), set("old"));
    }
    let lost = with_dropped(&mut net, 40);
    assert!((0..40).any(|n| seen(&net, 1, &named(n)) == Some(b"old".to_vec())));
    net.pass(2 * BOUNDS.audit);
    assert_eq!((differing(&net, 40), mended(&mut net) as usize), (0, lost));
}

#[test]
fn control_without_an_audit_it_is_never_found() {
    let mut net = pair();
    for shard in &mut net.shards {
        shard.bounds.audit = Duration::ZERO;
    }
    let lost = with_dropped(&mut net, 150);
    net.pass(5 * BOUNDS.audit);
    assert_eq!((differing(&net, 150), mended(&mut net)), (lost, 0));
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 1, true), &[]));
    assert!((0..150).any(|n| net.found(1, &named(n)).is_none()), "the next owner has lost them");
}

/// What a copy has, and the owner has not, goes: also where the owner has nothing of the bucket any more.
#[test]
fn what_the_owner_has_not_is_deleted_at_its_copy() {
    let mut net = pair();
    net.tell(0, "a", set("stays"));
    net.tell(0, "b", set("goes"));
    net.tell(0, "b", Operation::Delete);
    let m = net.moment();
    let at = net.shards[1].at(GROUP, BUCKET).unwrap();
    for name in ["stranger", "b"] {
        let name = key(name);
        let content = Content::Value(b"x");
        // A version that no tombstone stands against, of this epoch and the last.
        let fact = Fact { version: Version::new(1, 3).0, ticks: 0, unsure: false, content };
        let entry = net.shards[1].store.find(at, name.name());
        entry.into_iter().for_each(|entry| net.shards[1].remove(entry));
        assert!(net.shards[1].keep(m, at, Name { ..name.name() }, &fact));
    }
    net.pass(2 * BOUNDS.audit);
    assert_eq!(["stranger", "b", "a"].map(|name| seen(&net, 1, name).is_some()), [false, false, true]);
    assert_eq!(mended(&mut net), 2);
    net.tell(0, "a", Operation::Delete);
    net.pass(BOUNDS.grace * 2);
    assert_eq!(mended(&mut net), 0);
}

/// Copies that have all are left alone, whatever is written, deleted or expires meanwhile.
#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let mut net = pair();
    for round in 0..30 {
        for n in 0..60 {
            match (n + round) % 5 {
                0 => _ = net.tell(0, &named(n), Operation::Delete),
                1 => _ = net.tell(0, &named(n), Operation::Set { value: value("short"), ticks: 2 }),
                2 | 3 => _ = net.tell(0, &named(n), set("kept")),
                _ => {}
            }
        }
        net.pass(Duration::from_millis(100));
    }
    let counts = net.shards[0].counts();
    assert_eq!((counts.differing, mended(&mut net)), (0, 0));
    // The same on both sides, and nothing at all once all is deleted.
    let at = net.shards[0].at(GROUP, BUCKET).unwrap();
    let digests = |net: &Net| [0, 1].map(|node: usize| net.shards[node].places[at].digest);
    assert!(digests(&net)[0] != 0 && digests(&net)[0] == digests(&net)[1]);
    for n in 0..60 {
        net.tell(0, &named(n), Operation::Delete);
    }
    assert_eq!(digests(&net), [0, 0]);
}

/// What a dead owner had begun to write, and only some have: it is made the same everywhere, and is nobody's fault.
#[test]
fn what_was_never_acknowledged_is_made_the_same_without_a_word() {
    let mut net = Net::new(3);
    net.adopt(&chain(1, copy(0, 1, true), &[copy(1, 1, true), copy(2, 1, true)]));
    net.tell(0, "a", set("old"));
    for (away, name) in [(1, "first"), (2, "second")] {
        net.away[away] = true;
        let (_, answer) = net.ask(0, name, set("x"));
        assert_eq!(answer, None);
        net.deliver();
        net.away[away] = false;
    }
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 1, true), &[copy(2, 1, true)]));
    net.pass(2 * BOUNDS.audit);
    let of = |node: usize| ["a", "first", "second"].map(|name| seen(&net, node, name));
    assert_eq!(of(1), of(2));
    let events: Vec<_> = std::iter::from_fn(|| net.shards[1].event()).collect();
    assert!(net.shards[1].counts().differing > 0 && events.is_empty(), "{events:?}");
}

/// Idle buckets in which nothing ever was take no record.
#[test]
fn what_was_never_used_is_not_asked_about() {
    let mut net = pair();
    net.deliver();
    let before = net.sent;
    net.pass(3 * BOUNDS.audit);
    assert_eq!(net.sent, before);
}

/// A copy that goes on to differ (its node throws away what it gets) takes a bounded number of records.
#[test]
fn a_copy_that_never_agrees_is_asked_once_a_round() {
    let mut net = pair();
    with_dropped(&mut net, 150);
    planted::plant(Some(Bug::UpdateDropped));
    net.deliver();
    let before = net.sent;
    net.pass(10 * BOUNDS.audit);
    planted::plant(None);
    let (sent, differing) = (net.sent - before, net.shards[0].counts().differing);
    assert!(differing <= 11 && sent < 1500, "{differing} times, {sent} records");
}
