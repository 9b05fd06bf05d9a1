//! A long immutable list by id, of which successive versions share what is the same: it is cut into chunks, and a change copies
//! those that it falls into. An item costs one load more than in a plain list; of the chunks there are so few that their
//! places stay in the caches.

use std::ops::Index;
use std::sync::Arc;

/// Items of a chunk. A change copies so many; the places of a million items' chunks take 32 KiB.
const CHUNK: usize = 256;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Chunks<T> {
    /// The last one is filled up with items that aren't asked for.
    chunks: Arc<[Arc<[T; CHUNK]>]>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Arc::new([]), len: 0 }
    }
}

impl<T: Clone> Chunks<T> {
    /// As long as `like`, whose chunk `i` is `chunk(i, items of it)`: a new list of as many items, or one that is shared.
    pub fn along<U>(like: &Chunks<U>, spare: &T, mut chunk: impl FnMut(usize, &[U]) -> Part<T>) -> Self {
        let chunks = like.chunks.iter().enumerate().map(|(i, items)| {
            let used = (like.len - i * CHUNK).min(CHUNK);
            match chunk(i, &items[..used]) {
                Part::Same(chunk) => chunk.0,
                Part::New(items) => Self::chunk(items, spare),
            }
        });
        Self { chunks: chunks.collect(), len: like.len }
    }

    fn chunk(mut items: Vec<T>, spare: &T) -> Arc<[T; CHUNK]> {
        items.resize(CHUNK, spare.clone());
        let items: Arc<[T]> = items.into();
        match items.try_into() {
            Ok(chunk) => chunk,
            Err(_) => unreachable!("it was made as long as a chunk"),
        }
    }

    /// A list that begins as this one and is to be changed; `len` long, with `spare` in what is new.
    pub fn edit(&self, len: usize, spare: &T) -> Edit<T> {
        let mut chunks = self.chunks.to_vec();
        let (kept, wanted) = (chunks.len(), len.div_ceil(CHUNK));
        if wanted > kept {
            chunks.resize(wanted, Self::chunk(Vec::new(), spare));
        } else if len < self.len {
            chunks.truncate(wanted);
            if let Some(last) = chunks.last_mut().filter(|_| !len.is_multiple_of(CHUNK)) {
                // What is cut off must not come back when the list grows again.
                *last = Self::chunk(last[..len % CHUNK].to_vec(), spare);
            }
        }
        Edit { chunks, len }
    }
}

/// A chunk of a list, to be had in another one.
pub struct Shared<T>(Arc<[T; CHUNK]>);

/// What a chunk of a list is to be.
pub enum Part<T> {
    /// That of another list.
    Same(Shared<T>),
    /// These items.
    New(Vec<T>),
}

impl<T> Chunks<T> {
    /// Items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The items, by id.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len)
    }

    /// A chunk, if there is such a one.
    pub fn part(&self, chunk: usize) -> Option<Shared<T>> {
        self.chunks.get(chunk).map(|chunk| Shared(chunk.clone()))
    }

    /// Whether a chunk is the same in both lists.
    pub fn shares(&self, other: &Self, chunk: usize) -> bool {
        match (self.chunks.get(chunk), other.chunks.get(chunk)) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            _ => false,
        }
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    /// # Panics
    /// If there is no such item. (Behind the last one, up to the end of its chunk, nobody asks.)
    #[inline(always)]
    fn index(&self, id: usize) -> &T {
        &self.chunks[id / CHUNK][id % CHUNK]
    }
}

/// A list that is being changed.
pub struct Edit<T> {
    chunks: Vec<Arc<[T; CHUNK]>>,
    len: usize,
}

impl<T: Clone + PartialEq> Edit<T> {
    /// The item as it is now.
    pub fn get(&self, id: usize) -> Option<&T> {
        self.chunks.get(id / CHUNK).map(|chunk| &chunk[id % CHUNK])
    }

    /// Puts an item in the place of another; if it is the same, nothing is copied.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn set(&mut self, id: usize, item: T) {
        let chunk = &mut self.chunks[id / CHUNK];
        if chunk[id % CHUNK] != item {
            Arc::make_mut(chunk)[id % CHUNK] = item;
        }
    }

    /// All items.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).take(self.len)
    }

    /// The list.
    pub fn done(self) -> Chunks<T> {
        Chunks { chunks: self.chunks.into(), len: self.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_as_a_list_and_copies_what_changes(
            first in proptest::collection::vec(0u32..4, 0..1000),
            second in 0usize..1600,
            edits in proptest::collection::vec((any::<prop::sample::Index>(), 0u32..4), 0..8),
        ) {
            let mut old = Chunks::default().edit(first.len(), &9);
            first.iter().enumerate().for_each(|(i, item)| old.set(i, *item));
            let old = old.done();
            let mut model = first.clone();
            model.resize(second, 9);
            let mut edit = old.edit(model.len(), &9);
            let mut touched = std::collections::BTreeSet::new();
            for (at, item) in edits.iter().take(if second == 0 { 0 } else { usize::MAX }) {
                let at = at.index(model.len());
                if model[at] != *item {
                    touched.insert(at / CHUNK);
                }
                model[at] = *item;
                edit.set(at, *item);
                prop_assert_eq!(edit.get(at), Some(item));
            }
            prop_assert!(edit.iter().eq(&model));
            let new = edit.done();
            prop_assert_eq!(new.len(), model.len());
            prop_assert!(new.iter().eq(&model));
            prop_assert!(old.iter().eq(&first), "the old one stays as it was");
            prop_assert!(model.iter().enumerate().all(|(i, item)| new[i] == *item));
            for chunk in 0..first.len().min(second) / CHUNK {
                prop_assert_eq!(new.shares(&old, chunk), !touched.contains(&chunk));
            }
            let again = new.edit(second + 300, &9).done();
            prop_assert!(again.iter().take(second).eq(&model) && again.iter().skip(second).all(|item| *item == 9));
            let doubled = Chunks::along(&new, &0, |chunk, items| {
                if chunk == 0 { Part::New(items.iter().map(|x| 2 * x).collect()) } else { Part::Same(new.part(chunk).unwrap()) }
            });
            prop_assert_eq!(doubled.len(), model.len());
            let factor = |i| if i < CHUNK { 2 } else { 1 };
            prop_assert!((0..model.len()).all(|i| doubled[i] == new[i] * factor(i)));
        }
    }
}
