//! The `sim` command: worlds of the simulator, one by its seed or many.

use clap::{ArgGroup, Parser};
use std::io::Write;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use steerage::base::planted::Bug;
use steerage::sim::{self, Outcome};

/// Lives through the worlds of seeds, and says of each whether all was as it must be.
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
    /// Plant a fault in the nodes, to see it found.
    #[arg(long, value_name = "NAME")]
    plant: Option<Bug>,
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
    let Arguments { seed, seeds, plant } = Arguments::parse();
    let (text, fine) = match (seed, seeds) {
        (Some(seed), _) => one(seed, plant),
        (None, Some((first, last))) => many(first, last, plant),
        (None, None) => (String::new(), false), // clap has refused that
    };
    let written = std::io::stdout().write_all(text.as_bytes()).is_ok();
    if fine && written { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to say of one world, and whether all was as it must be.
fn one(seed: u64, plant: Option<Bug>) -> (String, bool) {
    let outcome = sim::run(seed, plant);
    (format!("{outcome}\n"), outcome.violation.is_none())
}

/// What the worlds of many seeds add up to.
#[derive(Default)]
struct Sum {
    sent: u64,
    lost: u64,
    doubled: u64,
    damaged: u64,
    failed: Vec<Outcome>,
}

/// The same of many.
fn many(first: u64, last: u64, plant: Option<Bug>) -> (String, bool) {
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
                    let outcome = sim::run(seed, plant);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.sent += outcome.figures.sent;
                    sum.lost += outcome.figures.lost;
                    sum.doubled += outcome.figures.doubled;
                    sum.damaged += outcome.figures.damaged;
                    if outcome.violation.is_some() {
                        sum.failed.push(outcome);
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|outcome| outcome.seed);
    let mut text = format!(
        "seeds {first}..{last} in {:.1} s: {} packets sent by hosts; {} frames lost, {} doubled, {} damaged\n",
        begin.elapsed().as_secs_f64(),
        sum.sent,
        sum.lost,
        sum.doubled,
        sum.damaged
    );
    for outcome in &sum.failed {
        let violation = outcome.violation.as_ref().map(ToString::to_string).unwrap_or_default();
        text += &format!("  seed {}: {}\n", outcome.seed, violation.lines().next().unwrap_or_default());
    }
    text += &match sum.failed.first() {
        None => "ok\n".to_string(),
        Some(outcome) => format!("{} seeds failed; the first is\n{outcome}\n", sum.failed.len()),
    };
    (text, sum.failed.is_empty())
}
