//! What a change costs among many real servers. Run alone, in release, the figures mean something:
//! `cargo test --release --lib compile::tests::large -- --nocapture`.

use super::*;
use crate::cluster::namespace::{Name, RealServerSpec, VirtualServerSpec};
use crate::table::publish;
use crate::view::{Forward, Ingress, Protocol};
use std::time::Instant as Clock;

const SERVERS: u32 = 10_000;
/// Unoptimised, a tenth of the real servers shows the same.
const EACH: u32 = if cfg!(debug_assertions) { 10 } else { 100 };

fn put(key: Key, object: Object) -> Change {
    Change { key, expected: None, value: Some(object) }
}

fn name(letter: char, n: u32) -> Name {
    Name::new(&format!("{letter}{n}")).unwrap()
}

/// Half of them some thousand hosts on the link, the others one each behind a router.
fn real(v: u32, r: u32, weight: u32) -> Change {
    let n = v * EACH + r;
    let address = match n % 2 {
        0 => Addr::v4([10, 10, 10 + (n / 2 % 4000 / 250) as u8, (n / 2 % 250 + 1) as u8]),
        _ => Addr((u128::from(0xffff_0a40_0000_u64 + u64::from(n))).to_be_bytes()),
    };
    let spec = RealServerSpec { address, port: None, weight, health: None };
    put(Key::RealServer(name('v', v), name('s', r)), Object::RealServer(spec))
}

fn virtual_server(v: u32) -> Change {
    let spec = VirtualServerSpec {
        address: Addr::v4([10, 99, 1 + (v / 250) as u8, (v % 250 + 1) as u8]),
        port: 80,
        protocol: Protocol::Tcp,
        group: Name::all(),
        forward: if v.is_multiple_of(2) { Forward::Nat } else { Forward::Ipip },
        ingress: Ingress::Steered,
        profile: None,
        idle: None,
        slow_start: None,
        health: None,
    };
    put(Key::VirtualServer(name('v', v)), Object::VirtualServer(Box::new(spec)))
}

#[test]
fn one_change_among_many_is_cheap() {
    let (config, mut space) = (config(), space());
    let slots = change("cluster".to_owned(), Some(r#"{"maglev_slots": 211}"#.to_owned()));
    let servers = (0..SERVERS).map(virtual_server);
    let reals = (0..SERVERS).flat_map(|v| (0..EACH).map(move |r| real(v, r, 100)));
    assert!(apply(&mut space, 11, servers.chain(reals).chain([slots]).collect()));
    let mut config = config.with(&space).unwrap();
    let start = Clock::now();
    let view = compile(&config, Incarnation(1), &caps(1500)).unwrap();
    println!("all of it: {:?}", start.elapsed());
    let (mut views, mut readers) = publish::channel(view, 1);
    let mut times: Vec<_> = (0..33)
        .map(|i| {
            let changed = real(i * 7919 % SERVERS, i % EACH, 50 + i);
            let start = Clock::now();
            assert!(apply(&mut space, 100 + u64::from(i), vec![changed]));
            let next = config.with(&space).unwrap();
            let before = (&config, views.current());
            let view = recompile(&next, Incarnation(1), &caps(1500), before).unwrap();
            views.publish(view);
            assert!(readers[0].refresh());
            views.collect();
            config = next;
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "a real server's weight, from write to adopted View: median {:?}, worst {:?}",
        times[16], times[32]
    );
    assert!(times[16] < Duration::from_millis(100), "{:?}", times[16]);
}
