//! Heartbeats, to peers and from them, over the backplane and the management network.

use super::Manager;
use super::seat::Seat;
use crate::base::limits::MAX_WORKERS;
use crate::base::planted::{self, Bug};
use crate::base::version::WireVersion;
use crate::base::{Instant, NodeId};
use crate::cluster::council::Report;
use crate::cluster::fleet::Trouble;
use crate::manage::peer::News;
use crate::manage::refusals::Why;
use crate::path::message::{CHANNEL, Command};
use crate::path::verdict::Verdict;
use crate::wire::control::{Heartbeat, Letter, MAX_LEN};
use arrayvec::ArrayVec;
use std::net::SocketAddr;
use tracing::{error, info, warn};

/// Carries heartbeats over the management network. No call waits.
pub trait Courier: Send {
    /// Sends a message there, if it can.
    fn send(&mut self, to: SocketAddr, message: &[u8]);

    /// Takes the next message that has come; its length.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;
}

impl Manager {
    /// From now on heartbeats go over the management network, too.
    pub fn carry_by(&mut self, courier: Box<dyn Courier>) {
        self.courier = Some(courier);
    }

    /// Takes a peer's heartbeat and logs what an operator should know; `true` if the View has to say something new.
    pub(super) fn heard(&mut self, beat: &Heartbeat, now: Instant) -> bool {
        let name = self.name_of(beat.sender).to_owned();
        let news = self.peers.heard(beat, now);
        match news {
            News::NewLife => {
                info!("node {name} is up, life {}", beat.incarnation);
                self.forget_votes(beat.sender);
                let wire = self.wire();
                if beat.speaks < wire {
                    error!(
                        "the nodes speak wire version {wire}, node {name} {} at most: it is not let in until its software is \
                         renewed",
                        beat.speaks
                    );
                }
            }
            News::Up => info!("node {name} is back"),
            News::None | News::Copy | News::Configuration => {}
            News::Replay => self.refuse_replay(beat.sender, now),
            News::EndedLife | News::Ourselves | News::Stranger => {
                if self.refusals.count(Why::Stray, now) {
                    error!(
                        "a heartbeat under the name of {name} (node {} of the cluster file, life {}) that can't be its: \
                         is a second node started with that name, or with another cluster file?",
                        beat.sender, beat.incarnation
                    );
                }
            }
        }
        if matches!(news, News::None | News::NewLife | News::Up | News::Configuration) {
            let (index, digest, prepared) = (beat.index, beat.configuration, beat.prepared);
            let (adopted, ready, hears) = (beat.view, beat.ready, beat.hears);
            let trouble = Trouble::numbered(beat.trouble);
            let (speaks, software) = (beat.speaks, beat.software);
            let report = Report { index, digest, prepared, adopted, ready, hears, trouble, speaks, software };
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

    /// The wire version that this node speaks.
    pub(super) fn wire(&self) -> WireVersion {
        if planted::is(Bug::NewestSpoken) {
            return WireVersion::NEWEST;
        }
        self.seat.as_ref().map_or(WireVersion::OLDEST, Seat::wire)
    }

    fn name_of(&self, node: NodeId) -> &str {
        self.config.cluster.nodes.get(node.index()).map_or("?", |node| node.name.as_str())
    }

    /// What a peer has said before is said again.
    pub(super) fn refuse_replay(&mut self, sender: NodeId, now: Instant) {
        if self.refusals.count(Why::Replayed, now) {
            let name = self.name_of(sender);
            warn!(
                "a control message under the name of {name} that is older than what it has said since was refused: somebody \
                 sends again what was recorded, or a network holds packets back"
            );
        }
    }

    /// Tells of what workers have refused.
    fn watch_backplane(&mut self, now: Instant) {
        let of = Verdict::ControlRefused as usize;
        let refused = self.workers.iter().map(|worker| worker.counters.drops[of].get()).sum();
        if self.refusals.grown(Why::Backplane, refused, now) {
            warn!(
                "{refused} control messages over the backplane were refused: unreadable, or no code by the cluster's key"
            );
        }
    }

    pub(super) fn send_heartbeats(&mut self, now: Instant) {
        self.watch_backplane(now);
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
            wire: self.wire(),
            speaks: report.speaks,
            software: report.software,
            sender: self.config.me,
            incarnation: self.incarnation,
            counter: self.heartbeats,
            view: report.adopted,
            configuration: report.digest,
            index: report.index,
            prepared: report.prepared,
            hears: self.peers.heard_of_late(now),
            ready: report.ready,
            trouble: report.trouble.number(),
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
            } else if self.refusals.count(Why::Management, now) {
                warn!(
                    "a message over the management network was refused: unreadable, or no code by the cluster's key"
                );
            }
        }
        changed
    }
}
