//! Every parser of `src/wire`, one a file. The first byte picks it, so that the search can go deep in each.

use steerage::base::{Addr, HashKey, Mac};
use steerage::wire::arp::{self, Arp};
use steerage::wire::backplane::{self, Header};
use steerage::wire::checksum::{self, Delta};
use steerage::wire::control::{self, Heartbeat, RECORDS_LEN, Records};
use steerage::wire::eth::Eth;
use steerage::wire::gue::Gue;
use steerage::wire::icmp::{self, Icmp, Neighbour};
use steerage::wire::ipip::{self, Inner};
use steerage::wire::ipv4::Ipv4;
use steerage::wire::ipv6::{self, Ipv6};
use steerage::wire::state::{self, Record};
use steerage::wire::tcp::Tcp;
use steerage::wire::udp::Udp;
use steerage::wire::vlan::Vlan;
use steerage::wire::{protocol, udp};

/// Takes a format's bytes, and panics if a promise is broken.
type Parser = fn(&[u8]);

/// The formats, in the order of their numbers; each is a file of `src/wire`.
pub const FORMATS: [(&str, Parser); 14] = [
    ("arp", arp),
    ("backplane", backplane),
    ("checksum", checksum),
    ("control", control),
    ("eth", eth),
    ("gue", gue),
    ("icmp", icmp),
    ("ipip", ipip),
    ("ipv4", ipv4),
    ("ipv6", ipv6),
    ("state", state),
    ("tcp", tcp),
    ("udp", udp),
    ("vlan", vlan),
];

/// No bytes make a parser, or an accessor of what it accepted, panic; and what it accepted holds together.
pub fn one(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    FORMATS[usize::from(*first) % FORMATS.len()].1(rest);
}

fn arp(bytes: &[u8]) {
    if let Ok(message) = Arp::parse(bytes) {
        let mut out = vec![0; arp::LEN];
        message.write(&mut out);
        assert_eq!(out, &bytes[..arp::LEN], "an ARP message has no room for anything else");
    }
}

fn backplane(bytes: &[u8]) {
    if let Ok(header) = Header::parse(bytes) {
        let mut out = vec![0; backplane::HEADER_LEN];
        header.write(&mut out);
        assert_eq!(Header::parse(&out), Ok(header));
    }
}

fn checksum(bytes: &[u8]) {
    // RFC 1071 §4.1, word by word.
    let mut plain: u64 =
        bytes.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum();
    while plain > 0xffff {
        plain = (plain & 0xffff) + (plain >> 16);
    }
    assert_eq!(u64::from(checksum::sum(bytes)), plain);
    // RFC 1624: mending a word equals summing again, but for the two zeros.
    if let [a, b, c, d, rest @ ..] = bytes {
        let (old, new) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        let mut delta = Delta::default();
        delta.word16(old, new);
        let whole = |word| !checksum::add(checksum::sum(rest), word);
        let (mended, right) = (delta.apply(whole(old)), whole(new));
        assert!(mended == right || [mended, right] == [0, 0xffff] || [mended, right] == [0xffff, 0]);
        assert_ne!(
            delta.apply_udp(whole(old)),
            if whole(old) == 0 { 1 } else { 0 },
            "zero says that there is none"
        );
    }
}

fn control(bytes: &[u8]) {
    let key = HashKey([1, 2]);
    let _ = Heartbeat::parse(bytes, key);
    records(bytes, key);
    // The same with a right code, which no search would find.
    let mut signed = bytes.to_vec();
    let workers = bytes.get(64..66).map_or(0, |w| usize::from(u16::from_be_bytes([w[0], w[1]])));
    let end = 66 + 4 * workers;
    if signed.len() >= end + 8 {
        let code = steerage::base::hash::mac(key, &signed[..end]);
        signed[end..end + 8].copy_from_slice(&code.to_be_bytes());
        if let Ok(beat) = Heartbeat::parse(&signed, key) {
            let mut out = vec![0; control::MAX_LEN];
            let len = beat.write(&mut out, key);
            assert_eq!(len, end + 8);
            assert_eq!(Heartbeat::parse(&out[..len], key), Ok(beat));
        }
    }
}

/// Records, also with a right code.
fn records(bytes: &[u8], key: HashKey) {
    let _ = Records::parse(bytes, key);
    let Some(end) = bytes.len().checked_sub(8) else { return };
    let mut signed = bytes.to_vec();
    let code = steerage::base::hash::mac(key, &signed[..end]);
    signed[end..].copy_from_slice(&code.to_be_bytes());
    if let Ok((head, records)) = Records::parse(&signed, key) {
        let mut out = vec![0; end + 8];
        out[RECORDS_LEN..end].copy_from_slice(records);
        let len = head.seal(&mut out, end, key);
        assert_eq!(Records::parse(&out[..len], key), Ok((head, records)));
    }
}

fn state(mut bytes: &[u8]) {
    while let Ok((record, rest)) = Record::parse(bytes) {
        let mut out = vec![0; state::MAX_RECORD];
        let len = record.write(&mut out);
        assert_eq!(len + rest.len(), bytes.len());
        assert_eq!(Record::parse(&out[..len]), Ok((record, &[][..])));
        bytes = rest;
    }
}

fn eth(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    if let Ok(mut header) = Eth::new(&mut copy[..]) {
        let _ = (header.dst().is_multicast(), header.src(), header.ethertype());
        header.set_dst(Mac([1; 6]));
        header.set_src(Mac([2; 6]));
        assert_eq!((header.dst(), header.src()), (Mac([1; 6]), Mac([2; 6])));
        assert_eq!(copy[12..], bytes[12..]);
    }
}

fn gue(bytes: &[u8]) {
    if let Ok(header) = Gue::parse(bytes) {
        assert!(header.offset <= bytes.len());
    }
}

fn icmp(bytes: &[u8]) {
    for v6 in [false, true] {
        let addr = if v6 { Addr([1; 16]) } else { Addr::v4([1; 4]) };
        if let Ok(message) = Icmp::new(bytes, v6) {
            let _ = (message.kind(), message.type_and_code(), message.mtu());
            let _ = icmp::quoted_flow(message.quoted());
            let mut copy = bytes.to_vec();
            // Only what was right has to be right afterwards; and only a request is answered.
            if icmp::checksum_ok(&copy, addr, addr) && message.kind() == icmp::Kind::EchoRequest {
                icmp::echo_reply(&mut copy, v6);
                assert!(icmp::checksum_ok(&copy, addr, addr), "echo reply");
            }
            icmp::write_too_big(&mut copy, 1500, addr, addr);
            assert!(icmp::checksum_ok(&copy, addr, addr), "too big");
        }
    }
    let _ = icmp::quoted_flow(bytes);
    if let Ok(message) = Neighbour::parse(bytes) {
        let mut out = vec![0; icmp::ND_LEN];
        let len = message.write(&mut out, Addr([1; 16]), Addr([2; 16]));
        assert_eq!(Neighbour::parse(&out[..len]), Ok(message));
    }
}

fn ipip(bytes: &[u8]) {
    // An outer header of any values is one that our own parsers take.
    let [a, b, class, label, protocol_number, rest @ ..] = bytes else { return };
    let addr = |b: u8| if b.is_multiple_of(2) { Addr::v4([10, 0, 0, b]) } else { Addr([b; 16]) };
    let (src, dst) = (addr(*a), addr((*b & !1) | (*a & 1)));
    let (len, between) = (rest.len(), if *protocol_number == protocol::UDP { udp::HEADER_LEN } else { 0 });
    let mut out = vec![0; ipip::outer_len(dst) + between];
    out.extend(rest);
    let inner = Inner { class: *class, len };
    ipip::write_outer(&mut out, src, dst, inner, between, *protocol_number, u32::from(*label));
    if dst.is_v4() {
        steerage::wire::ipv4::fill_checksum(&mut out);
        let ip = Ipv4::new(&out[..]).expect("an outer IPv4 header");
        assert!(ip.checksum_ok());
        assert_eq!(
            (ip.total_len(), ip.src(), ip.dst(), ip.protocol()),
            (out.len(), src, dst, *protocol_number)
        );
    } else {
        let ip = Ipv6::new(&out[..]).expect("an outer IPv6 header");
        assert_eq!(
            (ip.total_len(), ip.src(), ip.dst(), ip.next_header()),
            (out.len(), src, dst, *protocol_number)
        );
    }
}

fn ipv4(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let Ok(mut ip) = Ipv4::new(&mut copy[..]) else { return };
    let _ = (ip.tos(), ip.id(), ip.is_fragment(), ip.dont_fragment(), ip.protocol());
    assert!(ip.header_len() <= bytes.len() && ip.total_len() >= ip.header_len());
    let (right, header) = (ip.checksum_ok(), ip.header_len());
    ip.set_src(Addr::v4([3; 4]));
    ip.set_dst(Addr::v4([4; 4]));
    if ip.ttl() > 0 {
        ip.decrement_ttl();
    }
    assert_eq!(ip.checksum_ok(), right, "mending must neither hide nor make an error");
    ip.set_ttl(64);
    assert_eq!((ip.src(), ip.dst(), ip.ttl()), (Addr::v4([3; 4]), Addr::v4([4; 4]), 64));
    assert_eq!(copy[header..], bytes[header..]);
}

fn ipv6(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let Ok(mut ip) = Ipv6::new(&mut copy[..]) else { return };
    let _ = (ip.traffic_class(), ip.next_header(), ip.hop_limit());
    assert!(ip.total_len() >= ipv6::HEADER_LEN);
    if let Ok(upper) = ipv6::upper(bytes) {
        assert!((ipv6::HEADER_LEN..=bytes.len()).contains(&upper.offset));
        assert!(upper.offset <= ipv6::HEADER_LEN + steerage::base::limits::MAX_EXT_BYTES);
    }
    ip.set_src(Addr([3; 16]));
    ip.set_dst(Addr([4; 16]));
    ip.set_hop_limit(9);
    ip.decrement_hop_limit();
    assert_eq!((ip.src(), ip.dst(), ip.hop_limit()), (Addr([3; 16]), Addr([4; 16]), 8));
    assert_eq!(copy[40..], bytes[40..]);
}

fn tcp(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let Ok(mut tcp) = Tcp::new(&mut copy[..]) else { return };
    let _ = (tcp.seq(), tcp.ack(), tcp.flags());
    assert!((20..=bytes.len()).contains(&tcp.header_len()));
    tcp.set_src_port(1);
    tcp.set_dst_port(2);
    tcp.set_checksum(3);
    assert_eq!((tcp.src_port(), tcp.dst_port(), tcp.checksum()), (1, 2, 3));
    assert_eq!(copy[18..], bytes[18..]);
}

fn udp(bytes: &[u8]) {
    let mut copy = bytes.to_vec();
    let Ok(mut udp) = Udp::new(&mut copy[..]) else { return };
    let _ = udp.is_empty();
    assert!(udp.len() >= udp::HEADER_LEN);
    udp.set_src_port(1);
    udp.set_dst_port(2);
    udp.set_checksum(3);
    assert_eq!((udp.src_port(), udp.dst_port(), udp.checksum()), (1, 2, 3));
    assert_eq!(copy[8..], bytes[8..]);
}

fn vlan(bytes: &[u8]) {
    if let Ok(tag) = Vlan::parse(bytes) {
        assert!(tag.id < 4096);
    }
}
