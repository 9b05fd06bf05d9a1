//! How a namespace changes: writes, all or nothing, each once.

use super::diff::Difference;
use super::fault::{Fault, Faults, Finding, Lack};
use super::key::{Key, Kind};
use super::object::Object;
use super::{Entry, Namespace, ids, most, rules, snapshot};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::str::FromStr;
use utoipa::ToSchema;

/// Requests whose outcome is remembered.
pub const REQUESTS: usize = 4096;
/// Records of the audit trail.
pub const RECORDS: usize = 8192;
/// Faults of one write that are told.
pub const FAULTS: usize = 64;
/// Characters of a record's summary.
const SUMMARY: usize = 512;

/// Names a request: a write that comes twice under the same id is made once. The one who asks draws 128 random bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RequestId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let id = u128::from_str_radix(text, 16).ok().filter(|_| digits).map(Self);
        id.ok_or_else(|| "a request's id has 32 hexadecimal digits".to_owned())
    }
}

impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.to_le_bytes().serialize(to) }
    }
}

impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            String::deserialize(from)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; 16]>::deserialize(from).map(|bytes| Self(u128::from_le_bytes(bytes)))
        }
    }
}

/// What becomes of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The object.
    pub key: Key,
    /// The version that it must have now for the write to be made, 0 for none at all; unless set, any.
    #[serde(default)]
    pub expected: Option<u64>,
    /// What it says from then on; none: it is removed.
    #[serde(default)]
    pub value: Option<Object>,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Names it.
    pub request: RequestId,
    /// Who asked.
    pub who: String,
    /// When, in milliseconds since 1970 by the clock of the node that was asked.
    pub at: u64,
    /// What is to change; each object once.
    pub changes: Vec<Change>,
}

/// Who has asked for something that is no write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Names the request.
    pub request: RequestId,
    /// Who asked.
    pub who: String,
    /// When ([`Write::at`]).
    pub at: u64,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it was made at this log index.
    Applied {
        /// The log index, which is the version of what changed.
        index: u64,
    },
    /// Nothing was made.
    Refused {
        /// Why: the first [`FAULTS`] reasons.
        faults: Vec<Fault>,
        /// How many more there are.
        more: usize,
    },
}

/// Who changed what: an entry of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Log index of the change.
    pub index: u64,
    /// When ([`Write::at`]).
    pub at: u64,
    /// Who asked.
    pub who: String,
    /// The request.
    #[schema(value_type = String)]
    pub request: RequestId,
    /// The object.
    #[schema(value_type = String)]
    pub key: Key,
    /// Its version before; none if it is new.
    pub before: Option<u64>,
    /// What changed, as [`Difference`] shows it.
    pub summary: String,
}

/// Outcomes of the last [`REQUESTS`] requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Requests {
    outcomes: BTreeMap<RequestId, Outcome>,
    order: VecDeque<RequestId>,
}

impl Requests {
    fn remember(&mut self, request: RequestId, outcome: Outcome) {
        if self.order.len() == REQUESTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
        self.order.push_back(request);
        self.outcomes.insert(request, outcome);
    }
}

/// The last [`RECORDS`] records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trail(VecDeque<Record>);

impl Trail {
    fn push(&mut self, record: Record) {
        if self.0.len() == RECORDS {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }
}

/// What an object was before a change.
pub(super) type Undo = Vec<(Key, Option<Entry>)>;

impl Namespace {
    /// Makes all of a write's changes, or none. A request that was seen before gets the outcome that it had then.
    ///
    /// `index` is the write's own in the log, and higher than that of every write before.
    pub fn apply(&mut self, index: u64, write: &Write) -> Outcome {
        if let Some(outcome) = self.requests.outcomes.get(&write.request) {
            return outcome.clone();
        }
        let (next, mut undo) = (self.next, Undo::new());
        let findings = self.change(index, write.changes.clone(), &mut undo);
        let outcome = if findings.is_empty() {
            self.revise(index, &undo);
            self.record(index, write, &undo);
            Outcome::Applied { index }
        } else {
            self.take_back(undo, next);
            let (faults, more) = faults(findings);
            Outcome::Refused { faults, more }
        };
        self.requests.remember(write.request, outcome.clone());
        outcome
    }

    /// What would become of these changes as a write at `index`; the namespace is the same afterwards. If they can be made,
    /// what `look` sees in it while they are.
    ///
    /// # Errors
    /// Why they can't: the first [`FAULTS`] reasons, and how many more there are.
    pub fn preview<T>(
        &mut self,
        index: u64,
        changes: &[Change],
        look: impl FnOnce(&Self) -> T,
    ) -> Result<T, Faults> {
        let (next, mut undo) = (self.next, Undo::new());
        let findings = self.change(index, changes.to_vec(), &mut undo);
        if !findings.is_empty() {
            self.take_back(undo, next);
            return Err(faults(findings));
        }
        let revised = self.revise(index, &undo);
        let seen = look(self);
        for (key, revision) in revised {
            self.set_revision(&key, revision);
        }
        self.take_back(undo, next);
        Ok(seen)
    }

    /// The outcome of a request, if it is still remembered.
    pub fn outcome(&self, request: RequestId) -> Option<&Outcome> {
        self.requests.outcomes.get(&request)
    }

    /// The audit trail, the oldest record first.
    pub fn trail(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.trail.0.iter()
    }

    /// What is known of one object's changes, the oldest first.
    pub fn history<'a>(&'a self, key: &'a Key) -> impl DoubleEndedIterator<Item = &'a Record> {
        self.trail().filter(move |record| record.key == *key)
    }

    /// Makes the changes, whether the rules have it or not, and says what is wrong. What cannot be made at all (an
    /// expected version that isn't, a removal of what there isn't) is said alone, and then nothing is made.
    pub(super) fn change(&mut self, index: u64, changes: Vec<Change>, undo: &mut Undo) -> Vec<Finding> {
        let mut findings = self.conflicts(&changes);
        if !findings.is_empty() {
            return findings;
        }
        let next = self.next;
        for change in changes {
            let old = self.get(&change.key);
            if old.map(|entry| &entry.object) == change.value.as_ref() {
                continue;
            }
            let next = self.next[change.key.kind() as usize];
            let id = old.map_or(next, |entry| entry.id);
            let entry = change.value.map(|object| Entry { object, version: index, revision: index, id });
            if entry.is_some() {
                self.next[change.key.kind() as usize] = next.max(id.saturating_add(1));
            }
            let before = self.put(&change.key, entry);
            undo.push((change.key, before));
        }
        self.renumber(undo);
        for kind in Kind::ALL {
            if let Some(fault) = self.too_many(kind, next[kind as usize], undo) {
                findings.push(fault);
            }
        }
        let touched: BTreeMap<&Key, Option<&Entry>> =
            undo.iter().map(|(key, before)| (key, before.as_ref())).collect();
        findings.extend(rules::check(self, &touched));
        findings
    }

    /// What stands in the way of the changes, whatever they say.
    fn conflicts(&self, changes: &[Change]) -> Vec<Finding> {
        let mut seen = BTreeSet::new();
        let mut findings = Vec::new();
        for change in changes {
            let key = &change.key;
            let version = self.get(key).map_or(0, |entry| entry.version);
            if !seen.insert(key) {
                findings.push(Finding::new(key, "is changed twice by one write"));
            } else if let Some(expected) = change.expected
                && expected != version
            {
                let message = match (expected, version) {
                    (0, _) => format!("exists already, at version {version}"),
                    (_, 0) => format!("does not exist, and was to be at version {expected}"),
                    _ => format!("is at version {version}, and was to be at {expected}"),
                };
                findings.push(Finding::new(key, message).hint("somebody else has changed it: look again"));
            } else if change.value.is_none() && version == 0 {
                findings.push(Finding::new(key, "does not exist").lacking(Lack::Object(key.clone())));
            } else if let Some(object) = &change.value
                && object.kind() != key.kind()
            {
                findings.push(Finding::new(key, format!("is no {}", object.kind().word())));
            }
        }
        findings
    }

    /// Whether there are more objects of a kind than there may be; `first` was the first new id.
    fn too_many(&self, kind: Kind, first: u32, undo: &Undo) -> Option<Finding> {
        let key = || {
            let touched = undo.iter().map(|(key, _)| key).filter(|key| key.kind() == kind);
            touched.max_by_key(|key| self.get(key).map(|entry| entry.id))
        };
        let (used, most) = (self.ids(kind), most(kind));
        if used > ids(kind) && used > first as usize {
            let message = format!("no id is left: a cluster can have {} in its life", ids(kind));
            return Some(Finding::new(key()?, message));
        }
        let count = self.index.count(kind);
        (count > most).then(|| {
            let message = format!("is one of {count}, and at most {most} are possible");
            Some(Finding::new(key()?, message))
        })?
    }

    /// Puts an entry in the place of another, which is given back.
    pub(super) fn put(&mut self, key: &Key, entry: Option<Entry>) -> Option<Entry> {
        let before = self.entries.remove(key);
        if let Some(before) = &before {
            self.index.note(key, &before.object, false);
            self.sum = self.sum.wrapping_sub(snapshot::hash(key, before));
        }
        if let Some(entry) = entry {
            self.index.note(key, &entry.object, true);
            self.sum = self.sum.wrapping_add(snapshot::hash(key, &entry));
            self.entries.insert(key.clone(), entry);
        }
        before
    }

    /// Makes the namespace what it was; `next` are the ids that were next.
    fn take_back(&mut self, undo: Undo, next: [u32; Kind::ALL.len()]) {
        for (key, before) in undo {
            self.put(&key, before);
        }
        self.next = next;
    }

    /// Notes in virtual servers that something below or beside them has changed. The revisions that they had.
    fn revise(&mut self, index: u64, undo: &Undo) -> Vec<(Key, u64)> {
        let mut servers = BTreeSet::new();
        for (key, _) in undo {
            match key {
                Key::RealServer(server, _) => _ = servers.insert(Key::VirtualServer(server.clone())),
                Key::Persistence(server) => _ = servers.insert(Key::VirtualServer(server.clone())),
                Key::Profile(_) => servers.extend(self.index.referrers(key).cloned()),
                _ => {}
            }
        }
        let each = servers.into_iter().filter_map(|key| {
            let before = self.set_revision(&key, index)?;
            Some((key, before))
        });
        each.collect()
    }

    /// The revision that it had; none: there is no such object.
    fn set_revision(&mut self, key: &Key, revision: u64) -> Option<u64> {
        let entry = self.entries.get_mut(key)?;
        self.sum = self.sum.wrapping_sub(snapshot::hash(key, entry));
        let before = std::mem::replace(&mut entry.revision, revision);
        self.sum = self.sum.wrapping_add(snapshot::hash(key, entry));
        Some(before)
    }

    fn record(&mut self, index: u64, write: &Write, undo: &Undo) {
        let same = |key: &Key, before: &Entry| self.get(key).is_some_and(|now| now.object == before.object);
        // What only has another id was changed by nobody.
        let changed =
            |(key, before): &&(Key, Option<Entry>)| !before.as_ref().is_some_and(|before| same(key, before));
        let undo: Vec<_> = undo.iter().filter(changed).collect();
        // Of a write that fills the trail alone, the rest would be pushed out at once.
        for (key, before) in &undo[undo.len().saturating_sub(RECORDS)..] {
            let old = before.as_ref().map(|entry| &entry.object);
            let difference = Difference::between(key, old, self.get(key).map(|entry| &entry.object));
            let mut summary = difference.to_string();
            if let Some((end, _)) = summary.char_indices().nth(SUMMARY) {
                summary.truncate(end);
                summary.push('…');
            }
            self.trail.push(Record {
                index,
                at: write.at,
                who: write.who.clone(),
                request: write.request,
                key: key.clone(),
                before: before.as_ref().map(|entry| entry.version),
                summary,
            });
        }
    }

    /// Whether a request that is no write comes for the first time. From here on it is remembered as made at this index.
    pub fn is_first(&mut self, request: RequestId, index: u64) -> bool {
        let first = !self.requests.outcomes.contains_key(&request);
        if first {
            self.requests.remember(request, Outcome::Applied { index });
        }
        first
    }

    /// Notes in the audit trail what was done with an object by no write.
    pub fn note(&mut self, index: u64, key: Key, by: &By, summary: &str) {
        let before = self.get(&key).map(|entry| entry.version);
        let (at, who, request, summary) = (by.at, by.who.clone(), by.request, summary.to_owned());
        self.trail.push(Record { index, at, who, request, key, before, summary });
    }
}

fn faults(findings: Vec<Finding>) -> Faults {
    let more = findings.len().saturating_sub(FAULTS);
    (findings.into_iter().take(FAULTS).map(|finding| finding.fault).collect(), more)
}
