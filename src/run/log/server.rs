//! The answering end: takes connections of other replicas, and does what they ask.

use crate::run::log::core::Core;
use crate::run::log::frame::{self, Answer, CHUNK, FrameError, Hello, Numbered, Piece, Request, Verdict};
use crate::run::log::refusals::Kind;
use crate::run::log::tls;
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::VoteResponse;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::ReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// Connections at once: one from each replica, and what broken ones leave behind for a while.
const CONNECTIONS: usize = 256;
/// From the first packet to the peer's hello.
const GREETING: Duration = Duration::from_secs(3);
/// Questions of one connection that are worked on at once; further ones wait in the socket.
const WORKING: usize = 256;
/// After an accept that failed (no more file descriptors).
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections for ever.
pub async fn serve(core: Arc<Core>, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                core.refusals.count(Kind::Crowded, "a connection", error);
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = free.clone().try_acquire_owned() else {
            core.refusals.count(Kind::Crowded, from, "too many connections");
            continue;
        };
        let core = core.clone();
        tokio::spawn(async move {
            if let Err((kind, why)) = connection(&core, tcp).await {
                core.refusals.count(kind, from, why);
            }
            drop(place);
        });
    }
}

/// One connection, until it ends; an error if it was refused.
async fn connection(core: &Arc<Core>, tcp: TcpStream) -> Result<(), (Kind, String)> {
    let greeted = timeout(GREETING, greet(core, tcp)).await;
    let (stream, hello) = greeted.map_err(|_| (Kind::Tls, "it doesn't say who it is".to_owned()))??;
    let (mut from, mut to) = tokio::io::split(stream);
    let (answer_in, mut answers) = mpsc::channel::<Numbered<Answer>>(WORKING);
    let writer = tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            if frame::write(&mut to, &answer).await.is_err() {
                break;
            }
        }
    });
    let working = Arc::new(Semaphore::new(WORKING));
    let end = loop {
        match next(&mut from).await {
            Ok(Some(Numbered { number, body })) => {
                let Ok(place) = working.clone().acquire_owned().await else { break Ok(()) };
                let (core, answers, from) = (core.clone(), answer_in.clone(), hello.id.0.into());
                tokio::spawn(async move {
                    let body = answer(&core, from, body).await;
                    // Whoever has gone needs no answer.
                    let _ = answers.send(Numbered { number, body }).await;
                    drop(place);
                });
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    writer.abort();
    match end {
        // How connections end, with a peer that has gone.
        Ok(()) | Err(FrameError::Io(_)) => Ok(()),
        Err(error) => Err((Kind::Frame, format!("{}: {error}", hello.name))),
    }
}

async fn next(from: &mut ReadHalf<TlsStream<TcpStream>>) -> Result<Option<Numbered<Request>>, FrameError> {
    frame::read(from).await
}

/// TLS and hellos.
async fn greet(core: &Core, tcp: TcpStream) -> Result<(TlsStream<TcpStream>, Hello), (Kind, String)> {
    let tls = |error: io::Error| (Kind::Tls, error.to_string());
    tcp.set_nodelay(true).map_err(tls)?;
    let mut stream = core.identity.acceptor().accept(tcp).await.map_err(tls)?;
    let hello = frame::read(&mut stream).await.map_err(|error| (Kind::Frame, error.to_string()))?;
    let hello: Hello = hello.ok_or_else(|| (Kind::Identity, "it doesn't say who it is".to_owned()))?;
    tls::judge(&hello, stream.get_ref().1).map_err(|why| (Kind::Identity, why))?;
    if hello.id == core.identity.id {
        return Err((Kind::Identity, format!("says that it is this replica, {}", hello.id)));
    }
    if let Some(known) = core.name_of(hello.id.0.into()).filter(|known| *known != hello.name) {
        let why = format!("{:?} says that it is replica {}, which is {known:?}", hello.name, hello.id);
        return Err((Kind::Identity, why));
    }
    frame::write(&mut stream, &core.identity.hello()).await.map_err(|e| (Kind::Frame, e.to_string()))?;
    Ok((stream, hello))
}

/// Does what replica `from` asks.
async fn answer(core: &Core, from: u64, request: Request) -> Answer {
    let failed = |error: &dyn std::fmt::Display| Answer::Failed(error.to_string());
    match request {
        Request::Append(rpc) => match core.raft.append_entries(rpc).await {
            Ok(answer) => {
                core.heard(from);
                Answer::Append(answer)
            }
            Err(error) => failed(&error),
        },
        Request::Snapshot(rpc) => match core.raft.install_snapshot(rpc).await {
            Ok(answer) => {
                core.heard(from);
                Answer::Snapshot(Ok(answer))
            }
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                Answer::Snapshot(Err(mismatch))
            }
            Err(error @ RaftError::Fatal(_)) => failed(&error),
        },
        // One that has lost what it stored must not help to elect somebody who lacks what it had acknowledged.
        Request::Vote(_) if !core.admitted() => Answer::Vote(VoteResponse {
            vote: core.store.vote().unwrap_or_default(),
            vote_granted: false,
            last_log_id: core.store.last(),
        }),
        Request::Vote(rpc) => match core.raft.vote(rpc).await {
            Ok(answer) => Answer::Vote(answer),
            Err(error) => failed(&error),
        },
        Request::Propose(proposal) => Answer::Verdict(core.lead(proposal).await),
        Request::Replicas(replicas) => Answer::Verdict(if core.leads() {
            core.replace_replicas(replicas).await
        } else {
            Verdict::Elsewhere
        }),
        Request::Admit => match core.admit().await {
            Ok(()) => Answer::Admitted,
            Err(error) => failed(&error),
        },
        Request::Renew(life, by) => Answer::Renewed(core.renews(from, life, by)),
        Request::Refresh => {
            core.machine.refresh().await;
            Answer::Refreshed
        }
        Request::Fetch(from) => match core.raft.get_snapshot().await {
            Ok(found) => Answer::Piece(found.map(|snapshot| {
                let content = snapshot.snapshot.get_ref();
                let start = usize::try_from(from).unwrap_or(usize::MAX).min(content.len());
                let end = content.len().min(start + CHUNK);
                Piece {
                    meta: snapshot.meta,
                    total: content.len() as u64,
                    bytes: content[start..end].to_vec(),
                }
            })),
            Err(error) => failed(&error),
        },
    }
}
