//! How a new cluster begins: with what its file says.

use super::Seat;
use crate::base::hash::siphash13_bytes;
use crate::base::{HashKey, Instant};
use crate::cluster::asks::{Answer, Ask};
use crate::cluster::namespace::{Change, Key, Object, Outcome, RequestId, Write};
use crate::cluster::state::Entry;
use tracing::error;

/// What a new cluster begins with.
pub(super) struct Founding {
    write: Write,
    asked: Option<Ask>,
}

impl Founding {
    /// These objects. Whoever proposes the same proposes it under the same id.
    pub(super) fn new(objects: &[(Key, Object)]) -> Self {
        let changes: Vec<_> = objects
            .iter()
            .map(|(key, object)| Change { key: key.clone(), expected: Some(0), value: Some(object.clone()) })
            .collect();
        let bytes = postcard::to_allocvec(&changes).unwrap_or_default();
        let half = |n| u128::from(siphash13_bytes(HashKey([n, 0]), &bytes));
        let request = RequestId(half(1) << 64 | half(2));
        Self { write: Write { request, who: "cluster file".into(), at: 0, changes }, asked: None }
    }
}

impl Seat {
    /// Begins a new cluster, if that is this node's to do.
    pub(super) fn found(&mut self, now: Instant) {
        if !self.state().namespace().is_empty() {
            self.founding = None;
        }
        let Some(Founding { write, asked }) = &mut self.founding else { return };
        let Some(ask) = *asked else {
            if self.council.quorum() {
                *asked = Some(self.council.ask(Entry::Write(write.clone()), now));
            }
            return;
        };
        let Some(answer) = self.council.answer(ask) else { return };
        *asked = None;
        match answer {
            Answer::Written(Outcome::Applied { .. }) | Answer::Decided(_) => self.founding = None,
            Answer::Written(Outcome::Refused { faults, .. }) => {
                let each: Vec<_> = faults.iter().map(ToString::to_string).collect();
                error!("the cluster can't begin with its file: {}", each.join("; "));
                self.founding = None;
            }
            // There is no leader yet, or it was lost: again.
            Answer::Refused(_) | Answer::Unknown => {}
        }
    }
}
