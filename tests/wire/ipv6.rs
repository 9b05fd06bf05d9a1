//! Chains of IPv6 extension headers.

use crate::build::{self, Extension};
use etherparse::{IpNumber, Ipv6Header};
use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::limits::{MAX_EXT_BYTES, MAX_EXT_HEADERS};
use steerage::wire::Malformed;
use steerage::wire::ipv6::{Fragment, upper};

/// Numbers that end a chain: TCP, UDP, ICMPv6, ESP, none, the experimental ones, and tunnels.
const UPPERS: [u8; 9] = [6, 17, 58, 50, 59, 253, 254, 4, 41];

fn base() -> Ipv6Header {
    let mut header = Ipv6Header { hop_limit: 64, ..Default::default() };
    header.source = [0x20; 16];
    header.destination = [0x21; 16];
    header
}

fn raw(number: u8, units: usize) -> Extension {
    Extension::Raw(number, vec![0; 8 * units - 2])
}

proptest! {
    #[test]
    fn chains_are_walked_to_their_end(
        header in build::ipv6_header(),
        hop_by_hop: bool,
        mut chain in vec(build::extension(4), 0..MAX_EXT_HEADERS - 1),
        fragment in prop::option::of((any::<prop::sample::Index>(), any::<bool>(), any::<u32>())),
        number in prop::sample::select(&UPPERS[..]),
        payload in build::payload(),
    ) {
        if let Some((index, more, id)) = fragment {
            chain.insert(index.index(chain.len() + 1), Extension::Fragment { offset: 0, more, id });
        }
        if hop_by_hop {
            chain.insert(0, raw(0, 2));
        }
        let (bytes, end) = build::chained(&header, &chain, number, &payload);
        let read = upper(&bytes);
        if end - 40 > MAX_EXT_BYTES {
            prop_assert_eq!(read, Err(Malformed::TooDeep));
            return Ok(());
        }
        let read = read.unwrap();
        let first = IpNumber(bytes[6]);
        let (last, rest) = Ipv6Header::skip_all_header_extensions_in_slice(&bytes[40..], first).unwrap();
        prop_assert_eq!((read.protocol, read.offset), (last.0, bytes.len() - rest.len()));
        prop_assert_eq!((read.protocol, read.offset), (number, end));
        prop_assert_eq!(read.fragment, fragment.map(|(_, more, id)| Fragment { offset: 0, more, id }));
        // Every shorter one is known to be so, and none is read past its end.
        for len in 40..end {
            prop_assert_eq!(upper(&bytes[..len]), Err(Malformed::Truncated), "{} of {} bytes", len, end);
        }
    }

    /// Behind the header of a fragment from the middle stands data, whatever it looks like.
    #[test]
    fn nothing_is_walked_behind_a_later_fragment(
        header in build::ipv6_header(), before in vec(build::extension(2), 0..3),
        offset in 1u16..0x2000, more: bool, id: u32, next: u8, data in build::payload(),
    ) {
        let mut chain = before;
        chain.push(Extension::Fragment { offset, more, id });
        let (bytes, end) = build::chained(&header, &chain, next, &data);
        let read = upper(&bytes).unwrap();
        prop_assert_eq!((read.protocol, read.offset), (next, end));
        prop_assert_eq!(read.fragment, Some(Fragment { offset: offset * 8, more, id }));
    }
}

#[test]
fn as_many_headers_as_stated_and_not_one_more() {
    for count in 0..=MAX_EXT_HEADERS + 2 {
        let chain = vec![raw(60, 1); count];
        let (bytes, end) = build::chained(&base(), &chain, 6, &[0; 20]);
        match upper(&bytes) {
            Ok(read) => assert!(count <= MAX_EXT_HEADERS && (read.protocol, read.offset) == (6, end)),
            Err(e) => assert!(count > MAX_EXT_HEADERS && e == Malformed::TooDeep, "{count} headers: {e}"),
        }
    }
}

#[test]
fn as_many_bytes_as_stated_and_not_one_more() {
    let units = MAX_EXT_BYTES / 8;
    let later = Extension::Fragment { offset: 9, more: false, id: 1 };
    let first = Extension::Fragment { offset: 0, more: true, id: 1 };
    let icv = |words: usize| Extension::Authentication(vec![0; 4 * words]);
    let fitting = [
        vec![raw(60, units)],
        vec![raw(60, 1), raw(43, units - 1)],
        vec![raw(60, units - 1), later.clone()],
        vec![raw(60, units - 1), first.clone()],
        vec![icv(MAX_EXT_BYTES / 4 - 3)],
    ];
    for chain in fitting {
        let (bytes, end) = build::chained(&base(), &chain, 17, &[0; 8]);
        assert_eq!(upper(&bytes).map(|u| (u.protocol, u.offset)), Ok((17, end)), "{chain:?}");
    }
    let beyond = [
        vec![raw(60, units + 1)],
        vec![raw(60, units), raw(43, 1)],
        vec![raw(60, units), later],
        vec![raw(60, units), first],
        vec![icv(MAX_EXT_BYTES / 4 - 2)],
    ];
    for chain in beyond {
        let (bytes, _) = build::chained(&base(), &chain, 17, &[0; 8]);
        assert_eq!(upper(&bytes), Err(Malformed::TooDeep), "{chain:?}");
    }
}

#[test]
fn hop_by_hop_stands_first_or_not_at_all() {
    for (chain, ok) in [
        (vec![raw(0, 1)], true),
        (vec![raw(0, 1), raw(60, 1)], true),
        (vec![raw(60, 1), raw(0, 1)], false),
        (vec![raw(0, 1), raw(0, 1)], false),
    ] {
        let (bytes, end) = build::chained(&base(), &chain, 6, &[0; 20]);
        let expected = if ok { Ok(end) } else { Err(Malformed::Value) };
        assert_eq!(upper(&bytes).map(|u| u.offset), expected, "{chain:?}");
    }
}

#[test]
fn a_fragment_of_a_first_fragment_is_refused() {
    let fragment = Extension::Fragment { offset: 0, more: true, id: 7 };
    let (bytes, _) = build::chained(&base(), &[fragment.clone(), fragment], 6, &[0; 20]);
    assert_eq!(upper(&bytes), Err(Malformed::Value));
}

#[test]
fn authentication_headers_count_words_of_four_bytes_less_two() {
    for words in 0..8 {
        let (bytes, end) =
            build::chained(&base(), &[Extension::Authentication(vec![0; 4 * words])], 6, &[0; 20]);
        assert_eq!(end, 40 + 12 + 4 * words);
        assert_eq!(upper(&bytes).map(|u| u.offset), Ok(end));
    }
    // Shorter than its own fixed part.
    let (mut bytes, _) = build::chained(&base(), &[Extension::Authentication(vec![])], 6, &[0; 20]);
    bytes[41] = 0;
    assert_eq!(upper(&bytes), Err(Malformed::Length));
}

#[test]
fn no_next_header_ends_the_chain() {
    let (bytes, _) = build::chained(&base(), &[], 59, &[0; 20]);
    assert_eq!(upper(&bytes).map(|u| (u.protocol, u.offset, u.fragment)), Ok((59, 40, None)));
}

#[test]
fn encrypted_payload_is_not_walked() {
    // Its first bytes are a number of the sender's choice that would look like a chain of destination options.
    let (bytes, _) = build::chained(&base(), &[raw(60, 1)], 50, &[60, 0, 0, 0, 0, 0, 0, 0, 60, 0]);
    assert_eq!(upper(&bytes).map(|u| (u.protocol, u.offset)), Ok((50, 48)));
}

/// One that still names stations to visit is refused: its last address, not the header's, is the destination.
#[test]
fn a_routing_header_with_segments_left_is_refused() {
    let header = Ipv6Header { next_header: IpNumber(43), ..Ipv6Header::default() };
    for (left, expected) in [(0u8, true), (1, false), (255, false)] {
        let chain = [Extension::Raw(43, vec![2, left, 0, 0, 0, 0])];
        let (bytes, _) = build::chained(&header, &chain, 17, &[0; 8]);
        assert_eq!(upper(&bytes).is_ok(), expected, "{left} left");
    }
}
