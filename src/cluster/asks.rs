//! What this node was asked to have decided, on its way into the log and back.

use super::log::{Outcome, Refusal, Ticket};
use super::namespace;
use super::state::Entry;
use crate::base::Instant;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Asked and not yet answered, at most.
const MOST: usize = 512;
/// Longer than this nothing waits for the version before it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask(u64);

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is decided, at this index of the log.
    Decided(u64),
    /// It was a write, and this is what the namespace made of it.
    Written(namespace::Outcome),
    /// It is not decided and will not be.
    Refused(Refusal),
    /// It may be decided, or may yet be. A write can be asked for again under the same id.
    Unknown,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Asks {
    last: u64,
    waiting: VecDeque<(Ask, Entry, Instant)>,
    under_way: BTreeMap<Ticket, (Ask, Entry)>,
    answers: VecDeque<(Ask, Answer)>,
}

impl Asks {
    /// Takes something to be decided.
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Ask {
        self.last += 1;
        let ask = Ask(self.last);
        if self.waiting.len() + self.under_way.len() < MOST {
            self.waiting.push_back((ask, entry, now));
        } else {
            self.answers.push_back((ask, Answer::Refused(Refusal::Busy)));
        }
        ask
    }

    /// What is to be proposed now. While a version waits to come into force, the next one gathers: so that a stream of writes is
    /// taken in by batches, and each version has its chance. Without a `quorum` nothing will: they are proposed to be refused.
    pub fn due(&mut self, at_rest: bool, quorum: bool, now: Instant) -> Vec<(Ask, Entry)> {
        let late = self.waiting.front().is_some_and(|(.., since)| now.since(*since) > PATIENCE);
        if !(at_rest || !quorum || late) {
            return Vec::new();
        }
        self.waiting.drain(..).map(|(ask, entry, _)| (ask, entry)).collect()
    }

    /// It was proposed.
    pub fn proposed(&mut self, ticket: Ticket, ask: Ask, entry: Entry) {
        self.under_way.insert(ticket, (ask, entry));
    }

    /// It can't be proposed.
    pub fn refused(&mut self, ask: Ask, why: Refusal) {
        self.answers.push_back((ask, Answer::Refused(why)));
    }

    /// What became of a proposal, if it was one of these; `written`: what the namespace has made of a write.
    pub fn outcome(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        written: impl Fn(namespace::RequestId) -> Option<namespace::Outcome>,
    ) {
        let Some((ask, entry)) = self.under_way.remove(&ticket) else { return };
        let answer = match (outcome, &entry) {
            (Outcome::Committed(index), Entry::Write(write)) => {
                written(write.request).map_or(Answer::Decided(index), Answer::Written)
            }
            (Outcome::Committed(index), _) => Answer::Decided(index),
            (Outcome::Refused(why), _) => Answer::Refused(why),
            (Outcome::Unknown, _) => Answer::Unknown,
        };
        self.answers.push_back((ask, answer));
    }

    /// The log has stopped: what is under way may be decided or not.
    pub fn lost(&mut self) {
        let under_way = std::mem::take(&mut self.under_way);
        self.answers.extend(under_way.into_values().map(|(ask, _)| (ask, Answer::Unknown)));
    }

    /// The next answer.
    pub fn answered(&mut self) -> Option<(Ask, Answer)> {
        self.answers.pop_front()
    }
}
