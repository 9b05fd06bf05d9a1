//! The Internet checksum in full and mended, against another implementation and the RFC's own figures.

use crate::build::{self, Transport};
use etherparse::checksum::Sum16BitWords;
use etherparse::{IpHeaders, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header};
use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::Addr;
use steerage::wire::checksum::{Delta, add, pseudo_header, sum};
use steerage::wire::{protocol, tcp, udp};

fn theirs(bytes: &[u8]) -> u16 {
    // Their sum is kept in native byte order.
    u16::from_be(!Sum16BitWords::new().add_slice(bytes).ones_complement())
}

/// Offset of the transport header, its protocol, and where its checksum stands.
fn layout(ip: &IpHeaders, transport: &Transport) -> (usize, u8, usize) {
    let (at, icmp) = match ip {
        IpHeaders::Ipv4(h, _) => (h.header_len(), protocol::ICMP),
        IpHeaders::Ipv6(..) => (40, protocol::ICMPV6),
    };
    match transport {
        Transport::Tcp(_) => (at, protocol::TCP, at + tcp::CHECKSUM_AT),
        Transport::Udp(..) => (at, protocol::UDP, at + udp::CHECKSUM_AT),
        Transport::Echo { .. } => (at, icmp, at + 2),
    }
}

fn addresses(ip: &IpHeaders) -> (Addr, Addr) {
    match ip {
        IpHeaders::Ipv4(h, _) => (Addr::v4(h.source), Addr::v4(h.destination)),
        IpHeaders::Ipv6(h, _) => (Addr(h.source), Addr(h.destination)),
    }
}

fn headers(src: Addr, dst: Addr) -> IpHeaders {
    if src.is_v4() {
        let header = Ipv4Header::new(0, 64, 0.into(), src.v4_bytes(), dst.v4_bytes()).unwrap();
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    } else {
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: 0,
            next_header: 0.into(),
            hop_limit: 64,
            source: src.0,
            destination: dst.0,
        };
        IpHeaders::Ipv6(header, Ipv6Extensions::default())
    }
}

fn be16(b: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([b[at], b[at + 1]])
}

/// Bytes with many all-ones and all-zero words among them.
fn extreme_bytes() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![Just([0u8, 0]), Just([0xff, 0xff]), any::<[u8; 2]>()];
    (vec(word, 0..40), any::<bool>()).prop_map(|(words, odd)| {
        let mut bytes = words.as_flattened().to_vec();
        bytes.truncate(bytes.len().saturating_sub(usize::from(odd)));
        bytes
    })
}

/// Words of which the packet's own checksum is some extreme one, more often than chance has it.
fn extreme_word() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(0xffff), Just(1), Just(0xfffe), any::<u16>()]
}

proptest! {
    #[test]
    fn sums_agree(bytes in prop_oneof![extreme_bytes(), vec(any::<u8>(), 0..3000)]) {
        prop_assert_eq!(sum(&bytes), theirs(&bytes));
    }

    #[test]
    fn a_sum_of_parts_is_the_sum(a in vec(any::<[u8; 2]>(), 0..40), b in extreme_bytes()) {
        let a = a.as_flattened();
        prop_assert_eq!(add(sum(a), sum(&b)), theirs(&[a, &b[..]].concat()));
    }

    #[test]
    fn transport_checksums_agree(
        ip in build::ip_headers(), transport in build::transport(), payload in build::payload(),
    ) {
        let mut bytes = build::packet(&ip, &transport, &payload);
        let (at, number, field) = layout(&ip, &transport);
        let (src, dst) = addresses(&ip);
        let pseudo =
            if number == protocol::ICMP { 0 } else { pseudo_header(src, dst, number, bytes.len() - at) };
        prop_assert_eq!(add(pseudo, sum(&bytes[at..])), 0xffff);
        let stated = be16(&bytes, field);
        bytes[field..field + 2].fill(0);
        let full = !add(pseudo, sum(&bytes[at..]));
        let expected = if number == protocol::UDP && full == 0 { 0xffff } else { full };
        prop_assert_eq!(stated, expected);
    }

    /// Any set of words replaced by any others: mended and full agree, also where either is an extreme of ones'
    /// complement. The first word never changes and is not zero, as in an IPv4 header or a pseudo-header.
    #[test]
    fn mended_is_full(
        mut words in vec(extreme_word(), 2..30),
        changes in vec((any::<prop::sample::Index>(), extreme_word()), 0..8),
        before in extreme_word(), after in extreme_word(),
    ) {
        words[0] = 0x4500;
        // The last word makes the checksum what `before` says.
        force(&mut words, before);
        let old = words.clone();
        for (index, new) in &changes {
            let at = 1 + index.index(words.len() - 1);
            words[at] = *new;
        }
        // Likewise behind the change, in two cases of three.
        if after != 1 {
            force(&mut words, after);
        }
        let field = !sum_words(&old);
        let mut delta = Delta::default();
        for (old, new) in old.iter().zip(&words) {
            delta.word16(*old, *new);
        }
        let full = !sum_words(&words);
        prop_assert_eq!(delta.apply(field), full);

        let as_udp = |c: u16| if c == 0 { 0xffff } else { c };
        prop_assert_eq!(delta.apply_udp(as_udp(field)), as_udp(full));
        prop_assert_eq!(delta.apply_udp(0), 0, "\"no checksum\" has to stay");

        // The same change by pairs of words.
        let mut by_pairs = Delta::default();
        let pair = |p: &[u16]| u32::from(p[0]) << 16 | u32::from(*p.get(1).unwrap_or(&0));
        for (old, new) in old.chunks(2).zip(words.chunks(2)) {
            by_pairs.word32(pair(old), pair(new));
        }
        prop_assert_eq!(by_pairs.apply(field), full);
    }

    /// Addresses and ports rewritten as NAT does it: byte for byte what the other implementation builds anew.
    #[test]
    fn nat_gives_a_packet_built_anew(
        (from, to) in (build::pair(), build::pair()).prop_filter("one family", |(a, b)| a.0.is_v4() == b.0.is_v4()),
        tcp in prop::option::of(build::tcp_header()),
        ports: [[u16; 2]; 2],
        mut payload in build::payload(), extreme in prop::option::of(extreme_word()),
    ) {
        let transport = |ports: [u16; 2]| match &tcp {
            None => Transport::Udp(ports[0], ports[1]),
            Some(header) => {
                let mut header = header.clone();
                [header.source_port, header.destination_port] = ports;
                Transport::Tcp(header)
            }
        };
        if let Some(wanted) = extreme {
            // Two more bytes make the rewritten packet's checksum an extreme one.
            payload.resize(payload.len().next_multiple_of(2) + 2, 0);
            let ip = headers(to.0, to.1);
            let (_, _, field) = layout(&ip, &transport(ports[1]));
            let now = be16(&build::packet(&ip, &transport(ports[1]), &payload), field);
            let len = payload.len();
            payload[len - 2..].copy_from_slice(&add(now, !wanted).to_be_bytes());
        }
        let before = headers(from.0, from.1);
        let mut bytes = build::packet(&before, &transport(ports[0]), &payload);
        let (at, number, field) = layout(&before, &transport(ports[0]));
        let mut delta = Delta::default();
        delta.addr(from.0, to.0);
        delta.addr(from.1, to.1);
        delta.word16(ports[0][0], ports[1][0]);
        delta.word16(ports[0][1], ports[1][1]);
        if from.0.is_v4() {
            let mut ip = steerage::wire::ipv4::Ipv4::new(&mut bytes[..]).unwrap();
            ip.set_src(to.0);
            ip.set_dst(to.1);
        } else {
            let mut ip = steerage::wire::ipv6::Ipv6::new(&mut bytes[..]).unwrap();
            ip.set_src(to.0);
            ip.set_dst(to.1);
        }
        let stated = be16(&bytes, field);
        if number == protocol::UDP {
            let mut udp = udp::Udp::new(&mut bytes[at..]).unwrap();
            udp.set_src_port(ports[1][0]);
            udp.set_dst_port(ports[1][1]);
            udp.set_checksum(delta.apply_udp(stated));
        } else {
            let mut tcp = tcp::Tcp::new(&mut bytes[at..]).unwrap();
            tcp.set_src_port(ports[1][0]);
            tcp.set_dst_port(ports[1][1]);
            tcp.set_checksum(delta.apply(stated));
        }
        prop_assert_eq!(bytes, build::packet(&headers(to.0, to.1), &transport(ports[1]), &payload));
    }

    /// Lengths beyond sixteen bits (jumbograms, large segments) enter the pseudo-header whole.
    #[test]
    fn the_pseudo_header_agrees((src, dst) in build::pair(), number: u8, len in 0usize..1 << 20) {
        let mut bytes = Vec::new();
        if src.is_v4() {
            bytes.extend(src.v4_bytes());
            bytes.extend(dst.v4_bytes());
        } else {
            bytes.extend(src.0);
            bytes.extend(dst.0);
        }
        bytes.extend((len as u32).to_be_bytes());
        bytes.extend([0, 0, 0, number]);
        prop_assert_eq!(pseudo_header(src, dst, number, len), theirs(&bytes));
    }
}

fn sum_words(words: &[u16]) -> u16 {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
    theirs(&bytes)
}

/// Sets the last word so that the checksum over all becomes `checksum`, or its other zero.
fn force(words: &mut [u16], checksum: u16) {
    let (last, rest) = words.split_last_mut().unwrap();
    *last = add(!checksum, !sum_words(rest));
}

#[test]
fn rfc_1071_example() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2); // §3
}

#[test]
fn rfc_1624_example() {
    // §4: a checksum of 0xdd2f, a word 0x5555 that becomes 0x3285; RFC 1141's way gave 0xffff.
    let mut delta = Delta::default();
    delta.word16(0x5555, 0x3285);
    assert_eq!(delta.apply(0xdd2f), 0x0000);
    assert_eq!(delta.apply_udp(0xdd2f), 0xffff);
    // And back again, from either zero.
    let mut delta = Delta::default();
    delta.word16(0x3285, 0x5555);
    assert_eq!([0x0000, 0xffff].map(|field| delta.apply(field)), [0xdd2f; 2]);
}

#[test]
fn no_change_keeps_the_field() {
    let mut delta = Delta::default();
    delta.word16(0x1234, 0x1234);
    for field in [1, 0x1234, 0xfffe] {
        assert_eq!(Delta::default().apply(field), field);
        assert_eq!(delta.apply(field), field);
    }
    assert_eq!(delta.apply(0), 0);
    assert_eq!(delta.apply_udp(0xffff), 0xffff);
}
