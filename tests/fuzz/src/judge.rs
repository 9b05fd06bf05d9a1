//! What a node may send.

use crate::packet::Packet;
use crate::solo::{Side, v6_address};
use steerage::base::{Addr, NodeId};
use steerage::wire::arp::Arp;
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::eth::{Eth, ethertype};
use steerage::wire::ipv4::Ipv4;
use steerage::wire::ipv6::{self, Ipv6};
use steerage::wire::{gue, protocol};

/// Whether a frame that the node sent is one that it may send. If a NATed packet for a real server, that packet.
///
/// # Panics
/// If not.
pub fn judge(side: Side, frame: &[u8]) -> Option<Packet> {
    let header = Eth::new(frame).expect("a frame has an Ethernet header");
    assert_eq!(header.src(), side.mac(), "the port's own address");
    let at = if header.ethertype() == ethertype::VLAN { 18 } else { 14 };
    let kind = u16::from_be_bytes([frame[at - 2], frame[at - 1]]);
    let packet = &frame[at..];
    let mtu = if side == Side::Back { 1700 } else { 1500 };
    assert!(packet.len() <= mtu, "{} bytes on {side:?}", packet.len());
    match kind {
        ethertype::ARP => {
            Arp::parse(packet).expect("an ARP message");
            None
        }
        ethertype::IPV4 | ethertype::IPV6 => inside(side, packet, kind == ethertype::IPV4),
        other => panic!("ethertype {other:#06x} sent"),
    }
}

/// Judges an IP packet that fills its frame.
fn inside(side: Side, packet: &[u8], v4: bool) -> Option<Packet> {
    let (src, number, at) = if v4 {
        let ip = Ipv4::new(packet).expect("an IPv4 header");
        assert!(ip.checksum_ok(), "IPv4 checksum");
        assert_eq!(ip.total_len(), packet.len(), "IPv4 length");
        assert!(ip.ttl() > 0 && !ip.is_fragment());
        (ip.src(), ip.protocol(), ip.header_len())
    } else {
        let ip = Ipv6::new(packet).expect("an IPv6 header");
        assert_eq!(ip.total_len(), packet.len(), "IPv6 length");
        assert!(ip.hop_limit() > 0);
        let upper = ipv6::upper(packet).expect("an IPv6 chain");
        (ip.src(), upper.protocol, upper.offset)
    };
    let (own_v4, own_v6) = (Addr::v4([10, 10, 0, 11]), v6_address(0xfd10, 0x11));
    let behind = &packet[at..];
    let ports = || (u16::from_be_bytes([behind[0], behind[1]]), u16::from_be_bytes([behind[2], behind[3]]));
    match number {
        protocol::IPV4 | protocol::IPV6 => {
            assert_eq!(side, Side::Front, "tunnels lead to real servers");
            whole(behind);
        }
        protocol::UDP if side == Side::Back => {
            assert_eq!(src, Addr::v4([10, 20, 0, 11]));
            if ports().1 != 6599 {
                let header = Header::parse(&behind[8..]).expect("our own header");
                assert_eq!(header.sender, NodeId(0));
                assert!(
                    [Stage::Owner, Stage::PreviousOwner, Stage::Returned].contains(&header.stage),
                    "{:?}",
                    header.stage
                );
                whole(&behind[8 + backplane::HEADER_LEN..]);
            }
        }
        protocol::UDP if ports().1 == gue::PORT && [own_v4, own_v6].contains(&src) => whole(&behind[8..]),
        protocol::TCP | protocol::UDP => return translated(packet, src),
        _ => {}
    }
    None
}

/// The packet in a tunnel is as long as it says.
fn whole(packet: &[u8]) {
    let len = match packet.first().map(|b| b >> 4) {
        Some(4) => Ipv4::new(packet).expect("an inner IPv4 header").total_len(),
        Some(6) => Ipv6::new(packet).expect("an inner IPv6 header").total_len(),
        other => panic!("version {other:?} in a tunnel"),
    };
    assert_eq!(len, packet.len(), "inner length");
}

/// A packet from a SNAT address went to a real server.
fn translated(packet: &[u8], src: Addr) -> Option<Packet> {
    let snat = match src.is_v4() {
        true => src.v4_bytes()[..3] == [10, 10, 0] && (101..=103).contains(&src.v4_bytes()[3]),
        false => src.0[..2] == [0xfd, 0x10] && src.0[14] == 1 && (1..=3).contains(&src.0[15]),
    };
    snat.then(|| Packet::read(packet)).flatten()
}
