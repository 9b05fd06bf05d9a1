//! What attackers, accidents and strange neighbours must not be able to do to a node.

use crate::packets::{ACK, Packet, RST, SYN, data_frame, ethernet, open, read, tcp, udp};
use crate::world::{Spec, World, addr, front_mac, host_mac, single};
use steerage::base::{Addr, FlowHash, FlowKey, HashKey, Incarnation, Mac, NodeId, WorkerId};
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::checksum::{self, Delta};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::{ipv4, ipv6};

/// The queue of half-open sessions must not name entries that were given to others since: with one session in the table
/// the next client's SYN must not evict the first one's handshake.
#[test]
fn a_handshake_survives_the_next_clients_syn_in_an_empty_table() {
    let mut world = World::new(single());
    // 1100 connections that were opened and reset, one after the other: more than the queue's 1024 places.
    let past = tcp("192.168.1.9", 999, "10.99.0.1", 80, SYN);
    for _ in 0..1100 {
        world.inject(1, &past.frame_to(1));
        world.inject(1, &past.with_flags(RST).frame_to(1));
        world.run(1);
    }
    world.run(8000);
    world.take();
    assert_eq!(world.count(1, "sessions"), 0, "all are over");
    let evicted = world.count(1, "sessions_evicted");
    let first = tcp("192.168.1.5", 2000, "10.99.0.1", 80, SYN);
    assert_eq!(world.exchange(1, &first.frame_to(1)).len(), 1);
    for port in 0..5 {
        assert_eq!(
            world.exchange(1, &tcp("192.168.1.6", 3000 + port, "10.99.0.1", 80, SYN).frame_to(1)).len(),
            1
        );
    }
    assert_eq!(
        world.exchange(1, &first.with_flags(ACK).frame_to(1)).len(),
        1,
        "the handshake's third packet"
    );
    assert_eq!(world.count(1, "sessions_evicted") - evicted, 0, "4096 places, six sessions");
}

/// Heartbeats of many peers that arrive together are all taken: the slice of a turn defers, it must not discard.
#[test]
fn twenty_nodes_hear_each_other() {
    let mut world = World::new(Spec { nodes: 20, ..Spec::default() });
    for node in 1..=20 {
        assert_eq!(world.drops(node, "control_refused"), 0);
        assert!(world.stats(node).peers.iter().all(|p| p.up));
    }
}

/// Control: sixteen peers are heard, seventeen aren't.
#[test]
fn control_seventeen_nodes_hear_each_other() {
    let mut world = World::new(Spec { nodes: 17, ..Spec::default() });
    assert!(world.stats(1).peers.iter().all(|p| p.up));
}

/// A bit that flips in the hash of a data frame (nothing covers it: no outer checksum, no cookie) must not bring the node
/// down, nor leave anything in the table.
#[test]
fn a_wrong_hash_in_a_data_frame_does_no_lasting_harm() {
    let mut world = World::new(Spec::default());
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 2);
    let (sender, incarnation) = (NodeId(1), Incarnation(1));
    let cookie = backplane::cookie(key, sender, incarnation);
    let header = Header { stage: Stage::Owner, sender, incarnation, decided: 0, hash: FlowHash(77), cookie };
    let packet = tcp("192.168.1.5", 2000, "10.99.0.2", 80, SYN);
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    world.run(8000);
    assert_eq!(world.count(1, "sessions"), 0);
}

/// Where no session says which server a flow has, a damaged hash would choose another one.
#[test]
fn a_wrong_hash_in_a_data_frame_balances_nothing() {
    let cluster = crate::world::standard(None)
        + &crate::world::virtual_server("anywhere", "10.99.0.20", "udp", "ipip", "all")
            .replace("group = \"all\"\n", "group = \"all\"\ningress = \"local\"\n");
    let mut world = World::new(Spec { cluster, ..Spec::default() });
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 2);
    let (sender, incarnation) = (NodeId(1), Incarnation(1));
    let cookie = backplane::cookie(key, sender, incarnation);
    let packet = udp("192.168.1.5", 2000, "10.99.0.20", 80);
    let flow = FlowKey::new(packet.src, packet.dst, packet.src_port, packet.dst_port, 17);
    let right = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 1).flow(&flow);
    let mut header =
        Header { stage: Stage::Owner, sender, incarnation, decided: 0, hash: FlowHash(right.0 ^ 1), cookie };
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    world.run(10);
    assert_eq!((world.drops(1, "backplane_malformed"), world.take().len()), (1, 0));
    header.hash = right;
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    world.run(10);
    assert_eq!((world.drops(1, "backplane_malformed"), world.take().len()), (1, 1));
}

/// SYN and ACK of clients that no server has ever answered (forged sources) are no established connections.
#[test]
fn what_no_server_has_answered_is_not_established() {
    let mut world = World::new(single());
    for n in 0..6000u32 {
        let client = format!("192.168.{}.{}", n >> 8, n & 0xff | 1);
        let syn = tcp(&client, 1000 + n as u16, "10.99.0.1", 80, SYN);
        world.inject(1, &syn.frame_to(1));
        world.inject(1, &syn.with_flags(ACK).frame_to(1));
        world.run(1);
    }
    world.take();
    assert_eq!(world.drops(1, "session_table_full"), 0);
    assert_eq!(world.exchange(1, &tcp("192.168.1.5", 99, "10.99.0.1", 80, SYN).frame_to(1)).len(), 1);
}

/// An echo request whose sender may be anyone.
fn echo(client: &str, target: &str, to: Mac) -> Vec<u8> {
    let (src, dst) = (addr(client), addr(target));
    let mut message = vec![8, 0, 0, 0, 1, 2, 0, 9];
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = vec![0; 20];
    let total_len = 28;
    ipv4::Header { tos: 0, total_len, id: 0, flags_and_offset: 0, ttl: 64, protocol: 1, src, dst }
        .write(&mut ip);
    ethernet(to, host_mac(addr("10.10.0.254")), &[ip, message].concat())
}

/// Packets that wait for neighbours which don't exist must not keep a new client from being asked for. (64 pings a second
/// with forged on-link sources, or one real server that is down, are enough.)
#[test]
fn silent_neighbours_do_not_starve_a_new_client() {
    let mut world = World::new(Spec::default());
    for node in 1..=3 {
        for i in 130..194 {
            world.inject(node, &echo(&format!("10.10.0.{i}"), "10.99.0.1", front_mac(node)));
        }
    }
    world.run(5);
    world.take();
    let syn = tcp("10.10.0.2", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    world.inject(1, &at_server.answer(SYN | ACK).frame_to(1));
    world.run(20);
    let told = world.take();
    assert!(told.iter().any(|(_, f)| f[12..14] == [8, 0] && open(f).0 == host_mac(addr("10.10.0.2"))));
}

/// No host out there has one of our VIPs or SNAT addresses: with UDP two virtual servers would answer one another.
#[test]
fn our_own_addresses_are_no_sources() {
    let mut world = World::new(Spec::default());
    let mut taken = Vec::new();
    for source in ["10.99.0.2", "10.10.0.102", "10.10.0.11", "10.20.0.12"] {
        let packet = udp(source, 80, "10.99.0.1", 80);
        let frame = ethernet(front_mac(1), host_mac(addr("10.10.0.254")), &packet.ip());
        if !world.exchange(1, &frame).is_empty() {
            taken.push(source);
        }
    }
    assert!(taken.is_empty(), "{taken:?}");
}

/// RFC 1122 §3.3.6, RFC 1812 §5.3.4: a unicast packet in a broadcast frame is not forwarded (here: once by each node).
#[test]
fn unicast_packets_in_broadcast_frames_are_refused() {
    let mut world = World::new(Spec::default());
    let packet = udp("192.168.1.5", 2000, "10.99.0.2", 80);
    for node in 1..=3 {
        world.inject(node, &ethernet(Mac::BROADCAST, host_mac(addr("10.10.0.254")), &packet.ip()));
    }
    world.run(8);
    assert_eq!(world.take().len(), 0, "copies at the server");
}

/// RFC 5095, RFC 8200 §4.4: a routing header with segments left means that the VIP isn't the destination.
#[test]
fn routing_headers_with_segments_left_are_refused() {
    let mut world = World::new(Spec::default());
    let mut ip = udp("fd77::5", 2000, "fd99::2", 80).ip();
    ip[5] += 24;
    ip[6] = 43;
    ip.splice(40..40, [&[17, 2, 0, 1, 0, 0, 0, 0][..], &addr("fd10::66").0].concat());
    assert!(world.exchange(1, &ethernet(front_mac(1), host_mac(addr("fd10::fe")), &ip)).is_empty());
}

/// Two packets of someone who knows no sequence number (a RST that the ends ignore, and a SYN) must not give an established
/// connection another SNAT port (MECHANISMS §4 point 2).
#[test]
fn a_blind_reset_and_syn_do_not_replace_an_established_mapping() {
    let mut world = World::new(single());
    let syn = tcp("192.168.1.5", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    world.exchange(1, &at_server.answer(SYN | ACK).frame_to(1));
    world.exchange(1, &syn.with_flags(ACK).frame_to(1));
    let mut reset = syn.with_flags(RST).frame_to(1);
    let old = u16::from_be_bytes([reset[50], reset[51]]);
    let mut delta = Delta::default();
    delta.word32(1000, 0xdead_beef);
    reset[38..42].copy_from_slice(&0xdead_beefu32.to_be_bytes());
    reset[50..52].copy_from_slice(&delta.apply(old).to_be_bytes());
    world.exchange(1, &reset);
    world.exchange(1, &syn.frame_to(1));
    let data = read(open(&world.exchange(1, &syn.with_flags(ACK).frame_to(1))[0].1).2);
    assert_eq!((data.src, data.src_port, data.dst), (at_server.src, at_server.src_port, at_server.dst));
}

/// The same without the SYN: a connection that goes on after a forged RST lives as long as any other.
#[test]
fn a_blind_reset_does_not_shorten_a_connection_that_goes_on() {
    let mut world = World::new(single());
    let syn = tcp("192.168.1.5", 2000, "10.99.0.1", 80, SYN);
    let at_server = read(open(&world.exchange(1, &syn.frame_to(1))[0].1).2);
    world.exchange(1, &at_server.answer(SYN | ACK).frame_to(1));
    world.exchange(1, &syn.with_flags(ACK).frame_to(1));
    let mut reset = syn.with_flags(RST).frame_to(1);
    reset[38..42].copy_from_slice(&0xdead_beefu32.to_be_bytes());
    world.exchange(1, &reset);
    assert_eq!(world.exchange(1, &syn.with_flags(ACK).frame_to(1)).len(), 1);
    assert_eq!(world.exchange(1, &at_server.answer(ACK).frame_to(1)).len(), 1);
    world.run(20_000); // `closed` is 5 s in the lab's profile
    assert_eq!(world.exchange(1, &syn.with_flags(ACK).frame_to(1)).len(), 1);
}

/// RFC 4861 §7.2.5: without the override flag an advertisement doesn't replace an address that is known.
#[test]
fn an_advertisement_without_override_replaces_nothing() {
    let mut world = World::new(Spec::default());
    let (server, all) = (addr("fd10::21"), addr("ff02::1"));
    let liar = Mac([2, 6, 6, 6, 6, 6]);
    let mut frame = vec![0; 54 + icmp::ND_LEN];
    eth::write(&mut frame, icmp::multicast_mac(all), liar, None, ethertype::IPV6);
    ipv6::write(&mut frame[14..], 0, 0, icmp::ND_LEN as u16, 58, 255, server, all);
    let claim = Neighbour {
        advertisement: true,
        solicited: false,
        overrides: false,
        target: server,
        mac: Some(liar),
    };
    claim.write(&mut frame[54..], server, all);
    assert!(icmp::checksum_ok(&frame[54..], server, all));
    world.exchange(1, &frame);
    let known = world.stats(1).neighbours.into_iter().find(|n| n.address == server.ip()).unwrap();
    assert_eq!(known.mac, Some(host_mac(server).to_string()));
}

/// RFC 4861 §7.1.1: a solicitation without a source address has no link-layer option and goes to the solicited-node group.
#[test]
fn an_impossible_duplicate_address_probe_is_discarded() {
    let mut world = World::new(Spec::default());
    let target = addr("fd10::11");
    let to = icmp::solicited_node(target);
    let mut frame = vec![0; 54 + icmp::ND_LEN];
    eth::write(&mut frame, icmp::multicast_mac(to), host_mac(addr("fd10::1")), None, ethertype::IPV6);
    ipv6::write(&mut frame[14..], 0, 0, icmp::ND_LEN as u16, 58, 255, Addr::UNSPECIFIED, to);
    Neighbour {
        advertisement: false,
        solicited: false,
        overrides: false,
        target,
        mac: Some(host_mac(addr("fd10::1"))),
    }
    .write(&mut frame[54..], Addr::UNSPECIFIED, to);
    assert!(world.exchange(1, &frame).is_empty());
}

/// Every VIP is announced, however many there are.
#[test]
fn all_vips_are_announced() {
    let mut cluster = String::new();
    for i in 0..1200 {
        cluster += &format!(
            "[[virtual_server]]\nname = \"v{i}\"\naddress = \"fd10::9:{i:x}\"\nport = 80\nprotocol = \"tcp\"\n\
             forward = \"dsr-l2\"\n[[virtual_server.real_server]]\nname = \"s\"\naddress = \"fd10::21\"\n"
        );
    }
    let mut world = World::new(Spec { nodes: 1, cluster, ..Spec::default() });
    world.restart(1, 2);
    world.run(4000);
    let announced: std::collections::BTreeSet<_> = world
        .take()
        .into_iter()
        .filter(|(_, f)| f[20] == 58 && f[54] == 136)
        .map(|(_, f)| f[62..78].to_vec())
        .collect();
    assert_eq!(announced.len(), 1200);
}

/// The backplane is for frames between nodes: a ping there is refused, not answered by the front's routes.
#[test]
fn a_ping_on_the_backplane_is_refused() {
    let mut world = World::new(Spec::default());
    let frame = echo("10.20.0.12", "10.20.0.11", Mac([2, 0, 0, 0, 2, 1]));
    assert!(world.nodes[0].back_link().inject(&frame));
    world.run(5);
    assert_eq!((world.drops(1, "icmp_ignored"), world.take().len()), (1, 0));
}

/// Neighbours' chatter on a front port must not cost heartbeats: a flood there would make every peer suspect.
#[test]
fn an_arp_flood_does_not_silence_the_peers() {
    let mut world = World::new(Spec::default());
    let told = addr("10.10.0.254");
    let mut frame = vec![0; 14 + arp::LEN];
    eth::write(&mut frame, Mac::BROADCAST, host_mac(told), None, ethertype::ARP);
    Arp {
        operation: Operation::Request,
        sender_mac: host_mac(told),
        sender: told,
        target_mac: Mac::default(),
        target: addr("10.10.0.77"),
    }
    .write(&mut frame[14..]);
    for _ in 0..500 {
        world.now = world.now + std::time::Duration::from_millis(1);
        let now = world.now;
        for peer in [1, 2] {
            world.nodes[peer].node.turn(now);
        }
        // What one worker takes in less than a millisecond, the pause between two turns of the manager.
        for _ in 0..34 {
            (0..32).for_each(|_| world.inject(1, &frame));
            world.nodes[0].node.worker(WorkerId(0)).turn(now);
        }
        // Then the peers' heartbeats come in.
        for peer in [1, 2] {
            for heartbeat in world.nodes[peer].back_link().collect_all() {
                if heartbeat[..6] == [2, 0, 0, 0, 2, 1] {
                    assert!(world.nodes[0].back_link().inject(&heartbeat));
                }
            }
        }
        world.nodes[0].node.turn(now);
    }
    assert!(world.stats(1).peers.iter().all(|p| p.up), "{:?}", world.stats(1).peers);
}

/// What a drop costs is counted as a drop, not as traffic of the real server.
#[test]
fn dropped_packets_are_no_traffic() {
    let mut world = World::new(Spec::default());
    let packet = Packet { ttl: 1, ..tcp("192.168.1.5", 2000, "10.99.0.2", 80, SYN) };
    assert!(world.exchange(1, &packet.frame_to(1)).is_empty());
    let packets: u64 =
        (1..=3).flat_map(|n| world.stats(n).virtual_servers).map(|v| v.traffic.packets_in).sum();
    assert_eq!(packets, 0, "packets towards real servers");
}

/// A SNAT port that only unanswered SYNs hold must be had for a new client: half-open sessions go first.
#[test]
fn half_open_sessions_do_not_exhaust_snat_ports() {
    let mut world = World::new(single());
    let config = crate::world::load(&single(), 1);
    let mut of_bucket = (1..u16::MAX)
        .flat_map(|port| {
            (1..40).map(move |host| tcp(&format!("192.168.1.{host}"), port, "10.99.0.1", 80, SYN))
        })
        .filter(|p| {
            let key = steerage::base::FlowKey::new(p.src, p.dst, p.src_port, 80, 6);
            config.cluster.hash_key.flow(&key).bucket().0 == 5
        });
    for packet in of_bucket.by_ref().take(150) {
        world.exchange(1, &packet.frame_to(1));
    }
    let refused = world.drops(1, "snat_exhausted");
    let fresh = of_bucket.next().unwrap();
    world.exchange(1, &fresh.frame_to(1));
    assert_eq!(world.drops(1, "snat_exhausted") - refused, 0, "{refused} before");
}

/// Bent packets inside authentic data frames (the bent packets of `bad_input` are no data frames, so none of them gets
/// past the outer header).
#[test]
fn bent_packets_in_authentic_data_frames_neither_panic_nor_leak() {
    let mut world = World::new(Spec::default());
    let key = HashKey::derive(&(0..16).collect::<Vec<u8>>(), 2);
    let (sender, incarnation) = (NodeId(1), Incarnation(1));
    let cookie = backplane::cookie(key, sender, incarnation);
    let flow_key = crate::world::load(&Spec::default(), 1).cluster.hash_key;
    let mut rng = steerage::base::rng::Rng::new(7);
    for n in 0..20_000u16 {
        let vip = n % 4 + 1;
        let good = match n >> 2 & 3 {
            0 => tcp("192.168.1.5", 2000 + n, &format!("10.99.0.{vip}"), 80, (n >> 4) as u8),
            1 => udp("192.168.1.5", 2000, &format!("10.99.0.{vip}"), 80),
            2 => tcp("fd77::5", 2000, &format!("fd99::{vip}"), 80, (n >> 4) as u8),
            _ => udp("fd77::5", 2000, &format!("fd99::{vip}"), 80),
        };
        let number = if good.flags.is_some() { 6 } else { 17 };
        let hash =
            flow_key.flow(&steerage::base::FlowKey::new(good.src, good.dst, good.src_port, 80, number));
        let mut ip = good.ip();
        for _ in 0..rng.below(3) {
            let at = rng.below(ip.len() as u64) as usize;
            // Not the tuple: the header's hash is of the packet as it was.
            let tuple = if ip[0] >> 4 == 4 { 12..24 } else { 8..44 };
            if !tuple.contains(&at) && at != 9 && at != 6 && at != 0 {
                ip[at] = rng.next_u64() as u8;
            }
        }
        if rng.below(2) == 0 {
            ip.truncate(rng.below(ip.len() as u64) as usize);
        }
        let header = Header { stage: Stage::Owner, sender, incarnation, decided: 0, hash, cookie };
        assert!(world.nodes[0].back_link().inject(&data_frame(&header, &ip)));
        if n % 32 == 31 {
            world.run(1);
            world.take();
        }
    }
    world.run(8000);
    world.assert_no_leak();
}

/// A device with fewer queues than the node has workers: those without one receive and send through their siblings.
#[test]
fn fewer_queues_than_workers() {
    use steerage::io::memory::{self, MemoryLink, MemoryPools};
    let node = "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n\
         [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nqueues = 2\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\"]\n";
    let mut cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n\
         [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 4\n\
         [[snat]]\naddress = \"10.10.0.101\"\nnode = \"n1\"\n"
        .to_owned();
    cluster += &crate::world::virtual_server("nat", "10.99.0.1", "tcp", "nat", "all");
    let read_file = |path: &std::path::Path| match path.to_str() {
        Some("node.toml") => Ok(node.to_owned()),
        Some("cluster.toml") => Ok(cluster.clone()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let config = steerage::manage::config::load_from(&read_file, std::path::Path::new("node.toml"), None)
        .unwrap_or_else(|e| panic!("{e}"));
    let pools = MemoryPools::new(1024, 2048);
    let (device, links) = memory::open(&config.ports[0].device, front_mac(1), &pools, 1024);
    assert_eq!(links.len(), 2);
    let mut now = steerage::base::Instant::ZERO;
    let mut node = steerage::node::Node::new(&config, Incarnation(1), vec![device], now).unwrap();
    let (mut at_servers, mut at_clients) = (0, 0);
    for step in 0..3000u16 {
        now = now + std::time::Duration::from_millis(1);
        node.turn(now);
        for frame in links.iter().flat_map(MemoryLink::collect_all) {
            if frame[12..14] == [8, 6] {
                let question = Arp::parse(&frame[14..]).unwrap();
                if question.operation == Operation::Request && question.target != question.sender {
                    let mac = host_mac(question.target);
                    let answer = Arp {
                        operation: Operation::Reply,
                        sender_mac: mac,
                        sender: question.target,
                        target_mac: question.sender_mac,
                        target: question.sender,
                    };
                    let mut out = vec![0; 14 + arp::LEN];
                    eth::write(&mut out, question.sender_mac, mac, None, ethertype::ARP);
                    answer.write(&mut out[14..]);
                    assert!(links[0].inject(&out));
                }
                continue;
            }
            let packet = read(open(&frame).2);
            if packet.flags == Some(SYN) {
                at_servers += 1;
                assert!(links[usize::from(step) % 2].inject(&packet.answer(SYN | ACK).frame_to(1)));
            } else {
                at_clients += 1;
                assert_eq!(packet.src, addr("10.99.0.1"));
            }
        }
        if (1000..1400).contains(&step) {
            let syn = tcp("10.10.0.1", 2000 + step, "10.99.0.1", 80, SYN);
            assert!(links[usize::from(step) % 2].inject(&syn.frame_to(1)));
        }
    }
    assert_eq!((at_servers, at_clients), (400, 400));
    drop(node);
    drop(links);
}

/// A node of its own make: `ports` and what follows in the node file, and the cluster file.
fn custom(node: &str, cluster: &str) -> steerage::manage::config::Config {
    let node = format!("profile = \"lab\"\ncluster = \"cluster.toml\"\n{node}");
    let read_file = |path: &std::path::Path| match path.to_str() {
        Some("node.toml") => Ok(node.clone()),
        Some("cluster.toml") => Ok(cluster.to_owned()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    steerage::manage::config::load_from(&read_file, std::path::Path::new("node.toml"), None)
        .unwrap_or_else(|e| panic!("{e}"))
}

const FRONT_AND_BACK: &str = "[[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = 1500\n\
    [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = ";

/// One node steers nothing: what `check` accepts must start.
#[test]
fn a_single_node_needs_no_room_for_the_encapsulation() {
    use steerage::io::memory::{self, MemoryPools};
    let node = format!(
        "[node]\nname = \"n1\"\nadmin_socket = \"/n.sock\"\n{FRONT_AND_BACK}1500\n\
         [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\"]\n"
    );
    let cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n\
         [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n"
        .to_owned()
        + &crate::world::virtual_server("dsr", "10.99.0.2", "tcp", "dsr-l2", "all");
    let config = custom(&node, &cluster);
    let pools = MemoryPools::new(256, 2048);
    let devices = config.ports.iter().map(|p| memory::open(&p.device, front_mac(1), &pools, 64).0).collect();
    let node = steerage::node::Node::new(&config, Incarnation(1), devices, steerage::base::Instant::ZERO);
    assert_eq!(node.err(), None);
}

/// The backplane over IPv6: neighbours found, heartbeats heard, packets steered and taken.
#[test]
fn an_ipv6_backplane_carries_everything() {
    use steerage::io::memory::{self, MemoryLink, MemoryPools};
    let mut cluster =
        "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n".to_owned();
    for i in 1..=2 {
        cluster += &format!("[[node]]\nname = \"n{i}\"\nbackplane = \"fd20::1{i}\"\nworkers = 1\n");
    }
    cluster += &crate::world::virtual_server("dsr", "10.99.0.2", "tcp", "dsr-l2", "all");
    let pools = MemoryPools::new(1024, 2048);
    let mut now = steerage::base::Instant::ZERO;
    let mut nodes: Vec<_> = (1..=2)
        .map(|i| {
            let node = format!(
                "[node]\nname = \"n{i}\"\nadmin_socket = \"/n.sock\"\n{FRONT_AND_BACK}1700\n\
                 [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.1{i}/24\"]\n"
            );
            let config = custom(&node, &cluster);
            let (front, front_link) = memory::open(&config.ports[0].device, front_mac(i), &pools, 1024);
            let back_mac = Mac([2, 0, 0, 0, 2, i as u8]);
            let (back, back_link) = memory::open(&config.ports[1].device, back_mac, &pools, 1024);
            let node = steerage::node::Node::new(&config, Incarnation(1), vec![front, back], now).unwrap();
            (node, front_link, back_link)
        })
        .collect();
    let mut out = 0;
    for step in 0..4000u16 {
        now = now + std::time::Duration::from_millis(1);
        nodes.iter_mut().for_each(|n| n.0.turn(now));
        for i in 0..2 {
            let back: Vec<_> = nodes[i].2.iter().flat_map(MemoryLink::collect_all).collect();
            back.iter().for_each(|frame| assert!(nodes[1 - i].2[0].inject(frame)));
            let front: Vec<_> = nodes[i].1.iter().flat_map(MemoryLink::collect_all).collect();
            for frame in front {
                if frame[12..14] == [8, 6] {
                    let question = Arp::parse(&frame[14..]).unwrap();
                    if question.target.v4_bytes()[3] > 20 {
                        let mac = host_mac(question.target);
                        let mut reply = vec![0; 14 + arp::LEN];
                        eth::write(&mut reply, question.sender_mac, mac, None, ethertype::ARP);
                        Arp {
                            operation: Operation::Reply,
                            sender_mac: mac,
                            sender: question.target,
                            target_mac: question.sender_mac,
                            target: question.sender,
                        }
                        .write(&mut reply[14..]);
                        assert!(nodes[i].1[0].inject(&reply));
                    }
                } else {
                    read(open(&frame).2);
                    out += 1;
                }
            }
        }
        if (3000..3200).contains(&step) {
            assert!(nodes[0].1[0].inject(&tcp("10.10.0.1", 2000 + step, "10.99.0.2", 80, SYN).frame_to(1)));
        }
    }
    assert_eq!(out, 200);
    for (node, ..) in &mut nodes {
        let stats = node.manager().stats(now);
        assert!(stats.peers.iter().all(|p| p.up));
        assert_eq!(stats.totals.drops_total, 0, "{:?}", stats.totals.drops);
    }
}
