//! Clients keep the real server that they have (MECHANISMS §3 point 3): through whichever node they come, and after the death of
//! who knew it; with the control.

use crate::handover::flows::{Flow, node};
use crate::packets::{FIN, Packet, RST, SYN, tcp};
use crate::takeover::{LOG, at, chains};
use crate::world::{Spec, World, standard};
use std::collections::BTreeMap;
use steerage::base::{Bucket, Mac};
use steerage::table::placement::{Home, Placement};
use steerage::view::Buckets;

/// [`standard`], where the clients of all virtual servers keep their real servers.
fn cluster(timeout: &str, weight_of_first: Option<u32>) -> String {
    let file = standard(weight_of_first);
    let names =
        file.lines().filter_map(|line| line.strip_prefix("name = \"")).map(|rest| rest.trim_end_matches('"'));
    let names: Vec<_> = names.filter(|name| name.contains('-')).map(str::to_owned).collect();
    let each = names.iter().map(|name| {
        format!("[[persistence]]\nvirtual_server = \"{name}\"\ntimeout = \"{timeout}\"\nprefix_v4 = 28\nprefix_v6 = 64\n")
    });
    each.fold(file, |file, one| file + &one)
}

fn world(timeout: &str) -> World {
    World::new(Spec { cluster: cluster(timeout, None), tables: LOG, ..Spec::default() })
}

/// The client with this number, of one of its own addresses, opens a connection by one of four ways to forward.
fn opening(client: usize, address: usize, kind: usize, v6: bool, port: u16) -> Packet {
    let (src, dst) = match v6 {
        true => (format!("fd77:0:0:{client}::{address:x}"), format!("fd99::{kind}")),
        false => {
            (format!("192.168.{}.{}", client / 16, client % 16 * 16 + address), format!("10.99.0.{kind}"))
        }
    };
    tcp(&src, port, &dst, 80, SYN)
}

/// The real servers of clients by number, kind and family.
type Servers = BTreeMap<(usize, usize, bool), Mac>;

/// Each of forty clients opens a connection of each kind, from this port; those whose server isn't the one they had.
fn connect(world: &mut World, port: u16, nodes: &[usize], known: &mut Servers) -> usize {
    let mut others = 0;
    for client in 0..40 {
        for kind in 1..=4 {
            for v6 in [false, true] {
                let turn = client + kind + usize::from(port);
                let first = opening(client, turn % 16, kind, v6, port);
                let flow = Flow::open(world, nodes[turn % nodes.len()], &first);
                let server = *known.entry((client, kind, v6)).or_insert(flow.server);
                others += usize::from(server != flow.server);
            }
        }
    }
    others
}

/// Clients connect through three nodes, the owner dies, and they connect again: how many have another server then. The node that
/// takes over would balance otherwise: to it, one server is drained.
fn after_the_owner_died(shared: bool) -> usize {
    let restart = |world: &mut World| world.restart_as(2, 2, cluster("600s", Some(0)));
    let (mut world, mut servers) = died(shared, restart);
    connect(&mut world, 3003, &[2, 3], &mut servers)
}

/// The owner, which all had connected to, has died; node 2, which had begun anew before, has taken over.
fn died(shared: bool, restart_second: impl FnOnce(&mut World)) -> (World, Servers) {
    let mut world = world("600s");
    restart_second(&mut world);
    (1..=3).for_each(|n| world.place(n, &at(1, 1, shared.then_some(&[2][..]))));
    world.run(600);
    let mut servers = Servers::new();
    for port in [3000, 3001, 3002] {
        assert_eq!(connect(&mut world, port, &[1, 2, 3], &mut servers), 0, "by the hash alone");
    }
    world.run(10);
    world.stop(1);
    world.run(600);
    [2, 3].iter().for_each(|n| world.place(*n, &at(2, 2, shared.then_some(&[3][..]))));
    world.run(2000);
    (world, servers)
}

#[test]
fn clients_keep_their_servers_when_the_owner_dies() {
    assert_eq!(after_the_owner_died(true), 0);
}

#[test]
fn control_without_shared_state_they_get_others() {
    let others = after_the_owner_died(false);
    assert!(others >= 40, "{others}");
}

/// Where no server takes new clients, as all that are up are being drained, those go on that have one.
#[test]
fn clients_keep_servers_that_take_no_others() {
    let (mut world, mut servers) = died(true, |world| world.restart_without_weights(2, 2));
    assert_eq!(connect(&mut world, 3003, &[2, 3], &mut servers), 0);
    let kept = world.sum("clients_kept");
    assert_eq!(world.drops(2, "no_real_server"), 0);
    world.exchange(2, &opening(41, 1, 2, false, 3003).frame_to(2));
    assert_eq!((world.drops(2, "no_real_server"), world.sum("clients_kept") - kept), (1, 0));
}

/// What a copy refuses is counted, too: node 2 stands by for both others, and has room for less than they.
#[test]
fn clients_that_a_copy_has_no_room_for_are_counted() {
    let small = "shared_entries = 1024\n[log]\ndirectory = \"/log\"\nca = \"/a\"\ncertificate = \"/c\"\nkey = \"/k\"\n";
    let mut world = World::new(Spec { cluster: cluster("600s", None), tables: small, ..Spec::default() });
    let placement = Placement::of(|bucket: Bucket| Home {
        owner: Some(node(1 + usize::from(bucket.0) % 2 * 2)),
        previous: None,
    });
    let [first, third] = [1, 3].map(|owner| chains(owner, 1, &[2]));
    let chains =
        (0..4096).map(|bucket| if bucket % 2 == 0 { &first } else { &third }[bucket].clone()).collect();
    let buckets = [Buckets { chains: Some(chains), ..placement.into() }];
    (1..=3).for_each(|n| world.place(n, &buckets));
    world.run(600);
    for client in 0..200 {
        for kind in 2..=4 {
            for v6 in [false, true] {
                Flow::open(&mut world, 1, &opening(client, 1, kind, v6, 3000));
            }
        }
        world.run(1);
    }
    world.run(10);
    let unshared = [1, 2, 3].map(|n| world.count(n, "clients_unshared"));
    assert!(unshared[0] > 20 && unshared[1] == 0 && unshared[2] > 20, "{unshared:?}");
    assert!(unshared[0] + unshared[2] < 400, "{unshared:?}");
}

/// Whatever address and port of its prefix a client has, and whichever node it comes through, one worker of one node has all of it.
#[test]
fn a_client_is_one_owners() {
    let mut world =
        World::new(Spec { workers: 2, cluster: cluster("600s", None), tables: LOG, ..Spec::default() });
    let placement = Placement::of(|bucket: Bucket| Home {
        owner: Some(node(usize::from(bucket.0) % 3 + 1)),
        previous: None,
    });
    let all: Vec<_> = (1..=3).map(|owner| chains(owner, 1, &[owner % 3 + 1])).collect();
    let chains = (0..4096).map(|bucket| all[bucket % 3][bucket].clone()).collect();
    let buckets = [Buckets { chains: Some(chains), ..placement.into() }];
    (1..=3).for_each(|n| world.place(n, &buckets));
    world.run(600);
    let mut servers = Servers::new();
    for port in 3000..3006 {
        assert_eq!(connect(&mut world, port, &[1, 2, 3], &mut servers), 0);
        world.run(10);
    }
    // From the second connection on.
    assert_eq!(world.sum("clients_kept"), 5 * 40 * 4 * 2);
    assert_eq!(world.sum("sessions_opened"), 6 * 40 * 4 * 2);
    assert!((1..=3).all(|n| world.count(n, "sessions") > 500), "all have their share");
}

/// An entry ends some time after its client's last connection, and not before.
#[test]
fn a_client_is_forgotten_once_it_is_cold() {
    let mut world = world("4s");
    (1..=3).for_each(|n| world.place(n, &at(1, 1, Some(&[2]))));
    world.run(600);
    let kept = |world: &mut World, port: u16| {
        let before = world.sum("clients_kept");
        let flow = Flow::open(world, 2, &opening(5, 1, 2, false, port));
        world.run(10);
        (flow, world.sum("clients_kept") - before)
    };
    let (open, first) = kept(&mut world, 3000);
    assert_eq!(first, 0);
    // As long as it has a connection, be that an idle one.
    world.run(12_000);
    let (other, second) = kept(&mut world, 3001);
    assert_eq!(second, 1);
    for flow in [open, other] {
        world.exchange(1, &flow.packet.with_flags(FIN).frame_to(1));
        world.exchange(1, &flow.packet.with_flags(RST).frame_to(1));
    }
    world.run(12_000);
    assert_eq!(kept(&mut world, 3002).1, 0, "nobody was left");
}

/// Without shared state the client's hash alone decides, so that as long as the servers stay the same so does a client's.
#[test]
fn without_shared_state_the_clients_hash_decides() {
    let mut world = world("600s");
    (1..=3).for_each(|n| world.place(n, &at(1, 1, None)));
    world.run(600);
    let mut servers = Servers::new();
    for port in [3000, 3001] {
        assert_eq!(connect(&mut world, port, &[1, 2, 3], &mut servers), 0);
    }
    assert_eq!(world.sum("clients_kept"), 0);
}
