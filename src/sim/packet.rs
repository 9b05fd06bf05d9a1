//! Packets between clients and servers. Each says in its last bytes which one it is, so that whoever gets it, however
//! wrapped, can be asked what it was.

use crate::base::hash::mix;
use crate::base::{Addr, FlowKey, Mac};
use crate::wire::eth::{self, ethertype};
use crate::wire::ipv4::{self, Ipv4};
use crate::wire::ipv6::{self, Ipv6};
use crate::wire::tcp::{self, Tcp};
use crate::wire::udp::{self, Udp};
use crate::wire::{checksum, protocol};

/// Stands in front of a packet's number.
const MAGIC: [u8; 4] = *b"\xd5SIM";
/// Flow, connection, kind, question, magic, number.
const TAIL: usize = 4 + 2 + 2 + 4 + 4 + 8;

/// What a packet is in its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// SYN.
    Open,
    /// SYN and ACK.
    Opened,
    /// The ACK of a handshake, or of a FIN.
    Ack,
    /// A client's question.
    Question,
    /// The server's answer to it.
    Answer,
    /// The client's FIN.
    Close,
    /// The server's.
    Closed,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Open, Self::Opened, Self::Ack, Self::Question, Self::Answer, Self::Close, Self::Closed];

    fn flags(self) -> u8 {
        use tcp::flags::{ACK, FIN, SYN};
        const PSH: u8 = 0x08;
        match self {
            Self::Open => SYN,
            Self::Opened => SYN | ACK,
            Self::Ack => ACK,
            Self::Question | Self::Answer => PSH | ACK,
            Self::Close | Self::Closed => FIN | ACK,
        }
    }
}

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The flow's number.
    pub flow: u32,
    /// Which of its connections.
    pub connection: u16,
    /// What it is in it.
    pub kind: Kind,
    /// Which question, or the one that is answered.
    pub question: u32,
    /// Its own number; no other packet has it.
    pub number: u64,
}

/// A packet as an end host sends or reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its tuple.
    pub key: FlowKey,
    /// Time to live.
    pub ttl: u8,
    /// What it says.
    pub words: Words,
    /// Bytes in front of its words.
    pub filler: usize,
}

/// Why an end host doesn't take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// Its headers contradict themselves.
    Malformed,
    /// The IPv4 header's checksum is wrong.
    IpChecksum,
    /// TCP's or UDP's is.
    TransportChecksum,
    /// All checksums are right, but it isn't what was sent.
    Content,
}

/// Byte `i` of the filling of packet `number`.
fn filling(number: u64, i: usize) -> u8 {
    (mix(number) >> (i % 8 * 8)) as u8 ^ i as u8
}

impl Packet {
    /// The IP packet, all checksums right.
    pub fn ip(&self) -> Vec<u8> {
        let Self { key, ttl, words, filler } = *self;
        let l3 = if key.is_v4() { ipv4::MIN_HEADER_LEN } else { ipv6::HEADER_LEN };
        let tcp = key.protocol == protocol::TCP;
        let header = if tcp { tcp::MIN_HEADER_LEN } else { udp::HEADER_LEN };
        let len = header + filler + TAIL;
        let mut out = Vec::with_capacity(l3 + len);
        out.resize(l3 + header, 0);
        out.extend((0..filler).map(|i| filling(words.number, i)));
        out.extend(words.flow.to_be_bytes());
        out.extend(words.connection.to_be_bytes());
        out.extend([words.kind as u8, 0]);
        out.extend(words.question.to_be_bytes());
        out.extend(MAGIC);
        out.extend(words.number.to_be_bytes());
        if key.is_v4() {
            let header = ipv4::Header {
                tos: 0,
                total_len: (l3 + len) as u16,
                id: words.number as u16,
                flags_and_offset: ipv4::DONT_FRAGMENT,
                ttl,
                protocol: key.protocol,
                src: key.src,
                dst: key.dst,
            };
            header.write(&mut out);
        } else {
            ipv6::write(&mut out, 0, 0, len as u16, key.protocol, ttl, key.src, key.dst);
        }
        let l4 = &mut out[l3..];
        l4[..2].copy_from_slice(&key.src_port.to_be_bytes());
        l4[2..4].copy_from_slice(&key.dst_port.to_be_bytes());
        if tcp {
            l4[4..8].copy_from_slice(&words.question.to_be_bytes());
            (l4[12], l4[13]) = (5 << 4, words.kind.flags());
            l4[14..16].copy_from_slice(&4096u16.to_be_bytes());
            let sum = !checksum::add(
                checksum::pseudo_header(key.src, key.dst, key.protocol, len),
                checksum::sum(l4),
            );
            l4[tcp::CHECKSUM_AT..][..2].copy_from_slice(&sum.to_be_bytes());
        } else {
            l4[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            udp::fill_checksum(l4, key.src, key.dst);
        }
        out
    }

    /// Reads the IP packet at the start of `bytes` as its end host does.
    pub fn read(bytes: &[u8]) -> Result<Self, Bad> {
        let (src, dst, number, ttl, l3, len) = match bytes.first().map(|b| b >> 4) {
            Some(4) => {
                let ip = Ipv4::new(bytes).map_err(|_| Bad::Malformed)?;
                if !ip.checksum_ok() {
                    return Err(Bad::IpChecksum);
                }
                (ip.src(), ip.dst(), ip.protocol(), ip.ttl(), ip.header_len(), ip.total_len())
            }
            Some(6) => {
                let ip = Ipv6::new(bytes).map_err(|_| Bad::Malformed)?;
                (ip.src(), ip.dst(), ip.next_header(), ip.hop_limit(), ipv6::HEADER_LEN, ip.total_len())
            }
            _ => return Err(Bad::Malformed),
        };
        let l4 = bytes.get(l3..len).ok_or(Bad::Malformed)?;
        let (src_port, dst_port, header) = match number {
            protocol::TCP => {
                let tcp = Tcp::new(l4).map_err(|_| Bad::Malformed)?;
                (tcp.src_port(), tcp.dst_port(), tcp.header_len())
            }
            protocol::UDP => {
                let udp = Udp::new(l4).map_err(|_| Bad::Malformed)?;
                // All of ours have one.
                if udp.len() != l4.len() || udp.checksum() == 0 {
                    return Err(Bad::Malformed);
                }
                (udp.src_port(), udp.dst_port(), udp::HEADER_LEN)
            }
            _ => return Err(Bad::Malformed),
        };
        let pseudo = checksum::pseudo_header(src, dst, number, l4.len());
        if checksum::add(pseudo, checksum::sum(l4)) != 0xffff {
            return Err(Bad::TransportChecksum);
        }
        let key = FlowKey::new(src, dst, src_port, dst_port, number);
        let payload = &l4[header..];
        let filler = payload.len().checked_sub(TAIL).ok_or(Bad::Content)?;
        let words = words(&payload[filler..]).ok_or(Bad::Content)?;
        let same = payload[..filler].iter().enumerate().all(|(i, b)| *b == filling(words.number, i));
        let flags = number != protocol::TCP || l4[13] == words.kind.flags();
        if same && flags { Ok(Self { key, ttl, words, filler }) } else { Err(Bad::Content) }
    }

    /// The Ethernet frame in which it is sent.
    pub fn frame(&self, dst: Mac, src: Mac) -> Vec<u8> {
        ethernet(dst, src, &self.ip())
    }
}

fn words(tail: &[u8]) -> Option<Words> {
    let tail: &[u8; TAIL] = tail.try_into().ok()?;
    let word = |at: usize| u32::from_be_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
    (tail[12..16] == MAGIC).then_some(())?;
    Some(Words {
        flow: word(0),
        connection: (word(4) >> 16) as u16,
        kind: *Kind::ALL.get(usize::from(tail[6]))?,
        question: word(8),
        number: u64::from(word(16)) << 32 | u64::from(word(20)),
    })
}

/// The number of the packet in a frame, whatever is around it; none if it carries none of ours.
pub fn number(frame: &[u8]) -> Option<u64> {
    let (rest, number) = frame.split_last_chunk::<8>()?;
    rest.ends_with(&MAGIC).then(|| u64::from_be_bytes(*number))
}

/// An IP packet in an Ethernet frame.
pub fn ethernet(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let mut out = vec![0; eth::HEADER_LEN + packet.len()];
    let v4 = packet.first().is_some_and(|b| b >> 4 == 4);
    eth::write(&mut out, dst, src, None, if v4 { ethertype::IPV4 } else { ethertype::IPV6 });
    out[eth::HEADER_LEN..].copy_from_slice(packet);
    out
}

/// The tuple of the IP packet at the start of `bytes`, if it has ports; for who wants to know where it goes, not whether it
/// is right.
pub fn tuple(bytes: &[u8]) -> Option<FlowKey> {
    let (src, dst, number, l4): (Addr, Addr, u8, usize) = match bytes.first()? >> 4 {
        4 => {
            let ip = Ipv4::new(bytes).ok()?;
            (ip.src(), ip.dst(), ip.protocol(), ip.header_len())
        }
        6 => {
            let ip = Ipv6::new(bytes).ok()?;
            (ip.src(), ip.dst(), ip.next_header(), ipv6::HEADER_LEN)
        }
        _ => return None,
    };
    let ports = bytes.get(l4..l4 + 4).filter(|_| matches!(number, protocol::TCP | protocol::UDP))?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some(FlowKey::new(src, dst, port(0), port(2), number))
}
