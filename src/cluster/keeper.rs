//! This node's copy of the replicated state, and how it comes to another when that can't be trusted any more (MECHANISMS §6).

use super::digests::Digests;
use super::fleet::{TakenOver, Why};
use super::log::{Log, ReplicaId};
use super::namespace::{Change, Faults, Namespace};
use super::state::{Entry, State};
use crate::base::planted::{self, Bug};
use crate::base::version::WireVersion;
use crate::base::{Instant, NodeId, NodeSet};
use std::time::Duration;

/// After this long the log is asked again for what it didn't give.
const AGAIN: Duration = Duration::from_secs(1);

/// What a turn has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// There is a new version to prepare.
    pub changed: bool,
    /// Another version is in force.
    pub in_force: bool,
    /// Buckets that were taken from the dead: for a while their former owner's lease may cover them.
    pub taken_over: Option<TakenOver>,
    /// All that was known was replaced: whatever this node owns now may be covered by another's lease for a while.
    pub installed: bool,
}

/// See the module's text.
pub struct Keeper {
    me: NodeId,
    /// What the first entry comes upon.
    first: State,
    state: State,
    digest: u64,
    digests: Digests,
    /// The state is wrong, or lacks something: nothing is made of it, and nothing more put into it.
    spoilt: bool,
    /// What is decided is beyond this software.
    outdated: bool,
    /// When the log was last asked for another state.
    asked: Option<Instant>,
    tries: usize,
}

impl Keeper {
    /// A copy that begins with this.
    pub fn new(me: NodeId, first: State) -> Self {
        let state = first.clone();
        let (digest, digests) = (state.digest(), Digests::default());
        Self { me, first, state, digest, digests, spoilt: false, outdated: false, asked: None, tries: 0 }
    }

    /// What is decided, as far as is known here.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether the state can't be trusted, and another is awaited.
    pub fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// The last entry that it holds, and the digest there; both zero if that means nothing.
    pub fn place(&self) -> (u64, u64) {
        if self.spoilt { (0, 0) } else { (self.state.index(), self.digest) }
    }

    /// What [`State::preview`] gives.
    ///
    /// # Errors
    /// Why they can't be made, and how many more reasons there are.
    pub fn preview<T>(
        &mut self,
        changes: &[Change],
        look: impl FnOnce(&Namespace) -> T,
    ) -> Result<T, Faults> {
        self.state.preview(changes, look)
    }

    fn spoil(&mut self, why: Why) -> Why {
        self.spoilt = true;
        why
    }

    /// Software that the cluster has left behind can't take part.
    fn understand(&mut self, wire: WireVersion) -> Result<(), Why> {
        let own = WireVersion::own();
        if wire <= own {
            return Ok(());
        }
        // What another node has would be no better.
        self.outdated = true;
        let why = format!("the nodes speak wire version {wire}, this software {own} at most");
        Err(self.spoil(Why::Apply(why)))
    }

    fn note(&mut self) {
        self.digest = self.state.digest();
        self.digests.expect(self.state.fleet().serving().len());
        self.digests.told(self.me, self.state.index(), self.digest);
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// Why the state can't be trusted from here on.
    pub fn entry(&mut self, index: u64, bytes: &[u8], news: &mut News) -> Result<(), Why> {
        if self.spoilt {
            return Ok(());
        }
        let entry = Entry::decode(bytes);
        let entry = entry.map_err(|error| self.spoil(Why::Apply(format!("entry {index}: {error}"))))?;
        let (in_force, serving) = (self.state.in_force(), self.state.fleet().serving());
        let applied = self.state.apply(index, &entry);
        self.understand(self.state.wire())?;
        news.changed |= applied.changed;
        news.in_force |= self.state.in_force() != in_force;
        // Who is taken out may have answered for VIPs, also if it owned no bucket.
        let fewer = !serving.without(self.state.fleet().serving()).is_empty();
        if (fewer || !applied.taken_over.is_empty()) && !planted::is(Bug::NoQuarantine) {
            news.taken_over.get_or_insert_default().extend(applied.taken_over);
        }
        self.note();
        Ok(())
    }

    /// Takes a snapshot in the place of what it has.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn install(&mut self, index: u64, bytes: &[u8], news: &mut News) -> Result<(), Why> {
        if self.spoilt {
            return Ok(());
        }
        let state = State::decode(bytes);
        let state =
            state.map_err(|error| self.spoil(Why::Apply(format!("the snapshot at {index}: {error}"))))?;
        self.understand(state.wire())?;
        self.replace(if planted::is(Bug::SnapshotTorn) { state.torn(&self.state) } else { state }, news);
        Ok(())
    }

    fn replace(&mut self, state: State, news: &mut News) {
        self.state = state;
        (news.changed, news.in_force, news.installed) = (true, true, true);
        self.digests.forget(self.me);
        self.note();
    }

    /// The log begins anew.
    ///
    /// # Errors
    /// That was asked for long ago: what this life knew is void.
    pub fn anew(&mut self, news: &mut News) -> Result<(), Why> {
        let awaited = std::mem::take(&mut self.spoilt);
        self.replace(self.first.clone(), news);
        awaited.then_some(()).ok_or_else(|| Why::Apply("the log began anew".into()))
    }

    /// What a snapshot is to hold; none while the state can't be trusted.
    ///
    /// # Errors
    /// It can't be encoded.
    pub fn snapshot(&self) -> Result<Option<(u64, Vec<u8>)>, Why> {
        if self.spoilt {
            return Ok(None);
        }
        let bytes = self.state.encode().map_err(|error| Why::Apply(format!("a snapshot: {error}")))?;
        Ok(Some((self.state.index(), bytes)))
    }

    /// Another node tells the digest of its state; index zero: it has none. `fresh`: in a life that was not heard of before.
    pub fn told(&mut self, node: NodeId, (index, digest): (u64, u64), fresh: bool) {
        if fresh {
            self.digests.forget(node);
        }
        if index > 0 {
            self.digests.told(node, index, digest);
        }
    }

    /// The nodes whose states differ from most others'.
    pub fn odd(&self) -> NodeSet {
        self.digests.odd()
    }

    /// See [`Digests::divided`].
    pub fn divided(&self) -> Option<u64> {
        self.digests.divided()
    }

    /// Whether this copy itself is at fault.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn judge(&mut self) -> Result<(), Why> {
        if self.spoilt || !self.digests.odd().contains(self.me) {
            return Ok(());
        }
        Err(self.spoil(Why::Digest))
    }

    /// Sees to it that a state that can't be trusted is replaced, or that nobody waits for what is beyond this software. `others`:
    /// nodes of which another may be had, one of which is asked after the other.
    pub fn restore(&mut self, log: &mut impl Log, others: NodeSet, now: Instant) {
        let asked = self.asked.is_some_and(|at| now.since(at) < AGAIN);
        if !self.spoilt || asked || planted::is(Bug::NothingRestored) {
            return;
        }
        self.asked = Some(now);
        if self.outdated {
            return log.resign();
        }
        let others = others.without(self.digests.odd()).without(NodeSet::of(self.me));
        let from = others.iter().nth(self.tries % others.len().max(1)).unwrap_or(self.me);
        self.tries += 1;
        log.restore(ReplicaId::from(from));
    }
}
