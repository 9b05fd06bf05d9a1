//! Nothing on the packet path makes a system call: worker threads, turning as in the product, forbid themselves every one
//! (seccomp), and then carry a million packets. A thread that makes one ends the whole process, so each test runs itself
//! again as a child.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "fuzz/src/draw.rs"]
mod draw;
#[allow(dead_code)] // shared with the fuzzers
#[path = "fuzz/src/packet.rs"]
mod packet;
#[allow(dead_code)]
#[path = "fuzz/src/port.rs"]
mod port;
#[allow(dead_code)]
#[path = "fuzz/src/solo.rs"]
mod solo;

use port::ChainedPort;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use solo::{Plan, Side, Solo};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use steerage::base::{Incarnation, NodeId, PortId, WorkerId};
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::manage::config::Idle;
use steerage::manage::manager::Manager;
use steerage::path::port::PortCaps;
use steerage::run::clock::Clock;
use steerage::run::crew::{Crew, Job};
use steerage::wire::backplane::{self, Header, Stage};

const CHILD: &str = "STEERAGE_SYSCALL_TEST_CHILD";
/// Packets that the sealed workers receive.
const PACKETS: u64 = 1_000_000;
/// What a process is ended by for a call that its filter forbids.
const SIGSYS: i32 = 31;

/// Forbids the calling thread every system call, for ever.
fn seal() {
    let filter = SeccompFilter::new(
        BTreeMap::new(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).expect("the kernel has seccomp");
    // The allocator's: what a thread holds when it is sealed it can't give back, and needn't.
    std::mem::forget(program);
}

/// Runs the named test again as a child, where `body` takes the place of this.
fn child(test: &str, body: impl FnOnce()) -> Output {
    if std::env::var(CHILD).is_ok_and(|name| name == test) {
        body();
        // Sealed threads can't end by themselves.
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CHILD, test).output().unwrap()
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{}\n{out}\n{err}", output.status)
}

/// Frames of clients, each twice: all ways to a server, both families, TCP and UDP, too large ones, used-up hops.
fn front_frames() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for i in 0..20_000u16 {
        let packet = packet::Packet {
            src: if i % 2 == 0 {
                steerage::base::Addr::v4([192, 168, (i >> 8) as u8, i as u8])
            } else {
                solo::v6_address(0xfd77, i)
            },
            dst: solo::vip((i / 2 % 8) as u8 + 1, i % 2 == 1),
            src_port: 1000 + i,
            dst_port: 80,
            flags: (i % 3 > 0).then_some(if i % 5 == 0 { 0x10 } else { 2 }),
            ttl: if i % 100 == 0 { 1 } else { 64 },
            dont_fragment: true,
            payload: if i % 50 < 2 { 1440 } else { usize::from(i % 64) },
            extra: Vec::new(),
            first_extra: 0,
        };
        let frame = packet::frame(Side::Front, solo::host_mac(1), None, &packet.ip());
        out.extend([frame.clone(), frame]);
    }
    out
}

/// Packets that peers steer here.
fn back_frames(solo: &Solo) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for i in 0..4000u16 {
        let inner = packet::Packet {
            src: steerage::base::Addr::v4([192, 168, 200, i as u8]),
            dst: solo::vip((i % 4) as u8 + 1, false),
            src_port: i,
            dst_port: 80,
            flags: (i % 2 == 0).then_some(2),
            ttl: 64,
            dont_fragment: true,
            payload: 10,
            extra: Vec::new(),
            first_extra: 0,
        };
        let number = if inner.flags.is_some() { 6 } else { 17 };
        let key = steerage::base::FlowKey::new(inner.src, inner.dst, inner.src_port, 80, number);
        let (sender, incarnation) = (NodeId(1 + i % 2), Incarnation(1));
        let header = Header {
            stage: Stage::Owner,
            sender,
            incarnation,
            decided: 0,
            hash: solo.config.cluster.hash_key.flow(&key),
            cookie: backplane::cookie(solo.config.cluster.auth_key, sender, incarnation),
        };
        let mut payload = vec![0; backplane::HEADER_LEN];
        header.write(&mut payload);
        payload.extend(inner.ip());
        out.push(solo::backplane_frame(sender, solo.config.cluster.data_port, &payload));
    }
    out
}

/// Sealed worker threads under load, until they have received [`PACKETS`]. `spoil` goes on in each turn, with its number.
fn sealed(spoil: fn(u64)) {
    const WORKERS: u16 = 2;
    // Half-open sessions have a quarter of that, which is less than there are: one goes for the other all the time.
    let mut solo = Solo::new(Plan { workers: WORKERS, sessions: 4096, buffers: 1024 });
    let (front, back) = (front_frames(), back_frames(&solo));
    for worker in 0..WORKERS {
        for (side, frames) in [(Side::Front, &front), (Side::Back, &back)] {
            let caps = PortCaps { mac: side.mac(), mtu: if side == Side::Back { 1700 } else { 1500 } };
            let source =
                MemoryPort::generator(caps, MemoryPools::new(8192, 2048), frames.clone(), Vec::new());
            *solo.node.port(WorkerId(worker), PortId(side as u8)).unwrap() = ChainedPort::new(source);
        }
    }
    // The clock goes on where virtual time ends.
    let since = solo.now.since(steerage::base::Instant::ZERO);
    let (workers, mut manager) = solo.node.into_parts();
    let counters: Vec<_> = workers.iter().map(|w| w.counters().clone()).collect();
    let sealed = Arc::new(AtomicU64::new(0));
    let jobs = workers.into_iter().map(|mut worker| {
        let (mut turns, sealed, counters) = (0, sealed.clone(), worker.counters().clone());
        let heartbeats = counters.control_tx.get();
        let turn = move |now: steerage::base::Instant| {
            // What the ports keep for the thread is set up first, by packets and by a few heartbeats.
            let sends_them = worker.id() == WorkerId(0);
            let warm = now > steerage::base::Instant::ZERO + Duration::from_millis(300)
                && (!sends_them || counters.control_tx.get() > heartbeats + 4);
            if turns == 0 && warm {
                seal();
                sealed.fetch_add(1, Ordering::Relaxed);
                turns = 1;
            }
            if turns > 0 {
                turns += 1;
                spoil(turns);
            }
            worker.turn(now + since)
        };
        Job { name: "worker".to_owned(), core: None, idle: Idle::Spin, turn }
    });
    let clock = Clock::start();
    let crew = Crew::start(clock, jobs.collect(), || Ok(())).unwrap();
    let received = || counters.iter().map(|c| c.rx.get() + c.backplane_rx.get()).sum::<u64>();
    let begin = Instant::now();
    let until = |what: &str, manager: &mut Manager, done: &dyn Fn() -> bool| {
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {} packets", received());
            manager.turn(clock.now() + since);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    until("sealed", &mut manager, &|| sealed.load(Ordering::Relaxed) == u64::from(WORKERS));
    let first = manager.stats(clock.now() + since);
    let packets = received();
    // A View that is published from now on is adopted by who may make no call any more.
    let buckets = manager.view().buckets.to_vec();
    manager.place(1, buckets);
    until("a million more", &mut manager, &|| received() - packets > PACKETS);
    assert_eq!(crew.panicked(), None);
    let stats = manager.stats(clock.now() + since);
    assert!(stats.view_adopted > first.view_adopted, "{} of {}", stats.view_adopted, stats.view);
    let sum = |name: &str| stats.totals.counters[name] - first.totals.counters[name];
    let names = [
        "rx",
        "backplane_rx",
        "tx",
        "backplane_tx",
        "steered_out",
        "steered_in",
        "ring_in",
        "session_hits",
        "sessions_opened",
        "control_tx",
    ];
    let idle: Vec<_> = names.iter().filter(|name| sum(name) == 0).collect();
    assert!(idle.is_empty(), "{idle:?} did not grow: {:?}", stats.totals.counters);
    println!("carried {} packets without a system call", received() - packets);
    // Dropping the crew would wait for threads that can't end.
    std::mem::forget(crew);
}

#[test]
fn workers_under_load_make_none() {
    let output = child("workers_under_load_make_none", || sealed(|_| {}));
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("without a system call"), "{}", told(&output));
}

#[test]
fn a_turn_that_makes_one_is_seen() {
    let one = || {
        sealed(|turn| {
            if turn == 5000 {
                std::thread::yield_now()
            }
        })
    };
    let output = child("a_turn_that_makes_one_is_seen", one);
    assert_eq!(output.status.signal(), Some(SIGSYS), "{}", told(&output));
}

/// Where the clock is no shared page of the kernel's, reading it is a call, and the test above can't pass.
#[test]
fn reading_the_clock_makes_none() {
    let output = child("reading_the_clock_makes_none", || {
        let thread = std::thread::spawn(|| {
            let clock = Clock::start();
            seal();
            for _ in 0..1000 {
                std::hint::black_box(clock.now());
            }
            READ.store(1, Ordering::Relaxed);
            loop {
                std::hint::spin_loop();
            }
        });
        while READ.load(Ordering::Relaxed) == 0 {
            assert!(!thread.is_finished());
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    assert!(output.status.success(), "this machine's clock needs system calls: {}", told(&output));
}

static READ: AtomicU64 = AtomicU64::new(0);
