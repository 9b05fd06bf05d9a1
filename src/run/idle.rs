//! What a worker thread does between two turns.

use crate::base::Instant;
use crate::manage::config::Idle;
use std::time::Duration;

/// Without work for so long, a thread sleeps instead of yielding. Under load, packets are less far apart.
const PATIENCE: Duration = Duration::from_millis(2);
/// The first sleep.
const FIRST_SLEEP: Duration = Duration::from_micros(50);
/// The longest one: it bounds how long the first packet after a pause waits.
const LONGEST_SLEEP: Duration = Duration::from_micros(500);

/// What to do until the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: poll on.
    Spin,
    /// Let another runnable thread have the core.
    Yield,
    /// Sleep.
    Sleep(Duration),
}

impl Rest {
    /// Does it.
    #[inline]
    pub fn take(self) {
        match self {
            Self::Spin => std::hint::spin_loop(),
            Self::Yield => std::thread::yield_now(),
            Self::Sleep(time) => std::thread::sleep(time),
        }
    }
}

/// The idle policy with its memory.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Idle,
    /// When the pause began, if there is one.
    idle_since: Option<Instant>,
    sleep: Duration,
}

impl Backoff {
    /// A thread that was busy until now.
    pub fn new(policy: Idle) -> Self {
        Self { policy, idle_since: None, sleep: FIRST_SLEEP }
    }

    /// What follows a turn that began at `now` and found something to do (`busy`) or not.
    #[inline]
    pub fn after(&mut self, busy: bool, now: Instant) -> Rest {
        if busy {
            self.idle_since = None;
            return Rest::Spin;
        }
        match self.policy {
            Idle::Spin => Rest::Spin,
            Idle::Adaptive => self.pause(now),
        }
    }

    fn pause(&mut self, now: Instant) -> Rest {
        let Some(since) = self.idle_since else {
            self.idle_since = Some(now);
            self.sleep = FIRST_SLEEP;
            return Rest::Yield;
        };
        if now.since(since) < PATIENCE {
            return Rest::Yield;
        }
        let sleep = self.sleep;
        self.sleep = (sleep * 2).min(LONGEST_SLEEP);
        Rest::Sleep(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant(us * 1000)
    }

    #[test]
    fn a_spinning_worker_never_rests() {
        let mut backoff = Backoff::new(Idle::Spin);
        assert!((0..10_000).all(|us| backoff.after(us % 7 == 0, at(us)) == Rest::Spin));
    }

    #[test]
    fn an_adaptive_worker_yields_then_sleeps_longer_and_longer() {
        let mut backoff = Backoff::new(Idle::Adaptive);
        assert_eq!(backoff.after(true, at(0)), Rest::Spin);
        assert_eq!(backoff.after(false, at(10)), Rest::Yield);
        assert_eq!(backoff.after(false, at(2009)), Rest::Yield);
        let sleeps = [50, 100, 200, 400, 500, 500].map(|us| Rest::Sleep(Duration::from_micros(us)));
        assert_eq!(std::array::from_fn(|_| backoff.after(false, at(2010))), sleeps);
        assert_eq!(backoff.after(true, at(5000)), Rest::Spin, "the first packet ends it");
        assert_eq!(backoff.after(false, at(5001)), Rest::Yield);
        assert_eq!(backoff.after(false, at(7001)), Rest::Sleep(FIRST_SLEEP), "from the start again");
    }
}
