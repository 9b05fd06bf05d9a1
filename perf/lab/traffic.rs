//! What a measuring port receives: frames that differ in their tuples alone, made from a hot template and sixteen bytes a
//! flow that are read one after the other. So a million flows in random order cost the port no cache misses.

use std::sync::Arc;
use steerage::base::rng::Rng;
use steerage::base::{Addr, FlowHash, FlowKey, HashKey, Mac};
use steerage::path::port::Frame;
use steerage::wire::backplane::{self, Header};
use steerage::wire::checksum;
use steerage::wire::eth::{self, ethertype};
use steerage::wire::{ipv4, ipv6, protocol, udp};

/// What differs between the frames of two flows, as it stands in the frame. Of an address only the last four bytes differ.
#[derive(Clone, Copy)]
pub struct Patch {
    pub src: [u8; 4],
    pub dst: [u8; 4],
    pub ports: [u8; 4],
    ip_checksum: [u8; 2],
    l4_checksum: [u8; 2],
}

/// What is around a steered packet.
pub struct Envelope {
    /// Ethernet source, and the nodes' addresses on the backplane.
    pub mac: Mac,
    pub from: Addr,
    pub to: Addr,
    /// Sender, life and cookie of the header; stage and hash too, though each flow has its own.
    pub header: Header,
    pub data_port: u16,
}

/// Bytes of a frame, without check sequence, unless its headers need more.
const BYTES: usize = 64;

/// A frame of [`BYTES`], or of the least that holds the headers and two more.
#[derive(Clone)]
pub struct Template {
    bytes: Vec<u8>,
    /// Offset of the IP header; the frame's only one, or behind the backplane's header.
    ip: usize,
    v6: bool,
    protocol: u8,
    prefix: (Addr, Addr),
    /// Offset of the flow hash in the backplane's header.
    hash: Option<usize>,
}

impl Template {
    /// Frames from `example`'s network to `mac`: `example` says family, protocol and what all flows have in common, `flags`
    /// the flags of TCP packets.
    pub fn new(mac: Mac, example: &FlowKey, flags: u8) -> Self {
        let v6 = !example.is_v4();
        let l4 = if v6 { 54 } else { 34 };
        let header = if example.protocol == protocol::TCP { 20 } else { 8 };
        let mut bytes = vec![0; (l4 + header + 2).max(BYTES)];
        let kind = if v6 { ethertype::IPV6 } else { ethertype::IPV4 };
        eth::write(&mut bytes, mac, Mac([2, 0, 0, 0, 9, 1]), None, kind);
        let payload = (bytes.len() - l4) as u16;
        if v6 {
            ipv6::write(&mut bytes[14..], 0, 0, payload, example.protocol, 64, example.src, example.dst);
        } else {
            let header = ipv4::Header {
                tos: 0,
                total_len: 20 + payload,
                id: 0,
                flags_and_offset: ipv4::DONT_FRAGMENT,
                ttl: 64,
                protocol: example.protocol,
                src: example.src,
                dst: example.dst,
            };
            header.write(&mut bytes[14..]);
        }
        if example.protocol == protocol::TCP {
            // Header length of five words; flags; a window.
            bytes[l4 + 12..l4 + 16].copy_from_slice(&[0x50, flags, 0x10, 0x00]);
        } else {
            udp::write_tunnel(&mut bytes[l4..], 0, 0, payload - 8);
        }
        let prefix = (example.src, example.dst);
        Self { bytes, ip: 14, v6, protocol: example.protocol, prefix, hash: None }
    }

    /// The same packets as a peer steers them.
    pub fn steered(mut self, mac: Mac, envelope: &Envelope) -> Self {
        let inner = self.bytes.split_off(14);
        let udp_len = udp::HEADER_LEN + backplane::HEADER_LEN + inner.len();
        self.bytes = vec![0; 14 + 20 + udp_len];
        eth::write(&mut self.bytes, mac, envelope.mac, None, ethertype::IPV4);
        let outer = ipv4::Header {
            tos: 0,
            total_len: (20 + udp_len) as u16,
            id: 0,
            flags_and_offset: ipv4::DONT_FRAGMENT,
            ttl: 64,
            protocol: protocol::UDP,
            src: envelope.from,
            dst: envelope.to,
        };
        outer.write(&mut self.bytes[14..]);
        udp::write_tunnel(&mut self.bytes[34..], 50_000, envelope.data_port, (udp_len - 8) as u16);
        envelope.header.write(&mut self.bytes[42..]);
        self.ip = 42 + backplane::HEADER_LEN;
        self.bytes[self.ip..].copy_from_slice(&inner);
        self.hash = Some(42 + 16);
        self
    }

    fn l4(&self) -> usize {
        self.ip + if self.v6 { 40 } else { 20 }
    }

    /// Offset of the transport checksum in its header.
    fn checksum_at(&self) -> usize {
        if self.protocol == protocol::TCP { 16 } else { 6 }
    }

    /// Bytes of a frame.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What a flow's frames have of their own.
    pub fn patch(&self, key: &FlowKey) -> Patch {
        let last = |a: Addr| [a.0[12], a.0[13], a.0[14], a.0[15]];
        let ([a, b], [c, d]) = (key.src_port.to_be_bytes(), key.dst_port.to_be_bytes());
        let mut patch = Patch {
            src: last(key.src),
            dst: last(key.dst),
            ports: [a, b, c, d],
            ip_checksum: [0; 2],
            l4_checksum: [0; 2],
        };
        let mut packet = [0; 128];
        let packet = &mut packet[..self.len()];
        self.write(packet, &patch, None);
        let (ip, l4) = (self.ip, self.l4());
        if !self.v6 {
            patch.ip_checksum = (!checksum::sum(&packet[ip..ip + 20])).to_be_bytes();
        }
        let pseudo = checksum::pseudo_header(key.src, key.dst, self.protocol, packet.len() - l4);
        patch.l4_checksum = match !checksum::add(pseudo, checksum::sum(&packet[l4..])) {
            0 => [0xff; 2],
            sum => sum.to_be_bytes(),
        };
        patch
    }

    /// The tuple that a patch stands for.
    pub fn key(&self, patch: &Patch) -> FlowKey {
        let whole = |mut a: Addr, last: [u8; 4]| {
            a.0[12..].copy_from_slice(&last);
            a
        };
        let [a, b, c, d] = patch.ports;
        let (src, dst) = (whole(self.prefix.0, patch.src), whole(self.prefix.1, patch.dst));
        FlowKey::new(src, dst, u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), self.protocol)
    }

    /// Writes a flow's frame; `out` is as long as it.
    #[inline(always)]
    fn write(&self, out: &mut [u8], patch: &Patch, hash: Option<FlowHash>) {
        // Nearly all frames are of this one length, and a copy of known length is a few instructions.
        match (<&mut [u8; BYTES]>::try_from(&mut *out), <&[u8; BYTES]>::try_from(&self.bytes[..])) {
            (Ok(out), Ok(bytes)) => *out = *bytes,
            _ => out.copy_from_slice(&self.bytes),
        }
        let ip = &mut out[self.ip..];
        let l4 = if self.v6 {
            ip[20..24].copy_from_slice(&patch.src);
            ip[36..40].copy_from_slice(&patch.dst);
            &mut ip[40..]
        } else {
            ip[10..12].copy_from_slice(&patch.ip_checksum);
            ip[12..16].copy_from_slice(&patch.src);
            ip[16..20].copy_from_slice(&patch.dst);
            &mut ip[20..]
        };
        l4[..4].copy_from_slice(&patch.ports);
        let at = self.checksum_at();
        l4[at..at + 2].copy_from_slice(&patch.l4_checksum);
        if let (Some(at), Some(hash)) = (self.hash, hash) {
            out[at..at + 8].copy_from_slice(&hash.0.to_be_bytes());
        }
    }
}

/// Frames without end: all flows of a list, over and over.
#[derive(Clone)]
pub struct Traffic {
    template: Template,
    flows: Arc<Vec<Patch>>,
    /// Each flow's hash, where the frames carry it.
    hashes: Arc<Vec<FlowHash>>,
    next: usize,
    /// How often each flow's frame comes in a row, and how often the next one has.
    repeat: (u8, u8),
}

impl Traffic {
    /// The flows in their order, each `repeat` times in a row. With `key` the frames carry hashes.
    pub fn new(template: Template, flows: Arc<Vec<Patch>>, repeat: u8, key: Option<HashKey>) -> Self {
        let hash = |key: HashKey| flows.iter().map(|p| key.flow(&template.key(p))).collect();
        let hashes = Arc::new(key.map(hash).unwrap_or_default());
        Self { template, flows, hashes, next: 0, repeat: (repeat, 0) }
    }

    /// Makes `frame`, of any length, the next one. `false`: it doesn't fit its buffer.
    #[inline(always)]
    pub fn fill<F: Frame>(&mut self, frame: &mut F) -> bool {
        let len = self.template.len();
        frame.truncate(len);
        let held = frame.len();
        if held < len && !frame.grow_back(len - held) {
            return false;
        }
        let hash = self.hashes.get(self.next).copied();
        self.template.write(frame.head_mut(), &self.flows[self.next], hash);
        self.repeat.1 += 1;
        if self.repeat.1 == self.repeat.0 {
            self.repeat.1 = 0;
            self.next = if self.next + 1 == self.flows.len() { 0 } else { self.next + 1 };
        }
        true
    }
}

/// The list in an order of its own, the same each time.
pub fn shuffled(flows: &[Patch]) -> Arc<Vec<Patch>> {
    let mut flows = flows.to_vec();
    let mut rng = Rng::new(1);
    for i in (1..flows.len()).rev() {
        flows.swap(i, rng.below(i as u64 + 1) as usize);
    }
    Arc::new(flows)
}
