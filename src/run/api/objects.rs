//! Reading what is decided: objects and the audit trail.

use super::asker::Asked;
use super::refusal::Refusal;
use super::{Questions, look};
use crate::cluster::namespace::{Entry, Key, Kind, Namespace, Record};
use crate::manage::manager::Manager;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Objects or records of one answer, at most: the management thread picks them out between two heartbeats.
const PAGE: usize = 1000;

/// An object.
#[derive(Debug, Serialize, ToSchema)]
pub struct Item {
    /// Its key, such as `virtual_server/web`.
    pub key: String,
    /// Log index of its last change.
    pub version: u64,
    /// Log index of the last change of it or of what it rests on.
    pub revision: u64,
    /// Its number among all objects of its kind there ever were.
    pub id: u32,
    /// Its fields, as in the cluster file.
    #[schema(value_type = super::document::Fields)]
    pub object: Value,
}

/// Objects, in the order of their keys.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items {
    /// The log's last entry when they were looked at.
    pub index: u64,
    /// The objects.
    pub objects: Vec<Item>,
    /// There are more: `after` for the next page.
    pub next: Option<String>,
}

/// The audit trail, the latest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// The log's last entry.
    pub index: u64,
    /// Who changed what.
    pub records: Vec<Record>,
}

/// Which objects.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Which {
    /// Those of one kind: `cluster`, `node`, `group`, `snat`, `vip`, `profile`, `virtual_server`, `real_server`, `limit`,
    /// `persistence`.
    kind: Option<String>,
    /// Those behind this key: the `next` of the page before.
    after: Option<String>,
}

/// Which records.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Whose {
    /// Those of one object.
    key: Option<String>,
}

/// A key as people write it.
pub fn key(text: &str) -> Result<Key, Refusal> {
    text.parse().map_err(|why: crate::cluster::namespace::text::Reason| Refusal::wrong(why.to_string()))
}

/// That there is no such object.
pub fn missing(key: &Key) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("{key}: does not exist"))
}

/// The namespace and the log's last entry.
pub fn space(manager: &Manager) -> Option<(u64, &Namespace)> {
    let state = manager.council()?.state();
    Some((state.index(), state.namespace()))
}

fn item(key: &Key, entry: &Entry) -> Result<Item, Refusal> {
    let object = entry.object.write(serde_json::value::Serializer).map_err(|error| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{key}: can't be shown: {error}"))
    })?;
    let Entry { version, revision, id, .. } = *entry;
    Ok(Item { key: key.to_string(), version, revision, id, object: shown(object) })
}

/// Without the fields that aren't set.
fn shown(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name, shown(value))).collect())
        }
        other => other,
    }
}

/// The objects, a thousand at a time.
#[utoipa::path(get, path = "/v1/objects", params(Which), responses(
    (status = 200, body = Items),
    (status = 400, description = "No such kind or key", body = super::refusal::Refused),
    (status = 409, description = "The node goes by its files", body = super::refusal::Refused),
))]
pub async fn list(
    State(questions): Questions,
    Asked(Which { kind, after }): Asked<Which>,
) -> Result<Json<Items>, Refusal> {
    let kind = kind.map(|word| {
        let known = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        known.ok_or_else(|| {
            let kinds: Vec<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
            Refusal::wrong(format!("{word:?} is no kind: there are {}", kinds.join(", ")))
        })
    });
    let kind = kind.transpose()?;
    let after = after.map(|text| key(&text)).transpose()?;
    let page = look(&questions, move |manager, _| {
        let (index, space) = space(manager)?;
        let pick = |all: &mut dyn Iterator<Item = (&Key, &Entry)>| -> Vec<(Key, Entry)> {
            all.take(PAGE + 1).map(|(key, entry)| (key.clone(), entry.clone())).collect()
        };
        let of_kind = |key: &Key| kind.is_none_or(|kind| key.kind() == kind);
        let page = match (kind, &after) {
            (_, Some(after)) if kind.is_none_or(|kind| after.kind() == kind) => {
                pick(&mut space.behind(after).take_while(|(key, _)| of_kind(key)))
            }
            (Some(kind), _) => pick(&mut space.of(kind)),
            (None, _) => pick(&mut space.iter()),
        };
        Some((index, page))
    });
    let (index, mut page) = page.await?.ok_or_else(Refusal::no_log)?;
    let more = page.len() > PAGE;
    page.truncate(PAGE);
    let next = page.last().filter(|_| more).map(|(key, _)| key.to_string());
    let objects: Result<_, _> = page.iter().map(|(key, entry)| item(key, entry)).collect();
    Ok(Json(Items { index, objects: objects?, next }))
}

/// An object. Its version stands in the header, too (`etag`).
#[utoipa::path(get, path = "/v1/objects/{key}", params(("key" = String, Path, description = "Such as `virtual_server/web`")),
responses(
    (status = 200, body = Item),
    (status = 400, description = "No key", body = super::refusal::Refused),
    (status = 404, description = "No such object", body = super::refusal::Refused),
    (status = 409, description = "The node goes by its files", body = super::refusal::Refused),
))]
pub async fn show(State(questions): Questions, Path(text): Path<String>) -> Result<Response, Refusal> {
    let key = key(&text)?;
    let asked = key.clone();
    let entry = look(&questions, move |manager, _| Some(space(manager)?.1.get(&asked).cloned()));
    let entry = entry.await?.ok_or_else(Refusal::no_log)?.ok_or_else(|| missing(&key))?;
    let tag = [(header::ETAG, format!("\"{}\"", entry.version))];
    Ok((tag, Json(item(&key, &entry)?)).into_response())
}

/// Who changed what: the last thousand changes, of all objects or of one. Eight thousand are remembered.
#[utoipa::path(get, path = "/v1/history", params(Whose), responses(
    (status = 200, body = History),
    (status = 400, description = "No key", body = super::refusal::Refused),
    (status = 409, description = "The node goes by its files", body = super::refusal::Refused),
))]
pub async fn history(
    State(questions): Questions,
    Asked(whose): Asked<Whose>,
) -> Result<Json<History>, Refusal> {
    let key = whose.key.map(|text| key(&text)).transpose()?;
    let seen = look(&questions, move |manager, _| {
        let (index, space) = space(manager)?;
        let records = match &key {
            Some(key) => space.history(key).rev().take(PAGE).cloned().collect(),
            None => space.trail().rev().take(PAGE).cloned().collect(),
        };
        Some(History { index, records })
    });
    seen.await?.map(Json).ok_or_else(Refusal::no_log)
}
