use super::*;
use crate::manage::stats::{
    NeighbourStats, PeerStats, PortStats, RealServerStats, Totals, VirtualServerStats,
};
use crate::path::counters::Counters;
use crate::path::port::DeviceStats;
use crate::view::{Forward, Ingress, Protocol};
use std::collections::BTreeSet;

fn a_node() -> Stats {
    let counters = Counters::new(0);
    counters.rx.add(5);
    counters.backplane_tx.add(6);
    counters.sessions.add(2);
    counters.drops[Verdict::NoRoute as usize].inc();
    let workers = vec![WorkerStats::read(0, &counters), WorkerStats::read(1, &Counters::new(0))];
    let mut totals = Totals::of(&workers);
    totals.counters.extend([("commands_lost", 9), ("control_replayed", 4)]);
    let traffic =
        Traffic { connections: 1, packets_in: 2, bytes_in: 3, packets_out: 4, bytes_out: 5, sessions: 6 };
    let address = "10.0.0.1".parse().unwrap();
    Stats {
        node: "n\"1".into(),
        incarnation: 7,
        ready: true,
        stateless_ready: true,
        view: 3,
        view_adopted: 2,
        uptime_s: 1.5,
        workers,
        totals,
        ports: vec![PortStats {
            name: "front".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            device: DeviceStats { link_up: true, link_mbps: 10_000, rx_bytes: 99, ..DeviceStats::default() },
        }],
        virtual_servers: vec![VirtualServerStats {
            name: "web".into(),
            address,
            port: 80,
            protocol: Protocol::Tcp,
            group: "all".into(),
            member: true,
            forward: Forward::Nat,
            ingress: Ingress::Steered,
            traffic,
            real_servers: vec![RealServerStats { name: "s1".into(), address, port: 8080, traffic }],
        }],
        peers: vec![PeerStats {
            name: "n2".into(),
            incarnation: 8,
            up: true,
            ready: false,
            heard_ms_ago: Some(40),
            same_configuration: true,
            view: 3,
            buckets: 2048,
        }],
        neighbours: vec![NeighbourStats { interface: "lan".into(), address, mac: None }],
    }
}

#[test]
fn the_series_of_a_node() {
    let text = encode(&a_node());
    let version = env!("CARGO_PKG_VERSION");
    let info = format!("steerage_node_info{{node=\"n\\\"1\",incarnation=\"7\",version=\"{version}\"}} 1");
    for line in [
        info.as_str(),
        "# HELP steerage_ready Whether the node can serve",
        "# TYPE steerage_worker_received_frames counter",
        "# TYPE steerage_worker_sessions gauge",
        "steerage_ready 1.0",
        "steerage_uptime_seconds 1.5",
        "steerage_view_adopted_version 2.0",
        "steerage_commands_lost_total 9",
        "steerage_control_replayed_total 4",
        "steerage_management_refused_total 0",
        "steerage_worker_received_frames_total{worker=\"0\",side=\"front\"} 5",
        "steerage_worker_sent_frames_total{worker=\"0\",side=\"backplane\"} 6",
        "steerage_worker_sent_frames_total{worker=\"1\",side=\"backplane\"} 0",
        "steerage_worker_sessions{worker=\"0\"} 2.0",
        "steerage_drops_total{worker=\"0\",reason=\"no_route\"} 1",
        "steerage_drops_total{worker=\"1\",reason=\"no_route\"} 0",
        "steerage_port_up{port=\"front\"} 1.0",
        "steerage_port_speed_bytes_per_second{port=\"front\"} 1250000000.0",
        "steerage_port_received_bytes_total{port=\"front\"} 99",
        "steerage_virtual_server_member{virtual_server=\"web\",group=\"all\"} 1.0",
        "steerage_virtual_server_connections_total{virtual_server=\"web\"} 1",
        "steerage_virtual_server_packets_total{virtual_server=\"web\",direction=\"out\"} 4",
        "steerage_real_server_bytes_total{virtual_server=\"web\",real_server=\"s1\",direction=\"in\"} 3",
        "steerage_real_server_sessions{virtual_server=\"web\",real_server=\"s1\"} 6.0",
        "steerage_peer_up{peer=\"n2\"} 1.0",
        "steerage_peer_silence_seconds{peer=\"n2\"} 0.04",
        "steerage_neighbour_resolved{interface=\"lan\",address=\"10.0.0.1\"} 0.0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn every_counter_of_a_worker_has_its_metric() {
    let counters: Vec<&str> = Counters::new(0).each().map(|(name, _)| name).collect();
    let mut sources: Vec<&str> =
        WORKER.iter().flat_map(|m| m.sources.iter().map(|(_, name)| *name)).collect();
    sources.sort_unstable();
    let mut sorted = counters.clone();
    sorted.sort_unstable();
    assert_eq!(sources, sorted);
}

#[test]
fn names_are_well_formed_and_each_series_stands_once() {
    let text = encode(&a_node());
    let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    for line in text.lines().filter(|l| *l != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, _) = rest.split_once(' ').unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the suffix is the encoder's");
            assert!(families.insert(name.to_owned()), "{name} stands twice");
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.split_once(' ').is_some_and(|(_, help)| !help.is_empty()), "{line}");
        } else {
            assert!(line.starts_with(&current), "{line} stands under {current}");
            assert!(series.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "{line} stands twice");
        }
    }
    assert!(families.len() > 40);
}

#[test]
fn every_metric_stands_in_the_documentation() {
    let page = include_str!("../../docs/operating.md");
    let text = encode(&a_node());
    for line in text.lines().filter_map(|l| l.strip_prefix("# TYPE steerage_")) {
        let (name, kind) = line.split_once(' ').unwrap();
        // Those of real servers are described by those of virtual ones.
        let name = name.replace("real_server_", "virtual_server_");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert!(page.contains(&format!("`{name}{suffix}`")), "{name}{suffix}");
    }
    for (counter, _) in Counters::new(0).each() {
        assert!(page.contains(&format!("`{counter}`")), "{counter}");
    }
}
