//! openraft's way to its peers.

use crate::run::log::frame::{Answer, Request};
use crate::run::log::link::{Link, LinkError, Links};
use crate::run::log::types::{Peer, Types};
use openraft::AnyError;
use openraft::error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use std::time::Duration;

type Rpc<E> = RPCError<u64, Peer, RaftError<u64, E>>;

/// Makes ways to peers.
pub struct Network {
    /// The connections.
    pub links: Links,
    /// Between two attempts to reach one that can't be reached.
    pub pause: Duration,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Way {
        Way { target, link: self.links.to(target, node), pause: self.pause }
    }
}

/// The way to one peer.
pub struct Way {
    target: u64,
    link: Link,
    pause: Duration,
}

fn unreachable<E: std::error::Error>(why: &str) -> Rpc<E> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(why)))
}

fn failed<E: std::error::Error>(error: &LinkError) -> Rpc<E> {
    match error {
        LinkError::NotSent(why) => unreachable(why),
        LinkError::Lost(why) => RPCError::Network(NetworkError::new(&AnyError::error(why))),
    }
}

fn other<E: std::error::Error>(answer: &Answer) -> Rpc<E> {
    match answer {
        Answer::Failed(why) => unreachable(why),
        _ => unreachable("the answer belongs to another question"),
    }
}

impl RaftNetwork<Types> for Way {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, Rpc<openraft::error::Infallible>> {
        match self.link.ask(Request::Append(rpc)).await.map_err(|error| failed(&error))? {
            Answer::Append(answer) => Ok(answer),
            answer => Err(other(&answer)),
        }
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, Rpc<InstallSnapshotError>> {
        match self.link.ask(Request::Snapshot(rpc)).await.map_err(|error| failed(&error))? {
            Answer::Snapshot(Ok(answer)) => Ok(answer),
            Answer::Snapshot(Err(mismatch)) => {
                let error = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.target, error)))
            }
            answer => Err(other(&answer)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, Rpc<openraft::error::Infallible>> {
        match self.link.ask(Request::Vote(rpc)).await.map_err(|error| failed(&error))? {
            Answer::Vote(answer) => Ok(answer),
            answer => Err(other(&answer)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.pause))
    }
}
