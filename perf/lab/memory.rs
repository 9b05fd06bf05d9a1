//! What a flow costs in memory, with all indices, queues and lists, in tables as large as the product makes them by default.

use crate::rows::client;
use crate::setup::vip;
use serde_json::json;
use std::any::Any;
use steerage::base::HashKey;
use steerage::manage::config::{self, Config};
use steerage::table::session::{Names, Session, SessionTable, State};
use steerage::table::steering::{Steering, SteeringTable};
use steerage::wire::protocol;

const KEY: HashKey = HashKey([1, 2]);

/// A table's bytes for each flow that it holds when full: what it says of itself, and what the process grew by.
struct Cost {
    own: f64,
    measured: f64,
}

/// A line of JSON.
///
/// # Panics
/// If a table's own figure is more than 3 % off what the process grew by, or it was full before nearly all of its entries
/// were in use.
pub fn report(default: &Config) -> serde_json::Value {
    let (mut own, mut measured) = (json!({}), json!({}));
    // None is freed before the end: the memory of one would be taken for the next, and the process not grow.
    let mut kept: Vec<Box<dyn Any>> = Vec::new();
    for (family, v6) in [("ipv4", false), ("ipv6", true)] {
        let tables = &default.tables;
        for (kind, cost) in [
            ("dsr", sessions(tables.sessions, v6, false, &mut kept)),
            ("nat", sessions(tables.sessions, v6, true, &mut kept)),
            ("steering", steering(tables.steering_sessions, v6, &mut kept)),
        ] {
            let name = format!("{kind}_{family}");
            let off = (cost.own - cost.measured).abs() / cost.measured;
            assert!(off < 0.03, "{name}: {} bytes a flow, but measured {}", cost.own, cost.measured);
            let round = |x: f64| (x * 100.0).round() / 100.0;
            own[&name] = round(cost.own).into();
            measured[&name] = round(cost.measured).into();
        }
    }
    json!({ "bytes_per_flow": own, "bytes_per_flow_measured": measured })
}

/// The configuration as it is when it says nothing of tables.
pub fn default_config() -> Config {
    let text = "profile = \"throughput\"\ncluster = \"c\"\n[node]\nname = \"n1\"\n[workers]\ncount = 1\n\
                [[port]]\nname = \"front\"\nrole = \"front\"\ndevice = \"memory\"\n\
                [[interface]]\nname = \"lan\"\nport = \"front\"\naddresses = [\"10.10.0.11/24\"]\n";
    let cluster = "[cluster]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n\
                   [[node]]\nname = \"n1\"\nbackplane = \"10.20.0.11\"\nworkers = 1\n";
    let read = |path: &std::path::Path| Ok(if path.ends_with("n") { text } else { cluster }.to_string());
    config::load_from(&read, std::path::Path::new("n"), None).unwrap_or_else(|e| panic!("{e}"))
}

/// Pages of this process's address space, in bytes. Large tables are mappings of their own, so it grows by their size.
fn address_space() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = text.split(' ').next().and_then(|n| n.parse().ok()).expect("its first number");
    pages * rustix::param::page_size()
}

fn cost(capacity: usize, held: usize, own: usize, grown: usize) -> Cost {
    assert!(held * 1000 >= capacity * 999, "full with {held} of {capacity}");
    Cost { own: own as f64 / held as f64, measured: grown as f64 / held as f64 }
}

fn sessions(capacity: usize, v6: bool, nat: bool, kept: &mut Vec<Box<dyn Any>>) -> Cost {
    let before = address_space();
    let mut table = SessionTable::new(capacity, 1 + usize::from(nat));
    let grown = address_space() - before;
    let mut held = 0;
    for i in 0..capacity {
        let key = client(i, vip::NAT, protocol::UDP, v6);
        let mut session = Session::default();
        session.state = State::Established;
        session.snat_port = u16::from(nat);
        // The reply's tuple: any that no other flow has will do.
        let names = Names { forward: KEY.flow(&key), reply: nat.then(|| KEY.flow(&key.reversed())) };
        held += usize::from(table.open(names, key, session, |_, _| names, |_, _, _| ()).is_ok());
    }
    let bytes = table.bytes();
    kept.push(Box::new(table));
    cost(capacity, held, bytes, grown)
}

fn steering(capacity: usize, v6: bool, kept: &mut Vec<Box<dyn Any>>) -> Cost {
    let before = address_space();
    let mut table = SteeringTable::new(capacity, 1);
    let grown = address_space() - before;
    let insert = |i| {
        let key = client(i, vip::OTHER, protocol::UDP, v6);
        table.insert(KEY.flow(&key), key, Steering::default()).is_ok()
    };
    let held = (0..capacity).map(insert).filter(|held| *held).count();
    let bytes = table.bytes();
    kept.push(Box::new(table));
    cost(capacity, held, bytes, grown)
}
