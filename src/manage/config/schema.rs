//! Every key there is, by file: what unknown keys are told from, and what the documentation is held against.

use crate::cluster::namespace::text::nearest;

/// One key of a table.
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
}

/// What stands under a key.
pub(super) enum Kind {
    /// A scalar or an array of scalars.
    Value,
    /// `[name]`.
    Table(&'static [Key]),
    /// `[[name]]`.
    Array(&'static [Key]),
}

const fn v(name: &'static str) -> Key {
    Key { name, kind: Kind::Value }
}

const fn table(name: &'static str, keys: &'static [Key]) -> Key {
    Key { name, kind: Kind::Table(keys) }
}

const fn array(name: &'static str, keys: &'static [Key]) -> Key {
    Key { name, kind: Kind::Array(keys) }
}

const WORKERS: &[Key] = &[v("count"), v("cores"), v("management_core"), v("idle")];
const TABLES: &[Key] = &[v("sessions"), v("steering_sessions"), v("shared_entries"), v("steering_cache")];
const TIMEOUTS: &[Key] = &[v("half_open"), v("established"), v("closed"), v("udp"), v("steering")];
const DPDK: &[Key] = &[v("hugepages"), v("memory_mb"), v("buffers"), v("buffer_bytes"), v("eal_args")];
const PORT_DEFAULTS: &[Key] =
    &[v("mtu"), v("queues"), v("rx_descriptors"), v("tx_descriptors"), v("promiscuous")];
const PORT: &[Key] = &[
    v("name"),
    v("role"),
    v("device"),
    v("mtu"),
    v("queues"),
    v("rx_descriptors"),
    v("tx_descriptors"),
    v("promiscuous"),
];
const REAL_SERVER: &[Key] = &[v("name"), v("address"), v("port"), v("weight"), v("health")];

/// A profile: the tuning that a node file overrides.
pub(super) const PROFILE: &[Key] = &[
    table("workers", WORKERS),
    table("tables", TABLES),
    table("timeouts", TIMEOUTS),
    table("dpdk", DPDK),
    table("port_defaults", PORT_DEFAULTS),
];

/// The node file.
pub(super) const NODE: &[Key] = &[
    v("profile"),
    v("cluster"),
    table("node", &[v("name"), v("admin_socket")]),
    table(
        "log",
        &[
            v("directory"),
            v("ca"),
            v("certificate"),
            v("key"),
            v("stateless_without_quorum"),
            array("witness", &[v("name"), v("address")]),
        ],
    ),
    table("workers", WORKERS),
    table("tables", TABLES),
    table("timeouts", TIMEOUTS),
    table("dpdk", DPDK),
    table("port_defaults", PORT_DEFAULTS),
    array("port", PORT),
    array("interface", &[v("name"), v("port"), v("vlan"), v("addresses")]),
    array("route", &[v("to"), v("via")]),
];

/// The cluster file.
pub(super) const CLUSTER: &[Key] = &[
    table(
        "cluster",
        &[
            v("key"),
            v("key_file"),
            v("data_port"),
            v("control_port"),
            v("heartbeat"),
            v("suspicion"),
            v("backplane_prefix"),
            v("maglev_slots"),
        ],
    ),
    array("node", &[v("name"), v("backplane"), v("workers"), v("weight"), v("management")]),
    array("group", &[v("name"), v("members"), v("backups")]),
    array("snat", &[v("address"), v("group"), v("node")]),
    array("vip", &[v("address"), v("group"), v("preferred")]),
    array("persistence", &[v("virtual_server"), v("timeout"), v("prefix_v4"), v("prefix_v6")]),
    array("profile", &[v("name"), v("idle"), v("slow_start"), v("health")]),
    array(
        "limit",
        &[
            v("name"),
            v("virtual_server"),
            v("per"),
            v("connections"),
            v("connections_per_second"),
            v("packets_per_second"),
            v("bits_per_second"),
            v("unknown"),
        ],
    ),
    array(
        "virtual_server",
        &[
            v("name"),
            v("address"),
            v("port"),
            v("protocol"),
            v("group"),
            v("forward"),
            v("ingress"),
            v("profile"),
            v("idle"),
            v("slow_start"),
            v("health"),
            array("real_server", REAL_SERVER),
        ],
    ),
];

/// The key among `keys` called `name`.
pub(super) fn find<'a>(keys: &'a [Key], name: &str) -> Option<&'a Key> {
    keys.iter().find(|k| k.name == name)
}

/// The table, as it is written in a file, in which `name` is a key of `keys` or of a table below.
fn home(keys: &[Key], name: &str, at: &str) -> Option<String> {
    keys.iter().find_map(|key| {
        let path = if at.is_empty() { key.name.to_owned() } else { format!("{at}.{}", key.name) };
        let (below, header) = match key.kind {
            Kind::Value => return None,
            Kind::Table(below) => (below, format!("[{path}]")),
            Kind::Array(below) => (below, format!("[[{path}]]")),
        };
        if find(below, name).is_some() { Some(header) } else { home(below, name, &path) }
    })
}

/// What to say about `name`, which is no key of `keys`: the nearest that is, or where a key of this name belongs.
pub(super) fn suggest(keys: &[Key], name: &str) -> Option<String> {
    if let Some(near) = nearest(keys.iter().map(|k| k.name), name) {
        return Some(format!("did you mean `{near}`?"));
    }
    [(NODE, "node"), (CLUSTER, "cluster")].into_iter().find_map(|(file, called)| {
        // A table is meant rather than a key of its name.
        let is_header = find(file, name).is_some_and(|k| !matches!(k.kind, Kind::Value));
        let place = if is_header { Some("its top level".to_owned()) } else { home(file, name, "") }?;
        Some(format!("`{name}` belongs in the {called} file, in {place}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        assert_eq!(suggest(WORKERS, "cuont").as_deref(), Some("did you mean `count`?"));
        assert_eq!(
            suggest(WORKERS, "heartbeat").as_deref(),
            Some("`heartbeat` belongs in the cluster file, in [cluster]")
        );
        assert_eq!(
            suggest(NODE, "virtual_server").as_deref(),
            Some("`virtual_server` belongs in the cluster file, in its top level")
        );
        assert_eq!(suggest(WORKERS, "zebra"), None);
        assert_eq!(suggest(&[v("a")], "x"), None, "one letter for another is no typo");
    }
}
