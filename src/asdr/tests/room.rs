//! Copies without room, requests to delete, and records that come again after all was forgotten.

use super::*;
use crate::wire::state::{Content, Fact, Message};

/// A pair whose copy has room for `entries` small entries.
fn narrow(entries: usize) -> Net {
    let mut net = Net::new(2);
    let bounds = Bounds { entries: [entries, 0, 0], ..BOUNDS };
    net.shards[1] = Shard::new(NodeId(1), HashKey([1, 2]), bounds);
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 0, true)]));
    net
}

/// Nobody waits for who can't, and nobody is told that it has what it has not.
#[test]
fn a_copy_without_room_is_told_of_and_holds_up_nobody() {
    let mut net = narrow(2);
    for name in ["a", "b"] {
        assert!(matches!(net.tell(0, name, set("1")), Answer::Done(_)));
    }
    for round in 0..200 {
        let name = format!("c{round}");
        assert_eq!(net.tell(0, &name, set("1")), Answer::Refused(Refusal::Full), "{name}");
    }
    assert!(matches!(net.tell(0, "a", set("2")), Answer::Done(_)), "what is there may change");
    assert_eq!(
        net.tell(0, "c7", Operation::Read),
        Answer::Refused(Refusal::Full),
        "not all have it, so nobody reads it"
    );
    assert!(matches!(net.tell(0, "b", Operation::Delete), Answer::Done(_)));
    net.pass(4 * BOUNDS.grace);
    assert_eq!(net.found(0, "c7"), Some(value("1")), "there is room again");
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!(net.found(1, "c7"), Some(value("1")));
}

#[test]
fn an_owner_deletes_what_it_is_asked_to_if_that_is_still_the_same() {
    let mut net = pair(2);
    for name in ["a", "b"] {
        net.tell(0, name, set("1"));
    }
    net.tell(0, "b", set("2"));
    for name in ["a", "b", "c"] {
        let mut out = Sent(NodeId(1), &mut net.flying);
        net.shards[1].ask_owner_to_delete((GROUP, BUCKET), &key(name), b"1", &mut out);
    }
    net.deliver();
    assert_eq!([net.found(0, "a"), net.found(0, "b")], [None, Some(value("2"))]);
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!([net.found(1, "a"), net.found(1, "b")], [None, Some(value("2"))]);
}

/// Whoever has kept a record and sends it again brings nothing back.
#[test]
fn what_is_deleted_and_forgotten_does_not_come_back_by_an_old_record() {
    let mut net = pair(2);
    net.ask(0, "a", set("1"));
    let (_, _, put) = net.flying[0].clone();
    net.deliver();
    net.tell(0, "a", Operation::Delete);
    net.tell(0, "b", set("1"));
    net.tell(0, "c", set("1"));
    net.pass(4 * BOUNDS.grace);
    let record = Record::parse(&put).unwrap().0;
    assert!(matches!(record.message, Message::Put { fact: Fact { content: Content::Value(_), .. }, .. }));
    let m = net.moment();
    net.shards[1].receive(m, NodeId(0), &record, &mut Sent(NodeId(1), &mut net.flying));
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!([net.found(1, "a"), net.found(1, "b")], [None, Some(value("1"))]);
}
