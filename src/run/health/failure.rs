//! Why a probe is not good, and how long it may take to find out.

use std::fmt::Display;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Why a probe is not good.
#[derive(Debug)]
pub(super) enum Failure {
    /// The real server did not answer as it should.
    Bad(String),
    /// This node could not ask it.
    Unable(String),
}

/// What the kernel says if the trouble is on this side: no descriptors, memory, ports or addresses left, a family that is
/// switched off, or a filter of this node's own (a refusal from outside has other numbers).
const OWN_TROUBLE: [i32; 8] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOBUFS,
    libc::ENOMEM,
    libc::EADDRNOTAVAIL,
    libc::EADDRINUSE,
    libc::EAFNOSUPPORT,
    libc::EPERM,
];

impl Failure {
    /// An error of the network, or of this node.
    pub(super) fn of(error: &io::Error) -> Self {
        let text = plain(error);
        match error.raw_os_error() {
            Some(number) if OWN_TROUBLE.contains(&number) => Self::Unable(text),
            _ => Self::Bad(text),
        }
    }
}

/// What an error says, without its number and within a sentence.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut letters = text[..end].chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// An error with all that stands behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(source) = behind {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        behind = source.source();
    }
    text
}

/// The end of a probe's time. It holds for the whole probe, however many steps it has, so a server that drips its answer
/// gains nothing.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    /// From now.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { at: Instant::now() + timeout, timeout }
    }

    /// What `step` comes to; `missing` says what there isn't if the time is over before.
    pub(super) async fn for_step<T>(
        self,
        missing: impl Display,
        step: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let late = |_| Failure::Bad(format!("{missing} within {:?}", self.timeout));
        timeout_at(self.at, step).await.map_err(late)
    }
}
