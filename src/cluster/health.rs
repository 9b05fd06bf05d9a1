//! The health of real servers as the cluster has committed it.
//!
//! Nodes probe and report; the log's leader judges the reports and proposes [`Change`]s; what is committed is the same on
//! every node, and Views are compiled from it.

use crate::base::hash::{mix, siphash13_bytes};
use crate::base::{HashKey, RealServerId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;

/// Steps in which a real server that has come up gets its whole share of new flows.
pub const STEPS: u8 = 5;

/// Bytes of a reason that are kept.
pub const MAX_REASON: usize = 160;

/// What is known of a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Health {
    /// Nobody has judged it yet.
    #[default]
    Unknown,
    /// It serves, with this many of [`STEPS`] parts of its share.
    Up(u8),
    /// It doesn't.
    Down,
}

impl Health {
    /// Up with its whole share.
    pub const FULL: Self = Self::Up(STEPS);

    /// Whether it serves, with whatever share.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// A real server's committed health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is.
    pub health: Health,
    /// Why, for people; at most [`MAX_REASON`] bytes.
    pub reason: String,
}

/// What a leader proposes for one real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Whose.
    pub server: RealServerId,
    /// What it has to be when the change is applied. Else the change is void: it was proposed twice, or by a leader that
    /// knew less.
    pub from: Health,
    /// What it is from then on.
    pub to: Standing,
}

/// The committed health of all real servers that were ever judged. A deterministic value: equal changes in equal order
/// make equal content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standings {
    each: BTreeMap<RealServerId, Standing>,
    /// Of what counts, and of all.
    sums: [u64; 2],
}

impl Serialize for Standings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.each.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Standings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut standings = Self { each: BTreeMap::deserialize(from)?, sums: [0; 2] };
        for (server, standing) in &standings.each {
            let hashes = hashes(*server, standing);
            standings.sums = [0, 1].map(|i| standings.sums[i].wrapping_add(hashes[i]));
        }
        Ok(standings)
    }
}

/// What a standing adds to the sums.
fn hashes(server: RealServerId, standing: &Standing) -> [u64; 2] {
    let counts = match standing.health {
        Health::Unknown => 0,
        Health::Up(step) => mix(u64::from(server.0) << 8 | u64::from(step)),
        Health::Down => mix(u64::from(server.0) << 8 | 0xff),
    };
    let reason = siphash13_bytes(HashKey([0; 2]), standing.reason.as_bytes());
    [counts, mix(counts ^ mix(reason ^ u64::from(server.0)))]
}

impl Standings {
    /// Applies one change; false if it is void. Whether there is such a real server is the caller's business.
    pub fn apply(&mut self, change: &Change) -> bool {
        let sound = match change.to.health {
            Health::Up(step) => (1..=STEPS).contains(&step),
            Health::Unknown | Health::Down => true,
        };
        let applies = sound && self.health(change.server) == change.from && change.to.health != change.from;
        if applies {
            self.forget(change.server);
            let reason = shortened(&change.to.reason).to_owned();
            let standing = Standing { health: change.to.health, reason };
            let hashes = hashes(change.server, &standing);
            self.sums = [0, 1].map(|i| self.sums[i].wrapping_add(hashes[i]));
            self.each.insert(change.server, standing);
        }
        applies
    }

    /// Forgets a real server that is no more, or that is no longer checked; false if nothing was known of it.
    pub fn forget(&mut self, server: RealServerId) -> bool {
        let Some(standing) = self.each.remove(&server) else { return false };
        let hashes = hashes(server, &standing);
        self.sums = [0, 1].map(|i| self.sums[i].wrapping_sub(hashes[i]));
        true
    }

    /// A real server's health.
    pub fn health(&self, server: RealServerId) -> Health {
        self.each.get(&server).map_or(Health::Unknown, |standing| standing.health)
    }

    /// A real server's health and the reason for it, if it was ever judged.
    pub fn get(&self, server: RealServerId) -> Option<&Standing> {
        self.each.get(&server)
    }

    /// The same wherever the same was judged: of what counts, not of its reasons.
    pub fn digest(&self) -> u64 {
        self.sums[0]
    }

    /// The same, of the reasons too.
    pub fn whole_digest(&self) -> u64 {
        self.sums[1]
    }

    /// All that were judged, by id.
    pub fn iter(&self) -> impl Iterator<Item = (RealServerId, &Standing)> {
        self.each.iter().map(|(server, standing)| (*server, standing))
    }
}

/// The beginning of a reason, of at most [`MAX_REASON`] bytes and whole characters.
pub fn shortened(reason: &str) -> &str {
    let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(server: u32, from: Health, to: Health) -> Change {
        Change { server: RealServerId(server), from, to: Standing { health: to, reason: "because".into() } }
    }

    #[test]
    fn a_change_applies_once_and_to_what_it_was_made_for() {
        let mut standings = Standings::default();
        let server = RealServerId(7);
        assert_eq!(standings.health(server), Health::Unknown);
        let up = change(7, Health::Unknown, Health::Up(1));
        assert!(standings.apply(&up));
        assert!(!standings.apply(&up), "proposed twice");
        assert!(!standings.apply(&change(7, Health::Down, Health::FULL)), "by one that knew less");
        for unsound in [Health::Up(0), Health::Up(STEPS + 1), Health::Up(1)] {
            assert!(!standings.apply(&change(7, Health::Up(1), unsound)), "{unsound:?}");
        }
        assert_eq!(standings.health(server), Health::Up(1));
        assert!(standings.apply(&change(7, Health::Up(1), Health::Down)));
        assert_eq!(standings.get(server).map(|s| s.reason.as_str()), Some("because"));
        let bytes = postcard::to_allocvec(&standings).unwrap();
        assert_eq!(postcard::from_bytes::<Standings>(&bytes).unwrap(), standings);
        let (counts, whole) = (standings.digest(), standings.whole_digest());
        let again = Change {
            to: Standing { health: Health::FULL, reason: "other".into() },
            ..change(7, Health::Down, Health::FULL)
        };
        assert!(standings.apply(&again) && standings.apply(&change(7, Health::FULL, Health::Up(1))));
        let mut other = Standing { health: Health::Down, reason: "for another reason".into() };
        assert!(standings.apply(&Change { server, from: Health::Up(1), to: other.clone() }));
        assert_eq!(standings.digest(), counts);
        assert_ne!(standings.whole_digest(), whole);
        other.reason = "because".into();
        standings.apply(&change(7, Health::Down, Health::FULL));
        standings.apply(&Change { server, from: Health::FULL, to: other });
        assert_eq!((standings.digest(), standings.whole_digest()), (counts, whole));
        assert!(standings.forget(server) && !standings.forget(server));
        assert_eq!(standings, Standings::default());
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let mut standings = Standings::default();
        let mut long = change(1, Health::Unknown, Health::Down);
        long.to.reason = "é".repeat(MAX_REASON);
        long.to.reason.insert(0, 'x');
        standings.apply(&long);
        let kept = &standings.get(RealServerId(1)).unwrap().reason;
        assert_eq!(kept.len(), MAX_REASON - 1);
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(""), "");
    }
}
