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
    /// Without a name: nobody waits for the answer.
    waiting: VecDeque<(Option<Ask>, Entry, Instant)>,
    under_way: BTreeMap<Ticket, (Option<Ask>, Entry)>,
    answers: BTreeMap<Ask, Answer>,
}

impl Asks {
    /// Takes something to be decided. What becomes of it is told by [`Self::answer`].
    pub fn ask(&mut self, entry: Entry, now: Instant) -> Ask {
        self.last += 1;
        let ask = Ask(self.last);
        self.take(Some(ask), entry, now);
        ask
    }

    /// Takes something to be decided of which it shows in the state whether it was.
    pub fn want(&mut self, entry: Entry, now: Instant) {
        self.take(None, entry, now);
    }

    fn take(&mut self, ask: Option<Ask>, entry: Entry, now: Instant) {
        if self.waiting.len() + self.under_way.len() < MOST {
            self.waiting.push_back((ask, entry, now));
        } else {
            self.answered(ask, Answer::Refused(Refusal::Busy));
        }
    }

    fn answered(&mut self, ask: Option<Ask>, answer: Answer) {
        let Some(ask) = ask else { return };
        self.answers.insert(ask, answer);
        // Who hasn't come for his answer by now has gone.
        if self.answers.len() > MOST {
            self.answers.pop_first();
        }
    }

    /// What is to be proposed now. While a version waits to come into force, the next one gathers: so that a stream of writes is
    /// taken in by batches, and each version has its chance. Without a `quorum` nothing will: they are proposed to be refused.
    pub fn due(&mut self, at_rest: bool, quorum: bool, now: Instant) -> Vec<(Option<Ask>, Entry)> {
        let late = self.waiting.front().is_some_and(|(.., since)| now.since(*since) > PATIENCE);
        if !(at_rest || !quorum || late) {
            return Vec::new();
        }
        self.waiting.drain(..).map(|(ask, entry, _)| (ask, entry)).collect()
    }

    /// It was proposed.
    pub fn proposed(&mut self, ticket: Ticket, ask: Option<Ask>, entry: Entry) {
        self.under_way.insert(ticket, (ask, entry));
    }

    /// It can't be proposed.
    pub fn refused(&mut self, ask: Option<Ask>, why: Refusal) {
        self.answered(ask, Answer::Refused(why));
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
        self.answered(ask, answer);
    }

    /// The log has stopped: what is under way may be decided or not.
    pub fn lost(&mut self) {
        for (ask, _) in std::mem::take(&mut self.under_way).into_values() {
            self.answered(ask, Answer::Unknown);
        }
    }

    /// What became of something that was asked for, once it is known; told once, and not for ever.
    pub fn answer(&mut self, ask: Ask) -> Option<Answer> {
        self.answers.remove(&ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_kept_for_those_who_wait() {
        let (mut asks, now) = (Asks::default(), Instant::ZERO);
        let entry = || Entry::InForce(1);
        let mut all = Vec::new();
        for ticket in 1..=2 * MOST as u64 {
            all.push(asks.ask(entry(), now));
            asks.want(entry(), now);
            for (ask, entry) in asks.due(true, true, now) {
                // What nobody waits for has a ticket, too.
                let ticket = Ticket(2 * ticket + u64::from(ask.is_some()));
                asks.proposed(ticket, ask, entry);
                asks.outcome(ticket, Outcome::Committed(ticket.0), |_| None);
            }
        }
        let last = all.pop().unwrap();
        assert_eq!(asks.answer(last), Some(Answer::Decided(4 * MOST as u64 + 1)));
        assert_eq!(asks.answer(last), None, "told once");
        assert_eq!(asks.answer(all[0]), None, "who asked has gone");
        assert!(asks.answers.len() <= MOST && asks.under_way.is_empty());
        for _ in 0..MOST {
            asks.want(entry(), now);
        }
        let busy = asks.ask(entry(), now);
        assert_eq!(asks.answer(busy), Some(Answer::Refused(Refusal::Busy)));
    }
}
