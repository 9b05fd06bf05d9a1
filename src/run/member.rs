//! How a node of several takes part: its replica of the log, and its line to the others over the management network.

use crate::base::Instant;
use crate::cluster::log::{MAX_VOTERS, Replica, ReplicaId};
use crate::manage::config::{Config, LogConfig};
use crate::manage::manager::Manager;
use crate::manage::manager::heartbeats::Courier;
use crate::manage::manager::seat::AnyLog;
use crate::run::health::Probes;
use crate::run::log::{self, Running, StartError, Timing, solo, tls};
use std::net::{SocketAddr, UdpSocket};

/// Writes to the disk between two snapshots.
const SNAPSHOT_EVERY: usize = 4096;

/// Why a node can't take part.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its replica.
    #[error(transparent)]
    Log(#[from] StartError),
    /// Its health checks.
    #[error("health checks can't begin: {0}")]
    Probes(std::io::Error),
    /// Its line to the others.
    #[error("can't take heartbeats at {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// Gives the node its part in the cluster's log, if its file says so. With `new_cluster` it is one of those that begin the
/// cluster, with what its cluster file says; that has no effect on a node that has stored anything.
///
/// # Errors
/// [`MemberError`].
pub fn join(
    manager: &mut Manager,
    config: &Config,
    new_cluster: bool,
    now: Instant,
) -> Result<(), MemberError> {
    let Some(log) = &config.log else { return Ok(()) };
    let running: AnyLog = Box::new(replica(config, log, new_cluster)?);
    if let Some(address) = management(config).filter(|_| config.cluster.nodes.len() > 1) {
        let line = Line::open(address).map_err(|error| MemberError::Listen(address, error))?;
        manager.carry_by(Box::new(line));
    }
    let probes = Probes::start().map_err(MemberError::Probes)?;
    manager.probe_by(Box::new(probes));
    let first = new_cluster.then_some(log.objects.as_slice());
    manager.decide_by(running, first, now);
    Ok(())
}

fn management(config: &Config) -> Option<SocketAddr> {
    config.cluster.nodes[config.me.index()].management
}

fn replica(config: &Config, log: &LogConfig, new_cluster: bool) -> Result<Running, StartError> {
    let name = config.cluster.nodes[config.me.index()].name.clone();
    let (Some(tls), Some(listen)) = (&log.tls, management(config)) else {
        let address = management(config).map(|at| at.to_string()).unwrap_or_default();
        return Running::alone(solo::Config {
            node: config.me,
            name,
            address,
            data: log.directory.clone(),
            snapshot_every: SNAPSHOT_EVERY,
        });
    };
    let witnesses = (ReplicaId::FIRST_WITNESS.0..).zip(&log.witnesses).map(|(id, (name, address))| Replica {
        id: ReplicaId(id),
        name: name.clone(),
        address: address.clone(),
        votes: true,
    });
    let room = MAX_VOTERS.saturating_sub(log.witnesses.len());
    let voters = config.cluster.nodes.iter().take(room).map(|(id, node)| Replica {
        id: crate::base::NodeId(id as u16).into(),
        name: node.name.clone(),
        address: node.management.map(|at| at.to_string()).unwrap_or_default(),
        votes: true,
    });
    Running::start(log::Config {
        id: config.me.into(),
        name,
        listen,
        data: log.directory.clone(),
        tls: tls::Files { ca: tls.ca.clone(), certificate: tls.certificate.clone(), key: tls.key.clone() },
        first: if new_cluster { voters.chain(witnesses).collect() } else { Vec::new() },
        timing: Timing::LAB,
        snapshot_every: SNAPSHOT_EVERY,
    })
}

/// Heartbeats over UDP.
struct Line(UdpSocket);

impl Line {
    fn open(address: SocketAddr) -> std::io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Courier for Line {
    fn send(&mut self, to: SocketAddr, message: &[u8]) {
        // One that isn't sent is one that is lost on its way.
        let _ = self.0.send_to(message, to);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        self.0.recv(buffer).ok()
    }
}
