//! What nodes of different software have in common (MECHANISMS §6). A node reads the messages of two successive wire versions;
//! all speak the one that the cluster has decided upon, which is raised once every node can speak the next. So nodes are
//! renewed one by one while the cluster serves.

use crate::base::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// A version of the messages between nodes, and of what they decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WireVersion(pub u8);

impl WireVersion {
    /// The first that there was, and what a new cluster begins with.
    pub const FIRST: Self = Self(3);
    /// From here on heartbeats tell their sender's release.
    pub const TELLS_SOFTWARE: Self = Self(4);
    /// From here on nodes share state, and say who has all of it.
    pub const SHARES_STATE: Self = Self(4);
    /// From here on it is decided how long a group matters that a virtual server was in before.
    pub const KNOWS_FORMER_GROUPS: Self = Self(4);

    /// From here on clients keep their real servers.
    pub const KNOWS_PERSISTENCE: Self = Self(4);

    /// The oldest that this release reads: what is spoken where nothing is decided. It rises with each release that has a new
    /// version; what a version looks like doesn't, so formats go by the constants above.
    pub const OLDEST: Self = Self(3);
    /// The newest, the next one.
    pub const NEWEST: Self = Self(4);

    /// The newest that this node can speak.
    pub fn own() -> Self {
        if planted::is(Bug::SoftwareOld) { Self::OLDEST } else { Self::NEWEST }
    }

    /// Whether this node reads it.
    pub fn is_read(self) -> bool {
        (Self::OLDEST..=Self::own()).contains(&self)
    }
}

impl Default for WireVersion {
    fn default() -> Self {
        Self::FIRST
    }
}

impl std::fmt::Display for WireVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The release that a node runs, for people. All zero: not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Software(pub [u16; 3]);

impl Software {
    /// This one.
    pub const OWN: Self = Self([
        number(env!("CARGO_PKG_VERSION_MAJOR")),
        number(env!("CARGO_PKG_VERSION_MINOR")),
        number(env!("CARGO_PKG_VERSION_PATCH")),
    ]);

    /// Whether it was said.
    pub fn is_said(self) -> bool {
        self != Self::default()
    }
}

impl std::fmt::Display for Software {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

const fn number(text: &str) -> u16 {
    let (bytes, mut at, mut number) = (text.as_bytes(), 0, 0);
    while at < bytes.len() {
        number = number * 10 + (bytes[at] - b'0') as u16;
        at += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_successive_versions_are_read() {
        let read: Vec<_> = (0..=u8::MAX).filter(|version| WireVersion(*version).is_read()).collect();
        assert_eq!(read, [WireVersion::OLDEST.0, WireVersion::NEWEST.0]);
        assert_eq!(WireVersion::OLDEST.0 + 1, WireVersion::NEWEST.0);
    }

    #[test]
    fn software_is_the_packages() {
        assert_eq!(Software::OWN.to_string(), env!("CARGO_PKG_VERSION"));
        assert!(Software::OWN.is_said() && !Software::default().is_said());
    }
}
