//! Ethernet, VLAN, ARP, IPv4, IPv6, TCP and UDP, one layer behind the other.

use crate::build::{self, Transport};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, ArpPacket, Ethernet2Header, IpHeaders, Ipv4Header, Ipv6Header,
    PacketBuilder, SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};
use proptest::prelude::*;
use steerage::base::{Addr, Mac};
use steerage::wire::arp::{Arp, Operation};
use steerage::wire::eth::{self, Eth, ethertype};
use steerage::wire::ipv4::{self, Ipv4};
use steerage::wire::ipv6::{self, Ipv6};
use steerage::wire::tcp::Tcp;
use steerage::wire::udp::{self, Udp};
use steerage::wire::vlan::{self, Vlan};
use steerage::wire::{Malformed, protocol};

fn vlan_id() -> impl Strategy<Value = VlanId> {
    (0u16..4096).prop_map(|id| VlanId::try_new(id).unwrap())
}

proptest! {
    #[test]
    fn ethernet_and_tags_are_read(src: [u8; 6], dst: [u8; 6], tags in prop::collection::vec(vlan_id(), 0..=2)) {
        let step = PacketBuilder::ethernet2(src, dst);
        let mut frame = Vec::new();
        match tags[..] {
            [] => step.ipv4([1; 4], [2; 4], 9).udp(1, 2).write(&mut frame, &[]),
            [id] => step.single_vlan(id).ipv4([1; 4], [2; 4], 9).udp(1, 2).write(&mut frame, &[]),
            [outer, inner, ..] => {
                step.double_vlan(outer, inner).ipv4([1; 4], [2; 4], 9).udp(1, 2).write(&mut frame, &[])
            }
        }.unwrap();

        let header = Eth::new(&frame[..]).unwrap();
        prop_assert_eq!((header.src(), header.dst()), (Mac(src), Mac(dst)));
        let mut kind = header.ethertype();
        let mut at = eth::HEADER_LEN;
        for (i, tag) in tags.iter().enumerate() {
            let outer_of_two = i == 0 && tags.len() == 2;
            prop_assert_eq!(kind, if outer_of_two { ethertype::QINQ } else { ethertype::VLAN });
            let read = Vlan::parse(&frame[at..]).unwrap();
            prop_assert_eq!(read.id, tag.value());
            kind = read.ethertype;
            at += vlan::TAG_LEN;
        }
        prop_assert_eq!(kind, ethertype::IPV4);
        prop_assert!(Ipv4::new(&frame[at..]).unwrap().checksum_ok());
    }

    #[test]
    fn priority_bits_are_no_part_of_the_vlan(tci: u16, kind: u16) {
        let [a, b, c, d] = [tci.to_be_bytes(), kind.to_be_bytes()].concat()[..] else { unreachable!() };
        let (read, _) = SingleVlanHeader::from_slice(&[a, b, c, d]).unwrap();
        let own = Vlan::parse(&[a, b, c, d]).unwrap();
        prop_assert_eq!((own.id, own.ethertype), (read.vlan_id.value(), read.ether_type.0));
    }

    #[test]
    fn ethernet_is_written(src: [u8; 6], dst: [u8; 6], id in prop::option::of(0u16..4096), kind: u16) {
        let mut out = [0xee; 20];
        let len = eth::write(&mut out, Mac(dst), Mac(src), id, kind);
        let (header, rest) = Ethernet2Header::from_slice(&out[..len]).unwrap();
        prop_assert_eq!((header.source, header.destination), (src, dst));
        match id {
            None => prop_assert_eq!((header.ether_type.0, rest.len()), (kind, 0)),
            Some(id) => {
                prop_assert_eq!(header.ether_type.0, ethertype::VLAN);
                let (tag, rest) = SingleVlanHeader::from_slice(rest).unwrap();
                prop_assert_eq!((tag.vlan_id.value(), tag.ether_type.0, rest.len()), (id, kind, 0));
                prop_assert_eq!((tag.pcp.value(), tag.drop_eligible_indicator), (0, false));
            }
        }
        prop_assert!(out[len..].iter().all(|b| *b == 0xee), "wrote past its header");

        let mut rewritten = Eth::new(&mut out[..]).unwrap();
        rewritten.set_dst(Mac(src));
        rewritten.set_src(Mac(dst));
        let (header, _) = Ethernet2Header::from_slice(&out[..len]).unwrap();
        prop_assert_eq!((header.source, header.destination), (dst, src));
    }

    #[test]
    fn arp_both_ways(operation in 0u16..4, macs: [[u8; 6]; 2], ips: [[u8; 4]; 2], padding in 0usize..20) {
        let theirs = ArpEthIpv4Packet {
            operation: ArpOperation(operation),
            sender_mac: macs[0],
            sender_ipv4: ips[0],
            target_mac: macs[1],
            target_ipv4: ips[1],
        };
        let mut bytes = theirs.to_bytes().to_vec();
        bytes.resize(bytes.len() + padding, 0);
        let kind = match operation {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => {
                prop_assert_eq!(Arp::parse(&bytes), Err(Malformed::Value));
                return Ok(());
            }
        };
        let ours = Arp {
            operation: kind,
            sender_mac: Mac(macs[0]),
            sender: Addr::v4(ips[0]),
            target_mac: Mac(macs[1]),
            target: Addr::v4(ips[1]),
        };
        prop_assert_eq!(Arp::parse(&bytes), Ok(ours));
        let mut out = [0xee; 28];
        ours.write(&mut out);
        let packet = ArpPacket::from(theirs);
        prop_assert_eq!(&out[..], &packet.to_bytes()[..]);
    }

    #[test]
    fn ip_and_transport_are_read(
        ip in build::ip_headers(), transport in build::transport(), payload in build::payload(),
    ) {
        let bytes = build::packet(&ip, &transport, &payload);
        let (upper, at) = match &ip {
            IpHeaders::Ipv4(h, _) => {
                let read = Ipv4::new(&bytes[..]).unwrap();
                prop_assert_eq!(read.header_len(), h.header_len());
                prop_assert_eq!(read.total_len(), bytes.len());
                prop_assert_eq!(read.tos(), h.dscp.value() << 2 | h.ecn.value());
                prop_assert_eq!((read.id(), read.ttl()), (h.identification, h.time_to_live));
                prop_assert_eq!(read.is_fragment(), h.is_fragmenting_payload());
                prop_assert_eq!(read.dont_fragment(), h.dont_fragment);
                let more = if h.more_fragments { ipv4::MORE_FRAGMENTS } else { 0 };
                let offset = read.flags_and_offset() & !ipv4::DONT_FRAGMENT;
                prop_assert_eq!(offset, more | h.fragment_offset.value());
                prop_assert_eq!((read.src(), read.dst()), (Addr::v4(h.source), Addr::v4(h.destination)));
                prop_assert!(read.checksum_ok());
                (read.protocol(), read.header_len())
            }
            IpHeaders::Ipv6(h, _) => {
                let read = Ipv6::new(&bytes[..]).unwrap();
                prop_assert_eq!(read.total_len(), bytes.len());
                prop_assert_eq!((read.traffic_class(), read.hop_limit()), (h.traffic_class, h.hop_limit));
                prop_assert_eq!((read.src(), read.dst()), (Addr(h.source), Addr(h.destination)));
                let upper = ipv6::upper(&bytes).unwrap();
                prop_assert_eq!((upper.protocol, upper.fragment), (read.next_header(), None));
                (upper.protocol, upper.offset)
            }
        };
        let rest = &bytes[at..];
        match &transport {
            Transport::Tcp(h) => {
                prop_assert_eq!(upper, protocol::TCP);
                let read = Tcp::new(rest).unwrap();
                prop_assert_eq!(read.header_len(), h.header_len());
                prop_assert_eq!((read.src_port(), read.dst_port()), (h.source_port, h.destination_port));
                prop_assert_eq!((read.seq(), read.ack()), (h.sequence_number, h.acknowledgment_number));
                let bits = [h.fin, h.syn, h.rst, h.psh, h.ack, h.urg, h.ece, h.cwr];
                let flags = bits.iter().enumerate().map(|(i, bit)| u8::from(*bit) << i).sum::<u8>();
                prop_assert_eq!(read.flags(), flags);
                prop_assert_eq!(&rest[read.header_len()..], &payload[..]);
            }
            Transport::Udp(src, dst) => {
                prop_assert_eq!(upper, protocol::UDP);
                let read = Udp::new(rest).unwrap();
                prop_assert_eq!((read.src_port(), read.dst_port()), (*src, *dst));
                prop_assert_eq!(read.len(), rest.len());
                prop_assert_eq!(read.is_empty(), payload.is_empty());
            }
            Transport::Echo { .. } => {
                prop_assert_eq!(upper, if read_v4(&ip) { protocol::ICMP } else { protocol::ICMPV6 });
            }
        }
    }

    #[test]
    fn ipv4_is_written(h in build::ipv4_header(), total_len in 20u16.., protocol: u8) {
        let flags = u16::from(h.dont_fragment) << 14 | u16::from(h.more_fragments) << 13;
        let header = ipv4::Header {
            tos: h.dscp.value() << 2 | h.ecn.value(),
            total_len,
            id: h.identification,
            flags_and_offset: flags | h.fragment_offset.value(),
            ttl: h.time_to_live,
            protocol,
            src: Addr::v4(h.source),
            dst: Addr::v4(h.destination),
        };
        let mut theirs = h.clone();
        theirs.options = Default::default();
        theirs.total_len = total_len;
        theirs.protocol = protocol.into();
        theirs.header_checksum = theirs.calc_header_checksum();
        let mut out = [0xee; 24];
        header.write(&mut out);
        prop_assert_eq!(&out[..20], &theirs.to_bytes()[..]);
        prop_assert_eq!(&out[20..], &[0xee; 4]);
        prop_assert_eq!(Ipv4Header::from_slice(&out[..20]).unwrap().0, theirs);
        header.write_without_checksum(&mut out);
        prop_assert_eq!(&out[10..12], &[0, 0]);
    }

    #[test]
    fn ipv6_is_written(h in build::ipv6_header(), len: u16, next: u8, stray in 0u32..1 << 12) {
        let mut theirs = h.clone();
        theirs.payload_length = len;
        theirs.next_header = next.into();
        let mut out = [0xee; 44];
        // Bits of the label beyond its twenty must not reach its neighbours.
        let label = h.flow_label.value() | stray << 20;
        ipv6::write(&mut out, h.traffic_class, label, len, next, h.hop_limit, Addr(h.source), Addr(h.destination));
        prop_assert_eq!(&out[..40], &theirs.to_bytes()[..]);
        prop_assert_eq!(&out[40..], &[0xee; 4]);
    }

    #[test]
    fn ip_setters_change_what_they_name(h in build::ipv4_header(), g in build::ipv6_header(), to: [u8; 4], to6: [u8; 16]) {
        let mut theirs = h.clone();
        theirs.total_len = theirs.header_len() as u16;
        theirs.header_checksum = theirs.calc_header_checksum();
        let mut bytes = theirs.to_bytes().to_vec();
        let mut ours = Ipv4::new(&mut bytes[..]).unwrap();
        ours.set_src(Addr::v4(to));
        ours.decrement_ttl();
        ours.set_dst(Addr::v4(h.source));
        theirs.source = to;
        theirs.destination = h.source;
        theirs.time_to_live -= 1;
        theirs.header_checksum = theirs.calc_header_checksum();
        prop_assert_eq!(&bytes[..], &theirs.to_bytes()[..]);

        let mut theirs = g.clone();
        let mut bytes = theirs.to_bytes();
        let mut ours = Ipv6::new(&mut bytes[..]).unwrap();
        ours.set_src(Addr(to6));
        ours.set_dst(Addr(g.source));
        ours.decrement_hop_limit();
        (theirs.source, theirs.destination) = (to6, g.source);
        theirs.hop_limit -= 1;
        prop_assert_eq!(bytes, theirs.to_bytes());
        prop_assert_eq!(Ipv6Header::from_slice(&bytes).unwrap().0, theirs);
    }

    #[test]
    fn transport_setters_change_what_they_name(h in build::tcp_header(), ports: [u16; 2], sum: u16) {
        let mut theirs = h.clone();
        let mut bytes = theirs.to_bytes().to_vec();
        let mut ours = Tcp::new(&mut bytes[..]).unwrap();
        ours.set_src_port(ports[0]);
        ours.set_dst_port(ports[1]);
        ours.set_checksum(sum);
        prop_assert_eq!(ours.checksum(), sum);
        [theirs.source_port, theirs.destination_port] = ports;
        theirs.checksum = sum;
        prop_assert_eq!(&bytes[..], &theirs.to_bytes()[..]);
        prop_assert_eq!(TcpHeader::from_slice(&bytes).unwrap().0, theirs);

        let mut theirs = UdpHeader { source_port: 1, destination_port: 2, length: 8, checksum: 3 };
        let mut bytes = theirs.to_bytes();
        let mut ours = Udp::new(&mut bytes[..]).unwrap();
        ours.set_src_port(ports[0]);
        ours.set_dst_port(ports[1]);
        ours.set_checksum(sum);
        prop_assert_eq!(ours.checksum(), sum);
        [theirs.source_port, theirs.destination_port] = ports;
        theirs.checksum = sum;
        prop_assert_eq!(bytes, theirs.to_bytes());
    }

    #[test]
    fn udp_of_a_tunnel_is_written(ports: [u16; 2], len in 0u16..=65_527) {
        let mut out = [0xee; 8];
        udp::write_tunnel(&mut out, ports[0], ports[1], len);
        let (header, _) = UdpHeader::from_slice(&out).unwrap();
        prop_assert_eq!([header.source_port, header.destination_port], ports);
        prop_assert_eq!((header.length, header.checksum), (len + 8, 0));
    }
}

fn read_v4(ip: &IpHeaders) -> bool {
    matches!(ip, IpHeaders::Ipv4(..))
}

#[test]
fn arp_of_other_networks_is_refused() {
    let good = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: [1; 6],
        sender_ipv4: [2; 4],
        target_mac: [3; 6],
        target_ipv4: [4; 4],
    }
    .to_bytes();
    for at in 0..8 {
        let mut bytes = good;
        bytes[at] ^= 0x10;
        assert_eq!(Arp::parse(&bytes), Err(Malformed::Value), "byte {at}");
    }
}
