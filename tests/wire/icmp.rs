//! ICMP for both families, and Neighbour Discovery.

use crate::build::{self, Transport};
use etherparse::{
    IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpHeaders, icmpv4, icmpv6,
};
use proptest::prelude::*;
use steerage::base::{Addr, FlowKey, Mac};
use steerage::wire::icmp::{self, Icmp, Kind, Neighbour};
use steerage::wire::{Malformed, protocol};

/// A whole message, as the other implementation writes it.
fn message4(kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    [&Icmpv4Header::with_checksum(kind, payload).to_bytes()[..], payload].concat()
}

fn message6(kind: Icmpv6Type, src: Addr, dst: Addr, payload: &[u8]) -> Vec<u8> {
    let header = Icmpv6Header::with_checksum(kind, src.0, dst.0, payload).unwrap();
    [&header.to_bytes()[..], payload].concat()
}

fn echo(id: u16, seq: u16) -> IcmpEchoHeader {
    IcmpEchoHeader { id, seq }
}

/// Mostly zero bytes: the corner of ones' complement.
fn thin_payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![build::payload(), (0usize..20).prop_map(|n| vec![0; n])]
}

fn thin_number() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(0xffff), any::<u16>()]
}

proptest! {
    #[test]
    fn echoes_are_answered(
        (src, dst) in build::pair(), id in thin_number(), seq in thin_number(), payload in thin_payload(),
    ) {
        let v6 = !src.is_v4();
        let (mut request, reply) = if v6 {
            (
                message6(Icmpv6Type::EchoRequest(echo(id, seq)), src, dst, &payload),
                message6(Icmpv6Type::EchoReply(echo(id, seq)), dst, src, &payload),
            )
        } else {
            (
                message4(Icmpv4Type::EchoRequest(echo(id, seq)), &payload),
                message4(Icmpv4Type::EchoReply(echo(id, seq)), &payload),
            )
        };
        prop_assert_eq!(Icmp::new(&request, v6).unwrap().kind(), Kind::EchoRequest);
        prop_assert!(icmp::checksum_ok(&request, src, dst));
        icmp::echo_reply(&mut request, v6);
        prop_assert_eq!(Icmp::new(&request, v6).unwrap().kind(), Kind::EchoReply);
        prop_assert!(icmp::checksum_ok(&request, dst, src));
        prop_assert_eq!(request, reply);
    }

    #[test]
    fn a_wrong_checksum_is_seen(
        (src, dst) in build::pair(), payload in build::payload(), at: prop::sample::Index, bit in 0u8..8,
    ) {
        let mut bytes = if src.is_v4() {
            message4(Icmpv4Type::EchoRequest(echo(1, 2)), &payload)
        } else {
            message6(Icmpv6Type::EchoRequest(echo(1, 2)), src, dst, &payload)
        };
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(!icmp::checksum_ok(&bytes, src, dst));
    }

    #[test]
    fn too_big_is_written((src, dst) in build::pair(), mtu: u16, quote in build::payload()) {
        let mut message = vec![0xee; icmp::HEADER_LEN];
        message.extend(&quote);
        icmp::write_too_big(&mut message, mtu, src, dst);
        let expected = if src.is_v4() {
            let code = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
            message4(Icmpv4Type::DestinationUnreachable(code), &quote)
        } else {
            message6(Icmpv6Type::PacketTooBig { mtu: mtu.into() }, src, dst, &quote)
        };
        prop_assert_eq!(&message, &expected);
        let read = Icmp::new(&expected, !src.is_v4()).unwrap();
        prop_assert_eq!((read.kind(), read.mtu()), (Kind::Error, Some(mtu.into())));
        prop_assert_eq!(read.quoted(), &quote[..]);
    }

    /// An error about any packet leads back to the packet's flow, if eight bytes of its transport are there.
    #[test]
    fn quotes_lead_to_their_flow(
        ip in build::ip_headers(), transport in build::transport(), payload in build::payload(),
        padding in 0usize..40,
    ) {
        let packet = build::packet(&ip, &transport, &payload);
        let (src, dst, at, later_fragment) = match &ip {
            IpHeaders::Ipv4(h, _) => {
                (Addr::v4(h.source), Addr::v4(h.destination), h.header_len(), h.fragment_offset.value() != 0)
            }
            IpHeaders::Ipv6(h, _) => (Addr(h.source), Addr(h.destination), 40, false),
        };
        let expected = match &transport {
            _ if later_fragment => Err(Malformed::Value),
            Transport::Echo { .. } => Err(Malformed::Value),
            Transport::Tcp(h) => Ok((h.source_port, h.destination_port, protocol::TCP)),
            Transport::Udp(s, d) => Ok((*s, *d, protocol::UDP)),
        }
        .map(|(s, d, number)| FlowKey::new(src, dst, s, d, number));
        for len in at + 8..=packet.len() {
            prop_assert_eq!(icmp::quoted_flow(&packet[..len]), expected, "{} bytes", len);
        }
        let padded = [&packet[..], &vec![0; padding]].concat();
        prop_assert_eq!(icmp::quoted_flow(&padded), expected);
        for len in 0..at + 8 {
            prop_assert!(icmp::quoted_flow(&packet[..len]).is_err(), "{} bytes", len);
        }
    }

    #[test]
    fn neighbour_messages_both_ways(
        advertisement: bool, solicited: bool, overrides: bool, target in build::v6().prop_filter("unicast", |a| a[0] != 0xff),
        mac: [u8; 6], src in build::v6(), dst in build::v6(),
    ) {
        let ours = Neighbour {
            advertisement,
            solicited: advertisement && solicited,
            overrides: advertisement && overrides,
            target: Addr(target),
            mac: Some(Mac(mac)),
        };
        let (kind, option) = if advertisement {
            let header =
                icmpv6::NeighborAdvertisementHeader { router: false, solicited, r#override: overrides };
            (Icmpv6Type::NeighborAdvertisement(header), [2, 1])
        } else {
            (Icmpv6Type::NeighborSolicitation, [1, 1])
        };
        let body = [&target[..], &option[..], &mac[..]].concat();
        let theirs = message6(kind, Addr(src), Addr(dst), &body);
        let mut out = [0xee; icmp::ND_LEN];
        ours.write(&mut out, Addr(src), Addr(dst));
        prop_assert_eq!(&out[..], &theirs[..]);
        prop_assert_eq!(Neighbour::parse(&theirs), Ok(ours));
        prop_assert!(icmp::checksum_ok(&out, Addr(src), Addr(dst)));
        let expected =
            if advertisement { Kind::NeighbourAdvertisement } else { Kind::NeighbourSolicitation };
        prop_assert_eq!(Icmp::new(&out, true).unwrap().kind(), expected);
        for len in 0..theirs.len() {
            // Without the option the message is whole again.
            let read = Neighbour::parse(&theirs[..len]);
            if len == 24 {
                prop_assert_eq!(read.map(|n| n.mac), Ok(None));
            } else {
                prop_assert_eq!(read, Err(Malformed::Truncated));
            }
        }
    }
}

/// Types as the registries name them.
#[test]
fn every_type_has_its_kind() {
    for t in 0..=255u8 {
        let kinds = [false, true].map(|v6| Icmp::new(&[t, 0, 0, 0, 0, 0, 0, 0], v6).unwrap().kind());
        let v4 = match t {
            0 => Kind::EchoReply,
            3 | 4 | 11 | 12 => Kind::Error,
            8 => Kind::EchoRequest,
            _ => Kind::Other,
        };
        let v6 = match t {
            1..=127 => Kind::Error,
            128 => Kind::EchoRequest,
            129 => Kind::EchoReply,
            135 => Kind::NeighbourSolicitation,
            136 => Kind::NeighbourAdvertisement,
            _ => Kind::Other,
        };
        assert_eq!(kinds, [v4, v6], "type {t}");
    }
}

#[test]
fn only_too_big_states_an_mtu() {
    let read = |t, code, v6| Icmp::new(&[t, code, 0, 0, 0, 1, 2, 3], v6).unwrap().mtu();
    assert_eq!(read(3, 4, false), Some(0x203));
    assert_eq!(read(2, 0, true), Some(0x1_0203));
    assert_eq!([read(3, 3, false), read(2, 0, false), read(3, 4, true), read(1, 0, true)], [None; 4]);
}

/// The checksum of a reply that is zero from end to end must not be zero, else nobody takes it.
#[test]
fn an_echo_of_zeros_is_answered() {
    for len in [0, 1, 2, 56] {
        let mut message = message4(Icmpv4Type::EchoRequest(echo(0, 0)), &vec![0; len]);
        icmp::echo_reply(&mut message, false);
        assert_eq!(message[..4], [0, 0, 0xff, 0xff], "{len} zeros");
    }
}

#[test]
fn quotes_behind_extension_headers() {
    let header = etherparse::Ipv6Header { source: [1; 16], destination: [2; 16], ..Default::default() };
    let transport = [0x12, 0x34, 0, 80, 0, 0, 0, 0];
    let key = FlowKey::new(Addr([1; 16]), Addr([2; 16]), 0x1234, 80, protocol::TCP);
    let fragment = |offset| build::Extension::Fragment { offset, more: true, id: 1 };
    let options = build::Extension::Raw(60, vec![0; 14]);
    for (chain, expected) in [
        (vec![options.clone()], Ok(key)),
        (vec![fragment(0)], Ok(key)),
        (vec![options.clone(), fragment(0), options.clone()], Ok(key)),
        (vec![options, fragment(1)], Err(Malformed::Value)),
    ] {
        let (packet, _) = build::chained(&header, &chain, protocol::TCP, &transport);
        assert_eq!(icmp::quoted_flow(&packet), expected, "{chain:?}");
    }
    let mapped = etherparse::Ipv6Header { source: Addr::v4([1; 4]).0, ..header };
    let (packet, _) = build::chained(&mapped, &[], protocol::TCP, &transport);
    assert_eq!(icmp::quoted_flow(&packet), Err(Malformed::Value), "would pass for an IPv4 flow");
}

/// What stands behind the quoted packet's own end (padding, extensions) holds no ports.
#[test]
fn ports_behind_the_end_of_the_quoted_packet_are_none() {
    let mut v4 = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 6, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
    v4.extend([0; 40]);
    assert_eq!(icmp::quoted_flow(&v4), Err(Malformed::Truncated));
    v4[3] = 28;
    assert!(icmp::quoted_flow(&v4).is_ok());
    let header = etherparse::Ipv6Header { source: [1; 16], destination: [2; 16], ..Default::default() };
    let (mut v6, _) = build::chained(&header, &[], protocol::UDP, &[0; 8]);
    assert!(icmp::quoted_flow(&v6).is_ok());
    v6[5] = 7;
    assert_eq!(icmp::quoted_flow(&v6), Err(Malformed::Truncated));
}

#[test]
fn neighbour_options() {
    let with = |options: &[u8]| {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend([0x20; 16]);
        message.extend(options);
        Neighbour::parse(&message).map(|n| n.mac)
    };
    let mac = [1, 1, 9, 8, 7, 6, 5, 4];
    let found = Ok(Some(Mac([9, 8, 7, 6, 5, 4])));
    assert_eq!(with(&[]), Ok(None));
    assert_eq!(with(&mac), found);
    // A nonce (RFC 3971 §5.3.2) before it, an unknown option of two units behind it.
    assert_eq!(with(&[&[14, 1, 0, 0, 0, 0, 0, 0], &mac[..]].concat()), found);
    assert_eq!(with(&[&mac[..], &[200, 2], &[0; 14]].concat()), found);
    // The other side's address is not the one wanted; one of two units is no Ethernet address.
    assert_eq!(with(&[2, 1, 9, 8, 7, 6, 5, 4]), Ok(None));
    assert_eq!(with(&[&[1, 2], &[9; 14][..]].concat()), Ok(None));
    assert_eq!(with(&[1, 0, 9, 8, 7, 6, 5, 4]), Err(Malformed::Length));
    assert_eq!(with(&[1]), Err(Malformed::Truncated));
    assert_eq!(with(&[1, 2, 9, 8, 7, 6, 5, 4]), Err(Malformed::Truncated));
}

#[test]
fn absurd_neighbour_messages_are_refused() {
    let mut good = vec![136, 0, 0, 0, 0, 0, 0, 0];
    good.extend([0x20; 16]);
    assert!(Neighbour::parse(&good).is_ok());
    for (at, value) in [(0, 134), (0, 137), (1, 1), (8, 0xff)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Neighbour::parse(&bad), Err(Malformed::Value), "byte {at} is {value}");
    }
}

#[test]
fn multicast_addresses() {
    let addr = Addr::from("2001:db8::1:2abc:def0".parse::<std::net::IpAddr>().unwrap());
    let group = icmp::solicited_node(addr);
    assert_eq!(group.to_string(), "ff02::1:ffbc:def0");
    assert_eq!(icmp::multicast_mac(group).to_string(), "33:33:ff:bc:de:f0");
    assert!(icmp::multicast_mac(group).is_multicast());
}
