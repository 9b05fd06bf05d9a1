//! Everything that is read besides packets and the configuration: capture files, what other nodes say, what the log stores,
//! what people ask. The first byte picks the reader, as in [`crate::wire`].

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::path::Path;
use std::pin::pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use steerage::base::limits::{BUCKETS, MAX_NODES};
use steerage::base::{Addr, Incarnation, NodeId};
use steerage::cluster::namespace::{Change, Key, Name, Namespace, NodeSpec, Object, RequestId, Write};
use steerage::cluster::state::{Entry, State};
use steerage::io::pcap;
use steerage::manage::explain::Tuple;
use steerage::manage::health::Report;
use steerage::run::api::body;
use steerage::run::health::icmp;
use steerage::run::log::frame::{self, Answer, Hello, Numbered, Request};
use steerage::run::log::machine::Header;
use steerage::run::log::{disk, types};

/// Takes a reader's bytes, and panics if a promise is broken; whether they were accepted.
type Reader = fn(&[u8]) -> bool;

/// What is read, in the order of their numbers.
pub const FORMATS: [(&str, Reader); 18] = [
    ("capture", capture),
    ("hello", framed::<Hello>),
    ("request", framed::<Numbered<Request>>),
    ("answer", framed::<Numbered<Answer>>),
    ("stored entry", stored::<types::Entry>),
    ("stored place", stored::<types::LogId>),
    ("stored vote", stored::<types::Vote>),
    ("stored snapshot's description", stored::<types::SnapshotMeta>),
    ("stored fences", stored::<disk::Base>),
    ("stored snapshot", snapshot),
    ("entry", entry),
    ("state", state),
    ("namespace", namespace),
    ("report", report),
    ("object", object),
    ("changes", changes),
    ("tuple", tuple),
    ("echo reply", echo_reply),
];

/// No bytes make a reader panic; and what it accepted is the same once it was written and read again.
pub fn one(bytes: &[u8]) {
    accepts(bytes);
}

/// [`one`]; the number of the format, and whether its reader accepted the bytes. None if there are none.
pub fn accepts(bytes: &[u8]) -> Option<(usize, bool)> {
    let (first, rest) = bytes.split_first()?;
    let number = usize::from(*first) % FORMATS.len();
    Some((number, FORMATS[number].1(rest)))
}

/// What was read, unless it was refused for a reason that can be told.
fn accepted<T, E: Display>(read: Result<T, E>) -> Option<T> {
    read.map_err(|why| assert!(!why.to_string().is_empty(), "refused without a reason")).ok()
}

fn capture(bytes: &[u8]) -> bool {
    let read = |bytes: &[u8]| pcap::parse(Path::new("in.pcap"), bytes, 2048);
    let Some(capture) = accepted(read(bytes)) else { return false };
    let mut out = pcap::file_header(capture.nanos).to_vec();
    for record in &capture.records {
        out.extend(pcap::record_header(record.seconds, record.fraction, record.bytes.len()));
        out.extend(&record.bytes);
    }
    assert_eq!(read(&out).expect("a capture"), capture);
    true
}

/// A frame as it comes, and one of the same bytes behind their right length, which a search would have to keep right.
fn framed<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let _ = read::<T>(bytes);
    let length = (bytes.len() as u32).to_le_bytes();
    let Some(value) = read::<T>(&[&length, bytes].concat()) else { return false };
    // openraft's types can't be compared, but one value has one form.
    let out = frame::encode(&value).expect("a frame");
    let again = read::<T>(&out).expect("what was written");
    assert_eq!(frame::encode(&again).expect("a frame"), out);
    true
}

fn read<T: DeserializeOwned>(mut bytes: &[u8]) -> Option<T> {
    let reading = pin!(frame::read::<T>(&mut bytes));
    match reading.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(read) => accepted(read).flatten(),
        Poll::Pending => unreachable!("all bytes are there"),
    }
}

/// A value of the log's file, with its checksum as it comes, and with a right one.
fn stored<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let _ = disk::unseal::<T>(bytes);
    let Some(value) = accepted(disk::unseal::<T>(&disk::sealed(bytes))) else { return false };
    let out = disk::seal(&value).expect("a value");
    assert_eq!(disk::unseal::<T>(&out).expect("what was written"), value);
    true
}

fn snapshot(bytes: &[u8]) -> bool {
    let Some((header, content)) = Header::split(bytes) else { return false };
    let out = header.with(content).expect("a header");
    assert_eq!(Header::split(&out), Some((header, content)));
    state(content)
}

fn state(bytes: &[u8]) -> bool {
    let Some(state) = accepted(State::decode(bytes)) else { return false };
    whole(&state);
    true
}

/// A state says something of every bucket, and is the same after a snapshot.
fn whole(state: &State) {
    for map in [state.fleet(), state.published()].into_iter().flat_map(|fleet| fleet.maps().values()) {
        assert_eq!(map.iter().count(), BUCKETS);
    }
    let again = State::decode(&state.encode().expect("a state")).expect("what was written");
    assert_eq!(&again, state);
    assert_eq!(again.digest(), state.digest(), "nodes of which one has it from a snapshot would part");
}

fn namespace(bytes: &[u8]) -> bool {
    let Some(space) = accepted(Namespace::decode(bytes)) else { return false };
    assert!(space.nodes().all(|(node, ..)| node.index() < MAX_NODES));
    let again = Namespace::decode(&space.encode().expect("a namespace")).expect("what was written");
    assert_eq!((again.digest(), &again), (space.digest(), &space));
    true
}

fn entry(bytes: &[u8]) -> bool {
    let Some(entry) = accepted(Entry::decode(bytes)) else { return false };
    let out = entry.encode().expect("an entry");
    assert_eq!(Entry::decode(&out).expect("what was written"), entry);
    apply(&entry);
    true
}

/// Three nodes, of which two serve.
static CLUSTER: LazyLock<State> = LazyLock::new(|| {
    let node = |n: u8| {
        let key = Key::Node(Name::new(&format!("n{n}")).expect("a name"));
        let backplane = Addr::v4([10, 88, 0, n + 1]);
        (key, Object::Node(NodeSpec { backplane, workers: 1, weight: 1, management: None }))
    };
    let (space, faults) = Namespace::draft((0..3).map(node));
    assert_eq!(faults.len(), 0, "{faults:?}");
    let mut state = State::new(space);
    for node in [NodeId(0), NodeId(1)] {
        for entry in [Entry::Join(node, Incarnation(1)), Entry::Activate(node, Incarnation(1))] {
            assert!(state.apply(state.index() + 1, &entry).changed);
        }
    }
    state
});

/// An entry, whatever it says, has an effect that can be stored. On a cluster that has just begun.
fn apply(entry: &Entry) {
    let mut state = CLUSTER.clone();
    state.apply(state.index() + 1, entry);
    whole(&state);
}

fn report(bytes: &[u8]) -> bool {
    let Some(report) = accepted(Report::decode(bytes)) else { return false };
    assert_eq!(Report::decode(&report.encode().expect("a report")), Ok(report));
    true
}

/// A key on a line, and the body of a request that makes it say something.
fn object(bytes: &[u8]) -> bool {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return false };
    let Ok(text) = std::str::from_utf8(&bytes[..end]) else { return false };
    let Some(key) = accepted(text.parse::<Key>()) else { return false };
    assert_eq!(key.to_string().parse(), Ok(key.clone()));
    let Ok(object) = body::object(&key, &bytes[end + 1..]) else { return false };
    written(vec![Change { key, expected: None, value: Some(object) }]);
    true
}

fn changes(bytes: &[u8]) -> bool {
    let Ok(changes) = body::changes(bytes) else { return false };
    written(changes);
    true
}

/// Changes that people ask for are the same where they are shown, and where the log has carried them.
fn written(changes: Vec<Change>) {
    for Change { key, value, .. } in &changes {
        let Some(value) = value else { continue };
        assert_eq!(value.kind(), key.kind());
        let shown = value.write(serde_json::value::Serializer).expect("an object").to_string();
        let Ok(again) = body::object(key, shown.as_bytes()) else { panic!("{key}: shown as {shown}") };
        assert_eq!(&again, value);
    }
    let entry = Entry::Write(Write { request: RequestId(1), who: "somebody".to_owned(), at: 1, changes });
    assert_eq!(Entry::decode(&entry.encode().expect("an entry")).as_ref(), Ok(&entry));
    apply(&entry);
}

fn tuple(bytes: &[u8]) -> bool {
    let parse = |text: &str| {
        let words: Vec<&str> = text.split(' ').collect();
        let [protocol, source, destination] = words[..] else { return None };
        accepted(Tuple::parse(protocol, source, destination))
    };
    let Some(tuple) = std::str::from_utf8(bytes).ok().and_then(parse) else { return false };
    assert_eq!(parse(&tuple.to_string()), Some(tuple));
    true
}

/// What a socket of one of four kinds, by the first byte, gets in answer to a probe.
fn echo_reply(bytes: &[u8]) -> bool {
    const NONCE: [u8; icmp::NONCE] = *b"the probe's nonc";
    let Some((kind, message)) = bytes.split_first() else { return false };
    let (v6, raw) = (kind & 1 != 0, kind & 2 != 0);
    let own = icmp::is_reply(message, v6, raw, NONCE);
    assert!(!own || message.ends_with(&NONCE));
    assert!(!icmp::is_reply(&icmp::request(v6, NONCE), v6, false, NONCE), "a request is no reply");
    own
}
