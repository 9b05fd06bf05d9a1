//! Connections to other replicas: one each, made when something is to be said, with many questions on it at once.

use crate::cluster::log::ReplicaId;
use crate::run::log::frame::{self, Answer, Hello, Numbered, Request};
use crate::run::log::refusals::{Kind, Refusals};
use crate::run::log::tls::{self, Identity};
use crate::run::log::types::{Peer, replica_id};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

/// Questions that may wait for one peer's connection.
const WAITING: usize = 256;
/// Questions that may be without answer; those whose asker has gone are forgotten first.
const OPEN: usize = 2 * crate::cluster::log::MAX_PROPOSALS;
/// From the first packet to the peer's hello.
const CONNECT: Duration = Duration::from_secs(2);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// A connection on which an answer has been awaited so long without a sign of life is given up.
const SILENT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer can't have got the question.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may have.
    #[error("no answer: {0}")]
    Lost(String),
}

type Reply = oneshot::Sender<Result<Answer, LinkError>>;

struct Call {
    request: Request,
    reply: Reply,
}

/// The way to one peer. Clones share its connection.
#[derive(Clone)]
pub struct Link {
    calls: mpsc::Sender<Call>,
}

impl Link {
    /// Asks, and waits for the answer for as long as the caller cares to.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn ask(&self, request: Request) -> Result<Answer, LinkError> {
        let (reply, answer) = oneshot::channel();
        let full = |_| LinkError::NotSent("too much waits for this peer".to_owned());
        self.calls.try_send(Call { request, reply }).map_err(full)?;
        answer.await.unwrap_or_else(|_| Err(LinkError::Lost("the connection was given up".to_owned())))
    }
}

/// All links of a replica. Clones share them.
#[derive(Clone)]
pub struct Links {
    identity: Arc<Identity>,
    refusals: Arc<Refusals>,
    open: Arc<Mutex<BTreeMap<u64, (Peer, Link)>>>,
}

impl Links {
    /// None yet.
    pub fn new(identity: Arc<Identity>, refusals: Arc<Refusals>) -> Self {
        Self { identity, refusals, open: Arc::default() }
    }

    /// The link to the replica `id` that is known as `peer`.
    pub fn to(&self, id: u64, peer: &Peer) -> Link {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, link)) = open.get(&id)
            && known == peer
        {
            return link.clone();
        }
        let (calls, queue) = mpsc::channel(WAITING);
        let line = Line {
            id: replica_id(id),
            peer: peer.clone(),
            identity: self.identity.clone(),
            refusals: self.refusals.clone(),
        };
        tokio::spawn(line.serve(queue));
        let link = Link { calls };
        open.insert(id, (peer.clone(), link.clone()));
        link
    }

    /// Gives up the links to all but `ids`. (Their tasks end when openraft has let go of them, too.)
    pub fn keep(&self, ids: impl Fn(u64) -> bool) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| ids(*id));
    }
}

/// The task behind a link.
struct Line {
    id: ReplicaId,
    peer: Peer,
    identity: Arc<Identity>,
    refusals: Arc<Refusals>,
}

impl Line {
    async fn serve(self, mut queue: mpsc::Receiver<Call>) {
        while let Some(first) = queue.recv().await {
            match timeout(CONNECT, self.connect())
                .await
                .unwrap_or_else(|_| Err("it takes too long".to_owned()))
            {
                Ok(stream) => self.talk(stream, first, &mut queue).await,
                Err(why) => {
                    tracing::debug!(peer = %self.peer.name, "no connection: {why}");
                    fail(first, &mut queue, &why);
                    let until = Instant::now() + PAUSE;
                    while let Ok(Some(call)) = tokio::time::timeout_at(until, queue.recv()).await {
                        let _ = call.reply.send(Err(LinkError::NotSent(why.clone())));
                    }
                }
            }
        }
    }

    /// A connection to the right peer.
    async fn connect(&self) -> Result<TlsStream<TcpStream>, String> {
        let name = tls::server_name(&self.peer.name).ok_or("its name can't stand in a certificate")?;
        let tcp = TcpStream::connect(&self.peer.address).await.map_err(|error| error.to_string())?;
        // Frames are small and waited for.
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let refused = |kind, why: String| {
            self.refusals.count(kind, format_args!("{} at {}", self.peer.name, self.peer.address), &why);
            why
        };
        let stream = self.identity.connector().connect(name, tcp).await;
        let mut stream = stream.map_err(|error| match error.kind() {
            // rustls's word for what is wrong with the other end, not with the way there.
            std::io::ErrorKind::InvalidData => refused(Kind::Tls, error.to_string()),
            _ => error.to_string(),
        })?;
        frame::write(&mut stream, &self.identity.hello()).await.map_err(|error| error.to_string())?;
        let hello: Option<Hello> = frame::read(&mut stream).await.map_err(|error| error.to_string())?;
        let hello = hello.ok_or("it has closed the connection")?;
        tls::judge(&hello, stream.get_ref().1).map_err(|why| refused(Kind::Identity, why))?;
        if hello.id != self.id {
            return Err(refused(Kind::Identity, format!("is replica {}, not {}", hello.id, self.id)));
        }
        Ok(stream)
    }

    /// Asks what is queued and hands out answers until the connection ends.
    async fn talk(&self, stream: TlsStream<TcpStream>, first: Call, queue: &mut mpsc::Receiver<Call>) {
        let (from, mut to) = tokio::io::split(stream);
        let (answer_in, mut answers) = mpsc::channel(WAITING);
        let reader = tokio::spawn(listen(from, answer_in));
        let mut open = BTreeMap::new();
        let mut number = 0;
        let mut heard = Instant::now();
        let mut watch = tokio::time::interval(SILENT / 4);
        let mut next = Some(first);
        let why = loop {
            if let Some(call) = next.take() {
                if open.is_empty() {
                    heard = Instant::now();
                }
                number += 1;
                if let Err(why) = send(&mut to, call, number, &mut open).await {
                    break why;
                }
            }
            tokio::select! {
                call = queue.recv() => match call {
                    Some(call) => next = Some(call),
                    None => break "no longer needed".to_owned(),
                },
                answer = answers.recv() => match answer {
                    Some(Ok(Numbered { number, body })) => {
                        heard = Instant::now();
                        if let Some(reply) = open.remove(&number) {
                            let _: Result<(), _> = Reply::send(reply, Ok(body));
                        }
                    }
                    Some(Err(error @ (frame::FrameError::Long(_) | frame::FrameError::Malformed(_)))) => {
                        self.refusals.count(Kind::Frame, &self.peer.name, &error);
                        break error.to_string();
                    }
                    Some(Err(error)) => break error.to_string(),
                    None => break "it has closed the connection".to_owned(),
                },
                _ = watch.tick() => {
                    open.retain(|_, reply: &mut Reply| !reply.is_closed());
                    if !open.is_empty() && heard.elapsed() > SILENT {
                        break "it is silent".to_owned();
                    }
                }
            }
        };
        reader.abort();
        tracing::debug!(peer = %self.peer.name, "connection ended: {why}");
        for reply in open.into_values() {
            let _ = reply.send(Err(LinkError::Lost(why.clone())));
        }
    }
}

/// Tells `first` and all that waits that they were not sent.
fn fail(first: Call, queue: &mut mpsc::Receiver<Call>, why: &str) {
    let mut next = Some(first);
    while let Some(call) = next {
        let _ = call.reply.send(Err(LinkError::NotSent(why.to_owned())));
        next = queue.try_recv().ok();
    }
}

async fn listen(
    mut from: ReadHalf<TlsStream<TcpStream>>,
    answers: mpsc::Sender<Result<Numbered<Answer>, frame::FrameError>>,
) {
    loop {
        let answer = frame::read(&mut from).await;
        let last = answer.is_err();
        let Some(answer) = answer.transpose() else { return };
        if answers.send(answer).await.is_err() || last {
            return;
        }
    }
}

/// Sends one question, and notes who has asked. An error ends the connection.
async fn send(
    to: &mut WriteHalf<TlsStream<TcpStream>>,
    call: Call,
    number: u64,
    open: &mut BTreeMap<u64, Reply>,
) -> Result<(), String> {
    let bytes = match frame::encode(&Numbered { number, body: call.request }) {
        Ok(bytes) if open.len() < OPEN => bytes,
        Ok(_) => {
            let _ = call.reply.send(Err(LinkError::NotSent("too much waits for this peer".to_owned())));
            return Ok(());
        }
        Err(error) => {
            let _ = call.reply.send(Err(LinkError::NotSent(error.to_string())));
            return Ok(());
        }
    };
    open.insert(number, call.reply);
    let write = async {
        tokio::io::AsyncWriteExt::write_all(to, &bytes).await?;
        tokio::io::AsyncWriteExt::flush(to).await
    };
    match timeout(SILENT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it takes nothing in".to_owned()),
    }
}
