//! The tuple that is asked about: from what an operator writes to the facts that the path would have of its packet.

use crate::base::{Addr, FlowKey, HashKey};
use crate::path::meta::Meta;
use crate::path::parse::{self, Hash, Known};
use crate::path::verdict::Verdict;
use crate::view::Protocol;
use crate::wire::tcp::flags::SYN;
use crate::wire::{ipip, ipv4, ipv6, tcp, udp};
use std::fmt;
use std::net::SocketAddr;

/// Protocols as they are written.
const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

/// Why something is no tuple.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TupleError {
    /// Not a protocol that there are virtual servers for.
    #[error("\"{0}\" is no protocol: `tcp` or `udp`")]
    Protocol(String),
    /// Not an address and a port.
    #[error(
        "{end} \"{text}\" is no address and port: write 192.0.2.1:80, or an IPv6 address in brackets, [2001:db8::1]:80"
    )]
    End {
        /// Which end.
        end: &'static str,
        /// What was written.
        text: String,
    },
    /// An address with a zone, which no packet has.
    #[error("{end} \"{text}\" has a zone, which stands in no packet: write the address without it")]
    Zone {
        /// Which end.
        end: &'static str,
        /// What was written.
        text: String,
    },
    /// RFC 4291 §2.5.5.2 in a place where it can't be.
    #[error(
        "{end} \"{text}\" is an IPv4 address mapped into IPv6, which stands in no packet: write the IPv4 address"
    )]
    Mapped {
        /// Which end.
        end: &'static str,
        /// What was written.
        text: String,
    },
    /// One end of each family.
    #[error("source {0} and destination {1} are of two families: no packet goes from one to the other")]
    Families(SocketAddr, SocketAddr),
}

/// Protocol, source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple(FlowKey);

impl Tuple {
    /// From words as they stand on a command line: `tcp`, `198.51.100.7:40000`, `[2001:db8::1]:80`.
    ///
    /// # Errors
    /// [`TupleError`]: not a protocol, not an address and port, or no two that can stand in one packet.
    pub fn parse(protocol: &str, source: &str, destination: &str) -> Result<Self, TupleError> {
        let number = PROTOCOLS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(protocol))
            .map(|(_, protocol)| protocol.number())
            .ok_or_else(|| TupleError::Protocol(protocol.to_owned()))?;
        let (source, destination) = (end("source", source)?, end("destination", destination)?);
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(TupleError::Families(source, destination));
        }
        let [src, dst] = [source, destination].map(|end| Addr::from(end.ip()));
        Ok(Self(FlowKey::new(src, dst, source.port(), destination.port(), number)))
    }

    /// The packet's key.
    pub fn key(&self) -> &FlowKey {
        &self.0
    }

    /// Its protocol as it is written.
    pub fn protocol(&self) -> &'static str {
        protocol_name(self.0.protocol)
    }

    /// What the path's own parser makes of the smallest packet of this tuple, for TCP a SYN, with its hash under `key`.
    pub(super) fn meta(&self, key: HashKey) -> Result<Meta, Verdict> {
        let packet = self.packet();
        let mut meta = Meta::EMPTY;
        parse::packet(
            &packet,
            Known { whole: packet.len(), checksum: None, hash: Hash::Key(key) },
            &mut meta,
        )?;
        Ok(meta)
    }

    fn packet(&self) -> Vec<u8> {
        let key = &self.0;
        let is_tcp = key.protocol == Protocol::Tcp.number();
        let l4 = if is_tcp { tcp::MIN_HEADER_LEN } else { udp::HEADER_LEN };
        let l3 = if key.is_v4() { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN };
        let mut packet = vec![0; l3 + l4];
        if key.is_v4() {
            let header = ipv4::Header {
                tos: 0,
                total_len: (l3 + l4) as u16,
                id: 0,
                flags_and_offset: ipv4::DONT_FRAGMENT,
                ttl: ipip::TTL,
                protocol: key.protocol,
                src: key.src,
                dst: key.dst,
            };
            header.write(&mut packet);
        } else {
            ipv6::write(&mut packet, 0, 0, l4 as u16, key.protocol, ipip::TTL, key.src, key.dst);
        }
        let header = &mut packet[l3..];
        header[..2].copy_from_slice(&key.src_port.to_be_bytes());
        header[2..4].copy_from_slice(&key.dst_port.to_be_bytes());
        if is_tcp {
            // RFC 9293 §3.1: the header's length in words, and the control bits.
            (header[12], header[13]) = ((tcp::MIN_HEADER_LEN as u8 / 4) << 4, SYN);
        } else {
            header[4..6].copy_from_slice(&(l4 as u16).to_be_bytes());
        }
        packet
    }
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, destination) =
            (socket(self.0.src, self.0.src_port), socket(self.0.dst, self.0.dst_port));
        write!(f, "{} {source} {destination}", self.protocol())
    }
}

/// An address and a port as they are written: IPv6 in brackets.
pub(super) fn socket(address: Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

/// The name of a protocol that virtual servers are made for, by its number.
pub(super) fn protocol_name(number: u8) -> &'static str {
    PROTOCOLS.iter().find(|(_, p)| p.number() == number).map_or("?", |(name, _)| name)
}

fn end(end: &'static str, text: &str) -> Result<SocketAddr, TupleError> {
    let parsed: SocketAddr = text.parse().map_err(|_| TupleError::End { end, text: text.to_owned() })?;
    match parsed {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            Err(TupleError::Mapped { end, text: text.to_owned() })
        }
        SocketAddr::V6(_) if text.contains('%') => Err(TupleError::Zone { end, text: text.to_owned() }),
        _ => Ok(parsed),
    }
}
