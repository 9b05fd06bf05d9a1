//! Statistics as Prometheus metrics, in the OpenMetrics text format.
//!
//! Counters end in `_total`, sizes are in bytes and times in seconds. Every series that can exist is there from the start
//! (a reason for which nothing was dropped yet is zero), so that rates and alerts need no special case.

use super::stats::{Stats, Traffic, WorkerStats};
use crate::path::verdict::Verdict;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// What a node tells of itself, as the text of one scrape.
pub fn encode(stats: &Stats) -> String {
    let mut registry = Registry::with_prefix("steerage");
    registry.register_collector(Box::new(Families(collect(stats))));
    let mut text = String::new();
    // A String takes whatever is written to it.
    let _ = text::encode(&mut text, &registry);
    text
}

type Labels = Vec<(&'static str, String)>;

/// A metric with all its series.
#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    series: Series,
}

#[derive(Debug)]
enum Series {
    Counters(Vec<(Labels, u64)>),
    Gauges(Vec<(Labels, f64)>),
    Counter(u64),
    Gauge(f64),
    Info(Labels),
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for Family { name, help, series } in &self.0 {
            match series {
                Series::Counters(series) => {
                    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
                    for (labels, value) in series {
                        family.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(value, None)?;
                    }
                }
                Series::Gauges(series) => {
                    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                    for (labels, value) in series {
                        family.encode_family(labels)?.encode_gauge(value)?;
                    }
                }
                Series::Counter(value) => encoder
                    .encode_descriptor(name, help, None, MetricType::Counter)?
                    .encode_counter::<NoLabelSet, _, u64>(value, None)?,
                Series::Gauge(value) => {
                    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(value)?;
                }
                Series::Info(labels) => {
                    encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)?;
                }
            }
        }
        Ok(())
    }
}

/// One of the workers' counters as a series: the value of the family's label, and the counter's name in
/// [`WorkerStats::counters`].
type Source = (&'static str, &'static str);

/// A metric that each worker has. Without a `label` there is one source.
struct WorkerMetric {
    name: &'static str,
    help: &'static str,
    label: Option<&'static str>,
    gauge: bool,
    sources: &'static [Source],
}

const fn counters(
    name: &'static str,
    help: &'static str,
    label: &'static str,
    sources: &'static [Source],
) -> WorkerMetric {
    WorkerMetric { name, help, label: Some(label), gauge: false, sources }
}

const fn counter(name: &'static str, help: &'static str, source: &'static [Source; 1]) -> WorkerMetric {
    WorkerMetric { name, help, label: None, gauge: false, sources: source }
}

const fn gauge(name: &'static str, help: &'static str, source: &'static [Source; 1]) -> WorkerMetric {
    WorkerMetric { name, help, label: None, gauge: true, sources: source }
}

/// Every counter of a worker but the drops stands here once; a test holds the list against the counters.
const WORKER: &[WorkerMetric] = &[
    counters(
        "worker_received_frames",
        "Frames received",
        "side",
        &[("front", "rx"), ("backplane", "backplane_rx")],
    ),
    counters(
        "worker_sent_frames",
        "Frames given to devices",
        "side",
        &[("front", "tx"), ("backplane", "backplane_tx")],
    ),
    counters(
        "worker_steered_packets",
        "Packets steered to and from other nodes",
        "direction",
        &[("out", "steered_out"), ("in", "steered_in")],
    ),
    counters(
        "worker_handover_packets",
        "Packets of unknown flows in buckets that have moved: to the previous owner, from the new one, and given back to it",
        "direction",
        &[("out", "handover_out"), ("in", "handover_in"), ("returned", "handover_returned")],
    ),
    counters(
        "worker_ring_packets",
        "Packets handed to and taken from other workers of the node",
        "direction",
        &[("out", "ring_out"), ("in", "ring_in")],
    ),
    counters(
        "worker_steering_decisions",
        "Steering decisions, by how they were made",
        "by",
        &[("hash", "hashed"), ("steering_session", "steering_hits")],
    ),
    counter(
        "worker_steering_sessions_refused",
        "Steering decisions that were not kept because there was no room",
        &[("", "steering_full")],
    ),
    gauge("worker_steering_sessions", "Steering sessions", &[("", "steering_sessions")]),
    counter("worker_session_hits", "Packets that found their session", &[("", "session_hits")]),
    counter("worker_sessions_opened", "Sessions made", &[("", "sessions_opened")]),
    counter(
        "worker_sessions_inherited",
        "NATed sessions made of what another node had shared of them before it died",
        &[("", "sessions_inherited")],
    ),
    counter(
        "worker_sessions_unshared",
        "NATed sessions that end with their node, as there was no room for their state",
        &[("", "sessions_unshared")],
    ),
    counter(
        "worker_clients_kept",
        "New flows to the real server that their client had",
        &[("", "clients_kept")],
    ),
    counter(
        "worker_clients_unshared",
        "Clients whose real server can't be remembered, as there was no room",
        &[("", "clients_unshared")],
    ),
    counter("worker_state_frames", "Messages of shared state received", &[("", "state_rx")]),
    counter(
        "worker_state_mended",
        "Entries of shared state that copies lacked, written to them again",
        &[("", "state_mended")],
    ),
    counters(
        "worker_sessions_ended",
        "Sessions ended: timed out or replaced, or half-open ones that had to make room",
        "by",
        &[("expiry", "sessions_closed"), ("eviction", "sessions_evicted")],
    ),
    counter(
        "worker_sessions_refused",
        "New flows balanced without a session because there was no room",
        &[("", "sessions_refused")],
    ),
    gauge("worker_sessions", "Sessions", &[("", "sessions")]),
    counter("worker_echo_replies", "ICMP echo requests answered", &[("", "echo_replies")]),
    counter(
        "worker_too_big_messages",
        "ICMP packet too big and fragmentation needed messages sent",
        &[("", "too_big_sent")],
    ),
    counters(
        "worker_control_frames",
        "Control frames sent, and received and accepted",
        "direction",
        &[("out", "control_tx"), ("in", "control_rx")],
    ),
    counter(
        "worker_events_lost",
        "Messages to the management thread that found its channel full",
        &[("", "events_lost")],
    ),
    counter("worker_turns", "Turns of the poll loop", &[("", "turns")]),
    counter("worker_busy_turns", "Turns of the poll loop that found something to do", &[("", "busy_turns")]),
    gauge("worker_view_version", "Version of the View in use", &[("", "view")]),
];

fn collect(stats: &Stats) -> Vec<Family> {
    let mut families = node(stats);
    families.extend(WORKER.iter().map(|metric| of_workers(metric, &stats.workers)));
    families.push(drops(&stats.workers));
    families.extend(ports(stats));
    families.extend(servers(stats));
    families.extend(peers(stats));
    families
}

fn number(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn one_gauge(name: &'static str, help: &'static str, value: f64) -> Family {
    Family { name, help, series: Series::Gauge(value) }
}

fn node(stats: &Stats) -> Vec<Family> {
    let labels = vec![
        ("node", stats.node.clone()),
        ("incarnation", stats.incarnation.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let counters = [
        ("commands_lost", "Messages to workers that found their channel full"),
        ("management_refused", "Messages over the management network that no peer can have sent"),
        ("control_replayed", "Control messages of peers that were older than what these have said since"),
        ("control_strays", "Heartbeats of a life that is over, in this node's own name, or of no node"),
    ];
    let counted = counters.map(|(name, help)| {
        let count = stats.totals.counters.get(name).copied().unwrap_or(0);
        Family { name, help, series: Series::Counter(count) }
    });
    let mut families = vec![
        Family {
            name: "node",
            help: "The node: its name, its life and its software",
            series: Series::Info(labels),
        },
        one_gauge("ready", "Whether the node can serve", number(stats.ready)),
        one_gauge(
            "stateless_ready",
            "Whether the node serves virtual servers that need no state",
            number(stats.stateless_ready),
        ),
        one_gauge("uptime_seconds", "Time since the node's start", stats.uptime_s),
        one_gauge("view_version", "Version of the View that the node last published", stats.view as f64),
        one_gauge(
            "view_adopted_version",
            "Version of the oldest View that a worker still uses",
            stats.view_adopted as f64,
        ),
    ];
    families.extend(counted);
    families
}

fn of_workers(metric: &WorkerMetric, workers: &[WorkerStats]) -> Family {
    let all = workers.iter().flat_map(|worker| {
        metric.sources.iter().map(move |(value, counter)| {
            let mut labels = vec![("worker", worker.id.to_string())];
            labels.extend(metric.label.map(|label| (label, (*value).to_owned())));
            (labels, worker.counters.get(counter).copied().unwrap_or(0))
        })
    });
    let series = if metric.gauge {
        Series::Gauges(all.map(|(labels, n)| (labels, n as f64)).collect())
    } else {
        Series::Counters(all.collect())
    };
    Family { name: metric.name, help: metric.help, series }
}

fn drops(workers: &[WorkerStats]) -> Family {
    let each = workers.iter().flat_map(|worker| {
        Verdict::ALL.iter().map(|verdict| {
            let labels = vec![("worker", worker.id.to_string()), ("reason", verdict.name().to_owned())];
            (labels, worker.drops.get(verdict.name()).copied().unwrap_or(0))
        })
    });
    Family { name: "drops", help: "Packets dropped, by reason", series: Series::Counters(each.collect()) }
}

fn ports(stats: &Stats) -> Vec<Family> {
    let labels = |name: &str| vec![("port", name.to_owned())];
    let count = |name, help, of: fn(&crate::path::port::DeviceStats) -> u64| Family {
        name,
        help,
        series: Series::Counters(stats.ports.iter().map(|p| (labels(&p.name), of(&p.device))).collect()),
    };
    let measure = |name, help, of: fn(&crate::path::port::DeviceStats) -> f64| Family {
        name,
        help,
        series: Series::Gauges(stats.ports.iter().map(|p| (labels(&p.name), of(&p.device))).collect()),
    };
    vec![
        measure("port_up", "Whether the device has a carrier", |d| number(d.link_up)),
        measure("port_speed_bytes_per_second", "Speed of the link; zero where unknown", |d| {
            f64::from(d.link_mbps) * 1e6 / 8.0
        }),
        count("port_received_frames", "Frames that the device received", |d| d.rx_packets),
        count("port_received_bytes", "Bytes that the device received", |d| d.rx_bytes),
        count(
            "port_receive_missed_frames",
            "Frames that the device dropped because nobody fetched them in time",
            |d| d.rx_missed,
        ),
        count("port_receive_errors", "Frames received with an error", |d| d.rx_errors),
        count("port_receive_no_buffer", "Receive buffers that could not be allocated", |d| d.rx_no_buffer),
        count("port_sent_frames", "Frames that the device sent", |d| d.tx_packets),
        count("port_sent_bytes", "Bytes that the device sent", |d| d.tx_bytes),
        count("port_send_errors", "Frames that the device could not send", |d| d.tx_errors),
    ]
}

/// Traffic with the labels of whose it is.
type Owned = (Labels, Traffic);

/// The names of a family of metrics about traffic: connections, packets, bytes, sessions.
struct TrafficNames {
    connections: &'static str,
    packets: &'static str,
    bytes: &'static str,
    sessions: &'static str,
}

fn servers(stats: &Stats) -> Vec<Family> {
    let virtual_servers = stats.virtual_servers.iter();
    let own = virtual_servers.clone().map(|v| (vec![("virtual_server", v.name.clone())], v.traffic));
    let real = virtual_servers.clone().flat_map(|v| {
        v.real_servers
            .iter()
            .map(|r| (vec![("virtual_server", v.name.clone()), ("real_server", r.name.clone())], r.traffic))
    });
    let members = virtual_servers
        .clone()
        .map(|v| (vec![("virtual_server", v.name.clone()), ("group", v.group.clone())], number(v.member)));
    let mut families = vec![Family {
        name: "virtual_server_member",
        help: "Whether the node is in the group that serves the virtual server",
        series: Series::Gauges(members.collect()),
    }];
    let names = TrafficNames {
        connections: "virtual_server_connections",
        packets: "virtual_server_packets",
        bytes: "virtual_server_bytes",
        sessions: "virtual_server_sessions",
    };
    families.extend(traffic(&names, &own.collect::<Vec<_>>()));
    let names = TrafficNames {
        connections: "real_server_connections",
        packets: "real_server_packets",
        bytes: "real_server_bytes",
        sessions: "real_server_sessions",
    };
    families.extend(traffic(&names, &real.collect::<Vec<_>>()));
    families
}

fn traffic(names: &TrafficNames, all: &[Owned]) -> [Family; 4] {
    let count = |name, help, of: fn(&Traffic) -> u64| Family {
        name,
        help,
        series: Series::Counters(all.iter().map(|(labels, t)| (labels.clone(), of(t))).collect()),
    };
    let both = |name, help, of: fn(&Traffic) -> [u64; 2]| {
        let directions = all.iter().flat_map(|(labels, t)| {
            ["in", "out"].into_iter().zip(of(t)).map(|(direction, n)| {
                let mut labels = labels.clone();
                labels.push(("direction", direction.to_owned()));
                (labels, n)
            })
        });
        Family { name, help, series: Series::Counters(directions.collect()) }
    };
    let sessions = all.iter().map(|(labels, t)| (labels.clone(), t.sessions as f64));
    [
        count(names.connections, "New flows", |t| t.connections),
        both(names.packets, "Packets to real servers (in) and, with NAT, to clients (out)", |t| {
            [t.packets_in, t.packets_out]
        }),
        both(names.bytes, "Bytes to real servers (in) and, with NAT, to clients (out)", |t| {
            [t.bytes_in, t.bytes_out]
        }),
        Family { name: names.sessions, help: "Sessions", series: Series::Gauges(sessions.collect()) },
    ]
}

fn peers(stats: &Stats) -> Vec<Family> {
    let measure = |name, help, of: fn(&super::stats::PeerStats) -> Option<f64>| {
        let each = stats.peers.iter().filter_map(|p| Some((vec![("peer", p.name.clone())], of(p)?)));
        Family { name, help, series: Series::Gauges(each.collect()) }
    };
    let neighbours = stats.neighbours.iter().map(|n| {
        let labels = vec![("interface", n.interface.clone()), ("address", n.address.to_string())];
        (labels, number(n.mac.is_some()))
    });
    vec![
        measure("peer_up", "Whether the other node was heard within the suspicion time", |p| {
            Some(number(p.up))
        }),
        measure("peer_ready", "Whether the other node says that it can serve", |p| Some(number(p.ready))),
        measure(
            "peer_silence_seconds",
            "Time since the other node was heard; missing if it never was",
            |p| p.heard_ms_ago.map(|ms| ms as f64 / 1000.0),
        ),
        measure("peer_view_version", "Version of the View that the other node runs", |p| Some(p.view as f64)),
        measure("peer_buckets", "The other node's buckets in the group of all nodes", |p| {
            Some(p.buckets as f64)
        }),
        Family {
            name: "neighbour_resolved",
            help: "Whether the neighbour's Ethernet address is known",
            series: Series::Gauges(neighbours.collect()),
        },
    ]
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
