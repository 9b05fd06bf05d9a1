//! Probes of real servers through the kernel's sockets, on a thread of their own.
//!
//! The management thread hands in [`Order`]s and takes out what they came to, over bounded channels on which neither side waits.

mod failure;
mod http;
pub mod icmp;
mod plain;
mod tls;

use crate::cluster::namespace::{HealthSpec, Probe};
use crate::manage::health::prober::MAX_IN_FLIGHT;
use crate::manage::health::{Attempt, Outcome, Target};
use crate::manage::manager::checks::Probing;
use crossbeam_channel::{Receiver, Sender};
use failure::{Deadline, Failure};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;
use tls::Tls;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Bytes of an answer that are read; what comes behind them is not looked at.
pub const MAX_ANSWER: usize = 64 * 1024;

/// Orders that may wait for the thread.
const ORDERS: usize = 256;

/// One probe to make.
struct Order {
    attempt: Attempt,
    to: SocketAddr,
    spec: Arc<HealthSpec>,
}

/// The thread that probes. Dropping it stops the thread; probes that are on their way are cut off.
pub struct Probes {
    orders: mpsc::Sender<Order>,
    answers: Receiver<(Attempt, Outcome)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Probes {
    /// Starts the thread. At most [`MAX_IN_FLIGHT`] probes are made at once.
    ///
    /// # Errors
    /// If there is no thread, or no file descriptors for its runtime, to be had.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (orders, taken) = mpsc::channel(ORDERS);
        // Room for all that may be in flight or waiting, so that it is full only if answers aren't taken for long.
        let (given, answers) = crossbeam_channel::bounded(MAX_IN_FLIGHT + ORDERS);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("probes".into()).spawn(move || {
            // The runtime takes what it is doing with it when it is dropped.
            runtime.spawn(serve(taken, given));
            // An error says that the other end is gone, which means the same.
            let _ = runtime.block_on(stopped);
        })?;
        Ok(Self { orders, answers, stop: Some(stop), thread: Some(thread) })
    }
}

impl Probing for Probes {
    fn begin(&mut self, attempt: Attempt, target: &Target) -> bool {
        let order = Order { attempt, to: target.destination(), spec: Arc::clone(&target.spec) };
        self.orders.try_send(order).is_ok()
    }

    fn answer(&mut self) -> Option<(Attempt, Outcome)> {
        self.answers.try_recv().ok()
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(mut orders: mpsc::Receiver<Order>, answers: Sender<(Attempt, Outcome)>) {
    let tls = Arc::new(Tls::new());
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    while let Some(Order { attempt, to, spec }) = orders.recv().await {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (tls, answers) = (Arc::clone(&tls), answers.clone());
        tokio::spawn(async move {
            let outcome = probe(to, &spec, &tls).await;
            // If nobody has taken answers for long, the prober gives this one up.
            let _ = answers.try_send((attempt, outcome));
            drop(place);
        });
    }
}

/// Makes one probe now, on this thread, and waits for what it comes to.
///
/// # Errors
/// If there are no file descriptors for the runtime to be had.
pub fn once(to: SocketAddr, spec: &HealthSpec) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(probe(to, spec, &Tls::new())))
}

async fn probe(to: SocketAddr, spec: &HealthSpec, tls: &Tls) -> Outcome {
    let begun = Instant::now();
    let deadline = Deadline::new(spec.timeout);
    let done = match spec.probe {
        Probe::None => Ok(()),
        Probe::Tcp => plain::tcp(to, deadline).await,
        Probe::Udp => plain::udp(to, spec, deadline).await,
        Probe::Icmp => icmp::echo(to.ip(), deadline).await,
        Probe::Http => http::plain(to, spec, deadline).await,
        Probe::Https => http::encrypted(to, spec, tls, deadline).await,
    };
    match done {
        Ok(()) => Outcome::Good(begun.elapsed()),
        Err(Failure::Bad(reason)) => Outcome::Bad(reason),
        Err(Failure::Unable(reason)) => Outcome::Unable(reason),
    }
}
