//! Records of shared state on their way between workers of different nodes: as many as fit in a frame.

use super::backplane;
use super::egress::Egress;
use super::port::Port;
use super::verdict::Verdict;
use crate::asdr::Outbox;
use crate::base::limits::{MAX_NODES, MAX_WORKERS};
use crate::base::{Incarnation, Instant, NodeId, NodeSet, WorkerId};
use crate::view::View;
use crate::wire::control::{MAX_RECORDS, RECORDS_LEN, Records};
use crate::wire::state::{MAX_RECORD, Record};
use arrayvec::ArrayVec;

/// Bytes of the code behind a message.
const CODE: usize = 8;
/// Bytes of a message whose next record may not fit any more.
const FULL: usize = MAX_RECORDS - CODE;

/// A message that is late by more than so many is refused: it was held back, or is sent again. Records that come so late could
/// bring back what was deleted and is forgotten.
const LATE: u64 = 4096;

const _: () = assert!(RECORDS_LEN + MAX_RECORD <= FULL);

/// What a worker has to say to one of a node's.
struct Draft {
    to: WorkerId,
    message: ArrayVec<u8, MAX_RECORDS>,
}

/// What is to be sent, and what has come.
pub struct Post {
    drafts: Box<[Draft]>,
    /// The nodes with something in their drafts.
    open: NodeSet,
    sent: u64,
    /// The lives of the nodes, and the highest counter of each of their workers.
    lives: Box<[Incarnation]>,
    heard: Box<[u64]>,
}

impl Default for Post {
    /// Nothing yet.
    fn default() -> Self {
        let draft = |_| Draft { to: WorkerId(0), message: ArrayVec::new() };
        Self {
            drafts: (0..MAX_NODES).map(draft).collect(),
            open: NodeSet::EMPTY,
            sent: 0,
            lives: vec![Incarnation(0); MAX_NODES].into(),
            heard: vec![0; MAX_NODES * MAX_WORKERS].into(),
        }
    }
}

impl Post {
    /// Whether a message may be read: it is for this node, of its sender's present life, and not of long ago.
    pub fn admit(&mut self, view: &View, records: &Records) -> Result<(), Verdict> {
        let (sender, life) = records.sender;
        let node = view.nodes.get(sender.index()).filter(|_| sender != view.me);
        let node = node.ok_or(Verdict::ControlRefused)?;
        if records.receiver != view.me || usize::from(records.from.0) >= MAX_WORKERS {
            return Err(Verdict::ControlRefused);
        }
        if life != node.incarnation || !node.up {
            return Err(Verdict::BackplaneIncarnation);
        }
        let heard = &mut self.heard[sender.index() * MAX_WORKERS..][..MAX_WORKERS];
        if self.lives[sender.index()] != life {
            self.lives[sender.index()] = life;
            heard.fill(0);
        }
        let last = &mut heard[records.from.index()];
        if records.counter.saturating_add(LATE) <= *last {
            return Err(Verdict::ControlRefused);
        }
        *last = records.counter.max(*last);
        Ok(())
    }

    /// For a while in which records are written, and are sent as frames get full.
    pub fn open<'a, P: Port>(
        &'a mut self,
        view: &'a View,
        egress: &'a mut Egress<P>,
        me: WorkerId,
        now: Instant,
    ) -> Sending<'a, P> {
        Sending { post: self, view, egress, me, now }
    }
}

/// See [`Post::open`].
pub struct Sending<'a, P: Port> {
    post: &'a mut Post,
    view: &'a View,
    egress: &'a mut Egress<P>,
    me: WorkerId,
    now: Instant,
}

impl<P: Port> Sending<'_, P> {
    /// Sends what is written.
    pub fn flush(&mut self) {
        for node in std::mem::take(&mut self.post.open).iter() {
            self.send_draft(node);
        }
    }

    fn send_draft(&mut self, node: NodeId) {
        let Self { post, view, egress, me, now } = self;
        let draft = &mut post.drafts[node.index()];
        let end = draft.message.len();
        if end == 0 {
            return;
        }
        post.sent += 1;
        let life = view.this_node().incarnation;
        let (sender, counter) = ((view.me, life), post.sent);
        let head = Records { sender, from: *me, counter, receiver: node, to: draft.to };
        draft.message.extend([0; CODE]);
        let len = head.seal(&mut draft.message, end, view.auth_key);
        backplane::send_control(view, egress, node, &draft.message[..len], *now);
        draft.message.clear();
    }
}

impl<P: Port> Outbox for Sending<'_, P> {
    fn send(&mut self, to: NodeId, record: &Record<'_>) {
        if to.index() >= self.view.nodes.len() || to == self.view.me {
            return;
        }
        let worker = self.view.worker_of(to, record.bucket);
        let mut bytes = [0; MAX_RECORD];
        let len = record.write(&mut bytes);
        let draft = &self.post.drafts[to.index()];
        if draft.to != worker || draft.message.len() + len > FULL {
            self.send_draft(to);
        }
        let draft = &mut self.post.drafts[to.index()];
        if draft.message.is_empty() {
            draft.to = worker;
            draft.message.extend([0; RECORDS_LEN]);
            self.post.open = self.post.open.with(NodeSet::of(to));
        }
        // There is room: the longest fits an empty frame.
        let _ = draft.message.try_extend_from_slice(&bytes[..len]);
    }
}
