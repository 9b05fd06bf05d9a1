//! Ten million packets of every kind through one node: no panic, nothing sent that must not be, every buffer back; and
//! proof that they reach the depths.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use steerage::base::rng::Rng;
use steerage::base::{Addr, FlowKey};
use steerage::path::verdict::Verdict;
use steerage::wire::tcp::flags::SYN;
use steerage_fuzz::draw::Draw;
use steerage_fuzz::driver::Driver;
use steerage_fuzz::judge::judge;
use steerage_fuzz::packet::{self, Packet};
use steerage_fuzz::solo::{Plan, Side, Solo, host_mac, vip};

const PLAN: Plan = Plan { workers: 2, sessions: 1024, buffers: 2560 };
/// Packets of each of two drivers, which go by different seeds at the same time.
const PACKETS: u64 = 5_000_000;
/// All buffers have to be back after each so many.
const CHECK: u64 = 1_000_000;

/// Reasons that no packet can be dropped for in a node whose configuration passed its checks: each group has a node that
/// takes flows, each virtual server a real server that does, and without a log nothing is shared; or that may not be met, as turns take
/// no time here.
const IMPOSSIBLE: [Verdict; 4] =
    [Verdict::NoOwner, Verdict::NoRealServer, Verdict::LeaseOver, Verdict::Unshared];

fn opening(host: u16, port: u16, dst: Addr) -> Packet {
    let [high, low] = host.to_be_bytes();
    Packet {
        src: Addr::v4([192, 168, high, low]),
        dst,
        src_port: port,
        dst_port: 80,
        flags: Some(SYN),
        ttl: 64,
        dont_fragment: true,
        payload: 5,
        extra: Vec::new(),
        first_extra: 0,
    }
}

/// Opens connections until both tables are full of them.
fn fill_tables(driver: &mut Driver) {
    for i in 0..14_000u16 {
        driver.converse(&opening(i, 7000, vip(1, false)), true);
    }
}

/// Opens connections of one bucket to one server: more than it has SNAT ports for.
fn crowd_a_bucket(driver: &mut Driver) {
    let key = driver.solo.config.cluster.hash_key;
    let bucket = |p: &Packet| key.flow(&FlowKey::new(p.src, p.dst, p.src_port, p.dst_port, 6)).bucket();
    let dst = vip(8, false);
    let Some(first) = (0..200).map(|i| opening(i, 1, dst)).find(|p| driver.converse(p, true) > 0) else {
        panic!("no flow is ours")
    };
    let wanted = bucket(&first);
    let others = (0..=u16::MAX).flat_map(|port| (0..64).map(move |host| opening(host, port, dst)));
    for packet in others.filter(|p| bucket(p) == wanted).take(80) {
        driver.converse(&packet, true);
    }
}

/// One worker works, the other stands still, and nobody takes what the node sends.
fn stall(driver: &mut Driver) {
    for i in 0..16_000u16 {
        let packet = opening(i, i, vip(2, false));
        let frame = packet::frame(Side::Front, host_mac(1), None, &packet.ip());
        driver.injected += u64::from(driver.solo.links[0][0].inject(&frame));
        if i % 32 == 31 {
            driver.turn_alone(0, Duration::from_micros(10));
        }
    }
    driver.step(Duration::from_micros(10));
}

fn drops(driver: &mut Driver) -> BTreeMap<&'static str, u64> {
    Verdict::ALL.iter().map(|v| (v.name(), driver.sum(|c| c.drops[*v as usize].get()))).collect()
}

#[test]
fn ten_million_packets() {
    std::thread::scope(|scope| {
        scope.spawn(|| five_million(1));
        five_million(2);
    });
}

fn five_million(seed: u64) {
    let mut driver = Driver::new(Solo::new(PLAN));
    let mut draw = Draw::Seed(Rng::new(seed));
    let mut next = CHECK;
    while driver.injected < PACKETS {
        for _ in 0..50_000 {
            driver.act(&mut draw);
        }
        if driver.injected >= next {
            next += CHECK;
            if next / CHECK % 4 == 2 {
                // From here on the tables stay full for a while.
                fill_tables(&mut driver);
            }
            stall(&mut driver);
            driver.finish();
            driver.step(Duration::from_secs(1000));
            (0..100).for_each(|_| driver.step(Duration::from_millis(20)));
            crowd_a_bucket(&mut driver);
        }
    }
    driver.finish();
    let drops = drops(&mut driver);
    let counters: BTreeMap<_, _> = driver.solo.node.manager().stats(driver.solo.now).totals.counters;
    println!("seed {seed}: {} frames in, {} judged\n{counters:?}\n{drops:?}", driver.injected, driver.judged);
    let missed: Vec<_> =
        Verdict::ALL.iter().filter(|v| drops[v.name()] == 0 && !IMPOSSIBLE.contains(v)).collect();
    assert_eq!(missed, Vec::<&Verdict>::new(), "never dropped for");
    for (name, least) in [
        ("tx", PACKETS / 20),
        ("backplane_tx", PACKETS / 20),
        ("steered_in", PACKETS / 50),
        ("ring_in", PACKETS / 50),
        ("steering_hits", PACKETS / 200),
        ("session_hits", PACKETS / 100),
        ("handover_out", 10_000),
        ("handover_in", 10_000),
        ("handover_returned", 1000),
        ("sessions_opened", PACKETS / 50),
        ("sessions_evicted", PACKETS / 1000),
        ("sessions_closed", 10_000),
        ("sessions_refused", 100),
        ("steering_full", 100),
        ("echo_replies", 10_000),
        ("too_big_sent", 1000),
        ("control_rx", 10_000),
    ] {
        assert!(counters[name] > least, "{name}: {}, wanted {least}", counters[name]);
    }
    let stats = driver.solo.node.manager().stats(driver.solo.now);
    let answered: u64 = stats.virtual_servers.iter().map(|v| v.traffic.packets_out).sum();
    assert!(answered > PACKETS / 1000, "{answered} packets back to clients");
}

/// A control: one buffer that does not come back is missed.
#[test]
fn a_leaked_buffer_is_missed() {
    let mut driver = Driver::new(Solo::new(PLAN));
    driver.finish();
    // Kept rather than forgotten: the sanitizer would miss it too.
    let kept = driver.solo.pools.data.alloc();
    assert!(kept.is_some() && catch_unwind(AssertUnwindSafe(|| driver.finish())).is_err());
    drop(kept);
    driver.finish();
}

/// A control: what must not be sent is recognised.
#[test]
fn a_wrong_frame_is_recognised() {
    let mut right = packet::frame(Side::Front, host_mac(1), None, &opening(1, 1, vip(1, false)).ip());
    right[6..12].copy_from_slice(&Side::Front.mac().0);
    let passes = |frame: &[u8]| catch_unwind(|| judge(Side::Front, frame)).is_ok();
    assert!(passes(&right));
    for (at, what) in [(6, "source"), (12, "ethertype"), (14, "version"), (17, "length"), (24, "checksum")] {
        let mut wrong = right.clone();
        wrong[at] ^= 0x11;
        assert!(!passes(&wrong), "{what}");
    }
    assert!(!passes(&[&right[..], &[0; 1500]].concat()), "too long");
}
