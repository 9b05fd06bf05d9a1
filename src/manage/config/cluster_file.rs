//! The cluster file: each key read by itself; what hangs together is checked elsewhere.

use super::error::{At, Problem};
use super::node_file::{Item, bounded};
use super::section::Section;
use super::value::{self, duration, host, integer, name, size, text, word};
use crate::base::Addr;
use crate::base::limits::{
    MAGLEV_SLOTS, MAX_GROUPS, MAX_NODES, MAX_REAL_SERVERS, MAX_SNATS, MAX_VIRTUAL_SERVERS, MAX_WORKERS,
};
use crate::view::{Forward, Ingress, Protocol};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The group that every node is in.
pub(super) const ALL: &str = "all";
/// The largest weight: sums of weights must stay far from overflow.
const MAX_WEIGHT: u32 = 10_000;
/// A table of this many slots is 16 MB for each virtual server.
const MAX_SLOTS: u32 = 1 << 22;

/// A cluster file; `None` is what was bad or missing, and said so.
pub(super) struct ClusterFile {
    pub secret: Option<Vec<u8>>,
    pub data_port: Option<At<u16>>,
    pub control_port: Option<At<u16>>,
    pub heartbeat: Option<At<Duration>>,
    pub suspicion: Option<At<Duration>>,
    pub backplane_prefix: Option<Option<At<u8>>>,
    pub maglev_slots: Option<At<usize>>,
    /// `None`: the list itself is broken.
    pub nodes: Option<Vec<Member>>,
    pub groups: Option<Vec<Group>>,
    pub snats: Option<Vec<Snat>>,
    pub virtual_servers: Option<Vec<VirtualServer>>,
}

pub(super) struct Member {
    pub item: Item,
    pub name: Option<At<String>>,
    pub backplane: Option<At<Addr>>,
    pub workers: Option<At<u16>>,
    pub weight: Option<At<u32>>,
}

pub(super) struct Group {
    pub item: Item,
    pub name: Option<At<String>>,
    pub members: Option<At<Vec<At<String>>>>,
}

pub(super) struct Snat {
    pub item: Item,
    pub address: Option<At<Addr>>,
    pub group: Option<At<String>>,
    pub node: Option<At<String>>,
}

pub(super) struct VirtualServer {
    pub item: Item,
    pub name: Option<At<String>>,
    pub address: Option<At<Addr>>,
    pub port: Option<At<u16>>,
    pub protocol: Option<At<Protocol>>,
    pub group: Option<At<String>>,
    pub forward: Option<At<Forward>>,
    pub ingress: Option<At<Ingress>>,
    pub idle: Option<Option<At<Duration>>>,
    pub real_servers: Option<Vec<RealServer>>,
}

pub(super) struct RealServer {
    pub item: Item,
    pub name: Option<At<String>>,
    pub address: Option<At<Addr>>,
    pub port: Option<Option<At<u16>>>,
    pub weight: Option<At<u32>>,
}

/// Reads `root`, the cluster file's top level. `path` is the file's own: a key file's is relative to it.
pub(super) fn read(
    root: &Section<'_>,
    path: &Path,
    reader: &dyn Fn(&Path) -> io::Result<String>,
) -> ClusterFile {
    let cluster = root.table("cluster");
    ClusterFile {
        secret: read_secret(&cluster, path, reader),
        data_port: cluster.or("data_port", integer(1..=u16::MAX), 6600),
        control_port: cluster.or("control_port", integer(1..=u16::MAX), 6599),
        heartbeat: cluster.or("heartbeat", duration, Duration::from_millis(50)),
        suspicion: cluster.or("suspicion", duration, Duration::from_millis(400)),
        backplane_prefix: cluster.optional("backplane_prefix", integer(1..=128)),
        maglev_slots: cluster.or("maglev_slots", size(3..=MAX_SLOTS), MAGLEV_SLOTS),
        nodes: bounded(root, "node", MAX_NODES).map(|all| all.iter().map(read_member).collect()),
        groups: bounded(root, "group", MAX_GROUPS - 1).map(|all| all.iter().map(read_group).collect()),
        snats: bounded(root, "snat", MAX_SNATS).map(|all| all.iter().map(read_snat).collect()),
        virtual_servers: bounded(root, "virtual_server", MAX_VIRTUAL_SERVERS)
            .map(|all| all.iter().map(read_virtual_server).collect()),
    }
}

fn read_secret(
    cluster: &Section<'_>,
    path: &Path,
    reader: &dyn Fn(&Path) -> io::Result<String>,
) -> Option<Vec<u8>> {
    let read_key = |v: &toml::de::DeValue<'_>| value::key(&text(v)?);
    let read_file = |v: &toml::de::DeValue<'_>| {
        let file = path.parent().unwrap_or(Path::new("")).join(PathBuf::from(text(v)?));
        let text = reader(&file).map_err(|e| Problem::new(format!("can't read {}: {e}", file.display())))?;
        value::key(text.trim())
    };
    let inline = cluster.optional("key", read_key);
    let file = cluster.optional("key_file", read_file);
    match (inline?, file?) {
        (Some(key), None) | (None, Some(key)) => Some(key.value),
        (Some(_), Some(file)) => {
            cluster.error_at(
                file.place,
                "key_file",
                Problem::new("stands beside `key`").hint("keep one of the two"),
            );
            None
        }
        (None, None) => cluster.required("key", read_key).map(|key| key.value),
    }
}

fn read_member(node: &Section<'_>) -> Member {
    Member {
        item: Item::of(node),
        name: node.required("name", name),
        backplane: node.required("backplane", host),
        workers: node.required("workers", integer(1..=MAX_WORKERS as u16)),
        weight: node.or("weight", integer(0..=MAX_WEIGHT), 1),
    }
}

fn read_group(group: &Section<'_>) -> Group {
    let members = group.list("members", name);
    if let Some(none_or_empty) = &members
        && none_or_empty.as_ref().is_none_or(|all| all.value.is_empty())
    {
        let place = none_or_empty.as_ref().map_or(group.place, |all| all.place);
        group.sink.error(place, group.path.as_str(), Problem::new("has no member"));
    }
    Group { item: Item::of(group), name: group.required("name", name), members: members.flatten() }
}

fn read_snat(snat: &Section<'_>) -> Snat {
    Snat {
        item: Item::of(snat),
        address: snat.required("address", host),
        group: snat.or("group", name, ALL.to_owned()),
        node: snat.required("node", name),
    }
}

fn read_virtual_server(server: &Section<'_>) -> VirtualServer {
    VirtualServer {
        item: Item::of(server),
        name: server.required("name", name),
        address: server.required("address", host),
        port: server.required("port", integer(1..=u16::MAX)),
        protocol: server.or(
            "protocol",
            word(&[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)]),
            Protocol::Tcp,
        ),
        group: server.or("group", name, ALL.to_owned()),
        forward: server.required(
            "forward",
            word(&[
                ("nat", Forward::Nat),
                ("dsr-l2", Forward::DsrL2),
                ("ipip", Forward::Ipip),
                ("gue", Forward::Gue),
            ]),
        ),
        ingress: server.or(
            "ingress",
            word(&[("steered", Ingress::Steered), ("local", Ingress::Local)]),
            Ingress::Steered,
        ),
        idle: server.optional("idle", duration),
        real_servers: bounded(server, "real_server", MAX_REAL_SERVERS)
            .map(|all| all.iter().map(read_real_server).collect()),
    }
}

fn read_real_server(real: &Section<'_>) -> RealServer {
    RealServer {
        item: Item::of(real),
        name: real.required("name", name),
        address: real.required("address", host),
        port: real.optional("port", integer(1..=u16::MAX)),
        weight: real.or("weight", integer(0..=MAX_WEIGHT), 1),
    }
}
