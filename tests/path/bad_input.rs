//! Truncated, overlapping, absurd: counted or forwarded, never a panic, never a leaked buffer.

use crate::packets::{SYN, ethernet, tcp, udp};
use crate::world::{Spec, World, addr, front_mac, host_mac};
use proptest::prelude::*;

/// One frame must end as one counted drop of this kind.
fn refused(world: &mut World, frame: &[u8], reason: &str) {
    let before = world.drops(1, reason);
    let out = world.exchange(1, frame);
    assert!(out.is_empty(), "{reason}");
    let all = world.stats(1).totals.drops;
    assert_eq!(world.drops(1, reason), before + 1, "{reason} in {all:?}");
}

fn mend(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 0xf) * 4;
    (ip[10], ip[11]) = (0, 0);
    let sum = !steerage::wire::checksum::sum(&ip[..header.clamp(20, ip.len())]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn each_absurdity_has_its_counter() {
    let mut world = World::new(Spec::default());
    let good = tcp("192.168.1.5", 2000, "10.99.0.2", 80, SYN);
    let wrap = |ip: &[u8]| [&front_mac(1).0[..], &host_mac(good.src).0, &[8, 0], ip].concat();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut ip = good.ip();
        change(&mut ip);
        mend(&mut ip);
        wrap(&ip)
    };
    let v6 = udp("fd77::5", 2000, "fd99::2", 80);
    let wrap6 = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut ip = v6.ip();
        change(&mut ip);
        ethernet(front_mac(1), host_mac(v6.src), &ip)
    };
    refused(&mut world, &[1, 2, 3], "ethernet_malformed");
    refused(&mut world, &wrap(&good.ip())[..14], "ip_malformed");
    refused(&mut world, &[&wrap(&[])[..12], &[0x81, 0, 0]].concat(), "ethernet_malformed");
    refused(&mut world, &ethernet(front_mac(2), host_mac(good.src), &good.ip()), "not_our_mac");
    refused(
        &mut world,
        &[&wrap(&good.ip())[..12], &[0x12, 0x34], &good.ip()[..]].concat(),
        "unknown_ethertype",
    );
    refused(&mut world, &changed(&|ip| ip[0] = 0x44), "ip_malformed");
    refused(&mut world, &changed(&|ip| ip[0] = 0x4f), "ip_malformed");
    refused(&mut world, &changed(&|ip| ip[0] = 0x75), "ip_malformed");
    refused(&mut world, &changed(&|ip| ip[3] += 1), "ip_malformed");
    refused(&mut world, &changed(&|ip| ip[3] = 19), "ip_malformed");
    refused(
        &mut world,
        &{
            let mut f = wrap(&good.ip());
            f[24] ^= 1;
            f
        },
        "ip_checksum",
    );
    refused(&mut world, &changed(&|ip| ip[6] = 0x20), "fragment");
    refused(&mut world, &changed(&|ip| ip[7] = 3), "fragment");
    refused(&mut world, &changed(&|ip| ip[12] = 224), "bad_address");
    refused(&mut world, &changed(&|ip| ip[12] = 127), "bad_address");
    refused(&mut world, &changed(&|ip| ip.copy_within(16..20, 12)), "bad_address");
    refused(&mut world, &changed(&|ip| ip[9] = 132), "no_virtual_server");
    refused(&mut world, &changed(&|ip| ip[32] = 0x40), "transport_malformed");
    refused(&mut world, &changed(&|ip| ip[32] = 0xf0), "transport_malformed");
    refused(&mut world, &changed(&|ip| ip[33] = 3), "transport_malformed");
    refused(&mut world, &changed(&|ip| ip[23] = 81), "no_virtual_server");
    refused(&mut world, &changed(&|ip| ip[19] = 77), "not_our_address");
    refused(&mut world, &wrap6(&|ip| ip[5] += 1), "ip_malformed");
    refused(&mut world, &wrap6(&|ip| ip[8] = 0xff), "bad_address");
    refused(
        &mut world,
        &wrap6(&|ip| ip[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255])),
        "bad_address",
    );
    refused(&mut world, &wrap6(&|ip| ip[8..24].fill(0)), "bad_address");
    refused(&mut world, &wrap6(&|ip| ip[45] += 1), "transport_malformed");
    refused(&mut world, &wrap6(&|ip| ip[45] = 7), "transport_malformed");
    // Fragment header, more to come.
    let fragment = |ip: &mut Vec<u8>| {
        ip[6] = 44;
        ip[5] += 8;
        ip.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 1]);
    };
    refused(&mut world, &wrap6(&fragment), "fragment");
    let deep = |ip: &mut Vec<u8>| {
        for _ in 0..9 {
            let next = ip[6];
            ip[6] = 60;
            ip[5] += 8;
            ip.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        }
    };
    refused(&mut world, &wrap6(&deep), "extension_headers");
    // ARP of the wrong kind, and a lie about its own length.
    refused(
        &mut world,
        &[&host_mac(addr("10.10.0.1")).0[..0], &front_mac(1).0, &[2; 6], &[8, 6], &[9; 28]].concat(),
        "arp_malformed",
    );
    world.assert_no_leak();
}

/// What is strange but legal is forwarded.
#[test]
fn options_extension_headers_and_padding_pass() {
    let mut world = World::new(Spec::default());
    let good = tcp("192.168.1.5", 2000, "10.99.0.2", 80, SYN);
    let mut ip = good.ip();
    ip[0] = 0x46;
    ip[3] += 4;
    ip.splice(20..20, [1, 1, 1, 0]);
    mend(&mut ip);
    let out = world.exchange(1, &ethernet(front_mac(1), host_mac(good.src), &ip));
    assert_eq!(out.len(), 1, "IPv4 options");
    let mut ip = udp("fd77::5", 2000, "fd99::1", 80).ip();
    ip[5] += 8;
    ip.splice(40..40, [17, 0, 1, 4, 0, 0, 0, 0]);
    ip[6] = 60;
    let out = world.exchange(1, &ethernet(front_mac(1), host_mac(good.src), &ip));
    assert_eq!(out.len(), 1, "destination options, NATed");
    // An atomic fragment is whole (RFC 6946).
    let mut ip = udp("fd77::5", 2001, "fd99::1", 80).ip();
    ip[5] += 8;
    ip.splice(40..40, [17, 0, 0, 0, 0, 0, 0, 9]);
    ip[6] = 44;
    assert_eq!(world.exchange(1, &ethernet(front_mac(1), host_mac(good.src), &ip)).len(), 1);
    // Ethernet's minimum pads short packets; the padding isn't part of the packet and doesn't travel on.
    let mut short = udp("192.168.1.5", 2000, "10.99.0.3", 80);
    short.payload.clear();
    let mut frame = short.frame_to(1);
    frame.resize(60, 0xee);
    let out = world.exchange(1, &frame);
    assert_eq!(out[0].1.len(), 14 + 20 + 28);
    world.assert_no_leak();
}

#[derive(Clone, Debug)]
enum Nasty {
    Bytes(Vec<u8>),
    /// A good packet with bytes changed and its end cut, checksum mended or not.
    Bent {
        which: u8,
        at: Vec<(usize, u8)>,
        keep: usize,
        mend: bool,
        backplane: bool,
    },
}

fn nasty() -> impl Strategy<Value = Nasty> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200).prop_map(Nasty::Bytes);
    let edits = proptest::collection::vec((0usize..120, any::<u8>()), 0..4);
    let bent = (any::<u8>(), edits, 10usize..200, any::<bool>(), any::<bool>())
        .prop_map(|(which, at, keep, mend, backplane)| Nasty::Bent { which, at, keep, mend, backplane });
    prop_oneof![1 => bytes, 9 => bent]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    /// Hundreds of bent packets, from the front and over the backplane: every buffer comes back, every packet is accounted
    /// for: what came in from the front went out, was steered, or was counted as dropped or answered.
    #[test]
    fn nothing_panics_or_leaks(packets in proptest::collection::vec(nasty(), 100..200)) {
        let mut world = World::new(Spec::default());
        for (n, packet) in packets.iter().enumerate() {
            let (frame, backplane) = match packet {
                Nasty::Bytes(bytes) => ([&front_mac(1).0[..], &bytes[..]].concat(), false),
                Nasty::Bent { which, at, keep, mend: mended, backplane } => {
                    let vip = which % 4 + 1;
                    let good = match which >> 2 & 3 {
                        0 => tcp("192.168.1.5", 2000 + n as u16, &format!("10.99.0.{vip}"), 80, which >> 4),
                        1 => udp("192.168.1.5", 2000, &format!("10.99.0.{vip}"), 80),
                        2 => tcp("fd77::5", 2000, &format!("fd99::{vip}"), 80, which >> 4),
                        _ => udp("fd77::5", 2000, &format!("fd99::{vip}"), 80),
                    };
                    let mut frame = good.frame_to(1);
                    for (at, byte) in at {
                        if let Some(b) = frame.get_mut(6 + at) { *b = *byte; }
                    }
                    if *mended && frame.len() >= 34 && frame[14] >> 4 == 4 {
                        mend(&mut frame[14..]);
                    }
                    frame.truncate(*keep);
                    if *backplane { frame[5] = 1; frame[4] = 2; }
                    (frame, *backplane)
                }
            };
            let link = if backplane { world.nodes[0].back_link() } else { &world.nodes[0].front[0] };
            prop_assert!(link.inject(&frame));
            if n % 50 == 49 {
                world.run(4);
            }
        }
        world.assert_no_leak();
    }
}
