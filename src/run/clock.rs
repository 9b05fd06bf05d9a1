//! The clocks. Nothing else in the crate reads one: everyone is handed an [`Instant`].

use crate::base::{Incarnation, Instant};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// 2026-01-01T00:00:00Z, in seconds since the Unix epoch.
const FIRST_LIFE: Duration = Duration::from_secs(1_767_225_600);

/// Lives that a second tells apart. 32 bits of quarter seconds last for 34 years.
const LIVES_A_SECOND: u128 = 4;

/// The monotonic clock, counted from when the value was made (process start). Copies count from the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// Nanoseconds since the start.
    #[inline]
    pub fn now(&self) -> Instant {
        // 64 bits of nanoseconds last for 584 years.
        Instant(self.origin.elapsed().as_nanos() as u64)
    }
}

/// The number of the life that begins now: it grows with the time of day, so a node that starts again takes a higher one
/// (unless its clock was set back, or less than a quarter of a second went by).
pub fn incarnation() -> Incarnation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    life_at(now)
}

/// The time of day, in milliseconds since the Unix epoch.
pub fn milliseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

/// `now`: time since the Unix epoch.
fn life_at(now: Duration) -> Incarnation {
    let lives = now.saturating_sub(FIRST_LIFE).as_millis() * LIVES_A_SECOND / 1000;
    // Zero stands for a life that isn't known.
    Incarnation(u32::try_from(lives).unwrap_or(u32::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let clock = Clock::start();
        let first = clock.now();
        std::thread::sleep(Duration::from_millis(2));
        assert!(clock.now().since(first) >= Duration::from_millis(2));
    }

    #[test]
    fn lives_grow_with_the_time_of_day() {
        let at = |ms| life_at(FIRST_LIFE + Duration::from_millis(ms)).0;
        assert_eq!(life_at(Duration::ZERO).0, 1, "a clock that was never set");
        assert_eq!((at(0), at(499), at(500), at(10_000)), (1, 1, 2, 40));
        assert_eq!(life_at(Duration::MAX).0, u32::MAX);
    }
}
