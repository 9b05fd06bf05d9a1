//! What peers send, and what is decided with them.

use super::Driver;
use crate::draw::Draw;
use crate::packet::{self, spoil};
use crate::solo::{Side, backplane_frame, host_mac};
use steerage::base::version::{Software, WireVersion};
use steerage::base::{Bucket, FlowHash, FlowKey, Incarnation, NodeId, NodeSet};
use steerage::table::placement::{Home, Placement};
use steerage::view::Group;
use steerage::wire::backplane::{self, Header, Stage};
use steerage::wire::control::Heartbeat;
use steerage::wire::ipv4::Ipv4;
use steerage::wire::protocol;
use steerage::wire::tcp::flags::ACK;

impl Driver {
    /// A packet that a peer steers here.
    pub(super) fn steered(&mut self, draw: &mut Draw) {
        let inner = match draw.below(4) {
            0 => self.recent.back().cloned(),
            1 => self.to_servers.back().map(|p| p.answer(ACK)),
            _ => None,
        };
        let inner = inner.unwrap_or_else(|| self.any_packet(draw));
        let mut bytes = inner.ip();
        spoil(draw, &mut bytes, 0);
        // What is steered was checked where it came in: a wrong IPv4 checksum can't come from a peer.
        if let Ok(ip) = Ipv4::new(&bytes[..])
            && !ip.checksum_ok()
        {
            packet::ipv4_checksum(&mut bytes);
        }
        let sender = NodeId(draw.one_of(&[1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 0, 3, 0xffff]));
        let life = self.solo.lives.get(usize::from(sender.0).wrapping_sub(1)).copied().unwrap_or(1);
        let incarnation = Incarnation(match draw.below(16) {
            14 => life.wrapping_sub(1),
            15 => life.wrapping_add(1),
            _ => life,
        });
        let mut hash = self.solo.config.cluster.hash_key.flow(&FlowKey::new(
            inner.src,
            inner.dst,
            inner.src_port,
            inner.dst_port,
            if inner.flags.is_some() { protocol::TCP } else { protocol::UDP },
        ));
        if draw.once_in(32) {
            hash = FlowHash(hash.0 ^ u64::from(draw.byte()));
        }
        let mut cookie = backplane::cookie(self.solo.config.cluster.auth_key, sender, incarnation);
        if draw.once_in(16) {
            cookie ^= 1 << draw.below(64);
        }
        let stage = draw.one_of(&[
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::Owner,
            Stage::PreviousOwner,
            Stage::Returned,
            Stage::FragmentOwner,
            Stage::Receive,
        ]);
        let mut payload = Vec::with_capacity(backplane::HEADER_LEN + bytes.len());
        payload.resize(backplane::HEADER_LEN, 0);
        let decided = draw.below(3) as u32;
        Header { stage, sender, incarnation, decided, hash, cookie }.write(&mut payload);
        if draw.once_in(32) {
            let (at, value) = (draw.below(backplane::HEADER_LEN), draw.byte());
            payload[at] = value;
        }
        payload.extend(&bytes);
        let workers = self.solo.config.workers.count;
        let port = self.solo.config.cluster.data_port + (draw.below(usize::from(workers) * 8) as u16 / 8);
        let mut frame = backplane_frame(NodeId(sender.0 & 3), port, &payload);
        let inside = frame.len() - bytes.len();
        if draw.once_in(8) {
            spoil(draw, &mut frame, 14);
            if frame.len() >= inside + bytes.len() {
                frame[inside..inside + bytes.len()].copy_from_slice(&bytes);
            }
        }
        self.inject(draw, Side::Back, &frame, false);
    }

    /// Authentic heartbeats with any content, and spoiled ones.
    pub(super) fn control(&mut self, draw: &mut Draw) {
        self.beats += 1;
        let sender = NodeId(draw.one_of(&[1, 2, 1, 2, 0, 3, 0xffff]));
        let life = match self.solo.lives.get_mut(usize::from(sender.0).wrapping_sub(1)) {
            Some(life) => {
                // Another life begins.
                *life += u32::from(draw.once_in(8));
                *life
            }
            None => 1,
        };
        let old = draw.once_in(8);
        let wire = draw.one_of(&[WireVersion::OLDEST, WireVersion::NEWEST]);
        let beat = Heartbeat {
            wire,
            speaks: WireVersion::NEWEST,
            software: Software::OWN,
            sender,
            incarnation: Incarnation(life - u32::from(old)),
            counter: if draw.once_in(4) { 1 } else { self.beats },
            view: 1,
            configuration: u64::from(draw.byte()),
            index: 0,
            prepared: 0,
            hears: NodeSet::EMPTY,
            ready: draw.once_in(2),
            trouble: u16::from(draw.byte()),
            turns: (0..draw.below(65)).map(|i| i as u32).collect(),
        };
        let mut frame = self.solo.heartbeat(&beat);
        if draw.once_in(4) {
            let (at, value) = (42 + draw.below(64), draw.byte());
            frame.get_mut(at).into_iter().for_each(|b| *b = value);
        }
        spoil(draw, &mut frame, 14);
        let side = if draw.once_in(8) { Side::Front } else { Side::Back };
        self.inject(draw, side, &frame, false);
    }

    /// What doesn't belong on the backplane, or on no data port.
    pub(super) fn stray(&mut self, draw: &mut Draw) {
        let frame = match draw.below(3) {
            0 => packet::frame(Side::Back, host_mac(12), None, &self.any_packet(draw).ip()),
            1 => {
                let port = draw.one_of(&[1, 6598, 6599, 6600, 6602, 65535]);
                let len = draw.below(80);
                backplane_frame(NodeId(1), port, &draw.bytes(len))
            }
            _ => {
                let mut frame = backplane_frame(NodeId(1), 6600, b"");
                frame[26..30].copy_from_slice(&[10, 20, 0, 13]);
                packet::ipv4_checksum(&mut frame[14..]);
                frame
            }
        };
        let side = if draw.once_in(4) { Side::Front } else { Side::Back };
        let mut frame = frame;
        frame[..6].copy_from_slice(&side.mac().0);
        self.inject(draw, side, &frame, false);
    }

    /// Buckets change hands, by whatever version of what is decided, none among them.
    pub(super) fn placement(&mut self, draw: &mut Draw) {
        let (version, now, before) = (draw.below(3) as u32, draw.byte(), draw.byte());
        let manager = self.solo.node.manager();
        let of = |group: &Group| {
            let members: Vec<NodeId> = NodeSet(group.members).iter().collect();
            let at =
                |bucket: Bucket, salt: u8| members[usize::from(bucket.0 ^ u16::from(salt)) % members.len()];
            let home = |bucket: Bucket| {
                let owner = at(bucket, now);
                let previous =
                    bucket.0.is_multiple_of(4).then(|| at(bucket, before)).filter(|node| *node != owner);
                Home { owner: Some(owner), previous }
            };
            Placement::of(home).into()
        };
        let buckets = manager.view().services.groups.iter().map(of).collect();
        manager.place(version, buckets);
    }
}
