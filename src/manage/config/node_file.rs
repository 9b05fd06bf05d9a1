//! The node file over its profile: each key read by itself; what hangs together is checked elsewhere.

use super::error::{At, Place, Problem};
use super::section::Section;
use super::value::{boolean, duration, host, integer, interface_address, name, prefix, size, text, word};
use super::{DpdkConfig, Idle, PortRole, TableConfig};
use crate::base::Addr;
use crate::base::limits::{BURST, MAX_FLOWS, MAX_INTERFACES, MAX_PORTS, MAX_ROUTES, MAX_WORKERS};
use crate::cluster::log::MAX_VOTERS;
use crate::cluster::namespace::prefix::Prefix;
use crate::io::LEAST_BUFFER_BYTES;
use std::path::PathBuf;

/// A Unix socket's path has 108 bytes with its final NUL (`unix(7)`).
const LONGEST_SOCKET_PATH: usize = 107;

/// Where an element stands and how messages name it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub place: Place,
    pub path: String,
}

impl Item {
    pub fn of(section: &Section<'_>) -> Self {
        Self { place: section.place, path: section.path.clone() }
    }
}

/// A node file; `None` is what was bad or missing, and said so.
pub(super) struct NodeFile {
    pub name: Option<At<String>>,
    pub admin_socket: Option<PathBuf>,
    pub count: Option<Option<At<u16>>>,
    pub cores: Option<Vec<At<usize>>>,
    pub management_core: Option<Option<At<usize>>>,
    pub idle: Option<Idle>,
    pub tables: Option<TableConfig>,
    pub dpdk: Option<DpdkConfig>,
    /// `None`: the list itself is broken.
    pub ports: Option<Vec<Port>>,
    pub interfaces: Option<Vec<Interface>>,
    pub routes: Option<Vec<Route>>,
    /// `Some(None)`: the node goes by its files alone.
    pub log: Option<Option<Log>>,
}

/// Paths as they stand in the file.
pub(super) struct Log {
    pub item: Item,
    pub directory: PathBuf,
    /// CA, certificate, key: all or none.
    pub tls: Option<[PathBuf; 3]>,
    pub stateless_without_quorum: bool,
    /// Names and addresses.
    pub witnesses: Vec<(String, String)>,
}

pub(super) struct Port {
    pub item: Item,
    pub name: Option<At<String>>,
    pub role: Option<At<PortRole>>,
    pub device: Option<At<String>>,
    pub mtu: Option<At<u16>>,
    pub queues: Option<Option<At<u16>>>,
    pub rx_descriptors: Option<At<u16>>,
    pub tx_descriptors: Option<At<u16>>,
    pub promiscuous: Option<bool>,
}

pub(super) struct Interface {
    pub item: Item,
    pub name: Option<At<String>>,
    pub port: Option<At<String>>,
    pub vlan: Option<Option<At<u16>>>,
    pub addresses: Option<Vec<At<Prefix>>>,
}

pub(super) struct Route {
    pub item: Item,
    pub to: Option<At<Prefix>>,
    pub via: Option<At<Addr>>,
}

/// Reads `root`, the node file's top level with the profiles' beneath it.
pub(super) fn read(root: &Section<'_>) -> NodeFile {
    let node = root.table("node");
    let name = node.required("name", name);
    let admin_socket = node.optional("admin_socket", socket_path);
    let admin_socket = match (admin_socket, &name) {
        (Some(Some(path)), _) => Some(path.value),
        (Some(None), Some(name)) => Some(PathBuf::from(format!("/run/steerage/{}.sock", name.value))),
        _ => None,
    };
    let workers = root.table("workers");
    let core = || size(0..=4095);
    let cores = workers.list("cores", core());
    let defaults = root.table("port_defaults");
    read_ports_defaults(&defaults);
    NodeFile {
        name,
        admin_socket,
        count: workers.optional("count", integer(1..=MAX_WORKERS as u16)),
        cores: cores.map(|all| all.map_or_else(Vec::new, |all| all.value)),
        management_core: workers.optional("management_core", core()),
        idle: workers
            .required("idle", word(&[("spin", Idle::Spin), ("adaptive", Idle::Adaptive)]))
            .map(|idle| idle.value),
        tables: read_tables(root),
        dpdk: read_dpdk(root),
        ports: bounded(root, "port", MAX_PORTS)
            .map(|all| all.into_iter().map(|section| read_port(&section.over(&defaults))).collect()),
        interfaces: bounded(root, "interface", MAX_INTERFACES)
            .map(|all| all.iter().map(read_interface).collect()),
        routes: bounded(root, "route", MAX_ROUTES).map(|all| all.iter().map(read_route).collect()),
        log: read_log(&root.table("log")),
    }
}

fn read_log(log: &Section<'_>) -> Option<Option<Log>> {
    if !log.exists() {
        return Some(None);
    }
    let path = |value: &toml::de::DeValue<'_>| text(value).map(PathBuf::from);
    let directory = log.required("directory", path);
    let tls = ["ca", "certificate", "key"].map(|key| log.optional(key, path));
    let tls = match tls {
        [Some(Some(ca)), Some(Some(certificate)), Some(Some(key))] => {
            Some(Some([ca, certificate, key].map(|at| at.value)))
        }
        [Some(None), Some(None), Some(None)] => Some(None),
        _ => {
            let problem = Problem::new("has some of `ca`, `certificate` and `key`, and not all");
            log.error(problem.hint("`steerage cluster init` makes all three"));
            None
        }
    };
    let stateless = log.optional("stateless_without_quorum", boolean);
    let witnesses = bounded(log, "witness", MAX_VOTERS)?;
    let witnesses: Option<Vec<_>> = witnesses
        .iter()
        .map(|witness| {
            let (name, address) = (witness.required("name", name), witness.required("address", text));
            Some((name?.value, address?.value))
        })
        .collect();
    Some(Some(Log {
        item: Item::of(log),
        directory: directory?.value,
        tls: tls?,
        stateless_without_quorum: stateless?.is_none_or(|serves| serves.value),
        witnesses: witnesses?,
    }))
}

/// The list of tables under `key`, if it has at most `most` elements.
pub(super) fn bounded<'a>(section: &Section<'a>, key: &'static str, most: usize) -> Option<Vec<Section<'a>>> {
    let all = section.tables(key)?;
    match all.get(most) {
        Some(first_too_many) => {
            let problem =
                Problem::new(format!("is one [[{key}]] of {}, and at most {most} are possible", all.len()));
            first_too_many.error(problem);
            None
        }
        None => Some(all),
    }
}

fn socket_path(value: &toml::de::DeValue<'_>) -> Result<PathBuf, Problem> {
    let path = text(value)?;
    if path.len() > LONGEST_SOCKET_PATH {
        let message =
            format!("the path has {} bytes; a socket's has at most {LONGEST_SOCKET_PATH}", path.len());
        return Err(Problem::new(message));
    }
    Ok(path.into())
}

fn read_tables(root: &Section<'_>) -> Option<TableConfig> {
    let tables = root.table("tables");
    let timeouts = root.table("timeouts");
    let entries = || size(16..=MAX_FLOWS as u32);
    let sessions = tables.required("sessions", entries());
    let steering_sessions = tables.required("steering_sessions", entries());
    let shared_entries = tables.required("shared_entries", entries());
    let steering_cache = tables.required("steering_cache", boolean);
    let half_open = timeouts.required("half_open", duration);
    let established = timeouts.required("established", duration);
    let closed = timeouts.required("closed", duration);
    let udp = timeouts.required("udp", duration);
    let steering = timeouts.required("steering", duration);
    Some(TableConfig {
        sessions: sessions?.value,
        steering_sessions: steering_sessions?.value,
        shared_entries: shared_entries?.value,
        steering_cache: steering_cache?.value,
        half_open: half_open?.value,
        established: established?.value,
        closed: closed?.value,
        udp: udp?.value,
        steering: steering?.value,
    })
}

fn read_dpdk(root: &Section<'_>) -> Option<DpdkConfig> {
    let dpdk = root.table("dpdk");
    let hugepages = dpdk.required("hugepages", boolean);
    let memory_mb = dpdk.required("memory_mb", integer(16..=1 << 20));
    let buffers = dpdk.required("buffers", integer(1024..=1 << 24));
    let buffer_bytes = dpdk.required("buffer_bytes", integer(LEAST_BUFFER_BYTES..=16_384));
    let eal_args = dpdk.list("eal_args", text);
    Some(DpdkConfig {
        hugepages: hugepages?.value,
        memory_mb: memory_mb?.value,
        buffers: buffers?.value,
        buffer_bytes: buffer_bytes?.value,
        eal_args: eal_args?.map_or_else(Vec::new, |all| all.value.into_iter().map(|arg| arg.value).collect()),
    })
}

fn mtu(value: &toml::de::DeValue<'_>) -> Result<u16, Problem> {
    // RFC 791: every host takes 576 bytes; the upper end is where jumbo frames end on common hardware.
    integer(576..=9_600)(value)
}

fn descriptors(value: &toml::de::DeValue<'_>) -> Result<u16, Problem> {
    let count: u16 = integer(BURST as u16 * 2..=32_768)(value)?;
    if !count.is_power_of_two() {
        let near = count.checked_next_power_of_two().unwrap_or(32_768);
        return Err(Problem::new(format!("{count} is no power of two")).hint(format!("{near} is the next")));
    }
    Ok(count)
}

/// Looks at the defaults by themselves, so that a bad one is said even if every port overrides it or there is none.
fn read_ports_defaults(defaults: &Section<'_>) {
    defaults.optional("mtu", mtu);
    defaults.optional("queues", integer::<u16>(1..=MAX_WORKERS as u16));
    defaults.optional("rx_descriptors", descriptors);
    defaults.optional("tx_descriptors", descriptors);
    defaults.optional("promiscuous", boolean);
}

fn read_port(port: &Section<'_>) -> Port {
    Port {
        item: Item::of(port),
        name: port.required("name", name),
        role: port.required("role", word(&[("front", PortRole::Front), ("backplane", PortRole::Backplane)])),
        device: port.required("device", text),
        mtu: port.required("mtu", mtu),
        queues: port.optional("queues", integer(1..=MAX_WORKERS as u16)),
        rx_descriptors: port.required("rx_descriptors", descriptors),
        tx_descriptors: port.required("tx_descriptors", descriptors),
        promiscuous: port.required("promiscuous", boolean).map(|p| p.value),
    }
}

fn read_interface(interface: &Section<'_>) -> Interface {
    let addresses = interface.list("addresses", interface_address);
    if let Some(none_or_empty) = &addresses
        && none_or_empty.as_ref().is_none_or(|all| all.value.is_empty())
    {
        interface.error(Problem::new("has no address").hint("write addresses = [\"10.0.0.1/24\"]"));
    }
    Interface {
        item: Item::of(interface),
        name: interface.required("name", name),
        port: interface.required("port", text),
        // IEEE 802.1Q §9.6: 0 and 4095 are no VLANs.
        vlan: interface.optional("vlan", integer(1..=4094)),
        addresses: addresses.map(|all| all.map_or_else(Vec::new, |all| all.value)),
    }
}

fn read_route(route: &Section<'_>) -> Route {
    Route { item: Item::of(route), to: route.required("to", prefix), via: route.required("via", host) }
}
