//! Many checks on one thread.

use super::servers::{Answering, Nginx};
use super::*;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use steerage::base::{self, Addr, RealServerId};
use steerage::manage::health::check::State;
use steerage::manage::health::{Attempt, Prober, Target};
use steerage::manage::manager::checks::Probing;
use steerage::run::clock::Clock;
use steerage::run::health::Probes;

const TARGETS: u32 = 1000;
const SECONDS: u64 = 6;

/// Seconds of processor time that the thread of this name has taken.
fn cpu_time(name: &str) -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let found =
        tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
    // utime and stime, in hundredths of a second (proc_pid_stat(5)); the second field may hold spaces.
    let ticks = found.map(|task| {
        let stat = fs::read_to_string(task.join("stat")).unwrap();
        let behind = stat.rsplit_once(')').unwrap().1;
        behind.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().unwrap()).sum::<f64>()
    });
    ticks.sum::<f64>() / 100.0
}

/// An address of its own for each real server, but for UDP: a server answers from the address that the kernel chooses.
fn address(n: u32, probe: Probe) -> Addr {
    let [low, high] = if probe == Probe::Udp { [1, 0] } else { [(n % 250) as u8 + 1, (n / 250) as u8] };
    Addr::from(IpAddr::from([127, 0, high, low]))
}

fn turn(prober: &mut Prober, probes: &mut Probes, now: base::Instant) {
    while let Some((attempt, outcome)) = probes.answer() {
        prober.outcome(now, attempt, outcome);
    }
    prober.turn(now, |attempt, target| probes.begin(attempt, target));
}

/// 1000 real servers on addresses of their own, all kinds of check among them, once a second.
#[test]
fn a_thousand_targets_a_second_on_one_thread() {
    let nginx = Nginx::start("thousand");
    let echo = Answering::start("127.0.0.1", |bytes| Some(bytes.to_vec()));
    let clock = Clock::start();
    let mut prober = Prober::new(1);
    for n in 0..TARGETS {
        let (probe, port) = match n % 20 {
            0..10 => (Probe::Http, nginx.http.port()),
            10..14 => (Probe::Tcp, nginx.http.port()),
            14..17 => (Probe::Icmp, 0),
            17..19 => (Probe::Udp, echo.address.port()),
            _ => (Probe::Https, nginx.https.port()),
        };
        let mut check = HealthSpec {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            ..HealthSpec::new(probe)
        };
        if matches!(probe, Probe::Http | Probe::Https) {
            check.path = Some("/well".into());
            check.expect_body = Some("well".into());
        }
        let target =
            Target { server: RealServerId(n), address: address(n, probe), port, spec: Arc::new(check) };
        prober.put(clock.now(), target);
    }
    let mut probes = Probes::start().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(SECONDS) {
        turn(&mut prober, &mut probes, clock.now());
        std::thread::sleep(Duration::from_millis(1));
    }
    let share = cpu_time("probes") / begun.elapsed().as_secs_f64();
    let counts = prober.counts();
    println!("1000 targets at 1 s: {:.1} % of a core, {counts:?}", share * 100.0);
    let up = prober.servers().filter(|server| prober.state(*server) == Some(State::Up)).count();
    assert_eq!(up, TARGETS as usize);
    assert_eq!((counts.bad, counts.unable, counts.lost, counts.late), (0, 0, 0, 0));
    assert!(counts.good >= u64::from(TARGETS) * (SECONDS - 1), "{counts:?}");
    assert!(share > 0.0 && share < 1.0);
}

/// Servers that answer late or never don't keep others from being probed in time.
#[test]
fn the_dead_do_not_hold_up_the_living() {
    let silent = Answering::start("127.0.0.1", |_| None);
    let echo = Answering::start("127.0.0.1", |bytes| Some(bytes.to_vec()));
    let check = HealthSpec {
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
        ..HealthSpec::new(Probe::Udp)
    };
    let check = Arc::new(check);
    let clock = Clock::start();
    let mut prober = Prober::new(1);
    for n in 0..400 {
        let port = if n % 2 == 0 { silent.address.port() } else { echo.address.port() };
        let address = address(n, Probe::Udp);
        let target = Target { server: RealServerId(n), address, port, spec: Arc::clone(&check) };
        prober.put(clock.now(), target);
    }
    let mut probes = Probes::start().unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        turn(&mut prober, &mut probes, clock.now());
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut states = BTreeMap::new();
    for server in prober.servers() {
        *states.entry(format!("{:?} {}", prober.state(server).unwrap(), server.0 % 2)).or_insert(0) += 1;
    }
    assert_eq!(states, BTreeMap::from([("Down 0".to_owned(), 200), ("Up 1".to_owned(), 200)]));
    assert_eq!((prober.counts().late, prober.counts().unable), (0, 0));
}

#[test]
fn a_thread_that_is_full_says_so_and_stops_when_dropped() {
    let silent = Answering::start("127.0.0.1", |_| None);
    let check = HealthSpec {
        timeout: Duration::from_secs(30),
        interval: Duration::from_secs(30),
        ..HealthSpec::new(Probe::Udp)
    };
    let target = Target {
        server: RealServerId(0),
        address: Addr::from(silent.address.ip()),
        port: silent.address.port(),
        spec: Arc::new(check),
    };
    let mut probes = Probes::start().unwrap();
    let mut taken = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    // As many as fly and wait; then no more, however long one asks.
    let mut refused = 0;
    while refused < 50 {
        assert!(Instant::now() < deadline && taken < 5000, "{taken}");
        if probes.begin(Attempt(taken), &target) {
            taken += 1;
            refused = 0;
        } else {
            refused += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert!((768..=768 + 258).contains(&taken), "{taken}");
    let dropped = Instant::now();
    drop(probes);
    assert!(dropped.elapsed() < Duration::from_secs(2), "what is on its way is cut off");
}
