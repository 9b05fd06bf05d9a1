//! A whole node on threads, with ports that do as they are told.

use super::*;
use crate::base::limits::HEADROOM;
use crate::io::memory::{MemoryFrame, MemoryPools};
use crate::path::port::{Burst, DeviceMonitor, DeviceStats, Pool, PortCaps};
use std::path::PathBuf;

const NODE: &str = r#"
profile = "lab"
cluster = "cluster.toml"
[node]
name = "n1"
[tables]
sessions = 1024
steering_sessions = 1024
shared_entries = 1024
[[port]]
name = "front"
role = "front"
device = "memory"
[[interface]]
name = "lan"
port = "front"
addresses = ["10.30.0.11/24"]
"#;

const CLUSTER: &str = include_str!("../../tests/cluster.toml");

/// A port that receives nothing, until it has had enough.
struct Moody {
    caps: PortCaps,
    pools: MemoryPools,
    /// Polls until it panics.
    patience: Option<u32>,
}

impl Port for Moody {
    type Frame = MemoryFrame;

    fn caps(&self) -> &PortCaps {
        &self.caps
    }

    fn rx(&mut self, _into: &mut Burst<MemoryFrame>) -> usize {
        if let Some(left) = &mut self.patience {
            assert!(*left > 0, "had enough");
            *left -= 1;
        }
        0
    }

    fn tx(&mut self, from: &mut Burst<MemoryFrame>) -> usize {
        from.clear();
        0
    }

    fn alloc(&mut self, pool: Pool) -> Option<MemoryFrame> {
        self.pools.alloc(pool)
    }
}

struct NoCounters;

impl DeviceMonitor for NoCounters {
    fn stats(&mut self) -> DeviceStats {
        DeviceStats::default()
    }
}

fn config(socket: &Path) -> Config {
    let two_workers = CLUSTER.replace("workers = 1", "workers = 2");
    let reader =
        |path: &Path| Ok(if path.ends_with("cluster.toml") { two_workers.clone() } else { NODE.to_owned() });
    let mut config = config::load_from(&reader, Path::new("node.toml"), None).unwrap();
    config.admin_socket = socket.to_owned();
    config
}

/// One queue for each worker; worker 1's has `patience`.
fn devices(patience: Option<u32>) -> Vec<OpenDevice<Moody>> {
    let caps = PortCaps { mac: devices::made_up_mac(crate::base::NodeId(0), 0), mtu: 1500 };
    let pools = MemoryPools::new(64, 2048 - HEADROOM);
    let queues =
        [None, patience].map(|patience| Moody { caps: caps.clone(), pools: pools.clone(), patience }).into();
    vec![OpenDevice { queues, monitor: Box::new(NoCounters) }]
}

/// Runs a node with that patience until it ends by itself, or for the time that `then` takes.
fn run_node(
    name: &str,
    patience: Option<u32>,
    then: impl FnOnce(&Path) + Send,
) -> (Result<(), Exit>, PathBuf) {
    let path = std::env::temp_dir().join(format!("steerage-run-{name}-{}.sock", std::process::id()));
    let config = config(&path);
    let asked = AtomicBool::new(false);
    let (file, listener) = SocketFile::claim(&path).unwrap();
    let result = std::thread::scope(|threads| {
        threads.spawn(|| {
            then(&path);
            asked.store(true, Ordering::Relaxed);
        });
        serve((&config, false), devices(patience), Clock::start(), listener, &asked, || Ok(()))
    });
    drop(file);
    (result, path)
}

#[test]
fn a_node_answers_and_stops_when_asked() {
    let (result, socket) = run_node("asked", None, |socket| {
        let answer = client::get(socket, "/v1/stats").unwrap();
        let stats: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (stats["node"].as_str(), stats["workers"].as_array().map(Vec::len)),
            (Some("n1"), Some(2))
        );
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(!socket.exists());
}

#[test]
fn a_panicking_worker_takes_the_node_down_and_is_named() {
    let (result, socket) = run_node("panic", Some(1000), |socket| {
        // Until the node has gone down by itself: the node isn't asked to.
        for _ in 0..2000 {
            if client::get(socket, "/v1/health").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the node outlived its worker by ten seconds");
    });
    let exit = result.unwrap_err();
    assert_eq!(exit.to_string(), "worker-1 panicked: had enough; the node has stopped");
    assert_eq!(exit.code(), 3);
    assert!(!socket.exists());
}
