//! The other nodes, as far as their heartbeats tell.

use crate::base::{Incarnation, Instant, NodeId};
use crate::wire::control::Heartbeat;
use std::time::Duration;

/// What is known of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer {
    /// Its life; zero until it was heard.
    pub incarnation: Incarnation,
    /// When it was last heard.
    pub heard: Option<Instant>,
    /// Heard within the suspicion time.
    pub up: bool,
    /// It says that it is ready.
    pub ready: bool,
    /// The View that it runs.
    pub view: u64,
    counter: u64,
}

/// All nodes by id; this node's own entry stays empty.
pub struct Peers {
    me: NodeId,
    peers: Vec<Peer>,
    suspicion: Duration,
}

impl Peers {
    /// Nobody heard yet.
    pub fn new(me: NodeId, nodes: usize, suspicion: Duration) -> Self {
        Self { me, peers: vec![Peer::default(); nodes], suspicion }
    }

    /// Takes an authentic heartbeat; `true` if that changes a peer's life or puts it up again. A heartbeat of an ended life
    /// or one that isn't newer than the last (a replay) is nothing.
    pub fn heard(&mut self, beat: &Heartbeat, now: Instant) -> bool {
        if beat.sender == self.me {
            return false;
        }
        let Some(peer) = self.peers.get_mut(beat.sender.index()) else { return false };
        let newer = (beat.incarnation, beat.counter) > (peer.incarnation, peer.counter);
        if !newer {
            return false;
        }
        let changed = beat.incarnation != peer.incarnation || !peer.up;
        *peer = Peer {
            incarnation: beat.incarnation,
            heard: Some(now),
            up: true,
            ready: beat.ready,
            view: beat.view,
            counter: beat.counter,
        };
        changed
    }

    /// Marks those down that were silent for too long; `true` if any.
    pub fn turn(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for peer in &mut self.peers {
            if peer.up && peer.heard.is_none_or(|heard| now.since(heard) > self.suspicion) {
                peer.up = false;
                changed = true;
            }
        }
        changed
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> &Peer {
        &self.peers[node.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(incarnation: u32, counter: u64) -> Heartbeat {
        Heartbeat {
            sender: NodeId(1),
            incarnation: Incarnation(incarnation),
            counter,
            view: 1,
            ready: true,
            turns: [0].into_iter().collect(),
        }
    }

    #[test]
    fn lives_replays_and_silence() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let mut peers = Peers::new(NodeId(0), 2, Duration::from_millis(100));
        assert!(peers.heard(&beat(7, 1), at(0)));
        assert!(!peers.heard(&beat(7, 2), at(10)), "nothing new");
        assert!(!peers.heard(&beat(7, 2), at(90)), "a replay");
        assert!(peers.turn(at(111)), "the replay doesn't count as a sign of life");
        assert!(!peers.get(NodeId(1)).up);
        assert!(!peers.heard(&beat(6, 99), at(112)), "an ended life");
        assert!(peers.heard(&beat(8, 1), at(113)), "a new one");
        assert!(peers.get(NodeId(1)).up);
        assert!(!peers.heard(&Heartbeat { sender: NodeId(0), ..beat(9, 1) }, at(114)), "ourselves");
        assert!(!peers.heard(&Heartbeat { sender: NodeId(9), ..beat(9, 1) }, at(114)), "no such node");
    }
}
