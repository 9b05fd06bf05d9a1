//! The path's own parsing: Ethernet, VLAN, IP, transport; and the outer headers of the backplane.

use crate::solo::{Plan, Side, configuration};
use std::cell::RefCell;
use std::cmp::Ordering;
use steerage::base::{Addr, FlowHash, FlowKey, Incarnation, InterfaceId, NodeId, PortId, VirtualServerId};
use steerage::io::memory::{MemoryPool, MemoryPools, MemoryPort};
use steerage::manage::compile;
use steerage::path::backplane::{self, Received};
use steerage::path::meta::{Kind, LocalServer, Meta};
use steerage::path::parse::{self, Intake};
use steerage::path::port::{Burst, Frame, Port, PortCaps};
use steerage::view::View;
use steerage::wire::backplane::Stage;
use steerage::wire::{self, eth::ethertype, ipv4::Ipv4, ipv6::Ipv6, protocol};

struct Bench {
    view: View,
    pools: MemoryPools,
}

thread_local! {
    static BENCH: RefCell<Bench> = RefCell::new(Bench::new());
}

impl Bench {
    fn new() -> Self {
        let plan = Plan { workers: 1, sessions: 64, buffers: 4 };
        let config = configuration(plan);
        let caps = Side::ALL.map(|side| {
            let mtu = config.ports[side as usize].device.mtu;
            PortCaps { mac: side.mac(), mtu }
        });
        let view = compile::compile(&config, Incarnation(1), &caps).unwrap_or_else(|e| panic!("{e}"));
        Self { view, pools: MemoryPools::new(plan.buffers, 2048) }
    }
}

/// No frame makes parsing panic, and what it lets through has the facts that it states.
pub fn one(bytes: &[u8]) {
    let Some((first, frame)) = bytes.split_first() else { return };
    BENCH.with_borrow_mut(|bench| {
        let side = Side::ALL[usize::from(first & 0x3f) % 3];
        if side == Side::Back {
            let mut signed = frame.to_vec();
            // Half of the frames with the cookie of their sender, which no search would find.
            if first & 0x40 != 0 && signed.len() >= 74 {
                let sender = NodeId(u16::from_be_bytes([signed[46], signed[47]]) & 3);
                signed[46..48].copy_from_slice(&sender.0.to_be_bytes());
                let life = Incarnation(u32::from_be_bytes([signed[50], signed[51], signed[52], signed[53]]));
                let cookie = wire::backplane::cookie(bench.view.auth_key, sender, life);
                signed[66..74].copy_from_slice(&cookie.to_be_bytes());
            }
            receive(bench, side, &signed);
        } else {
            receive(bench, side, frame);
        }
        assert_eq!(bench.pools.free(), bench.pools.data.total() + bench.pools.control.total());
    });
}

/// Takes the bytes in through a port and reads them as the worker does.
fn receive(bench: &Bench, side: Side, bytes: &[u8]) {
    let Some(mut frame) = chained(&bench.pools.data, bytes) else { return };
    let intake = Intake::new(&bench.view, PortId(side as u8), side.mac());
    let Ok(link) = parse::link(frame.head(), &bench.view, &intake) else { return };
    assert!(link.payload <= bytes.len());
    if !matches!(link.ethertype, ethertype::IPV4 | ethertype::IPV6) {
        return;
    }
    // What the place of a packet before it left behind must all be written over.
    let mut meta = stale();
    if side == Side::Back {
        match backplane::receive(&mut frame, &bench.view, &link, &mut meta) {
            Ok(Received::Packet) => {
                assert_ne!(meta.stage, Stage::Receive);
                check(&frame, &meta);
            }
            Ok(Received::Local) => check(&frame, &meta),
            Ok(Received::Control(offset) | Received::Records(offset)) => {
                assert!(offset <= frame.head().len())
            }
            Err(_) => {}
        }
    } else if parse::front(&mut frame, &link, bench.view.hash_key, &mut meta).is_ok() {
        assert_eq!((meta.stage, meta.sender_knows), (Stage::Receive, Ordering::Equal));
        assert_eq!(meta.hash, bench.view.hash_key.flow(&meta.key), "the hash of its tuple");
        check(&frame, &meta);
    }
}

/// Facts of another packet, all of them unlikely.
fn stale() -> Meta {
    let address = Addr([0xee; 16]);
    Meta {
        key: FlowKey::new(address, address, 0xeeee, 0xeeee, 0xee),
        hash: FlowHash(0xee),
        kind: Kind::Icmp,
        stage: Stage::PreviousOwner,
        sender_knows: Ordering::Less,
        interface: InterfaceId(0xee),
        tcp_flags: 0xee,
        ttl: 0xee,
        class: 0xee,
        dont_fragment: true,
        l4: 0xeeee,
        len: 0xeeee,
        local: LocalServer::new(VirtualServerId(0xee)),
    }
}

/// What later stages rely on.
fn check<F: Frame>(frame: &F, meta: &Meta) {
    let head = frame.head();
    assert_eq!(frame.len(), usize::from(meta.len), "cut to its length");
    assert_ne!(meta.interface, InterfaceId(0xee));
    assert!(meta.local.is_none(), "reading a packet asks no table");
    let flow = matches!(meta.key.protocol, protocol::TCP | protocol::UDP);
    assert_eq!(meta.kind, if flow { Kind::Flow } else { Kind::Icmp });
    assert!(meta.l4 <= meta.len && usize::from(meta.l4) <= head.len());
    if meta.key.is_v4() {
        let ip = Ipv4::new(head).expect("an IPv4 header");
        assert_eq!((ip.src(), ip.dst(), ip.protocol()), (meta.key.src, meta.key.dst, meta.key.protocol));
        assert_eq!((ip.ttl(), ip.tos(), ip.dont_fragment()), (meta.ttl, meta.class, meta.dont_fragment));
        assert!(!ip.is_fragment());
    } else {
        let ip = Ipv6::new(head).expect("an IPv6 header");
        assert_eq!((ip.src(), ip.dst()), (meta.key.src, meta.key.dst));
        assert_eq!((ip.hop_limit(), ip.traffic_class(), true), (meta.ttl, meta.class, meta.dont_fragment));
    }
    let l4 = &head[usize::from(meta.l4)..];
    match meta.kind {
        Kind::Flow => {
            assert!(
                l4.len() >= if meta.key.protocol == protocol::TCP { 20 } else { 8 },
                "the header is in one piece"
            );
            assert_eq!(meta.tcp_flags, if meta.key.protocol == protocol::TCP { l4[13] } else { 0 });
            assert_eq!(l4[..2], meta.key.src_port.to_be_bytes());
            assert_eq!(l4[2..4], meta.key.dst_port.to_be_bytes());
        }
        Kind::Icmp => assert_eq!((meta.key.src_port, meta.key.dst_port), (0, 0)),
    }
}

/// The bytes as a received frame, in several segments if they say so.
fn chained(pool: &MemoryPool, bytes: &[u8]) -> Option<crate::port::ChainedFrame> {
    let caps = PortCaps { mac: Side::Front.mac(), mtu: 1500 };
    let pools = MemoryPools { data: pool.clone(), control: pool.clone() };
    let (port, link) = MemoryPort::link(caps, pools, 1);
    let mut burst = Burst::new();
    link.inject(bytes).then(|| crate::port::ChainedPort::new(port).rx(&mut burst));
    burst.pop()
}
