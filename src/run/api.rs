//! The admin API: HTTP and JSON on a Unix socket, on a thread of its own.
//!
//! A request becomes a question to the management thread over a bounded channel; the answer comes back within
//! [`PATIENCE`] or the client is told that it didn't.

use super::gate::Gate;
use crate::manage::explain::{ExplainError, Explanation, Request, Tuple};
use crate::manage::metrics;
use crate::manage::stats::Stats;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use crossbeam_channel::Sender;
use serde::Deserialize;
use serde_json::json;
use std::io;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a client waits for the management thread, which answers within a few milliseconds unless it is stuck.
pub const PATIENCE: Duration = Duration::from_secs(2);

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
}

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
                    tokio::spawn(async move { axum::serve(Gate::new(listener), router(questions)).await });
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

fn router(questions: Sender<Question>) -> Router {
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/health", get(health))
        .route("/v1/explain", get(explain))
        .route("/metrics", get(prometheus))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(questions)
}

async fn stats(State(questions): State<Sender<Question>>) -> Result<Json<Box<Stats>>, Refusal> {
    ask(&questions, Question::Stats).await.map(Json)
}

async fn health(State(questions): State<Sender<Question>>) -> Result<Response, Refusal> {
    let ready = ask(&questions, Question::Stats).await?.ready;
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
    State(questions): State<Sender<Question>>,
    asked: Result<Query<TupleAsked>, QueryRejection>,
) -> Result<Json<Explanation>, Refusal> {
    let wrong = |why: String| Refusal(StatusCode::BAD_REQUEST, why);
    let Query(asked) = asked.map_err(|why| wrong(why.body_text()))?;
    let tuple = Tuple::parse(&asked.protocol, &asked.source, &asked.destination)
        .map_err(|why| wrong(why.to_string()))?;
    let request = Request { tuple, receiver: asked.receiver };
    match *ask(&questions, |reply| Question::Explain(request, reply)).await? {
        Ok(explanation) => Ok(Json(explanation)),
        Err(error) if error.is_wrong_question() => Err(wrong(error.to_string())),
        Err(error) => Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

async fn prometheus(State(questions): State<Sender<Question>>) -> Result<Response, Refusal> {
    let text = metrics::encode(&*ask(&questions, Question::Stats).await?);
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

async fn no_such_path(uri: Uri) -> Refusal {
    let message =
        format!("there is nothing at {}: try /v1/stats, /v1/health, /v1/explain or /metrics", uri.path());
    Refusal(StatusCode::NOT_FOUND, message)
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    Refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} can only be read, with GET: not {method}", uri.path()),
    )
}

async fn ask<T>(
    questions: &Sender<Question>,
    question: impl FnOnce(Reply<T>) -> Question,
) -> Result<Box<T>, Refusal> {
    let unavailable = |why: &str| Refusal(StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
    let (reply, answered) = oneshot::channel();
    let asked = questions.try_send(question(Reply(reply)));
    asked.map_err(|_| {
        unavailable("too many questions are waiting for the management thread, or it has ended")
    })?;
    match tokio::time::timeout(PATIENCE, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(unavailable("the node is stopping")),
        Err(_) => Err(unavailable("the management thread did not answer in time")),
    }
}

/// An answer other than the one asked for: `{"error": "…"}`.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

#[cfg(test)]
#[path = "api_tests.rs"]
mod tests;
