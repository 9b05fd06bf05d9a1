//! What replicas say to each other: a length in 4 bytes, little-endian, and that many bytes of postcard.

use crate::base::Incarnation;
use crate::cluster::log::{MAX_ENTRY, Refusal, Replica, ReplicaId};
use crate::run::log::types::{LogId, Proposal, SnapshotMeta, Types};
use openraft::error::SnapshotMismatch;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The protocol's version; peers with another are refused.
pub const VERSION: u16 = 3;
/// Bytes of a frame behind its length, at most: the longest entry, and what stands around it.
pub const MAX_FRAME: usize = 2 * MAX_ENTRY;
/// Bytes of a snapshot in one frame.
pub const CHUNK: usize = 256 << 10;

const _: () = assert!(MAX_FRAME <= u32::MAX as usize && CHUNK < MAX_FRAME);

/// The first frame in either direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`VERSION`].
    pub version: u16,
    /// Who speaks.
    pub id: ReplicaId,
    /// The name in the speaker's certificate.
    pub name: String,
}

/// What one replica asks of another. Answers come in any order.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// openraft's.
    Append(AppendEntriesRequest<Types>),
    /// openraft's.
    Vote(VoteRequest<u64>),
    /// openraft's.
    Snapshot(InstallSnapshotRequest<Types>),
    /// To the leader: have this committed.
    Propose(Proposal),
    /// To the leader: make these the replicas.
    Replicas(Vec<Replica>),
    /// From the leader: you may vote from now on.
    Admit,
    /// Agree that the lease of this life of mine is renewed, unless what you have stored fences it, or has other voters than the
    /// membership here.
    Renew(Incarnation, LogId),
    /// Show me your stored snapshot's content from this byte on.
    Fetch(u64),
    /// Have a snapshot made of all that you have.
    Refresh,
}

/// What became of a forwarded proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is committed, at this index.
    Committed(u64),
    /// It isn't, and won't be.
    Refused(Refusal),
    /// It isn't, and won't be: the one asked doesn't lead.
    Elsewhere,
    /// Nobody knows.
    Unknown,
}

/// A piece of a stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which snapshot.
    pub meta: SnapshotMeta,
    /// Bytes of all its content.
    pub total: u64,
    /// The bytes from where it was asked.
    pub bytes: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Append`].
    Append(AppendEntriesResponse<u64>),
    /// To [`Request::Vote`].
    Vote(VoteResponse<u64>),
    /// To [`Request::Snapshot`].
    Snapshot(Result<InstallSnapshotResponse<u64>, SnapshotMismatch>),
    /// To [`Request::Propose`] and [`Request::Replicas`].
    Verdict(Verdict),
    /// To [`Request::Admit`].
    Admitted,
    /// To [`Request::Renew`]: whether it agrees.
    Renewed(bool),
    /// To [`Request::Fetch`]; none if there is no snapshot.
    Piece(Option<Piece>),
    /// To [`Request::Refresh`]: one is made, or there is nothing new since the last.
    Refreshed,
    /// To any: it could not be done.
    Failed(String),
}

/// A request or an answer, and the number that belongs to both.
#[derive(Debug, Serialize, Deserialize)]
pub struct Numbered<T> {
    /// Counts up on each connection.
    pub number: u64,
    /// What is said.
    pub body: T,
}

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection is at an end.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes, more than {MAX_FRAME}")]
    Long(usize),
    /// Not what was expected.
    #[error("a frame that can't be read: {0}")]
    Malformed(postcard::Error),
}

/// Encodes a frame.
///
/// # Errors
/// [`FrameError::Long`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(value, vec![0; 4]).map_err(FrameError::Malformed)?;
    let body = frame.len() - 4;
    if body > MAX_FRAME {
        return Err(FrameError::Long(body));
    }
    // It fits: see the assertion above.
    frame[..4].copy_from_slice(&(body as u32).to_le_bytes());
    Ok(frame)
}

/// Reads a frame; none if the connection was closed in front of it.
///
/// # Errors
/// [`FrameError`]; the connection can't be used any more.
pub async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<T>, FrameError> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::Long(length));
    }
    // Memory grows with what has come, not with what was announced.
    let mut body = Vec::new();
    let got = from.take(length as u64).read_to_end(&mut body).await?;
    if got < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let (value, rest) = postcard::take_from_bytes(&body).map_err(FrameError::Malformed)?;
    if !rest.is_empty() {
        return Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding));
    }
    Ok(Some(value))
}

/// Writes a frame.
///
/// # Errors
/// [`FrameError`].
pub async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), value: &T) -> Result<(), FrameError> {
    to.write_all(&encode(value)?).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fences::Fences;

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn request(bytes: usize) -> Numbered<Request> {
        let proposal = Proposal { bytes: vec![7; bytes], fences: Fences::NONE };
        Numbered { number: 3, body: Request::Propose(proposal) }
    }

    #[test]
    fn the_longest_entry_fits_a_frame() {
        let frame = encode(&request(MAX_ENTRY)).unwrap();
        let read: Numbered<Request> = block(read(&mut frame.as_slice())).unwrap().unwrap();
        assert!(matches!(read.body, Request::Propose(p) if p.bytes.len() == MAX_ENTRY));
        assert!(matches!(encode(&request(MAX_FRAME)), Err(FrameError::Long(_))));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut long = (MAX_FRAME as u32 + 1).to_le_bytes().to_vec();
        long.extend([0; 64]);
        let got = |bytes: &[u8]| block(read::<Numbered<Request>>(&mut &*bytes));
        assert!(matches!(got(&long), Err(FrameError::Long(n)) if n == MAX_FRAME + 1));
        assert!(matches!(got(&[3, 0, 0, 0, 0, 200, 0]), Err(FrameError::Malformed(_))));
        let mut trailing = encode(&request(4)).unwrap();
        trailing.push(0);
        trailing[0] += 1;
        assert!(matches!(got(&trailing), Err(FrameError::Malformed(_))));
        let whole = encode(&request(4)).unwrap();
        for cut in 0..whole.len() {
            match got(&whole[..cut]) {
                Ok(None) => assert!(cut < 4, "{cut}"),
                Err(FrameError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{cut}"),
                other => panic!("{cut}: {other:?}"),
            }
        }
    }
}
