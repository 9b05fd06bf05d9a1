//! The cluster file: each key read by itself, into the objects that the cluster's namespace holds. What hangs together is
//! checked by the namespace's own rules.

use super::error::{At, Place, Problem};
use super::node_file::{Item, bounded};
use super::section::Section;
use super::value::{self, duration, health, host, integer, object_name as name, socket, text, word};
use crate::base::Addr;
use crate::base::limits::{MAX_GROUPS, MAX_NODES, MAX_REAL_SERVERS, MAX_SNATS, MAX_VIRTUAL_SERVERS};
use crate::cluster::namespace::object::{Per, Unknown};
use crate::cluster::namespace::rules::{MAX_SLOTS, WEIGHTS, WORKERS};
use crate::cluster::namespace::{
    ClusterSpec, GroupSpec, Key, Kind, LimitSpec, Name, NodeSpec, Object, PersistenceSpec, ProfileSpec,
    RealServerSpec, SnatSpec, VipSpec, VirtualServerSpec,
};
use crate::view::{Forward, Ingress, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use toml::de::DeValue;

/// An object of the file, and where it stands.
pub(super) struct Placed {
    pub key: Key,
    /// `None`: something of it is bad or missing, and that was said.
    pub object: Option<Object>,
    pub item: Item,
    /// Where its fields stand.
    fields: BTreeMap<String, Place>,
}

impl Placed {
    /// Where a field stands; one that was left out, and a part of one, where what holds it does.
    pub fn place(&self, field: &str) -> Place {
        let whole = field.split('.').next().unwrap_or(field);
        self.own_place(whole).unwrap_or(self.item.place)
    }

    /// Where a field stands, or an element of one that is a list, called by both.
    pub fn own_place(&self, field: &str) -> Option<Place> {
        self.fields.get(field).copied()
    }
}

/// A cluster file.
#[derive(Default)]
pub(super) struct ClusterFile {
    /// In the file's order, each key once.
    pub objects: Vec<Placed>,
    /// Place in `objects`.
    index: BTreeMap<Key, usize>,
    /// Kinds of object of which one may not have been understood so far as to know its key.
    pub unsure: BTreeSet<Kind>,
}

impl ClusterFile {
    pub fn find(&self, key: &Key) -> Option<&Placed> {
        self.index.get(key).map(|at| &self.objects[*at])
    }

    /// Takes up an object; one whose key stands twice is reported, and the first counts.
    fn add(&mut self, fields: Fields<'_, '_>, key: Key, key_place: Place, object: Option<Object>) {
        let (item, sink) = (Item::of(fields.section), fields.section.sink);
        if let Some(first) = self.find(&key) {
            let named = if matches!(key.kind(), Kind::Snat | Kind::Vip) { "address" } else { "name" };
            let message = format!("the {named} stands twice, first at {}", sink.show(first.place(named)));
            sink.error(key_place, item.path, Problem::new(message));
            return;
        }
        self.index.insert(key.clone(), self.objects.len());
        self.objects.push(Placed { key, object, item, fields: fields.places });
    }
}

/// Reads one table and notes where its fields stand.
struct Fields<'s, 'a> {
    section: &'s Section<'a>,
    places: BTreeMap<String, Place>,
}

impl<'s, 'a> Fields<'s, 'a> {
    fn of(section: &'s Section<'a>) -> Self {
        Self { section, places: BTreeMap::new() }
    }

    fn note<T>(&mut self, key: &str, read: At<T>) -> T {
        self.places.insert(key.to_owned(), read.place);
        read.value
    }

    fn required<T>(&mut self, key: &str, read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>) -> Option<T> {
        let read = self.section.required(key, read)?;
        Some(self.note(key, read))
    }

    fn optional<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
    ) -> Option<Option<T>> {
        let read = self.section.optional(key, read)?;
        Some(read.map(|read| self.note(key, read)))
    }

    fn or<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, Problem>,
        default: T,
    ) -> Option<T> {
        Some(self.optional(key, read)?.unwrap_or(default))
    }

    /// Names; none if the key is left out.
    fn names(&mut self, key: &str) -> Option<Vec<Name>> {
        let Some(all) = self.section.list(key, name)? else { return Some(Vec::new()) };
        self.places.insert(key.to_owned(), all.place);
        for one in &all.value {
            // The last of a name is the one to complain about if it stands twice or doesn't exist.
            self.places.insert(format!("{key} {}", one.value), one.place);
        }
        Some(all.value.into_iter().map(|one| one.value).collect())
    }
}

/// The secret, from the file itself or the one that it names. `path` is the cluster file's own: a key file's is relative to it.
pub(super) fn read_secret(
    root: &Section<'_>,
    path: &Path,
    reader: &dyn Fn(&Path) -> io::Result<String>,
) -> Option<Vec<u8>> {
    let cluster = root.table("cluster");
    let read_key = |v: &DeValue<'_>| value::key(&text(v)?);
    let read_file = |v: &DeValue<'_>| {
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

/// Reads `root`, the cluster file's top level, but for the secret.
pub(super) fn read(root: &Section<'_>) -> ClusterFile {
    let mut file = ClusterFile::default();
    let cluster = root.table("cluster");
    let mut fields = Fields::of(&cluster);
    let object = read_cluster(&mut fields).map(Object::Cluster);
    file.add(fields, Key::Cluster, cluster.place, object);
    // Named things first: what names them comes behind, as ids are given in this order within each kind anyway.
    named(&mut file, root, Kind::Node, MAX_NODES, Key::Node, |f| read_node(f).map(Object::Node));
    named(&mut file, root, Kind::Group, MAX_GROUPS - 1, Key::Group, |f| read_group(f).map(Object::Group));
    addressed(&mut file, root, Kind::Snat, MAX_SNATS, Key::Snat, |f| read_snat(f).map(Object::Snat));
    addressed(&mut file, root, Kind::Vip, MAX_VIRTUAL_SERVERS, Key::Vip, |f| read_vip(f).map(Object::Vip));
    named(&mut file, root, Kind::Profile, MAX_VIRTUAL_SERVERS, Key::Profile, |f| {
        read_profile(f).map(Object::Profile)
    });
    read_virtual_servers(&mut file, root);
    named(&mut file, root, Kind::Limit, MAX_VIRTUAL_SERVERS, Key::Limit, |f| {
        read_limit(f).map(|spec| Object::Limit(Box::new(spec)))
    });
    let of = |f: &mut Fields<'_, '_>| f.required("virtual_server", name).map(Key::Persistence);
    listed(&mut file, root, (Kind::Persistence, MAX_VIRTUAL_SERVERS), "virtual_server", of, |f| {
        read_persistence(f).map(Object::Persistence)
    });
    file
}

/// The elements of a list whose keys are names.
fn named(
    file: &mut ClusterFile,
    root: &Section<'_>,
    kind: Kind,
    most: usize,
    key: impl Fn(Name) -> Key,
    read: impl Fn(&mut Fields<'_, '_>) -> Option<Object>,
) {
    listed(file, root, (kind, most), "name", |f| f.required("name", name).map(&key), read);
}

/// The elements of a list whose keys are addresses.
fn addressed(
    file: &mut ClusterFile,
    root: &Section<'_>,
    kind: Kind,
    most: usize,
    key: impl Fn(Addr) -> Key,
    read: impl Fn(&mut Fields<'_, '_>) -> Option<Object>,
) {
    listed(file, root, (kind, most), "address", |f| f.required("address", host).map(&key), read);
}

/// The elements of a list, of at most so many, whose keys stand in the field `called`.
fn listed(
    file: &mut ClusterFile,
    root: &Section<'_>,
    (kind, most): (Kind, usize),
    called: &'static str,
    key: impl Fn(&mut Fields<'_, '_>) -> Option<Key>,
    read: impl Fn(&mut Fields<'_, '_>) -> Option<Object>,
) {
    let Some(all) = bounded(root, kind.word(), most) else {
        file.unsure.insert(kind);
        return;
    };
    for section in &all {
        let mut fields = Fields::of(section);
        let key = key(&mut fields);
        let object = read(&mut fields);
        match key {
            Some(key) => {
                let place = fields.places[called];
                file.add(fields, key, place, object);
            }
            None => _ = file.unsure.insert(kind),
        }
    }
}

fn read_cluster(fields: &mut Fields<'_, '_>) -> Option<ClusterSpec> {
    let usual = ClusterSpec::default();
    let data_port = fields.or("data_port", integer(1..=u16::MAX), usual.data_port);
    let control_port = fields.or("control_port", integer(1..=u16::MAX), usual.control_port);
    let heartbeat = fields.or("heartbeat", duration, usual.heartbeat);
    let suspicion = fields.or("suspicion", duration, usual.suspicion);
    let backplane_prefix = fields.optional("backplane_prefix", integer(1..=128));
    let maglev_slots = fields.or("maglev_slots", integer(3..=MAX_SLOTS), usual.maglev_slots);
    Some(ClusterSpec {
        data_port: data_port?,
        control_port: control_port?,
        heartbeat: heartbeat?,
        suspicion: suspicion?,
        backplane_prefix: backplane_prefix?,
        maglev_slots: maglev_slots?,
    })
}

fn read_node(fields: &mut Fields<'_, '_>) -> Option<NodeSpec> {
    let backplane = fields.required("backplane", host);
    let workers = fields.required("workers", integer(WORKERS));
    let weight = fields.or("weight", integer(WEIGHTS), 1);
    let management = fields.optional("management", socket);
    Some(NodeSpec { backplane: backplane?, workers: workers?, weight: weight?, management: management? })
}

fn read_group(fields: &mut Fields<'_, '_>) -> Option<GroupSpec> {
    let members = fields.names("members");
    let backups = fields.names("backups");
    Some(GroupSpec { members: members?, backups: backups? })
}

fn read_snat(fields: &mut Fields<'_, '_>) -> Option<SnatSpec> {
    let group = fields.or("group", name, Name::all());
    let node = fields.required("node", name);
    Some(SnatSpec { group: group?, node: node? })
}

fn read_vip(fields: &mut Fields<'_, '_>) -> Option<VipSpec> {
    let group = fields.or("group", name, Name::all());
    let preferred = fields.optional("preferred", name);
    Some(VipSpec { group: group?, preferred: preferred? })
}

fn read_profile(fields: &mut Fields<'_, '_>) -> Option<ProfileSpec> {
    let idle = fields.optional("idle", duration);
    let slow_start = fields.optional("slow_start", duration);
    let health = fields.optional("health", health);
    Some(ProfileSpec { idle: idle?, slow_start: slow_start?, health: health?.map(Box::new) })
}

fn read_limit(fields: &mut Fields<'_, '_>) -> Option<LimitSpec> {
    const PER: &[(&str, Per)] = &[("virtual_server", Per::VirtualServer), ("client", Per::Client)];
    let bound = || integer(1..=1u64 << 53);
    let virtual_server = fields.optional("virtual_server", name);
    let per = fields.or("per", word(PER), Per::VirtualServer);
    let connections = fields.optional("connections", bound());
    let connections_per_second = fields.optional("connections_per_second", bound());
    let packets_per_second = fields.optional("packets_per_second", bound());
    let bits_per_second = fields.optional("bits_per_second", bound());
    let unknown = word(&[("strict", Unknown::Strict), ("loose", Unknown::Loose)]);
    let unknown = fields.or("unknown", unknown, Unknown::Strict);
    Some(LimitSpec {
        virtual_server: virtual_server?,
        per: per?,
        connections: connections?,
        connections_per_second: connections_per_second?,
        packets_per_second: packets_per_second?,
        bits_per_second: bits_per_second?,
        unknown: unknown?,
    })
}

fn read_persistence(fields: &mut Fields<'_, '_>) -> Option<PersistenceSpec> {
    let usual = PersistenceSpec::default();
    let timeout = fields.or("timeout", duration, usual.timeout);
    let prefix_v4 = fields.or("prefix_v4", integer(1..=32), usual.prefix_v4);
    let prefix_v6 = fields.or("prefix_v6", integer(1..=128), usual.prefix_v6);
    Some(PersistenceSpec { timeout: timeout?, prefix_v4: prefix_v4?, prefix_v6: prefix_v6? })
}

/// Virtual servers, each followed by its real servers.
fn read_virtual_servers(file: &mut ClusterFile, root: &Section<'_>) {
    let Some(all) = bounded(root, Kind::VirtualServer.word(), MAX_VIRTUAL_SERVERS) else {
        file.unsure.insert(Kind::VirtualServer);
        return;
    };
    for section in &all {
        let mut fields = Fields::of(section);
        let called = fields.required("name", name);
        let object = read_virtual_server(&mut fields).map(|spec| Object::VirtualServer(Box::new(spec)));
        let real_servers = bounded(section, Kind::RealServer.word(), MAX_REAL_SERVERS);
        if real_servers.is_none() {
            file.unsure.insert(Kind::RealServer);
        }
        // The second of two with one name has real servers that are none of the first's.
        let own = called.clone().filter(|called| file.find(&Key::VirtualServer(called.clone())).is_none());
        match called {
            Some(called) => {
                let place = fields.places["name"];
                file.add(fields, Key::VirtualServer(called), place, object);
            }
            None => _ = file.unsure.insert(Kind::VirtualServer),
        }
        for section in real_servers.iter().flatten() {
            let mut fields = Fields::of(section);
            let called = fields.required("name", name);
            let object = read_real_server(&mut fields).map(Object::RealServer);
            match (own.clone(), called) {
                (Some(server), Some(called)) => {
                    let place = fields.places["name"];
                    file.add(fields, Key::RealServer(server, called), place, object);
                }
                _ => _ = file.unsure.insert(Kind::RealServer),
            }
        }
    }
}

fn read_virtual_server(fields: &mut Fields<'_, '_>) -> Option<VirtualServerSpec> {
    const PROTOCOLS: &[(&str, Protocol)] = &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    const INGRESS: &[(&str, Ingress)] = &[("steered", Ingress::Steered), ("local", Ingress::Local)];
    const FORWARD: &[(&str, Forward)] =
        &[("nat", Forward::Nat), ("dsr-l2", Forward::DsrL2), ("ipip", Forward::Ipip), ("gue", Forward::Gue)];
    let address = fields.required("address", host);
    let port = fields.required("port", integer(1..=u16::MAX));
    let protocol = fields.or("protocol", word(PROTOCOLS), Protocol::Tcp);
    let group = fields.or("group", name, Name::all());
    let forward = fields.required("forward", word(FORWARD));
    let ingress = fields.or("ingress", word(INGRESS), Ingress::Steered);
    let profile = fields.optional("profile", name);
    let idle = fields.optional("idle", duration);
    let slow_start = fields.optional("slow_start", duration);
    let health = fields.optional("health", health);
    Some(VirtualServerSpec {
        address: address?,
        port: port?,
        protocol: protocol?,
        group: group?,
        forward: forward?,
        ingress: ingress?,
        profile: profile?,
        idle: idle?,
        slow_start: slow_start?,
        health: health?.map(Box::new),
    })
}

fn read_real_server(fields: &mut Fields<'_, '_>) -> Option<RealServerSpec> {
    let address = fields.required("address", host);
    let port = fields.optional("port", integer(1..=u16::MAX));
    let weight = fields.or("weight", integer(WEIGHTS), 1);
    let health = fields.optional("health", health);
    Some(RealServerSpec { address: address?, port: port?, weight: weight?, health: health?.map(Box::new) })
}
