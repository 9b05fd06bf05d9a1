//! Questions to a node's workers about one flow, each with a time limit.

use super::{ExplainError, Request};
use crate::base::{Instant, WorkerId};
use crate::path::message::{Command, Known};
use crate::path::meta::Meta;
use crossbeam_channel::Sender;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a worker may take to answer: it does so within one turn unless it is stuck.
pub const WORKER_PATIENCE: Duration = Duration::from_secs(1);

/// Questions that may be open at once.
const OPEN: usize = 64;

/// A number that stands for one question.
pub type Ticket = u64;

struct Inquiry {
    request: Request,
    /// The answers by worker.
    known: Vec<Option<Known>>,
    until: Instant,
}

/// How a question ended: with what every worker knows, or with an error.
pub type Ended = (Ticket, Request, Result<Vec<Known>, ExplainError>);

/// The questions that are open.
#[derive(Default)]
pub struct Inquiries {
    next: Ticket,
    open: BTreeMap<Ticket, Inquiry>,
    /// Those that nobody had to be asked for, or could be.
    settled: Vec<Ended>,
}

impl Inquiries {
    /// Opens a question. If the packet has no `meta` (no worker would look it up) it is settled at once.
    pub fn open<'a>(
        &mut self,
        request: Request,
        meta: Option<Meta>,
        workers: impl ExactSizeIterator<Item = &'a Sender<Command>>,
        now: Instant,
    ) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        let count = workers.len();
        match meta {
            None => self.settled.push((ticket, request, Ok(Vec::new()))),
            Some(_) if self.open.len() >= OPEN => {
                self.settled.push((ticket, request, Err(ExplainError::Crowded)));
            }
            Some(meta) => {
                for (id, worker) in workers.enumerate() {
                    if worker.try_send(Command::LookUp { ticket, meta }).is_err() {
                        let busy = ExplainError::Busy(WorkerId(id as u16));
                        self.settled.push((ticket, request, Err(busy)));
                        return ticket;
                    }
                }
                let known = vec![None; count];
                self.open.insert(ticket, Inquiry { request, known, until: now + WORKER_PATIENCE });
            }
        }
        ticket
    }

    /// Takes a worker's answer; one to a question that is no longer open is of no use.
    pub fn answered(&mut self, known: Known) {
        let inquiry = self.open.get_mut(&known.ticket);
        if let Some(place) = inquiry.and_then(|i| i.known.get_mut(known.worker.index())) {
            *place = Some(known);
        }
    }

    /// A question that has ended since the last call: all have answered, or one hasn't in time.
    pub fn ended(&mut self, now: Instant) -> Option<Ended> {
        if let Some(ended) = self.settled.pop() {
            return Some(ended);
        }
        let done = |i: &Inquiry| now >= i.until || i.known.iter().all(Option::is_some);
        let ticket = self.open.iter().find(|(_, inquiry)| done(inquiry)).map(|(ticket, _)| *ticket)?;
        let Inquiry { request, known, .. } = self.open.remove(&ticket)?;
        let silent = known.iter().position(Option::is_none);
        let result = match silent {
            Some(worker) => Err(ExplainError::Silent(WorkerId(worker as u16))),
            None => Ok(known.into_iter().flatten().collect()),
        };
        Some((ticket, request, result))
    }
}
