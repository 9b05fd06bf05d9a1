//! This machine: workers, ports, interfaces, routes.

use super::super::error::{At, Place, Problem, Sink};
use super::super::node_file::{NodeFile, Port};
use super::super::{InterfaceConfig, PortConfig, PortRole, RouteConfig, WorkerConfig};
use super::{Claims, Names, Net, Unique, subnet, twice};
use crate::base::limits::HEADROOM;
use crate::base::{InterfaceId, PortId};
use crate::cluster::namespace::prefix::{Prefix, contains, overlap};
use crate::io::pcap;
use crate::path::port::DeviceConfig;
use crate::wire::{backplane::HEADER_LEN, ipip, udp};
use std::path::Path;

/// The smallest MTU of a link that carries IPv6 (RFC 8200 §5).
pub(super) const MIN_V6_MTU: u16 = 1280;
/// What stands in front of the packet's headroom in every buffer: a mempool's object header and `struct rte_mbuf`, in bytes.
const BUFFER_HEADER: u64 = 64 + 128;
/// A pointer to each buffer, in a ring whose size is a power of two, in bytes.
const RING_SLOTS: u64 = 16;
const CACHE_LINE: u64 = 64;
/// Without hugepages, DPDK lets no buffer cross the end of a page.
const PAGE: u64 = 4096;
/// Buffers of each port's pool for control frames.
const CONTROL_BUFFERS: u64 = 2048;
/// What a port needs beside its buffers, in bytes: above all the caches that both pools have for 128 threads, measured 3 MB.
const PORT_BYTES: u64 = 4 << 20;

/// Workers and their cores. `expected` is what the cluster file says of this node, `available` the machine's cores.
pub(super) fn workers(
    sink: &Sink,
    node: &NodeFile,
    expected: Option<At<u16>>,
    available: Option<&[usize]>,
) -> Option<WorkerConfig> {
    let stated = node.count?;
    if let (Some(stated), Some(expected), Some(name)) = (stated, expected, &node.name)
        && stated.value != expected.value
    {
        let message = format!(
            "{} here, but the cluster file says {} of node {:?} ({})",
            stated.value,
            expected.value,
            name.value,
            sink.show(expected.place)
        );
        let hint = "the other nodes go by the cluster file; leave `count` out to do the same";
        sink.error(stated.place, "workers.count", Problem::new(message).hint(hint));
    }
    let exists = |core: &At<usize>, key| {
        if let Some(available) = available
            && !available.contains(&core.value)
        {
            let message = format!("core {} does not exist here, or this process may not use it", core.value);
            let mut all: Vec<String> = available.iter().take(16).map(usize::to_string).collect();
            if available.len() > all.len() {
                all.push("…".to_owned());
            }
            let hint = format!("this process may use {}", all.join(", "));
            sink.error(core.place, key, Problem::new(message).hint(hint));
        }
    };
    let mut used = Unique::new();
    for core in node.cores.iter().flatten() {
        exists(core, "workers.cores");
        if used.add(core.value, core.place).is_some() {
            let message = format!("core {} is used twice: a worker fills a core", core.value);
            sink.error(core.place, "workers.cores", Problem::new(message));
        }
    }
    if let Some(Some(core)) = &node.management_core {
        exists(core, "workers.management_core");
        if used.add(core.value, core.place).is_some() {
            let message = format!("core {} is a worker's", core.value);
            sink.error(core.place, "workers.management_core", Problem::new(message));
        }
    }
    let count = stated.or(expected).map(|count| count.value);
    let cores = node.cores.as_ref()?;
    if let (Some(count), Some(first)) = (count, cores.first())
        && cores.len() != usize::from(count)
    {
        let message = format!("{} for {count} workers", cores.len());
        sink.error(
            first.place,
            "workers.cores",
            Problem::new(message).hint("name one for each worker, or none"),
        );
    }
    Some(WorkerConfig {
        count: count?,
        cores: cores.iter().map(|core| core.value).collect(),
        management_core: node.management_core?.map(|core| core.value),
        idle: node.idle?,
    })
}

/// What must not be opened twice, if there is such a thing: a PCI device, or a virtual one's name.
fn exclusive(device: &str) -> Option<&str> {
    let shared = device == "memory" || device.starts_with("pcap:");
    if shared { None } else { device.split(',').next() }
}

/// A capture file that is written must not be used otherwise, too. (Here by name; links are found out at start.)
fn capture_files(sink: &Sink, ports: &[Port]) {
    let mut used: Vec<(&Path, bool, Place)> = Vec::new();
    for port in ports {
        let Some(device) = &port.device else { continue };
        let Some((input, output)) = pcap::files(&device.value) else { continue };
        for (path, written) in [(input, false), (output, true)] {
            let clash = used.iter().find(|(other, theirs, _)| *other == path && (written || *theirs));
            if let Some((_, _, first)) = clash.filter(|_| !path.starts_with("/dev")) {
                let message = format!(
                    "the capture file {} is written, and stands twice, first at {}",
                    path.display(),
                    sink.show(*first)
                );
                let problem = Problem::new(message).hint("give each output a file of its own");
                sink.error(device.place, port.item.path.as_str(), problem);
            }
            used.push((path, written, device.place));
        }
    }
}

/// Ports. `workers` poll them; `nodes` are in the cluster.
pub(super) fn ports(
    sink: &Sink,
    node: &NodeFile,
    workers: Option<u16>,
    nodes: Option<usize>,
    top: Place,
) -> Option<Vec<PortConfig>> {
    let ports = node.ports.as_ref()?;
    capture_files(sink, ports);
    let mut devices = Unique::new();
    let mut backplane: Option<&Port> = None;
    for port in ports {
        if let Some(device) = &port.device
            && let Some(name) = exclusive(&device.value)
            && let Some(first) = devices.add(name, device.place)
        {
            sink.error(
                device.place,
                port.item.path.as_str(),
                twice(&format!("the device {name}"), sink, first),
            );
        }
        if let (Some(Some(queues)), Some(workers)) = (&port.queues, workers)
            && queues.value > workers
        {
            let message = format!("{} for {workers} workers: nobody would poll the others", queues.value);
            sink.error(queues.place, format!("{}: queues", port.item.path), Problem::new(message));
        }
        if let Some(role) = &port.role
            && role.value == PortRole::Backplane
        {
            match backplane {
                Some(first) => {
                    let message =
                        format!("a second backplane port; the first is at {}", sink.show(first.item.place));
                    sink.error(role.place, port.item.path.as_str(), Problem::new(message));
                }
                None => backplane = Some(port),
            }
        }
    }
    let roles: Option<Vec<PortRole>> = ports.iter().map(|port| port.role.map(|role| role.value)).collect();
    if let Some(roles) = roles {
        if !roles.contains(&PortRole::Front) {
            sink.error(top, "port", Problem::new("there is no port with role = \"front\""));
        }
        if let (None, Some(nodes @ 2..)) = (backplane, nodes) {
            let message =
                format!("there is no port with role = \"backplane\", and the cluster has {nodes} nodes");
            sink.error(top, "port", Problem::new(message));
        }
    }
    Names::new(sink, Some(ports), |port| (&port.item, port.name.as_ref()));
    ports
        .iter()
        .map(|port| {
            Some(PortConfig {
                role: port.role?.value,
                device: DeviceConfig {
                    name: port.name.as_ref()?.value.clone(),
                    device: port.device.as_ref()?.value.clone(),
                    queues: queues(port, workers?)?,
                    mtu: port.mtu?.value,
                    rx_descriptors: port.rx_descriptors?.value,
                    tx_descriptors: port.tx_descriptors?.value,
                    promiscuous: port.promiscuous?,
                },
            })
        })
        .collect()
}

fn queues(port: &Port, workers: u16) -> Option<u16> {
    Some(port.queues?.map_or(workers, |queues| queues.value))
}

/// The backplane must carry whatever a front port receives, with the encapsulation in front of it.
pub(super) fn check_backplane_mtu(
    sink: &Sink,
    node: &NodeFile,
    nodes: Option<usize>,
    backplane: Option<Prefix>,
) {
    let of_role = |role| {
        let all = node.ports.iter().flatten();
        all.filter(move |port| port.role.is_some_and(|r| r.value == role))
            .filter_map(|port| Some((port, port.mtu?)))
    };
    let (Some((port, mtu)), Some((front, front_mtu)), Some(subnet), Some(2..)) = (
        of_role(PortRole::Backplane).next(),
        of_role(PortRole::Front).max_by_key(|(_, mtu)| mtu.value),
        backplane,
        nodes,
    ) else {
        return;
    };
    let encapsulation = ipip::outer_len(subnet.0) + udp::HEADER_LEN + HEADER_LEN;
    let needed = usize::from(front_mtu.value) + encapsulation;
    if usize::from(mtu.value) < needed {
        let message = format!(
            "an MTU of {} is too small: the {} of {} and {encapsulation} of encapsulation make {needed}",
            mtu.value, front_mtu.value, front.item.path
        );
        let hint = format!(
            "set mtu = {needed} or more here and on the backplane's switch, or a smaller one in front"
        );
        // A default of the profile is not what is wrong: the port is, which leaves it at that.
        let place = if mtu.place.file == port.item.place.file { mtu.place } else { port.item.place };
        sink.error(place, format!("{}: mtu", port.item.path), Problem::new(message).hint(hint));
    }
}

/// Rings must not hold a port's whole pool, and the pools must fit into the memory reserved.
pub(super) fn check_memory(sink: &Sink, node: &NodeFile, workers: Option<u16>) {
    let (Some(dpdk), Some(ports), Some(workers)) = (&node.dpdk, &node.ports, workers) else { return };
    for port in ports {
        let (Some(queues), Some(rx), Some(tx)) =
            (queues(port, workers), port.rx_descriptors, port.tx_descriptors)
        else {
            continue;
        };
        let held = u32::from(queues) * (u32::from(rx.value) + u32::from(tx.value));
        if held > dpdk.buffers {
            let message = format!("its rings can hold {held} buffers, and its pool has {}", dpdk.buffers);
            let hint = "raise dpdk.buffers, or lower rx_descriptors and tx_descriptors";
            sink.error(port.item.place, port.item.path.as_str(), Problem::new(message).hint(hint));
        }
    }
    let pools =
        ports.iter().filter(|p| p.device.as_ref().is_some_and(|d| exclusive(&d.value).is_some())).count();
    let buffer = buffer_memory(u64::from(dpdk.buffer_bytes), dpdk.hugepages);
    let buffers = u64::from(dpdk.buffers) + CONTROL_BUFFERS;
    let needed = (pools as u64 * (buffers * (buffer + RING_SLOTS) + PORT_BYTES)).div_ceil(1 << 20);
    if needed > u64::from(dpdk.memory_mb)
        && let Some(port) = ports.first()
    {
        let message = format!(
            "{} is too little: {pools} ports of {} buffers of {buffer} bytes each{} need {needed}",
            dpdk.memory_mb,
            dpdk.buffers,
            if dpdk.hugepages { "" } else { " without hugepages" }
        );
        sink.error(
            port.item.place,
            "dpdk.memory_mb",
            Problem::new(message).hint("raise it, or lower dpdk.buffers"),
        );
    }
}

/// Memory that a buffer for `bytes` of packet takes, in bytes: an odd number of cache lines, as the pools make them; without
/// hugepages an equal share of a page, or whole pages.
fn buffer_memory(bytes: u64, hugepages: bool) -> u64 {
    let stride = ((BUFFER_HEADER + HEADROOM as u64 + bytes).div_ceil(CACHE_LINE) | 1) * CACHE_LINE;
    match PAGE / stride {
        _ if hugepages => stride,
        0 => stride.next_multiple_of(PAGE),
        fit => PAGE / fit,
    }
}

/// Interfaces.
pub(super) fn interfaces(
    sink: &Sink,
    node: &NodeFile,
    backplane: Option<Prefix>,
) -> Option<Vec<InterfaceConfig>> {
    let interfaces = node.interfaces.as_ref()?;
    let mut claims = Claims::default();
    Names::new(sink, Some(interfaces), |interface| (&interface.item, interface.name.as_ref()));
    let port_names: Vec<&Port> = node.ports.iter().flatten().collect();
    let mut names = Names { index: Default::default(), complete: node.ports.is_some() };
    for (i, port) in port_names.iter().enumerate() {
        match &port.name {
            // A name that stands twice was said by the check of ports; the first one counts.
            Some(name) => _ = names.index.entry(name.value.as_str()).or_insert(i),
            None => names.complete = false,
        }
    }
    let mut tags = Unique::new();
    let mut links: Vec<(Prefix, usize, Place)> = Vec::new();
    let configs: Vec<Option<InterfaceConfig>> = interfaces
        .iter()
        .enumerate()
        .map(|(i, interface)| {
            let path = interface.item.path.as_str();
            let port = interface
                .port
                .as_ref()
                .and_then(|name| Some((name, names.find(sink, &format!("{path}: port"), name, "port")?)));
            if let Some((name, port)) = port {
                if port_names[port].role.is_some_and(|role| role.value == PortRole::Backplane) {
                    let message =
                        format!("port {:?} is the backplane's, which has no interfaces", name.value);
                    sink.error(name.place, format!("{path}: port"), Problem::new(message));
                }
                if let Some(vlan) = interface.vlan
                    && let Some(first) = tags.add((port, vlan.map(|v| v.value)), name.place)
                {
                    let vlan = vlan.map_or("no VLAN".to_owned(), |v| format!("VLAN {}", v.value));
                    let message = format!(
                        "port {:?} with {vlan} has an interface already ({})",
                        name.value,
                        sink.show(first)
                    );
                    let hint = "give that one several addresses";
                    sink.error(name.place, path, Problem::new(message).hint(hint));
                }
            }
            for address in interface.addresses.iter().flatten() {
                let key = format!("{path}: addresses");
                let link = subnet(address.value.0, address.value.1);
                if !claims.add(sink, &address.map(|(addr, _)| addr), &key, path) {
                    continue;
                }
                if let Some((_, _, first)) = links.iter().find(|(other, at, _)| *other == link && *at != i) {
                    let what = format!("the prefix {}/{}, on link of another interface,", link.0, link.1);
                    sink.error(address.place, key.as_str(), twice(&what, sink, *first));
                }
                links.push((link, i, address.place));
                if let Some(backplane) = backplane.filter(|b| overlap(*b, link)) {
                    let message = format!(
                        "{}/{} overlaps the backplane's subnet {}/{}",
                        link.0, link.1, backplane.0, backplane.1
                    );
                    sink.error(address.place, key.as_str(), Problem::new(message));
                }
                if let Some((_, port)) = port
                    && let Some(mtu) = port_names[port].mtu
                    && !link.0.is_v4()
                    && mtu.value < MIN_V6_MTU
                {
                    let message = format!(
                        "IPv6 needs an MTU of {MIN_V6_MTU}, and {} has {}",
                        port_names[port].item.path, mtu.value
                    );
                    sink.error(address.place, key.as_str(), Problem::new(message));
                }
            }
            Some(InterfaceConfig {
                name: interface.name.as_ref()?.value.clone(),
                port: PortId(port?.1 as u8),
                vlan: interface.vlan?.map(|vlan| vlan.value),
                addresses: interface.addresses.as_ref()?.iter().map(|address| address.value).collect(),
            })
        })
        .collect();
    configs.into_iter().collect()
}

/// Routes, each resolved to the interface on whose link its gateway is.
pub(super) fn routes(
    sink: &Sink,
    node: &NodeFile,
    interfaces: Option<&[InterfaceConfig]>,
) -> Option<Vec<RouteConfig>> {
    let routes = node.routes.as_ref()?;
    let links = interfaces.map(|interfaces| Net::new(interfaces, &[]));
    let mut destinations = Unique::new();
    let configs: Vec<Option<RouteConfig>> = routes
        .iter()
        .map(|route| {
            let path = route.item.path.as_str();
            if let Some(to) = &route.to {
                let shown = format!("{}/{}", to.value.0, to.value.1);
                if let Some(first) = destinations.add(to.value, to.place) {
                    sink.error(to.place, path, twice(&format!("the destination {shown}"), sink, first));
                }
                let connected = interfaces.into_iter().flatten().find(|interface| {
                    interface.addresses.iter().any(|(addr, len)| subnet(*addr, *len) == to.value)
                });
                if let Some(interface) = connected {
                    let message = format!("{shown} is on link of interface {:?}", interface.name);
                    sink.error(
                        to.place,
                        format!("{path}: to"),
                        Problem::new(message).hint("leave the route out"),
                    );
                }
            }
            let (to, via) = (route.to?, route.via?);
            let key = format!("{path}: via");
            if to.value.0.is_v4() != via.value.is_v4() {
                let message =
                    format!("{} is of the other family than {}/{}", via.value, to.value.0, to.value.1);
                sink.error(via.place, key, Problem::new(message));
                return None;
            }
            let Some(reach) = links.as_ref()?.reach(via.value) else {
                let message = format!("the gateway {} is on link of no interface", via.value);
                sink.error(via.place, key, Problem::new(message));
                return None;
            };
            let interfaces = interfaces?;
            if interfaces.iter().any(|i| i.addresses.iter().any(|(addr, _)| *addr == via.value)) {
                sink.error(via.place, key, Problem::new(format!("{} is this node's own address", via.value)));
                return None;
            }
            debug_assert!(interfaces[reach.interface].addresses.iter().any(|p| contains(*p, via.value)));
            Some(RouteConfig { to: to.value, via: via.value, interface: InterfaceId(reach.interface as u8) })
        })
        .collect();
    configs.into_iter().collect()
}
