//! What nodes say to each other.

use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::limits::MAX_WORKERS;
use steerage::base::version::{Software, WireVersion};
use steerage::base::{FlowHash, HashKey, Incarnation, NodeId, NodeSet, hash};
use steerage::wire::Malformed;
use steerage::wire::backplane::{self, HEADER_LEN, Header, Stage, cookie};
use steerage::wire::control::{self, Heartbeat, Letter};

const STAGES: [Stage; 9] = [
    Stage::Receive,
    Stage::FragmentOwner,
    Stage::Owner,
    Stage::FirstOwner,
    Stage::FirstPrevious,
    Stage::SecondOwner,
    Stage::SecondPrevious,
    Stage::PreviousOwner,
    Stage::Returned,
];

fn header() -> impl Strategy<Value = Header> {
    let ids = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>());
    (prop::sample::select(&STAGES[..]), ids).prop_map(
        |(stage, (sender, incarnation, decided, hash, cookie))| Header {
            stage,
            sender: NodeId(sender),
            incarnation: Incarnation(incarnation),
            decided,
            hash: FlowHash(hash),
            cookie,
        },
    )
}

fn wire() -> impl Strategy<Value = WireVersion> {
    prop::sample::select(&[WireVersion::OLDEST, WireVersion::NEWEST][..])
}

fn heartbeat() -> impl Strategy<Value = Heartbeat> {
    let ids = (any::<u16>(), any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>());
    let speaks = (wire(), wire(), any::<[u16; 3]>());
    (ids, speaks, vec(any::<u32>(), 0..=MAX_WORKERS)).prop_map(
        |((sender, incarnation, counter, view, ready), (wire, speaks, software), turns)| Heartbeat {
            wire,
            // Who writes in a version speaks it.
            speaks: speaks.max(wire),
            software: Software(if wire == WireVersion::OLDEST { [0; 3] } else { software }),
            sender: NodeId(sender),
            incarnation: Incarnation(incarnation),
            counter,
            view,
            configuration: view.rotate_left(9),
            index: view.rotate_left(21),
            prepared: view.rotate_left(33),
            hears: NodeSet(view.rotate_left(7)),
            ready,
            trouble: view as u16,
            turns: turns.into_iter().collect(),
        },
    )
}

fn letter() -> impl Strategy<Value = Letter> {
    let ids = (any::<u16>(), any::<u32>(), any::<u64>());
    (wire(), ids, vec(any::<u8>(), 0..=control::MAX_LETTER)).prop_map(
        |(wire, (sender, incarnation, counter), content)| {
            let (sender, incarnation) = (NodeId(sender), Incarnation(incarnation));
            let receiver = (NodeId(!sender.0), Incarnation(incarnation.0.rotate_left(9)));
            Letter { wire, sender, incarnation, receiver, counter, content: content.into_iter().collect() }
        },
    )
}

fn key() -> impl Strategy<Value = HashKey> {
    any::<[u64; 2]>().prop_map(HashKey)
}

proptest! {
    #[test]
    fn data_headers_come_back(header in header(), rest in vec(any::<u8>(), 0..20)) {
        let mut bytes = [0xee; HEADER_LEN].to_vec();
        bytes.extend(&rest);
        header.write(&mut bytes);
        prop_assert_eq!(&bytes[HEADER_LEN..], &rest[..], "wrote past its header");
        prop_assert_eq!(Header::parse(&bytes), Ok(header));
        for len in 0..HEADER_LEN {
            prop_assert_eq!(Header::parse(&bytes[..len]), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn cookies_tell_keys_and_lives_apart(a in key(), b in key(), node: u16, life: u32) {
        let own = cookie(a, NodeId(node), Incarnation(life));
        prop_assert_ne!(own, cookie(a, NodeId(node), Incarnation(life.wrapping_add(1))));
        prop_assert_ne!(own, cookie(a, NodeId(node.wrapping_add(1)), Incarnation(life)));
        prop_assert!(a == b || own != cookie(b, NodeId(node), Incarnation(life)));
    }

    #[test]
    fn heartbeats_come_back(beat in heartbeat(), key in key(), padding in 0usize..20) {
        let mut out = [0xee; control::MAX_LEN];
        let len = beat.write(&mut out, key);
        prop_assert!(out[len..].iter().all(|b| *b == 0xee), "wrote past its end");
        prop_assert_eq!(Heartbeat::parse(&out[..len], key), Ok(beat.clone()));
        // An Ethernet frame may have been padded.
        let padded = [&out[..len], &vec![0; padding]].concat();
        prop_assert_eq!(Heartbeat::parse(&padded, key), Ok(beat));
        for len in 0..len {
            prop_assert_eq!(Heartbeat::parse(&out[..len], key), Err(Malformed::Truncated));
        }
    }

    #[test]
    fn letters_come_back(letter in letter(), key in key(), at: u16, change in 1u8..) {
        let mut out = [0xee; control::MAX_LEN];
        let len = letter.write(&mut out, key);
        prop_assert!(out[len..].iter().all(|b| *b == 0xee), "wrote past its end");
        prop_assert_eq!(Letter::parse(&out[..len], key), Ok(letter));
        for len in 0..len {
            prop_assert!(Letter::parse(&out[..len], key).is_err());
        }
        prop_assert_eq!(Heartbeat::parse(&out[..len], key).ok(), None);
        out[usize::from(at) % len] ^= change;
        prop_assert!(Letter::parse(&out[..len], key).is_err());
    }

    #[test]
    fn a_tampered_heartbeat_is_refused_whatever_the_byte(beat in heartbeat(), key in key(), change in 1u8..) {
        let mut out = [0; control::MAX_LEN];
        let len = beat.write(&mut out, key);
        for at in 0..len {
            let mut bad = out;
            bad[at] ^= change;
            // The whole buffer is offered, so that a larger worker count is not refused for want of bytes alone.
            prop_assert!(Heartbeat::parse(&bad, key).is_err(), "byte {}", at);
            prop_assert!(Heartbeat::parse(&bad[..len], key).is_err(), "byte {}", at);
        }
    }

    #[test]
    fn a_heartbeat_under_another_key_is_refused(beat in heartbeat(), a in key(), b in key()) {
        let mut out = [0; control::MAX_LEN];
        let len = beat.write(&mut out, a);
        prop_assert_eq!(Heartbeat::parse(&out[..len], b).is_ok(), a == b);
    }
}

#[test]
fn strangers_are_refused() {
    let header = Header {
        stage: Stage::Owner,
        sender: NodeId(1),
        incarnation: Incarnation(2),
        decided: 0,
        hash: FlowHash(3),
        cookie: 4,
    };
    let mut good = [0; HEADER_LEN];
    header.write(&mut good);
    for (at, expected) in [(0, Malformed::Version), (1, Malformed::Version), (2, Malformed::Value)] {
        for value in 0..=255u8 {
            let mut bytes = good;
            bytes[at] = value;
            let ok = value == good[at] || (at == 2 && usize::from(value) < STAGES.len());
            assert_eq!(Header::parse(&bytes).err(), (!ok).then_some(expected), "byte {at} is {value}");
        }
    }
    assert_eq!((backplane::MAGIC, backplane::VERSION), (good[0], good[1]));
}

#[test]
fn stages_only_increase() {
    assert!(STAGES.is_sorted());
    assert_eq!(Stage::default(), STAGES[0]);
}

#[test]
fn stages_have_the_numbers_that_they_had_when_they_came() {
    let number = |stage| {
        let mut bytes = [0; HEADER_LEN];
        let (sender, incarnation, hash) = (NodeId(1), Incarnation(2), FlowHash(3));
        Header { stage, sender, incarnation, decided: 0, hash, cookie: 4 }.write(&mut bytes);
        bytes[2]
    };
    assert_eq!(STAGES.map(number), [0, 1, 2, 5, 6, 7, 8, 3, 4]);
}

/// A right code does not excuse a message that this version doesn't know.
#[test]
fn unknown_control_messages_are_refused() {
    let key = HashKey([1, 2]);
    let beat = Heartbeat {
        wire: WireVersion::OLDEST,
        speaks: WireVersion::NEWEST,
        software: Software::default(),
        sender: NodeId(1),
        incarnation: Incarnation(1),
        counter: 1,
        view: 1,
        configuration: 0x1122_3344_5566_7788,
        index: 0,
        prepared: 0,
        hears: NodeSet::EMPTY,
        ready: true,
        trouble: 0,
        turns: Default::default(),
    };
    let mut good = [0; control::MAX_LEN];
    let end = beat.write(&mut good, key) - 8;
    for (at, expected) in
        [(0, Malformed::Version), (1, Malformed::Version), (2, Malformed::Value), (3, Malformed::Value)]
    {
        let mut bytes = good;
        bytes[at] = 9;
        let code = hash::mac(key, &bytes[..end]);
        bytes[end..end + 8].copy_from_slice(&code.to_be_bytes());
        assert_eq!(Heartbeat::parse(&bytes, key), Err(expected), "byte {at}");
    }
}

#[test]
fn more_workers_than_there_can_be_are_refused() {
    let beat = Heartbeat {
        wire: WireVersion::OLDEST,
        speaks: WireVersion::NEWEST,
        software: Software::default(),
        sender: NodeId(1),
        incarnation: Incarnation(1),
        counter: 1,
        view: 1,
        configuration: 0x1122_3344_5566_7788,
        index: 0,
        prepared: 0,
        hears: NodeSet::EMPTY,
        ready: true,
        trouble: 0,
        turns: Default::default(),
    };
    let mut out = vec![0; 70_000 * 4];
    beat.write(&mut out, HashKey([1, 2]));
    for workers in [MAX_WORKERS as u16 + 1, u16::MAX] {
        out[64..66].copy_from_slice(&workers.to_be_bytes());
        assert_eq!(Heartbeat::parse(&out, HashKey([1, 2])), Err(Malformed::Length));
    }
}
