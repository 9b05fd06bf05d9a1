//! The other nodes, as far as their heartbeats tell.

use crate::base::limits::MAX_WORKERS;
use crate::base::{Incarnation, Instant, NodeId, NodeSet};
use crate::wire::control::{Heartbeat, Letter};
use arrayvec::ArrayVec;
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
    /// The digest of its cluster file.
    pub configuration: u64,
    counter: u64,
    /// Of its last letter.
    letter: u64,
    /// When it was last heard over the backplane.
    backplane: Option<Instant>,
}

/// What a heartbeat tells that wasn't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing but that the peer lives.
    None,
    /// Nothing at all: it came over the other network before, or was overtaken by the next.
    Copy,
    /// Nothing at all: its sender has said much since.
    Replay,
    /// The peer lives, or lives again.
    NewLife,
    /// It was silent and is back.
    Up,
    /// It has another cluster file than before.
    Configuration,
    /// It is of a life that is over: an old frame, or a second process under the peer's name whose clock is behind.
    EndedLife,
    /// It bears our own name.
    Ourselves,
    /// It is of a node that the cluster file doesn't have.
    Stranger,
}

/// A heartbeat's copy over one network may come behind so many that came over the other.
const COPIES: u64 = 8;

/// One that is older than so many isn't late, it is sent again: a node sends fewer than ten within the suspicion time, and what took
/// so many times that on its way was held back.
const LATE: u64 = 64;

/// The turns that a node's workers have made, and since when each stands there.
#[derive(Clone, Debug, Default)]
pub struct Turns(ArrayVec<(u32, Instant), MAX_WORKERS>);

impl Turns {
    /// Takes what the node says at `now`; the worker that has stood still for longer than `patience`, if one has.
    pub fn told(&mut self, turns: &[u32], patience: Duration, now: Instant) -> Option<u16> {
        if self.0.len() != turns.len() {
            self.0 = turns.iter().take(MAX_WORKERS).map(|turn| (*turn, now)).collect();
        }
        for (known, turn) in self.0.iter_mut().zip(turns).filter(|(known, turn)| known.0 != **turn) {
            *known = (*turn, now);
        }
        let stuck = self.0.iter().position(|(_, since)| now.since(*since) > patience);
        stuck.map(|worker| worker as u16)
    }
}

/// What a message is that isn't newer than the last.
fn old(counter: u64, last: u64) -> News {
    if counter.saturating_add(LATE) <= last { News::Replay } else { News::Copy }
}

/// All nodes by id; this node's own entry stays empty.
pub struct Peers {
    me: NodeId,
    peers: Vec<Peer>,
    turns: Vec<Turns>,
    suspicion: Duration,
}

impl Peers {
    /// Nobody heard yet.
    pub fn new(me: NodeId, nodes: usize, suspicion: Duration) -> Self {
        Self { me, peers: vec![Peer::default(); nodes], turns: vec![Turns::default(); nodes], suspicion }
    }

    /// There are so many nodes now, and silence of this length is suspicious.
    pub fn resize(&mut self, nodes: usize, suspicion: Duration) {
        self.peers.resize(nodes.max(self.peers.len()), Peer::default());
        self.turns.resize(self.peers.len(), Turns::default());
        self.suspicion = suspicion;
    }

    /// A heartbeat has come over the backplane, be it the first of its copies or not.
    pub fn heard_on_backplane(&mut self, beat: &Heartbeat, now: Instant) {
        let Some(peer) = self.peers.get_mut(beat.sender.index()) else { return };
        if beat.incarnation == peer.incarnation && beat.counter.saturating_add(COPIES) > peer.counter {
            peer.backplane = Some(now);
        }
    }

    /// Whom this node has heard over the backplane within the suspicion time.
    pub fn heard_of_late(&self, now: Instant) -> NodeSet {
        let late = |peer: &Peer| peer.backplane.is_some_and(|at| now.since(at) <= self.suspicion);
        let each = self.peers.iter().enumerate().filter(|(_, peer)| late(peer));
        each.map(|(node, _)| NodeId(node as u16)).collect()
    }

    /// Takes the turns in a heartbeat that was news: the worker that stands still, if one does.
    pub fn stuck(&mut self, beat: &Heartbeat, now: Instant) -> Option<u16> {
        let turns = self.turns.get_mut(beat.sender.index())?;
        turns.told(&beat.turns, self.suspicion, now)
    }

    /// Takes an authentic heartbeat and says what is news in it. One of an ended life, or one that isn't newer than the last, is
    /// none.
    pub fn heard(&mut self, beat: &Heartbeat, now: Instant) -> News {
        if beat.sender == self.me {
            return News::Ourselves;
        }
        let Some(peer) = self.peers.get_mut(beat.sender.index()) else { return News::Stranger };
        if beat.incarnation < peer.incarnation {
            return News::EndedLife;
        }
        if beat.incarnation == peer.incarnation && beat.counter <= peer.counter {
            return old(beat.counter, peer.counter);
        }
        let news = match () {
            () if beat.incarnation != peer.incarnation => News::NewLife,
            () if !peer.up => News::Up,
            () if beat.configuration != peer.configuration => News::Configuration,
            () => News::None,
        };
        *peer = Peer {
            incarnation: beat.incarnation,
            heard: Some(now),
            up: true,
            ready: beat.ready,
            view: beat.view,
            configuration: beat.configuration,
            counter: beat.counter,
            letter: if news == News::NewLife { 0 } else { peer.letter },
            backplane: peer.backplane,
        };
        news
    }

    /// Takes an authentic letter, as a node that lives its life `own`.
    ///
    /// # Errors
    /// If it is for another node, or another life of this one; if it isn't of its sender's present life, as its heartbeats tell, or
    /// isn't newer than the last one.
    pub fn read(&mut self, letter: &Letter, own: Incarnation) -> Result<(), News> {
        let (receiver, life) = letter.receiver;
        if receiver != self.me {
            return Err(News::Replay);
        }
        // It was on its way when this node began another life.
        if life != own {
            return Err(News::Copy);
        }
        let Some(peer) = self.peers.get_mut(letter.sender.index()) else { return Err(News::Stranger) };
        if letter.incarnation < peer.incarnation {
            return Err(News::EndedLife);
        }
        // One of a life that no heartbeat has told of yet is too early, and comes again.
        if letter.incarnation > peer.incarnation {
            return Err(News::Copy);
        }
        if letter.counter <= peer.letter {
            return Err(old(letter.counter, peer.letter));
        }
        peer.letter = letter.counter;
        Ok(())
    }

    /// Marks those down that were silent for too long, and tells `down` of each; `true` if any.
    pub fn turn(&mut self, now: Instant, mut down: impl FnMut(NodeId)) -> bool {
        let mut changed = false;
        for (i, peer) in self.peers.iter_mut().enumerate() {
            if peer.up && peer.heard.is_none_or(|heard| now.since(heard) > self.suspicion) {
                peer.up = false;
                changed = true;
                down(NodeId(i as u16));
            }
        }
        changed
    }

    /// What is known of a node: nothing of one that was decided upon and isn't in this node's configuration yet.
    pub fn get(&self, node: NodeId) -> Peer {
        self.peers.get(node.index()).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::version::{Software, WireVersion};

    fn beat(incarnation: u32, counter: u64) -> Heartbeat {
        Heartbeat {
            wire: WireVersion::OLDEST,
            speaks: WireVersion::OLDEST,
            software: Software::default(),
            sender: NodeId(1),
            incarnation: Incarnation(incarnation),
            counter,
            view: 1,
            configuration: 7,
            index: 0,
            prepared: 0,
            hears: NodeSet::EMPTY,
            ready: true,
            trouble: 0,
            turns: [0].into_iter().collect(),
        }
    }

    #[test]
    fn letters_are_read_once_and_by_whom_they_are_for() {
        const OWN: Incarnation = Incarnation(3);
        let letter = |counter| Letter {
            wire: WireVersion::OLDEST,
            sender: NodeId(1),
            incarnation: Incarnation(7),
            receiver: (NodeId(0), OWN),
            counter,
            content: ArrayVec::new(),
        };
        let mut peers = Peers::new(NodeId(0), 2, Duration::from_millis(100));
        assert_eq!(peers.read(&letter(1), OWN), Err(News::Copy), "no heartbeat has told of that life yet");
        peers.heard(&beat(7, 1), Instant::ZERO);
        let mut read = |letter: &Letter| peers.read(letter, OWN);
        assert_eq!(read(&Letter { receiver: (NodeId(1), OWN), ..letter(1) }), Err(News::Replay));
        assert_eq!(read(&Letter { receiver: (NodeId(0), Incarnation(2)), ..letter(1) }), Err(News::Copy));
        assert_eq!(read(&Letter { sender: NodeId(2), ..letter(1) }), Err(News::Stranger));
        assert_eq!(read(&Letter { incarnation: Incarnation(6), ..letter(1) }), Err(News::EndedLife));
        assert_eq!(read(&letter(1)), Ok(()), "none of those counted as read");
        assert_eq!(read(&letter(1)), Err(News::Copy));
        assert_eq!(read(&letter(1 + LATE)), Ok(()));
        assert_eq!(read(&letter(2)), Err(News::Copy), "late");
        assert_eq!(read(&letter(1)), Err(News::Replay));
        peers.heard(&beat(8, 1), Instant::ZERO);
        let mut read = |letter: &Letter| peers.read(letter, OWN);
        assert_eq!(read(&letter(2 + LATE)), Err(News::EndedLife));
        assert_eq!(
            read(&Letter { incarnation: Incarnation(8), ..letter(1) }),
            Ok(()),
            "a life counts from one"
        );
    }

    /// Who returns with the file that it began with may find a node leading that has joined since.
    #[test]
    fn of_a_node_that_has_joined_meanwhile_nothing_is_known() {
        let peers = Peers::new(NodeId(0), 2, Duration::from_millis(100));
        assert_eq!((peers.get(NodeId(2)).incarnation, peers.get(NodeId(2)).up), (Incarnation(0), false));
    }

    #[test]
    fn a_worker_that_stands_still_is_found() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let mut turns = Turns::default();
        let patience = Duration::from_millis(100);
        assert_eq!(turns.told(&[1, 1], patience, at(0)), None);
        assert_eq!(turns.told(&[2, 1], patience, at(100)), None);
        assert_eq!(turns.told(&[3, 1], patience, at(101)), Some(1));
        assert_eq!(turns.told(&[3, 2], patience, at(102)), None);
        assert_eq!(turns.told(&[3], patience, at(900)), None, "another life, with fewer workers");
    }

    #[test]
    fn lives_replays_and_silence() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let mut peers = Peers::new(NodeId(0), 2, Duration::from_millis(100));
        assert_eq!(peers.heard(&beat(7, 1), at(0)), News::NewLife);
        assert_eq!(peers.heard(&beat(7, 2), at(10)), News::None);
        assert_eq!(peers.heard(&beat(7, 2), at(90)), News::Copy);
        let mut down = Vec::new();
        assert!(peers.turn(at(111), |n| down.push(n)), "the replay doesn't count as a sign of life");
        assert_eq!(down, [NodeId(1)]);
        assert!(!peers.get(NodeId(1)).up);
        assert_eq!(peers.heard(&beat(6, 99), at(112)), News::EndedLife);
        assert_eq!(peers.heard(&beat(7, 3), at(112)), News::Up);
        assert_eq!(peers.heard(&beat(7, 4 + LATE), at(112)), News::None);
        assert_eq!(peers.heard(&beat(7, 5), at(112)), News::Copy, "late");
        assert_eq!(peers.heard(&beat(7, 4), at(112)), News::Replay);
        assert_eq!(peers.heard(&beat(8, 1), at(113)), News::NewLife);
        assert!(peers.get(NodeId(1)).up);
        let other = Heartbeat { configuration: 8, ..beat(8, 2) };
        assert_eq!(peers.heard(&other, at(113)), News::Configuration);
        assert_eq!(peers.heard(&Heartbeat { sender: NodeId(0), ..beat(9, 1) }, at(114)), News::Ourselves);
        assert_eq!(peers.heard(&Heartbeat { sender: NodeId(9), ..beat(9, 1) }, at(114)), News::Stranger);
    }
}
