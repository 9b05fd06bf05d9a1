//! Gratuitous ARP and unsolicited neighbour advertisements for the VIPs and SNAT addresses that this node answers for:
//! at once and again after 0.1, 1 and 3 s (MECHANISMS §2 point 1), so that the link's caches follow even if some are lost.

use super::compile::on_link;
use super::probe;
use crate::base::{Addr, Instant, InterfaceId};
use crate::path::message::Command;
use crate::view::{Interface, Owned, Services};
use std::time::Duration;

const ROUNDS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3)];

/// What is still to be announced, since when.
pub struct Announcements {
    addresses: Vec<(InterfaceId, Addr)>,
    since: Instant,
    round: usize,
}

impl Announcements {
    /// Everything that `services` says this node answers for, on the links that hold it. An address that is on no link of
    /// ours is reached by a route, which someone else announces.
    pub fn new(services: &Services, since: Instant) -> Self {
        let vips = services.virtual_servers.iter().map(|v| v.address);
        let all = vips.chain(services.snats.iter().map(|s| s.address));
        let mut addresses: Vec<_> = all
            .filter(|a| {
                let owned = services.owned.get(a);
                matches!(owned, Some(Owned::Vip { advertised: true } | Owned::Snat { advertised: true, .. }))
            })
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
        Self { addresses, since, round: 0 }
    }

    /// The frames of a round that is due.
    pub fn turn(&mut self, services: &Services, now: Instant, mut send: impl FnMut(Command)) {
        let due = ROUNDS.get(self.round).is_some_and(|after| now >= self.since + *after);
        if !due {
            return;
        }
        self.round += 1;
        for (interface, address) in &self.addresses {
            send(probe::announce(*interface, &services.interfaces[interface.index()], *address));
        }
    }
}
