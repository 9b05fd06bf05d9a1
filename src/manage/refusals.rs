//! Control messages of peers that were refused: counted by why, and told of once in a while.

use crate::base::Instant;
use std::time::Duration;

/// Between two lines of the log about the same: they may come as fast as packets do.
const QUIET: Duration = Duration::from_secs(10);

/// Why one was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It came over the backplane, and can't be read or has no code by the cluster's key. Workers count those.
    Backplane,
    /// The same over the management network.
    Management,
    /// It is older than what its sender has said since.
    Replayed,
    /// It is of a life that is over, in this node's own name, or of no node of the cluster.
    Stray,
}

/// What was refused so far.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [u64; 4],
    told: [Option<Instant>; 4],
}

impl Refusals {
    /// Counts one more; whether it is time to tell of it.
    #[must_use]
    pub fn count(&mut self, why: Why, now: Instant) -> bool {
        self.grown(why, self.counts[why as usize] + 1, now)
    }

    /// Takes a count of others; whether it has grown, and it is time to tell of it.
    #[must_use]
    pub fn grown(&mut self, why: Why, count: u64, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.counts[why as usize], count);
        let told = &mut self.told[why as usize];
        let tell = count > before && told.is_none_or(|at| now.since(at) >= QUIET);
        if tell {
            *told = Some(now);
        }
        tell
    }

    /// Those that aren't counted elsewhere, by the names of their counters.
    pub fn counters(&self) -> [(&'static str, u64); 3] {
        let each = [
            ("management_refused", Why::Management),
            ("control_replayed", Why::Replayed),
            ("control_strays", Why::Stray),
        ];
        each.map(|(name, why)| (name, self.counts[why as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_of_once_in_a_while() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        assert!(refusals.count(Why::Stray, at(1)));
        assert!(!refusals.count(Why::Stray, at(10)));
        assert!(refusals.count(Why::Replayed, at(10)), "of another kind");
        assert!(refusals.count(Why::Stray, at(11)));
        assert!(!refusals.grown(Why::Backplane, 0, at(30)), "there was none");
        assert!(refusals.grown(Why::Backplane, 5, at(30)));
        assert!(!refusals.grown(Why::Backplane, 5, at(50)), "no more came");
        assert_eq!(refusals.counters().map(|(_, count)| count), [0, 1, 3]);
    }
}
