//! What was refused at the log's door: counted, and said once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two messages about the same kind of refusal.
const QUIET: Duration = Duration::from_secs(10);

/// Why a connection, or a frame on it, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No TLS, no certificate, or one that the cluster's CA hasn't signed.
    Tls,
    /// A certificate for another name, another replica than expected, or another version of the protocol.
    Identity,
    /// A frame that is too long or can't be read.
    Frame,
    /// More connections at once than a cluster can need.
    Crowded,
}

impl Kind {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Tls, Self::Identity, Self::Frame, Self::Crowded];

    /// The counter's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Identity => "identity",
            Self::Frame => "frame",
            Self::Crowded => "crowded",
        }
    }
}

/// The counters.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Kind::ALL.len()],
    said: Mutex<[Option<Instant>; Kind::ALL.len()]>,
}

impl Refusals {
    /// Counts one, and logs it if none of its kind was for ten seconds. True: it was logged.
    pub fn count(&self, kind: Kind, peer: impl std::fmt::Display, why: impl std::fmt::Display) -> bool {
        let count = self.counts[kind as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let last = &mut said[kind as usize];
        if last.is_some_and(|at| now.duration_since(at) < QUIET) {
            return false;
        }
        *last = Some(now);
        tracing::warn!(kind = kind.name(), count, "replicated log: {peer} refused: {why}");
        true
    }

    /// How many there were of each kind.
    pub fn counts(&self) -> [(Kind, u64); Kind::ALL.len()] {
        Kind::ALL.map(|kind| (kind, self.counts[kind as usize].load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_and_few_are_said() {
        let refusals = Refusals::default();
        assert!(refusals.count(Kind::Frame, "peer", "why"));
        assert!(!refusals.count(Kind::Frame, "peer", "why"));
        assert!(refusals.count(Kind::Tls, "peer", "why"));
        assert_eq!(refusals.counts().map(|(_, n)| n), [1, 0, 2, 0]);
    }
}
