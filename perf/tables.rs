//! What the tables cost on this machine: `cargo bench --no-default-features --bench tables`.
#![allow(clippy::print_stdout)]

use arrayvec::ArrayVec;
use std::hint::black_box;
use std::time::Instant as Clock;
use steerage::base::hash::mix;
use steerage::base::limits::{BURST, MAGLEV_SLOTS, RING_FRAMES};
use steerage::base::{Addr, HashKey, Instant, RealServerId};
use steerage::table::counter::Counter;
use steerage::table::maglev::{Maglev, Member};
use steerage::table::publish::channel;
use steerage::table::ring::ring;
use steerage::table::route::RouteTable;
use steerage::table::wheel::Wheel;

/// The fastest of several runs of `work`, in nanoseconds for each of its `items`.
fn fastest(what: &str, items: usize, mut work: impl FnMut()) {
    let best = (0..9)
        .map(|_| {
            let start = Clock::now();
            work();
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    println!("{what:<44} {:>12.2} ns", best.as_nanos() as f64 / items as f64);
}

fn rings() {
    const ROUNDS: usize = 100_000;
    let (mut tx, mut rx) = ring::<u64>(RING_FRAMES);
    let mut burst: ArrayVec<u64, BURST> = (0..BURST as u64).collect();
    fastest("ring: item through, burst of 32, one core", ROUNDS * BURST, || {
        for _ in 0..ROUNDS {
            black_box(tx.push_burst(black_box(&mut burst)));
            black_box(rx.pop_burst(black_box(&mut burst)));
        }
    });
    fastest("ring: item through, burst of 32, two cores", ROUNDS * BURST, || {
        let (mut tx, mut rx) = ring::<u64>(RING_FRAMES);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut burst = ArrayVec::<u64, BURST>::new();
                for _ in 0..ROUNDS {
                    burst.extend(0..BURST as u64);
                    while !burst.is_empty() {
                        if tx.push_burst(&mut burst) == 0 {
                            std::hint::spin_loop();
                        }
                    }
                }
            });
            let mut taken = 0;
            let mut burst = ArrayVec::<u64, BURST>::new();
            while taken < ROUNDS * BURST {
                taken += rx.pop_burst(&mut burst);
                black_box(&mut burst).clear();
            }
        });
    });
}

fn maglev() {
    let member = |i: u32, weight| Member { id: RealServerId(i), name_hash: mix(u64::from(i) + 1), weight };
    let key = HashKey([1, 2]);
    for servers in [10, 1000, 4096] {
        let equal: Vec<_> = (0..servers).map(|i| member(i, 1)).collect();
        fastest(&format!("maglev: build, {servers} servers of one weight"), 1, || {
            black_box(Maglev::build(key, &equal, MAGLEV_SLOTS));
        });
        let mixed: Vec<_> = (0..servers).map(|i| member(i, i % 100 + 1)).collect();
        fastest(&format!("maglev: build, {servers} servers of 100 weights"), 1, || {
            black_box(Maglev::build(key, &mixed, MAGLEV_SLOTS));
        });
        for gone in [0, servers as usize / 2] {
            let before = Maglev::build(key, &equal, MAGLEV_SLOTS);
            let mut rest = equal.clone();
            let gone = rest.remove(gone).id;
            let after = Maglev::build(key, &rest, MAGLEV_SLOTS);
            let moved = before.iter().zip(after.iter()).filter(|&(b, a)| b != gone && b != a).count();
            println!(
                "maglev: needless moves when one leaves         {:>12.2} %",
                moved as f64 * 100.0 / MAGLEV_SLOTS as f64
            );
        }
    }
    let table = Maglev::build(key, &(0..1000).map(|i| member(i, 1)).collect::<Vec<_>>(), MAGLEV_SLOTS);
    fastest("maglev: lookup, independent", 1 << 20, || {
        for i in 0..1 << 20 {
            black_box(table.lookup(mix(i)));
        }
    });
}

fn routes() {
    for count in [1u32, 2, 16, 1024] {
        let prefix = |i: u32| {
            let bits = i.wrapping_mul(0x9e37_79b9); // distinct in the upper 16 bits
            let length = if i == 0 { 0 } else { 16 + (i % 17) as u8 };
            ((Addr::v4(bits.to_be_bytes()), length), i)
        };
        let table =
            RouteTable::build((0..count).map(prefix).collect()).unwrap_or_else(|twice| panic!("{twice}"));
        let asked: Vec<Addr> = (0..1024).map(|i| Addr::v4((mix(i + 9) as u32).to_be_bytes())).collect();
        fastest(&format!("route: lookup, {count} IPv4 routes"), 1024 * 1024, || {
            for _ in 0..1024 {
                for addr in &asked {
                    black_box(table.lookup(*addr));
                }
            }
        });
        let prefix = |i: u32| {
            let bits = u128::from(i.wrapping_mul(0x9e37_79b9)) << 96;
            ((Addr(bits.to_be_bytes()), if i == 0 { 0 } else { 16 + (i % 49) as u8 }), i)
        };
        let table =
            RouteTable::build((0..count).map(prefix).collect()).unwrap_or_else(|twice| panic!("{twice}"));
        let asked: Vec<Addr> =
            (0..1024).map(|i| Addr((u128::from(mix(i + 9)) << 64).to_be_bytes())).collect();
        fastest(&format!("route: lookup, {count} IPv6 routes"), 1024 * 1024, || {
            for _ in 0..1024 {
                for addr in &asked {
                    black_box(table.lookup(*addr));
                }
            }
        });
    }
}

fn wheel() {
    const TIMERS: u64 = 100_000;
    let mut wheel = Wheel::new(TIMERS as usize);
    let mut now = 0;
    fastest("wheel: schedule, cascade and fire", TIMERS as usize, || {
        for i in 0..TIMERS {
            let _ = black_box(wheel.schedule(Instant(now + (mix(i) >> 29)), i as u32));
        }
        now += 1 << 36;
        black_box(wheel.advance(Instant(now), usize::MAX, |i| {
            black_box(i);
        }));
    });
    fastest("wheel: schedule and cancel", TIMERS as usize, || {
        for i in 0..TIMERS {
            if let Ok(id) = wheel.schedule(Instant(now + (mix(i) >> 29)), i as u32) {
                black_box(wheel.cancel(id));
            }
        }
    });
    fastest("wheel: a turn in which nothing is due", TIMERS as usize, || {
        for _ in 0..TIMERS {
            now += 1000;
            black_box(wheel.advance(Instant(now), 32, |_| ()));
        }
    });
}

fn main() {
    rings();
    maglev();
    routes();
    wheel();
    let counters: [Counter; 8] = std::array::from_fn(|_| Counter::default());
    fastest("counter: increment", 1 << 20, || {
        for i in 0..1usize << 20 {
            black_box(&counters)[i % 8].inc();
        }
    });
    let (publisher, mut readers) = channel(1u64, 1);
    fastest("publish: refresh when nothing is new", 1 << 20, || {
        for reader in &mut readers {
            for _ in 0..1 << 20 {
                black_box(reader.refresh());
            }
        }
    });
    drop(publisher);
}
