//! What a change changes, for people.

use super::Namespace;
use super::key::{Key, Kind};
use super::object::Object;
use super::write::Change;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use utoipa::ToSchema;

/// A field that is different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Field {
    /// Its name, with a dot between a table and what is in it.
    pub name: String,
    /// Its value before; none: it was not set.
    pub old: Option<Value>,
    /// Its value behind; none: it is not set.
    pub new: Option<Value>,
}

/// What happens to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// It is made.
    Add,
    /// It is removed.
    Remove,
    /// It is changed.
    Change,
}

/// What a change changes in one object: shown as `+ key: field value, …`, `- key` or `~ key: field old → new, …`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Difference {
    /// The object.
    #[schema(value_type = String)]
    pub key: Key,
    /// What happens to it.
    pub deed: Deed,
    /// Its fields: all that are set of a new one, the different ones of one that is changed.
    pub fields: Vec<Field>,
}

/// The fields of a table and those of tables in it; what isn't set is left out.
fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let Value::Object(table) = value else { return };
    for (name, value) in table {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Null => {}
            Value::Object(_) => flatten(&name, value, into),
            value => _ = into.insert(name, value.clone()),
        }
    }
}

fn fields(object: Option<&Object>) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    // Names, numbers and text are all there is, so that it can be written.
    if let Some(Ok(value)) = object.map(|object| object.write(serde_json::value::Serializer)) {
        flatten("", &value, &mut fields);
    }
    fields
}

impl Difference {
    /// Between what an object said and what it says; none: there is no such object.
    pub fn between(key: &Key, old: Option<&Object>, new: Option<&Object>) -> Self {
        let deed = match (old, new) {
            (None, _) => Deed::Add,
            (_, None) => Deed::Remove,
            _ => Deed::Change,
        };
        let (mut old, mut new) = (fields(old), fields(new));
        let names: BTreeSet<String> = match deed {
            Deed::Remove => BTreeSet::new(),
            _ => old.keys().chain(new.keys()).cloned().collect(),
        };
        let fields = names.into_iter().filter(|name| old.get(name) != new.get(name)).collect::<Vec<_>>();
        let fields = fields
            .into_iter()
            .map(|name| Field { old: old.remove(&name), new: new.remove(&name), name })
            .collect();
        Self { key: key.clone(), deed, fields }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.deed {
            Deed::Add => '+',
            Deed::Remove => '-',
            Deed::Change => '~',
        };
        write!(f, "{sign} {}", self.key)?;
        for (i, field) in self.fields.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            write!(f, "{} ", field.name)?;
            match (&field.old, &field.new) {
                (None, Some(new)) if self.deed == Deed::Add => write!(f, "{new}")?,
                (old, new) => {
                    let show =
                        |value: &Option<Value>| value.as_ref().map_or("unset".to_owned(), Value::to_string);
                    write!(f, "{} → {}", show(old), show(new))?;
                }
            }
        }
        Ok(())
    }
}

impl Namespace {
    /// The changes that make this namespace hold `wanted` and nothing else, in an order in which ids are given as `wanted`
    /// has the objects. Each expects the version that is here now, so that what somebody else changes meanwhile isn't lost.
    /// The cluster's settings are never removed. Of a key that stands twice in `wanted`, the last counts.
    pub fn diff(&self, wanted: &[(Key, Object)]) -> Vec<Change> {
        let last: BTreeMap<&Key, usize> = wanted.iter().enumerate().map(|(i, (key, _))| (key, i)).collect();
        let gone = self.iter().filter(|(key, _)| !last.contains_key(key) && key.kind() != Kind::Cluster);
        let removals =
            gone.map(|(key, entry)| Change { key: key.clone(), expected: Some(entry.version), value: None });
        let others = wanted.iter().enumerate().filter(|(i, (key, _))| last.get(key) == Some(i));
        let others = others.filter_map(|(_, (key, object))| {
            let here = self.get(key);
            (here.map(|entry| &entry.object) != Some(object)).then(|| Change {
                key: key.clone(),
                expected: Some(here.map_or(0, |entry| entry.version)),
                value: Some(object.clone()),
            })
        });
        removals.chain(others).collect()
    }

    /// What these changes would change, in their order.
    pub fn describe(&self, changes: &[Change]) -> Vec<Difference> {
        let each = changes.iter().map(|change| {
            let old = self.get(&change.key).map(|entry| &entry.object);
            Difference::between(&change.key, old, change.value.as_ref())
        });
        each.collect()
    }
}
