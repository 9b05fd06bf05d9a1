//! What hosts and routers say of addresses and of packets.

use super::Driver;
use crate::draw::Draw;
use crate::packet::{self, Packet, spoil};
use crate::solo::{Side, host_mac, v6_address, vip};
use steerage::base::Addr;
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::{checksum, ipv6, protocol};

impl Driver {
    /// ARP and neighbour discovery.
    pub(super) fn neighbour(&mut self, draw: &mut Draw) {
        let side = draw.one_of(&[Side::Front, Side::Front, Side::Narrow, Side::Back]);
        let tag = draw.one_of(&[None, None, Some(7), Some(9)]);
        let at = if tag.is_some() { 18 } else { 14 };
        let who = draw.byte();
        let net: [u8; 3] = match (side, tag) {
            (Side::Back, _) => [10, 20, 0],
            (_, Some(7)) => [10, 70, 0],
            (_, Some(9)) => [10, 90, 0],
            _ => [10, 10, 0],
        };
        let mac = host_mac(draw.one_of(&[who, who, who, 1]));
        let (us, v6) = (draw.one_of(&[11, 11, 101, 102, 50, who]), draw.once_in(2));
        let mut frame = vec![0; at];
        if v6 {
            eth::write(&mut frame, side.mac(), mac, tag, ethertype::IPV6);
            let first = if tag == Some(9) { 0xfd90 } else { 0xfd10 };
            let src = match draw.below(8) {
                7 => Addr::UNSPECIFIED,
                _ => v6_address(first, u16::from(who)),
            };
            let ours = match draw.below(4) {
                3 => vip(1, true),
                _ => v6_address(first, 0x11),
            };
            let advertisement = draw.once_in(2);
            let dst = draw.one_of(&[ours, ours, icmp::solicited_node(ours), v6_address(0xff02, 1)]);
            let message = Neighbour {
                advertisement,
                solicited: draw.once_in(2),
                overrides: draw.once_in(2),
                target: if advertisement { draw.one_of(&[src, src, ours]) } else { ours },
                mac: (!draw.once_in(4)).then_some(mac),
            };
            let mut bytes = [0; icmp::ND_LEN];
            let len = message.write(&mut bytes, src, dst);
            let mut header = [0; ipv6::HEADER_LEN];
            let hops = draw.one_of(&[255, 255, 255, 254]);
            ipv6::write(&mut header, 0, 0, len as u16, protocol::ICMPV6, hops, src, dst);
            frame.extend(header);
            frame.extend(&bytes[..len]);
            // Of a message that comes back as an advertisement, the tail is cut off or grown.
            if draw.once_in(4) {
                frame[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 0x11]);
            }
        } else {
            eth::write(
                &mut frame,
                draw.one_of(&[side.mac(), steerage::base::Mac([0xff; 6])]),
                mac,
                tag,
                ethertype::ARP,
            );
            frame.resize(at + arp::LEN, 0);
            let address = |last| Addr::v4([net[0], net[1], net[2], last]);
            let message = Arp {
                operation: draw.one_of(&[Operation::Request, Operation::Reply]),
                sender_mac: mac,
                sender: address(who),
                target_mac: side.mac(),
                target: if draw.once_in(4) { vip(1, false) } else { address(us) },
            };
            message.write(&mut frame[at..]);
        }
        spoil(draw, &mut frame, at);
        self.inject(draw, side, &frame, false);
    }

    /// Echoes, and errors that quote something.
    pub(super) fn icmp(&mut self, draw: &mut Draw) {
        let mut from = self.any_packet(draw);
        from.extra.clear();
        let v6 = !from.src.is_v4();
        let kind =
            if v6 { draw.one_of(&[128, 128, 128, 129, 2, 1, 3]) } else { draw.one_of(&[8, 8, 8, 0, 3, 11]) };
        let mut message = vec![kind, draw.one_of(&[0, 0, 0, 4]), 0, 0, 0, 0, 5, 0];
        match draw.below(3) {
            0 => message.extend(vec![9; draw.below(256)]),
            1 => message.extend(self.to_servers.back().map_or(vec![1; 40], Packet::ip)),
            _ => message.extend(from.ip()),
        }
        message.truncate(1400);
        let mut ip = vec![0; if v6 { 40 } else { 20 }];
        if v6 {
            let pseudo = checksum::pseudo_header(from.src, from.dst, protocol::ICMPV6, message.len());
            let sum = !checksum::add(pseudo, checksum::sum(&message));
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            ipv6::write(&mut ip, 0, 0, message.len() as u16, protocol::ICMPV6, 64, from.src, from.dst);
        } else {
            let sum = !checksum::sum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            let header = steerage::wire::ipv4::Header {
                tos: 0,
                total_len: (20 + message.len()) as u16,
                id: 1,
                flags_and_offset: 0,
                ttl: 64,
                protocol: protocol::ICMP,
                src: from.src,
                dst: from.dst,
            };
            header.write(&mut ip);
        }
        ip.extend(message);
        let side = if draw.once_in(8) { Side::Back } else { Side::Front };
        let mut frame = packet::frame(side, host_mac(from.src.0[15]), None, &ip);
        spoil(draw, &mut frame, 14);
        self.inject(draw, side, &frame, false);
    }
}
