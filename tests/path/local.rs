//! What the nodes answer themselves: ARP, neighbour discovery, echo; VLANs.

use crate::packets::{Packet, SYN, ethernet, open, read, tcp};
use crate::world::{Spec, World, addr, front_mac, host_mac, standard, virtual_server};
use std::sync::Arc;
use std::time::Duration;
use steerage::base::{Addr, Mac, WorkerId};
use steerage::wire::arp::{self, Arp, Operation};
use steerage::wire::eth::{self, ethertype};
use steerage::wire::icmp::{self, Neighbour};
use steerage::wire::{checksum, ipv6};

fn arp_request(target: &str) -> Vec<u8> {
    let mut out = vec![0; 14 + arp::LEN];
    let client = addr("10.10.0.1");
    eth::write(&mut out, Mac::BROADCAST, host_mac(client), None, ethertype::ARP);
    let question = Arp {
        operation: Operation::Request,
        sender_mac: host_mac(client),
        sender: client,
        target_mac: Mac::default(),
        target: addr(target),
    };
    question.write(&mut out[14..]);
    out
}

fn solicitation(target: &str, from: Addr) -> Vec<u8> {
    let mut out = vec![0; 54 + icmp::ND_LEN];
    let to = icmp::solicited_node(addr(target));
    eth::write(&mut out, icmp::multicast_mac(to), host_mac(addr("fd10::1")), None, ethertype::IPV6);
    let question = Neighbour {
        advertisement: false,
        solicited: false,
        overrides: false,
        target: addr(target),
        mac: (from != Addr::UNSPECIFIED).then(|| host_mac(addr("fd10::1"))),
    };
    let len = question.write(&mut out[54..], from, to);
    ipv6::write(&mut out[14..], 0, 0, len as u16, 58, 255, from, to);
    out.truncate(54 + len);
    out
}

/// Sends the question to all nodes, as a switch floods it; gives who answered with which MAC.
fn ask(world: &mut World, frame: &[u8]) -> Vec<(usize, Mac)> {
    (1..=3).for_each(|n| world.inject(n, frame));
    world.run(2);
    let mut out = Vec::new();
    for (node, frame) in world.take() {
        let (dst, src, payload) = open(&frame);
        assert_eq!(src, front_mac(node));
        if frame[12..14] == [8, 6] {
            let answer = Arp::parse(payload).unwrap();
            assert_eq!((answer.operation, dst), (Operation::Reply, host_mac(addr("10.10.0.1"))));
            out.push((node, answer.sender_mac));
        } else {
            let answer = Neighbour::parse(&payload[40..]).unwrap();
            let (from, to) = (&payload[8..24], &payload[24..40]);
            let [from, to] = [from, to].map(|a| Addr(a.try_into().unwrap()));
            assert!(answer.advertisement && icmp::checksum_ok(&payload[40..], from, to));
            assert_eq!(payload[7], 255);
            out.push((node, answer.mac.unwrap()));
        }
    }
    out
}

/// Each address has one node that answers for it: VIPs spread over the group's members, the rest belongs to one.
#[test]
fn one_node_answers_for_each_address() {
    let mut cluster = standard(None);
    for i in 30..60 {
        cluster +=
            &virtual_server(&format!("flat-{i}"), &format!("10.10.0.2{}", i - 10), "tcp", "dsr-l2", "all");
    }
    let mut world = World::new(Spec { cluster, ..Spec::default() });
    let mut answers = [0; 4];
    for i in 30..60 {
        let who = ask(&mut world, &arp_request(&format!("10.10.0.2{}", i - 10)));
        assert_eq!(who.len(), 1, "VIP {i}");
        assert_eq!(who[0].1, front_mac(who[0].0));
        answers[who[0].0] += 1;
    }
    assert!(answers[1..].iter().all(|n| *n >= 3), "{answers:?}");
    for node in 1..=3 {
        assert_eq!(ask(&mut world, &arp_request(&format!("10.10.0.1{node}"))), [(node, front_mac(node))]);
        assert_eq!(ask(&mut world, &arp_request(&format!("10.10.0.10{node}"))), [(node, front_mac(node))]);
        let from = addr("fd10::1");
        assert_eq!(
            ask(&mut world, &solicitation(&format!("fd10::1{node}"), from)),
            [(node, front_mac(node))]
        );
        assert_eq!(
            ask(&mut world, &solicitation(&format!("fd10::10{node}"), from)),
            [(node, front_mac(node))]
        );
    }
    assert_eq!(ask(&mut world, &solicitation("fd99::1", addr("fd10::1"))).len(), 1);
    // Someone who wants to take an address of ours asks without one: he is told all the same.
    assert_eq!(ask(&mut world, &solicitation("fd99::1", Addr::UNSPECIFIED)).len(), 1);
    assert!(ask(&mut world, &arp_request("10.10.0.77")).is_empty());
    // The backplane's address is not for the front.
    assert!(ask(&mut world, &arp_request("10.20.0.11")).is_empty());
    world.assert_no_leak();
}

/// Virtual and SNAT addresses are answered for under the lease alone, also when that ends while a turn stands still; the node's own
/// are its own for ever. Control: with a clock that isn't read again, what that turn has answered leaves.
#[test]
fn answers_for_what_another_may_take_over_end_with_the_lease() {
    let from = addr("fd10::1");
    for read_again in [true, false] {
        let mut world = World::new(Spec { cluster: standard(None), ..Spec::default() });
        let vip = ask(&mut world, &solicitation("fd99::1", from))[0].0;
        let shared = [solicitation("fd99::1", from), arp_request(&format!("10.10.0.10{vip}"))];
        let own = [solicitation(&format!("fd10::1{vip}"), from), arp_request(&format!("10.10.0.1{vip}"))];
        let until = world.now + Duration::from_millis(100);
        let end = if read_again { until } else { world.now };
        let node = &mut world.nodes[vip - 1].node;
        node.worker(WorkerId(0)).read_clock_by(Arc::new(move || end));
        node.manager().lease(until);
        for question in &shared {
            assert_eq!(ask(&mut world, question).is_empty(), read_again);
        }
        assert_eq!(world.drops(vip, "lease_over"), if read_again { shared.len() as u64 } else { 0 });
        world.run(100);
        for question in &shared {
            assert!(ask(&mut world, question).is_empty(), "the lease is over");
        }
        for question in &own {
            assert_eq!(ask(&mut world, question), [(vip, front_mac(vip))]);
        }
    }
}

fn echo(client: &str, target: &str, to: usize) -> Vec<u8> {
    let (src, dst) = (addr(client), addr(target));
    let mut message = vec![if src.is_v4() { 8 } else { 128 }, 0, 0, 0, 1, 2, 0, 9];
    message.extend(0..40u8);
    let pseudo = if src.is_v4() { 0 } else { checksum::pseudo_header(src, dst, 58, message.len()) };
    let sum = !checksum::add(pseudo, checksum::sum(&message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Any transport's packet gives the headers.
    let mut ip = Packet { payload: vec![0; 40], ..crate::packets::udp(client, 1, target, 2) }.ip();
    if src.is_v4() {
        ip[9] = 1;
        (ip[10], ip[11]) = (0, 0);
        let sum = !checksum::sum(&ip[..20]);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[20..].copy_from_slice(&message);
    } else {
        ip[6] = 58;
        ip[40..].copy_from_slice(&message);
    }
    ethernet(front_mac(to), host_mac(src), &ip)
}

/// The management thread forgets who doesn't answer. While packets for it keep coming it must go on asking, or a client that
/// missed the first questions would never be answered again.
#[test]
fn a_silent_neighbour_is_asked_for_as_long_as_packets_wait_for_it() {
    let mut world = World::new(crate::world::single());
    let known = |world: &mut World| {
        let stats = world.stats(1);
        stats.neighbours.iter().any(|n| n.address.to_string() == "10.10.0.3")
    };
    for _ in 0..25 {
        world.inject(1, &echo("10.10.0.3", "10.99.0.1", 1));
        world.run(200);
    }
    assert!(known(&mut world), "nobody asks for it any more");
    world.run(5000);
    assert!(!known(&mut world), "nothing waits for it");
}

#[test]
fn echo_is_answered_for_vips_snat_and_interface_addresses() {
    let mut world = World::new(Spec::default());
    for (client, targets) in [
        ("192.168.1.5", ["10.99.0.1", "10.10.0.102", "10.10.0.11"]),
        ("10.10.0.1", ["10.99.0.2", "10.10.0.101", "10.10.0.11"]),
        ("fd77::5", ["fd99::1", "fd10::103", "fd10::11"]),
    ] {
        for target in targets {
            let request = echo(client, target, 1);
            let out = world.exchange(1, &request);
            assert_eq!(out.len(), 1, "{client} pings {target}");
            let ip = open(&out[0].1).2;
            let (header, src, dst) = if ip[0] >> 4 == 4 {
                assert_eq!(checksum::sum(&ip[..20]), 0xffff);
                (20, Addr::v4(ip[12..16].try_into().unwrap()), Addr::v4(ip[16..20].try_into().unwrap()))
            } else {
                (40, Addr(ip[8..24].try_into().unwrap()), Addr(ip[24..40].try_into().unwrap()))
            };
            assert_eq!((src, dst), (addr(target), addr(client)));
            assert_eq!(ip[header], if header == 20 { 0 } else { 129 });
            assert!(icmp::checksum_ok(&ip[header..], src, dst));
            assert_eq!(ip[header + 4..], request[14 + header + 4..]);
        }
    }
    assert!(world.exchange(1, &echo("10.10.0.1", "10.10.0.99", 1)).is_empty());
    assert_eq!(world.drops(1, "not_our_address"), 1);
    let mut wrong = echo("10.10.0.1", "10.99.0.1", 1);
    *wrong.last_mut().unwrap() ^= 1;
    assert!(world.exchange(1, &wrong).is_empty());
    assert_eq!(world.drops(1, "transport_malformed"), 1);
    world.assert_no_leak();
}

/// A tagged interface takes its VLAN's packets and answers with the tag; others' are refused.
#[test]
fn vlans() {
    let mut world = World::new(Spec::default());
    let request = echo("10.70.0.1", "10.70.0.11", 1);
    let tag = |id: u8, frame: &[u8]| [&frame[..12], &[0x81, 0, 0x20, id], &frame[12..]].concat();
    let out = world.exchange(1, &tag(7, &request));
    assert_eq!(out.len(), 1);
    let answer = &out[0].1;
    assert_eq!(answer[12..18], [0x81, 0, 0, 7, 8, 0]);
    assert_eq!(answer[..6], host_mac(addr("10.70.0.1")).0);
    assert!(world.exchange(1, &tag(8, &request)).is_empty());
    assert!(world.exchange(1, &tag(7, &tag(7, &request))).is_empty(), "two tags");
    assert_eq!(world.drops(1, "unknown_vlan"), 2);
    // A client's packet in the VLAN goes its way, and out without a tag where the servers are.
    let out = world.exchange(1, &tag(7, &tcp("10.70.0.1", 1000, "10.99.0.2", 80, SYN).frame_to(1)));
    assert_eq!(read(open(&out[0].1).2).src, addr("10.70.0.1"));
    world.assert_no_leak();
}
