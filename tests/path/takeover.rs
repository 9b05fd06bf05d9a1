//! A node dies, and those who have its flows' state go on with its NATed connections (MECHANISMS §4 point 5), with the controls.

use crate::handover::flows::{Fate, Flow, NAT, bucket, exchange, node, opening};
use crate::packets::{ACK, SYN, open, read, tcp};
use crate::world::{Spec, World, virtual_server};
use arrayvec::ArrayVec;
use std::sync::Arc;
use steerage::base::Bucket;
use steerage::table::placement::{Home, Placement};
use steerage::view::Buckets;
use steerage::view::chain::{Chain, Copy};

/// Only nodes that decide together share state.
pub const LOG: &str = "[log]\ndirectory = \"/log\"\nca = \"/a\"\ncertificate = \"/c\"\nkey = \"/k\"\n";

/// Who has all buckets: the owner, since the version that is his epoch, and who stands by.
pub fn chains(owner: usize, epoch: u32, copies: &[usize]) -> Arc<[Chain]> {
    let copy = |number: usize| Copy { node: node(number), since: number as u32, complete: true };
    let chain = Chain {
        epoch,
        owner: Some(copy(owner)),
        copies: copies.iter().map(|n| copy(*n)).collect::<ArrayVec<_, 3>>(),
    };
    (0..4096).map(|_| chain.clone()).collect()
}

pub fn at(owner: usize, epoch: u32, copies: Option<&[usize]>) -> Vec<Buckets> {
    handed_over(owner, None, epoch, copies)
}

fn handed_over(owner: usize, previous: Option<usize>, epoch: u32, copies: Option<&[usize]>) -> Vec<Buckets> {
    let placement =
        Placement::of(|_: Bucket| Home { owner: Some(node(owner)), previous: previous.map(node) });
    let chains = copies.map(|copies| chains(owner, epoch, copies));
    vec![Buckets { chains, ..placement.into() }]
}

/// Eighty NATed flows, through any node.
fn flows(world: &mut World) -> Vec<Flow> {
    let mut flows = Vec::new();
    for i in 0..20u16 {
        for (v6, is_tcp) in [(false, true), (true, true), (false, false), (true, false)] {
            let receiver = 1 + usize::from(i) % 3;
            flows.push(Flow::open(world, receiver, &opening(NAT, v6, is_tcp, 3000 + i)));
        }
    }
    flows
}

/// How many of the flows' packets go on as before at nodes 2 and 3, in either direction, and how many don't.
fn judge(world: &mut World, flows: &[Flow]) -> (usize, usize) {
    let (mut right, mut wrong) = (0, 0);
    for flow in flows {
        for receiver in [2, 3] {
            for fate in [flow.forward(world, receiver), flow.backward(world, receiver)] {
                if fate == Fate::Right { right += 1 } else { wrong += 1 }
            }
        }
    }
    (right, wrong)
}

/// Flows of node 1, which dies; how many of their packets go on as before at node 2, in either direction, and how many don't.
fn survive(shared: bool) -> (usize, usize) {
    let mut world = World::new(Spec { tables: LOG, ..Spec::default() });
    (1..=3).for_each(|n| world.place(n, &at(1, 1, shared.then_some(&[2][..]))));
    world.run(600);
    let flows = flows(&mut world);
    world.run(10);
    world.stop(1);
    world.run(600);
    [2, 3].iter().for_each(|n| world.place(*n, &at(2, 2, shared.then_some(&[3][..]))));
    world.run(2000);
    judge(&mut world, &flows)
}

/// The same of flows whose buckets node 2 has taken over from node 1 before, which still has them.
fn survive_a_previous_owner(shared: bool) -> (usize, usize) {
    let mut world = World::new(Spec { tables: LOG, ..Spec::default() });
    (1..=3).for_each(|n| world.place(n, &at(1, 1, shared.then_some(&[2][..]))));
    world.run(600);
    let flows = flows(&mut world);
    (1..=3).for_each(|n| world.place(n, &handed_over(2, Some(1), 2, shared.then_some(&[1][..]))));
    world.run(2000);
    assert_eq!(judge(&mut world, &flows), (320, 0), "they are handed over");
    world.stop(1);
    world.run(600);
    [2, 3].iter().for_each(|n| world.place(*n, &at(2, 2, shared.then_some(&[][..]))));
    world.run(2000);
    judge(&mut world, &flows)
}

#[test]
fn nated_connections_survive_their_node() {
    assert_eq!(survive(true), (320, 0));
}

#[test]
fn so_do_those_that_a_previous_owner_still_had() {
    assert_eq!(survive_a_previous_owner(true), (320, 0));
}

#[test]
fn control_without_shared_state_they_break() {
    for (_, wrong) in [survive(false), survive_a_previous_owner(false)] {
        assert!(wrong >= 160, "{wrong}");
    }
}

/// SNAT addresses and ports of twelve flows that a bucket's new owner opened, which the one before it, who lives, already had, all to
/// one real server. The only address is the third node's: as if that had come back after others had gone on with its flows.
fn ports_twice(shared: bool) -> usize {
    let server = virtual_server("nat", "10.99.0.1", "tcp", "nat", "all");
    let others = server.find("[[virtual_server.real_server]]\nname = \"s22\"").unwrap();
    let cluster = format!("[[snat]]\naddress = \"10.10.0.103\"\nnode = \"n3\"\n{}", &server[..others]);
    let mut world = World::new(Spec { cluster, tables: LOG, ..Spec::default() });
    (1..=3).for_each(|n| world.place(n, &at(1, 1, shared.then_some(&[2][..]))));
    world.run(600);
    let clients = (0..=255u8).flat_map(|host| (1024..=65535).map(move |port| (host, port)));
    let packets = clients.map(|(host, port)| tcp(&format!("192.168.7.{host}"), port, "10.99.0.1", 80, SYN));
    let packets: Vec<_> = packets.filter(|p| bucket(p).0 == 77).take(24).collect();
    let before: Vec<_> = packets[..12].iter().map(|first| Flow::open(&mut world, 3, first)).collect();
    world.run(10);
    (1..=3).for_each(|n| world.place(n, &handed_over(2, Some(1), 2, shared.then_some(&[1][..]))));
    world.run(2000);
    let mut twice = 0;
    for first in &packets[12..] {
        // Three more have a port before all are taken.
        let out = exchange(&mut world, 3, &first.frame_to(3));
        let sources = out.iter().map(|(_, frame)| read(open(frame).2)).map(|seen| (seen.src, seen.src_port));
        twice += sources.filter(|source| before.iter().any(|flow| flow.source() == Some(*source))).count();
    }
    if shared {
        assert_eq!(world.count(2, "sessions_opened"), 12, "half-open ones go for others");
        for flow in &before {
            assert_eq!(flow.forward(&mut world, 3), Fate::Right);
            assert_eq!(flow.backward(&mut world, 2), Fate::Right);
        }
    }
    twice
}

#[test]
fn a_new_owner_knows_the_ports_that_the_one_before_has_in_use() {
    assert_eq!(ports_twice(true), 0);
}

#[test]
fn control_without_shared_state_it_hands_them_out_again() {
    assert!(ports_twice(false) > 0);
}

/// Whether a client's end of the handshake came to its server, and how many were dropped because other nodes had no state of the
/// flow: while who stands by answers, or hasn't heard of the bucket yet.
fn ends_handshake(answers: bool) -> (bool, u64) {
    let mut world = World::new(Spec { tables: LOG, ..Spec::default() });
    let knowing = if answers { 1..=2 } else { 1..=1 };
    knowing.for_each(|n| world.place(n, &at(1, 1, Some(&[2]))));
    world.run(600);
    let first = opening(NAT, false, true, 3000);
    let out = exchange(&mut world, 1, &first.frame_to(1));
    let reply = read(open(&out[0].1).2).answer(SYN | ACK);
    assert_eq!(exchange(&mut world, 1, &reply.frame_to(1)).len(), 1, "the server's part goes on");
    let mut arrived = !exchange(&mut world, 1, &first.with_flags(ACK).frame_to(1)).is_empty();
    world.run(40);
    arrived |= !world.take().is_empty();
    (arrived, world.drops(1, "unshared"))
}

#[test]
fn a_handshake_ends_when_others_could_go_on_with_the_flow() {
    assert_eq!(ends_handshake(true), (true, 0));
}

#[test]
fn control_nobody_answers_and_it_does_not() {
    assert_eq!(ends_handshake(false), (false, 1));
}

/// Without any SNAT address there are sessions all the same.
#[test]
fn sessions_end_where_nothing_is_nated() {
    let cluster = virtual_server("ipip", "10.99.0.3", "tcp", "ipip", "all");
    let mut world = World::new(Spec { cluster, tables: LOG, ..Spec::default() });
    (1..=3).for_each(|n| world.place(n, &at(1, 1, Some(&[2]))));
    world.run(600);
    let first = opening(3, false, true, 3000);
    assert_eq!(exchange(&mut world, 1, &first.frame_to(1)).len(), 1);
    world.run(20_000);
    assert_eq!((world.count(1, "sessions_opened"), world.count(1, "sessions")), (1, 0));
}
