//! No bytes make a parser, or an accessor of what it accepted, panic.

use crate::build;
use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::version::{Software, WireVersion};
use steerage::base::{Addr, HashKey, Incarnation, Mac, NodeId, NodeSet};
use steerage::wire::arp::Arp;
use steerage::wire::backplane::Header;
use steerage::wire::checksum;
use steerage::wire::control::{self, Heartbeat};
use steerage::wire::eth::Eth;
use steerage::wire::gue::Gue;
use steerage::wire::icmp::{self, Icmp, Neighbour};
use steerage::wire::ipv4::Ipv4;
use steerage::wire::ipv6::{self, Ipv6};
use steerage::wire::tcp::Tcp;
use steerage::wire::udp::Udp;
use steerage::wire::vlan::Vlan;

const KEY: HashKey = HashKey([1, 2]);

/// Hands the bytes to every parser, and calls everything that what it returns offers. `Err` says which promise of a view
/// the bytes broke.
fn poke(bytes: &[u8]) -> Result<(), String> {
    let inside = |what: &str, at: usize| {
        if at <= bytes.len() { Ok(()) } else { Err(format!("{what} at {at} of {}", bytes.len())) }
    };
    if let Ok(v) = Eth::new(bytes) {
        let _ = (v.dst(), v.src(), v.ethertype(), v.dst().is_multicast());
    }
    let _ = (Vlan::parse(bytes), Arp::parse(bytes), Header::parse(bytes), checksum::sum(bytes));
    let _ = Heartbeat::parse(bytes, KEY);
    if let Ok(v) = Ipv4::new(bytes) {
        let _ =
            (v.tos(), v.id(), v.is_fragment(), v.dont_fragment(), v.ttl(), v.protocol(), v.src(), v.dst());
        let _ = v.checksum_ok();
        inside("IPv4 payload", v.header_len())?;
        if v.total_len() < v.header_len() {
            return Err("an IPv4 packet shorter than its header".into());
        }
    }
    if let Ok(v) = Ipv6::new(bytes) {
        let _ = (v.traffic_class(), v.total_len(), v.next_header(), v.hop_limit(), v.src(), v.dst());
        if let Ok(upper) = ipv6::upper(bytes) {
            inside("IPv6 upper layer", upper.offset)?;
        }
    }
    if let Ok(v) = Tcp::new(bytes) {
        let _ = (v.src_port(), v.dst_port(), v.seq(), v.ack(), v.flags(), v.checksum());
        inside("TCP payload", v.header_len())?;
    }
    if let Ok(v) = Udp::new(bytes) {
        let _ = (v.src_port(), v.dst_port(), v.len(), v.is_empty(), v.checksum());
    }
    for v6 in [false, true] {
        if let Ok(v) = Icmp::new(bytes, v6) {
            let _ = (v.kind(), v.type_and_code(), v.mtu());
            let _ = icmp::quoted_flow(v.quoted());
        }
    }
    let _ = icmp::quoted_flow(bytes);
    for addr in [Addr::v4([1; 4]), Addr([1; 16])] {
        let _ = icmp::checksum_ok(bytes, addr, addr);
    }
    if let Ok(v) = Neighbour::parse(bytes) {
        let _ = (v.target, v.mac);
    }
    if let Ok(v) = Gue::parse(bytes) {
        inside("GUE payload", v.offset)?;
    }
    change(bytes);
    Ok(())
}

/// Calls every setter of what can be parsed. None may touch a byte behind the header.
fn change(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    if let Ok(mut v) = Eth::new(&mut copy[..]) {
        v.set_dst(Mac([1; 6]));
        v.set_src(Mac([2; 6]));
    }
    copy.copy_from_slice(bytes);
    if let Ok(mut v) = Ipv4::new(&mut copy[..]) {
        let right = v.checksum_ok();
        v.set_src(Addr::v4([3; 4]));
        v.set_dst(Addr::v4([4; 4]));
        v.decrement_ttl();
        assert_eq!(v.checksum_ok(), right, "mending must neither hide nor make an error");
    }
    copy.copy_from_slice(bytes);
    if let Ok(mut v) = Ipv6::new(&mut copy[..]) {
        v.set_src(Addr([3; 16]));
        v.set_dst(Addr([4; 16]));
        v.decrement_hop_limit();
    }
    copy.copy_from_slice(bytes);
    if let Ok(mut v) = Tcp::new(&mut copy[..]) {
        v.set_src_port(1);
        v.set_dst_port(2);
        v.set_checksum(3);
    }
    copy.copy_from_slice(bytes);
    if let Ok(mut v) = Udp::new(&mut copy[..]) {
        v.set_src_port(1);
        v.set_dst_port(2);
        v.set_checksum(3);
    }
    for v6 in [false, true] {
        copy.copy_from_slice(bytes);
        if Icmp::new(&copy, v6).is_ok() {
            icmp::echo_reply(&mut copy, v6);
            let addr = if v6 { Addr([1; 16]) } else { Addr::v4([1; 4]) };
            icmp::write_too_big(&mut copy, 1500, addr, addr);
            assert!(icmp::checksum_ok(&copy, addr, addr));
        }
    }
}

/// The packet at every layer's start, so that each parser meets its own header.
fn poke_layers(packet: &[u8]) -> Result<(), String> {
    poke(packet)?;
    for at in [14, 18, 20, 22, 24, 28, 40, 48, 54, 60] {
        if let Some(rest) = packet.get(at..) {
            poke(rest)?;
        }
    }
    Ok(())
}

fn packet() -> impl Strategy<Value = Vec<u8>> {
    let plain = (build::ip_headers(), build::transport(), build::payload())
        .prop_map(|(ip, transport, payload)| build::packet(&ip, &transport, &payload));
    let chained = (build::ipv6_header(), vec(build::extension(6), 0..10), any::<u8>(), build::payload())
        .prop_map(|(header, chain, number, payload)| build::chained(&header, &chain, number, &payload).0);
    let quoting = (any::<bool>(), build::ip_headers(), build::transport(), build::payload()).prop_map(
        |(v6, ip, transport, payload)| {
            let mut message = vec![if v6 { 1 } else { 3 }, 0, 0, 0, 0, 0, 0, 0];
            message.extend(build::packet(&ip, &transport, &payload));
            message
        },
    );
    prop_oneof![plain, chained, quoting]
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        poke(&bytes).map_err(TestCaseError::fail)?;
    }

    /// Arbitrary bytes behind a first byte that gets past the version check.
    #[test]
    fn arbitrary_bytes_of_a_kind(
        first in prop::sample::select(&[0x45u8, 0x4f, 0x60, 135, 136, 0x5b, 0x5c, 0x1f][..]),
        mut bytes in vec(any::<u8>(), 1..300),
    ) {
        bytes[0] = first;
        poke(&bytes).map_err(TestCaseError::fail)?;
        // A chain of extension headers of any lengths.
        if let Some(next) = bytes.get_mut(6) {
            *next = [0, 43, 44, 51, 60, 135][usize::from(*next) % 6];
        }
        poke(&bytes).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn truncated_and_mutated_packets(
        packet in packet(), cut: prop::sample::Index,
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = packet;
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        poke_layers(&bytes).map_err(TestCaseError::fail)?;
        bytes.truncate(cut.index(bytes.len() + 1));
        poke_layers(&bytes).map_err(TestCaseError::fail)?;
    }
}

/// Every value of every byte of some whole packets' headers: no length is left out.
#[test]
fn every_header_byte_with_every_value() {
    let udp = build::Transport::Udp(1, 2);
    let v4 = etherparse::Ipv4Header::new(0, 9, 17.into(), [1; 4], [2; 4]).unwrap();
    let v4 = etherparse::IpHeaders::Ipv4(v4, Default::default());
    let v6 = etherparse::Ipv6Header { hop_limit: 9, ..Default::default() };
    let options = build::Extension::Raw(60, vec![0; 6]);
    let chain = [
        build::Extension::Raw(0, vec![0; 6]),
        options.clone(),
        build::Extension::Authentication(vec![0; 4]),
        build::Extension::Fragment { offset: 0, more: true, id: 1 },
        options,
    ];
    let mut packets = vec![build::packet(&v4, &udp, &[0; 30]), build::chained(&v6, &chain, 17, &[0; 30]).0];
    let beat = Heartbeat {
        wire: WireVersion::NEWEST,
        speaks: WireVersion::NEWEST,
        software: Software::OWN,
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
        turns: [1, 2].into_iter().collect(),
    };
    let mut bytes = vec![0; control::MAX_LEN];
    let len = beat.write(&mut bytes, KEY);
    bytes.truncate(len);
    packets.push(bytes);
    let solicitation = Neighbour {
        advertisement: false,
        solicited: false,
        overrides: false,
        target: Addr([1; 16]),
        mac: None,
    };
    let mut bytes = vec![0; icmp::ND_LEN];
    solicitation.write(&mut bytes, Addr([1; 16]), Addr([2; 16]));
    packets.push(bytes);
    for packet in packets {
        for at in 0..packet.len() {
            for value in 0..=255 {
                let mut bytes = packet.clone();
                bytes[at] = value;
                poke_layers(&bytes).unwrap_or_else(|e| panic!("byte {at} is {value}: {e}"));
            }
        }
    }
}

/// Wrong lengths, each in turn, are refused as what they are.
#[test]
fn wrong_lengths_have_names() {
    use steerage::wire::Malformed::{Length, Truncated, Version};
    let mut v4 = [0u8; 60];
    let ipv4 = |first: u8, total: u16, len: usize, b: &mut [u8; 60]| {
        b[0] = first;
        b[2..4].copy_from_slice(&total.to_be_bytes());
        Ipv4::new(&b[..len]).map(|v| v.header_len())
    };
    assert_eq!(ipv4(0x45, 20, 20, &mut v4), Ok(20));
    assert_eq!(ipv4(0x45, 20, 19, &mut v4), Err(Truncated));
    assert_eq!(ipv4(0x44, 20, 60, &mut v4), Err(Length));
    assert_eq!(ipv4(0x45, 19, 60, &mut v4), Err(Length));
    assert_eq!(ipv4(0x46, 20, 60, &mut v4), Err(Length));
    assert_eq!(ipv4(0x46, 24, 23, &mut v4), Err(Truncated));
    assert_eq!(ipv4(0x4f, 60, 60, &mut v4), Ok(60));
    assert_eq!(ipv4(0x55, 20, 60, &mut v4), Err(Version));
    assert_eq!(Ipv6::new(&[0x60; 39][..]).err(), Some(Truncated));
    assert_eq!(Ipv6::new(&[0x40; 40][..]).err(), Some(Version));
    let tcp = |offset: u8, len: usize| {
        let mut b = [0; 60];
        b[12] = offset << 4;
        Tcp::new(&b[..len]).map(|v| v.header_len())
    };
    assert_eq!(tcp(5, 20), Ok(20));
    assert_eq!(tcp(5, 19), Err(Truncated));
    assert_eq!(tcp(4, 60), Err(Length));
    assert_eq!(tcp(15, 59), Err(Truncated));
    assert_eq!(tcp(15, 60), Ok(60));
    let udp = |stated: u16, len: usize| {
        let mut b = [0; 8];
        b[4..6].copy_from_slice(&stated.to_be_bytes());
        Udp::new(&b[..len]).map(|v| v.len())
    };
    assert_eq!(udp(8, 8), Ok(8));
    assert_eq!(udp(7, 8), Err(Length));
    assert_eq!(udp(0, 8), Err(Length));
    assert_eq!(udp(8, 7), Err(Truncated));
}
