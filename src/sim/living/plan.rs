//! What a seed decides before the first turn: how many nodes there are, what they serve, for whom, and how bad the days are. And
//! the addresses and files that follow from it.

use crate::base::hash::mix;
use crate::base::rng::Rng;
use crate::base::{Addr, FlowKey, GroupId};
use crate::io::fault::Rates;
use crate::manage::config::{self, Config};
use crate::sim::plan::{FlowPlan, Method, Place, SERVER_PORT, Serving};
use crate::view::Persistence;
use crate::wire::protocol;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Real servers behind every virtual server.
pub const SERVERS: usize = 4;
/// Idle times of the nodes' configuration: no session ends by them before the world does.
const HALF_OPEN: &str = "30s";
/// See [`HALF_OPEN`].
const ESTABLISHED: &str = "600s";
/// Sessions of a worker, and as many steering sessions.
const SESSIONS: usize = 1024;
const SHARED: usize = 2 * SESSIONS;
const MANAGEMENT_PORT: u16 = 6601;
/// How clients keep their real servers, if they do; longer than the world lives.
pub const PERSISTENCE: Persistence = Persistence { ticks: 0, v4: 30, v6: 64 };
/// The groups besides that of all nodes, and their members.
const GROUPS: [(&str, &[usize]); 2] = [("some", &[0, 1]), ("one", &[2])];

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it is from.
    pub seed: u64,
    /// Nodes, at the end.
    pub nodes: usize,
    /// The last one is added while the cluster lives.
    pub joins: bool,
    /// Workers of each node.
    pub workers: usize,
    /// How long there are faults.
    pub faulty: Duration,
    /// Between two faults, on average.
    pub pace: Duration,
    /// What wires do while there are faults: hosts' and nodes' in front, the backplane, the management network.
    pub rates: [Rates; 3],
    /// Who talks to whom.
    pub flows: Vec<FlowPlan>,
    /// Clients of virtual servers that aren't local keep their real servers.
    pub persistent: bool,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A number from `low` to `high`, both inclusive.
fn between(rng: &mut Rng, low: u64, high: u64) -> u64 {
    low + rng.below(high - low + 1)
}

impl Plan {
    /// What the seed says, but for the number of nodes and the time of faults if those are given.
    pub fn draw(seed: u64, nodes: Option<usize>, faulty: Option<Duration>) -> Self {
        let rng = &mut Rng::new(mix(seed ^ 0x6c69_7669_6e67));
        let drawn = match rng.below(256) {
            // They cost as much as a hundred others.
            0 => between(rng, 8, 64),
            1..120 => 3,
            120..200 => 5,
            _ => between(rng, 4, 7),
        };
        let nodes = nodes.unwrap_or(drawn as usize);
        let time = ms(between(rng, 4000, 9000));
        let flows = between(rng, 12, 24);
        Self {
            seed,
            nodes,
            joins: nodes > 3 && rng.below(2) == 0,
            workers: between(rng, 1, 2) as usize,
            faulty: faulty.unwrap_or(time),
            pace: ms(between(rng, 300, 1500)),
            rates: [(); 3].map(|()| rates(rng)),
            flows: (0..flows as usize).map(|i| flow(rng, i)).collect(),
            persistent: rng.below(4) > 0,
        }
    }

    /// Nodes with which the cluster begins.
    pub fn founders(&self) -> usize {
        self.nodes - usize::from(self.joins)
    }

    /// A node's configuration.
    pub fn config(&self, node: usize) -> Config {
        let (file, cluster) = (self.node_file(node), self.cluster_file());
        let read = |path: &Path| match path.to_str() {
            Some("node.toml") => Ok(file.clone()),
            Some("cluster.toml") => Ok(cluster.clone()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        match config::load_from(&read, Path::new("node.toml"), None) {
            Ok(config) => config,
            Err(errors) => panic!("the simulator's own configuration is wrong: {errors}"),
        }
    }

    fn node_file(&self, node: usize) -> String {
        let queues = self.workers;
        format!(
            "profile = \"lab\"\ncluster = \"cluster.toml\"\n[node]\nname = \"{}\"\nadmin_socket = \"/n.sock\"\n\
             [log]\ndirectory = \"/log\"\nca = \"/ca\"\ncertificate = \"/certificate\"\nkey = \"/key\"\n\
             [tables]\nsessions = {SESSIONS}\nsteering_sessions = {SESSIONS}\n\
             shared_entries = {SHARED}\n\
             [timeouts]\nhalf_open = \"{HALF_OPEN}\"\nclosed = \"{HALF_OPEN}\"\nestablished = \"{ESTABLISHED}\"\n\
             udp = \"{ESTABLISHED}\"\nsteering = \"{ESTABLISHED}\"\n\
             [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\nmtu = 1500\nqueues = {queues}\n\
             [[port]]\nname = \"back\"\nrole = \"backplane\"\ndevice = \"memory\"\nmtu = 1700\n\
             [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"{}/16\"]\n\
             [[route]]\nto = \"192.168.0.0/16\"\nvia = \"{}\"\n",
            name(node),
            front(node),
            gateway(),
        )
    }

    fn cluster_file(&self) -> String {
        let mut file =
            "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\nmaglev_slots = 509\n".to_string();
        for node in 0..self.nodes {
            file += &format!(
                "[[node]]\nname = \"{0}\"\nbackplane = \"10.20.0.{1}\"\nworkers = {2}\nmanagement = \"{3}\"\n\
                 [[snat]]\naddress = \"{4}\"\nnode = \"{0}\"\n",
                name(node),
                node + 1,
                self.workers,
                management(node),
                snat(0, node),
            );
        }
        for (i, (group, nodes)) in GROUPS.iter().enumerate() {
            let members: Vec<_> = nodes.iter().map(|node| format!("\"{}\"", name(*node))).collect();
            file += &format!("[[group]]\nname = \"{group}\"\nmembers = [{}]\n", members.join(", "));
            for node in *nodes {
                let (address, node) = (snat(i + 1, *node), name(*node));
                file +=
                    &format!("[[snat]]\naddress = \"{address}\"\ngroup = \"{group}\"\nnode = \"{node}\"\n");
            }
        }
        let mut persistent = String::new();
        for (method, serving, protocol) in services() {
            let (vip, port) = (method.vip(false), serving.port());
            let proto = if protocol == protocol::UDP { "udp" } else { "tcp" };
            file += &format!(
                "[[virtual_server]]\nname = \"{proto}-{}-{port}\"\naddress = \"{vip}\"\nport = {port}\nprotocol = \"{proto}\"\n\
                 forward = \"{}\"\n{}health = {{ type = \"tcp\", port = 80, interval = \"500ms\", timeout = \"200ms\", \
                 rise = 2, fall = 2 }}\n",
                vip.v4_bytes()[3],
                method.forward(),
                match serving {
                    Serving::Steered => "",
                    Serving::Local => "ingress = \"local\"\n",
                    Serving::LocalGroup => "group = \"some\"\n",
                }
            );
            let port = if method == Method::Nat { format!("port = {SERVER_PORT}\n") } else { String::new() };
            if self.persistent && serving != Serving::Local {
                let Persistence { v4, v6, .. } = PERSISTENCE;
                persistent += &format!(
                    "[[persistence]]\nvirtual_server = \"{proto}-{}-{}\"\nprefix_v4 = {v4}\nprefix_v6 = {v6}\n",
                    vip.v4_bytes()[3],
                    serving.port()
                );
            }
            for i in 0..SERVERS {
                file += &format!(
                    "[[virtual_server.real_server]]\nname = \"s{i}\"\naddress = \"{}\"\n{port}",
                    server(i)
                );
            }
        }
        file + &persistent
    }
}

/// What is served: by whom and how. What packets call [`Serving::LocalGroup`] is steered here, to a group of two nodes.
fn services() -> impl Iterator<Item = (Method, Serving, u8)> {
    let each = [Method::Nat, Method::DsrL2, Method::Ipip].into_iter();
    let each = each.flat_map(|method| Serving::ALL.map(|serving| (method, serving)));
    each.filter(|(method, serving)| *method != Method::Nat || *serving == Serving::Steered)
        .flat_map(|(method, serving)| [protocol::TCP, protocol::UDP].map(|p| (method, serving, p)))
}

/// A node's name.
pub fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

fn front(node: usize) -> Addr {
    Addr::v4([10, 10, 1, node as u8 + 1])
}

/// The SNAT address of a node in a group: that of all nodes, or of [`GROUPS`] the one before this number.
pub fn snat(group: usize, node: usize) -> Addr {
    Addr::v4([10, 10, 4 + group as u8, node as u8 + 1])
}

/// The group of a SNAT address.
pub fn snat_group(address: Addr) -> Option<GroupId> {
    Some(GroupId(u16::from(address.0[14].checked_sub(4)?)))
}

/// Whether a node gives this source address to NATed flows.
pub fn is_snat(address: Addr, nodes: usize) -> bool {
    let groups = GROUPS
        .iter()
        .enumerate()
        .flat_map(|(i, (_, nodes))| nodes.iter().map(move |node| snat(i + 1, *node)));
    (0..nodes).map(|node| snat(0, node)).chain(groups).any(|snat| snat == address)
}

/// The groups by their names.
pub fn groups() -> [&'static str; 3] {
    ["all", GROUPS[0].0, GROUPS[1].0]
}

/// The address of a real server.
pub fn server(index: usize) -> Addr {
    Addr::v4([10, 10, 3, index as u8 + 1])
}

/// The real server that has this address.
pub fn server_at(address: Addr) -> Option<usize> {
    (0..SERVERS).find(|i| server(*i) == address)
}

/// The router's address in front.
pub fn gateway() -> Addr {
    Addr::v4([10, 10, 0, 254])
}

/// Where a node takes heartbeats and letters on the management network.
pub fn management(node: usize) -> SocketAddr {
    (Ipv4Addr::new(10, 30, 0, node as u8 + 1), MANAGEMENT_PORT).into()
}

/// The node that takes those.
pub fn node_at(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.octets()[3].checked_sub(1).map(usize::from),
        std::net::IpAddr::V6(_) => None,
    }
}

/// The virtual addresses.
pub fn vips() -> [Addr; 3] {
    [Method::Nat, Method::DsrL2, Method::Ipip].map(|method| method.vip(false))
}

fn rates(rng: &mut Rng) -> Rates {
    let most = [0, 50, 300, 1500][rng.below(4) as usize];
    let mut rate = || rng.below(most + 1);
    let (loss, duplicate, reorder) = (rate(), rate(), rate());
    Rates {
        loss,
        duplicate,
        reorder,
        corrupt: 0,
        delay: ms(rng.below(3)),
        jitter: ms(rng.below(4)),
        late: ms(40),
    }
}

fn flow(rng: &mut Rng, index: usize) -> FlowPlan {
    let all: Vec<_> = services().collect();
    let (method, serving, protocol) = all[rng.below(all.len() as u64) as usize];
    let client = Addr::v4([192, 168, 0, between(rng, 1, 20) as u8]);
    // The index makes the port, so that no two flows are one.
    let port = 1024 + (rng.below(250) * 256) as u16 + index as u16;
    FlowPlan {
        key: FlowKey::new(client, method.vip(false), port, serving.port(), protocol),
        method,
        serving,
        place: Place::Away,
        start: ms(rng.below(2000)),
        interval: ms(between(rng, 50, 400)),
        filler: rng.below(100) as usize,
        questions: between(rng, 5, 60) as u32,
        pause: ms(rng.below(150)),
        nap: Duration::ZERO,
    }
}
