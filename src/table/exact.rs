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

    /// The value of `key`.
    #[inline(always)]
    pub fn get(&self, key: &K) -> Option<V> {
        self.slots[self.position(key)].map(|(_, value)| value)
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
            for k in 0..400 {
                prop_assert_eq!(map.get(&k), model.get(&k).copied());
            }
        }
    }
}
