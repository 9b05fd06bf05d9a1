//! Which real server is which: sessions know one by its id, so that an id is one address, port and protocol for ever.

use super::key::{Key, Kind};
use super::object::Object;
use super::write::Undo;
use super::{Entry, Namespace};
use crate::base::{Addr, RealServerId};
use crate::view::Protocol;
use std::collections::{BTreeMap, BTreeSet};

/// Objects as they are but for what stands here; none: it isn't there.
type Instead<'a> = BTreeMap<&'a Key, Option<&'a Object>>;

impl Namespace {
    /// The real servers that changes of these objects may remove or move, as they are.
    pub fn at_stake<'a>(&self, changed: impl Iterator<Item = &'a Key>) -> Vec<(Key, RealServerId)> {
        let known = |key: Key| self.get(&key).map(|entry| RealServerId(entry.id)).map(|id| (key, id));
        self.real_servers_touched(changed).into_iter().filter_map(known).collect()
    }

    /// Those of them that there are no more: removed, or other ones since they moved.
    pub fn gone(&self, known: Vec<(Key, RealServerId)>) -> impl Iterator<Item = RealServerId> {
        let gone = |key: &Key, id| self.get(key).is_none_or(|entry| RealServerId(entry.id) != id);
        known.into_iter().filter(move |(key, id)| gone(key, *id)).map(|(_, id)| id)
    }

    /// The real servers whose place changes of these objects may change: themselves, and those of a virtual server, which may have
    /// its port.
    fn real_servers_touched<'a>(&self, changed: impl Iterator<Item = &'a Key>) -> BTreeSet<Key> {
        let mut touched = BTreeSet::new();
        for key in changed {
            match key {
                Key::RealServer(..) => _ = touched.insert(key.clone()),
                Key::VirtualServer(server) => {
                    let below = self.real_servers(server);
                    touched.extend(below.map(|(_, name, _)| Key::RealServer(server.clone(), name.clone())));
                }
                _ => {}
            }
        }
        touched
    }

    /// Gives another id to each real server that is elsewhere than before, by itself or by its virtual server's port or protocol:
    /// what sessions promised under the old one holds there only.
    pub(super) fn renumber(&mut self, undo: &mut Undo) {
        let was: Instead<'_> =
            undo.iter().map(|(key, before)| (key, before.as_ref().map(|entry| &entry.object))).collect();
        let now = Instead::new();
        let mut moved: Vec<(Key, bool)> = Vec::new();
        for key in self.real_servers_touched(was.keys().copied()) {
            if let (Some(before), Some(after)) = (self.place(&key, &was), self.place(&key, &now))
                && before != after
            {
                let noted = was.contains_key(&key);
                moved.push((key, noted));
            }
        }
        for (key, noted) in moved {
            let Some(entry) = self.get(&key).cloned() else { continue };
            let next = &mut self.next[Kind::RealServer as usize];
            let id = std::mem::replace(next, next.saturating_add(1));
            let before = self.put(&key, Some(Entry { id, ..entry }));
            if !noted {
                undo.push((key, before));
            }
        }
    }

    /// Where a real server is.
    fn place(&self, key: &Key, instead: &Instead<'_>) -> Option<(Addr, u16, Protocol)> {
        let Key::RealServer(server, _) = key else { return None };
        let object =
            |key: &Key| instead.get(key).copied().unwrap_or_else(|| self.get(key).map(|entry| &entry.object));
        match (object(key)?, object(&Key::VirtualServer(server.clone()))?) {
            (Object::RealServer(real), Object::VirtualServer(of)) => {
                Some((real.address, real.port.unwrap_or(of.port), of.protocol))
            }
            _ => None,
        }
    }
}
