//! What a large namespace costs. Run alone, in release, the figures mean something:
//! `cargo test --release --lib namespace::tests::large -- --nocapture`.

use super::*;
use std::time::Instant;

/// A cluster with this many virtual servers of `each` real servers.
fn objects(servers: usize, each: usize) -> Vec<(Key, Object)> {
    let mut all = vec![
        object("node/n1", r#"{"backplane": "10.20.0.11", "workers": 2}"#),
        object("node/n2", r#"{"backplane": "10.20.0.12", "workers": 2}"#),
        object("snat/10.10.0.101", r#"{"node": "n1"}"#),
    ];
    for v in 0..servers {
        let (a, b) = (v / 250, v % 250 + 1);
        all.push(object(
            &format!("virtual_server/v{v}"),
            &format!(r#"{{"address": "203.0.{a}.{b}", "port": 80, "forward": "nat"}}"#),
        ));
        for r in 0..each {
            // The same real servers, some thousand, behind many virtual servers, as they are in life.
            let host = v % 40 * each + r;
            let (a, b) = (host / 250, host % 250 + 1);
            all.push(object(
                &format!("virtual_server/v{v}/real_server/s{r}"),
                &format!(r#"{{"address": "10.11.{a}.{b}"}}"#),
            ));
        }
    }
    all
}

fn timed<T>(what: &str, f: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let value = f();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    println!("{what}: {ms:.3} ms");
    (value, ms)
}

#[test]
fn one_change_among_many_is_cheap() {
    const SERVERS: usize = 10_000;
    // Unoptimised, a tenth of the real servers shows the same.
    let each = if cfg!(debug_assertions) { 10 } else { 100 };
    let wanted = objects(SERVERS, each);
    println!("{} objects", wanted.len());
    let mut space = Namespace::default();
    let (changes, _) = timed("diff from nothing", || space.diff(&wanted));
    let first = write(1, changes);
    let (outcome, _) = timed("the first write, all of it", || space.apply(1, &first));
    assert_eq!(outcome, Outcome::Applied { index: 1 });
    drop(first);
    // One change over and over: of a machine that others use, the median tells most.
    let mut times: Vec<f64> = (0..99u64)
        .map(|i| {
            let fields = format!(r#"{{"address": "10.11.200.1", "weight": {}}}"#, i + 2);
            let write =
                write(100 + u128::from(i), vec![change("virtual_server/v77/real_server/s5", &fields)]);
            let start = Instant::now();
            let outcome = space.apply(100 + i, &write);
            let took = start.elapsed().as_secs_f64() * 1e3;
            assert_eq!(outcome, Outcome::Applied { index: 100 + i });
            took
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    println!("a real server's weight, 99 times: median {:.3} ms, worst {:.3} ms", times[49], times[98]);
    let mut worst = times[49];
    for (i, (key, fields)) in [
        ("virtual_server/v7777/real_server/s5", r#"{"address": "10.11.200.1", "weight": 3}"#),
        ("virtual_server/v7777/real_server/new", r#"{"address": "10.11.200.2"}"#),
        ("virtual_server/v7777/real_server/new", ""),
        ("virtual_server/v9", r#"{"address": "203.0.113.77", "port": 8080, "forward": "nat"}"#),
        ("snat/10.10.0.102", r#"{"node": "n2"}"#),
        ("snat/10.10.0.102", ""),
        ("node/n3", r#"{"backplane": "10.20.0.13", "workers": 2}"#),
        ("cluster", r#"{"heartbeat": "40ms"}"#),
    ]
    .iter()
    .enumerate()
    {
        let write = write(1000 + i as u128, vec![change(key, fields)]);
        let index = 1000 + i as u64;
        let (outcome, ms) = timed(key, || space.apply(index, &write));
        assert_eq!(outcome, Outcome::Applied { index });
        worst = worst.max(ms);
    }
    timed("digest", || space.digest());
    let (changes, _) = timed("diff", || space.diff(&wanted));
    assert_eq!(changes.len(), 4, "what was changed and not changed back, but for the cluster's settings");
    let (bytes, _) = timed("encode", || space.encode().unwrap());
    println!("{} bytes", bytes.len());
    let (copy, _) = timed("decode", || Namespace::decode(&bytes).unwrap());
    assert_eq!(copy.digest(), space.digest());
    // A hundred times what it takes: the machine may be busy, and a walk over all of it takes far longer.
    assert!(worst < 100.0, "one change took {worst} ms");
}
