//! What a run tells.

use super::oracle::{Figures, Violation, time};
use super::plan::{Plan, Serving, Spray};
use super::world::World;
use crate::base::Instant;
use crate::io::fault::Rates;
use std::fmt;

/// How the world of a seed went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Of every delivery of a frame, its time and its bytes.
    pub digest: u64,
    /// What happened.
    pub figures: Figures,
    /// What should not have.
    pub violation: Option<Violation>,
    plan: Plan,
    log: Vec<String>,
    end: Instant,
}

impl Outcome {
    /// `world`: none if it didn't come into being.
    pub(super) fn new(plan: Plan, world: Option<World>, violation: Option<Violation>) -> Self {
        let (digest, figures, log, end) = match world {
            Some(World { now, oracles, log, .. }) => (oracles.digest, oracles.figures, log, now),
            None => (plan.seed, Figures::default(), Vec::new(), Instant::ZERO),
        };
        Self { seed: plan.seed, digest, figures, violation, plan, log, end }
    }
}

fn percent(f: &mut fmt::Formatter<'_>, whose: &str, rates: &Rates) -> fmt::Result {
    let Rates { loss, duplicate, reorder, corrupt, delay, jitter, late } = rates;
    let [loss, duplicate, reorder, corrupt] = [loss, duplicate, reorder, corrupt].map(|r| *r as f64 / 100.0);
    writeln!(
        f,
        "  {whose}: {loss:.2} % lost, {duplicate:.2} % doubled, {reorder:.2} % overtaken, {corrupt:.2} % damaged, \
         {delay:?} and up to {jitter:?} more, late ones up to {late:?}"
    )
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plan, figures) = (&self.plan, &self.figures);
        let flows = |of: fn(Serving) -> bool| plan.flows.iter().filter(|flow| of(flow.serving)).count();
        let spray = match plan.spray {
            Spray::Packet => "packet by packet",
            Spray::Flow => "by flow",
        };
        writeln!(
            f,
            "seed {}: {}three nodes of {} workers, {} front queues, IPv{} backplane; {} flows ({} local, {} where n{} doesn't \
             serve them), sprayed {spray}; turns {:?} apart",
            self.seed,
            if plan.calm { "a calm world; " } else { "" },
            plan.workers,
            plan.front_queues,
            if plan.backplane_v6 { 6 } else { 4 },
            plan.flows.len(),
            flows(|serving| serving.local()),
            flows(|serving| serving == Serving::LocalGroup),
            plan.outsider + 1,
            plan.step,
        )?;
        for (whose, rates) in ["hosts", "nodes in front", "backplane"].iter().zip(&plan.faults) {
            percent(f, whose, rates)?;
        }
        if plan.stalls > 0 {
            writeln!(f, "  {} of 10000 turns begin, and go on up to {:?} later", plan.stalls, plan.stall)?;
        }
        for line in &self.log {
            writeln!(f, "  {line}")?;
        }
        writeln!(
            f,
            "  {} packets sent, {} taken; {} frames between nodes; {} frames lost, {} doubled, {} damaged; {} packets refused \
             by hosts",
            figures.sent,
            figures.taken,
            figures.backplane,
            figures.lost,
            figures.doubled,
            figures.damaged,
            figures.refused
        )?;
        writeln!(f, "  digest {:016x} after {}", self.digest, time(self.end))?;
        match &self.violation {
            None => write!(f, "ok"),
            Some(violation) => write!(f, "{violation}"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "violation of {:?} at {}: {}", self.oracle, time(self.at), self.what)?;
        self.hops.iter().try_for_each(|hop| write!(f, "\n    {hop}"))
    }
}
