//! What a node tells of itself to people and their tools: its statistics.

use super::Manager;
use crate::base::{GroupId, Instant, NodeId};
use crate::manage::stats::{
    NeighbourStats, PeerStats, PortStats, RealServerStats, Stats, Totals, Traffic, VirtualServerStats,
    WorkerStats,
};

impl Manager {
    /// What the node tells of itself.
    pub fn stats(&mut self, now: Instant) -> Stats {
        let view = self.views.current();
        let workers: Vec<_> =
            self.workers.iter().enumerate().map(|(i, w)| WorkerStats::read(i as u16, &w.counters)).collect();
        let mut totals = Totals::of(&workers);
        totals.counters.insert("commands_lost", self.commands_lost);
        totals.counters.extend(self.refusals.counters());
        let interfaces = &view.services.interfaces;
        Stats {
            node: view.this_node().name.clone(),
            incarnation: self.incarnation.0,
            ready: self.ready(now),
            stateless_ready: self.stateless_ready(now),
            view: view.version,
            view_adopted: self.workers.iter().map(|w| w.counters.view.get()).min().unwrap_or(0),
            uptime_s: now.since(self.started).as_secs_f64(),
            totals,
            workers,
            ports: self
                .devices
                .iter_mut()
                .map(|d| PortStats {
                    name: d.name.clone(),
                    mac: d.caps.mac.to_string(),
                    mtu: d.caps.mtu,
                    device: d.monitor.stats(),
                })
                .collect(),
            virtual_servers: self.virtual_servers(),
            peers: self.peer_stats(now),
            neighbours: self
                .neighbours
                .all()
                .map(|(n, mac)| NeighbourStats {
                    interface: interfaces[n.interface.index()].name.clone(),
                    address: n.address.ip(),
                    mac: mac.map(|m| m.to_string()),
                })
                .collect(),
        }
    }

    fn virtual_servers(&self) -> Vec<VirtualServerStats> {
        let view = self.views.current();
        let services = &view.services;
        let each = services.virtual_servers.iter().map(|server| {
            let group = &services.groups[server.group.index()];
            VirtualServerStats {
                name: server.name.clone(),
                address: server.address.ip(),
                port: server.port,
                protocol: server.protocol,
                group: group.name.clone(),
                member: group.has(view.me),
                forward: server.forward,
                ingress: server.ingress,
                traffic: Traffic::default(),
                real_servers: Vec::new(),
            }
        });
        let mut all: Vec<_> = each.collect();
        // What was removed is not told of.
        let there = services.real_servers.iter().enumerate().filter(|(_, real)| !real.is_gone());
        for (i, real) in there {
            let server = &mut all[real.virtual_server.index()];
            let mut traffic = Traffic::default();
            for worker in &self.workers {
                traffic.count(&worker.counters.real_servers[i]);
            }
            server.traffic.add(&traffic);
            server.real_servers.push(RealServerStats {
                name: real.name.clone(),
                address: real.address.ip(),
                port: real.port,
                traffic,
            });
        }
        all.retain(|server| !server.name.is_empty());
        all
    }

    fn peer_stats(&self, now: Instant) -> Vec<PeerStats> {
        let view = self.views.current();
        let all = &view.buckets[GroupId(0).index()];
        let digest = self.report().map_or(self.digest, |report| report.digest);
        let others = view
            .nodes
            .iter()
            .enumerate()
            .map(|(i, n)| (NodeId(i as u16), n))
            .filter(|(id, node)| *id != view.me && !node.name.is_empty());
        others
            .map(|(id, node)| {
                let peer = self.peers.get(id);
                PeerStats {
                    name: node.name.clone(),
                    incarnation: peer.incarnation.0,
                    up: peer.up,
                    ready: peer.ready,
                    heard_ms_ago: peer.heard.map(|at| now.since(at).as_millis() as u64),
                    view: peer.view,
                    same_configuration: peer.configuration == digest,
                    buckets: all.placement.count(id),
                }
            })
            .collect()
    }
}
