//! IP in IP and GUE.

use crate::build;
use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, NetHeaders, PacketHeaders, TransportHeader, UdpHeader};
use proptest::prelude::*;
use steerage::base::Addr;
use steerage::wire::gue::{self, Gue};
use steerage::wire::ipip::{self, Inner};
use steerage::wire::{Malformed, ipv4, protocol, udp};

proptest! {
    /// 4in4, 6in4, 4in6, 6in6, bare or behind UDP: the other implementation finds the inner packet unharmed.
    #[test]
    fn what_goes_in_comes_out(
        ip in build::ip_headers(), transport in build::transport(), payload in build::payload(),
        (src, dst) in build::pair(), label: u32, ports in prop::option::of(any::<u16>()),
    ) {
        let packet = build::packet(&ip, &transport, &payload);
        let (v6, class) = match &ip {
            IpHeaders::Ipv4(h, _) => (false, h.dscp.value() << 2 | h.ecn.value()),
            IpHeaders::Ipv6(h, _) => (true, h.traffic_class),
        };
        let inner = Inner { class, len: packet.len() };
        let outer = ipip::outer_len(dst);
        let (between, next) = match ports {
            None => (0, ipip::inner_protocol(v6)),
            Some(_) => (gue::VARIANT_1_LEN, protocol::UDP),
        };
        let mut out = vec![0xee; outer + between];
        ipip::write_outer(&mut out, src, dst, inner, between, next, label);
        if let Some(port) = ports {
            udp::write_tunnel(&mut out[outer..], port, gue::PORT, packet.len() as u16);
        }
        out.extend(&packet);

        if dst.is_v4() {
            prop_assert_eq!(&out[10..12], &[0, 0], "left to the device");
            ipv4::fill_checksum(&mut out);
            let (h, _) = Ipv4Header::from_slice(&out).unwrap();
            prop_assert_eq!((Addr::v4(h.source), Addr::v4(h.destination)), (src, dst));
            prop_assert_eq!(usize::from(h.total_len), out.len());
            prop_assert_eq!(h.header_checksum, h.calc_header_checksum());
            prop_assert_eq!((h.dscp.value() << 2 | h.ecn.value(), h.protocol.0), (class, next));
            prop_assert!(h.dont_fragment);
            prop_assert!(!h.is_fragmenting_payload());
            prop_assert_eq!(h.time_to_live, ipip::TTL);
        } else {
            let (h, _) = Ipv6Header::from_slice(&out).unwrap();
            prop_assert_eq!((Addr(h.source), Addr(h.destination)), (src, dst));
            prop_assert_eq!(usize::from(h.payload_length) + 40, out.len());
            prop_assert_eq!((h.traffic_class, h.next_header.0), (class, next));
            prop_assert_eq!(h.flow_label.value(), label & 0xf_ffff);
            prop_assert_eq!(h.hop_limit, ipip::TTL);
        }
        let mut at = outer;
        if let Some(port) = ports {
            let (header, rest) = UdpHeader::from_slice(&out[at..]).unwrap();
            prop_assert_eq!((header.source_port, header.destination_port), (port, 6080));
            prop_assert_eq!((usize::from(header.length), header.checksum), (out.len() - outer, 0));
            let read = Gue::parse(rest).unwrap();
            prop_assert_eq!(read, Gue { protocol: ipip::inner_protocol(v6), offset: 0 });
            at += udp::HEADER_LEN;
        }
        prop_assert_eq!(&out[at..], &packet[..]);
        let read = PacketHeaders::from_ip_slice(&out[at..]).unwrap();
        prop_assert_eq!(matches!(read.net, Some(NetHeaders::Ipv6(..))), v6);
        if let (build::Transport::Tcp(h), Some(TransportHeader::Tcp(found))) = (&transport, &read.transport) {
            prop_assert_eq!((h.source_port, h.sequence_number), (found.source_port, found.sequence_number));
        }
    }

    #[test]
    fn variant_0_states_protocol_and_length(words in 0usize..32, number: u8, rest in build::payload()) {
        let mut bytes = vec![words as u8, number, 0, 0];
        bytes.resize(4 + 4 * words, 0xee);
        bytes.extend(&rest);
        prop_assert_eq!(Gue::parse(&bytes), Ok(Gue { protocol: number, offset: 4 + 4 * words }));
        for len in 0..4 + 4 * words {
            prop_assert_eq!(Gue::parse(&bytes[..len]), Err(Malformed::Truncated));
        }
        // A control message has no protocol that could be forwarded.
        bytes[0] |= 0x20;
        prop_assert_eq!(Gue::parse(&bytes), Err(Malformed::Value));
    }
}

#[test]
fn the_first_nibble_tells_variants_apart() {
    for first in 0..=255u8 {
        let read = Gue::parse(&[first, 17, 0, 0]);
        let expected = match first {
            0 => Ok(Gue { protocol: 17, offset: 4 }),
            1..=0x1f => Err(Malformed::Truncated),
            0x40..=0x4f => Ok(Gue { protocol: 4, offset: 0 }),
            0x60..=0x6f => Ok(Gue { protocol: 41, offset: 0 }),
            _ => Err(Malformed::Value),
        };
        assert_eq!(read, expected, "{first:#x}");
    }
}
