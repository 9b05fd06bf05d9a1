//! What the admin API's clients may take of the process: a bounded number of connections, for a bounded time without
//! progress. The node's other files and sockets come from the same limit (`RLIMIT_NOFILE`).

use super::api::WRITE_PATIENCE;
use axum::serve::Listener;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep};

/// Connections at a time. One more ends the oldest, so that clients that only hang about lock nobody out.
pub const CONNECTIONS: usize = 64;

/// A request is here, and its answer begins, so long after the connection was made or the answer before was written, and a
/// client takes some of its answer each time; or the connection ends. The slowest answer has to find it open.
pub const STALL: Duration = WRITE_PATIENCE.saturating_add(Duration::from_secs(2));

/// A listener with these limits.
pub struct Gate {
    listener: UnixListener,
    /// One for each connection, oldest first; sending ends it.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Gate {
    /// Guards `listener`.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener, open: VecDeque::with_capacity(CONNECTIONS) }
    }
}

impl Listener for Gate {
    type Io = Guarded;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Guarded, Self::Addr) {
        let (stream, addr) = Listener::accept(&mut self.listener).await;
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            // It may have ended just now, which is as good.
            let _ = oldest.send(());
        }
        let (end, ended) = oneshot::channel();
        self.open.push_back(end);
        (Guarded { stream, ended: Some(ended), stall: Box::pin(sleep(STALL)) }, addr)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when it stalls or has to make room.
pub struct Guarded {
    stream: UnixStream,
    /// None when it was told to end.
    ended: Option<oneshot::Receiver<()>>,
    stall: Pin<Box<Sleep>>,
}

impl Guarded {
    /// The user that the process at the other end runs as.
    pub fn user(&self) -> Option<u32> {
        self.stream.peer_cred().ok().map(|peer| peer.uid())
    }

    /// An error if the connection has to end; else the task is woken when it has to.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(ended) = &mut self.ended
            && Pin::new(ended).poll(context).is_ready()
        {
            self.ended = None;
        }
        if self.ended.is_none() {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many connections"));
        }
        match self.stall.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn progress(&mut self) {
        self.stall.as_mut().reset(Instant::now() + STALL);
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Reading is no progress: a header that comes byte by byte has to come in time, too.
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        match written {
            Poll::Ready(_) => self.progress(),
            Poll::Pending => self.check(context)?,
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
