//! Health checks of real servers: values without clocks and sockets.
//!
//! A few nodes probe each real server ([`probers`]). On each of them a [`Prober`] says when a probe is due, counts its
//! outcomes in a [`check::Check`] and makes [`Report`]s of what it found. On the log's leader a [`Judge`] weighs the
//! reports and says what to propose. [`weights`] are what the committed health means for new flows.

pub mod check;
pub mod damper;
pub mod judge;
pub mod prober;
pub mod weights;

pub use judge::{Judge, Watch};
pub use prober::{Attempt, Prober, Target};

use crate::base::hash::mix;
use crate::base::{NodeId, NodeSet, RealServerId};
use crate::cluster::namespace::HealthSpec;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Nodes that probe one real server: one alone may err, three outvote it.
pub const PROBERS: usize = 3;

/// A prober repeats a report at least this often, or with each probe if those are rarer, so that one that was lost on its
/// way, or a leader that is new, doesn't matter for long.
const REPEAT: Duration = Duration::from_secs(5);

/// A report is believed for as long as this many repetitions take.
const MISSED: u32 = 3;

/// What one probe came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The real server answered as it should, after so long.
    Good(Duration),
    /// It didn't, for this reason.
    Bad(String),
    /// The node could not probe, for this reason, which says nothing about the real server.
    Unable(String),
}

/// What one node found about one real server. It replaces what the same node said before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The real server.
    pub server: RealServerId,
    /// Higher than that of each report that the node made before in the same life: reports may overtake each other.
    pub number: u64,
    /// Whether it should get new flows.
    pub up: bool,
    /// Why not; empty if it should.
    pub reason: String,
}

impl Report {
    /// As a letter carries it.
    ///
    /// # Errors
    /// None that this type is known for.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// The reverse.
    ///
    /// # Errors
    /// If these bytes are no report.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// How often a report is repeated.
fn repeat(spec: &HealthSpec) -> Duration {
    REPEAT.max(spec.interval)
}

/// How long a report is believed.
fn believed(spec: &HealthSpec) -> Duration {
    // A report that is due goes out with the next outcome, which may take an interval and a timeout more.
    (repeat(spec) + spec.interval + spec.timeout) * MISSED
}

/// The nodes that probe a real server: the `count` of `candidates` whose draws for it are the highest, or all if there are
/// no more than that (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). A node that
/// comes or goes changes nothing for a real server whose probers it isn't among.
///
/// `candidates` are the active nodes of the group that serves it: what others can reach doesn't matter.
pub fn probers(server: RealServerId, candidates: NodeSet, count: usize) -> NodeSet {
    let draw = |node: NodeId| mix(mix(u64::from(server.0)) ^ (u64::from(node.0) + 1));
    let mut draws: Vec<_> = candidates.iter().map(|node| (draw(node), node)).collect();
    draws.sort_unstable_by(|a, b| b.cmp(a));
    draws.into_iter().take(count).map(|(_, node)| node).collect()
}

#[cfg(test)]
mod tests;
