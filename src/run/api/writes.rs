//! Changing what is decided (MECHANISMS §6).

use super::asker::{Asked, Asker};
use super::body::{Wanted, changes, object, whole};
use super::objects::{key, missing, space};
use super::refusal::Refusal;
use super::{Question, Questions, WRITE_PATIENCE, ask, look, put_to};
use crate::cluster::asks::Answer;
use crate::cluster::namespace::{Change, Fault, Key, Outcome, RequestId, Write};
use crate::cluster::state::Entry;
use crate::manage::preview::Forecast;
use crate::manage::status::Snapshot;
use crate::run::clock;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A change that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct Made {
    /// Log index of the write.
    pub index: u64,
    /// The object's version now: that of an earlier write if this one changed nothing. None of writes of several objects, and
    /// of one that was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The request's id. Asked again under it, the answer is the same, and nothing is made twice.
    #[schema(value_type = String)]
    pub request: RequestId,
}

/// How to write.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct How {
    /// Nothing is written; the answer tells what would be.
    #[serde(default)]
    dry_run: bool,
    /// Nodes are removed even if that breaks connections.
    #[serde(default)]
    force: bool,
}

/// How to remove.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// A node is removed even if that breaks connections.
    #[serde(default)]
    force: bool,
}

/// Has something decided, and waits for it.
pub async fn decide(questions: &Sender<Question>, entry: Entry) -> Result<Answer, Refusal> {
    let answer = put_to(questions, |reply| Question::Ask(entry, reply), WRITE_PATIENCE).await?;
    match answer {
        Some(answer) => answer.ok_or_else(Refusal::no_log),
        None => Ok(Answer::Unknown),
    }
}

/// What decides about how a refusal is told: the versions that were expected, and an object that was to be removed.
struct Hopes {
    expected: Vec<(Key, u64)>,
    removed: Option<Key>,
}

impl Hopes {
    fn of(changes: &[Change]) -> Self {
        let expected = changes.iter().filter_map(|change| Some((change.key.clone(), change.expected?)));
        let removed = changes.iter().find(|change| change.value.is_none());
        Self { expected: expected.collect(), removed: removed.map(|change| change.key.clone()) }
    }

    /// The answer to a write that the rules refuse.
    async fn dashed(self, questions: &Sender<Question>, faults: Vec<Fault>, more: usize) -> Refusal {
        let Self { expected, removed } = self;
        let seen = look(questions, move |manager, _| {
            let (_, space) = space(manager)?;
            let version = |key: &Key| space.get(key).map_or(0, |entry| entry.version);
            let differs = expected.iter().any(|(key, expected)| version(key) != *expected);
            Some((differs, removed.filter(|key| version(key) == 0)))
        });
        match seen.await {
            Ok(Some((true, _))) => Refusal::faults(StatusCode::PRECONDITION_FAILED, faults, more),
            Ok(Some((false, Some(key)))) if faults.len() == 1 => missing(&key),
            Ok(_) => Refusal::faults(StatusCode::CONFLICT, faults, more),
            Err(refusal) => refusal,
        }
    }
}

/// Refuses to remove nodes through which connections would break, and says what else is wrong with the changes.
async fn keep_needed(questions: &Sender<Question>, changes: &[Change]) -> Result<(), Refusal> {
    let removed = changes.iter().filter(|change| change.value.is_none());
    let removed: Vec<_> = removed
        .filter_map(|change| match &change.key {
            Key::Node(name) => Some((&change.key, name.as_str())),
            _ => None,
        })
        .collect();
    if removed.is_empty() {
        return Ok(());
    }
    let status = look(questions, Snapshot::take).await?.ok_or_else(Refusal::no_log)?.status();
    let needed = removed.into_iter().filter_map(|(key, name)| {
        let node = status.nodes.iter().find(|node| node.name == name)?;
        let (message, hint) = node.may_go().err()?;
        Some(Fault { key: key.clone(), field: None, message, hint: Some(hint), other: None })
    });
    let mut faults: Vec<_> = needed.collect();
    if faults.is_empty() {
        return Ok(());
    }
    let changes = changes.to_vec();
    let seen = ask(questions, |reply| Question::Preview(changes, reply)).await?;
    let (others, more) = (*seen).and_then(Result::err).unwrap_or_default();
    faults.extend(others);
    Err(Refusal::faults(StatusCode::CONFLICT, faults, more))
}

/// Writes changes; the index of the write.
pub async fn make(questions: &Sender<Question>, asker: Asker, changes: Vec<Change>) -> Result<u64, Refusal> {
    let Asker { who, request, .. } = asker;
    let hopes = Hopes::of(&changes);
    let write = Write { request, who, at: clock::milliseconds(), changes };
    let answer = decide(questions, Entry::Write(write)).await.map_err(|refusal| refusal.of(request))?;
    match answer {
        Answer::Written(Outcome::Applied { index }) => Ok(index),
        Answer::Written(Outcome::Refused { faults, more }) => {
            Err(hopes.dashed(questions, faults, more).await.of(request))
        }
        Answer::Refused(why) => Err(Refusal::by_log(&why).of(request)),
        // What the write came to isn't remembered here: a snapshot has come in between.
        Answer::Decided(_) | Answer::Unknown => Err(Refusal::unknown().of(request)),
    }
}

/// Writes a change of one object that is there behind it; and whether it is new.
pub async fn make_one(
    questions: &Sender<Question>,
    asker: Asker,
    change: Change,
) -> Result<(Made, bool), Refusal> {
    let (key, request) = (change.key.clone(), asker.request);
    let index = make(questions, asker, vec![change]).await?;
    let seen = look(questions, move |manager, _| {
        let (_, space) = space(manager)?;
        // Another may have changed it since.
        let version = space.get(&key).map_or(index, |entry| entry.version.min(index));
        let record = space.history(&key).rev().find(|record| record.request == request);
        Some((version, record.is_some_and(|record| record.before.is_none())))
    });
    let (version, new) = seen.await?.unwrap_or((index, false));
    Ok((Made { index, version: Some(version), request }, new))
}

/// Makes an object say this, whether there is one or not. `if-match: "VERSION"`: there has to be one, at this version;
/// `if-none-match: *`: there has to be none.
#[utoipa::path(put, path = "/v1/objects/{key}", params(
    ("key" = String, Path, description = "Such as `virtual_server/web`"),
    ("if-match" = Option<String>, Header, description = "The version that the object must have"),
    ("if-none-match" = Option<String>, Header, description = "`*`: there must be no such object"),
    Asker,
), request_body(content = super::document::Fields, description = "All of the object's fields, as in the cluster file"), responses(
    (status = 200, description = "Changed, or as it was", body = Made),
    (status = 201, description = "Made", body = Made),
    (status = 400, description = "No object, or no key", body = super::refusal::Refused),
    (status = 409, description = "Refused by the rules, with all faults; or the node goes by its files", body = super::refusal::Refused),
    (status = 412, description = "It has another version", body = super::refusal::Refused),
    (status = 413, description = "More than 4 MiB", body = super::refusal::Refused),
    Refusal,
))]
pub async fn put(
    State(questions): Questions,
    Path(text): Path<String>,
    asker: Asker,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let key = key(&text)?;
    let value = object(&key, &whole(bytes)?)?;
    let change = Change { key, expected: asker.expected, value: Some(value) };
    let (made, new) = make_one(&questions, asker, change).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let tag = made.version.map(|version| [(header::ETAG, format!("\"{version}\""))]);
    Ok((status, tag.map(AppendHeaders), Json(made)).into_response())
}

/// Removes an object. `if-match: "VERSION"`: it has to be at this version.
#[utoipa::path(delete, path = "/v1/objects/{key}", params(
    ("key" = String, Path, description = "Such as `virtual_server/web`"),
    Removal,
    ("if-match" = Option<String>, Header, description = "The version that the object must have"),
    Asker,
), responses(
    (status = 200, description = "Removed", body = Made),
    (status = 404, description = "No such object", body = super::refusal::Refused),
    (status = 409, description = "Others rest on it, with all faults; it is a node that serves; or the node that is asked goes by its files", body = super::refusal::Refused),
    (status = 412, description = "It has another version", body = super::refusal::Refused),
    Refusal,
))]
pub async fn remove(
    State(questions): Questions,
    Path(text): Path<String>,
    Asked(Removal { force }): Asked<Removal>,
    asker: Asker,
) -> Result<Json<Made>, Refusal> {
    let changes = vec![Change { key: key(&text)?, expected: asker.expected, value: None }];
    if !force {
        keep_needed(&questions, &changes).await?;
    }
    let request = asker.request;
    let index = make(&questions, asker, changes).await?;
    Ok(Json(Made { index, version: None, request }))
}

/// Changes several objects: all that is wanted, or nothing. With `dry_run=true` tells what would become of it: nothing is
/// written.
#[utoipa::path(post, path = "/v1/writes", params(
    How,
    Asker,
), request_body(content = Vec<Wanted>), responses(
    (status = 200, description = "Written; of a dry run a `Forecast`", body = Made),
    (status = 400, description = "No changes", body = super::refusal::Refused),
    (status = 409, description = "Refused by the rules, with all faults; or the node goes by its files", body = super::refusal::Refused),
    (status = 412, description = "An object has another version", body = super::refusal::Refused),
    (status = 413, description = "More than 4 MiB", body = super::refusal::Refused),
    Refusal,
))]
pub async fn write(
    State(questions): Questions,
    Asked(How { dry_run, force }): Asked<How>,
    asker: Asker,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    if asker.expected.is_some() {
        return Err(Refusal::wrong("a write of several objects has `expected` in each change, no if-match"));
    }
    let changes = changes(&whole(bytes)?)?;
    if !force {
        keep_needed(&questions, &changes).await?;
    }
    if dry_run {
        return Ok(Json(preview(&questions, changes).await?).into_response());
    }
    let request = asker.request;
    let index = make(&questions, asker, changes).await?;
    Ok(Json(Made { index, version: None, request }).into_response())
}

async fn preview(questions: &Sender<Question>, changes: Vec<Change>) -> Result<Forecast, Refusal> {
    let hopes = Hopes::of(&changes);
    let seen = ask(questions, |reply| Question::Preview(changes, reply)).await?;
    match (*seen).ok_or_else(Refusal::no_log)? {
        Ok(sight) => Ok(sight.forecast()),
        Err((faults, more)) => Err(hopes.dashed(questions, faults, more).await),
    }
}
