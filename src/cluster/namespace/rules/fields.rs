//! What can be said of an object by itself.

use super::super::fault::Finding;
use super::super::health::HealthSpec;
use super::super::key::{ALL, Key, Name};
use super::super::object::{LimitSpec, Object, Per};
use super::super::prefix::not_a_host;
use super::super::text::{MAX_DURATION, show_duration};
use crate::base::Addr;
use crate::base::limits::MAX_WORKERS;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Weights of nodes and real servers: sums of them must stay far from overflow.
pub const WEIGHTS: RangeInclusive<u32> = 0..=10_000;
/// Workers of a node.
pub const WORKERS: RangeInclusive<u16> = 1..=MAX_WORKERS as u16;
/// The most slots of a Maglev table: 16 MB for each virtual server.
pub const MAX_SLOTS: u32 = 1 << 22;

/// The shortest timeout of clients' entries: connections renew them as they are come by, about once a second.
const MIN_PERSISTENCE: Duration = Duration::from_secs(2);

/// Collects what is wrong with the fields of one object.
struct Fields<'a> {
    key: &'a Key,
    found: &'a mut Vec<Finding>,
}

impl Fields<'_> {
    fn fault(&mut self, field: &str, message: String) {
        self.found.push(Finding::new(self.key, message).field(field));
    }

    fn range<T: Into<u64> + Copy>(&mut self, field: &str, value: T, range: RangeInclusive<u64>) {
        if !range.contains(&value.into()) {
            let (low, high) = (range.start(), range.end());
            self.fault(field, format!("{} is out of range: {low} to {high}", value.into()));
        }
    }

    fn port(&mut self, field: &str, port: u16) {
        self.range(field, port, 1..=u64::from(u16::MAX));
    }

    fn weight(&mut self, weight: u32) {
        self.range("weight", weight, u64::from(*WEIGHTS.start())..=u64::from(*WEIGHTS.end()));
    }

    fn host(&mut self, field: &str, address: Addr) {
        if let Some(why) = not_a_host(address) {
            self.fault(field, format!("{address} {why}"));
        }
    }

    /// What a file or JSON can't hold may still come in a binary message.
    fn duration(&mut self, field: &str, duration: Option<Duration>) {
        if let Some(duration) = duration
            && (duration.is_zero() || duration > MAX_DURATION)
        {
            let (shown, most) = (show_duration(duration), show_duration(MAX_DURATION));
            self.fault(field, format!("{shown} is out of range: above zero, at most {most}"));
        }
    }

    fn health(&mut self, health: Option<&HealthSpec>) {
        let Some(health) = health else { return };
        self.duration("health.interval", Some(health.interval));
        self.duration("health.timeout", Some(health.timeout));
        self.duration("health.damping", health.damping);
        for (field, reason) in health.faults() {
            self.found.push(Finding::because(self.key, &format!("health.{field}"), reason));
        }
    }

    fn nodes(&mut self, field: &str, names: &[Name]) {
        let mut seen = BTreeSet::new();
        for name in names {
            if !seen.insert(name) {
                let finding = Finding::new(self.key, format!("node {:?} stands twice", name.as_str()));
                self.found.push(finding.field(field).element(name.as_str()));
            }
        }
    }

    fn limit(&mut self, spec: &LimitSpec) {
        let bounds = [
            ("connections", spec.connections),
            ("connections_per_second", spec.connections_per_second),
            ("packets_per_second", spec.packets_per_second),
            ("bits_per_second", spec.bits_per_second),
        ];
        if bounds.iter().all(|(_, bound)| bound.is_none()) {
            let fields: Vec<&str> = bounds.iter().map(|(field, _)| *field).collect();
            let finding = Finding::new(self.key, "limits nothing");
            self.found.push(finding.hint(format!("set at least one of {}", fields.join(", "))));
        }
        for (field, bound) in bounds {
            if let Some(bound) = bound {
                self.range(field, bound, 1..=1 << 53);
            }
        }
        if spec.per == Per::VirtualServer && spec.virtual_server.is_none() {
            let message = "is missing: the limit is one of a virtual server".to_owned();
            self.fault("virtual_server", message);
        }
    }
}

/// What is wrong with `object` by itself.
pub(super) fn check(key: &Key, object: &Object, found: &mut Vec<Finding>) {
    let mut fields = Fields { key, found };
    match key {
        Key::Snat(address) | Key::Vip(address) => fields.host("address", *address),
        Key::Group(name) if *name == *ALL => {
            let message = format!("the group {ALL:?} exists by itself and has every node");
            fields.found.push(Finding::new(key, message).field("name").hint("leave it out"));
        }
        _ => {}
    }
    match object {
        Object::Cluster(spec) => {
            fields.port("data_port", spec.data_port);
            fields.port("control_port", spec.control_port);
            fields.duration("heartbeat", Some(spec.heartbeat));
            fields.duration("suspicion", Some(spec.suspicion));
            if let Some(len) = spec.backplane_prefix {
                fields.range("backplane_prefix", len, 1..=128);
            }
            fields.range("maglev_slots", spec.maglev_slots, 3..=u64::from(MAX_SLOTS));
        }
        Object::Node(spec) => {
            fields.host("backplane", spec.backplane);
            fields.range("workers", spec.workers, u64::from(*WORKERS.start())..=u64::from(*WORKERS.end()));
            fields.weight(spec.weight);
            if let Some(at) = spec.management {
                fields.host("management", at.ip().into());
                fields.port("management", at.port());
            }
        }
        Object::Group(spec) => {
            if spec.members.is_empty() {
                fields.found.push(Finding::new(key, "has no member").field("members"));
            }
            fields.nodes("members", &spec.members);
            fields.nodes("backups", &spec.backups);
            for name in spec.backups.iter().filter(|name| spec.members.contains(name)) {
                let finding = Finding::new(key, format!("node {:?} is a member already", name.as_str()));
                fields.found.push(finding.field("backups").element(name.as_str()));
            }
        }
        Object::Snat(_) | Object::Vip(_) => {}
        Object::Profile(spec) => {
            fields.duration("idle", spec.idle);
            fields.duration("slow_start", spec.slow_start);
            fields.health(spec.health.as_deref());
        }
        Object::VirtualServer(spec) => {
            fields.host("address", spec.address);
            fields.port("port", spec.port);
            fields.duration("idle", spec.idle);
            fields.duration("slow_start", spec.slow_start);
            fields.health(spec.health.as_deref());
        }
        Object::RealServer(spec) => {
            fields.host("address", spec.address);
            if let Some(port) = spec.port {
                fields.port("port", port);
            }
            fields.weight(spec.weight);
            fields.health(spec.health.as_deref());
        }
        Object::Limit(spec) => fields.limit(spec),
        Object::Persistence(spec) => {
            fields.duration("timeout", Some(spec.timeout));
            if !spec.timeout.is_zero() && spec.timeout < MIN_PERSISTENCE {
                let (shown, least) = (show_duration(spec.timeout), show_duration(MIN_PERSISTENCE));
                fields.fault("timeout", format!("{shown} is too short: at least {least}"));
            }
            fields.range("prefix_v4", spec.prefix_v4, 1..=32);
            fields.range("prefix_v6", spec.prefix_v6, 1..=128);
        }
    }
}
