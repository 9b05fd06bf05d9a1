//! The configuration: any text is either refused with reasons, or compiles into a View, and a small one runs.

use crate::port::ChainedPort;
use crate::solo::load;
use std::time::Duration;
use steerage::base::{Incarnation, Instant, Mac};
use steerage::io::OpenDevice;
use steerage::io::memory::{MemoryPools, MemoryPort};
use steerage::manage::compile;
use steerage::manage::config::Config;
use steerage::node::Node;
use steerage::path::port::PortCaps;

/// Stands between the node file and the cluster file in an input.
const BETWEEN: &str = "\n####\n";

/// No text makes reading panic; a configuration that passed its checks compiles; a small one's node turns.
pub fn one(bytes: &[u8]) {
    accepts(bytes);
}

/// [`one`]; whether the configuration passed its checks.
pub fn accepts(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (node, cluster) = text.split_once(BETWEEN).unwrap_or((text, ""));
    match load(node, cluster) {
        Err(errors) => {
            let told = errors.to_string();
            assert!(!told.trim().is_empty(), "refused without a reason");
            false
        }
        Ok(config) => {
            accepted(&config);
            true
        }
    }
}

fn accepted(config: &Config) {
    let caps: Vec<_> = config
        .ports
        .iter()
        .enumerate()
        .map(|(i, port)| PortCaps { mac: Mac([2, 0, 0, 0, 7, i as u8]), mtu: port.device.mtu })
        .collect();
    // Big tables are right, but would take all memory; their sizes are no matter of parsing.
    let tables = config.cluster.maglev_slots * config.virtual_servers.len();
    if tables > 1 << 20 {
        return;
    }
    let view = compile::compile(config, Incarnation(1), &caps)
        .unwrap_or_else(|e| panic!("passed its checks, but: {e}"));
    for group in view.buckets.iter() {
        assert!(group.placement.iter().all(|(_, owner)| owner.is_some()), "a bucket without an owner");
    }
    let room = config.tables.sessions.max(config.tables.steering_sessions).max(config.tables.shared_entries);
    if room > 4096 || config.workers.count > 4 || config.ports.iter().any(|p| p.device.queues > 4) {
        return;
    }
    let pools = MemoryPools::new(64, 2048);
    let devices = config.ports.iter().zip(&caps).map(|(port, caps)| {
        let queues: Vec<_> = (0..port.device.queues)
            .map(|_| ChainedPort::new(MemoryPort::link(caps.clone(), pools.clone(), 64).0))
            .collect();
        OpenDevice { monitor: Box::new(queues[0].monitor()), queues }
    });
    let mut now = Instant::ZERO;
    // What only start-up can know, a device's real MTU, was asked for here, so this can't be refused either.
    let mut node = Node::new(config, Incarnation(1), devices.collect(), now)
        .unwrap_or_else(|e| panic!("passed its checks, but: {e}"));
    for _ in 0..4 {
        now = now + Duration::from_millis(200);
        node.turn(now);
    }
}
