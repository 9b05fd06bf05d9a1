//! What is asked of a namespace backwards: who names an object, who has an address, how many there are. Kept along with
//! the objects, so that a change is checked by looking at what it touches.

use super::key::{Key, Kind, Name};
use super::object::Object;
use crate::base::Addr;
use crate::view::{Forward, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// A VIP's port: address, port, whether it is UDP's.
pub(super) type Service = (Addr, u16, bool);

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    /// An object and one that names it.
    referrers: BTreeSet<(Key, Key)>,
    /// An address and who has it: a node on the backplane, a SNAT address, a VIP, a virtual server, a real server.
    addresses: BTreeSet<(Addr, Key)>,
    services: BTreeSet<(Service, Name)>,
    /// SNAT addresses by group and whether they are IPv4.
    snats: BTreeSet<(Name, bool, Addr)>,
    /// Virtual servers that need a SNAT address of a group, IPv4 or not.
    nat: BTreeSet<(Name, bool, Name)>,
    /// Real servers of each virtual server that has any.
    sizes: BTreeMap<Name, usize>,
    counts: [usize; Kind::ALL.len()],
}

fn update<T: Ord>(set: &mut BTreeSet<T>, item: T, present: bool) {
    if present {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

impl Index {
    /// Takes up an object, or with `present` false forgets it.
    pub fn note(&mut self, key: &Key, object: &Object, present: bool) {
        let count = &mut self.counts[key.kind() as usize];
        *count = if present { *count + 1 } else { *count - 1 };
        for (_, target) in object.references(key) {
            update(&mut self.referrers, (target, key.clone()), present);
        }
        let address = match (key, object) {
            (_, Object::Node(spec)) => Some(spec.backplane),
            (_, Object::RealServer(spec)) => Some(spec.address),
            (_, Object::VirtualServer(spec)) => Some(spec.address),
            (Key::Snat(address) | Key::Vip(address), _) => Some(*address),
            _ => None,
        };
        if let Some(address) = address {
            update(&mut self.addresses, (address, key.clone()), present);
        }
        match (key, object) {
            (Key::Snat(address), Object::Snat(spec)) => {
                update(&mut self.snats, (spec.group.clone(), address.is_v4(), *address), present);
            }
            (Key::VirtualServer(name), Object::VirtualServer(spec)) => {
                let service = (spec.address, spec.port, spec.protocol == Protocol::Udp);
                update(&mut self.services, (service, name.clone()), present);
                if spec.forward == Forward::Nat {
                    let item = (spec.group.clone(), spec.address.is_v4(), name.clone());
                    update(&mut self.nat, item, present);
                }
            }
            (Key::RealServer(server, _), _) => {
                let size = self.sizes.entry(server.clone()).or_default();
                *size = if present { *size + 1 } else { *size - 1 };
                if *size == 0 {
                    self.sizes.remove(server);
                }
            }
            _ => {}
        }
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        self.counts[kind as usize]
    }

    /// Objects that name `key`; a virtual server's real servers aren't counted among them.
    pub fn referrers<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Key> {
        let from = (key.clone(), Key::Cluster);
        self.referrers.range(from..).take_while(move |(target, _)| target == key).map(|(_, source)| source)
    }

    /// Who has `address`, of one kind.
    pub fn holders(&self, address: Addr, kind: Kind) -> impl Iterator<Item = &Key> {
        let all = self.addresses.range((address, Key::first(kind))..);
        all.take_while(move |(a, key)| *a == address && key.kind() == kind).map(|(_, key)| key)
    }

    /// Who has an address from `low` to `high`.
    pub fn within(&self, low: Addr, high: Addr) -> impl Iterator<Item = &(Addr, Key)> {
        self.addresses.range((low, Key::Cluster)..).take_while(move |(address, _)| *address <= high)
    }

    /// The virtual servers at a VIP's port: one, but while a change is looked at.
    pub fn servers_at(&self, service: Service) -> impl Iterator<Item = &Name> {
        let from = (service, Name::least());
        self.services.range(from..).take_while(move |(s, _)| *s == service).map(|(_, name)| name)
    }

    /// Whether a group has a SNAT address of a family.
    pub fn has_snat(&self, group: &Name, v4: bool) -> bool {
        let mut from = self.snats.range((group.clone(), v4, Addr::UNSPECIFIED)..);
        from.next().is_some_and(|(name, family, _)| name == group && *family == v4)
    }

    /// A virtual server that needs a SNAT address of a group and family.
    pub fn needs_snat(&self, group: &Name, v4: bool) -> Option<&Name> {
        let (name, family, server) = self.nat.range((group.clone(), v4, Name::least())..).next()?;
        (name == group && *family == v4).then_some(server)
    }

    /// How many real servers a virtual server has.
    pub fn size(&self, virtual_server: &Name) -> usize {
        self.sizes.get(virtual_server).copied().unwrap_or(0)
    }

    /// The virtual server with the most real servers.
    pub fn largest(&self) -> Option<(&Name, usize)> {
        // Of several, the first: `max_by_key` would have the last.
        self.sizes.iter().rev().map(|(name, size)| (name, *size)).max_by_key(|(_, size)| *size)
    }
}
