//! The cluster as a whole: how it does, draining nodes, moving virtual servers between groups.

use super::asker::{Asked, Asker};
use super::body::whole;
use super::objects::{missing, space};
use super::refusal::{Refusal, Refused};
use super::writes::{Made, decide, make_one};
use super::{Question, Questions, look};
use crate::base::NodeId;
use crate::cluster::asks::Answer;
use crate::cluster::namespace::{By, Change, Key, Name, Object};
use crate::cluster::state::Entry;
use crate::manage::manager::Manager;
use crate::manage::status::{self, Snapshot, Status};
use crate::run::clock;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A node that is drained or not.
#[derive(Debug, Serialize, ToSchema)]
pub struct Drained {
    /// The log's last entry by then.
    pub index: u64,
    /// Whether it is to own nothing.
    pub drained: bool,
    /// What the node may do now, as its status says.
    pub phase: &'static str,
}

/// Whether it is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Nothing is decided; the answer tells what would be.
    #[serde(default)]
    dry_run: bool,
}

/// What is to be served by another group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Migrant {
    /// The virtual server's name.
    virtual_server: String,
}

/// The cluster's status, as the node that is asked sees it.
#[utoipa::path(get, path = "/v1/cluster", responses(
    (status = 200, body = Status),
    (status = 409, description = "The node goes by its files", body = Refused),
))]
pub async fn status(State(questions): Questions) -> Result<Json<Status>, Refusal> {
    let snapshot = look(&questions, Snapshot::take).await?;
    Ok(Json(snapshot.ok_or_else(Refusal::no_log)?.status()))
}

fn name(text: &str) -> Result<Name, Refusal> {
    Name::new(text).map_err(|why| Refusal::wrong(why.to_string()))
}

/// What is decided about a node; none if there is no such node.
fn drained(manager: &Manager, node: &Name) -> Option<Option<(NodeId, Drained)>> {
    let (index, space) = space(manager)?;
    let fleet = manager.council()?.state().fleet();
    let known = space.node(node).map(|(id, _)| {
        let (phase, _) = status::phase(fleet.member(id));
        (id, Drained { index, drained: fleet.is_drained(id), phase })
    });
    Some(known)
}

async fn set_drained(
    questions: &Sender<Question>,
    text: &str,
    (drain, dry_run): (bool, bool),
    asker: Asker,
) -> Result<Response, Refusal> {
    let node = name(text)?;
    let see = async || {
        let asked = node.clone();
        let known = look(questions, move |manager, _| drained(manager, &asked)).await?;
        known.ok_or_else(Refusal::no_log)?.ok_or_else(|| missing(&Key::Node(node.clone())))
    };
    let (id, known) = see().await?;
    if dry_run {
        let sight = look(questions, move |manager, _| manager.preview_drain(id, drain)).await?;
        let sight = sight.ok_or_else(|| missing(&Key::Node(node.clone())))?;
        return Ok(Json(sight.forecast()).into_response());
    }
    if known.drained == drain {
        return Ok(Json(known).into_response());
    }
    let request = asker.request;
    let by = By { request, who: asker.who, at: clock::milliseconds() };
    match decide(questions, Entry::Drain(id, drain, by)).await.map_err(|refusal| refusal.of(request))? {
        Answer::Decided(_) => {}
        Answer::Refused(why) => return Err(Refusal::by_log(&why).of(request)),
        Answer::Written(_) | Answer::Unknown => return Err(Refusal::unknown().of(request)),
    }
    let (_, known) = see().await?;
    if known.drained != drain {
        let why = format!("node/{node}: somebody has decided otherwise since");
        return Err(Refusal::new(StatusCode::CONFLICT, why));
    }
    Ok(Json(known).into_response())
}

/// Lets a node give away all that it owns; it serves on until others have it. It stays drained when it is started anew. With
/// `dry_run=true` tells what would move: nothing is decided.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", params(
    ("name" = String, Path, description = "The node"),
    Trial,
    Asker,
), responses(
    (status = 200, description = "Drained; of a dry run a `Forecast`", body = Drained),
    (status = 404, description = "No such node", body = Refused),
    (status = 409, description = "Somebody has decided otherwise since; or the node goes by its files", body = Refused),
    Refusal,
))]
pub async fn drain(
    State(questions): Questions,
    Path(node): Path<String>,
    Asked(Trial { dry_run }): Asked<Trial>,
    asker: Asker,
) -> Result<Response, Refusal> {
    set_drained(&questions, &node, (true, dry_run), asker).await
}

/// Lets a node that is drained own buckets again. With `dry_run=true` tells what would move: nothing is decided.
#[utoipa::path(post, path = "/v1/nodes/{name}/undrain", params(
    ("name" = String, Path, description = "The node"),
    Trial,
    Asker,
), responses(
    (status = 200, description = "Taken back; of a dry run a `Forecast`", body = Drained),
    (status = 404, description = "No such node", body = Refused),
    (status = 409, description = "Somebody has decided otherwise since; or the node goes by its files", body = Refused),
    Refusal,
))]
pub async fn undrain(
    State(questions): Questions,
    Path(node): Path<String>,
    Asked(Trial { dry_run }): Asked<Trial>,
    asker: Asker,
) -> Result<Response, Refusal> {
    set_drained(&questions, &node, (false, dry_run), asker).await
}

/// Lets a group serve a virtual server: a write that changes the server's `group` alone.
#[utoipa::path(post, path = "/v1/groups/{name}/migrate", params(
    ("name" = String, Path, description = "The group"),
    Asker,
), request_body(content = Migrant), responses(
    (status = 200, body = Made),
    (status = 400, description = "No virtual server's name", body = Refused),
    (status = 404, description = "No such virtual server", body = Refused),
    (status = 409, description = "Refused by the rules, with all faults; or the node goes by its files", body = Refused),
    (status = 412, description = "It was changed meanwhile", body = Refused),
    Refusal,
))]
pub async fn migrate(
    State(questions): Questions,
    Path(group): Path<String>,
    asker: Asker,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Made>, Refusal> {
    let group = name(&group)?;
    let Migrant { virtual_server } = serde_json::from_slice(&whole(bytes)?)
        .map_err(|why| Refusal::wrong(format!("the body names no virtual server: {why}")))?;
    let key = Key::VirtualServer(name(&virtual_server)?);
    let asked = key.clone();
    let entry = look(&questions, move |manager, _| Some(space(manager)?.1.get(&asked).cloned()));
    let entry = entry.await?.ok_or_else(Refusal::no_log)?.ok_or_else(|| missing(&key))?;
    let Object::VirtualServer(mut spec) = entry.object else { return Err(missing(&key)) };
    spec.group = group;
    let change = Change { key, expected: Some(entry.version), value: Some(Object::VirtualServer(spec)) };
    let (made, _) = make_one(&questions, asker, change).await?;
    Ok(Json(made))
}
