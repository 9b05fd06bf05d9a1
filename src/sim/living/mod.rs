//! A living cluster: three to sixty-four whole nodes that decide together, over a model of their log, and serve flows meanwhile.
//! Nodes die and return, networks part, real servers come and go, people write, a router deals anew; all from one seed.
//!
//! Its steps are longer than those of the packet world beside it, so that it can live for long: what happens between two packets
//! is found there, what happens between two decisions here.

mod clients;
mod connection;
mod fault;
mod hosts;
mod judge;
mod member;
mod oracle;
mod plan;
mod world;

pub use oracle::{Figures, Oracle, Violation};

use super::oracle::time;
use super::{bury, guarded};
use crate::base::Instant;
use crate::base::planted::Bug;
use crate::sim::load::Flow;
use fault::Faults;
use member::Member;
use plan::Plan;
use std::fmt;
use std::time::Duration;
use world::World;

/// By then the nodes have begun a cluster and serve.
const START: Duration = Duration::from_secs(30);
/// By then, after the last fault, the cluster is as if there had been none.
const CONVERGENCE: Duration = Duration::from_secs(15);
/// By then each flow has got what it wanted.
const END: Duration = Duration::from_secs(12);
/// So long after that a packet may wait for a neighbour.
const EMPTY: Duration = Duration::from_secs(4);

/// How the cluster of a seed lived.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Of every delivery of a frame or message, its time and its bytes.
    pub digest: u64,
    /// What happened.
    pub figures: Figures,
    /// What should not have.
    pub violation: Option<Violation>,
    /// Virtual time.
    pub lived: Duration,
    plan: Plan,
    log: Vec<String>,
}

/// Lives through a seed, with a fault planted in the nodes if one is named; with so many nodes and such a time of faults, if
/// those are given. A panic is a violation, too; where it happened stands on stderr.
pub fn run(seed: u64, nodes: Option<usize>, faulty: Option<Duration>, plant: Option<Bug>) -> Outcome {
    let plan = Plan::draw(seed, nodes, faulty);
    let mut world = None;
    let violation = match guarded(plant, || live(world.insert(World::new(plan.clone())))) {
        Ok(lived) => lived.err(),
        Err(message) => {
            bury(world.as_mut().map(|world| std::mem::take(&mut world.members)));
            let at = world.as_ref().map_or(Instant::ZERO, |world| world.now);
            let what = format!("seed {seed}: {message}");
            Some(Violation { oracle: Oracle::Panic, at, what })
        }
    };
    let (digest, figures, log, end) = match world {
        Some(World { now, oracles, log, .. }) => (oracles.digest, oracles.figures, log, now),
        None => (seed, Figures::default(), Vec::new(), Instant::ZERO),
    };
    Outcome { seed, digest, figures, violation, lived: end - Instant::ZERO, plan, log }
}

fn live(world: &mut World) -> Result<(), Violation> {
    begin(world)?;
    let begun = world.now;
    let plans = world.plan.flows.iter().cloned().enumerate();
    world.flows = plans.map(|(i, plan)| Flow::new(i as u32, plan, begun)).collect();
    world.faults(world.plan.rates);
    world.stalls = true;
    let mut faults = Faults::new(&world.plan, begun);
    while world.now < begun + world.plan.faulty {
        faults.turn(world)?;
        world.step(false)?;
    }
    faults.heal(world);
    rest(world, &mut faults)?;
    settle(world)?;
    empty(world)?;
    copies(world)?;
    world.oracles.all_stored(&world.model(), world.now)?;
    (0..world.plan.nodes).try_for_each(|node| world.kill(node))
}

/// Until all that begin the cluster serve.
fn begin(world: &mut World) -> Result<(), Violation> {
    let ready = |world: &mut World| {
        let now = world.now;
        world.members.iter_mut().flatten().all(|member| {
            let local = member.local(now);
            member.manager().ready(local)
        })
    };
    while !ready(world) {
        if world.now >= Instant::ZERO + START {
            let left = world.oracles.at_rest(&mut world.members).err().unwrap_or_default();
            let what = format!("the nodes don't serve yet: {left}");
            return Err(world.oracles.violation(Oracle::Start, world.now, what));
        }
        world.step(false)?;
    }
    Ok(())
}

/// Until the cluster has come to rest.
fn rest(world: &mut World, faults: &mut Faults) -> Result<(), Violation> {
    let end = world.now + CONVERGENCE;
    loop {
        faults.insist(world);
        for _ in 0..20 {
            world.step(false)?;
        }
        let left = world.oracles.at_rest(&mut world.members);
        match left {
            Ok(()) => return Ok(()),
            Err(what) if world.now >= end => {
                return Err(world.oracles.violation(Oracle::Convergence, world.now, what));
            }
            Err(_) => {}
        }
    }
}

/// Until every client has had what it wanted.
fn settle(world: &mut World) -> Result<(), Violation> {
    let end = world.now + END;
    while let Some(flow) = world.flows.iter().position(|flow| !flow.over()) {
        if world.now >= end {
            let what = format!(
                "flow {flow}, {:?}, has got no answers {END:?} after the cluster came to rest",
                world.flows[flow].plan.key
            );
            return Err(world.oracles.violation(Oracle::Progress, world.now, what));
        }
        world.step(true)?;
    }
    Ok(())
}

/// That no node has had to write to a copy again what that had said that it has.
fn copies(world: &mut World) -> Result<(), Violation> {
    let now = world.now;
    for (node, member) in world.members.iter_mut().enumerate() {
        let Some(member) = member else { continue };
        let local = member.local(now);
        let entries = member.manager().stats(local).totals.counters["state_mended"];
        if entries > 0 {
            let what = format!("copies of what n{} has lacked {entries} entries", node + 1);
            return Err(world.oracles.violation(Oracle::Copies, now, what));
        }
    }
    Ok(())
}

/// Until no node holds a packet.
fn empty(world: &mut World) -> Result<(), Violation> {
    let end = world.now + EMPTY;
    let held = |world: &World| {
        let mut all = world.members.iter().map(|member| member.as_ref().map_or((0, 0), Member::buffers));
        all.position(|(free, all)| free != all)
    };
    while let Some(node) = held(world) {
        if world.now >= end {
            let what = format!("n{} holds buffers {EMPTY:?} after the last flow's end", node + 1);
            return Err(world.oracles.violation(Oracle::Buffers, world.now, what));
        }
        world.step(true)?;
    }
    Ok(())
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, figures) = (&self.plan, &self.figures);
        writeln!(
            f,
            "seed {}: a living cluster of {} nodes of {} workers{}; {} flows; a fault every {:?}, for {:?}",
            self.seed,
            plan.nodes,
            plan.workers,
            if plan.joins { ", the last of which joins later" } else { "" },
            plan.flows.len(),
            plan.pace,
            plan.faulty,
        )?;
        for line in &self.log {
            writeln!(f, "  {line}")?;
        }
        writeln!(
            f,
            "  {} packets sent, {} taken; {} frames between nodes; {} buckets moved; {} answers for VIPs; {} connections lost \
             with their node",
            figures.sent,
            figures.taken,
            figures.backplane,
            figures.moved,
            figures.answers,
            figures.lost_with_node,
        )?;
        writeln!(f, "  digest {:016x} after {}", self.digest, time(Instant::ZERO + self.lived))?;
        match &self.violation {
            None => write!(f, "ok"),
            Some(violation) => write!(f, "{violation}"),
        }
    }
}
