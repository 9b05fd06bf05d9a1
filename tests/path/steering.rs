//! Steering between cores and nodes (MECHANISMS §0, §2, §4), each with its control.

use crate::packets::{ACK, Packet, SYN, data_frame, open, read, tcp, udp};
use crate::world::{Spec, World, addr, front_mac, host_mac, virtual_server};
use steerage::base::{FlowHash, FlowKey, HashKey, Incarnation, Instant, NodeId};
use steerage::wire::backplane::{self, Header, Stage};

/// A flow that node 1 receives and does not own.
fn foreign(world: &mut World, vip: &str) -> Packet {
    for port in 3000.. {
        let packet = udp("192.168.1.5", port, vip, 80);
        let before = world.count(1, "steered_out");
        let out = world.exchange(1, &packet.frame_to(1));
        assert_eq!(out.len(), 1);
        if world.count(1, "steered_out") > before {
            return packet;
        }
    }
    unreachable!()
}

/// Hashes and steering-session hits of a flow of 100 packets at the node that receives and doesn't own it.
fn hashes_and_hits(tables: &'static str) -> (u64, u64) {
    let mut world = World::new(Spec { tables, ..Spec::default() });
    let mut packet = udp("192.168.1.5", 3000, "10.99.0.1", 80);
    let (mut hashed, mut hits, mut steered);
    loop {
        packet.src_port += 1;
        (hashed, hits) = (world.count(1, "hashed"), world.count(1, "steering_hits"));
        steered = world.count(1, "steered_out");
        assert_eq!(world.exchange(1, &packet.frame_to(1)).len(), 1);
        if world.count(1, "steered_out") > steered {
            break;
        }
    }
    let sessions = world.count(1, "sessions_opened");
    for _ in 1..100 {
        assert_eq!(world.exchange(1, &packet.frame_to(1)).len(), 1);
    }
    assert_eq!(world.count(1, "steered_out") - steered, 100, "all are steered either way");
    assert_eq!(world.count(1, "sessions_opened"), sessions, "the receiver holds no session of it");
    (world.count(1, "hashed") - hashed, world.count(1, "steering_hits") - hits)
}

#[test]
fn a_flow_of_n_packets_is_hashed_once() {
    assert_eq!(hashes_and_hits(""), (1, 99));
}

#[test]
fn control_without_steering_sessions_every_packet_is_hashed() {
    assert_eq!(hashes_and_hits("steering_cache = false"), (100, 0));
}

#[test]
fn a_full_steering_table_hashes_and_is_still_right() {
    let mut world = World::new(Spec::default());
    let mut owners = std::collections::BTreeMap::new();
    for round in 0..2 {
        for port in 0..9000u16 {
            let packet = tcp("192.168.1.5", 1024 + port, "10.99.0.2", 80, ACK);
            world.inject(1, &packet.frame_to(1));
            if port % 32 == 31 {
                world.run(1);
            }
        }
        world.run(5);
        for (owner, frame) in world.take() {
            let port = read(open(&frame).2).src_port;
            if round == 0 {
                owners.insert(port, owner);
            } else {
                assert_eq!(owners[&port], owner)
            }
        }
    }
    assert_eq!(owners.len(), 9000);
    assert!(world.count(1, "steering_full") > 0);
}

/// Sixty flows through node 1, then node 2 dies and lives again as `life`, if it does: how many of them node 1 hashes anew, and
/// how many node 2 owns.
fn hashed_after_restart(life: Option<u32>) -> (u64, u64) {
    let mut world = World::new(Spec::default());
    let packets: Vec<_> = (0..60).map(|p| tcp("192.168.1.5", 4000 + p, "10.99.0.2", 80, ACK)).collect();
    let mut owners = Vec::new();
    for packet in &packets {
        owners.push(world.exchange(1, &packet.frame_to(1))[0].0);
    }
    let before = world.count(1, "hashed");
    packets.iter().for_each(|p| drop(world.exchange(1, &p.frame_to(1))));
    assert_eq!(world.count(1, "hashed"), before, "all are remembered");
    if let Some(life) = life {
        world.restart(2, life);
    }
    world.run(3200);
    world.take();
    let before = world.count(1, "hashed");
    for (packet, owner) in packets.iter().zip(&owners) {
        assert_eq!(world.exchange(1, &packet.frame_to(1))[0].0, *owner);
    }
    (world.count(1, "hashed") - before, owners.iter().filter(|o| **o == 2).count() as u64)
}

/// The steering sessions towards a dead life of a node are void, those towards the living stay.
#[test]
fn a_new_life_of_the_target_voids_its_steering_sessions_at_once() {
    let (hashed, of_second) = hashed_after_restart(Some(9));
    assert!(of_second > 5);
    assert_eq!(hashed, of_second);
}

#[test]
fn control_while_the_target_lives_on_they_all_stay() {
    assert_eq!(hashed_after_restart(None).0, 0);
}

/// The reply to a NATed flow comes in at each node in turn; gives how many reach the client if `bend` is done to its port.
fn replies_home(bend: u16) -> usize {
    let mut world = World::new(Spec::default());
    let mut home = 0;
    for port in 0..30 {
        let out = world.exchange(1, &tcp("192.168.1.5", 5000 + port, "10.99.0.1", 80, SYN).frame_to(1));
        let at_server = read(open(&out[0].1).2);
        let reply = at_server.answer(SYN | ACK);
        let to = 1 + usize::from(port) % 3;
        let reply = Packet { dst_port: reply.dst_port ^ bend, ..reply };
        home += world.exchange(to, &reply.frame_to(to)).len();
    }
    home
}

/// Any node finds the owner of a reply by the SNAT port's low bits alone.
#[test]
fn replies_to_snat_ports_find_their_way_home() {
    assert_eq!(replies_home(0), 30);
}

#[test]
fn control_a_port_of_another_class_leads_elsewhere() {
    assert_eq!(replies_home(1), 0);
}

/// With a stable View a flow costs no backplane frame beyond its steered packets and the heartbeats.
#[test]
fn no_chatter_in_steady_state() {
    let mut world = World::new(Spec::default());
    let packet = foreign(&mut world, "10.99.0.2");
    let (frames, control) = (world.backplane_frames, world.sum("control_tx"));
    for _ in 0..500 {
        world.exchange(1, &packet.frame_to(1));
    }
    assert_eq!((world.backplane_frames - frames) as u64, 500 + world.sum("control_tx") - control);
    assert!(world.sum("control_tx") > control);
}

/// Between the workers of one node: a session has one core, whichever queue a packet comes in on.
#[test]
fn siblings_hand_packets_to_the_owner() {
    let mut world = World::new(Spec { nodes: 2, workers: 3, cluster: two_nodes(), ..Spec::default() });
    for port in 0..50 {
        let packet = tcp("192.168.1.5", 2000 + port, "10.99.0.1", 80, SYN);
        let mut seen = Vec::new();
        for queue in 0..3 {
            assert!(world.nodes[0].front[queue].inject(&packet.frame_to(1)));
            world.run(4);
            let out = world.take();
            assert_eq!(out.len(), 1);
            let at_server = read(open(&out[0].1).2);
            seen.push((at_server.src_port, at_server.dst));
            assert!(world.nodes[0].front[queue].inject(&at_server.answer(SYN | ACK).frame_to(1)));
            world.run(4);
            assert_eq!(read(open(&world.take()[0].1).2).src, packet.dst);
        }
        assert!(seen.windows(2).all(|w| w[0] == w[1]), "{seen:?}");
    }
    assert_eq!(world.sum("sessions_opened"), 50);
    assert!(world.sum("ring_out") > 0);
    assert_eq!(world.sum("ring_out"), world.sum("ring_in"));
    // The outer port names the owner's core: nothing that was steered needed a ring at its owner.
    assert_eq!(world.count(2, "ring_out"), 0);
    world.assert_no_leak();
}

fn two_nodes() -> String {
    crate::world::standard(None).replace("node = \"n3\"", "node = \"n2\"")
}

fn groups() -> String {
    let mut out = crate::world::standard(None);
    out += "[[group]]\nname = \"pair\"\nmembers = [\"n1\", \"n2\"]\n[[group]]\nname = \"spot\"\nmembers = [\"n2\"]\n";
    for (group, last) in [("pair", 11), ("spot", 12)] {
        for address in [format!("10.10.0.1{last}"), format!("fd10::1{last}")] {
            out += &format!("[[snat]]\naddress = \"{address}\"\ngroup = \"{group}\"\nnode = \"n2\"\n");
        }
        for vip in [format!("10.99.0.{last}"), format!("fd99::{last}")] {
            out += &virtual_server(&format!("{group}-{}", vip.len()), &vip, "tcp", "nat", group);
        }
    }
    out
}

/// New connections through all three nodes in turn, each with a reply through the third: which nodes sent the packets on.
fn who_serves(world: &mut World, vip: &str, client: &str) -> Vec<usize> {
    let mut servers = std::collections::BTreeSet::new();
    for port in 0..45 {
        let to = 1 + usize::from(port) % 3;
        let packet = tcp(client, 5000 + port, vip, 80, SYN);
        let out = world.exchange(to, &packet.frame_to(to));
        assert_eq!(out.len(), 1);
        servers.insert(out[0].0);
        // The reply to the group's SNAT address, at a node that may be outside of it, goes home.
        let at_server = read(open(&out[0].1).2);
        let back = world.exchange(3, &at_server.answer(SYN | ACK).frame_to(3));
        assert_eq!(read(open(&back[0].1).2).src, packet.dst);
    }
    servers.into_iter().collect()
}

/// Partially striped and spotted: the members serve, whoever receives; others hold no session (MECHANISMS §2).
#[test]
fn only_members_of_the_group_serve() {
    let mut world = World::new(Spec { cluster: groups(), ..Spec::default() });
    assert_eq!(who_serves(&mut world, "10.99.0.11", "192.168.1.5"), [1, 2]);
    assert_eq!(who_serves(&mut world, "fd99::11", "fd77::5"), [1, 2]);
    assert_eq!(who_serves(&mut world, "10.99.0.12", "192.168.1.5"), [2]);
    assert_eq!(who_serves(&mut world, "fd99::12", "fd77::5"), [2]);
    world.run(100);
    assert_eq!(world.count(3, "sessions"), 0);
    assert!(world.stats(3).virtual_servers.iter().all(|v| v.traffic.connections == 0));
    assert_eq!(world.count(1, "sessions") + world.count(2, "sessions"), 180);
}

#[test]
fn control_in_the_group_of_all_nodes_every_node_serves() {
    let mut world = World::new(Spec { cluster: groups(), ..Spec::default() });
    assert_eq!(who_serves(&mut world, "10.99.0.1", "192.168.1.5"), [1, 2, 3]);
    world.run(100);
    assert!(world.count(3, "sessions") > 0);
}

/// `local`: whoever receives a packet handles it, without state, and all agree on the server.
#[test]
fn local_virtual_servers_are_handled_where_they_arrive() {
    let cluster = crate::world::standard(None)
        + &virtual_server("anywhere", "10.99.0.20", "udp", "ipip", "all")
            .replace("group = \"all\"\n", "group = \"all\"\ningress = \"local\"\n");
    let mut world = World::new(Spec { cluster, ..Spec::default() });
    for port in 0..40 {
        let packet = udp("192.168.1.5", 5000 + port, "10.99.0.20", 80);
        let mut servers = std::collections::BTreeSet::new();
        for to in 1..=3 {
            let out = world.exchange(to, &packet.frame_to(to));
            assert_eq!(out[0].0, to);
            servers.insert(open(&out[0].1).2[16..20].to_vec());
        }
        assert_eq!(servers.len(), 1);
    }
    assert_eq!(
        (world.sum("steered_out"), world.sum("sessions_opened"), world.sum("steering_sessions")),
        (0, 0, 0)
    );
}

/// Without a lease what needs no state is served on, unless the node is told otherwise; then as soon as it has one again.
#[test]
fn a_local_virtual_server_needs_a_lease_only_if_the_configuration_wants_one() {
    const LOG: &str = "[log]\ndirectory = \"/log\"\nca = \"/a\"\ncertificate = \"/c\"\nkey = \"/k\"\n";
    const STRICT: &str = "[log]\ndirectory = \"/log\"\nca = \"/a\"\ncertificate = \"/c\"\nkey = \"/k\"\n\
                          stateless_without_quorum = false\n";
    for (tables, serves) in [("", true), (LOG, true), (STRICT, false)] {
        let cluster = crate::world::standard(None)
            + &virtual_server("anywhere", "10.99.0.20", "udp", "ipip", "all")
                .replace("group = \"all\"\n", "group = \"all\"\ningress = \"local\"\n");
        let mut world = World::new(Spec { cluster, tables, ..Spec::default() });
        let packet = udp("192.168.1.5", 5000, "10.99.0.20", 80);
        for (leased, expected) in [(true, true), (false, serves), (true, true)] {
            let until = if leased { Instant(u64::MAX) } else { Instant::ZERO };
            world.nodes[0].node.manager().lease(until);
            let dropped = world.drops(1, "no_lease");
            assert_eq!(world.exchange(1, &packet.frame_to(1)).len(), usize::from(expected), "{tables}");
            assert_eq!(world.drops(1, "no_lease") - dropped, u64::from(!expected));
            let now = world.now;
            let stats = world.nodes[0].node.manager().stats(now);
            assert_eq!((stats.ready, stats.stateless_ready), (leased, expected));
        }
        world.assert_no_leak();
    }
}

/// Frames that no living node of the cluster has sent are refused, each for its reason.
#[test]
fn forged_outdated_and_misplaced_backplane_frames_are_refused() {
    let mut world = World::new(Spec::default());
    world.restart(2, 5);
    world.run(3200);
    world.take();
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 2);
    let cookie = |life| backplane::cookie(key, NodeId(1), Incarnation(life));
    let packet = tcp("192.168.1.5", 2000, "10.99.0.2", 80, SYN);
    let flow = FlowKey::new(packet.src, packet.dst, packet.src_port, packet.dst_port, 6);
    let good = Header {
        stage: Stage::Owner,
        sender: NodeId(1),
        incarnation: Incarnation(5),
        decided: 0,
        hash: HashKey::derive(&(0..16).collect::<Vec<u8>>(), 1).flow(&flow),
        cookie: cookie(5),
    };
    let mut inject = |header: &Header, reason: &str| {
        let before = world.drops(1, reason);
        assert!(world.nodes[0].back_link().inject(&data_frame(header, &packet.ip())));
        world.run(3);
        (world.take().len(), world.drops(1, reason) - before)
    };
    assert_eq!(inject(&good, "backplane_cookie").1, 0);
    assert_eq!(inject(&Header { cookie: 1, ..good }, "backplane_cookie"), (0, 1));
    assert_eq!(
        inject(&Header { incarnation: Incarnation(4), cookie: cookie(4), ..good }, "backplane_incarnation"),
        (0, 1)
    );
    // A life that we haven't heard of, proved by its cookie: taken.
    assert_eq!(
        inject(&Header { incarnation: Incarnation(6), cookie: cookie(6), ..good }, "backplane_cookie").1,
        0
    );
    // But it can't know what it is asked for, as the life before may have had that.
    for (life, dropped) in [(5, 0), (6, 1)] {
        let (stage, incarnation, cookie) = (Stage::Returned, Incarnation(life), cookie(life));
        assert_eq!(inject(&Header { stage, incarnation, cookie, ..good }, "stage_exhausted").1, dropped);
    }
    assert_eq!(inject(&Header { stage: Stage::Receive, ..good }, "backplane_malformed"), (0, 1));
    assert_eq!(inject(&Header { sender: NodeId(0), ..good }, "backplane_malformed"), (0, 1));
    assert_eq!(inject(&Header { sender: NodeId(9), ..good }, "backplane_malformed"), (0, 1));
    // The same frame on a front port is refused, whatever its cookie.
    let mut on_front = data_frame(&good, &packet.ip());
    on_front[..6].copy_from_slice(&front_mac(1).0);
    on_front[6..12].copy_from_slice(&host_mac(packet.src).0);
    // (From a peer's address it would be refused for that alone.)
    on_front[26..30].copy_from_slice(&addr("192.168.1.5").v4_bytes());
    on_front[24..26].fill(0);
    let sum = !steerage::wire::checksum::sum(&on_front[14..34]);
    on_front[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(world.exchange(1, &on_front).is_empty());
    assert_eq!(world.drops(1, "backplane_on_front"), 1);
}

/// A packet that was given back is never steered on, so two nodes that disagree about its owner make no loop.
#[test]
fn a_steered_packet_goes_no_further() {
    let mut world = World::new(Spec { cluster: groups(), ..Spec::default() });
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 2);
    let header = Header {
        stage: Stage::Returned,
        sender: NodeId(1),
        incarnation: Incarnation(1),
        decided: 0,
        hash: FlowHash(1),
        cookie: backplane::cookie(key, NodeId(1), Incarnation(1)),
    };
    // Node 1 is no member of the spotted group: it can't take its packets, and must not pass them on.
    let packet = tcp("192.168.1.5", 2000, "10.99.0.12", 80, SYN);
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    let steered = world.sum("steered_out");
    world.run(5);
    assert!(world.take().is_empty());
    assert_eq!(world.sum("steered_out"), steered);
    assert_eq!(world.drops(1, "stage_exhausted"), 1);
    // Control: the same packet from the front, at the stage of its receiver, is steered.
    assert_eq!(world.exchange(1, &packet.frame_to(1)).len(), 1);
    assert_eq!(world.sum("steered_out"), steered + 1);
    // Of its own group it takes every packet, whoever owns the bucket by its own file.
    let hash_key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 1);
    for n in 0..30 {
        let packet = tcp("192.168.1.5", 2100 + n, "10.99.0.2", 80, SYN);
        let flow = FlowKey::new(packet.src, packet.dst, packet.src_port, 80, 6);
        let header = Header { hash: hash_key.flow(&flow), ..header };
        assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
        world.run(3);
        assert_eq!(world.take().iter().map(|(node, _)| *node).collect::<Vec<_>>(), [1]);
    }
}
