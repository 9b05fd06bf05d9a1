//! Time as a value. Only `run` reads a clock; everyone else is handed an [`Instant`].

use std::ops::{Add, Sub};
use std::time::Duration;

/// Nanoseconds since an origin that the caller chose (process start, or the simulator's zero).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

/// Coarse time for table entries: 2^27 ns (134 ms) a tick, so 32 bits last eighteen years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

/// log2 of the nanoseconds in one [`Tick`].
pub const TICK_SHIFT: u32 = 27;

impl Instant {
    /// The origin.
    pub const ZERO: Self = Self(0);

    /// The tick that this instant lies in.
    #[inline]
    pub fn tick(self) -> Tick {
        Tick((self.0 >> TICK_SHIFT) as u32)
    }

    /// Time since `earlier`; zero if `earlier` is later.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Rounds over all of something, of which each turn gets a part.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// What was due until then is done.
    until: Instant,
}

impl Pace {
    /// How many of `all` this turn has to do, so that a round takes about so long: `most` at most. What is too much is not made up
    /// for.
    #[inline]
    pub fn due(&mut self, now: Instant, all: usize, round: Duration, most: usize) -> usize {
        let each = (round.as_nanos() as u64 / (all as u64).max(1)).max(1);
        let due = now.since(self.until).as_nanos() as u64 / each;
        let steps = due.min(most as u64);
        self.until = if steps == due { self.until + Duration::from_nanos(steps * each) } else { now };
        steps as usize
    }
}

impl Tick {
    /// Whole ticks since `earlier`; zero if `earlier` is later.
    #[inline]
    pub fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// The number of ticks that cover `duration`, at least one.
    pub fn covering(duration: Duration) -> u32 {
        let ticks = duration.as_nanos().div_ceil(1 << TICK_SHIFT);
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        self.since(rhs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_takes_its_time_however_often_there_is_a_turn() {
        let round = Duration::from_millis(100);
        for between in [7_000, 130_000, 999_999] {
            let mut pace = Pace::default();
            let turns = (1..).map(|i| Instant(i * between)).take_while(|at| at.0 <= 1_000_000_000);
            let done: usize = turns.map(|at| pace.due(at, 4096, round, 64)).sum();
            assert!((40_900..=40_960).contains(&done), "{done} of ten rounds, every {between} ns");
        }
        let mut pace = Pace::default();
        assert_eq!(pace.due(Instant(1 << 40), 4096, round, 64), 64, "after a long rest");
        assert_eq!(pace.due(Instant(1 << 40), 4096, round, 64), 0);
        assert_eq!(pace.due(Instant(1 << 41), 0, round, 64), 64, "of nothing nobody asks");
    }

    #[test]
    fn ticks_cover_durations() {
        assert_eq!(Tick::covering(Duration::ZERO), 1);
        assert_eq!(Tick::covering(Duration::from_nanos(1 << TICK_SHIFT)), 1);
        assert_eq!(Tick::covering(Duration::from_nanos((1 << TICK_SHIFT) + 1)), 2);
        assert_eq!((Instant::ZERO + Duration::from_secs(1)).tick(), Tick(7));
    }
}
