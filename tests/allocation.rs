//! Nothing on the packet path allocates or frees after start-up: a counting allocator watches a worker's turns, under every
//! kind of load that the fuzzers' driver knows, and on a thread of its own.
#![allow(unsafe_code)] // a global allocator can't be had without
#![allow(clippy::unwrap_used, clippy::expect_used)]

// The driver serves the fuzzers as well, which use more of it.
#[allow(dead_code)]
#[path = "fuzz/src/draw.rs"]
mod draw;
#[allow(dead_code)]
#[path = "fuzz/src/driver/mod.rs"]
mod driver;
#[allow(dead_code)]
#[path = "fuzz/src/judge.rs"]
mod judge;
#[allow(dead_code)]
#[path = "fuzz/src/packet.rs"]
mod packet;
#[allow(dead_code)]
#[path = "fuzz/src/port.rs"]
mod port;
#[allow(dead_code)]
#[path = "fuzz/src/solo.rs"]
mod solo;

use draw::Draw;
use driver::Driver;
use solo::{Plan, Solo};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use steerage::base::rng::Rng;
use steerage::manage::config::Idle;
use steerage::run::clock::Clock;
use steerage::run::crew::{Crew, Job};

/// The system's allocator, which counts what a thread does while it is watched.
struct Counting;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Allocations (of more room, too) and frees of this thread while watched.
    static COUNTS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

fn count(allocations: u64, frees: u64) {
    // A thread that ends has no cells any more; nobody watches it then.
    let watched = WATCHED.try_with(Cell::get).unwrap_or(false);
    if watched {
        COUNTS.with(|counts| {
            let (a, f) = counts.get();
            counts.set((a + allocations, f + frees));
        });
    }
}

// SAFETY: every call goes to the system's allocator as it came; counting touches nothing but two cells of the thread, which
// need no memory of their own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: the caller keeps the contract, and it is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, 1);
        // SAFETY: as above.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(0, 1);
        // SAFETY: as above.
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Carries something out and counts what it allocates and frees.
fn watch(what: &mut dyn FnMut()) {
    WATCHED.set(true);
    what();
    WATCHED.set(false);
}

/// Allocations and frees of this thread while it was watched since the last time.
fn counts() -> (u64, u64) {
    COUNTS.take()
}

const PLAN: Plan = Plan { workers: 2, sessions: 1024, buffers: 1024 };

/// A driven node whose ports have set up what they keep for a thread.
fn warm() -> Driver {
    let mut driver = Driver::new(Solo::new(PLAN));
    let mut draw = Draw::Seed(Rng::new(1));
    for _ in 0..2000 {
        driver.act(&mut draw);
    }
    driver.solo.around = watch;
    counts();
    driver
}

#[test]
fn workers_neither_allocate_nor_free_whatever_comes() {
    let mut driver = warm();
    let before = driver.solo.node.manager().stats(driver.solo.now);
    let mut draw = Draw::Seed(Rng::new(2));
    for _ in 0..200_000 {
        driver.act(&mut draw);
    }
    assert_eq!(counts(), (0, 0), "allocations and frees of workers' turns");
    // All of this went on meanwhile.
    let after = driver.solo.node.manager().stats(driver.solo.now);
    let grown = |name: &str| after.totals.counters[name] - before.totals.counters[name];
    for name in [
        "tx",
        "backplane_tx",
        "steered_out",
        "steered_in",
        "ring_in",
        "steering_hits",
        "session_hits",
        "sessions_opened",
        "sessions_closed",
        "control_rx",
        "control_tx",
        "echo_replies",
        "too_big_sent",
    ] {
        assert!(grown(name) > 100, "{name}: {}", grown(name));
    }
    assert!(after.view_adopted > before.view_adopted + 20, "Views were taken up");
    assert!(after.totals.drops.values().filter(|n| **n > 0).count() > 20, "{:?}", after.totals.drops);
}

#[test]
fn a_worker_that_allocates_once_is_seen() {
    let mut driver = warm();
    let mut draw = Draw::Seed(Rng::new(2));
    driver.act(&mut draw);
    driver.solo.around = |turn| {
        watch(&mut || {
            turn();
            drop(black_box(Box::new(1)));
        });
    };
    driver.step(Duration::ZERO);
    assert_eq!(counts(), (2, 2), "one of each, in each of two workers");
    driver.solo.around = |turn| {
        watch(&mut || {
            turn();
            let mut list = black_box(Vec::<u8>::with_capacity(1));
            list.extend([1; 100]);
            std::mem::forget(list);
        });
    };
    driver.step(Duration::ZERO);
    assert_eq!(counts(), (4, 2), "making room is both, and forgetting is neither");
}

/// The crew's threads, as in the product. `spoil` goes on in each turn of theirs.
fn on_threads(spoil: fn(u64)) -> (u64, (u64, u64)) {
    let Solo { node, links, now: begin, .. } = Solo::new(PLAN);
    // The clock goes on where virtual time ends.
    let since = begin.since(steerage::base::Instant::ZERO);
    let (workers, mut manager) = node.into_parts();
    let totals = Arc::new([const { AtomicU64::new(0) }; 4]);
    let counters = workers[0].counters().clone();
    let heartbeats = counters.control_tx.get();
    let jobs = workers.into_iter().map(|mut worker| {
        let totals = totals.clone();
        let mut turns = 0;
        let turn = move |now: steerage::base::Instant| {
            turns += 1;
            let mut busy = false;
            // What the ports keep for the thread is set up first, by packets and by a few heartbeats.
            let warm = totals[0].load(Ordering::Relaxed) > 0;
            let mut whole = || {
                busy = worker.turn(now + since);
                spoil(turns);
            };
            if warm {
                watch(&mut whole)
            } else {
                whole()
            }
            let (allocations, frees) = counts();
            totals[1].fetch_add(u64::from(busy && warm), Ordering::Relaxed);
            totals[2].fetch_add(allocations, Ordering::Relaxed);
            totals[3].fetch_add(frees, Ordering::Relaxed);
            busy
        };
        Job { name: "worker".to_owned(), core: None, idle: Idle::Spin, turn }
    });
    let clock = Clock::start();
    let crew = Crew::start(clock, jobs.collect(), || Ok(())).unwrap();
    let begin = std::time::Instant::now();
    let mut port = 0u16;
    let mut until = None;
    // Long enough, however busy the machine is.
    while until.is_none_or(|until| std::time::Instant::now() < until)
        || totals[1].load(Ordering::Relaxed) <= 1000
    {
        if until.is_none()
            && begin.elapsed() > Duration::from_millis(300)
            && counters.control_tx.get() > heartbeats + 4
        {
            totals[0].store(1, Ordering::Relaxed);
            until = Some(std::time::Instant::now() + Duration::from_secs(1));
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "no heartbeat was sent, or too few packets came");
        port = port.wrapping_add(1);
        for (i, link) in links[0].iter().enumerate() {
            link.inject(&opening(port, i as u8 + 1));
            link.inject(&[2; 60]); // to another station: dropped, and its buffer freed there
            while link.collect().is_some() {}
        }
        links[1].iter().chain(&links[2]).for_each(|link| while link.collect().is_some() {});
        manager.turn(clock.now() + since);
    }
    assert_eq!(crew.stop(), None);
    let [_, busy, allocations, frees] = std::array::from_fn(|i| totals[i].load(Ordering::Relaxed));
    (busy, (allocations, frees))
}

/// A client's first packet.
fn opening(port: u16, vip: u8) -> Vec<u8> {
    let packet = packet::Packet {
        src: solo::v6_address(0xfd77, port),
        dst: solo::vip(vip, true),
        src_port: port,
        dst_port: 80,
        flags: Some(2),
        ttl: 64,
        dont_fragment: true,
        payload: 20,
        extra: Vec::new(),
        first_extra: 0,
    };
    packet::frame(solo::Side::Front, solo::host_mac(1), None, &packet.ip())
}

#[test]
fn nor_do_they_on_threads_of_their_own() {
    let (busy, counts) = on_threads(|_| {});
    assert!(busy > 1000, "{busy} turns with packets");
    assert_eq!(counts, (0, 0));
}

#[test]
fn a_thread_that_allocates_is_seen() {
    let (_, (allocations, frees)) = on_threads(|turn| {
        if turn % 1000 == 0 {
            drop(black_box(Box::new(turn)));
        }
    });
    assert!(allocations > 0 && frees > 0);
}
