//! A small immutable map with exact keys, built once for a View: addresses and services. Open addressing at a load of at
//! most one half, linear probes.

use crate::base::hash::reduce;

/// A key that can hash itself.
pub trait ExactKey: Copy + Eq {
    /// 64 well-mixed bits; the same for equal keys.
    fn bits(&self) -> u64;
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct ExactMap<K, V> {
    slots: Box<[Option<(K, V)>]>,
    len: usize,
}

impl<K: ExactKey, V: Copy> ExactMap<K, V> {
    /// A map of `items`; of equal keys the first counts.
    pub fn build(items: impl IntoIterator<Item = (K, V)>) -> Self {
        let items: Vec<_> = items.into_iter().collect();
        let mut map = Self { slots: vec![None; (items.len() * 2).max(2)].into_boxed_slice(), len: 0 };
        for (key, value) in items {
            let at = map.position(&key);
            if map.slots[at].is_none() {
                map.slots[at] = Some((key, value));
                map.len += 1;
            }
        }
        map
    }

    /// Where `key` stands, or would. Half of the slots are empty, so there is an end.
    #[inline(always)]
    fn position(&self, key: &K) -> usize {
        let mut at = reduce(key.bits(), self.slots.len() as u64) as usize;
        while self.slots[at].is_some_and(|(k, _)| k != *key) {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }

    /// Its keys, in no order that means anything.
    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.slots.iter().flatten().map(|(key, _)| *key)
    }

    /// The value of `key`.
    #[inline(always)]
    pub fn get(&self, key: &K) -> Option<V> {
        let mut at = reduce(key.bits(), self.slots.len() as u64) as usize;
        // Half of the slots are empty, so there is an end.
        while let Some((k, value)) = &self.slots[at] {
            if k == key {
                return Some(*value);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        None
    }

    /// Keys in the map.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Words of a [`Filter`].
const FILTER_WORDS: usize = 256;

/// A set of keys that may say yes to a key that it doesn't hold, but never no to one that it does (Bloom, "Space/time
/// trade-offs in hash coding with allowable errors", 1970, with one hash): 2 KiB, one load a question.
#[derive(Clone, Debug)]
pub struct Filter(Box<[u64; FILTER_WORDS]>);

impl Filter {
    /// A filter that holds `keys`.
    pub fn build<K: ExactKey>(keys: impl IntoIterator<Item = K>) -> Self {
        let mut words = Box::new([0; FILTER_WORDS]);
        for key in keys {
            let (word, bit) = Self::place(&key);
            words[word] |= bit;
        }
        Self(words)
    }

    #[inline(always)]
    fn place<K: ExactKey>(key: &K) -> (usize, u64) {
        let bits = key.bits();
        ((bits >> 32) as usize % FILTER_WORDS, 1 << (bits >> 58))
    }

    /// `false`: the key is not there.
    #[inline(always)]
    pub fn may_hold<K: ExactKey>(&self, key: &K) -> bool {
        let (word, bit) = Self::place(key);
        self.0[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    impl ExactKey for u16 {
        fn bits(&self) -> u64 {
            // Poor on purpose: many keys share a slot.
            u64::from(*self & 7) << 61
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(items in proptest::collection::vec((0u16..300, any::<u32>()), 0..200)) {
            let mut model = BTreeMap::new();
            for (k, v) in &items {
                model.entry(*k).or_insert(*v);
            }
            let map = ExactMap::build(items);
            prop_assert_eq!(map.len(), model.len());
            let filter = Filter::build(model.keys().copied());
            for k in 0..400 {
                prop_assert_eq!(map.get(&k), model.get(&k).copied());
                prop_assert!(filter.may_hold(&k) || !model.contains_key(&k));
            }
        }
    }
}
