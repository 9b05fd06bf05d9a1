//! What objects say. Fields, words and defaults are those of the cluster file.

use super::health::HealthSpec;
use super::key::{Key, Kind, Name};
use super::text::{address, duration, socket};
use crate::base::Addr;
use crate::base::limits::MAGLEV_SLOTS;
use crate::view::{Forward, Ingress, Protocol};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::net::SocketAddr;
use std::time::Duration;
use utoipa::ToSchema;

/// The cluster's settings. The secret isn't among them: each node has it in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSpec {
    /// UDP port of steered packets for worker 0 of a node; worker `i` has `data_port + i`.
    pub data_port: u16,
    /// UDP port of control frames.
    pub control_port: u16,
    /// Time between heartbeats.
    #[serde(with = "duration")]
    #[schema(value_type = String)]
    pub heartbeat: Duration,
    /// Silence after which a node counts as down.
    #[serde(with = "duration")]
    #[schema(value_type = String)]
    pub suspicion: Duration,
    /// Length of the prefix that is on the backplane's link; 24 for IPv4 and 64 for IPv6 unless set.
    pub backplane_prefix: Option<u8>,
    /// Slots of each Maglev table; a prime.
    pub maglev_slots: u32,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            data_port: 6600,
            control_port: 6599,
            heartbeat: Duration::from_millis(50),
            suspicion: Duration::from_millis(400),
            backplane_prefix: None,
            maglev_slots: MAGLEV_SLOTS as u32,
        }
    }
}

fn one() -> u32 {
    1
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its address on the backplane.
    #[serde(with = "address")]
    #[schema(value_type = String)]
    pub backplane: Addr,
    /// Its workers.
    pub workers: u16,
    /// Its share of the buckets, relative to the others'.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where the others reach its log and its heartbeats on the management network.
    #[serde(with = "socket", default)]
    #[schema(value_type = Option<String>)]
    pub management: Option<SocketAddr>,
}

/// A node group (MECHANISMS §2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Its nodes.
    #[schema(value_type = Vec<String>)]
    pub members: Vec<Name>,
    /// Nodes that serve while no member lives.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub backups: Vec<Name>,
}

/// A SNAT address, which its key names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SnatSpec {
    /// The group whose flows may use it.
    #[serde(default = "Name::all")]
    #[schema(value_type = String)]
    pub group: Name,
    /// The member that advertises it.
    #[schema(value_type = String)]
    pub node: Name,
}

/// What is particular to a VIP, which its key names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VipSpec {
    /// The group whose members advertise it: one that serves it.
    #[serde(default = "Name::all")]
    #[schema(value_type = String)]
    pub group: Name,
    /// The member that advertises it while it lives.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub preferred: Option<Name>,
}

/// What virtual servers have in common that name it; each may say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProfileSpec {
    /// Life of an idle established flow.
    #[serde(with = "duration::option")]
    #[schema(value_type = Option<String>)]
    pub idle: Option<Duration>,
    /// Time over which a real server that comes up gets its share.
    #[serde(with = "duration::option")]
    #[schema(value_type = Option<String>)]
    pub slow_start: Option<Duration>,
    /// How real servers are checked.
    pub health: Option<Box<HealthSpec>>,
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VirtualServerSpec {
    /// The VIP.
    #[serde(with = "address")]
    #[schema(value_type = String)]
    pub address: Addr,
    /// Port.
    pub port: u16,
    /// TCP or UDP.
    #[serde(default = "tcp")]
    #[schema(value_type = String)]
    pub protocol: Protocol,
    /// The nodes that serve it.
    #[serde(default = "Name::all")]
    #[schema(value_type = String)]
    pub group: Name,
    /// How packets reach real servers.
    #[schema(value_type = String)]
    pub forward: Forward,
    /// Who handles a packet.
    #[serde(default = "steered")]
    #[schema(value_type = String)]
    pub ingress: Ingress,
    /// What it has in common with others.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub profile: Option<Name>,
    /// Life of an idle established flow; the profile's, then the node's own, unless set.
    #[serde(with = "duration::option", default)]
    #[schema(value_type = Option<String>)]
    pub idle: Option<Duration>,
    /// Time over which a real server that comes up gets its share; the profile's, then none, unless set.
    #[serde(with = "duration::option", default)]
    #[schema(value_type = Option<String>)]
    pub slow_start: Option<Duration>,
    /// How real servers are checked that say nothing themselves; the profile's, then not at all, unless set.
    #[serde(default)]
    pub health: Option<Box<HealthSpec>>,
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn steered() -> Ingress {
    Ingress::Steered
}

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RealServerSpec {
    /// Its address.
    #[serde(with = "address")]
    #[schema(value_type = String)]
    pub address: Addr,
    /// Its port; the virtual server's unless set.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share of new flows; with zero it is drained.
    #[serde(default = "one")]
    pub weight: u32,
    /// How it is checked; as the virtual server says unless set.
    #[serde(default)]
    pub health: Option<Box<HealthSpec>>,
}

/// How long a virtual server's clients keep the real server that they have (MECHANISMS §3 point 3). Its key names the virtual
/// server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PersistenceSpec {
    /// Since its last connection.
    #[serde(with = "duration")]
    #[schema(value_type = String)]
    pub timeout: Duration,
    /// Length of the prefix that makes IPv4 clients one.
    pub prefix_v4: u8,
    /// Of IPv6 clients.
    pub prefix_v6: u8,
}

impl Default for PersistenceSpec {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), prefix_v4: 32, prefix_v6: 128 }
    }
}

/// Whom a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// All clients together.
    VirtualServer,
    /// Each client address.
    Client,
}

/// What holds while nobody knows how much is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unknown {
    /// Refuse.
    Strict,
    /// Each node gives its share of the limit.
    Loose,
}

/// A limit (MECHANISMS §3 point 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// The virtual server; all of them together unless set.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub virtual_server: Option<Name>,
    /// Whom it counts.
    #[serde(default = "per_virtual_server")]
    pub per: Per,
    /// Connections at a time.
    #[serde(default)]
    pub connections: Option<u64>,
    /// New connections a second.
    #[serde(default)]
    pub connections_per_second: Option<u64>,
    /// Packets a second from clients.
    #[serde(default)]
    pub packets_per_second: Option<u64>,
    /// Bits a second from clients.
    #[serde(default)]
    pub bits_per_second: Option<u64>,
    /// What holds while nobody knows how much is used.
    #[serde(default = "strict")]
    pub unknown: Unknown,
}

fn per_virtual_server() -> Per {
    Per::VirtualServer
}

fn strict() -> Unknown {
    Unknown::Strict
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each is what its type says
pub enum Object {
    Cluster(ClusterSpec),
    Node(NodeSpec),
    Group(GroupSpec),
    Snat(SnatSpec),
    Vip(VipSpec),
    Profile(ProfileSpec),
    VirtualServer(Box<VirtualServerSpec>),
    RealServer(RealServerSpec),
    Limit(Box<LimitSpec>),
    Persistence(PersistenceSpec),
}

impl Object {
    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Cluster(_) => Kind::Cluster,
            Self::Node(_) => Kind::Node,
            Self::Group(_) => Kind::Group,
            Self::Snat(_) => Kind::Snat,
            Self::Vip(_) => Kind::Vip,
            Self::Profile(_) => Kind::Profile,
            Self::VirtualServer(_) => Kind::VirtualServer,
            Self::RealServer(_) => Kind::RealServer,
            Self::Limit(_) => Kind::Limit,
            Self::Persistence(_) => Kind::Persistence,
        }
    }

    /// Reads the fields of an object that is known to be of `kind`, as the admin API gets them.
    pub fn read<'de, D: Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
        Ok(match kind {
            Kind::Cluster => Self::Cluster(ClusterSpec::deserialize(from)?),
            Kind::Node => Self::Node(NodeSpec::deserialize(from)?),
            Kind::Group => Self::Group(GroupSpec::deserialize(from)?),
            Kind::Snat => Self::Snat(SnatSpec::deserialize(from)?),
            Kind::Vip => Self::Vip(VipSpec::deserialize(from)?),
            Kind::Profile => Self::Profile(ProfileSpec::deserialize(from)?),
            Kind::VirtualServer => Self::VirtualServer(Box::deserialize(from)?),
            Kind::RealServer => Self::RealServer(RealServerSpec::deserialize(from)?),
            Kind::Limit => Self::Limit(Box::deserialize(from)?),
            Kind::Persistence => Self::Persistence(PersistenceSpec::deserialize(from)?),
        })
    }

    /// Writes the fields alone, as [`Self::read`] reads them.
    pub fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Cluster(spec) => spec.serialize(to),
            Self::Node(spec) => spec.serialize(to),
            Self::Group(spec) => spec.serialize(to),
            Self::Snat(spec) => spec.serialize(to),
            Self::Vip(spec) => spec.serialize(to),
            Self::Profile(spec) => spec.serialize(to),
            Self::VirtualServer(spec) => spec.serialize(to),
            Self::RealServer(spec) => spec.serialize(to),
            Self::Limit(spec) => spec.serialize(to),
            Self::Persistence(spec) => spec.serialize(to),
        }
    }

    /// The objects that it names under this key, with the fields that do. The group of all nodes is none, nor is a real server's
    /// virtual server, of which it is a part.
    pub fn references(&self, key: &Key) -> Vec<(&'static str, Key)> {
        let group = |name: &Name| (*name != *super::key::ALL).then(|| ("group", Key::Group(name.clone())));
        match self {
            Self::Cluster(_) | Self::Node(_) | Self::Profile(_) | Self::RealServer(_) => Vec::new(),
            Self::Group(spec) => {
                let members = spec.members.iter().map(|name| ("members", Key::Node(name.clone())));
                members.chain(spec.backups.iter().map(|name| ("backups", Key::Node(name.clone())))).collect()
            }
            Self::Snat(spec) => {
                group(&spec.group).into_iter().chain([("node", Key::Node(spec.node.clone()))]).collect()
            }
            Self::Vip(spec) => {
                let preferred = spec.preferred.iter().map(|name| ("preferred", Key::Node(name.clone())));
                group(&spec.group).into_iter().chain(preferred).collect()
            }
            Self::VirtualServer(spec) => {
                let profile = spec.profile.iter().map(|name| ("profile", Key::Profile(name.clone())));
                group(&spec.group).into_iter().chain(profile).collect()
            }
            Self::Limit(spec) => {
                let server = spec.virtual_server.iter();
                server.map(|name| ("virtual_server", Key::VirtualServer(name.clone()))).collect()
            }
            Self::Persistence(_) => match key {
                Key::Persistence(name) => vec![("virtual_server", Key::VirtualServer(name.clone()))],
                _ => Vec::new(),
            },
        }
    }
}
