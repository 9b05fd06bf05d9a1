//! One worker's entries: found by key, and listed by bucket, the newest first.
//!
//! An entry is a head and, in an array beside it, room for key and value in one of three sizes; an [`Index`] finds it by the key's
//! hash. Nothing is allocated after [`Store::new`].

use super::entry::Version;
use crate::base::Tick;
use crate::base::hash::{HashKey, mix, siphash13_bytes};
use crate::table::index::Index;
use crate::table::large;
use crate::wire::state::{Content, MAX_KEY, MAX_VALUE, Name};

/// Room for key and value, by size.
const SIZES: [usize; 3] = [32, 64, MAX_KEY + MAX_VALUE];
const NOBODY: u32 = u32::MAX;

/// Names no busy record.
pub const IDLE: u16 = u16::MAX;

/// An entry's place; good until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryId(u32);

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not in use.
    #[default]
    Free,
    /// Nothing is known of the key yet: somebody is asked.
    Asked,
    /// It is known that there is nothing.
    Absent,
    /// It was deleted.
    Deleted,
    /// It has a value.
    Value,
}

/// What stands beside key and value.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// When it was written.
    pub version: Version,
    /// When it ends; zero: it doesn't.
    pub expires: Tick,
    newer: u32,
    older: u32,
    bucket: u32,
    /// What the bucket's number was when the entry was last known to be good.
    pub stay: u16,
    /// Who works on it.
    pub busy: u16,
    /// What it is.
    pub state: State,
    /// Not all complete copies may have it.
    pub unsure: bool,
    kind: u8,
    key: u8,
    value: u8,
}

const _: () = assert!(size_of::<Head>() == 40);

impl EntryId {
    /// No entry's.
    pub const NONE: Self = Self(NOBODY);
}

impl Head {
    const FREE: Self = Self {
        version: Version::NONE,
        expires: Tick(0),
        newer: NOBODY,
        older: NOBODY,
        bucket: 0,
        stay: 0,
        busy: IDLE,
        state: State::Free,
        unsure: false,
        kind: 0,
        key: 0,
        value: 0,
    };

    /// The number of its bucket.
    pub fn bucket(&self) -> usize {
        self.bucket as usize
    }
}

/// There is no room for another entry of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The entries of one bucket.
#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
}

/// Entries of one size.
struct Class {
    /// Number of the first.
    first: u32,
    size: usize,
    free: u32,
    bytes: Box<[u8]>,
}

/// See the module's text.
pub struct Store {
    hash_key: HashKey,
    heads: Box<[Head]>,
    classes: [Class; 3],
    index: Index,
    lists: Box<[List]>,
    len: usize,
    cursor: usize,
}

impl Store {
    /// Room for so many entries whose key and value have up to 32, 64, and 112 bytes together, in so many buckets.
    pub fn new(hash_key: HashKey, capacity: [usize; 3], buckets: usize) -> Self {
        let all: usize = capacity.iter().sum();
        let mut heads = large::filled(all, |_| Head::FREE);
        let mut first = 0;
        let classes = [0, 1, 2].map(|class| {
            let count = capacity[class];
            for i in first..first + count {
                heads[i].older = if i + 1 < first + count { i as u32 + 1 } else { NOBODY };
            }
            let made = Class {
                first: first as u32,
                size: SIZES[class],
                free: if count > 0 { first as u32 } else { NOBODY },
                bytes: large::filled(count * SIZES[class], |_| 0),
            };
            first += count;
            made
        });
        Self {
            hash_key,
            heads,
            classes,
            // Roomier than flows have it: an entry that finds both its lines full is refused, and nobody could do without it.
            index: Index::new(all + all / 2),
            lists: large::filled(buckets, |_| List { newest: NOBODY, oldest: NOBODY }),
            len: 0,
            cursor: 0,
        }
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory, all counted.
    pub fn bytes(&self) -> usize {
        let classes: usize = self.classes.iter().map(|class| class.bytes.len()).sum();
        size_of_val(&*self.heads) + classes + self.index.bytes() + size_of_val(&*self.lists)
    }

    /// One bucket's key hashes elsewhere than another's: a key may stand in several groups.
    fn hash(&self, bucket: usize, name: Name<'_>) -> u64 {
        let mut bytes = [0; MAX_KEY + 5];
        bytes[..4].copy_from_slice(&(bucket as u32).to_be_bytes());
        bytes[4] = name.kind;
        bytes[5..5 + name.key.len()].copy_from_slice(name.key);
        siphash13_bytes(self.hash_key, &bytes[..5 + name.key.len()])
    }

    fn room(&self, id: u32) -> &[u8] {
        let class = &self.classes[self.class_of(id)];
        let at = (id - class.first) as usize * class.size;
        &class.bytes[at..at + class.size]
    }

    fn class_of(&self, id: u32) -> usize {
        usize::from(id >= self.classes[1].first) + usize::from(id >= self.classes[2].first)
    }

    /// An entry's head.
    pub fn head(&self, id: EntryId) -> &Head {
        &self.heads[id.0 as usize]
    }

    /// An entry's head, writable.
    pub fn head_mut(&mut self, id: EntryId) -> &mut Head {
        &mut self.heads[id.0 as usize]
    }

    /// An entry's key.
    pub fn name(&self, id: EntryId) -> Name<'_> {
        let head = self.head(id);
        Name { kind: head.kind, key: &self.room(id.0)[..usize::from(head.key)] }
    }

    /// What an entry says.
    pub fn content(&self, id: EntryId) -> Content<'_> {
        let head = self.head(id);
        match head.state {
            State::Value => {
                let key = usize::from(head.key);
                Content::Value(&self.room(id.0)[key..key + usize::from(head.value)])
            }
            State::Deleted => Content::Deleted,
            State::Free | State::Asked | State::Absent => Content::Absent,
        }
    }

    /// A number for all that an entry says and is known of it everywhere: name, version and value.
    pub fn print(&self, id: EntryId) -> u64 {
        let head = self.head(id);
        let lengths = u64::from_be_bytes([0, 0, 0, 0, 0, head.kind, head.key, head.value]);
        let (words, rest) =
            self.room(id.0)[..usize::from(head.key) + usize::from(head.value)].as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        // Nobody gains by two that have the same: a quick one will do.
        let all = words.iter().chain([&last]).map(|word| u64::from_be_bytes(*word));
        all.fold(mix(head.version.0) ^ lengths, |print, word| mix(print ^ word))
    }

    /// The entry of this key.
    pub fn find(&self, bucket: usize, name: Name<'_>) -> Option<EntryId> {
        let is =
            |id: u32| self.heads[id as usize].bucket as usize == bucket && self.name(EntryId(id)) == name;
        self.index.find(self.hash(bucket, name), is).map(EntryId)
    }

    /// Makes an entry, which the caller knows to be new, at the end of its bucket's list, with room for a value of so many bytes.
    pub fn insert(&mut self, bucket: usize, name: Name<'_>, value: usize) -> Result<EntryId, Full> {
        let wanted = name.key.len() + value;
        let fits = |class: &&mut Class| class.size >= wanted && class.free != NOBODY;
        let class = self.classes.iter_mut().find(fits).ok_or(Full)?;
        let id = class.free;
        let at = (id - class.first) as usize * class.size;
        class.bytes[at..at + name.key.len()].copy_from_slice(name.key);
        let next = self.heads[id as usize].older;
        class.free = next;
        let class = self.class_of(id);
        if self.index.insert(self.hash(bucket, name), id).is_err() {
            self.classes[class].free = id;
            return Err(Full);
        }
        let head = Head {
            bucket: bucket as u32,
            state: State::Asked,
            kind: name.kind,
            key: name.key.len() as u8,
            ..Head::FREE
        };
        self.heads[id as usize] = head;
        self.len += 1;
        self.link(id, self.lists[bucket].oldest);
        Ok(EntryId(id))
    }

    /// Gives an entry what it says from now on, and its place in its bucket's list. It may get another id, if there is no room for
    /// the value where it is.
    pub fn set(&mut self, id: EntryId, version: Version, content: Content<'_>) -> Result<EntryId, Full> {
        let value = match content {
            Content::Value(value) => value,
            Content::Deleted | Content::Absent => &[],
        };
        let id = self.with_room(id, value.len())?;
        let key = usize::from(self.head(id).key);
        let class = self.class_of(id.0);
        let class = &mut self.classes[class];
        let at = (id.0 - class.first) as usize * class.size + key;
        class.bytes[at..at + value.len()].copy_from_slice(value);
        let head = &mut self.heads[id.0 as usize];
        head.version = version;
        head.value = value.len() as u8;
        head.state = match content {
            Content::Value(_) => State::Value,
            Content::Deleted => State::Deleted,
            Content::Absent => State::Absent,
        };
        self.unlink(id.0);
        let after = self.place(self.heads[id.0 as usize].bucket as usize, version);
        self.link(id.0, after);
        Ok(id)
    }

    /// The same entry where a value of so many bytes fits.
    fn with_room(&mut self, id: EntryId, value: usize) -> Result<EntryId, Full> {
        let old = *self.head(id);
        if usize::from(old.key) + value <= self.classes[self.class_of(id.0)].size {
            return Ok(id);
        }
        let mut key = [0; MAX_KEY];
        let len = usize::from(old.key);
        key[..len].copy_from_slice(&self.room(id.0)[..len]);
        let name = Name { kind: old.kind, key: &key[..len] };
        let new = self.insert(old.bucket(), name, value)?;
        let Head { newer, older, .. } = *self.head(new);
        *self.head_mut(new) = Head { newer, older, ..old };
        self.remove(id);
        Ok(new)
    }

    /// Which entry of a bucket one of this version stands behind: the list goes from new to old, and what comes is mostly the
    /// newest of all, or, while a bucket is pulled, the oldest.
    fn place(&self, bucket: usize, version: Version) -> u32 {
        let List { newest, oldest } = self.lists[bucket];
        let version_of = |id: u32| self.heads[id as usize].version;
        if newest == NOBODY || version_of(newest) <= version {
            return NOBODY;
        }
        let mut at = oldest;
        while version_of(at) < version {
            at = self.heads[at as usize].newer;
        }
        at
    }

    /// Puts an entry behind another in its bucket's list; behind nobody: first.
    fn link(&mut self, id: u32, after: u32) {
        let bucket = self.heads[id as usize].bucket as usize;
        let before =
            if after == NOBODY { self.lists[bucket].newest } else { self.heads[after as usize].older };
        (self.heads[id as usize].newer, self.heads[id as usize].older) = (after, before);
        match after {
            NOBODY => self.lists[bucket].newest = id,
            _ => self.heads[after as usize].older = id,
        }
        match before {
            NOBODY => self.lists[bucket].oldest = id,
            _ => self.heads[before as usize].newer = id,
        }
    }

    fn unlink(&mut self, id: u32) {
        let Head { newer, older, bucket, .. } = self.heads[id as usize];
        match newer {
            NOBODY => self.lists[bucket as usize].newest = older,
            _ => self.heads[newer as usize].older = older,
        }
        match older {
            NOBODY => self.lists[bucket as usize].oldest = newer,
            _ => self.heads[older as usize].newer = newer,
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, id: EntryId) {
        let hash = self.hash(self.head(id).bucket(), self.name(id));
        let was_there = self.index.remove(hash, id.0);
        debug_assert!(was_there, "an entry is under the hash of its key");
        if !was_there {
            return;
        }
        self.unlink(id.0);
        let class = self.class_of(id.0);
        self.heads[id.0 as usize] = Head { older: self.classes[class].free, ..Head::FREE };
        self.classes[class].free = id.0;
        self.len -= 1;
    }

    /// The newest entry of a bucket.
    pub fn newest(&self, bucket: usize) -> Option<EntryId> {
        Some(EntryId(self.lists[bucket].newest)).filter(|id| id.0 != NOBODY)
    }

    /// The next older entry of the same bucket.
    pub fn older(&self, id: EntryId) -> Option<EntryId> {
        Some(EntryId(self.head(id).older)).filter(|id| id.0 != NOBODY)
    }

    /// How many entries there is room for.
    pub fn places(&self) -> usize {
        self.heads.len()
    }

    /// Moves the cursor on by one entry and names that one if it is in use.
    pub fn step(&mut self) -> Option<EntryId> {
        let at = self.cursor;
        self.cursor = if at + 1 >= self.heads.len() { 0 } else { at + 1 };
        let head = self.heads.get(at)?;
        (head.state != State::Free).then_some(EntryId(at as u32))
    }
}
