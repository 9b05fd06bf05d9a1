//! Rounds of faults, chosen by a seed, under a stream of proposals. `scripts/soak log` runs many.

use crate::cluster::Cluster;
use crate::faulty::Honesty;
use crate::relay::Way;
use crate::replica::run_if_child;
use std::time::{Duration, Instant};
use steerage::base::rng::Rng;

const SEED: &str = "STEERAGE_LOG_SEED";
const ROUNDS: &str = "STEERAGE_LOG_ROUNDS";
/// Rounds in the ordinary run of all tests.
const FEW: u64 = 15;
/// Bytes of a small disk: fewer than those of the entries that a replica keeps, when they are long.
const SMALL: usize = 4 << 20;
/// Bytes of a long entry.
const LONG: usize = 200_000;
/// Long entries for which a small disk has no room.
const MANY: usize = 100;
/// Proposals without outcome at once.
const OPEN: usize = 12;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// A torture of replicas 0, 1, 2, and of 3 and 4, which take the places of others.
struct Torture {
    cluster: Cluster,
    rng: Rng,
    voters: Vec<u16>,
    open: Vec<String>,
    rounds: [usize; FAULTS],
}

/// Kinds of fault.
const FAULTS: usize = 8;

impl Torture {
    fn new(test: &str, seed: u64, honesty: Honesty) -> Self {
        let mut cluster = Cluster::new(test, &[0, 1, 2, 3, 4], &[0, 1, 2]);
        cluster.honesty = Some(honesty);
        for id in 0..3 {
            cluster.start(id);
        }
        Self { cluster, rng: Rng::new(seed), voters: vec![0, 1, 2], open: Vec::new(), rounds: [0; FAULTS] }
    }

    fn pick(&mut self, among: &[u16]) -> u16 {
        among[usize::try_from(self.rng.below(among.len() as u64)).unwrap()]
    }

    /// Proposes here and there for `time`.
    fn load(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.cluster.hear();
            let ends = &self.cluster.record.ends;
            self.open.retain(|tag| !ends.contains_key(tag));
            let running: Vec<u16> = self.cluster.processes.keys().copied().collect();
            if self.open.len() < OPEN && !running.is_empty() {
                let at = self.pick(&running);
                let padding = if self.rng.below(8) == 0 { 20_000 } else { 100 };
                let tag = self.cluster.propose(at, padding);
                self.open.push(tag);
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        // What a replica that is gone had been asked will have no end.
        self.open.clear();
    }

    fn fault_time(&mut self) -> Duration {
        Duration::from_millis(100 + self.rng.below(900))
    }

    fn kill_and_restart(&mut self, ids: &[u16]) {
        for id in ids {
            self.cluster.kill(*id);
        }
        let pause = self.rng.below(600);
        self.load(Duration::from_millis(pause));
        for id in ids {
            self.cluster.start(*id);
        }
    }

    fn cut(&mut self, way: Way) {
        let alone = self.pick(&self.voters.clone());
        let others: Vec<u16> = self.voters.iter().copied().filter(|id| *id != alone).collect();
        // All its ways, one direction of them, or one way.
        let (there, back, all) = match self.rng.below(4) {
            0 => (true, false, true),
            1 => (false, true, true),
            2 => (true, true, false),
            _ => (true, true, true),
        };
        for other in others.iter().take(if all { others.len() } else { 1 }) {
            if there {
                self.cluster.ways.set(alone, *other, way);
            }
            if back {
                self.cluster.ways.set(*other, alone, way);
            }
        }
        let time = self.fault_time();
        self.load(time);
        self.cluster.ways.open_all();
    }

    fn replace(&mut self) -> Result<(), String> {
        let old = self.pick(&self.voters.clone());
        let new = (0..5).find(|id| !self.voters.contains(id)).unwrap();
        if self.cluster.processes.contains_key(&new) {
            self.cluster.kill(new);
        }
        if self.cluster.data(new).exists() {
            self.cluster.wipe(new);
        }
        // Whoever comes later doesn't begin a cluster of its own.
        self.cluster.forget_first();
        self.cluster.start(new);
        let at = self.pick(&self.voters.clone());
        self.voters.retain(|id| *id != old);
        self.voters.push(new);
        let all: Vec<(u16, bool)> = self.voters.iter().map(|id| (*id, true)).collect();
        self.cluster.set_replicas(at, &all)?;
        self.cluster.kill(old);
        Ok(())
    }

    /// One voter's disk gets too small for what is written, and some time later has room again.
    fn fill(&mut self) -> Result<(), String> {
        let one = self.pick(&self.voters.clone());
        let others: Vec<u16> = self.voters.iter().copied().filter(|id| *id != one).collect();
        self.cluster.kill(one);
        self.cluster.start_on(one, Some(SMALL));
        let mut left = MANY;
        while self.cluster.record.known[&one].failed.is_none() {
            left = left.checked_sub(1).ok_or("a disk for 4 MiB is not full of 20 MB")?;
            let at = self.pick(&others);
            let tag = self.cluster.propose(at, LONG);
            self.cluster.wait("an outcome beside a full disk", |record| record.ends.contains_key(&tag))?;
        }
        let why = self.cluster.record.known[&one].failed.clone().unwrap_or_default();
        if !why.contains("No space left") {
            return Err(format!("n{one} on a full disk: {why}"));
        }
        let time = self.fault_time();
        self.load(time);
        self.cluster.kill(one);
        self.cluster.start(one);
        Ok(())
    }

    /// A kind of fault by its number, or one that is chosen.
    fn round(&mut self, kind: Option<usize>) -> Result<(), String> {
        self.load(Duration::from_millis(150));
        let kind = kind.unwrap_or_else(|| usize::try_from(self.rng.below(FAULTS as u64)).unwrap());
        self.rounds[kind] += 1;
        match kind {
            0 | 1 => {
                let one = self.pick(&self.voters.clone());
                self.kill_and_restart(&[one]);
            }
            2 => self.kill_and_restart(&self.voters.clone()),
            3 => {
                let one = self.pick(&self.voters.clone());
                self.cluster.processes.get_mut(&one).unwrap().pause();
                let time = self.fault_time();
                self.load(time);
                self.cluster.processes.get_mut(&one).unwrap().resume();
            }
            4 => self.cut(Way::Closed),
            5 => self.cut(Way::Silent),
            6 => self.fill()?,
            _ => self.replace()?,
        }
        // It must go on by itself.
        let at = self.pick(&self.voters.clone());
        self.cluster.commit(at)?;
        if self.cluster.record.broken.is_empty() {
            Ok(())
        } else {
            Err(self.cluster.record.broken.join("\n"))
        }
    }

    fn run(&mut self, rounds: u64) -> Result<(), String> {
        for round in 0..rounds {
            // Each comes once at first.
            let kind = usize::try_from(round).ok().filter(|kind| *kind < FAULTS);
            self.round(kind).map_err(|why| format!("round {round}: {why}"))?;
        }
        self.cluster.settle(&self.voters.clone())
    }
}

#[test]
fn acknowledged_entries_survive_in_one_order() {
    run_if_child();
    let (seed, rounds) = (setting(SEED, 1), setting(ROUNDS, FEW));
    let mut torture =
        Torture::new("torture::acknowledged_entries_survive_in_one_order", seed, Honesty::Honest);
    let begin = Instant::now();
    let result = torture.run(rounds);
    let record = &torture.cluster.record;
    let acknowledged = record.acknowledged().count();
    println!(
        "seed {seed}: {rounds} rounds in {:.1} s, kinds {:?}; {acknowledged} acknowledged of {} proposed",
        begin.elapsed().as_secs_f64(),
        torture.rounds,
        record.ends.len(),
    );
    if let Err(why) = result {
        panic!("seed {seed}: {}", why.chars().take(4000).collect::<String>());
    }
    assert!(acknowledged > usize::try_from(rounds).unwrap() * 10, "hardly anything was acknowledged");
}

/// The control: on disks that say too early that they have synced, the same judges find that something is lost.
#[test]
fn a_disk_that_lies_is_found() {
    run_if_child();
    let mut torture = Torture::new("torture::a_disk_that_lies_is_found", 2, Honesty::Lying(20));
    let mut result = Ok(());
    for _ in 0..5 {
        torture.load(Duration::from_millis(700));
        torture.kill_and_restart(&[0, 1, 2]);
        result = torture.cluster.settle(&[0, 1, 2]);
        if result.is_err() {
            break;
        }
    }
    let why = result.unwrap_err();
    assert!(why.contains("was acknowledged at") || why.contains(", and was "), "{why}");
}
