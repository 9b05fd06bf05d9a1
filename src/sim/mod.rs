//! The simulator: a cluster of three whole nodes, its clients and its servers over faulty wires, in virtual time, all from
//! one seed. It runs the code that is shipped; what it can't see (memory order, offloads of devices) others test.
//!
//! The same seed gives the same world, frame by frame: a digest over every delivery shows it. See `docs/testing.md` for how
//! to replay a seed.

mod cluster;
pub mod council;
mod decided;
mod hop;
mod host;
mod leader;
pub mod linear;
pub mod living;
mod load;
pub mod log;
mod oracle;
mod packet;
mod plan;
mod report;
pub mod shards;
mod world;

pub use oracle::{Figures, Oracle, Violation};
pub use report::Outcome;

use crate::base::Instant;
use crate::base::planted::{self, Bug};
use load::Flow;
use oracle::ESTABLISHED;
use plan::{NODES, Plan};
use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;
use world::World;

/// By then the nodes have found each other and their servers.
const START: Duration = Duration::from_secs(5);
/// By then, after the last fault, each flow has got an answer.
const PROGRESS: Duration = Duration::from_secs(4);
/// By then all have got all that they wanted.
const END: Duration = Duration::from_secs(8);
/// A step while nothing but time has to pass.
const LONG_STEP: Duration = Duration::from_millis(5);

/// Lives through the world of a seed, with a fault planted in the nodes if one is named. A panic is a violation, too; where it
/// happened stands on stderr.
pub fn run(seed: u64, plant: Option<Bug>) -> Outcome {
    let plan = Plan::draw(seed);
    let mut world = None;
    let violation = match guarded(plant, || live(world.insert(World::new(plan.clone())))) {
        Ok(lived) => lived.err(),
        Err(message) => {
            bury(world.as_mut().map(|world| std::mem::take(&mut world.nodes)));
            let at = world.as_ref().map_or(Instant::ZERO, |world| world.now);
            let what = format!("seed {seed}: {message}");
            Some(Violation { oracle: Oracle::Panic, at, what, hops: Vec::new() })
        }
    };
    Outcome::new(plan, world, violation)
}

/// Calls `live` with a fault planted, if one is named; what a panic says, if that is its end.
fn guarded<T>(plant: Option<Bug>, live: impl FnOnce() -> T) -> Result<T, String> {
    planted::plant(plant);
    let lived = panic::catch_unwind(AssertUnwindSafe(live));
    planted::plant(None);
    lived.map_err(|cause: Box<dyn Any + Send>| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
    })
}

/// Drops what a panic has left of the nodes, which may panic again: that says nothing new.
fn bury<T>(nodes: T) {
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(nodes)));
}

fn live(world: &mut World) -> Result<(), Violation> {
    start(world)?;
    let begin = world.now;
    talk(world, begin)?;
    let quiet = world.now;
    settle(world, quiet)?;
    // Time enough for every session to expire, and for the cursor to come by.
    let until = world.now + ESTABLISHED + Duration::from_millis(1600);
    while world.now < until {
        world.step(LONG_STEP)?;
    }
    if world.plan.calm {
        world.oracles.all_arrived(world.now)?;
    }
    account(world)
}

/// Until the nodes are ready.
fn start(world: &mut World) -> Result<(), Violation> {
    let step = world.plan.step;
    loop {
        world.step(step)?;
        let ready = (0..NODES).all(|n| {
            world
                .stats(n)
                .is_some_and(|s| s.ready && s.view == s.view_adopted && s.peers.iter().all(|p| p.up))
        });
        if ready && world.nodes.iter().flatten().all(|a| !a.unsure) {
            return Ok(());
        }
        if world.now >= Instant::ZERO + START {
            let what = format!("after {START:?} the nodes haven't found each other and their servers");
            return Err(world.oracles.violation(Oracle::Start, None, world.now, what));
        }
    }
}

/// Traffic, faults, and the ends of nodes.
fn talk(world: &mut World, begin: Instant) -> Result<(), Violation> {
    world.lead(begin);
    let plans = world.plan.flows.iter().cloned().enumerate();
    world.flows = plans.map(|(i, plan)| Flow::new(i as u32, plan, begin)).collect();
    world.faults(world.plan.faults);
    world.stalls = true;
    let restarts = world.plan.restarts.clone();
    let end = restarts.iter().map(|r| r.starts).max().unwrap_or_default().max(world.plan.faulty);
    let (mut ended, mut begun) = (0, 0);
    while world.now < begin + end || begun < restarts.len() {
        world.step(world.plan.step)?;
        if let Some(restart) = restarts.get(ended).filter(|r| world.now >= begin + r.dies) {
            // One at a time: the one before must live again.
            if ended == begun {
                world.kill(restart.node)?;
                ended += 1;
            }
        }
        if let Some(restart) = restarts.get(begun).filter(|r| world.now >= begin + r.starts)
            && begun < ended
        {
            world.restart(restart.node, restart.change);
            begun += 1;
        }
    }
    world.faults(Default::default());
    world.stalls = false;
    world.last = true;
    Ok(())
}

/// Until all have had what they wanted.
fn settle(world: &mut World, quiet: Instant) -> Result<(), Violation> {
    let mut looked = false;
    loop {
        world.step(world.plan.step)?;
        let hopeless = |world: &World, i: usize| {
            world.oracles.disputed(i as u32) && world.flows[i].plan.method == plan::Method::Nat
        };
        let waiting = (0..world.flows.len()).find(|i| !world.flows[*i].over() && !hopeless(world, *i));
        let Some(waiting) = waiting else { break };
        let silent = |i: &usize| world.flows[*i].progress.is_none_or(|at| at < quiet) && !hopeless(world, *i);
        let late = if !looked && world.now >= quiet + PROGRESS {
            looked = true;
            (0..world.flows.len()).find(silent)
        } else {
            (world.now >= quiet + END).then_some(waiting)
        };
        if let Some(flow) = late {
            let what = format!(
                "flow {flow}, {:?}, has got no answer {:?} after the last fault",
                world.flows[flow].plan.key,
                world.now - quiet
            );
            return Err(world.oracles.violation(Oracle::Progress, None, world.now, what));
        }
    }
    world.flows.iter_mut().for_each(Flow::give_up);
    Ok(())
}

/// Idle nodes hold nothing, and can say what became of every frame.
fn account(world: &mut World) -> Result<(), Violation> {
    // Between two heartbeats nothing is on its way.
    for _ in 0..50 {
        if world.wires_are_empty() {
            break;
        }
        world.step(world.plan.step)?;
    }
    let corrupts = world.plan.corrupts();
    for node in 0..NODES {
        let Some(stats) = world.stats(node) else { continue };
        let Some(appliance) = &world.nodes[node] else { continue };
        let name = format!("n{}", node + 1);
        let fail = |oracle, what: String| Err(world.oracles.violation(oracle, None, world.now, what));
        let (free, all) = (appliance.pools.free(), appliance.buffers);
        if free != all {
            return fail(Oracle::Buffers, format!("{free} of the {all} buffers of {name} are back"));
        }
        let count = |of: &str| stats.totals.counters.get(of).copied().unwrap_or(0);
        let drops = |of: &str| stats.totals.drops.get(of).copied().unwrap_or(0);
        if count("sessions") + count("steering_sessions") > 0 {
            let what = format!(
                "{name} still has {} sessions and {} steering sessions",
                count("sessions"),
                count("steering_sessions")
            );
            return fail(Oracle::Tables, what);
        }
        let tally = appliance.tally;
        for (what, counted, seen) in [
            ("frames received in front", count("rx"), tally.front_in),
            ("frames received on the backplane", count("backplane_rx"), tally.back_in),
            ("frames sent in front", count("tx"), tally.front_out),
            ("frames sent on the backplane", count("backplane_tx"), tally.back_out),
            ("packets from siblings", count("ring_in"), count("ring_out")),
        ] {
            if counted != seen {
                return fail(Oracle::Counters, format!("{name} counts {counted} {what}, and it were {seen}"));
            }
        }
        // Of ARP and neighbour discovery a node answers some, refuses some, and learns from the rest.
        let refused = drops("neighbour_ignored") + drops("arp_malformed");
        let dropped: u64 = stats.totals.drops.values().sum();
        let taken = count("rx") + count("backplane_rx");
        let made = count("control_tx") + count("too_big_sent") + tally.asked_out;
        let given = count("tx") + count("backplane_tx") + dropped + count("control_rx");
        let learned = (taken + made).checked_sub(given);
        let possible = tally.lookups_in;
        let exact = possible.checked_sub(tally.answers_out + refused);
        let balanced = if corrupts {
            learned.is_some_and(|n| n <= possible)
        } else {
            learned.is_some() && learned == exact
        };
        if !balanced {
            let what = format!(
                "{name} took {taken} frames and made {made}; it sent, took for itself or dropped {given}; of {possible} that \
                 ask or tell Ethernet addresses it answered {} and refused {refused}",
                tally.answers_out
            );
            return fail(Oracle::Counters, what);
        }
    }
    world.end()
}
