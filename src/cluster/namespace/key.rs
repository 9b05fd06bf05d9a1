//! What objects are called.

use super::text::{Reason, check_name, parse_address};
use crate::base::Addr;
use crate::base::version::WireVersion;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a node, a group, a server: what [`check_name`] lets pass. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The group of all nodes, which exists by itself.
pub const ALL: &str = "all";

impl Name {
    /// From text, if it is a name.
    pub fn new(text: &str) -> Result<Self, Reason> {
        check_name(text).map(|()| Self(text.into()))
    }

    /// That of the group of all nodes.
    pub fn all() -> Self {
        Self(ALL.into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Sorts before all names.
    pub(super) fn least() -> Self {
        Self("".into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(usize)]
pub enum Kind {
    /// The cluster's settings, of which there is one.
    Cluster,
    /// A node.
    Node,
    /// A node group.
    Group,
    /// A SNAT address.
    Snat,
    /// What is particular to a VIP.
    Vip,
    /// What virtual servers have in common.
    Profile,
    /// A virtual server.
    VirtualServer,
    /// A real server of one virtual server.
    RealServer,
    /// A limit.
    Limit,
    /// How long a virtual server's clients keep their real servers.
    Persistence,
}

impl Kind {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 10] = [
        Self::Cluster,
        Self::Node,
        Self::Group,
        Self::Snat,
        Self::Vip,
        Self::Profile,
        Self::VirtualServer,
        Self::RealServer,
        Self::Limit,
        Self::Persistence,
    ];

    /// How many there were in the first release.
    pub(super) const FIRST: usize = 9;

    /// The wire version from which on all nodes know it.
    pub fn since(self) -> WireVersion {
        match self {
            Self::Persistence => WireVersion::KNOWS_PERSISTENCE,
            _ => WireVersion::FIRST,
        }
    }

    /// The word for it in keys and files.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Node => "node",
            Self::Group => "group",
            Self::Snat => "snat",
            Self::Vip => "vip",
            Self::Profile => "profile",
            Self::VirtualServer => "virtual_server",
            Self::RealServer => "real_server",
            Self::Limit => "limit",
            Self::Persistence => "persistence",
        }
    }
}

/// Names an object. As text: `cluster`, `node/n1`, `group/edge`, `snat/10.10.0.101`, `vip/203.0.113.1`, `profile/web`,
/// `virtual_server/web`, `virtual_server/web/real_server/s1`, `limit/guests`, `persistence/web`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The cluster's settings.
    Cluster,
    /// A node.
    Node(Name),
    /// A node group.
    Group(Name),
    /// A SNAT address.
    Snat(Addr),
    /// What is particular to a VIP.
    Vip(Addr),
    /// What virtual servers have in common.
    Profile(Name),
    /// A virtual server.
    VirtualServer(Name),
    /// A real server, behind its virtual server's name.
    RealServer(Name, Name),
    /// A limit.
    Limit(Name),
    /// How long this virtual server's clients keep their real servers.
    Persistence(Name),
}

impl Key {
    /// What it names.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster => Kind::Cluster,
            Self::Node(_) => Kind::Node,
            Self::Group(_) => Kind::Group,
            Self::Snat(_) => Kind::Snat,
            Self::Vip(_) => Kind::Vip,
            Self::Profile(_) => Kind::Profile,
            Self::VirtualServer(_) => Kind::VirtualServer,
            Self::RealServer(..) => Kind::RealServer,
            Self::Limit(_) => Kind::Limit,
            Self::Persistence(_) => Kind::Persistence,
        }
    }

    /// Sorts before all keys of a kind, and behind those of the kinds before.
    pub(super) fn first(kind: Kind) -> Self {
        let (name, address) = (Name::least(), Addr::UNSPECIFIED);
        match kind {
            Kind::Cluster => Self::Cluster,
            Kind::Node => Self::Node(name),
            Kind::Group => Self::Group(name),
            Kind::Snat => Self::Snat(address),
            Kind::Vip => Self::Vip(address),
            Kind::Profile => Self::Profile(name),
            Kind::VirtualServer => Self::VirtualServer(name),
            Kind::RealServer => Self::RealServer(name.clone(), name),
            Kind::Limit => Self::Limit(name),
            Kind::Persistence => Self::Persistence(name),
        }
    }

    /// Sorts before all real servers of a virtual server, and behind those of the names before.
    pub(super) fn first_real_server(virtual_server: &Name) -> Self {
        Self::RealServer(virtual_server.clone(), Name::least())
    }

    /// The last part of its text.
    pub fn called(&self) -> String {
        match self {
            Self::Cluster => Kind::Cluster.word().to_owned(),
            Self::Snat(address) | Self::Vip(address) => address.to_string(),
            Self::Node(name)
            | Self::Group(name)
            | Self::Profile(name)
            | Self::VirtualServer(name)
            | Self::RealServer(_, name)
            | Self::Limit(name)
            | Self::Persistence(name) => name.to_string(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("cluster"),
            Self::RealServer(server, name) => write!(f, "virtual_server/{server}/real_server/{name}"),
            Self::Snat(address) | Self::Vip(address) => write!(f, "{}/{address}", self.kind().word()),
            Self::Node(name)
            | Self::Group(name)
            | Self::Profile(name)
            | Self::VirtualServer(name)
            | Self::Limit(name)
            | Self::Persistence(name) => write!(f, "{}/{name}", self.kind().word()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Key {
    type Err = Reason;

    fn from_str(text: &str) -> Result<Self, Reason> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["cluster"] => Ok(Self::Cluster),
            ["node", name] => Name::new(name).map(Self::Node),
            ["group", name] => Name::new(name).map(Self::Group),
            ["snat", address] => parse_address(address).map(Self::Snat),
            ["vip", address] => parse_address(address).map(Self::Vip),
            ["profile", name] => Name::new(name).map(Self::Profile),
            ["limit", name] => Name::new(name).map(Self::Limit),
            ["persistence", name] => Name::new(name).map(Self::Persistence),
            ["virtual_server", name] => Name::new(name).map(Self::VirtualServer),
            ["virtual_server", server, "real_server", name] => {
                Ok(Self::RealServer(Name::new(server)?, Name::new(name)?))
            }
            _ => Err(Reason::new(format!("{:?} is no key", text.chars().take(200).collect::<String>())).hint(
                "keys are cluster, node/NAME, group/NAME, snat/ADDRESS, vip/ADDRESS, profile/NAME, limit/NAME, \
                 persistence/NAME, virtual_server/NAME and virtual_server/NAME/real_server/NAME",
            )),
        }
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
