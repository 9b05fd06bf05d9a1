//! Gratuitous ARP and unsolicited neighbour advertisements for the VIPs and SNAT addresses that this node answers for:
//! at once and again after 0.1, 1 and 3 s (MECHANISMS §2 point 1), so that the link's caches follow even if some are lost.

use super::compile::on_link;
use super::probe;
use crate::base::{Addr, Instant, InterfaceId};
use crate::path::message::Command;
use crate::view::{Interface, Services};
use std::time::Duration;

const ROUNDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3)];

/// Announcements that one turn sends.
const SLICE: usize = 32;

/// What is still to be announced, since when.
pub struct Announcements {
    addresses: Vec<(InterfaceId, Addr)>,
    since: Instant,
    round: usize,
    /// Of the round under way: how many are out.
    sent: usize,
}

impl Announcements {
    /// Of all these addresses, on the links that hold them. One that is on no link of ours is reached by a route, which someone
    /// else announces.
    pub fn new(services: &Services, addresses: impl IntoIterator<Item = Addr>, since: Instant) -> Self {
        let mut addresses: Vec<_> = addresses
            .into_iter()
            .flat_map(|a| {
                let front = move |(_, x): &(usize, &Interface)| !x.backplane && on_link(x, a);
                services
                    .interfaces
                    .iter()
                    .enumerate()
                    .filter(front)
                    .map(move |(i, _)| (InterfaceId(i as u8), a))
            })
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self { addresses, since, round: 0, sent: 0 }
    }

    /// Nothing is announced any more that isn't among `ours`.
    pub fn retain(&mut self, ours: impl Fn(&Addr) -> bool) {
        let before = self.addresses.len();
        self.addresses.retain(|(_, address)| ours(address));
        if self.addresses.len() != before {
            // Of the round under way some may be sent twice, none is left out.
            self.sent = 0;
        }
    }

    /// Some of the frames of a round that is due, as many as `send` takes: it says no when it has no room.
    pub fn turn(&mut self, services: &Services, now: Instant, mut send: impl FnMut(Command) -> bool) {
        let due = ROUNDS.get(self.round).is_some_and(|after| now >= self.since + *after);
        if !due {
            return;
        }
        for (interface, address) in self.addresses.iter().skip(self.sent).take(SLICE) {
            if !send(probe::announce(*interface, &services.interfaces[interface.index()], *address)) {
                return;
            }
            self.sent += 1;
        }
        if self.sent == self.addresses.len() {
            (self.round, self.sent) = (self.round + 1, 0);
        }
    }
}
