//! The clients and servers. A client asks, waits for the answer, and asks again if there is none; over TCP it opens and
//! closes connections around its questions, and gives one up that doesn't answer.

use super::packet::{Kind, Words};
use super::plan::FlowPlan;
use crate::base::Instant;
use crate::wire::protocol;
use std::time::Duration;

/// After so long a client asks again.
pub const AGAIN: Duration = Duration::from_millis(150);
/// So often it asks before it gives a connection up.
const PATIENCE: u32 = 6;
/// Questions that must be answered after the faults are over.
const LAST_QUESTIONS: u32 = 2;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its next connection.
    Rest,
    /// The server's part of the handshake.
    Opening,
    /// Its next question, or the end of the connection.
    Open,
    /// An answer.
    Asking,
    /// The server's FIN.
    Closing,
    /// Nothing any more.
    Over,
}

/// Both ends of one flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// What it is.
    pub plan: FlowPlan,
    number: u32,
    phase: Phase,
    /// When the client does something by itself.
    due: Instant,
    attempts: u32,
    connection: u16,
    /// When the client sent the first packet of that.
    began: Instant,
    question: u32,
    /// Questions answered in this connection.
    answered: u32,
    napped: bool,
    /// Questions answered since the faults were over.
    answered_last: u32,
    /// When something was answered that was awaited.
    pub progress: Option<Instant>,
    /// The youngest connection that the server has heard of.
    server_connection: u16,
    /// That one has got a question.
    established: bool,
    /// The client has begun to close its connection.
    closing: bool,
    /// The youngest connection that both have closed.
    closed: u16,
}

impl Flow {
    /// A flow that has yet to begin.
    pub fn new(number: u32, plan: FlowPlan, begin: Instant) -> Self {
        Self {
            due: begin + plan.start,
            began: begin + plan.start,
            plan,
            number,
            phase: Phase::Rest,
            attempts: 0,
            connection: 0,
            question: 0,
            answered: 0,
            napped: false,
            answered_last: 0,
            progress: None,
            server_connection: 0,
            established: false,
            closing: false,
            closed: 0,
        }
    }

    /// Whether it is UDP.
    pub fn udp(&self) -> bool {
        self.plan.key.protocol == protocol::UDP
    }

    /// Whether the client has had all that it wanted.
    pub fn over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The youngest connection that the client has opened.
    pub fn connection(&self) -> u16 {
        self.connection
    }

    /// Whether its owner knows this connection as established, and its client hasn't begun to close it.
    pub fn established(&self, connection: u16) -> bool {
        let now = self.connection == connection && self.server_connection == connection;
        self.udp() || now && self.established && !self.closing
    }

    /// Whether both ends have closed this connection.
    pub fn closed(&self, connection: u16) -> bool {
        self.closed >= connection
    }

    /// When the client sent the first packet of this connection; none if that is closed on both sides, or given up.
    pub fn began(&self, connection: u16) -> Option<Instant> {
        let open =
            self.udp() || self.connection == connection && !matches!(self.phase, Phase::Rest | Phase::Over);
        open.then_some(self.began)
    }

    /// Makes it end where it is.
    pub fn give_up(&mut self) {
        self.phase = Phase::Over;
    }

    fn say(&self, kind: Kind) -> Words {
        Words { flow: self.number, connection: self.connection, kind, question: self.question, number: 0 }
    }

    fn open(&mut self, now: Instant) -> Kind {
        (self.connection, self.began) = (self.connection + 1, now);
        (self.question, self.answered, self.attempts, self.closing) = (0, 0, 0, false);
        self.phase = Phase::Opening;
        Kind::Open
    }

    fn ask(&mut self) -> Kind {
        self.question += 1;
        (self.phase, self.attempts) = (Phase::Asking, 0);
        Kind::Question
    }

    /// What the client sends by itself now, if anything. `last`: the faults are over.
    pub fn tick(&mut self, now: Instant, last: bool) -> Option<Words> {
        if now < self.due || self.over() {
            return None;
        }
        self.due = now + AGAIN;
        self.attempts += 1;
        let hopeless = self.attempts > PATIENCE && !self.udp();
        let enough = last && self.answered_last >= LAST_QUESTIONS;
        let kind = match self.phase {
            Phase::Rest if self.udp() => self.ask(),
            Phase::Rest => self.open(now),
            Phase::Opening | Phase::Asking | Phase::Closing if hopeless => self.open(now),
            Phase::Opening => Kind::Open,
            Phase::Asking => Kind::Question,
            Phase::Closing => Kind::Close,
            Phase::Open if !self.udp() && (enough || self.answered >= self.plan.questions) => {
                (self.phase, self.attempts, self.closing) = (Phase::Closing, 0, true);
                Kind::Close
            }
            Phase::Open if enough => {
                self.phase = Phase::Over;
                return None;
            }
            Phase::Open => self.ask(),
            Phase::Over => return None,
        };
        Some(self.say(kind))
    }

    /// The client gets a packet; what it sends at once.
    pub fn at_client(&mut self, words: &Words, now: Instant, last: bool) -> Option<Words> {
        if words.connection != self.connection {
            return None;
        }
        match (self.phase, words.kind) {
            (Phase::Opening, Kind::Opened) => {
                (self.phase, self.due, self.progress) = (Phase::Open, now + self.plan.interval, Some(now));
                Some(self.say(Kind::Ack))
            }
            (Phase::Asking, Kind::Answer) if words.question == self.question => {
                self.answered += 1;
                self.answered_last += u32::from(last);
                (self.phase, self.progress) = (Phase::Open, Some(now));
                let nap = !self.napped && !last;
                self.napped = true;
                self.due = now + if nap { self.plan.interval.max(self.plan.nap) } else { self.plan.interval };
                None
            }
            (Phase::Closing, Kind::Closed) => {
                let ack = self.say(Kind::Ack);
                let enough = last && self.answered_last >= LAST_QUESTIONS;
                self.phase = if enough { Phase::Over } else { Phase::Rest };
                self.due = now + if last { self.plan.interval } else { self.plan.pause };
                self.progress = Some(now);
                Some(ack)
            }
            _ => None,
        }
    }

    /// A server gets a packet; what it answers.
    pub fn at_server(&mut self, words: &Words) -> Option<Words> {
        if words.connection < self.server_connection {
            return None;
        }
        if words.connection > self.server_connection {
            (self.server_connection, self.established) = (words.connection, false);
        }
        let kind = match words.kind {
            Kind::Open => Kind::Opened,
            Kind::Question => {
                self.established = true;
                Kind::Answer
            }
            Kind::Close => {
                self.closed = words.connection;
                Kind::Closed
            }
            Kind::Opened | Kind::Ack | Kind::Answer | Kind::Closed => return None,
        };
        Some(Words { kind, ..*words })
    }
}
