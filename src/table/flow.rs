//! A bounded table from whole tuples to values, private to one core: sessions and steering sessions.
//!
//! Entries lie in one array of fixed size; an [`Index`] finds them by the tuple's hash, and an entry may be found under a
//! second hash as well (a NAT session, by the tuple of its replies). Entries don't move, and nothing is allocated after
//! [`FlowTable::new`]. Expiry is a cursor that visits a few entries a turn.

use super::index::{self, Full, Index};
use super::large;
use crate::base::{Addr, FlowHash, FlowKey};

/// Number of an entry; good until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(u32);

impl EntryId {
    /// As a number below [`MAX_FLOWS`](crate::base::limits::MAX_FLOWS).
    pub fn number(self) -> usize {
        self.0 as usize
    }

    /// The entry of this number, in a table of so many.
    pub fn numbered(number: u32, capacity: usize) -> Option<Self> {
        ((number as usize) < capacity).then_some(Self(number))
    }

    pub(super) fn new(number: u32) -> Self {
        Self(number)
    }
}

#[derive(Clone)]
struct Entry<V> {
    /// Protocol zero: the entry is free, and its source address begins with the number of the next free one.
    key: FlowKey,
    value: V,
}

/// Ends the list of free entries.
const LAST: u32 = u32::MAX;

/// The key of a free entry.
fn free(next: u32) -> FlowKey {
    let [a, b, c, d] = next.to_ne_bytes();
    FlowKey::new(Addr([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Addr::UNSPECIFIED, 0, 0, 0)
}

/// See the module's text.
pub struct FlowTable<V> {
    entries: Box<[Entry<V>]>,
    /// The first free entry, or [`LAST`].
    free: u32,
    len: usize,
    index: Index,
    cursor: usize,
}

impl<V: Copy + Default> FlowTable<V> {
    /// A table of `capacity` entries, each findable under up to `names` hashes (1 or 2).
    pub fn new(capacity: usize, names: usize) -> Self {
        let next = |i| if i + 1 == capacity { LAST } else { i as u32 + 1 };
        Self {
            entries: large::filled(capacity, |i| Entry { key: free(next(i)), value: V::default() }),
            free: if capacity == 0 { LAST } else { 0 },
            len: 0,
            index: Index::new(capacity * names),
            cursor: 0,
        }
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no entry is in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries in all.
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory, index counted; the list of free entries lies in these.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + self.index.bytes()
    }

    /// Starts fetching the index line of a flow that will be looked up soon.
    #[inline(always)]
    pub fn prefetch_index(&self, hash: FlowHash) {
        self.index.prefetch(hash.index());
    }

    /// Starts fetching the entry of that flow, once its index line is here; `false` if that line names none.
    #[inline(always)]
    pub fn prefetch_entry(&self, hash: FlowHash) -> bool {
        let Some(entry) = self.index.candidate(hash.index()) else { return false };
        self.prefetch(EntryId(entry));
        true
    }

    /// Starts fetching an entry.
    #[inline(always)]
    pub fn prefetch(&self, id: EntryId) {
        let entry: *const Entry<V> = &raw const self.entries[id.0 as usize];
        index::prefetch(entry);
        // An entry of 56 bytes mostly lies in two lines.
        index::prefetch(entry.cast::<u8>().wrapping_add(size_of::<Entry<V>>() - 1));
    }

    /// The entry with exactly this key.
    #[inline]
    pub fn find(&self, hash: FlowHash, key: &FlowKey) -> Option<EntryId> {
        self.find_by(hash, |k, _| k == key)
    }

    /// The entry under `hash` that `is` recognises.
    #[inline(always)]
    pub fn find_by(&self, hash: FlowHash, mut is: impl FnMut(&FlowKey, &V) -> bool) -> Option<EntryId> {
        let found = self.index.find(hash.index(), |entry| {
            let entry = &self.entries[entry as usize];
            is(&entry.key, &entry.value)
        });
        found.map(EntryId)
    }

    /// Adds an entry, which the caller knows to be new. `Full`: no free entry, or no room in its index lines.
    pub fn insert(&mut self, hash: FlowHash, key: FlowKey, value: V) -> Result<EntryId, Full> {
        debug_assert!(key.protocol != 0, "protocol zero marks a free entry");
        let id = self.free;
        if id == LAST {
            return Err(Full);
        }
        self.index.insert(hash.index(), id)?;
        let entry = &mut self.entries[id as usize];
        let [a, b, c, d, ..] = entry.key.src.0;
        self.free = u32::from_ne_bytes([a, b, c, d]);
        self.len += 1;
        *entry = Entry { key, value };
        Ok(EntryId(id))
    }

    /// Makes an entry findable under a second hash.
    pub fn add_name(&mut self, hash: FlowHash, id: EntryId) -> Result<(), Full> {
        self.index.insert(hash.index(), id.0)
    }

    /// Takes a second hash back.
    pub fn remove_name(&mut self, hash: FlowHash, id: EntryId) {
        let was_there = self.index.remove(hash.index(), id.0);
        debug_assert!(was_there, "the name was never added");
    }

    /// Removes an entry (its second hash must be gone) and returns its value.
    pub fn remove(&mut self, hash: FlowHash, id: EntryId) -> V {
        let was_there = self.index.remove(hash.index(), id.0);
        debug_assert!(was_there, "an entry is under the hash of its key");
        let entry = &mut self.entries[id.0 as usize];
        if !was_there {
            return entry.value; // an entry that is free twice would be given to two flows
        }
        entry.key = free(self.free);
        self.free = id.0;
        self.len -= 1;
        entry.value
    }

    /// An entry's key.
    #[inline]
    pub fn key(&self, id: EntryId) -> &FlowKey {
        &self.entries[id.0 as usize].key
    }

    /// An entry's value.
    #[inline]
    pub fn get(&self, id: EntryId) -> &V {
        &self.entries[id.0 as usize].value
    }

    /// An entry's value, writable.
    #[inline]
    pub fn get_mut(&mut self, id: EntryId) -> &mut V {
        &mut self.entries[id.0 as usize].value
    }

    /// Moves the expiry cursor on by one entry and names that entry if it is in use. `capacity` steps visit all.
    #[inline]
    pub fn step(&mut self) -> Option<EntryId> {
        let at = self.cursor;
        self.cursor = if at + 1 == self.entries.len() { 0 } else { at + 1 };
        // Tables are larger than caches, and this one looks at an entry once in a while.
        if let Some(next) = self.entries.get(self.cursor) {
            index::prefetch(next);
        }
        let live = self.entries.get(at).is_some_and(|e| e.key.protocol != 0);
        live.then_some(EntryId(at as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::HashKey;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const KEY: HashKey = HashKey([3, 4]);

    fn flow(i: u32) -> FlowKey {
        // Both families, and pairs that differ in one field only.
        let src = if i & 1 == 0 { Addr::v4((i >> 3).to_be_bytes()) } else { Addr([(i >> 3) as u8; 16]) };
        let dst = if i & 1 == 0 { Addr::v4([10, 0, 0, 1]) } else { Addr([9; 16]) };
        FlowKey::new(src, dst, 1000 + (i >> 1 & 1) as u16, 80, if i & 4 == 0 { 6 } else { 17 })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Against a map: any sequence of inserts, removals and look-ups, over and under the table's capacity.
        #[test]
        fn behaves_as_a_map(ops in proptest::collection::vec((0u32..400, 0u8..3), 1..2000)) {
            let mut table = FlowTable::<u32>::new(100, 1);
            let mut model = BTreeMap::new();
            for (n, (i, op)) in ops.into_iter().enumerate() {
                let (key, hash) = (flow(i), KEY.flow(&flow(i)));
                let found = table.find(hash, &key);
                prop_assert_eq!(found.map(|id| *table.get(id)), model.get(&i).copied());
                match (op, found) {
                    (0, None) => match table.insert(hash, key, n as u32) {
                        Ok(_) => { model.insert(i, n as u32); }
                        // By chance two lines may be full before the table is, but not below what they hold.
                        Err(Full) => prop_assert!(model.len() >= 30, "full at {}", model.len()),
                    },
                    (1, Some(id)) => { prop_assert_eq!(Some(table.remove(hash, id)), model.remove(&i)); }
                    (2, Some(id)) => { *table.get_mut(id) = n as u32; model.insert(i, n as u32); }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            let mut visited = (0..table.capacity()).filter_map(|_| table.step()).count();
            prop_assert_eq!(visited, model.len());
            for (i, value) in &model {
                let id = table.find(KEY.flow(&flow(*i)), &flow(*i));
                prop_assert_eq!(id.map(|id| *table.get(id)), Some(*value));
                visited -= 1;
            }
            prop_assert_eq!(visited, 0);
        }
    }

    #[test]
    fn a_second_name_finds_the_same_entry() {
        let mut table = FlowTable::<u32>::new(10, 2);
        let (forward, reply) = (flow(8), flow(8).reversed());
        let id = table.insert(KEY.flow(&forward), forward, 7).unwrap();
        table.add_name(KEY.flow(&reply), id).unwrap();
        assert_eq!(table.find_by(KEY.flow(&reply), |k, _| *k == reply.reversed()), Some(id));
        table.remove_name(KEY.flow(&reply), id);
        assert_eq!(table.find_by(KEY.flow(&reply), |_, _| true), None);
        table.remove(KEY.flow(&forward), id);
        assert!(table.is_empty());
    }

    #[test]
    fn one_hash_for_all_still_finds_by_key_and_fills_up() {
        // The worst an attacker could do if he knew the key: everything in two lines.
        let mut table = FlowTable::<u32>::new(1000, 1);
        let hash = FlowHash(42);
        let fits = (0..100).take_while(|i| table.insert(hash, flow(*i), *i).is_ok()).count();
        assert_eq!(fits, 30);
        for i in 0..30 {
            assert_eq!(table.find(hash, &flow(i)).map(|id| *table.get(id)), Some(i));
        }
        assert_eq!(table.find(hash, &flow(30)), None);
        for i in 0..30 {
            let id = table.find(hash, &flow(i)).unwrap();
            assert_eq!(table.remove(hash, id), i);
        }
        assert!(table.is_empty());
    }

    #[test]
    fn fills_to_its_capacity() {
        let mut table = FlowTable::<[u64; 2]>::new(100_000, 1);
        let refused = (0..100_000u32)
            .filter(|i| {
                let key = FlowKey::new(Addr::v4(i.to_be_bytes()), Addr::v4([1, 1, 1, 1]), 5, 80, 6);
                table.insert(KEY.flow(&key), key, [0; 2]).is_err()
            })
            .count();
        assert!(refused < 100, "{refused} of 100000 refused");
        // DESIGN's bound: 64 bytes a flow, indices counted.
        assert!(table.bytes() <= 64 * 100_000, "{} bytes a flow", table.bytes() as f64 / 1e5);
    }
}
