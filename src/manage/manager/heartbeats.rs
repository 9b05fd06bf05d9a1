//! Heartbeats, to peers and from them, over the backplane and the management network.

use super::Manager;
use crate::base::limits::MAX_WORKERS;
use crate::base::{Instant, NodeId};
use crate::cluster::council::Report;
use crate::manage::peer::News;
use crate::path::message::{CHANNEL, Command};
use crate::wire::control::{Heartbeat, Letter, MAX_LEN};
use arrayvec::ArrayVec;
use std::net::SocketAddr;
use std::time::Duration;
use tracing::{error, info};

/// Carries heartbeats over the management network. No call waits.
pub trait Courier: Send {
    /// Sends a message there, if it can.
    fn send(&mut self, to: SocketAddr, message: &[u8]);

    /// Takes the next message that has come; its length.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;
}

/// Between two lines of the log about heartbeats that can't be.
const STRAY_LOG: Duration = Duration::from_secs(10);

impl Manager {
    /// From now on heartbeats go over the management network, too.
    pub fn carry_by(&mut self, courier: Box<dyn Courier>) {
        self.courier = Some(courier);
    }

    /// Takes a peer's heartbeat and logs what an operator should know; `true` if the View has to say something new.
    pub(super) fn heard(&mut self, beat: &Heartbeat, now: Instant) -> bool {
        let name =
            self.config.cluster.nodes.get(beat.sender.index()).map_or("?", |n| n.name.as_str()).to_owned();
        let news = self.peers.heard(beat, now);
        match news {
            News::NewLife => info!("node {name} is up, life {}", beat.incarnation),
            News::Up => info!("node {name} is back"),
            News::None | News::Replay | News::Configuration => {}
            News::EndedLife | News::Ourselves | News::Stranger => {
                // Each of these may come twenty times a second.
                if self.strays.is_none_or(|last| now.since(last) >= STRAY_LOG) {
                    self.strays = Some(now);
                    error!(
                        "a heartbeat under the name of {name} (node {} of the cluster file, life {}) that can't be its: \
                         is a second node started with that name, or with another cluster file?",
                        beat.sender, beat.incarnation
                    );
                }
            }
        }
        if !matches!(news, News::Replay | News::EndedLife | News::Ourselves | News::Stranger) {
            let (index, digest, prepared) = (beat.index, beat.configuration, beat.prepared);
            let (adopted, ready, hears) = (beat.view, beat.ready, beat.hears);
            let report = Report { index, digest, prepared, adopted, ready, hears };
            let stuck = self.peers.stuck(beat, now);
            self.reported(beat.sender, beat.incarnation, &report, stuck, now);
        }
        if matches!(news, News::NewLife | News::Up | News::Configuration)
            && beat.configuration != self.digest
            && self.seat.is_none()
        {
            error!(
                "node {name} has another cluster file than this node: flows are steered apart until they agree"
            );
        }
        matches!(news, News::NewLife | News::Up)
    }

    pub(super) fn send_heartbeats(&mut self, now: Instant) {
        self.heartbeats += 1;
        let turns: ArrayVec<_, MAX_WORKERS> =
            self.workers.iter().map(|w| w.counters.turns.get() as u32).collect();
        self.judge_own(&turns, now);
        let ready = self.able();
        // Without a log a View is a node's own affair.
        let alone =
            Report { adopted: self.views.current().version, digest: self.digest, ready, ..Report::default() };
        let report = self.report().unwrap_or(alone);
        let beat = Heartbeat {
            sender: self.config.me,
            incarnation: self.incarnation,
            counter: self.heartbeats,
            view: report.adopted,
            configuration: report.digest,
            index: report.index,
            prepared: report.prepared,
            hears: self.peers.heard_of_late(now),
            ready: report.ready,
            turns,
        };
        let mut bytes = [0; MAX_LEN];
        let len = beat.write(&mut bytes, self.config.cluster.auth_key);
        let nodes = self.config.cluster.nodes.iter().map(|(id, node)| (NodeId(id as u16), node.management));
        for (node, management) in nodes.filter(|(n, _)| *n != self.config.me) {
            if let (Some(courier), Some(address)) = (&mut self.courier, management) {
                courier.send(address, &bytes[..len]);
            }
            let message = bytes[..len].iter().copied().collect();
            if self.workers[0].commands.try_send(Command::Control { node, message }).is_err() {
                self.commands_lost += 1;
            }
        }
    }

    /// Takes heartbeats that came over the management network, no more than a turn has time for.
    pub(super) fn hear_courier(&mut self, now: Instant) -> bool {
        let mut changed = false;
        let mut buffer = [0; MAX_LEN + 1];
        for _ in 0..CHANNEL {
            let Some(courier) = &mut self.courier else { return changed };
            let Some(len) = courier.receive(&mut buffer) else { return changed };
            let (message, key) = (&buffer[..len], self.config.cluster.auth_key);
            if let Ok(beat) = Heartbeat::parse(message, key) {
                changed |= self.heard(&beat, now);
            } else if let Ok(letter) = Letter::parse(message, key) {
                self.read(&letter, now);
            } else {
                self.management_refused += 1;
            }
        }
        changed
    }
}
