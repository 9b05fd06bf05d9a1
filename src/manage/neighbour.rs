//! Who has which Ethernet address: next hops of the configuration, which are always wanted, and on-link neighbours that a
//! packet once needed. Workers ask and tell by events; what is known goes out with the next View.

use crate::base::limits::MAX_NEIGHBOURS;
use crate::base::{Instant, Mac};
use crate::table::wheel::Wheel;
use crate::view::{Hop, Neighbour};
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two questions to a neighbour that hasn't answered (RFC 4861 §10, RETRANS_TIMER).
const RETRY: Duration = Duration::from_secs(1);
/// Questions after which an unwanted neighbour is forgotten, and a wanted one's address no longer believed (RFC 4861 §10,
/// MAX_UNICAST_SOLICIT).
const TRIES: u32 = 3;
/// How long an answer is believed before it is asked for again.
const FRESH: Duration = Duration::from_secs(30);
/// How long a neighbour that the configuration doesn't want is remembered once the table is half full; who needs it longer
/// asks again.
const STRANGER: Duration = Duration::from_secs(120);
/// Timers that one turn fires.
const TIMER_SLICE: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    mac: Option<Mac>,
    /// When it last told.
    confirmed: Instant,
    /// Questions since then.
    asked: u32,
    /// Since when it is here; none for a next hop of the configuration, which is never forgotten.
    stranger_since: Option<Instant>,
}

/// See the module's text.
pub struct Neighbours {
    known: BTreeMap<Neighbour, Entry>,
    timers: Wheel<Neighbour>,
    changed: bool,
}

impl Neighbours {
    /// All of `hops` wanted, none known; the first questions are due at once.
    pub fn new(hops: &[Hop], now: Instant) -> Self {
        let mut new =
            Self { known: BTreeMap::new(), timers: Wheel::new(MAX_NEIGHBOURS + hops.len()), changed: false };
        for neighbour in hops.iter().filter(|hop| !hop.is_vacant()).map(Hop::place) {
            new.known.insert(neighbour, Entry { mac: None, confirmed: now, asked: 0, stranger_since: None });
            new.due(neighbour, now);
        }
        new
    }

    /// Wants `hops` from now on, whatever was wanted before; what is known stays known.
    pub fn want(&mut self, hops: &[Hop], now: Instant) {
        let mut wanted = Self::new(hops, now);
        for (neighbour, old) in std::mem::take(&mut self.known) {
            let room = wanted.known.len() < MAX_NEIGHBOURS;
            match wanted.known.get_mut(&neighbour) {
                // Its first question is due; who answered lately isn't asked again.
                Some(entry) => *entry = Entry { stranger_since: None, ..old },
                None if room => {
                    let stranger_since = old.stranger_since.or(Some(now));
                    wanted.known.insert(neighbour, Entry { stranger_since, ..old });
                    wanted.due(neighbour, now);
                }
                None => {}
            }
        }
        *self = Self { changed: true, ..wanted };
    }

    /// Every neighbour has one timer, so the wheel, which has room for all, takes it.
    fn due(&mut self, neighbour: Neighbour, at: Instant) {
        let scheduled = self.timers.schedule(at, neighbour);
        debug_assert!(scheduled.is_ok(), "a timer a neighbour");
    }

    /// A packet waits for `neighbour`.
    pub fn resolve(&mut self, neighbour: Neighbour, now: Instant) {
        if self.known.len() < MAX_NEIGHBOURS && !self.known.contains_key(&neighbour) {
            self.known
                .insert(neighbour, Entry { mac: None, confirmed: now, asked: 0, stranger_since: Some(now) });
            self.due(neighbour, now);
        }
    }

    /// `neighbour` has told its address. Of strangers only those that asked us are believed to matter.
    pub fn heard(&mut self, neighbour: Neighbour, mac: Mac, asked_us: bool, now: Instant) {
        let room = self.known.len() < MAX_NEIGHBOURS;
        match self.known.get_mut(&neighbour) {
            Some(entry) => {
                (entry.asked, entry.confirmed) = (0, now);
                self.changed |= entry.mac != Some(mac);
                entry.mac = Some(mac);
            }
            None if asked_us && room => {
                self.known.insert(
                    neighbour,
                    Entry { mac: Some(mac), confirmed: now, asked: 0, stranger_since: Some(now) },
                );
                self.due(neighbour, now + FRESH);
                self.changed = true;
            }
            None => {}
        }
    }

    /// Calls `ask` for every neighbour whose question is due; forgets those that don't answer.
    pub fn turn(&mut self, now: Instant, mut ask: impl FnMut(Neighbour)) {
        let mut again = Vec::new();
        let crowded = self.known.len() > MAX_NEIGHBOURS / 2;
        let (known, changed) = (&mut self.known, &mut self.changed);
        self.timers.advance(now, TIMER_SLICE, |neighbour| {
            let Some(entry) = known.get_mut(&neighbour) else { return };
            let stale = entry.confirmed + FRESH;
            if entry.mac.is_some() && entry.asked == 0 && now < stale {
                return again.push((neighbour, stale));
            }
            let old = crowded && entry.stranger_since.is_some_and(|since| now >= since + STRANGER);
            if entry.asked >= TRIES || old {
                *changed |= entry.mac.take().is_some();
                if entry.stranger_since.is_some() {
                    known.remove(&neighbour);
                    return;
                }
            }
            entry.asked = entry.asked.saturating_add(1);
            ask(neighbour);
            again.push((neighbour, now + RETRY));
        });
        for (neighbour, at) in again {
            self.due(neighbour, at);
        }
    }

    /// Whether anything has changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The address of a neighbour, if known.
    pub fn mac(&self, neighbour: Neighbour) -> Option<Mac> {
        self.known.get(&neighbour).and_then(|e| e.mac)
    }

    /// All that have told their address.
    pub fn known(&self) -> impl Iterator<Item = (Neighbour, Mac)> + '_ {
        self.known.iter().filter_map(|(n, e)| e.mac.map(|mac| (*n, mac)))
    }

    /// All, known or not, in order.
    pub fn all(&self) -> impl Iterator<Item = (Neighbour, Option<Mac>)> + '_ {
        self.known.iter().map(|(n, e)| (*n, e.mac))
    }

    /// Whether every wanted neighbour is known or has been asked for in vain.
    pub fn settled(&self) -> bool {
        self.known.values().all(|e| e.stranger_since.is_some() || e.mac.is_some() || e.asked >= TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Addr, InterfaceId};

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn neighbour(last: u8) -> Neighbour {
        Neighbour { interface: InterfaceId(0), address: Addr::v4([10, 0, 0, last]) }
    }

    /// Runs seconds `from..to` and counts the questions.
    fn run(table: &mut Neighbours, from: u64, to: u64, answer: bool) -> usize {
        let mut questions = 0;
        for hundredth in from * 100..to * 100 {
            let now = Instant::ZERO + Duration::from_millis(hundredth * 10);
            let mut asked = Vec::new();
            table.turn(now, |n| asked.push(n));
            questions += asked.len();
            if answer {
                asked.into_iter().for_each(|n| table.heard(n, MAC, false, now));
            }
        }
        questions
    }

    #[test]
    fn a_next_hop_is_asked_for_until_it_answers_and_seldom_after() {
        let hop = Hop { interface: InterfaceId(0), address: neighbour(1).address, mac: None };
        let mut table = Neighbours::new(&[hop], Instant::ZERO);
        assert!(!table.settled());
        let questions = run(&mut table, 0, 10, false);
        assert!((9..=10).contains(&questions), "{questions} questions in 10 s");
        assert!(table.settled(), "its chance is over");
        assert_eq!(table.mac(neighbour(1)), None);
        let questions = run(&mut table, 10, 130, true);
        assert!((4..=5).contains(&questions), "{questions} questions in 120 s");
        assert_eq!(table.mac(neighbour(1)), Some(MAC));
        assert!(table.take_changed());
        run(&mut table, 130, 170, false);
        assert_eq!(table.mac(neighbour(1)), None, "silent for too long");
        assert!(table.take_changed());
    }

    #[test]
    fn strangers_are_remembered_only_if_they_asked_us_or_are_needed() {
        let mut table = Neighbours::new(&[], Instant::ZERO);
        table.heard(neighbour(2), MAC, false, Instant::ZERO);
        assert_eq!(table.mac(neighbour(2)), None);
        table.heard(neighbour(2), MAC, true, Instant::ZERO);
        assert_eq!(table.mac(neighbour(2)), Some(MAC));
        table.resolve(neighbour(3), Instant::ZERO);
        assert_eq!(run(&mut table, 0, 1, true), 1, "one question");
        assert_eq!(table.known().count(), 2);
        run(&mut table, 1, 60, false);
        assert_eq!(table.all().count(), 0, "no answer, no entry");
    }
}
