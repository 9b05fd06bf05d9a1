//! Sessions: the flows that this core owns, and which real server each has.

use super::flow::{EntryId, FlowTable};
use super::index::Full;
use crate::base::limits::MAX_FLOWS;
use crate::base::{FlowHash, FlowKey, RealServerId, SnatId, Tick};

/// How far a flow has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// TCP: the handshake isn't complete. UDP: one packet was seen. First to go when room is needed.
    #[default]
    HalfOpen,
    /// The real server has answered a TCP handshake that the client has yet to complete.
    Answered,
    /// Packets flow.
    Established,
    /// The client has sent its FIN.
    ClientClosing,
    /// The real server has.
    ServerClosing,
    /// Both have.
    Closed,
    /// A RST was seen. Whether its target believed it we can't know: what flows on afterwards shows that it didn't.
    Reset,
    /// Another node has this NATed flow, in a bucket that is this one's by now: it stands here for its SNAT port alone, which is taken.
    Elsewhere,
}

/// What a session remembers beside its key, the tuple from client to VIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The real server.
    pub real: RealServerId,
    /// When its last packet was seen.
    pub last_seen: Tick,
    /// The SNAT address, if `snat_port` isn't zero.
    pub snat: SnatId,
    /// The SNAT port; zero: the flow is not NATed.
    pub snat_port: u16,
    /// How far the flow has come.
    pub state: State,
    /// Its place in the queue of half-open sessions, of which it is the youngest owner.
    place: Place,
}

/// A place in the queue of half-open sessions, or the entry that took it, in 24 bits; all ones: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place([u8; 3]);

impl State {
    /// Nothing that only the two ends could have sent shows that there is a connection: such a session makes room for others.
    pub fn unproven(self) -> bool {
        matches!(self, Self::HalfOpen | Self::Answered | Self::Closed | Self::Reset)
    }
}

impl Default for Place {
    fn default() -> Self {
        Self([0xff; 3])
    }
}

impl Place {
    fn new(index: usize) -> Self {
        let [a, b, c, _] = (index as u32).to_le_bytes();
        Self([a, b, c])
    }

    fn entry(self) -> Option<EntryId> {
        let [a, b, c] = self.0;
        (self != Self::default()).then(|| EntryId::new(u32::from_le_bytes([a, b, c, 0])))
    }
}

const _: () = assert!(size_of::<Session>() == 16);
const _: () = assert!(MAX_FLOWS < 1 << 24, "the highest entry's number would read as none");

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Client to VIP.
    Forward,
    /// Real server to SNAT address.
    Reply,
}

/// The hashes under which a session stands: that of its key, and if NATed that of its replies.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Of the key.
    pub forward: FlowHash,
    /// Of the reply tuple.
    pub reply: Option<FlowHash>,
}

/// Places of the queue that are looked at for a session that can go when the table is full.
const EVICTION_TRIES: usize = 32;

/// The sessions of one worker. Each starts in a queue a quarter as long as the table; the oldest one there that isn't
/// established yet, or no more, is evicted for the next. Established ones are never evicted.
pub struct SessionTable {
    flows: FlowTable<Session>,
    half_open: Box<[Place]>,
    oldest: usize,
    /// The one that goes for the next half-open one, if it hasn't proved itself by then, with the hashes under which it stands.
    /// What they name is on its way: else each connection of a flood of new ones would wait for memory four times more.
    next: Option<(EntryId, Names)>,
}

impl SessionTable {
    /// A table for `capacity` sessions that stand under up to `names` hashes: 2 if any is NATed, else 1.
    pub fn new(capacity: usize, names: usize) -> Self {
        Self {
            flows: FlowTable::new(capacity, names),
            half_open: vec![Place::default(); (capacity / 4).max(1)].into_boxed_slice(),
            oldest: 0,
            next: None,
        }
    }

    /// The table beneath, to look at entries.
    #[inline(always)]
    pub fn flows(&self) -> &FlowTable<Session> {
        &self.flows
    }

    /// A session, writable.
    #[inline(always)]
    pub fn get_mut(&mut self, id: EntryId) -> &mut Session {
        self.flows.get_mut(id)
    }

    /// The session that a packet with this tuple belongs to, in either direction. `is_reply` says whether the tuple is
    /// that of the replies to a NATed session.
    #[inline(always)]
    pub fn find(
        &self,
        hash: FlowHash,
        key: &FlowKey,
        is_reply: impl Fn(&Session) -> bool,
    ) -> Option<(EntryId, Direction)> {
        let mut direction = Direction::Forward;
        let id = self.flows.find_by(hash, |forward, session| {
            if forward == key {
                direction = Direction::Forward;
                return true;
            }
            // The port first: it is here, the rest is in the View.
            if session.snat_port == key.dst_port && session.snat_port != 0 && is_reply(session) {
                direction = Direction::Reply;
                return true;
            }
            false
        })?;
        Some((id, direction))
    }

    /// Adds a session that the caller knows to be new. One that is half-open may make an older one go, which `gone` is told of;
    /// `names_of` gives the hashes under which a session stands.
    pub fn open(
        &mut self,
        names: Names,
        key: FlowKey,
        session: Session,
        names_of: impl Fn(&FlowKey, &Session) -> Names,
        mut gone: impl FnMut(EntryId, &FlowKey, &Session),
    ) -> Result<EntryId, Full> {
        let queued = session.state == State::HalfOpen;
        if queued {
            self.evict_oldest(&names_of, &mut gone);
        }
        // Room may be short before the queue is full: look among its next places for one that can go.
        for _ in 0..EVICTION_TRIES {
            if self.flows.len() < self.flows.capacity() || self.evict_oldest(&names_of, &mut gone) {
                break;
            }
            self.advance();
        }
        let id = self.flows.insert(names.forward, key, session)?;
        if let Some(reply) = names.reply
            && let Err(full) = self.flows.add_name(reply, id)
        {
            self.flows.remove(names.forward, id);
            return Err(full);
        }
        if queued {
            self.half_open[self.oldest] = Place::new(id.number());
            self.flows.get_mut(id).place = Place::new(self.oldest);
            self.advance();
            self.look_ahead(&names_of);
        }
        Ok(id)
    }

    /// Starts fetching what the next evictions need.
    #[inline(always)]
    fn look_ahead(&mut self, names_of: &impl Fn(&FlowKey, &Session) -> Names) {
        self.next = self.half_open[self.oldest].entry().filter(|id| self.may_go(*id)).map(|id| {
            let names = names_of(self.flows.key(id), self.flows.get(id));
            self.flows.prefetch_index(names.forward);
            names.reply.iter().for_each(|reply| self.flows.prefetch_index(*reply));
            (id, names)
        });
        if let Some(id) = self.half_open.get(self.oldest + 1).and_then(|place| place.entry()) {
            self.flows.prefetch(id);
        }
    }

    /// Whether the queue's oldest place is this entry's, and its session can go. (The entry may be another session's by now; that
    /// one has another place, or none.)
    #[inline(always)]
    fn may_go(&self, id: EntryId) -> bool {
        let session = self.flows.get(id);
        let used = self.flows.key(id).protocol != 0;
        used && session.state.unproven() && session.place == Place::new(self.oldest)
    }

    fn advance(&mut self) {
        self.oldest = if self.oldest + 1 == self.half_open.len() { 0 } else { self.oldest + 1 };
    }

    /// Empties the queue's oldest place; if the session that took it is still there and unproven, that one goes.
    fn evict_oldest(
        &mut self,
        names_of: &impl Fn(&FlowKey, &Session) -> Names,
        gone: &mut impl FnMut(EntryId, &FlowKey, &Session),
    ) -> bool {
        let next = self.next.take();
        let Some(id) = std::mem::take(&mut self.half_open[self.oldest]).entry() else { return false };
        let goes = self.may_go(id);
        if goes {
            // That place is the same session's as when it was looked at: its place is its alone.
            let known = next.filter(|(next, _)| *next == id).map(|(_, names)| names);
            let names = known.unwrap_or_else(|| names_of(self.flows.key(id), self.flows.get(id)));
            gone(id, self.flows.key(id), self.flows.get(id));
            self.close(id, names);
        }
        goes
    }

    /// Removes a session.
    pub fn close(&mut self, id: EntryId, names: Names) -> Session {
        if let Some(reply) = names.reply {
            self.flows.remove_name(reply, id);
        }
        self.flows.remove(names.forward, id)
    }

    /// Bytes of memory, index and queue counted.
    pub fn bytes(&self) -> usize {
        self.flows.bytes() + size_of_val(&*self.half_open)
    }

    /// Moves the expiry cursor on by one entry; names it if in use.
    #[inline]
    pub fn step(&mut self) -> Option<EntryId> {
        self.flows.step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Addr, HashKey};

    const KEY: HashKey = HashKey([5, 6]);

    fn key(i: u32) -> FlowKey {
        FlowKey::new(Addr::v4(i.to_be_bytes()), Addr::v4([10, 0, 0, 1]), 1, 80, 6)
    }

    fn names(key: &FlowKey, _: &Session) -> Names {
        Names { forward: KEY.flow(key), reply: None }
    }

    /// Opens session `i`; also says how many had to go for it.
    fn open(table: &mut SessionTable, i: u32) -> Result<(EntryId, usize), Full> {
        let (session, mut evicted) = (Session::default(), 0);
        let id = table.open(names(&key(i), &session), key(i), session, names, |_, _, _| evicted += 1)?;
        Ok((id, evicted))
    }

    /// Entries are given to one session after the other; the places that the gone ones had must not count against the new.
    #[test]
    fn a_place_belongs_to_one_session_only() {
        let mut table = SessionTable::new(400, 2);
        for i in 0..1000 {
            let (id, _) = open(&mut table, i).unwrap();
            table.close(id, names(&key(i), &Session::default()));
        }
        for i in 1000..1100 {
            assert_eq!(open(&mut table, i).unwrap().1, 0, "nobody has to go for session {i}");
        }
        assert_eq!(table.flows().len(), 100);
        assert_eq!(open(&mut table, 1100).unwrap().1, 1, "the queue is a quarter of the table");
    }

    #[test]
    fn a_syn_flood_takes_a_quarter_and_never_an_established_session() {
        let mut table = SessionTable::new(4000, 2);
        let established: Vec<_> = (0..500)
            .map(|i| {
                let (id, _) = open(&mut table, i).unwrap();
                table.get_mut(id).state = State::Established;
                id
            })
            .collect();
        let evicted: usize = (1000..100_000).map(|i| open(&mut table, i).unwrap().1).sum();
        assert!(table.flows().len() <= 500 + 1000, "{} sessions", table.flows().len());
        assert_eq!(evicted, 99_000 + 500 - table.flows().len());
        for (i, id) in established.into_iter().enumerate() {
            assert_eq!(table.flows().find(KEY.flow(&key(i as u32)), &key(i as u32)), Some(id));
        }
        // The youngest attempts are still there: they may yet complete.
        assert!(table.flows().find(KEY.flow(&key(99_999)), &key(99_999)).is_some());
    }

    #[test]
    fn full_of_established_sessions_refuses() {
        let mut table = SessionTable::new(8, 2);
        for i in 0..8 {
            let (id, _) = open(&mut table, i).unwrap();
            table.get_mut(id).state = State::Established;
        }
        assert_eq!(open(&mut table, 8), Err(Full));
        let id = table.flows().find(KEY.flow(&key(3)), &key(3)).unwrap();
        table.close(id, names(&key(3), &Session::default()));
        assert!(open(&mut table, 8).is_ok());
    }

    #[test]
    fn replies_find_their_session_and_its_direction() {
        let mut table = SessionTable::new(8, 2);
        let reply = FlowKey::new(Addr::v4([10, 1, 1, 1]), Addr::v4([10, 0, 0, 9]), 8080, 0x1005, 6);
        let both = Names { forward: KEY.flow(&key(1)), reply: Some(KEY.flow(&reply)) };
        let session = Session { snat_port: 0x1005, ..Session::default() };
        let id = table.open(both, key(1), session, names, |_, _, _| ()).unwrap();
        assert_eq!(table.find(both.forward, &key(1), |_| false), Some((id, Direction::Forward)));
        assert_eq!(table.find(KEY.flow(&reply), &reply, |_| true), Some((id, Direction::Reply)));
        // Same port, other real server: not ours.
        assert_eq!(table.find(KEY.flow(&reply), &reply, |_| false), None);
        table.close(id, both);
        assert_eq!(table.find(KEY.flow(&reply), &reply, |_| true), None);
    }
}
