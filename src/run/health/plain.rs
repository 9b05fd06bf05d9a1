//! Probes without a protocol of their own: a TCP connection, a datagram and its answer.

use super::MAX_ANSWER;
use super::failure::{Deadline, Failure};
use crate::cluster::namespace::HealthSpec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpStream, UdpSocket};

/// Connects.
pub(super) async fn connect(to: SocketAddr, deadline: Deadline) -> Result<TcpStream, Failure> {
    let connected = deadline.for_step("no connection", TcpStream::connect(to)).await?;
    connected.map_err(|error| Failure::of(&error))
}

/// Connects, and resets the connection: a close would leave it waiting in this node's kernel for a minute.
pub(super) async fn tcp(to: SocketAddr, deadline: Deadline) -> Result<(), Failure> {
    let stream = connect(to, deadline).await?;
    stream.set_zero_linger().map_err(|error| Failure::of(&error))
}

/// Sends a datagram and looks at what comes back.
pub(super) async fn udp(to: SocketAddr, spec: &HealthSpec, deadline: Deadline) -> Result<(), Failure> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let exchange = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        // Only what comes from there is received, and what a router or the host says of the datagram is an error.
        socket.connect(to).await?;
        socket.send(spec.send.as_deref().unwrap_or_default().as_bytes()).await?;
        let mut answer = vec![0; MAX_ANSWER];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    };
    let answer = deadline
        .for_step("no answer", exchange)
        .await?
        .map_err(|error: std::io::Error| Failure::of(&error))?;
    match &spec.expect {
        Some(text) if !holds(&answer, text.as_bytes()) => {
            Err(Failure::Bad(format!("the answer, of {} bytes, doesn't hold {text:?}", answer.len())))
        }
        _ => Ok(()),
    }
}

/// Whether `text` stands somewhere in `bytes`; it isn't empty.
pub(super) fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}
