//! Damping of what flaps, after RFC 2439 §4.2: each change of state costs a penalty that decays with a half-life; above one
//! threshold the thing is suppressed, until the penalty has fallen below another.

use crate::base::Instant;
use std::time::Duration;

/// What one change of state costs. The unit is arbitrary; all else is relative to it.
const PENALTY: f64 = 1.0;
/// At this penalty suppression begins: at the second return in well under a half-life.
const SUPPRESS: f64 = 3.0;
/// Below this one it ends.
const REUSE: f64 = 1.0;
/// More is never counted, so nothing is suppressed for more than three half-lives after it has become stable.
const CEILING: f64 = 8.0;

/// The penalty of one thing that may flap.
#[derive(Clone, Debug)]
pub struct Damper {
    half_life: Duration,
    penalty: f64,
    /// When `penalty` was right.
    at: Instant,
    suppressed: bool,
}

impl Damper {
    /// Without penalty; its half-life, above zero.
    pub fn new(half_life: Duration) -> Self {
        Self { half_life, penalty: 0.0, at: Instant::ZERO, suppressed: false }
    }

    fn decay(&mut self, now: Instant) {
        let half_lives = now.since(self.at).as_secs_f64() / self.half_life.as_secs_f64();
        self.penalty *= (-half_lives).exp2();
        self.at = now;
        self.suppressed &= self.penalty >= REUSE;
    }

    /// Counts one change of state.
    pub fn charge(&mut self, now: Instant) {
        self.decay(now);
        self.penalty = (self.penalty + PENALTY).min(CEILING);
        self.suppressed |= self.penalty >= SUPPRESS;
    }

    /// Whether it is suppressed.
    pub fn suppressed(&mut self, now: Instant) -> bool {
        self.decay(now);
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_outages_in_a_short_time_suppress_and_time_heals() {
        let half_life = Duration::from_secs(60);
        let at = |s: u64| Instant::ZERO + Duration::from_secs(s);
        let mut damper = Damper::new(half_life);
        for (second, suppressed) in [(100, false), (102, false), (104, false), (106, true)] {
            damper.charge(at(second));
            assert_eq!(damper.suppressed(at(second)), suppressed, "{second}");
        }
        // Close to 4, it needs two half-lives.
        assert!(damper.suppressed(at(106 + 110)));
        assert!(!damper.suppressed(at(106 + 120)));
        // Below the threshold for suppression it isn't taken back at the next change.
        damper.charge(at(106 + 121));
        assert!(!damper.suppressed(at(106 + 121)));
    }

    #[test]
    fn rare_outages_never_add_up() {
        let mut damper = Damper::new(Duration::from_secs(60));
        for hour in 1..100 {
            let down = Instant::ZERO + Duration::from_secs(hour * 600);
            damper.charge(down);
            damper.charge(down + Duration::from_secs(5));
            assert!(!damper.suppressed(down + Duration::from_secs(5)), "{hour}");
        }
    }

    #[test]
    fn the_longest_suppression_is_three_half_lives() {
        let mut damper = Damper::new(Duration::from_secs(60));
        for second in 0..1000 {
            damper.charge(Instant::ZERO + Duration::from_secs(second));
        }
        let end = Instant::ZERO + Duration::from_secs(999);
        assert!(damper.suppressed(end + Duration::from_secs(179)));
        assert!(!damper.suppressed(end + Duration::from_secs(181)));
    }
}
