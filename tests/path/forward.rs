//! The four ways to a real server, both families, TCP and UDP.

use crate::packets::{ACK, FIN, Packet, RST, SYN, ethernet, open, read, tcp, udp};
use crate::world::{Spec, World, addr, front_mac, host_mac, standard};
use steerage::base::Addr;

/// Clients behind a router and on the link.
const CLIENTS: [(&str, &str); 4] =
    [("192.168.1.5", "10.99.0."), ("10.10.0.1", "10.99.0."), ("fd77::5", "fd99::"), ("fd10::1", "fd99::")];

/// Who must have received the frame for `client`: its router or itself.
fn towards(client: Addr) -> steerage::base::Mac {
    let on_link = ["10.10.0.1", "fd10::1"].map(addr).contains(&client);
    match (on_link, client.is_v4()) {
        (true, _) => host_mac(client),
        (false, true) => host_mac(addr("10.10.0.254")),
        (false, false) => host_mac(addr("fd10::fe")),
    }
}

fn is_server(address: Addr) -> bool {
    (21..=24).any(|i| address == addr(&format!("10.10.0.{i}")) || address == addr(&format!("fd10::{i}")))
}

/// A whole NATed conversation through any receivers: the server sees a SNAT address, the client only the VIP, and both
/// directions keep their ports.
#[test]
fn nat_in_both_directions_through_any_node() {
    let mut world = World::new(Spec::default());
    for (n, (client, vip)) in CLIENTS.iter().enumerate() {
        for port in 0..12u16 {
            let (to, vip) = (1 + usize::from(port) % 3, format!("{vip}1"));
            let syn = if port % 2 == 0 {
                tcp(client, 2000 + port, &vip, 80, SYN)
            } else {
                udp(client, 2000 + port, &vip, 80)
            };
            let out = world.exchange(to, &syn.frame_to(to));
            assert_eq!(out.len(), 1, "{syn:?}");
            let (_, _, inner) = open(&out[0].1);
            let at_server = read(inner);
            assert!(is_server(at_server.dst), "{at_server:?}");
            assert_eq!((at_server.dst_port, at_server.ttl), (80, 60));
            assert_eq!(at_server.payload, syn.payload);
            let snat = at_server.src;
            assert!(
                (101..=103)
                    .any(|i| [format!("10.10.0.{i}"), format!("fd10::{i}")].iter().any(|a| addr(a) == snat))
            );
            assert!(at_server.src_port >= 4096);
            // The reply comes in anywhere.
            let back = 1 + (usize::from(port) + n) % 3;
            let reply = at_server.answer(SYN | ACK);
            let out = world.exchange(back, &reply.frame_to(back));
            assert_eq!(out.len(), 1, "{reply:?}");
            let (dst, _, inner) = open(&out[0].1);
            assert_eq!(dst, towards(syn.src));
            let at_client = read(inner);
            let expected = Packet { ttl: 63, ..syn.answer(SYN | ACK) };
            assert_eq!(at_client, expected);
            // And the client's next packet, through yet another node, takes the same way.
            let third = 1 + to % 3;
            let out = world.exchange(third, &syn.with_flags_if_tcp(ACK).frame_to(third));
            let again = read(open(&out[0].1).2);
            assert_eq!((again.src, again.src_port, again.dst), (snat, at_server.src_port, at_server.dst));
        }
    }
    assert_eq!(world.sum("sessions_opened"), 48);
    assert!(world.sum("steered_out") > 0);
    assert_eq!(world.sum("steered_out"), world.sum("steered_in"));
    world.assert_no_leak();
}

/// A node takes the SNAT addresses that it advertises itself, so that replies come straight home.
#[test]
fn nat_prefers_the_nodes_own_snat_address() {
    let mut world = World::new(Spec::default());
    for port in 0..60 {
        let out = world.exchange(1, &tcp("192.168.1.5", 3000 + port, "10.99.0.1", 80, SYN).frame_to(1));
        let (owner, frame) = &out[0];
        assert_eq!(read(open(frame).2).src, addr(&format!("10.10.0.10{owner}")));
    }
}

#[test]
fn dsr_rewrites_the_mac_and_nothing_else() {
    let mut world = World::new(Spec::default());
    for (client, vip) in CLIENTS {
        for port in 0..8 {
            let packet = tcp(client, 2000 + port, &format!("{vip}2"), 80, SYN);
            let out = world.exchange(1, &packet.frame_to(1));
            let (owner, frame) = &out[0];
            let (dst, src, inner) = open(frame);
            assert_eq!(src, front_mac(*owner));
            assert!(
                (21..=24)
                    .any(|i: u8| dst.0 == [2, 0, 0, 0, 9, if vip.contains(':') { u8_hex(i) } else { i }])
            );
            assert_eq!(read(inner), Packet { ttl: 60, ..packet });
        }
    }
    world.assert_no_leak();
}

/// The last byte of `fd10::21` is 0x21.
fn u8_hex(decimal: u8) -> u8 {
    decimal / 10 * 16 + decimal % 10
}

#[test]
fn tunnels_carry_the_whole_packet() {
    let mut world = World::new(Spec::default());
    for (client, vip) in CLIENTS {
        for (last, extra) in [(3, 0), (4, 8)] {
            let packet = udp(client, 2000, &format!("{vip}{last}"), 80);
            let out = world.exchange(2, &packet.frame_to(2));
            let (_, _, outer) = open(&out[0].1);
            let v4 = packet.src.is_v4();
            let (header, protocol, dst) = if v4 {
                assert_eq!(outer[6] & 0x40, 0x40, "DF is copied");
                let sum = steerage::wire::checksum::sum(&outer[..20]);
                assert_eq!(sum, 0xffff, "the outer checksum is right");
                (20, outer[9], Addr::v4(outer[16..20].try_into().unwrap()))
            } else {
                (40, outer[6], Addr(outer[24..40].try_into().unwrap()))
            };
            assert!(is_server(dst), "{dst}");
            assert_eq!(
                protocol,
                if extra == 8 {
                    17
                } else if v4 {
                    4
                } else {
                    41
                }
            );
            if extra == 8 {
                assert_eq!(outer[header + 2..header + 4], 6080u16.to_be_bytes());
            }
            assert_eq!(read(&outer[header + extra..]), Packet { ttl: 60, ..packet });
        }
    }
    world.assert_no_leak();
}

#[test]
fn a_flow_keeps_its_server_and_servers_share_by_weight() {
    let mut world = World::new(Spec { cluster: standard(Some(0)), ..Spec::default() });
    let mut servers = std::collections::BTreeMap::new();
    for port in 0..400 {
        let packet = tcp("192.168.1.5", 2000 + port, "10.99.0.2", 80, SYN);
        let (first, second) =
            (world.exchange(1, &packet.frame_to(1)), world.exchange(3, &packet.with_flags(ACK).frame_to(3)));
        let server = open(&first[0].1).0;
        assert_eq!(server, open(&second[0].1).0);
        *servers.entry(server.0[5]).or_insert(0) += 1;
    }
    assert_eq!(servers.keys().copied().collect::<Vec<_>>(), [22, 23, 24], "weight 0 gets nothing");
    assert!(servers.values().all(|n| (90..180).contains(n)), "{servers:?}");
}

#[test]
fn connections_end_and_their_ports_serve_again() {
    let mut world = World::new(Spec::default());
    let syn = tcp("192.168.1.5", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    world.exchange(1, &syn.with_flags(ACK).frame_to(1));
    // A SYN on an established connection goes to the same server, which will challenge it (RFC 5961 §4).
    let again = read(open(&world.exchange(2, &syn.frame_to(2))[0].1).2);
    assert_eq!((again.src_port, again.dst), (at_server.src_port, at_server.dst));
    assert_eq!(world.sum("sessions_opened"), 1);
    world.exchange(1, &syn.with_flags(FIN | ACK).frame_to(1));
    let fin = at_server.answer(FIN | ACK);
    world.exchange(1, &fin.frame_to(1));
    // Both sides have said goodbye: the next SYN from that port is another connection.
    assert_eq!(world.exchange(1, &syn.frame_to(1)).len(), 1);
    // It keeps its server and SNAT port, as if it went there by itself.
    assert_eq!((world.sum("sessions_opened"), world.sum("sessions_closed")), (1, 0));
    assert_eq!(
        world.stats(1).virtual_servers.iter().map(|v| v.traffic.connections).sum::<u64>()
            + world.stats(2).virtual_servers.iter().map(|v| v.traffic.connections).sum::<u64>()
            + world.stats(3).virtual_servers.iter().map(|v| v.traffic.connections).sum::<u64>(),
        2
    );
    world.run(8000); // half_open is 5 s in the lab's profile
    assert_eq!(world.sum("sessions"), 0);
    assert_eq!(world.sum("sessions_closed"), 1);
    let traffic = world.stats(1).virtual_servers.iter().map(|v| v.traffic.sessions).sum::<u64>();
    assert_eq!(traffic, 0);
}

#[test]
fn a_reset_closes_and_an_unknown_middle_is_refused_for_nat_alone() {
    let mut world = World::new(Spec::default());
    let nat = tcp("192.168.1.5", 2000, "10.99.0.1", 80, ACK);
    assert!(world.exchange(1, &nat.frame_to(1)).is_empty());
    assert_eq!((1..=3).map(|n| world.drops(n, "no_session")).sum::<u64>(), 1);
    let dsr = tcp("192.168.1.5", 2000, "10.99.0.2", 80, ACK);
    assert_eq!(world.exchange(1, &dsr.frame_to(1)).len(), 1);
    assert_eq!(world.sum("sessions_opened"), 1);
    let reset = tcp("192.168.1.5", 2001, "10.99.0.2", 80, RST);
    assert_eq!(world.exchange(1, &reset.frame_to(1)).len(), 1, "forwarded");
    assert_eq!(world.sum("sessions_opened"), 1, "but not remembered");
}

/// Full tables: NAT is refused, all else is balanced without state; both are counted.
#[test]
fn a_full_session_table_refuses_nat_and_balances_the_rest_without_state() {
    let mut world = World::new(Spec { nodes: 1, cluster: one_node(), ..Spec::default() });
    let mut kept = std::collections::BTreeMap::new();
    for port in 0..6000u16 {
        let packet = tcp("192.168.1.5", 2000 + port, "10.99.0.2", 80, ACK);
        // Twice: a flow of one packet is the first to go when room is short.
        world.inject(1, &packet.frame_to(1));
        world.inject(1, &packet.frame_to(1));
        if port % 32 == 31 {
            world.run(3);
        }
    }
    world.run(3);
    for (_, frame) in world.take() {
        kept.insert(read(open(&frame).2).src_port, open(&frame).0);
    }
    assert_eq!(kept.len(), 6000, "every packet found a server");
    let refused = world.count(1, "sessions_refused");
    assert!((2 * 1904..2 * 2000).contains(&refused), "{refused}");
    for port in [0, 3000, 5999] {
        let packet = tcp("192.168.1.5", 2000 + port, "10.99.0.2", 80, ACK);
        let out = world.exchange(1, &packet.frame_to(1));
        assert_eq!(open(&out[0].1).0, kept[&(2000 + port)], "the same server, with state or without");
    }
    let out = world.exchange(1, &tcp("192.168.1.5", 2000, "10.99.0.1", 80, SYN).frame_to(1));
    assert!(out.is_empty());
    assert_eq!(world.drops(1, "session_table_full"), 1);
    world.assert_no_leak();
}

fn one_node() -> String {
    let only_first = |line: &str| !line.contains("n2") && !line.contains("n3");
    let mut out = String::new();
    for table in standard(None).split("\n[[").map(|t| format!("\n[[{}", t.trim_start_matches("[["))) {
        if table.lines().all(only_first) {
            out += &table;
        }
    }
    out
}

#[test]
fn snat_ports_run_out_cleanly() {
    let mut world = World::new(Spec { nodes: 1, cluster: one_node(), ..Spec::default() });
    // Fifteen ports name a bucket, on one SNAT address: flows of one bucket to one server are refused past that.
    let config = crate::world::load(&Spec { nodes: 1, cluster: one_node(), ..Spec::default() }, 1);
    let mut sent = 0;
    let mut i = 0u32;
    let mut ends = std::collections::BTreeSet::new();
    while sent < 120 {
        i += 1;
        let client = format!("192.168.{}.{}", i >> 8 & 0xff, i & 0xff);
        for port in 1..400 {
            let packet = tcp(&client, port, "10.99.0.1", 80, SYN);
            let key = steerage::base::FlowKey::new(packet.src, packet.dst, port, 80, 6);
            if config.cluster.hash_key.flow(&key).bucket().0 == 5 {
                sent += 1;
                let Some((_, frame)) = world.exchange(1, &packet.frame_to(1)).pop() else { continue };
                let at_server = read(open(&frame).2);
                assert_eq!(at_server.src_port & 0xfff, 5);
                assert!(ends.insert((at_server.src_port, at_server.dst)), "a port twice to one server");
                // Only what has been answered and acknowledged is safe from those who come later.
                world.exchange(1, &at_server.answer(SYN | ACK).frame_to(1));
                world.exchange(1, &packet.with_flags(ACK).frame_to(1));
            }
        }
    }
    assert!(ends.len() <= 60, "{} flows in 60 ports", ends.len());
    assert_eq!(world.drops(1, "snat_exhausted") + ends.len() as u64, sent);
}

#[test]
fn too_big_for_the_tunnel_is_told() {
    let mut world = World::new(Spec::default());
    for (client, vip, mtu, header) in
        [("192.168.1.5", "10.99.0.3", 1480, 20), ("fd77::5", "fd99::4", 1452, 40)]
    {
        let mut packet = udp(client, 2000, vip, 80);
        packet.payload = vec![7; 1500 - header - 8];
        let out = world.exchange(1, &packet.frame_to(1));
        assert_eq!(out.len(), 1, "one message and no packet");
        let (dst, _, ip) = open(&out[0].1);
        assert_eq!(dst, towards(packet.src));
        let icmp = &ip[header..];
        let (number, told, src, to) = if header == 20 {
            assert_eq!(steerage::wire::checksum::sum(&ip[..20]), 0xffff);
            (ip[9], u32::from(u16::from_be_bytes([icmp[6], icmp[7]])), Addr::v4([10, 99, 0, 3]), packet.src)
        } else {
            (ip[6], u32::from_be_bytes(icmp[4..8].try_into().unwrap()), addr(vip), packet.src)
        };
        assert_eq!((number, told), if header == 20 { (1, mtu) } else { (58, mtu) });
        assert_eq!(icmp[..2], if header == 20 { [3, 4] } else { [2, 0] });
        assert!(steerage::wire::icmp::checksum_ok(icmp, src, to));
        assert_eq!(icmp[8..60], packet.ip()[..52], "quotes the packet as the client sent it");
        assert!(ip.len() <= if header == 20 { 576 } else { 1280 });
        packet.payload.truncate(mtu as usize - header - 8);
        let out = world.exchange(1, &packet.frame_to(1));
        assert_eq!(open(&out[0].1).2.len(), 1500, "what fits goes");
    }
    assert_eq!(world.sum("too_big_sent"), 2);
    world.assert_no_leak();
}

/// What may be fragmented can't be told; it is a counted drop.
#[test]
fn too_big_without_df_is_counted() {
    let mut world = World::new(Spec::default());
    let mut packet = udp("192.168.1.5", 2000, "10.99.0.3", 80);
    packet.payload = vec![7; 1472];
    let mut frame = ethernet(front_mac(1), host_mac(packet.src), &packet.ip());
    frame[20] = 0; // no DF
    let sum = u16::from_be_bytes([frame[24], frame[25]]);
    let mended = {
        let (s, c) = sum.overflowing_add(0x4000);
        s + u16::from(c)
    };
    frame[24..26].copy_from_slice(&mended.to_be_bytes());
    assert!(world.exchange(1, &frame).is_empty());
    assert_eq!((1..=3).map(|n| world.drops(n, "too_big_silent")).sum::<u64>(), 1);
}

#[test]
fn used_up_time_to_live_ends_a_packet() {
    let mut world = World::new(Spec::default());
    for vip in ["10.99.0.1", "10.99.0.2", "fd99::3"] {
        let client = if vip.contains(':') { "fd77::5" } else { "192.168.1.5" };
        let packet = Packet { ttl: 1, ..tcp(client, 2000, vip, 80, SYN) };
        assert!(world.exchange(1, &packet.frame_to(1)).is_empty());
    }
    assert_eq!((1..=3).map(|n| world.drops(n, "ttl_expired")).sum::<u64>(), 3);
}

#[test]
fn a_client_that_nobody_knows_is_asked_for_and_then_answered() {
    let mut world = World::new(Spec::default());
    let syn = tcp("10.10.0.2", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    let (out, n) = (world.exchange(1, &at_server.answer(SYN | ACK).frame_to(1)), 1);
    assert_eq!(out.len(), n, "it waited for the answer to our question");
    assert_eq!(open(&out[0].1).0, host_mac(addr("10.10.0.2")));
    // One that never answers: what waits for it is given up in time.
    let syn = tcp("10.10.0.77", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    assert!(
        world.exchange(1, &at_server.answer(SYN | ACK).frame_to(1)).iter().all(|(_, f)| f[12..14] == [8, 6])
    );
    world.run(1500);
    assert_eq!((1..=3).map(|n| world.drops(n, "neighbour_unresolved")).sum::<u64>(), 1);
    world.assert_no_leak();
}

impl Packet {
    fn with_flags_if_tcp(&self, flags: u8) -> Self {
        if self.flags.is_some() { self.with_flags(flags) } else { self.clone() }
    }
}
