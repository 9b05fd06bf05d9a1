//! Two workers beside each other, each on a core, against one alone.

use crate::measure::{cpu_ns, median, quantile, spread};
use crate::port::{Buffers, Mode};
use crate::rows::{client, list};
use crate::setup::{FRONT, Lab, vip};
use crate::traffic::{Patch, Template, Traffic, shuffled};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;
use steerage::base::WorkerId;
use steerage::base::limits::BURST;
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::path::port::Port;
use steerage::wire::protocol;

const WORKERS: usize = 2;

/// How a run went: nanoseconds a packet of each worker alone, then of both together.
type Run = ([f64; WORKERS], [f64; WORKERS]);

/// The row `two_workers`: NAT of known flows, each received by the worker that owns it, as a device that spreads by the
/// same hash would have it. `turns` turns of each worker in each of `runs` measurements.
pub fn report(flows: usize, v6: bool, runs: usize, turns: usize) -> Value {
    let mut row = json!({
        "name": "two_workers", "family": if v6 { "ipv6" } else { "ipv4" }, "flows": flows, "io": "memory",
    });
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if cores.len() < WORKERS {
        row["reason"] = format!("{} core", cores.len()).into();
        return row;
    }
    let runs = measure(flows, v6, runs, turns, &cores);
    let rate = |ns: &[f64]| ns.iter().map(|ns| 1.0 / ns).sum::<f64>();
    // Both together over the mean of each alone.
    let speedup: Vec<_> = runs.iter().map(|(one, two)| rate(two) / (rate(one) / WORKERS as f64)).collect();
    let ns: Vec<_> = runs.iter().map(|(_, two)| 1.0 / rate(two)).collect();
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    row["ns_per_packet"] = round(median(&ns)).into();
    row["spread"] = round(spread(&ns)).into();
    row["least"] = round(quantile(&ns, 0.0)).into();
    row["speedup"] = round(median(&speedup)).into();
    row["runs"] = runs.len().into();
    row
}

fn measure(flows: usize, v6: bool, runs: usize, turns: usize, cores: &[core_affinity::CoreId]) -> Vec<Run> {
    let ports = |first: u8| {
        let pools = || MemoryPools::new(4096, 2048);
        let port = |_| MemoryPort::generator(crate::caps(first), pools(), Vec::new(), Vec::new());
        (0..WORKERS).map(port).collect::<Vec<_>>()
    };
    let mut lab = Lab::new(ports(0), ports(1), Buffers::Pool, (flows * 5 / 4).max(1_250_000));
    let template = Template::new(lab.port(0, FRONT).caps().mac, &client(0, vip::NAT, protocol::UDP, v6), 0);
    let all = list(&template, flows, vip::NAT, protocol::UDP, v6);
    let key = lab.config.cluster.hash_key;
    let owned = |worker: usize| -> Vec<Patch> {
        let owner = |p: &Patch| usize::from(key.flow(&template.key(p)).bucket().0) % WORKERS;
        all.iter().filter(|p| owner(p) == worker).copied().collect()
    };
    let lists: Vec<_> = (0..WORKERS).map(owned).collect();
    for (worker, list) in lists.iter().enumerate() {
        let first = Traffic::new(template.clone(), Arc::new(list.clone()), 2, None);
        lab.port(worker, FRONT).mode = Mode::Load(first);
    }
    let now = lab.now;
    let step = lab.step;
    for turn in 0..(2 * flows).div_ceil(BURST) as u32 {
        lab.node.worker(WorkerId(0)).turn(now + step * turn);
        lab.node.worker(WorkerId(1)).turn(now + step * turn);
    }
    for (worker, list) in lists.iter().enumerate() {
        lab.port(worker, FRONT).mode = Mode::Load(Traffic::new(template.clone(), shuffled(list), 1, None));
    }
    lab.now = now + step * ((2 * flows).div_ceil(BURST) as u32);
    lab.pace(turns);
    let (now, step) = (lab.now, lab.step);
    let (hits, packets) = (lab.counter("session_hits"), runs * turns * WORKERS * 2);
    let (workers, mut manager) = lab.node.into_parts();
    let results = Mutex::new(vec![([0.0; WORKERS], [0.0; WORKERS]); runs]);
    let (barrier, done) = (Barrier::new(WORKERS), AtomicUsize::new(0));
    let start = now + Duration::from_secs(1);
    std::thread::scope(|scope| {
        for (id, mut worker) in workers.into_iter().enumerate() {
            let (results, barrier, done) = (&results, &barrier, &done);
            scope.spawn(move || {
                core_affinity::set_for_current(cores[id]);
                let mut now = start;
                let mut turn = || {
                    now = now + step;
                    worker.turn(now);
                };
                for run in 0..runs {
                    for alone in 0..WORKERS {
                        barrier.wait();
                        if alone == id {
                            let ns = cpu_ns(turns * BURST, || (0..turns).for_each(|_| turn()));
                            results.lock().expect("nobody panicked")[run].0[id] = ns;
                        }
                    }
                    barrier.wait();
                    let ns = cpu_ns(turns * BURST, || (0..turns).for_each(|_| turn()));
                    results.lock().expect("nobody panicked")[run].1[id] = ns;
                    // The other one is to be disturbed until it is done as well.
                    done.fetch_add(1, Ordering::Relaxed);
                    while done.load(Ordering::Relaxed) < (run + 1) * WORKERS {
                        turn();
                    }
                }
            });
        }
    });
    let after = manager.stats(start).totals.counters["session_hits"];
    assert!(after - hits >= (packets * BURST) as u64 * 99 / 100, "the flows were not known");
    results.into_inner().expect("nobody panicked")
}
