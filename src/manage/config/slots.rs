//! A list by id, in which ids that are used up leave holes.

use std::ops::{Index, IndexMut};

/// Things by their id. Ids of what was removed aren't given again, because sessions may name them; what the packet path
/// indexes by id is therefore as long as there ever were things, and has something harmless in the holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots<T>(Vec<Option<T>>);

impl<T> Slots<T> {
    /// `len` slots, with these things in them.
    ///
    /// # Panics
    /// If an id isn't below `len`.
    pub fn new(len: usize, things: impl IntoIterator<Item = (usize, T)>) -> Self {
        let mut slots: Vec<Option<T>> = std::iter::repeat_with(|| None).take(len).collect();
        for (id, thing) in things {
            slots[id] = Some(thing);
        }
        Self(slots)
    }

    /// The same with as many slots as `other` at least. A state that is had anew begins with less than there was, and what a worker
    /// knows still names that.
    pub fn as_long_as(mut self, other: &Self) -> Self {
        let len = self.0.len().max(other.0.len());
        self.0.resize_with(len, || None);
        self
    }

    /// How many slots there are, holes among them.
    pub fn slots(&self) -> usize {
        self.0.len()
    }

    /// How many things there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The thing with this id, unless it's a hole or beyond the end.
    pub fn get(&self, id: usize) -> Option<&T> {
        self.0.get(id)?.as_ref()
    }

    /// The things and their ids, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &T)> + Clone {
        self.0.iter().enumerate().filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }

    /// A list as long as there are slots: what `thing` makes of things, and `hole` of holes.
    pub fn filled<'a, U>(
        &'a self,
        mut thing: impl FnMut(usize, &'a T) -> U,
        hole: impl Fn(usize) -> U,
    ) -> Vec<U> {
        let each = self.0.iter().enumerate();
        let filled = each.map(|(id, slot)| match slot {
            Some(held) => thing(id, held),
            None => hole(id),
        });
        filled.collect()
    }
}

impl<T> Index<usize> for Slots<T> {
    type Output = T;

    /// # Panics
    /// If there is no such thing.
    fn index(&self, id: usize) -> &T {
        match self.get(id) {
            Some(thing) => thing,
            None => panic!("nothing has the id {id}"),
        }
    }
}

impl<T> IndexMut<usize> for Slots<T> {
    /// # Panics
    /// If there is no such thing.
    fn index_mut(&mut self, id: usize) -> &mut T {
        match self.0.get_mut(id) {
            Some(Some(thing)) => thing,
            _ => panic!("nothing has the id {id}"),
        }
    }
}
