//! What stands in front of a packet on its way to a neighbour. All of it that doesn't hang on the packet is written once,
//! when the View is made.

use super::{Forward, Hop, HopId, Interface, RealServer, View};
use crate::base::{Addr, FlowHash, Mac, PortId};
use crate::table::chunks::{Chunks, Part};
use crate::wire::backplane::{self, Header, Stage};
use crate::wire::checksum::Delta;
use crate::wire::eth::{self, ethertype};
use crate::wire::ipip::{self, Inner};
use crate::wire::{gue, ipv4, ipv6, protocol, udp, vlan};
use std::sync::Arc;

/// The longest headers that there can be.
const ROOM: usize =
    eth::HEADER_LEN + vlan::TAG_LEN + ipv6::HEADER_LEN + udp::HEADER_LEN + backplane::HEADER_LEN;

/// Whether an adjacency leads anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No route.
    No,
    /// The neighbour hasn't told its Ethernet address.
    Unresolved,
    /// Yes.
    Yes,
}

/// The header that follows Ethernet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    /// The packet's own.
    None,
    /// Sum of the IPv4 header's words without length and type of service.
    V4(u16),
    V6,
}

/// What follows the outer IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Packet,
    Udp,
    /// UDP and the backplane's header.
    Steer,
}

/// What the headers in front need to know of the packet behind them.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Bytes.
    pub len: usize,
    /// It is IPv4.
    pub v4: bool,
    /// DSCP and ECN.
    pub class: u8,
    /// Spreads flows over a fabric.
    pub hash: FlowHash,
}

/// The headers in front of a packet to one neighbour, and the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(align(64))]
pub struct Adjacency {
    /// The headers.
    template: [u8; ROOM],
    len: u8,
    /// Bytes of the Ethernet header.
    l2: u8,
    outer: Outer,
    behind: Behind,
    /// Whether it leads anywhere.
    pub reach: Reach,
    /// The port that leads there.
    pub port: PortId,
    /// Largest packet that fits behind the headers.
    pub mtu: u16,
    /// The next hop.
    pub hop: HopId,
}

const _: () = assert!(size_of::<Adjacency>() == 128);

/// What is put between Ethernet's header and the packet.
enum Tunnel<'a> {
    None,
    /// IP in IP around packets of this family.
    Ipip {
        v4: bool,
    },
    Gue,
    Steer(&'a Header, u16),
}

impl Adjacency {
    fn nowhere() -> Self {
        let hop = HopId(u32::MAX);
        let (outer, behind, reach) = (Outer::None, Behind::Packet, Reach::No);
        Self { template: [0; ROOM], len: 0, l2: 0, outer, behind, reach, port: PortId(0), mtu: 0, hop }
    }

    fn new(id: HopId, hop: &Hop, interface: &Interface, tunnel: &Tunnel<'_>, src: Addr, dst: Addr) -> Self {
        let ip_len = ipip::outer_len(dst);
        let (outer_len, behind, behind_len) = match tunnel {
            Tunnel::None => (0, Behind::Packet, 0),
            Tunnel::Ipip { .. } => (ip_len, Behind::Packet, 0),
            Tunnel::Gue => (ip_len, Behind::Udp, udp::HEADER_LEN),
            Tunnel::Steer(..) => (ip_len, Behind::Steer, udp::HEADER_LEN + backplane::HEADER_LEN),
        };
        let l2 = interface.link_header_len();
        let len = l2 + outer_len + behind_len;
        let mut template = [0; ROOM];
        let head = &mut template[..len];
        let kind = if dst.is_v4() { ethertype::IPV4 } else { ethertype::IPV6 };
        eth::write(head, hop.mac.unwrap_or(Mac([0; 6])), interface.mac, interface.vlan, kind);
        let (next, ports) = match tunnel {
            Tunnel::None => (0, (0, 0)),
            Tunnel::Ipip { v4 } => (ipip::inner_protocol(!v4), (0, 0)),
            Tunnel::Gue => (protocol::UDP, (0, gue::PORT)),
            Tunnel::Steer(_, data_port) => (protocol::UDP, (0, *data_port)),
        };
        let mut outer = Outer::None;
        if outer_len > 0 {
            ipip::write_outer(&mut head[l2..], src, dst, Inner { class: 0, len: 0 }, 0, next, 0);
            outer = Outer::V6;
            if dst.is_v4() {
                head[l2 + 2..l2 + 4].fill(0);
                outer = Outer::V4(crate::wire::checksum::sum(&head[l2..l2 + ipv4::MIN_HEADER_LEN]));
            }
        }
        if behind != Behind::Packet {
            udp::write_tunnel(&mut head[l2 + outer_len..], ports.0, ports.1, 0);
        }
        if let Tunnel::Steer(header, _) = tunnel {
            header.write(&mut head[l2 + outer_len + udp::HEADER_LEN..]);
        }
        Self {
            template,
            len: len as u8,
            l2: l2 as u8,
            outer,
            behind,
            reach: if hop.mac.is_some() { Reach::Yes } else { Reach::Unresolved },
            port: interface.port,
            mtu: interface.mtu.saturating_sub((len - l2) as u16),
            hop: id,
        }
    }

    /// Bytes of the headers, and of Ethernet's alone.
    #[inline(always)]
    pub fn lengths(&self) -> (usize, usize) {
        (usize::from(self.len), usize::from(self.l2))
    }

    /// Writes the headers into the first bytes of `out`, as many as [`Self::lengths`] says and behind which `packet` stands.
    /// `worker` is added to the outer UDP destination port.
    #[inline(always)]
    pub fn write(&self, out: &mut [u8], packet: &Packet, worker: u16) {
        let (l2, len) = (usize::from(self.l2), usize::from(self.len));
        let Some(head) = out.get_mut(..len) else { return };
        // Two copies of known length, which overlap, for each range of lengths.
        match len {
            ..16 => self.copy::<8>(head),
            16..=32 => self.copy::<16>(head),
            33..=64 => self.copy::<32>(head),
            _ => self.copy::<64>(head),
        }
        let behind = len - l2;
        match self.outer {
            Outer::None => {
                let kind = if packet.v4 { ethertype::IPV4 } else { ethertype::IPV6 };
                if let Some(field) = head.last_chunk_mut::<2>() {
                    *field = kind.to_be_bytes();
                }
                return;
            }
            Outer::V4(sum) => {
                let Some(ip) = head[l2..].first_chunk_mut::<{ ipv4::MIN_HEADER_LEN }>() else { return };
                let total = (packet.len + behind) as u16;
                ip[1] = packet.class;
                [ip[2], ip[3]] = total.to_be_bytes();
                [ip[10], ip[11]] = Delta::added(sum, [total, u16::from(packet.class)]).to_be_bytes();
            }
            Outer::V6 => {
                let Some(ip) = head[l2..].first_chunk_mut::<{ ipv6::HEADER_LEN }>() else {
                    return;
                };
                let first = 6 << 28 | u32::from(packet.class) << 20 | packet.hash.label();
                [ip[0], ip[1], ip[2], ip[3]] = first.to_be_bytes();
                let payload = packet.len + behind - ipv6::HEADER_LEN;
                [ip[4], ip[5]] = (payload as u16).to_be_bytes();
            }
        }
        if self.behind != Behind::Packet {
            let at = if self.outer == Outer::V6 { ipv6::HEADER_LEN } else { ipv4::MIN_HEADER_LEN };
            let payload = packet.len + behind - at;
            let Some(udp) = head[l2 + at..].first_chunk_mut::<{ udp::HEADER_LEN }>() else { return };
            [udp[0], udp[1]] = packet.hash.outer_port().to_be_bytes();
            let to = u16::from_be_bytes([udp[2], udp[3]]) + worker;
            [udp[2], udp[3]] = to.to_be_bytes();
            [udp[4], udp[5]] = (payload as u16).to_be_bytes();
        }
        if self.behind == Behind::Steer
            && let Some(header) = head.last_chunk_mut::<{ backplane::HEADER_LEN }>()
        {
            backplane::set_hash(header, packet.hash);
        }
    }

    /// Copies the template, whose length is `N` to 2 `N`.
    #[inline(always)]
    fn copy<const N: usize>(&self, head: &mut [u8]) {
        if let (Some(to), Some(from)) = (head.first_chunk_mut::<N>(), self.template.first_chunk::<N>()) {
            *to = *from;
        }
        let end = self.template.get(..head.len()).and_then(<[u8]>::last_chunk::<N>);
        if let (Some(to), Some(from)) = (head.last_chunk_mut::<N>(), end) {
            *to = *from;
        }
    }
}

/// The way to a real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerWay {
    /// The headers in front.
    pub adjacency: Adjacency,
    /// How packets reach it.
    pub forward: Forward,
    /// Its port.
    pub port: u16,
    /// Its address.
    pub address: Addr,
}

impl ServerWay {
    /// What stands where there is no real server.
    fn none() -> Self {
        Self { adjacency: Adjacency::nowhere(), forward: Forward::DsrL2, port: 0, address: Addr::UNSPECIFIED }
    }
}

/// All adjacencies of a View. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Adjacencies {
    /// Plain ones, by next hop.
    pub hops: Arc<[Adjacency]>,
    /// By real server.
    pub servers: Chunks<ServerWay>,
    /// For steered packets, by node.
    pub nodes: Arc<[Adjacency]>,
    /// For those that nobody has been found to have a session of yet, by [`ASKED`], then by node.
    asked: [Arc<[Adjacency]>; ASKED.len()],
}

/// The stages behind the owner's, in their order.
const ASKED: [Stage; 6] = [
    Stage::FirstOwner,
    Stage::FirstPrevious,
    Stage::SecondOwner,
    Stage::SecondPrevious,
    Stage::PreviousOwner,
    Stage::Returned,
];

impl Adjacencies {
    /// Those that follow from a View's next hops, servers and nodes. Those that follow from what the View before had, too, are
    /// shared with it.
    pub fn build(view: &View, before: Option<&View>) -> Self {
        let interfaces = &view.services.interfaces;
        let to = |id: Option<HopId>, tunnel: &Tunnel<'_>, src, dst| {
            let hop = id.map(|id| (id, &view.hops[id.0 as usize])).filter(|(_, hop)| !hop.is_vacant());
            match hop {
                None => Adjacency::nowhere(),
                Some((id, hop)) => {
                    Adjacency::new(id, hop, &interfaces[hop.interface.index()], tunnel, src, dst)
                }
            }
        };
        let before = before.filter(|old| old.services.interfaces == *interfaces);
        let old_hops = before.map_or(&[][..], |old| &old.hops);
        let moved: Vec<bool> =
            view.hops.iter().enumerate().map(|(i, hop)| old_hops.get(i) != Some(hop)).collect();
        let still = !moved.contains(&true);
        let hops = match before {
            Some(old) if still && old.hops.len() == view.hops.len() => old.adjacencies.hops.clone(),
            _ => (0..view.hops.len() as u32)
                .map(|i| {
                    let at = view.hops[i as usize].address;
                    to(Some(HopId(i)), &Tunnel::None, at, at)
                })
                .collect(),
        };
        let way = |real: &RealServer| {
            let tunnel = match real.forward {
                Forward::Nat | Forward::DsrL2 => Tunnel::None,
                Forward::Ipip => Tunnel::Ipip { v4: real.v4 },
                Forward::Gue => Tunnel::Gue,
            };
            ServerWay {
                adjacency: to(real.hop, &tunnel, real.tunnel_source, real.address),
                forward: real.forward,
                port: real.port,
                address: real.address,
            }
        };
        let reals = &view.services.real_servers;
        let servers = Chunks::along(reals, &ServerWay::none(), |chunk, items| {
            let same = before.filter(|old| reals.shares(&old.services.real_servers, chunk));
            let same = same.and_then(|old| old.adjacencies.servers.part(chunk));
            let moves = |real: &RealServer| real.hop.is_some_and(|hop| moved[hop.0 as usize]);
            match same {
                Some(same) if still || !items.iter().any(moves) => Part::Same(same),
                _ => Part::New(items.iter().map(way).collect()),
            }
        });
        let me = view.this_node();
        let nodes = |stage| -> Arc<[Adjacency]> {
            let (sender, incarnation, cookie) = (view.me, me.incarnation, me.cookie);
            let (decided, hash) = (view.decided, FlowHash(0));
            let header = Header { stage, sender, incarnation, decided, hash, cookie };
            let steer = Tunnel::Steer(&header, view.data_port);
            view.nodes.iter().map(|node| to(node.hop, &steer, me.backplane, node.backplane)).collect()
        };
        Self { hops, servers, nodes: nodes(Stage::Owner), asked: ASKED.map(nodes) }
    }

    /// For packets that come to a node at this stage, by node.
    pub fn at(&self, stage: Stage) -> &[Adjacency] {
        let asked = ASKED.iter().position(|one| *one == stage);
        asked.and_then(|i| self.asked.get(i)).unwrap_or(&self.nodes)
    }
}

#[cfg(test)]
#[path = "adjacency_tests.rs"]
mod tests;
