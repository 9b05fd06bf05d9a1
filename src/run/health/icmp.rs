//! Echo requests (RFC 792, RFC 4443 §4.1).
//!
//! The kernel's ping sockets need no right, but `net.ipv4.ping_group_range` has to hold a group of the process (it is for both
//! families). Where it doesn't, a raw socket is taken, which needs `CAP_NET_RAW`.

use super::failure::{Deadline, Failure, plain};
use crate::wire::checksum;
use crate::wire::icmp::{HEADER_LEN, Icmp, Kind};
use socket2::{Domain, Protocol, Socket, Type};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::UdpSocket;

/// Bytes by which an answer is known: random, so that another's is not taken for it.
pub const NONCE: usize = 16;

/// Bytes of an answer that matter: the longest IPv4 header (RFC 791 §3.1), and the message.
const MAX_REPLY: usize = 60 + HEADER_LEN + NONCE;

/// Sends one request and waits for its reply.
pub(super) async fn echo(to: IpAddr, deadline: Deadline) -> Result<(), Failure> {
    let (socket, raw) = open(to)?;
    let nonce = nonce();
    let exchange = async {
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(&request(to.is_ipv6(), nonce)).await?;
        let mut bytes = [0; MAX_REPLY];
        loop {
            let length = socket.recv(&mut bytes).await?;
            if is_reply(&bytes[..length], to.is_ipv6(), raw, nonce) {
                return Ok(());
            }
        }
    };
    deadline.for_step("no reply", exchange).await?.map_err(|error: io::Error| Failure::of(&error))
}

fn nonce() -> [u8; NONCE] {
    // Every `RandomState` has a key of its own.
    let half = || RandomState::new().hash_one(0u8);
    (u128::from(half()) << 64 | u128::from(half())).to_be_bytes()
}

/// A socket that exchanges ICMP messages with `to` alone, and whether it is a raw one.
fn open(to: IpAddr) -> Result<(Socket, bool), Failure> {
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(ping) => match Socket::new(domain, Type::RAW, Some(protocol)) {
            Ok(socket) => (socket, true),
            Err(raw) => {
                return Err(Failure::Unable(format!(
                    "no ping socket ({}: see net.ipv4.ping_group_range) and no raw socket ({}: CAP_NET_RAW)",
                    plain(&ping),
                    plain(&raw)
                )));
            }
        },
    };
    let ready = socket.set_nonblocking(true).and_then(|()| socket.connect(&SocketAddr::new(to, 0).into()));
    ready.map_err(|error| Failure::of(&error))?;
    Ok((socket, raw))
}

/// An echo request with `nonce` behind its header. The kernel puts in the identifier of a ping socket, and all checksums but
/// that of an ICMPv4 message on a raw socket.
pub fn request(v6: bool, nonce: [u8; NONCE]) -> [u8; HEADER_LEN + NONCE] {
    let mut message = [0; HEADER_LEN + NONCE];
    message[0] = if v6 { 128 } else { 8 };
    message[4..6].copy_from_slice(&nonce[..2]);
    message[HEADER_LEN..].copy_from_slice(&nonce);
    let sum = !checksum::sum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// Whether what a socket received is the reply with this nonce. Raw IPv4 sockets deliver the IP header, too.
pub fn is_reply(bytes: &[u8], v6: bool, raw: bool, nonce: [u8; NONCE]) -> bool {
    let header = if raw && !v6 { usize::from(bytes.first().map_or(0, |b| b & 0xf)) * 4 } else { 0 };
    let message = bytes.get(header..).unwrap_or_default();
    Icmp::new(message, v6).is_ok_and(|icmp| icmp.kind() == Kind::EchoReply) && message[HEADER_LEN..] == nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_known_by_its_nonce() {
        let mine = nonce();
        assert_ne!(mine, nonce());
        for v6 in [false, true] {
            let mut reply = request(v6, mine);
            assert!(!is_reply(&reply, v6, false, mine), "the request itself");
            reply[0] = if v6 { 129 } else { 0 };
            assert!(is_reply(&reply, v6, false, mine));
            assert!(!is_reply(&reply, v6, false, nonce()));
            assert!(!is_reply(&reply, !v6, false, mine), "the other family's");
            for length in 0..reply.len() {
                assert!(!is_reply(&reply[..length], v6, false, mine), "cut off at {length}");
            }
        }
        let mut behind_header = vec![0x45; 20];
        let mut reply = request(false, mine);
        reply[0] = 0;
        behind_header.extend(reply);
        assert!(is_reply(&behind_header, false, true, mine));
        assert!(!is_reply(&behind_header, false, false, mine));
    }

    #[test]
    fn any_bytes_are_looked_at() {
        let mut rng = crate::base::rng::Rng::new(1);
        for _ in 0..100_000 {
            let length = rng.below(MAX_REPLY as u64 + 1);
            let bytes: Vec<u8> = (0..length).map(|_| rng.next_u64() as u8).collect();
            for (v6, raw) in [(false, false), (false, true), (true, false), (true, true)] {
                assert!(!is_reply(&bytes, v6, raw, [7; NONCE]));
            }
        }
    }
}
