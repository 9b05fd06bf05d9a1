//! Floods of forged handshakes: they must not take what real clients need.

use crate::packets::{ACK, FIN, Packet, RST, SYN, open, read, tcp};
use crate::world::{World, addr, single};

#[test]
fn a_syn_flood_that_servers_answer_leaves_room() {
    let mut world = World::new(single());
    for n in 0..6000u32 {
        let client = format!("192.168.{}.{}", n >> 8, n & 0xff | 1);
        let syn = tcp(&client, 1000 + n as u16, "10.99.0.1", 80, SYN);
        world.inject(1, &syn.frame_to(1));
        world.run(1);
        for (_, f) in world.take() {
            if f[12..14] != [8, 0] {
                continue;
            }
            let p = read(open(&f).2);
            if p.flags == Some(SYN) && p.src == addr("10.10.0.101") {
                world.inject(1, &p.answer(SYN | ACK).frame_to(1));
            }
        }
    }
    world.run(5);
    assert_eq!(world.drops(1, "session_table_full") + world.drops(1, "snat_exhausted"), 0);
}

#[test]
fn handshakes_that_nobody_completes_leave_snat_ports() {
    let mut world = World::new(single());
    let config = crate::world::load(&single(), 1);
    let of_bucket = (1..u16::MAX)
        .flat_map(|port| {
            (1..40).map(move |host| tcp(&format!("192.168.1.{host}"), port, "10.99.0.1", 80, SYN))
        })
        .filter(|p| {
            let key = steerage::base::FlowKey::new(p.src, p.dst, p.src_port, 80, 6);
            config.cluster.hash_key.flow(&key).bucket().0 == 5
        });
    for packet in of_bucket.take(150) {
        let Some((_, f)) = world.exchange(1, &packet.frame_to(1)).pop() else { continue };
        world.exchange(1, &read(open(&f).2).answer(SYN | ACK).frame_to(1));
    }
    assert_eq!(world.drops(1, "snat_exhausted"), 0);
}

fn flood(dst: &str, flags: &[u8], what: &str) {
    let mut world = World::new(single());
    for n in 0..6000u32 {
        let client = format!("192.168.{}.{}", n >> 8, n & 0xff | 1);
        let syn: Packet = tcp(&client, 1000 + n as u16, dst, 80, SYN);
        for f in flags {
            world.inject(1, &syn.with_flags(*f).frame_to(1));
        }
        if n % 4 == 3 {
            world.run(1);
        }
    }
    world.run(5);
    world.take();
    // A real NAT client now:
    let got = world.exchange(1, &tcp("192.168.200.5", 99, "10.99.0.1", 80, SYN).frame_to(1)).len();
    assert_eq!(got, 1, "{what}");
}

/// Whatever control bits a forger sends after his SYN, or instead of it.
#[test]
fn no_sequence_of_forged_packets_takes_the_room() {
    flood("10.99.0.1", &[SYN], "SYN");
    flood("10.99.0.1", &[SYN, FIN | ACK], "SYN, FIN");
    flood("10.99.0.1", &[SYN, RST, ACK], "SYN, RST, ACK");
    flood("10.99.0.1", &[SYN | FIN], "SYN with FIN");
    flood("10.99.0.2", &[FIN | ACK], "FIN without NAT");
}

#[test]
fn the_digest_is_of_the_cluster_file_only() {
    let mut b = crate::world::load(&single(), 1);
    let a = steerage::manage::compile::digest(&b);
    for id in 0..b.virtual_servers.slots() {
        std::sync::Arc::make_mut(&mut b.virtual_servers[id]).idle += std::time::Duration::from_secs(1);
    }
    assert_eq!(a, steerage::manage::compile::digest(&b), "idle comes from each node's own timeouts");
}
