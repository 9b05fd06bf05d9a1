//! The admin API: HTTP and JSON on a Unix socket, on a thread of its own.
//!
//! A request becomes a question to the management thread over a bounded channel; the answer comes back within
//! [`PATIENCE`] or the client is told that it didn't.

mod asker;
pub mod body;
mod cluster;
mod document;
mod objects;
mod refusal;
mod writes;

use super::gate::Gate;
use crate::base::Instant;
use crate::cluster::asks::Answer;
use crate::cluster::namespace::{Change, Faults};
use crate::cluster::state::Entry;
use crate::manage::explain::{ExplainError, Explanation, Request, Tuple};
use crate::manage::manager::Manager;
use crate::manage::metrics;
use crate::manage::preview::Sight;
use crate::manage::stats::Stats;
use asker::{Asked, Peer};
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use crossbeam_channel::Sender;
use refusal::Refusal;
use serde::Deserialize;
use serde_json::json;
use std::io;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a client waits for the management thread, which answers within a few milliseconds unless it is stuck.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How long a client waits for a change to be decided, which takes a majority of the voters.
pub const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request's body, at most.
const LARGEST_BODY: usize = 4 << 20;

/// Questions that may wait for the management thread.
pub const QUESTIONS: usize = 64;

/// The media type of the text format (Prometheus' OpenMetrics flavour, as `prometheus-client` writes it).
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A question to the management thread.
pub enum Question {
    /// The node's statistics now.
    Stats(Reply<Stats>),
    /// What becomes of a tuple's packets.
    Explain(Request, Reply<Result<Explanation, ExplainError>>),
    /// Shows the manager to somebody, who is quick.
    Look(Look),
    /// What these changes would do; none: the node goes by its files.
    Preview(Vec<Change>, Reply<Option<Result<Sight, Faults>>>),
    /// Has something decided; none: the node goes by its files.
    Ask(Entry, Reply<Option<Answer>>),
}

/// Sees the manager, on its thread.
pub type Look = Box<dyn FnOnce(&Manager, Instant) + Send>;

/// Where an answer is awaited.
pub struct Reply<T>(oneshot::Sender<Box<T>>);

impl<T> Reply<T> {
    /// Gives the answer. A client that has gone away meanwhile is nothing to worry about.
    pub fn give(self, answer: T) {
        let _ = self.0.send(Box::new(answer));
    }
}

/// The running API. Dropping it stops the thread; answers that are on their way are cut off.
pub struct Api {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Api {
    /// Serves `listener` (non-blocking) on a new thread.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn start(listener: UnixListener, questions: Sender<Question>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _within = runtime.enter();
            tokio::net::UnixListener::from_std(listener)?
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("admin".into()).spawn(move || {
            runtime.block_on(async move {
                let server =
                    tokio::spawn(async move { axum::serve(Gate::new(listener), service(questions)).await });
                // An error says that the other end is gone, which means the same.
                let _ = stopped.await;
                server.abort();
            });
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Where the management thread takes questions.
type Questions = State<Sender<Question>>;

fn service(questions: Sender<Question>) -> IntoMakeServiceWithConnectInfo<Router, Peer> {
    router(questions).into_make_service_with_connect_info()
}

fn router(questions: Sender<Question>) -> Router {
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/health", get(health))
        .route("/v1/explain", get(explain))
        .route("/v1/objects", get(objects::list))
        .route("/v1/objects/{*key}", get(objects::show).put(writes::put).delete(writes::remove))
        .route("/v1/writes", post(writes::write))
        .route("/v1/history", get(objects::history))
        .route("/v1/cluster", get(cluster::status))
        .route("/v1/nodes/{name}/drain", post(cluster::drain))
        .route("/v1/nodes/{name}/undrain", post(cluster::undrain))
        .route("/v1/groups/{name}/migrate", post(cluster::migrate))
        .route("/v1/openapi.json", get(document::show))
        .route("/metrics", get(prometheus))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(questions)
}

async fn stats(State(questions): Questions) -> Result<Json<Box<Stats>>, Refusal> {
    ask(&questions, Question::Stats).await.map(Json)
}

/// What `/v1/health` is asked with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthAsked {
    /// Only virtual servers that need no state matter.
    #[serde(default)]
    stateless: bool,
}

async fn health(
    State(questions): Questions,
    Asked(HealthAsked { stateless }): Asked<HealthAsked>,
) -> Result<Response, Refusal> {
    let stats = ask(&questions, Question::Stats).await?;
    let ready = if stateless { stats.stateless_ready } else { stats.ready };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok((status, Json(json!({ "ready": ready }))).into_response())
}

/// What `/v1/explain` is asked with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TupleAsked {
    protocol: String,
    source: String,
    destination: String,
    receiver: Option<String>,
}

async fn explain(
    State(questions): Questions,
    Asked(asked): Asked<TupleAsked>,
) -> Result<Json<Explanation>, Refusal> {
    let tuple = Tuple::parse(&asked.protocol, &asked.source, &asked.destination)
        .map_err(|why| Refusal::wrong(why.to_string()))?;
    let request = Request { tuple, receiver: asked.receiver };
    match *ask(&questions, |reply| Question::Explain(request, reply)).await? {
        Ok(explanation) => Ok(Json(explanation)),
        Err(error) if error.is_wrong_question() => Err(Refusal::wrong(error.to_string())),
        Err(error) => Err(Refusal::unavailable(error.to_string())),
    }
}

async fn prometheus(State(questions): Questions) -> Result<Response, Refusal> {
    let text = metrics::encode(&*ask(&questions, Question::Stats).await?);
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

async fn no_such_path(uri: Uri) -> Refusal {
    let message = format!("there is nothing at {}: /v1/openapi.json says what there is", uri.path());
    Refusal::new(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let message = format!("{} doesn't take {method}: the header `allow` says what it takes", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// What the management thread answers, if it does so in time.
async fn ask<T>(
    questions: &Sender<Question>,
    question: impl FnOnce(Reply<T>) -> Question,
) -> Result<Box<T>, Refusal> {
    match put_to(questions, question, PATIENCE).await? {
        Some(answer) => Ok(answer),
        None => Err(Refusal::unavailable("the management thread did not answer in time")),
    }
}

/// The same; none if it doesn't within `patience`.
async fn put_to<T>(
    questions: &Sender<Question>,
    question: impl FnOnce(Reply<T>) -> Question,
    patience: Duration,
) -> Result<Option<Box<T>>, Refusal> {
    let (reply, answered) = oneshot::channel();
    let asked = questions.try_send(question(Reply(reply)));
    asked.map_err(|_| {
        Refusal::unavailable("too many questions are waiting for the management thread, or it has ended")
    })?;
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(answer)) => Ok(Some(answer)),
        Ok(Err(_)) => Err(Refusal::unavailable("the node is stopping")),
        Err(_) => Ok(None),
    }
}

/// What somebody who is quick sees of the manager.
async fn look<T: Send + 'static>(
    questions: &Sender<Question>,
    see: impl FnOnce(&Manager, Instant) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let question =
        |reply: Reply<T>| Question::Look(Box::new(move |manager, now| reply.give(see(manager, now))));
    ask(questions, question).await.map(|seen| *seen)
}

#[cfg(test)]
mod tests;
