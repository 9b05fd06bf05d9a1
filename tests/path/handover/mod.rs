//! Buckets move while flows are in them (MECHANISMS §4 points 2 to 4), with the controls.

pub mod flows;
mod migration;
mod random;

use crate::explain::{ask, request};
use crate::packets::{ACK, FIN, RST, SYN, data_frame, open, tcp};
use crate::world::{Spec, World, standard, virtual_server};
use flows::{Fate, Flow, NAT, all_at, broken, bucket, every_kind, node, opening, world};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use steerage::base::{Addr, Bucket, FlowKey, GroupId, HashKey, Incarnation, Instant, NodeId, WorkerId};
use steerage::table::placement::{Home, Placement};
use steerage::view::{BucketSet, Buckets, Quarantine};
use steerage::wire::backplane::{self, Header, Stage};

const ORDERS: [[usize; 3]; 6] = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];

/// Receivers that don't remember where flows are.
const FORGETFUL: &str = "steering_cache = false";

/// Three nodes of which the second balances by other weights: the servers' set has changed since the first one's flows began.
fn unequal(tables: &'static str) -> World {
    let mut world = World::new(Spec { tables, cluster: standard(None), ..Spec::default() });
    world.restart_as(2, 2, standard(Some(60)));
    world.run(3200);
    world.take();
    (1..=3).for_each(|n| world.place(n, &all_at(1, None)));
    world.run(2);
    world
}

/// All buckets move from node 1 to node 2, which the nodes learn in this order; with flows that begin before and on the way.
/// How many of the packets broke, of how many.
fn moved(tables: &'static str, order: [usize; 3], previous: Option<usize>) -> (usize, usize) {
    let mut world = unequal(tables);
    let mut flows = every_kind(&mut world, 3, 3000);
    let (mut bad, mut all) = broken(&mut world, &flows);
    assert_eq!(bad, 0, "nothing has moved yet");
    for (step, number) in order.into_iter().enumerate() {
        world.place(number, &all_at(2, previous));
        world.run(2);
        if previous.is_some() {
            flows.extend(every_kind(&mut world, 1, 4000 + step as u16));
        }
        let (b, a) = broken(&mut world, &flows);
        (bad, all) = (bad + b, all + a);
    }
    for n in 1..=3 {
        assert!(previous.is_none() || world.drops(n, "stage_exhausted") == 0);
    }
    world.assert_no_leak();
    (bad, all)
}

#[test]
fn flows_keep_server_and_port_in_whatever_order_nodes_learn_of_a_move() {
    for (order, tables) in ORDERS.into_iter().flat_map(|order| ["", FORGETFUL].map(|tables| (order, tables)))
    {
        let (bad, all) = moved(tables, order, Some(1));
        assert_eq!(bad, 0, "of {all} packets, order {order:?}, {tables}");
        assert!(all > 1000);
    }
}

#[test]
fn control_without_a_previous_owner_they_break() {
    let (bad, all) = moved(FORGETFUL, [1, 2, 3], None);
    assert!(bad * 10 > all, "{bad} of {all} packets");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// On to its server.
    Sent,
    /// To another node, whose it is to take.
    Returned,
    /// As one that must go no further.
    Dropped,
    /// As one that nobody may take.
    NoOwner,
}

/// Every bucket is nobody's, and was this node's before.
fn nobodys(previous: Option<usize>) -> Vec<Buckets> {
    vec![Placement::of(|_| Home { owner: None, previous: previous.map(node) }).into()]
}

/// What node 1 does with a packet in a frame from node 2, which knows of version `decided`: it goes by version 7 of whose all
/// buckets are, and knows of no later one.
fn ends(placement: (Option<usize>, Option<usize>), stage: Stage, decided: u32) -> End {
    ends_at(7, placement, stage, decided)
}

/// The same where node 1 knows of this version.
fn ends_at(known: u32, (owner, previous): (Option<usize>, Option<usize>), stage: Stage, decided: u32) -> End {
    let mut world = World::new(Spec { cluster: standard(None), ..Spec::default() });
    world.place_as(1, 7, &owner.map_or_else(|| nobodys(previous), |owner| all_at(owner, previous)));
    world.decide(known);
    world.run(2);
    let keys = [1, 2].map(|which| HashKey::derive(&(0..16).collect::<Vec<u8>>(), which));
    let packet = tcp("192.168.1.5", 3000, "10.99.0.2", 80, SYN);
    let hash = keys[0].flow(&FlowKey::new(packet.src, packet.dst, packet.src_port, 80, 6));
    let (sender, incarnation) = (NodeId(1), Incarnation(1));
    let cookie = backplane::cookie(keys[1], sender, incarnation);
    let header = Header { stage, sender, incarnation, decided, hash, cookie };
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    world.run(1);
    let sent = world.take().iter().any(|(node, _)| *node == 1);
    let counts =
        [world.count(1, "handover_returned"), world.drops(1, "stage_exhausted"), world.drops(1, "no_owner")];
    match (sent, counts) {
        (true, [0, 0, 0]) => End::Sent,
        (false, [1, 0, 0]) => End::Returned,
        (false, [0, 1, 0]) => End::Dropped,
        (false, [0, 0, 1]) => End::NoOwner,
        other => panic!("{other:?}"),
    }
}

/// A packet that was given back opens a session where it ends if that node, or the one that gave it back, can know that nobody
/// else has one: by whose the bucket is and was, and by whether the sender knows less than what the node goes by, as much, or
/// more.
#[test]
fn what_was_given_back_is_taken_where_nobody_else_can_have_its_session() {
    let versions = [6, 7, 8, 6 + u32::MAX / 2];
    for (placement, taken) in [
        ((1, None), [true; 4]),
        ((1, Some(2)), [false, true, true, true]),
        ((2, Some(1)), [false; 4]),
        ((2, Some(3)), [false, false, true, true]),
        ((2, None), [false, false, true, true]),
    ] {
        for (decided, taken) in versions.into_iter().zip(taken) {
            let end = if taken { End::Sent } else { End::Dropped };
            let placement = (Some(placement.0), placement.1);
            assert_eq!(ends(placement, Stage::Returned, decided), end, "{placement:?}, version {decided}");
        }
    }
}

/// What has gone as far as packets go, at a node that has given its bucket away since what the sender knows, goes on to the next
/// owner: or its client would have to wait for its own repetition. Only there, and only if the sender can't know of that already.
#[test]
fn what_was_given_back_to_one_that_has_given_the_bucket_away_goes_on_to_the_next_owner() {
    for (known, placement, decided, end) in [
        (8, (2, Some(1)), 7, End::Returned),
        (8, (2, Some(1)), 6, End::Dropped),
        (8, (2, Some(1)), 8, End::Dropped),
        (7, (2, Some(1)), 7, End::Dropped),
        (8, (2, Some(3)), 7, End::Dropped),
        (8, (2, None), 7, End::Dropped),
    ] {
        let placement = (Some(placement.0), placement.1);
        assert_eq!(
            ends_at(known, placement, Stage::Returned, decided),
            end,
            "{placement:?}, {decided} {known}"
        );
    }
    assert_eq!(ends_at(8, (None, Some(1)), Stage::Returned, 7), End::NoOwner);
}

/// Who is asked as the previous owner, and isn't, does not answer for that one if the question is an old one, unless nobody but the
/// owner can have anything.
#[test]
fn a_question_to_a_previous_owner_that_is_none_any_more_is_given_back_or_dropped() {
    for (placement, decided, end) in [
        ((2, Some(3)), 6, End::Dropped),
        ((2, Some(3)), 7, End::Returned),
        ((2, Some(1)), 6, End::Returned),
        ((2, None), 6, End::Returned),
        ((1, Some(2)), 6, End::Dropped),
        ((1, Some(2)), 7, End::Sent),
        ((1, None), 6, End::Sent),
    ] {
        let placement = (Some(placement.0), placement.1);
        assert_eq!(ends(placement, Stage::PreviousOwner, decided), end, "{placement:?}, version {decided}");
    }
}

/// While nobody owns a bucket, as its last owner's lease may go on, nobody takes a flow, whoever asks and whatever he knows of.
#[test]
fn without_an_owner_nobody_takes_a_flow() {
    for stage in [Stage::Owner, Stage::PreviousOwner, Stage::Returned] {
        for decided in [6, 7, 8] {
            for previous in [None, Some(1)] {
                assert_eq!(ends((None, previous), stage, decided), End::NoOwner, "{previous:?}, {stage:?}");
            }
        }
    }
    // One that doesn't know the flow asks who had the bucket before.
    let mut world = World::new(Spec { cluster: standard(None), ..Spec::default() });
    world.place_as(1, 7, &nobodys(Some(2)));
    world.run(2);
    let packet = tcp("192.168.1.5", 3000, "10.99.0.2", 80, SYN);
    world.exchange(1, &packet.frame_to(1));
    assert_eq!((world.count(1, "handover_out"), world.drops(1, "no_owner")), (1, 0));
}

/// The worker that a frame comes to goes by one version, the one that it is handed to by the next: what the first made of the
/// sender's knowledge says nothing there. Whether the second takes the packet, and its bucket that has come back.
fn handed_over_between_versions(next: u32) -> bool {
    let mut world = World::new(Spec { workers: 2, cluster: standard(None), ..Spec::default() });
    world.place_as(1, 7, &all_at(2, Some(1)));
    world.run(2);
    let keys = [1, 2].map(|which| HashKey::derive(&(0..16).collect::<Vec<u8>>(), which));
    let hash_of =
        |port| keys[0].flow(&FlowKey::new(Addr::v4([192, 168, 1, 5]), Addr::v4([10, 99, 0, 2]), port, 80, 6));
    let port = (3000..).find(|port| hash_of(*port).bucket().0 % 2 == 1).unwrap();
    let (sender, incarnation, hash) = (NodeId(1), Incarnation(1), hash_of(port));
    let cookie = backplane::cookie(keys[1], sender, incarnation);
    let header = Header { stage: Stage::PreviousOwner, sender, incarnation, decided: 7, hash, cookie };
    let packet = tcp("192.168.1.5", port, "10.99.0.2", 80, SYN);
    assert!(world.nodes[0].back_link().inject(&data_frame(&header, &packet.ip())));
    let now = world.now;
    world.nodes[0].node.worker(WorkerId(0)).turn(now);
    assert_eq!(world.count(1, "ring_out"), 1);
    world.place_as(1, next, &all_at(1, Some(2)));
    world.run(1);
    assert_eq!(world.count(1, "ring_in"), 1);
    world.take().iter().any(|(node, _)| *node == 1)
}

#[test]
fn what_one_worker_compared_another_does_not_believe() {
    assert!(!handed_over_between_versions(8), "the sender knew nothing of that");
    assert!(handed_over_between_versions(7), "a control: without another version it does");
}

/// Between several workers each: the session is at the bucket's worker, whichever queue a packet comes in on.
#[test]
fn the_previous_owners_worker_is_found() {
    let cluster = standard(None);
    let mut world = world(Spec { workers: 3, cluster, ..Spec::default() });
    let flows = every_kind(&mut world, 3, 3000);
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    let ring = world.count(1, "ring_out");
    for flow in &flows {
        for (number, queue) in [(1, 0), (1, 1), (1, 2), (2, 1), (3, 2)] {
            assert!(world.nodes[number - 1].front[queue].inject(&flow.packet.frame_to(number)));
            world.run(8);
            let out = world.take();
            assert_eq!(out.len(), 1);
            assert_eq!((out[0].0, open(&out[0].1).0), (1, flow.server));
        }
    }
    assert!(world.count(1, "ring_out") > ring, "its own receivers hand over");
    assert_eq!(world.count(1, "handover_returned"), 0);
    world.assert_no_leak();
}

/// A packet of a flow that nobody knows goes to the owner, to the previous one, back, and out: three frames, one packet.
#[test]
fn a_new_flow_asks_the_previous_owner_once() {
    let mut world = world(Spec::default());
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    for (receiver, frames) in [(3, 3), (2, 2), (1, 1)] {
        for kind in flows::KINDS {
            let data = |w: &mut World| w.backplane_frames as u64 - w.sum("control_tx");
            let (before, opened) = (data(&mut world), world.count(2, "sessions_opened"));
            let first = opening(kind, false, true, 2000 + receiver as u16);
            let out = world.exchange(receiver, &first.frame_to(receiver));
            assert_eq!(out.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2], "the owner sends it on");
            assert_eq!(data(&mut world) - before, frames);
            // Sent again, it finds what the first one made; nobody else has made anything.
            let again = world.exchange(receiver, &first.frame_to(receiver));
            assert_eq!(open(&again[0].1).2[12..], open(&out[0].1).2[12..]);
            assert_eq!((again.len(), world.count(2, "sessions_opened") - opened), (1, 1));
        }
    }
    assert_eq!(world.count(1, "sessions_opened") + world.count(3, "sessions_opened"), 0);
    assert_eq!((world.count(2, "handover_out"), world.count(1, "handover_in")), (8, 8));
    assert_eq!(world.count(1, "handover_returned"), 16, "it doesn't remember that it knew nothing");
}

/// SYNs and RSTs that the client didn't send move nothing (RFC 9293 §3.10.7.4, RFC 5961 §4).
#[test]
fn a_forged_syn_or_rst_moves_no_living_flow() {
    let mut world = unequal("");
    let flows: Vec<_> =
        every_kind(&mut world, 3, 3000).into_iter().filter(|f| f.packet.flags.is_some()).collect();
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    let opened = world.sum("sessions_opened");
    for flow in &flows {
        for receiver in 1..=3 {
            for forged in [SYN, RST, RST | ACK] {
                assert_eq!(
                    flow.forward_as(&mut world, receiver, &flow.packet.with_flags(forged)),
                    Fate::Right
                );
                assert_eq!(flow.forward(&mut world, receiver), Fate::Right);
                // Where the server's word passes here, it alone revives a connection.
                assert_eq!(flow.backward(&mut world, receiver), Fate::Right);
            }
        }
    }
    assert_eq!(world.sum("sessions_opened"), opened);
}

/// The next connection from a port is the owner's; with NAT it keeps server and SNAT port, where the flow is, unless both ends have
/// closed the last one.
#[test]
fn the_next_connection_is_the_owners_once_both_ends_have_closed() {
    for both in [true, false] {
        next_connections(both);
    }
}

fn next_connections(both: bool) {
    let mut world = unequal("");
    let flows: Vec<_> =
        every_kind(&mut world, 2, 3000).into_iter().filter(|f| f.packet.flags.is_some()).collect();
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    for flow in &flows {
        let before = (world.count(1, "sessions_closed"), world.count(2, "sessions_opened"));
        assert_eq!(flow.forward_as(&mut world, 3, &flow.packet.with_flags(FIN | ACK)), Fate::Right);
        if let Some(reply) = flow.reply.as_ref().filter(|_| both) {
            assert_eq!(world.exchange(3, &reply.with_flags(FIN | ACK).frame_to(3)).len(), 1);
        }
        let out = world.exchange(3, &flow.packet.with_flags(SYN).frame_to(3));
        let after = (world.count(1, "sessions_closed"), world.count(2, "sessions_opened"));
        let (sender, moved) = if flow.kind == NAT && !both { (1, 0) } else { (2, 1) };
        assert_eq!(out.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [sender]);
        assert_eq!((after.0 - before.0, after.1 - before.1), (moved, moved), "{flow:?}");
    }
}

/// What the two of them did after the previous owner's end, which is `end`: packets that came to a server, flows that did to
/// theirs, packets dropped as NAT's without a session.
fn after_the_end(end: impl Fn(&mut World)) -> (usize, usize, u64) {
    let mut world = unequal("");
    let flows = every_kind(&mut world, 3, 3000);
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    for flow in &flows {
        assert_eq!(flow.forward(&mut world, 3), Fate::Right);
    }
    end(&mut world);
    world.run(3200);
    world.take();
    let before = world.drops(2, "no_session");
    let (mut came, mut right) = (0, 0);
    for flow in &flows {
        for _ in 0..2 {
            let fate = flow.forward(&mut world, 3);
            came += usize::from(fate != Fate::Lost);
            right += usize::from(fate == Fate::Right);
        }
    }
    assert_eq!(world.drops(2, "stage_exhausted") + world.drops(1, "stage_exhausted"), 0);
    (came, right, world.drops(2, "no_session") - before)
}

/// The previous owner dies: flows without NAT go on by the owner's Maglev table, TCP connections through NAT are lost and said to
/// be. Its next life knows nothing, and says so packet by packet, to the same effect.
#[test]
fn without_the_previous_owner_its_flows_are_balanced_anew_or_refused() {
    let dead = after_the_end(|world| world.stop(1));
    // 48 flows, twice; 6 are TCP through NAT.
    assert_eq!((dead.0, dead.2), (84, 12));
    assert!(dead.1 < 60, "{} of 96 at their servers", dead.1);
    let restarted = after_the_end(|world| {
        world.restart(1, 2);
        world.place(1, &all_at(2, Some(1)));
    });
    assert_eq!((restarted.0, restarted.2), (84, 12));
}

#[test]
fn control_while_the_previous_owner_lives_none_is() {
    assert_eq!(after_the_end(|_| {}), (96, 96, 0));
}

fn holding(world: &mut World, number: usize) -> Option<(u64, Vec<u16>)> {
    let holding = world.nodes[number - 1].node.manager().census().holding(GroupId(0))?;
    Some((holding.sessions, (0..4096).filter(|b| holding.buckets.has(Bucket(*b))).collect()))
}

/// The previous owner counts what it still has; when that is nothing, nobody asks it any more.
#[test]
fn the_previous_owner_tells_when_it_has_nothing_left() {
    let tables = "[timeouts]\nudp = \"3s\"\nclosed = \"1s\"";
    let mut world = world(Spec { tables, workers: 2, ..Spec::default() });
    let flows = every_kind(&mut world, 2, 3000);
    assert_eq!(holding(&mut world, 1), None, "nothing has moved");
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    assert_eq!(holding(&mut world, 1), None, "nothing is counted yet");
    world.run(1300);
    let buckets: BTreeSet<u16> = flows.iter().map(|flow| bucket(&flow.packet).0).collect();
    assert_eq!(holding(&mut world, 1), Some((32, buckets.into_iter().collect())));
    assert_eq!(holding(&mut world, 2), None);
    for flow in flows.iter().filter(|f| f.packet.flags.is_some()) {
        world.exchange(3, &flow.packet.with_flags(RST).frame_to(3));
    }
    world.run(6000);
    assert_eq!(holding(&mut world, 1), Some((0, Vec::new())));
    let asked = world.count(2, "handover_out");
    let packet = opening(2, false, false, 5000);
    world.exchange(2, &packet.frame_to(2));
    assert_eq!(world.count(2, "handover_out") - asked, 1, "until all know that");
    (1..=3).for_each(|n| world.place(n, &all_at(2, None)));
    world.run(2);
    assert_eq!(holding(&mut world, 1), None);
    for port in 0..20 {
        world.exchange(2, &opening(2, false, false, 6000 + port).frame_to(2));
    }
    assert_eq!(world.count(2, "handover_out") - asked, 1);
}

/// Node 1 owns half of the buckets and is the previous owner of the others: it counts the sessions of those alone.
#[test]
fn sessions_of_buckets_that_stay_are_not_counted() {
    let mut world = world(Spec::default());
    let flows = every_kind(&mut world, 3, 3000);
    let half = |b: Bucket| match b.0 % 2 {
        0 => Home { owner: Some(node(2)), previous: Some(node(1)) },
        _ => Home { owner: Some(node(1)), previous: None },
    };
    let placed: Vec<Buckets> = vec![Placement::of(half).into()];
    (1..=3).for_each(|n| world.place(n, &placed));
    world.run(1300);
    let gone: Vec<_> = flows.iter().map(|f| bucket(&f.packet).0).filter(|b| b % 2 == 0).collect();
    let buckets: BTreeSet<u16> = gone.iter().copied().collect();
    assert!(!gone.is_empty() && gone.len() < flows.len());
    assert_eq!(holding(&mut world, 1), Some((gone.len() as u64, buckets.into_iter().collect())));
}

/// New NAT sessions need the lease; what is established, and what needs no NAT, doesn't.
#[test]
fn no_new_nat_session_without_a_lease() {
    let mut world = world(Spec::default());
    let old = Flow::open(&mut world, 1, &opening(NAT, false, true, 3000));
    let until = world.now + Duration::from_millis(50);
    world.nodes[0].node.manager().lease(until);
    Flow::open(&mut world, 1, &opening(NAT, false, true, 3001));
    world.run(50);
    for (port, is_tcp) in [(3002, true), (3003, false)] {
        assert!(world.exchange(1, &opening(NAT, false, is_tcp, port).frame_to(1)).is_empty());
    }
    assert_eq!(world.drops(1, "no_lease"), 2);
    assert_eq!((old.forward(&mut world, 2), old.backward(&mut world, 3)), (Fate::Right, Fate::Right));
    Flow::open(&mut world, 1, &opening(2, false, true, 3004));
    let until = world.now + Duration::from_secs(1);
    world.nodes[0].node.manager().lease(until);
    Flow::open(&mut world, 1, &opening(NAT, false, true, 3002));
    assert_eq!(world.drops(1, "no_lease"), 2);
}

/// A turn that stands still until its node's lease is over keeps what it has promised to itself; with a clock that isn't read
/// again, as a control, it leaves.
#[test]
fn what_was_promised_does_not_leave_when_the_lease_is_over() {
    for read_again in [true, false] {
        let mut world = world(Spec::default());
        let until = world.now + Duration::from_millis(50);
        let end = if read_again { until } else { world.now };
        world.nodes[0].node.worker(WorkerId(0)).read_clock_by(Arc::new(move || end));
        world.nodes[0].node.manager().lease(until);
        let answers = world.exchange(1, &opening(NAT, false, true, 3001).frame_to(1));
        assert_eq!(answers.is_empty(), read_again);
        assert_eq!(world.drops(1, "lease_over") > 0, read_again);
        // Nor does what is sent again, once the lease is over for all to see: what no server has answered was never promised.
        world.nodes[0].node.manager().lease(world.now);
        let answers = world.exchange(1, &opening(NAT, false, true, 3001).frame_to(1));
        assert_eq!((answers.is_empty(), world.drops(1, "no_lease")), (true, 1));
        world.nodes[0].node.manager().lease(until);
        // What promises nothing leaves.
        Flow::open(&mut world, 1, &opening(2, false, true, 3004));
    }
}

/// In buckets taken over from a dead node not before its lease is over either.
#[test]
fn no_new_nat_session_in_quarantine() {
    let mut world = world(Spec::default());
    let until = world.now + Duration::from_millis(500);
    let mut buckets = BucketSet::EMPTY;
    (0..2048).for_each(|b| buckets.insert(Bucket(b)));
    let quarantine = Some(Box::new(Quarantine { buckets, until }));
    let placed = vec![Buckets { quarantine, ..all_at(1, None)[0].clone() }];
    world.place(1, &placed);
    world.run(2);
    let mut refused = Vec::new();
    for port in 0..20 {
        let first = opening(NAT, false, true, 3000 + port);
        let taken = !world.exchange(1, &first.frame_to(1)).is_empty();
        assert_eq!(taken, bucket(&first).0 >= 2048);
        if !taken {
            refused.push(first);
        }
        Flow::open(&mut world, 1, &opening(3, false, true, 3000 + port));
    }
    assert_eq!(world.drops(1, "no_lease"), refused.len() as u64);
    assert!(refused.len() > 3 && refused.len() < 17);
    world.run(500);
    for first in refused {
        Flow::open(&mut world, 1, &first);
    }
    assert!(world.now > until && until > Instant::ZERO);
}

/// SNAT addresses and ports of twelve flows that a bucket's new owner opened, which the one before it already had, all to one
/// real server. The new owner advertises no address of its own.
fn shared(previous: Option<usize>) -> usize {
    let mut cluster = String::new();
    for (address, number) in [("10.10.0.101", 1), ("10.10.0.103", 3)] {
        cluster += &format!("[[snat]]\naddress = \"{address}\"\nnode = \"n{number}\"\n");
    }
    let server = virtual_server("nat", "10.99.0.1", "tcp", "nat", "all");
    let others = server.find("[[virtual_server.real_server]]\nname = \"s22\"").unwrap();
    cluster += &server[..others];
    let mut world = world(Spec { cluster, ..Spec::default() });
    // Clients' ports of one bucket.
    let clients = (0..=255u8).flat_map(|host| (1024..=65535).map(move |port| (host, port)));
    let packets = clients.map(|(host, port)| tcp(&format!("192.168.7.{host}"), port, "10.99.0.1", 80, SYN));
    let packets: Vec<_> = packets.filter(|p| bucket(p).0 == 77).take(24).collect();
    let mut sources = Vec::new();
    for (i, first) in packets.iter().enumerate() {
        if i == 12 {
            (1..=3).for_each(|n| world.place(n, &all_at(2, previous)));
            world.run(2);
        }
        sources.push(Flow::open(&mut world, 3, first).source().unwrap());
    }
    sources[12..].iter().filter(|source| sources[..12].contains(source)).count()
}

#[test]
fn no_two_flows_share_a_snat_port_across_a_move() {
    assert_eq!(shared(Some(1)), 0);
}

#[test]
fn control_an_owner_that_knows_no_previous_one_hands_its_ports_out_again() {
    assert!(shared(None) > 0);
}

/// `explain` names the previous owner, and says of known and unknown flows what becomes of them.
#[test]
fn explain_follows_a_packet_through_a_handover() {
    let mut world = unequal(FORGETFUL);
    let known = Flow::open(&mut world, 1, &opening(3, false, true, 3000));
    (1..=3).for_each(|n| world.place(n, &all_at(2, Some(1))));
    world.run(2);
    let notes = |said: &serde_json::Value| said["notes"].to_string();
    let server = |said: &serde_json::Value| said["real_server"]["address"].as_str().map(str::to_owned);
    let at = |frame: &[u8]| format!("{}:80", Addr::v4(open(frame).2[16..20].try_into().unwrap()));
    let unknown = opening(3, false, true, 3001);
    for packet in [&known.packet, &unknown] {
        let said: Vec<_> = (1..=3).map(|n| ask(&mut world, n, request(packet)).unwrap()).collect();
        let has = packet == &known.packet;
        // The previous owner has the session, or gives the packet to the owner at once.
        assert_eq!(said[0]["owner"]["node"], if has { "n1" } else { "n2" });
        assert_eq!(said[0]["session"].is_null(), !has);
        for other in &said[1..] {
            assert_eq!(other["owner"]["node"], "n2");
            assert!(notes(other).contains("n1 owned the bucket before"), "{}", notes(other));
        }
        for (number, said) in (1..).zip(&said) {
            let out = world.exchange(number, &packet.frame_to(number));
            assert_eq!(out[0].0, if has { 1 } else { 2 });
            // What only another node knows, it can't say; of a flow that nobody knows it has no table but its own.
            if number == out[0].0 {
                assert_eq!(server(said), Some(at(&out[0].1)), "{said}");
            }
        }
    }
    (1..=3).for_each(|n| world.place(n, &all_at(2, None)));
    world.run(2);
    let said = ask(&mut world, 3, request(&unknown)).unwrap();
    assert!(!notes(&said).contains("before"), "control: {}", notes(&said));
    // While its owner is dead and the next one waits, who had it before may know the flow, and nobody takes it.
    (1..=3).for_each(|n| world.place(n, &nobodys(Some(2))));
    world.run(2);
    let said = ask(&mut world, 3, request(&unknown)).unwrap();
    assert_eq!((&said["owner"]["node"], &said["dropped"]["reason"]), (&"n2".into(), &"no_owner".into()));
    assert!(said["owner"]["why"].to_string().contains("no node now; n2 may have the flow"), "{said}");
}
