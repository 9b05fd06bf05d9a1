mod audit;
mod room;

use super::*;
use crate::base::{Bucket, GroupId, HashKey, Instant, NodeId};
use crate::wire::state::Record;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::time::Duration;

const GROUP: GroupId = GroupId(0);
const BUCKET: Bucket = Bucket(7);
const BOUNDS: Bounds = Bounds {
    entries: [1000, 100, 10],
    groups: 1,
    worker: (0, 1),
    busy: 64,
    waiters: 100,
    again: Duration::from_millis(10),
    patience: Duration::from_millis(300),
    grace: Duration::from_secs(2),
    audit: Duration::from_secs(1),
};

/// Shards whose records come in order, or, to a node that is away, not at all.
struct Net {
    now: Instant,
    shards: Vec<Shard>,
    flying: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    away: Vec<bool>,
    sent: usize,
    next: u64,
}

struct Sent<'a>(NodeId, &'a mut VecDeque<(NodeId, NodeId, Vec<u8>)>);

impl Outbox for Sent<'_> {
    fn send(&mut self, to: NodeId, record: &Record<'_>) {
        let mut bytes = vec![0; crate::wire::state::MAX_RECORD];
        let len = record.write(&mut bytes);
        self.1.push_back((self.0, to, bytes[..len].to_vec()));
    }
}

fn copy(node: u16, since: u32, complete: bool) -> Copy {
    Copy { node: NodeId(node), since, complete }
}

fn chain(epoch: u32, owner: Copy, copies: &[Copy]) -> Chain {
    Chain { epoch, owner: Some(owner), copies: copies.iter().copied().collect() }
}

fn key(name: &str) -> Key {
    Key::new(Kind::Persistence, name.as_bytes()).unwrap()
}

fn value(text: &str) -> Value {
    text.bytes().collect()
}

fn set(text: &str) -> Operation {
    Operation::Set { value: value(text), ticks: 0 }
}

impl Net {
    fn new(nodes: u16) -> Self {
        let shard = |node| Shard::new(NodeId(node), HashKey([1, 2]), BOUNDS);
        Self {
            now: Instant(1_000_000_000_000),
            shards: (0..nodes).map(shard).collect(),
            flying: VecDeque::new(),
            away: vec![false; usize::from(nodes)],
            sent: 0,
            next: 0,
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, lease: self.now + Duration::from_secs(1) }
    }

    /// All but those that are away go by a chain.
    fn adopt(&mut self, chain: &Chain) {
        let m = self.moment();
        for node in 0..self.shards.len() {
            if !self.away[node] {
                let mut out = Sent(NodeId(node as u16), &mut self.flying);
                self.shards[node].adopt(m, GROUP, BUCKET, chain, &mut out);
            }
        }
    }

    fn ask_by(
        &mut self,
        m: Moment,
        node: usize,
        name: &str,
        operation: Operation,
    ) -> (Ticket, Option<Answer>) {
        self.next += 1;
        let mut out = Sent(NodeId(node as u16), &mut self.flying);
        let ticket = Ticket(self.next);
        (ticket, self.shards[node].ask(m, (GROUP, BUCKET), &key(name), operation, ticket, &mut out))
    }

    fn ask(&mut self, node: usize, name: &str, operation: Operation) -> (Ticket, Option<Answer>) {
        self.ask_by(self.moment(), node, name, operation)
    }

    /// Asks, and lets all records come.
    fn tell(&mut self, node: usize, name: &str, operation: Operation) -> Answer {
        let (ticket, answer) = self.ask(node, name, operation);
        answer.unwrap_or_else(|| {
            self.deliver();
            let told = std::iter::from_fn(|| self.shards[node].answer()).find(|(t, _)| *t == ticket);
            told.unwrap_or_else(|| panic!("{name}: no answer")).1
        })
    }

    fn deliver(&mut self) {
        let m = self.moment();
        while let Some((from, to, bytes)) = self.flying.pop_front() {
            self.sent += 1;
            if self.away[to.index()] || self.away[from.index()] {
                continue;
            }
            let (record, _) = Record::parse(&bytes).unwrap();
            self.shards[to.index()].receive(m, from, &record, &mut Sent(to, &mut self.flying));
        }
    }

    /// Time goes by, with turns and records.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(5);
            let m = self.moment();
            for node in 0..self.shards.len() {
                if !self.away[node] {
                    self.shards[node].turn(m, &mut Sent(NodeId(node as u16), &mut self.flying));
                }
            }
            self.deliver();
        }
    }

    fn complete(&mut self) -> Option<Copy> {
        self.shards.iter_mut().find_map(|shard| {
            let Event::Complete { copy, .. } = shard.event()? else { panic!("none differs") };
            Some(copy)
        })
    }

    fn found(&mut self, node: usize, name: &str) -> Option<Value> {
        match self.tell(node, name, Operation::Read) {
            Answer::Found(value, _) => Some(value),
            Answer::NotFound => None,
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// The first two nodes have the bucket, and both all of it.
fn pair(nodes: u16) -> Net {
    let mut net = Net::new(nodes);
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 0, true)]));
    net
}

#[test]
fn a_write_is_acknowledged_once_the_copy_has_it_and_readers_wait_for_that() {
    let mut net = pair(2);
    let (write, answer) = net.ask(0, "a", set("1"));
    assert_eq!(answer, None);
    let (read, answer) = net.ask(0, "a", Operation::Read);
    assert_eq!((answer, net.shards[0].answer()), (None, None));
    net.deliver();
    let version = Version::new(1, 1);
    assert_eq!(net.shards[0].answer(), Some((write, Answer::Done(version))));
    assert_eq!(net.shards[0].answer(), Some((read, Answer::Found(value("1"), version))));
    assert_eq!(net.sent, 2, "one record there, one back");
    assert_eq!(net.found(0, "b"), None);
    assert_eq!(net.ask(1, "a", Operation::Read).1, Some(Answer::Refused(Refusal::NotOwner)));
}

#[test]
fn what_is_lost_is_sent_again_and_who_waits_too_long_is_told() {
    let mut net = pair(2);
    net.away[1] = true;
    let (write, _) = net.ask(0, "a", set("1"));
    net.pass(Duration::from_millis(100));
    assert_eq!(net.shards[0].answer(), None);
    net.pass(Duration::from_millis(250));
    assert_eq!(net.shards[0].answer(), Some((write, Answer::Unknown(Unknown::Unanswered))));
    // It is not forgotten: nobody reads what the copy may lack.
    let (read, answer) = net.ask(0, "a", Operation::Read);
    assert_eq!(answer, None);
    net.away[1] = false;
    net.pass(Duration::from_millis(50));
    assert_eq!(net.shards[0].answer(), Some((read, Answer::Found(value("1"), Version::new(1, 1)))));
    assert!(net.shards[0].counts().resent > 10);
    let before = net.sent;
    net.pass(Duration::from_millis(500));
    assert_eq!(net.sent, before, "at rest nothing is said");
}

#[test]
fn every_operation() {
    let mut net = pair(2);
    let compare = |expected, text: &str| Operation::Compare { expected, value: value(text), ticks: 0 };
    let add = |amount| Operation::Add { amount, ticks: 0 };
    let Answer::Done(first) = net.tell(0, "a", compare(Version::NONE, "1")) else { panic!() };
    assert_eq!(net.tell(0, "a", compare(Version::NONE, "2")), Answer::Conflict(Some((value("1"), first))));
    let Answer::Done(second) = net.tell(0, "a", compare(first, "2")) else { panic!() };
    assert!(second > first);
    assert_eq!(net.tell(0, "a", add(1)), Answer::Refused(Refusal::NoNumber));
    assert!(matches!(net.tell(0, "a", Operation::Delete), Answer::Done(version) if version > second));
    assert_eq!(net.tell(0, "a", Operation::Delete), Answer::Done(Version::NONE));
    assert_eq!(net.tell(0, "a", compare(second, "3")), Answer::Conflict(None));
    assert_eq!(net.found(0, "a"), None);
    net.tell(0, "n", add(40));
    net.tell(0, "n", add(2));
    assert_eq!(net.found(0, "n"), Some(42_i64.to_be_bytes().into_iter().collect()));
    // A longer value needs another place.
    let long = "x".repeat(64);
    net.tell(0, "a", set(&long));
    assert_eq!(net.found(0, "a"), Some(value(&long)));
}

#[test]
fn nobody_is_answered_without_a_lease() {
    let mut net = pair(2);
    let over = Moment { now: net.now, lease: net.now };
    assert_eq!(net.ask_by(over, 0, "a", Operation::Read).1, Some(Answer::Refused(Refusal::Unleased)));
    let (write, _) = net.ask(0, "a", set("1"));
    // The copy's answer comes when the lease is over.
    let (from, to, bytes) = net.flying.pop_front().unwrap();
    net.shards[1].receive(over, from, &Record::parse(&bytes).unwrap().0, &mut Sent(to, &mut net.flying));
    let (from, _, bytes) = net.flying.pop_front().unwrap();
    let mut out = VecDeque::new();
    net.shards[0].receive(over, from, &Record::parse(&bytes).unwrap().0, &mut Sent(to, &mut out));
    assert_eq!(net.shards[0].answer(), Some((write, Answer::Unknown(Unknown::Unleased))));
}

#[test]
fn the_copy_answers_for_a_dead_owner_and_the_dead_one_is_not_heard() {
    let mut net = pair(2);
    net.tell(0, "a", set("1"));
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!(net.found(1, "a"), Some(value("1")));
    net.tell(1, "a", set("2"));
    // It still goes by its own epoch.
    net.away[0] = false;
    let (_, answer) = net.ask(0, "a", set("0"));
    assert_eq!(answer, None);
    net.deliver();
    assert_eq!((net.shards[0].answer(), net.shards[1].counts().outdated), (None, 1));
    assert_eq!(net.found(1, "a"), Some(value("2")));
}

/// What happened while the owner was away it asks for, once for each key, whoever waits; and never says what it has of old.
#[test]
fn an_owner_that_is_back_hunts_once_for_each_key() {
    let mut net = pair(2);
    net.tell(0, "updated", set("old"));
    net.tell(0, "deleted", set("old"));
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    net.tell(1, "updated", set("new"));
    net.tell(1, "deleted", Operation::Delete);
    net.away[0] = false;
    net.adopt(&chain(3, copy(0, 9, false), &[copy(1, 0, true)]));
    for (i, name) in ["updated", "deleted", "never"].into_iter().enumerate() {
        let tickets: Vec<_> = (0..5).map(|_| net.ask(0, name, Operation::Read)).collect();
        assert!(tickets.iter().all(|(_, answer)| answer.is_none()), "{name}");
        net.deliver();
        let answers: Vec<_> = std::iter::from_fn(|| net.shards[0].answer()).collect();
        assert_eq!(answers.len(), 5);
        for ((ticket, _), (told, answer)) in tickets.iter().zip(answers) {
            assert_eq!(*ticket, told);
            match name {
                "updated" => assert!(matches!(answer, Answer::Found(text, _) if text == value("new"))),
                _ => assert_eq!(answer, Answer::NotFound, "{name}"),
            }
        }
        assert_eq!(net.shards[0].counts().hunts, i as u64 + 1);
        net.tell(0, name, Operation::Read);
        assert_eq!(
            net.shards[0].counts().hunts,
            i as u64 + 1,
            "{name}: it is known now, if only that there is nothing"
        );
    }
    // Behind that it learns the rest, and then there is nothing to hunt for.
    net.pass(Duration::from_secs(2));
    assert_eq!(net.complete(), Some(copy(0, 9, false)));
    assert_eq!(net.found(0, "other"), None);
    assert_eq!(net.shards[0].counts().hunts, 3);
}

#[test]
fn a_silent_hop_is_skipped_and_where_nobody_knows_nobody_says() {
    let mut net = Net::new(3);
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 0, true), copy(2, 0, true)]));
    net.tell(0, "a", set("1"));
    net.away[0] = true;
    net.adopt(&chain(2, copy(0, 9, false), &[copy(1, 0, true), copy(2, 0, true)]));
    (net.away[0], net.away[1]) = (false, true);
    net.adopt(&chain(2, copy(0, 9, false), &[copy(1, 0, true), copy(2, 0, true)]));
    let (read, _) = net.ask(0, "a", Operation::Read);
    net.pass(Duration::from_millis(40));
    // It was read in another epoch, so the complete copies are made sure of first; one of them is away.
    net.away[1] = false;
    net.pass(Duration::from_millis(40));
    assert!(matches!(net.shards[0].answer(), Some((ticket, Answer::Found(..))) if ticket == read));
    // All are gone that were complete.
    net.adopt(&chain(3, copy(0, 9, false), &[]));
    assert_eq!(net.ask(0, "a", Operation::Read).1, Some(Answer::Unknown(Unknown::Unanswered)));
    assert_eq!(net.tell(0, "a", set("2")), Answer::Done(Version::new(3, 1)));
    assert_eq!(net.found(0, "a"), Some(value("2")));
}

#[test]
fn a_new_copy_pulls_all_there_is_and_gets_what_is_written_meanwhile() {
    const KEYS: usize = 300;
    let mut net = pair(3);
    for i in 0..KEYS {
        net.tell(0, &format!("key {i}"), set(&format!("value {i}")));
    }
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 0, true), copy(2, 5, false)]));
    let mut written = 0;
    let told = loop {
        net.pass(Duration::from_millis(20));
        net.tell(0, &format!("key {written}"), set("anew"));
        written += 1;
        if let Some(told) = net.complete() {
            break told;
        }
        assert!(written < KEYS, "it doesn't become complete");
    };
    assert_eq!(told, copy(2, 5, false));
    assert!(net.shards[2].counts().pages as usize > KEYS / 40, "it came in pages");
    // From that moment on it is counted upon, whatever is committed.
    net.away[2] = true;
    assert_eq!(net.ask(0, "key 0", set("later")).1, None);
    net.deliver();
    assert_eq!(net.shards[0].answer(), None);
    net.away[2] = false;
    net.pass(Duration::from_millis(50));
    assert!(net.shards[0].answer().is_some());
    net.away[0] = true;
    net.adopt(&chain(2, copy(2, 5, true), &[]));
    for i in 1..KEYS {
        let expected = if i < written { "anew".to_owned() } else { format!("value {i}") };
        assert_eq!(net.found(2, &format!("key {i}")), Some(value(&expected)), "{i}");
    }
    assert_eq!(net.found(2, "key 0"), Some(value("later")));
}

/// Who waits behind a write goes on when the copy is taken out of the chain, also with a value that needs another place.
#[test]
fn a_copy_that_is_taken_out_is_waited_for_no_more() {
    let mut net = pair(2);
    net.away[1] = true;
    let (first, _) = net.ask(0, "a", set("1"));
    let long = "x".repeat(40);
    let (second, _) = net.ask(0, "a", set(&long));
    net.adopt(&chain(1, copy(0, 0, true), &[]));
    let answers: Vec<_> = std::iter::from_fn(|| net.shards[0].answer()).collect();
    let done = |sequence| Answer::Done(Version::new(1, sequence));
    assert_eq!(answers, [(first, done(1)), (second, done(2))]);
    net.away[1] = false;
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 1, false)]));
    for text in ["2", "3"] {
        assert!(matches!(net.tell(0, "a", set(text)), Answer::Done(_)));
        assert_eq!(net.found(0, "a"), Some(value(text)));
    }
    net.deliver();
    assert!(net.shards[0].busy.is_empty());
}

#[test]
fn every_bucket_has_its_turn() {
    let mut net = Net::new(2);
    let m = net.moment();
    let chain = chain(1, copy(0, 1, false), &[copy(1, 0, true)]);
    for bucket in (0..4096).map(Bucket) {
        for node in 0..2 {
            let mut out = Sent(NodeId(node), &mut net.flying);
            net.shards[usize::from(node)].adopt(m, GROUP, bucket, &chain, &mut out);
        }
    }
    let mut whole = std::collections::BTreeSet::new();
    for _ in 0..2000 {
        net.pass(Duration::from_millis(5));
        let told = std::iter::from_fn(|| net.shards[0].event());
        whole.extend(told.filter_map(|event| match event {
            Event::Complete { bucket, .. } => Some(bucket),
            Event::Mended { .. } => None,
        }));
    }
    assert_eq!(whole.len(), 4096);
}

#[test]
fn entries_expire_everywhere_and_leave_nothing() {
    let mut net = pair(2);
    net.tell(0, "a", Operation::Set { value: value("1"), ticks: 4 });
    assert_eq!(net.found(0, "a"), Some(value("1")));
    net.now = net.now + Duration::from_millis(700);
    assert_eq!(net.found(0, "a"), None);
    net.away[0] = true;
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!(net.found(1, "a"), None, "the copy knows");
    net.pass(Duration::from_secs(4));
    assert_eq!(net.shards[1].size().0, 0);
}

#[test]
fn room_is_bounded_and_who_finds_none_is_told() {
    let mut net = pair(2);
    let refused = |refusal| Some(Answer::Refused(refusal));
    let long = "x".repeat(64);
    let key_of = |i: usize| format!("{i:048}");
    for i in 0..10 {
        assert!(matches!(net.tell(0, &key_of(i), set(&long)), Answer::Done(_)), "{i}");
    }
    assert_eq!(net.ask(0, &key_of(10), set(&long)).1, refused(Refusal::Full));
    assert_eq!(net.shards[0].counts().full, 1);
    // Deleted ones give their room back after a while.
    net.tell(0, &key_of(0), Operation::Delete);
    net.pass(Duration::from_secs(4));
    assert!(matches!(net.tell(0, &key_of(10), set(&long)), Answer::Done(_)));
    // Those that wait, and keys that are waited for.
    net.away[1] = true;
    let waiting = (0..BOUNDS.waiters).filter(|_| net.ask(0, "a", set("1")).1.is_none()).count();
    assert_eq!(waiting, usize::from(BOUNDS.waiters));
    assert_eq!(net.ask(0, "a", Operation::Read).1, refused(Refusal::Busy));
    assert_eq!(net.ask(0, "b", set("1")).1, refused(Refusal::Busy));
    net.away[1] = false;
    net.pass(Duration::from_millis(100));
    assert_eq!(std::iter::from_fn(|| net.shards[0].answer()).count(), waiting);
    net.away[1] = true;
    let begun = (0..100).filter(|i| net.ask(0, &format!("key {i}"), set("1")).1.is_none()).count();
    assert_eq!(begun, usize::from(BOUNDS.busy));
}

#[test]
fn records_of_strangers_and_of_other_times_have_no_effect() {
    let mut net = pair(3);
    net.tell(0, "a", set("1"));
    let m = net.moment();
    let name = key("a");
    let fact = crate::wire::state::Fact {
        version: u64::MAX,
        ticks: 0,
        unsure: false,
        content: crate::wire::state::Content::Deleted,
    };
    use crate::wire::state::Message;
    let put = Message::Put { name: name.name(), fact, stable: u64::MAX };
    let record = |epoch, message| Record { group: GROUP, bucket: BUCKET, epoch, token: 0, message };
    let page = crate::wire::state::PageWriter::default();
    let items = page.items();
    let page = Message::Page { next: 0, stable: 0, items };
    let foreign = Record { group: GroupId(9), ..record(1, put) };
    let mut out = VecDeque::new();
    for (from, record) in [
        (2, record(1, put)),
        (0, record(0, put)),
        (0, foreign),
        (2, record(1, Message::Hunt(name.name()))),
        (2, record(1, Message::Pull { below: u64::MAX })),
        (0, record(1, page)),
        (0, record(1, Message::Learnt)),
        (0, record(1, Message::Outdated)),
    ] {
        let before = net.shards[1].counts().outdated;
        net.shards[1].receive(m, NodeId(from), &record, &mut Sent(NodeId(1), &mut out));
        assert_eq!(net.shards[1].counts().outdated, before + 1, "{record:?}");
    }
    net.shards[1].receive(m, NodeId(0), &record(2, put), &mut Sent(NodeId(1), &mut out));
    assert_eq!(net.shards[1].counts().early, 1);
    for message in [Message::Stored, Message::Found(fact)] {
        net.shards[0].receive(m, NodeId(1), &record(1, message), &mut Sent(NodeId(0), &mut out));
    }
    assert_eq!(
        out.iter().map(|(_, to, _)| to.0).collect::<ArrayVec<_, 8>>()[..],
        [0],
        "the old epoch is told of"
    );
    net.adopt(&chain(2, copy(1, 0, true), &[]));
    assert_eq!(net.found(1, "a"), Some(value("1")));
}

/// A write that its owner never saw acknowledged is at one of two copies. Whoever takes over makes sure of it before it is read.
#[test]
fn what_one_copy_alone_may_have_is_written_again_before_it_is_read() {
    let mut net = Net::new(3);
    net.adopt(&chain(1, copy(0, 0, true), &[copy(1, 0, true), copy(2, 0, true)]));
    net.tell(0, "sure", set("1"));
    net.tell(0, "other", set("1"));
    net.away[2] = true;
    net.ask(0, "a", set("1"));
    net.deliver();
    (net.away[0], net.away[2]) = (true, false);
    net.adopt(&chain(2, copy(1, 0, true), &[copy(2, 0, true)]));
    assert_eq!(net.found(1, "a"), Some(value("1")));
    assert_eq!(net.found(1, "sure"), Some(value("1")));
    assert_eq!(net.shards[1].counts().rewritten, 1, "only what was doubtful");
    net.away[1] = true;
    net.adopt(&chain(3, copy(2, 0, true), &[]));
    assert_eq!(net.found(2, "a"), Some(value("1")));
}
