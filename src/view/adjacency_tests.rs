//! Headers from templates against headers written field by field.

use super::*;
use crate::base::rng::Rng;
use crate::base::{Incarnation, InterfaceId, NodeId};

const NEIGHBOUR: Mac = Mac([2, 0, 0, 0, 0, 8]);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 9]);
const DATA_PORT: u16 = 6600;

fn address(v6: bool, last: u8) -> Addr {
    if v6 {
        Addr([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
    } else {
        Addr::v4([10, 0, 0, last])
    }
}

/// The headers in front of `packet`, by the writers of `wire`.
fn written(
    vlan: Option<u16>,
    tunnel: &Tunnel<'_>,
    (src, dst): (Addr, Addr),
    packet: &Packet,
    worker: u16,
) -> Vec<u8> {
    let mut out = vec![0; ROOM];
    let plain = matches!(tunnel, Tunnel::None);
    let v4 = if plain { packet.v4 } else { dst.is_v4() };
    let l2 = eth::write(&mut out, NEIGHBOUR, OWN, vlan, if v4 { ethertype::IPV4 } else { ethertype::IPV6 });
    let outer = ipip::outer_len(dst);
    let (between, next, port) = match tunnel {
        Tunnel::None => {
            out.truncate(l2);
            return out;
        }
        Tunnel::Ipip { v4 } => (0, ipip::inner_protocol(!v4), 0),
        Tunnel::Gue => (udp::HEADER_LEN, protocol::UDP, gue::PORT),
        Tunnel::Steer(..) => (udp::HEADER_LEN + backplane::HEADER_LEN, protocol::UDP, DATA_PORT + worker),
    };
    let inner = Inner { class: packet.class, len: packet.len };
    ipip::write_outer(&mut out[l2..], src, dst, inner, between, next, packet.hash.label());
    if v4 {
        ipv4::fill_checksum(&mut out[l2..]);
    }
    if between > 0 {
        let payload = (packet.len + between - udp::HEADER_LEN) as u16;
        udp::write_tunnel(&mut out[l2 + outer..], packet.hash.outer_port(), port, payload);
    }
    if let Tunnel::Steer(header, _) = tunnel {
        Header { hash: packet.hash, ..**header }.write(&mut out[l2 + outer + udp::HEADER_LEN..]);
    }
    out.truncate(l2 + outer + between);
    out
}

#[test]
fn templates_give_what_writing_each_field_gives() {
    let (sender, incarnation, cookie) = (NodeId(3), Incarnation(77), 0x0123_4567_89ab_cdef);
    let header = Header { stage: Stage::Owner, sender, incarnation, decided: 7, hash: FlowHash(0), cookie };
    let mut rng = Rng::new(1);
    for case in 0..64_000 {
        let [tagged, v6, inner_v4] = [case & 1 == 1, case & 2 == 2, case & 4 == 4];
        let vlan = tagged.then_some(7);
        let tunnel = match case >> 3 & 3 {
            0 => Tunnel::None,
            1 => Tunnel::Ipip { v4: inner_v4 },
            2 => Tunnel::Gue,
            _ => Tunnel::Steer(&header, DATA_PORT),
        };
        let (src, dst) = (address(v6, 1), address(v6, 2));
        let (name, port, addresses) = ("lan".into(), PortId(0), vec![]);
        let interface = Interface { name, port, vlan, mac: OWN, mtu: 65_535, addresses, backplane: false };
        let hop = Hop { interface: InterfaceId(0), address: dst, mac: Some(NEIGHBOUR) };
        let adjacency = Adjacency::new(HopId(0), &hop, &interface, &tunnel, src, dst);
        let least = u64::from(adjacency.mtu) - 19;
        let len = if case < 32 { usize::from(adjacency.mtu) } else { 20 + rng.below(least) as usize };
        let (class, hash) = (rng.below(256) as u8, FlowHash(rng.next_u64()));
        let packet = Packet { len, v4: inner_v4, class, hash };
        let worker = if matches!(tunnel, Tunnel::Steer(..)) { rng.below(64) as u16 } else { 0 };
        let mut out = [0xaa; 128];
        adjacency.write(&mut out, &packet, worker);
        let (all, _) = adjacency.lengths();
        let wanted = written(vlan, &tunnel, (src, dst), &packet, worker);
        assert_eq!(&out[..all], &wanted[..], "tagged {tagged}, IPv6 {v6}, case {case}");
        assert!(out[all..].iter().all(|byte| *byte == 0xaa), "what stands behind is the packet's");
    }
}
