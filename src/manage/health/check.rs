//! One node's check of one real server: outcomes of probes in, a state out.

use super::Outcome;
use super::damper::Damper;
use crate::base::Instant;
use crate::cluster::namespace::HealthSpec;

/// What a node thinks of a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not enough probes yet to say anything.
    Unknown,
    /// It answers.
    Up,
    /// It doesn't.
    Down,
    /// It answers, but has changed so often that it is held down for a while.
    Damped,
}

/// One real server as one node sees it.
///
/// `rise` good probes in a row bring it up and `fall` bad ones take it down, from [`State::Unknown`] as well. A probe that
/// could not be made breaks no row.
#[derive(Clone, Debug)]
pub struct Check {
    rise: u8,
    fall: u8,
    damper: Option<Damper>,
    /// What the rows of outcomes say, damping aside; none at first.
    answers: Option<bool>,
    /// Outcomes in a row that speak against `answers`, or for either if that is none, and which they are.
    row: (bool, u8),
    state: State,
    /// Why the last bad probe was bad.
    last_bad: String,
}

impl Check {
    /// Nothing known yet.
    pub fn new(spec: &HealthSpec) -> Self {
        Self {
            rise: spec.rise,
            fall: spec.fall,
            damper: spec.damping.map(Damper::new),
            answers: None,
            row: (false, 0),
            state: State::Unknown,
            last_bad: String::new(),
        }
    }

    /// Counts the outcome of a probe.
    pub fn count(&mut self, now: Instant, outcome: Outcome) {
        let good = match outcome {
            Outcome::Good(_) => true,
            Outcome::Bad(reason) => {
                self.last_bad = reason;
                false
            }
            Outcome::Unable(_) => return,
        };
        self.row = if self.row.0 == good { (good, self.row.1.saturating_add(1)) } else { (good, 1) };
        let needed = if good { self.rise } else { self.fall };
        if self.answers != Some(good) && self.row.1 >= needed {
            // Its first state is no change of state.
            if let (Some(_), Some(damper)) = (self.answers, &mut self.damper) {
                damper.charge(now);
            }
            self.answers = Some(good);
        }
        self.state = match self.answers {
            None => State::Unknown,
            Some(false) => State::Down,
            Some(true) if self.damper.as_mut().is_some_and(|damper| damper.suppressed(now)) => State::Damped,
            Some(true) => State::Up,
        };
    }

    /// What it is, as of the last probe.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it should get no new flows; empty if it should, or if nothing is known.
    pub fn reason(&self) -> String {
        match self.state {
            State::Unknown | State::Up => String::new(),
            State::Down => self.last_bad.clone(),
            State::Damped => format!("it answers, but has changed too often; last: {}", self.last_bad),
        }
    }
}
