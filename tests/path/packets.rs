//! Packets as clients and servers send them, by an independent implementation, and its reading of what comes out.

use crate::world::{addr, front_mac, host_mac};
use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};
use steerage::base::{Addr, Mac};
use steerage::wire::backplane::{self, Header};
use steerage::wire::{ipv4, udp as wire_udp};

pub use steerage::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// One direction of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub src: Addr,
    pub dst: Addr,
    pub src_port: u16,
    pub dst_port: u16,
    /// TCP control bits; none: UDP.
    pub flags: Option<u8>,
    pub ttl: u8,
    pub payload: Vec<u8>,
}

pub fn tcp(src: &str, src_port: u16, dst: &str, dst_port: u16, flags: u8) -> Packet {
    let (src, dst) = (addr(src), addr(dst));
    Packet { src, dst, src_port, dst_port, flags: Some(flags), ttl: 61, payload: b"some payload".to_vec() }
}

pub fn udp(src: &str, src_port: u16, dst: &str, dst_port: u16) -> Packet {
    Packet { flags: None, ..tcp(src, src_port, dst, dst_port, 0) }
}

impl Packet {
    /// From the other side: what a server answers.
    pub fn answer(&self, flags: u8) -> Self {
        let mut out = self.clone();
        (out.src, out.dst, out.src_port, out.dst_port) = (self.dst, self.src, self.dst_port, self.src_port);
        out.flags = self.flags.map(|_| flags);
        out.ttl = 64;
        out
    }

    pub fn with_flags(&self, flags: u8) -> Self {
        Self { flags: Some(flags), ..self.clone() }
    }

    /// The IP packet, all checksums right, DF set.
    pub fn ip(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        match self.flags {
            Some(flags) => {
                let mut header = TcpHeader::new(self.src_port, self.dst_port, 1000, 4096);
                (header.syn, header.ack) = (flags & SYN != 0, flags & ACK != 0);
                (header.fin, header.rst) = (flags & FIN != 0, flags & RST != 0);
                header.checksum = if self.src.is_v4() {
                    header
                        .calc_checksum_ipv4_raw(self.src.v4_bytes(), self.dst.v4_bytes(), &self.payload)
                        .unwrap()
                } else {
                    header.calc_checksum_ipv6_raw(self.src.0, self.dst.0, &self.payload).unwrap()
                };
                header.write(&mut transport).unwrap();
            }
            None => {
                let len = (8 + self.payload.len()) as u16;
                let mut header = UdpHeader {
                    source_port: self.src_port,
                    destination_port: self.dst_port,
                    length: len,
                    checksum: 0,
                };
                header.checksum = if self.src.is_v4() {
                    header
                        .calc_checksum_ipv4_raw(self.src.v4_bytes(), self.dst.v4_bytes(), &self.payload)
                        .unwrap()
                } else {
                    header.calc_checksum_ipv6_raw(self.src.0, self.dst.0, &self.payload).unwrap()
                };
                header.write(&mut transport).unwrap();
            }
        }
        transport.extend(&self.payload);
        let number = if self.flags.is_some() { IpNumber::TCP } else { IpNumber::UDP };
        let mut out = Vec::new();
        if self.src.is_v4() {
            let len = transport.len() as u16;
            let mut ip =
                Ipv4Header::new(len, self.ttl, number, self.src.v4_bytes(), self.dst.v4_bytes()).unwrap();
            ip.dont_fragment = true;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut out).unwrap();
        } else {
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: transport.len() as u16,
                next_header: number,
                hop_limit: self.ttl,
                source: self.src.0,
                destination: self.dst.0,
            };
            ip.write(&mut out).unwrap();
        }
        out.extend(transport);
        out
    }

    /// The Ethernet frame in which it reaches node `number`.
    pub fn frame_to(&self, number: usize) -> Vec<u8> {
        ethernet(front_mac(number), host_mac(self.src), &self.ip())
    }
}

pub fn ethernet(dst: Mac, src: Mac, packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    [&dst.0[..], &src.0, &kind, packet].concat()
}

/// Reads an IP packet of TCP or UDP, all its checksums checked by the independent implementation.
pub fn read(packet: &[u8]) -> Packet {
    let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let (src, dst, ttl) = match sliced.net.as_ref().unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 checksum");
            (Addr::v4(header.source), Addr::v4(header.destination), header.time_to_live)
        }
        etherparse::NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (Addr(header.source), Addr(header.destination), header.hop_limit)
        }
        other => panic!("{other:?}"),
    };
    match sliced.transport.unwrap() {
        etherparse::TransportSlice::Tcp(tcp) => {
            let right = if src.is_v4() {
                tcp.calc_checksum_ipv4(src.v4_bytes(), dst.v4_bytes()).unwrap()
            } else {
                tcp.calc_checksum_ipv6(src.0, dst.0).unwrap()
            };
            assert_eq!(tcp.checksum(), right, "TCP checksum");
            let flag = |on: bool, bit| if on { bit } else { 0 };
            let flags =
                flag(tcp.syn(), SYN) | flag(tcp.ack(), ACK) | flag(tcp.fin(), FIN) | flag(tcp.rst(), RST);
            Packet {
                src,
                dst,
                src_port: tcp.source_port(),
                dst_port: tcp.destination_port(),
                flags: Some(flags),
                ttl,
                payload: tcp.payload().to_vec(),
            }
        }
        etherparse::TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let right = if src.is_v4() {
                header.calc_checksum_ipv4_raw(src.v4_bytes(), dst.v4_bytes(), udp.payload()).unwrap()
            } else {
                header.calc_checksum_ipv6_raw(src.0, dst.0, udp.payload()).unwrap()
            };
            assert_eq!(header.checksum, right, "UDP checksum");
            Packet {
                src,
                dst,
                src_port: header.source_port,
                dst_port: header.destination_port,
                flags: None,
                ttl,
                payload: udp.payload().to_vec(),
            }
        }
        other => panic!("{other:?}"),
    }
}

/// Addresses and Ethernet payload of a frame.
pub fn open(frame: &[u8]) -> (Mac, Mac, &[u8]) {
    (Mac(frame[..6].try_into().unwrap()), Mac(frame[6..12].try_into().unwrap()), &frame[14..])
}

const BACK: [Mac; 2] = [Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2])];

/// A data frame from node 2 to node 1 as `header` says, with `packet` inside.
pub fn data_frame(header: &Header, packet: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; backplane::HEADER_LEN];
    header.write(&mut payload);
    payload.extend(packet);
    let mut out = vec![0; 28];
    let ip = ipv4::Header {
        tos: 0,
        total_len: (28 + payload.len()) as u16,
        id: 1,
        flags_and_offset: 0,
        ttl: 64,
        protocol: 17,
        src: addr("10.20.0.12"),
        dst: addr("10.20.0.11"),
    };
    ip.write(&mut out);
    wire_udp::write_tunnel(&mut out[20..], 50_000, 6600, payload.len() as u16);
    out.extend(payload);
    ethernet(BACK[0], BACK[1], &out)
}
