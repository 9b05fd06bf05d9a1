//! The `sim` command: worlds of the simulator, one by its seed or many.

use clap::{ArgGroup, Args, Parser, ValueEnum};
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use steerage::base::planted::Bug;
use steerage::sim::{self, Outcome, living};

/// Lives through the worlds of seeds, and says of each whether all was as it must be. Each seed has two: three nodes packet by
/// packet, and a living cluster that decides for itself.
///
/// Exit codes: 0 all was, 1 a promise was broken, 2 a bad argument.
#[derive(Parser)]
#[command(name = "sim", group = ArgGroup::new("which").required(true))]
struct Arguments {
    /// One seed, in full.
    #[arg(long, value_name = "S", group = "which")]
    seed: Option<u64>,
    /// Seeds from A to B, both included, on all cores.
    #[arg(long, value_name = "A..B", group = "which", value_parser = range)]
    seeds: Option<(u64, u64)>,
    #[command(flatten)]
    how: How,
}

/// Which of a seed's worlds, and how.
#[derive(Args, Clone, Copy)]
struct How {
    /// One of the two worlds only.
    #[arg(long)]
    world: Option<World>,
    /// Plant a fault in the nodes, to see it found.
    #[arg(long, value_name = "NAME")]
    plant: Option<Bug>,
    /// Nodes of the living cluster, instead of what the seed says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=64))]
    nodes: Option<u8>,
    /// Seconds of faults in the living cluster, instead of what the seed says.
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: Option<u64>,
}

/// A kind of world.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum World {
    /// Three nodes, packet by packet.
    Packets,
    /// A cluster that decides for itself.
    Living,
}

impl How {
    fn packets(self, seed: u64) -> Option<Outcome> {
        (self.world != Some(World::Living)).then(|| sim::run(seed, self.plant))
    }

    fn living(self, seed: u64) -> Option<living::Outcome> {
        let (nodes, time) = (self.nodes.map(usize::from), self.seconds.map(Duration::from_secs));
        (self.world != Some(World::Packets)).then(|| living::run(seed, nodes, time, self.plant))
    }
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match ends {
        Some((first, last)) if first <= last => Ok((first, last)),
        Some((first, last)) => Err(format!("{first} is above {last}")),
        None => Err("write it as 1..1000".into()),
    }
}

fn main() -> ExitCode {
    let Arguments { seed, seeds, how } = Arguments::parse();
    let (text, fine) = match (seed, seeds) {
        (Some(seed), _) => one(seed, how),
        (None, Some((first, last))) => many(first, last, how),
        (None, None) => (String::new(), false), // clap has refused that
    };
    let written = std::io::stdout().write_all(text.as_bytes()).is_ok();
    if fine && written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to say of one seed's worlds, and whether all was as it must be.
fn one(seed: u64, how: How) -> (String, bool) {
    let (packets, living) = (how.packets(seed), how.living(seed));
    let fine = packets.as_ref().is_none_or(|o| o.violation.is_none());
    let fine = fine && living.as_ref().is_none_or(|o| o.violation.is_none());
    let texts = [packets.map(|o| o.to_string()), living.map(|o| o.to_string())];
    (texts.into_iter().flatten().map(|text| text + "\n").collect(), fine)
}

/// A world in which something went wrong.
struct Failed {
    seed: u64,
    violation: String,
    whole: String,
}

/// What the worlds of many seeds add up to.
#[derive(Default)]
struct Sum {
    sent: u64,
    lost: u64,
    doubled: u64,
    damaged: u64,
    lived: Duration,
    moved: u64,
    failed: Vec<Failed>,
}

impl Sum {
    fn add(&mut self, packets: Option<Outcome>, living: Option<living::Outcome>) {
        if let Some(outcome) = packets {
            self.sent += outcome.figures.sent;
            self.lost += outcome.figures.lost;
            self.doubled += outcome.figures.doubled;
            self.damaged += outcome.figures.damaged;
            self.judge(outcome.seed, outcome.violation.as_ref(), &outcome);
        }
        if let Some(outcome) = living {
            self.sent += outcome.figures.sent;
            self.lived += outcome.lived;
            self.moved += outcome.figures.moved;
            self.judge(outcome.seed, outcome.violation.as_ref(), &outcome);
        }
    }

    fn judge(&mut self, seed: u64, violation: Option<&impl ToString>, outcome: &impl ToString) {
        if let Some(violation) = violation.map(ToString::to_string) {
            let violation = violation.lines().next().unwrap_or_default().to_owned();
            self.failed.push(Failed { seed, violation, whole: outcome.to_string() });
        }
    }
}

/// The same of many.
fn many(first: u64, last: u64, how: How) -> (String, bool) {
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) =
                    first.checked_add(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed <= last)
                {
                    let (packets, living) = (how.packets(seed), how.living(seed));
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(packets, living);
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|failed| failed.seed);
    let mut text = format!(
        "seeds {first}..{last} in {:.1} s: {} packets sent by hosts; {} frames lost, {} doubled, {} damaged; clusters lived for {} \
         s, {} buckets moved\n",
        begin.elapsed().as_secs_f64(),
        sum.sent,
        sum.lost,
        sum.doubled,
        sum.damaged,
        sum.lived.as_secs(),
        sum.moved,
    );
    for failed in &sum.failed {
        text += &format!("  seed {}: {}\n", failed.seed, failed.violation);
    }
    text += &match sum.failed.first() {
        None => "ok\n".to_string(),
        Some(failed) => format!("{} worlds failed; the first is\n{}\n", sum.failed.len(), failed.whole),
    };
    (text, sum.failed.is_empty())
}
