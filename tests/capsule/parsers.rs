//! Capsule's header parsers against ours: where they agree, and each fault for which ours are used (`docs/capsule.md`).

use super::carry::configuration;
use super::{child, prefix};
use capsule::Mbuf;
use capsule::packets::icmp::v4::{Icmpv4, Icmpv4Type};
use capsule::packets::ip::v4::Ipv4;
use capsule::packets::ip::v6::{Fragment, Ipv6, Ipv6Packet, SegmentRouting};
use capsule::packets::ip::{IpPacket, ProtocolNumbers};
use capsule::packets::{EtherTypes, Ethernet, Packet, Tcp, Udp};
use etherparse::PacketBuilder;
use std::net::Ipv6Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use steerage::base::rng::Rng;
use steerage::base::{Addr, HashKey, Incarnation, InterfaceId, Mac, PortId};
use steerage::io::memory::MemoryPools;
use steerage::manage::compile;
use steerage::path::meta::Meta;
use steerage::path::parse::{self, Intake, Link};
use steerage::path::port::{Frame, Pool, PortCaps};
use steerage::path::verdict::Verdict;
use steerage::wire::{checksum, eth, icmp, ipv4, udp as wire_udp};

const SRC: [u8; 4] = [192, 168, 1, 5];
const DST: [u8; 4] = [10, 99, 0, 1];
const SRC6: &str = "fd77::5";
const DST6: &str = "fd99::1";
/// What a right reading of the packets below is.
const PLAIN: &str = "tcp 192.168.1.5 20000 > 10.99.0.1 80";
const PLAIN6: &str = "tcp fd77::5 20000 > fd99::1 80";
/// Where the IP header starts, and what follows it without options.
const IP: usize = 14;
const L4: usize = 34;
const L4_6: usize = 54;

/// Runs `body` in a process in which this thread has buffers of capsule's.
fn with_buffers(test: &str, body: fn()) {
    child(test, true, || {
        let args = "--no-huge --no-shconf -m 64 --no-telemetry --no-pci";
        let config = serde_json::json!({
            "app_name": prefix(std::process::id()), "master_core": 0, "mempool": { "capacity": 1023 },
            "ports": [], "dpdk_args": args,
        });
        let _runtime = capsule::Runtime::build(serde_json::from_value(config).unwrap()).unwrap();
        body();
    });
}

fn line(protocol: &str, src: impl ToString, ports: (u16, u16), dst: impl ToString) -> String {
    format!("{protocol} {} {} > {} {}", src.to_string(), ports.0, dst.to_string(), ports.1)
}

/// The flow that capsule's parsers find in a frame when each header is parsed as what the one before it names.
fn capsule_reads(frame: &[u8]) -> String {
    let transport_of = |frame: &[u8]| -> Result<String, String> {
        let text = |error: &dyn ToString| error.to_string();
        let ethernet = Mbuf::from_bytes(frame).and_then(|m| m.parse::<Ethernet>()).map_err(|e| text(&e))?;
        if ethernet.ether_type() == EtherTypes::Ipv4 {
            return transport(ethernet.parse::<Ipv4>().map_err(|e| text(&e))?);
        }
        let ip = ethernet.parse::<Ipv6>().map_err(|e| text(&e))?;
        match ip.next_header() {
            ProtocolNumbers::Ipv6Frag => transport(ip.parse::<Fragment<Ipv6>>().map_err(|e| text(&e))?),
            ProtocolNumbers::Ipv6Route => {
                transport(ip.parse::<SegmentRouting<Ipv6>>().map_err(|e| text(&e))?)
            }
            _ => transport(ip),
        }
    };
    transport_of(frame).unwrap_or_else(|_| "refused".to_owned())
}

fn transport<P: IpPacket>(ip: P) -> Result<String, String> {
    if ip.next_protocol() == ProtocolNumbers::Udp {
        let udp = ip.parse::<Udp<P>>().map_err(|e| e.to_string())?;
        return Ok(line("udp", udp.envelope().src(), (udp.src_port(), udp.dst_port()), udp.envelope().dst()));
    }
    let tcp = ip.parse::<Tcp<P>>().map_err(|e| e.to_string())?;
    Ok(line("tcp", tcp.envelope().src(), (tcp.src_port(), tcp.dst_port()), tcp.envelope().dst()))
}

/// The facts of a frame that a worker received on a front port, and the bytes that are left of it; or why it is dropped.
fn parsed(frame: &[u8]) -> Result<(Meta, usize), Verdict> {
    let pools = MemoryPools::new(1, 2048);
    let mut buffer = pools.alloc(Pool::Data).unwrap();
    assert!(buffer.grow_back(frame.len()));
    buffer.head_mut().copy_from_slice(frame);
    let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
    let link = Link { interface: InterfaceId(0), group: false, ethertype, payload: IP };
    let mut meta = Meta::EMPTY;
    parse::front(&mut buffer, &link, HashKey([1, 2]), &mut meta)?;
    Ok((meta, buffer.len()))
}

/// The flow that a worker finds in a frame, or why it drops the frame.
fn we_read(frame: &[u8]) -> String {
    match parsed(frame) {
        Ok((meta, _)) => {
            let protocol = if meta.key.protocol == 6 { "tcp" } else { "udp" };
            line(protocol, meta.key.src, (meta.key.src_port, meta.key.dst_port), meta.key.dst)
        }
        Err(verdict) => format!("refused: {verdict:?}"),
    }
}

fn v6(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

/// A TCP packet with eight bytes of payload.
fn tcp() -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(SRC, DST, 64).tcp(20_000, 80, 1, 4096).syn();
    builder.write(&mut out, b"payload.").unwrap();
    out
}

fn udp() -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(SRC, DST, 64).udp(20_000, 80);
    builder.write(&mut out, b"payload.").unwrap();
    out
}

fn tcp6() -> Vec<u8> {
    let mut out = Vec::new();
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(v6(SRC6), v6(DST6), 64).tcp(20_000, 80, 1, 4096).syn();
    builder.write(&mut out, b"payload.").unwrap();
    out
}

/// `tcp6` with extension headers of type `kind` in between.
fn extended(kind: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = tcp6();
    frame[IP + 6] = kind;
    let len = u16::from_be_bytes([frame[IP + 4], frame[IP + 5]]) + headers.len() as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&len.to_be_bytes());
    frame.splice(L4_6..L4_6, headers.iter().copied());
    frame
}

/// A packet changed at some bytes, with a right IPv4 header checksum again.
fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    let header = IP + usize::from(frame[IP] & 0xf).max(5) * 4;
    let header = header.min(frame.len());
    frame[IP + 10..IP + 12].fill(0);
    let sum = !checksum::sum(&frame[IP..header]);
    frame[IP + 10..IP + 12].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn both_read_plain_packets_alike() {
    with_buffers("parsers::both_read_plain_packets_alike", || {
        assert_eq!((capsule_reads(&tcp()), we_read(&tcp())), (PLAIN.into(), PLAIN.into()));
        let mut rng = Rng::new(7);
        for _ in 0..2000 {
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
            let [a, b] = [0; 2].map(|_| 1 + rng.below(65_535) as u16);
            let payload = vec![7; rng.below(1000) as usize];
            let address = |rng: &mut Rng| -> [u8; 16] {
                let mut bytes = [0; 16];
                bytes.fill_with(|| rng.below(256) as u8);
                bytes[0] = 0x20;
                bytes
            };
            let mut out = Vec::new();
            let (src, dst) = (address(&mut rng), address(&mut rng));
            let builder = if rng.below(2) == 0 {
                let four = |a: [u8; 16]| [10, a[1], a[2], a[3]];
                builder.ipv4(four(src), four(dst), 9)
            } else {
                builder.ipv6(src, dst, 9)
            };
            if rng.below(2) == 0 {
                builder.tcp(a, b, 1, 1).ack(1).write(&mut out, &payload).unwrap();
            } else {
                builder.udp(a, b).write(&mut out, &payload).unwrap();
            }
            let ours = we_read(&out);
            assert!(!ours.starts_with("refused"), "{ours}");
            assert_eq!(capsule_reads(&out), ours);
        }
    });
}

/// A packet, what capsule reads, and what we do.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn judge(cases: Vec<Case>) {
    let wrong: Vec<String> = cases
        .into_iter()
        .map(|(what, frame, theirs, ours)| (what, (capsule_reads(&frame), we_read(&frame)), (theirs, ours)))
        .filter(|(_, got, wanted)| (got.0.as_str(), got.1.as_str()) != *wanted)
        .map(|(what, got, wanted)| format!("{what}: {got:?}, not {wanted:?}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn ipv4_headers() {
    with_buffers("parsers::ipv4_headers", || {
        let mut options = changed(tcp(), IP, &[0x46, 0, 0, 52]);
        options.splice(L4..L4, [1, 1, 1, 0]);
        let options = changed(options, IP, &[0x46]);
        let bad_sum = {
            let mut frame = tcp();
            frame[IP + 8] -= 1;
            frame
        };
        judge(vec![
            // Ports from the options: three times "no operation" and the end of the list (RFC 791 §3.1).
            ("options", options, "tcp 192.168.1.5 257 > 10.99.0.1 256", PLAIN),
            ("a later fragment", changed(tcp(), IP + 6, &[0, 185]), PLAIN, "refused: Fragment"),
            ("a first fragment", changed(tcp(), IP + 6, &[0x20, 0]), PLAIN, "refused: Fragment"),
            ("version 5", changed(tcp(), IP, &[0x55]), PLAIN, "refused: IpMalformed"),
            ("a header of 16 bytes", changed(tcp(), IP, &[0x44]), PLAIN, "refused: IpMalformed"),
            ("a header longer than the packet", changed(tcp(), IP, &[0x4f]), PLAIN, "refused: IpMalformed"),
            ("shorter than its header", changed(tcp(), IP + 2, &[0, 19]), PLAIN, "refused: IpMalformed"),
            ("longer than the frame", changed(tcp(), IP + 2, &[0, 49]), PLAIN, "refused: IpMalformed"),
            ("a wrong checksum", bad_sum, PLAIN, "refused: IpChecksum"),
        ]);
    });
}

#[test]
fn transport_headers() {
    with_buffers("parsers::transport_headers", || {
        const UDP: &str = "udp 192.168.1.5 20000 > 10.99.0.1 80";
        const REFUSED: &str = "refused: TransportMalformed";
        judge(vec![
            // The packet ends within the header; what follows is padding of the frame.
            ("half a TCP header", changed(tcp(), IP + 2, &[0, 30]), PLAIN, REFUSED),
            ("a TCP header of 16 bytes", changed(tcp(), L4 + 12, &[0x40]), PLAIN, REFUSED),
            ("a TCP header longer than the packet", changed(tcp(), L4 + 12, &[0xf0]), PLAIN, REFUSED),
            ("SYN and FIN at once", changed(tcp(), L4 + 13, &[3]), PLAIN, REFUSED),
            ("a datagram longer than its packet", changed(udp(), L4 + 4, &[0, 17]), UDP, REFUSED),
            ("a datagram shorter than its header", changed(udp(), L4 + 4, &[0, 7]), UDP, REFUSED),
        ]);
    });
}

#[test]
fn truncated_packets() {
    with_buffers("parsers::truncated_packets", || {
        for (whole, headers, right) in [(tcp(), L4 + 20, PLAIN), (tcp6(), L4_6 + 20, PLAIN6)] {
            for len in IP + 1..=whole.len() {
                let (theirs, ours) = (capsule_reads(&whole[..len]), we_read(&whole[..len]));
                // Capsule looks at the bytes that are there, and never at the length that the packet says it has.
                let wanted = if len < headers { "refused" } else { right };
                assert_eq!(theirs, wanted, "{len} bytes");
                let wanted = if len < whole.len() { "refused: IpMalformed" } else { right };
                assert_eq!(ours, wanted, "{len} bytes");
            }
        }
    });
}

#[test]
fn ipv6_headers() {
    with_buffers("parsers::ipv6_headers", || {
        let options = [6, 0, 1, 4, 0, 0, 0, 0];
        let authentication = [6, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let both = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &options].concat();
        let in_later = [6, 0, 0, 8, 0, 0, 0, 1];
        let atomic = [6, 0, 0, 0, 0, 0, 0, 1];
        let mut length = tcp6();
        length[IP + 5] += 1;
        let mut short = tcp6();
        short[IP + 5] = 19;
        let mut version = tcp6();
        version[IP] = 0x50;
        // Destination options of that many bytes each, all padding (RFC 8200 §4.2), before TCP.
        let several = |count: usize, bytes: usize| {
            let mut one = vec![0; bytes];
            (one[0], one[1], one[2], one[3]) = (60, (bytes / 8 - 1) as u8, 1, (bytes - 4) as u8);
            let mut headers = one.repeat(count);
            headers[(count - 1) * bytes] = 6;
            headers
        };
        let mut eighth = several(1, 40);
        let mut long = several(7, 32);
        long[6 * 32] = 60;
        long.append(&mut eighth);
        let long = extended(60, &long);
        // Deprecated since RFC 5095, laid out like a segment list, with a segment left.
        let type_0 = [&[6, 2, 0, 1, 0, 0, 0, 0][..], &v6("fd99::bad")].concat();
        // Segment routing (RFC 8754) at its end, but the list names another address than the packet.
        let segments = [&[6, 2, 4, 0, 0, 0, 0, 0][..], &v6("fd99::bad")].concat();
        const ELSEWHERE: &str = "tcp fd77::5 20000 > fd99::bad 80";
        judge(vec![
            ("nothing in between", tcp6(), PLAIN6, PLAIN6),
            ("hop-by-hop options", extended(0, &options), "refused", PLAIN6),
            ("destination options", extended(60, &options), "refused", PLAIN6),
            ("both", extended(0, &both), "refused", PLAIN6),
            ("authentication", extended(51, &authentication), "refused", PLAIN6),
            ("8 headers of 256 bytes together", extended(60, &several(8, 32)), "refused", PLAIN6),
            ("9 headers", extended(60, &several(9, 8)), "refused", "refused: ExtensionHeaders"),
            ("8 headers of 264 bytes together", long, "refused", "refused: ExtensionHeaders"),
            ("a whole datagram in a fragment header", extended(44, &atomic), PLAIN6, PLAIN6),
            ("a later fragment", extended(44, &in_later), PLAIN6, "refused: Fragment"),
            (
                "options behind a fragment header",
                {
                    let headers = [&[60, 0, 0, 0, 0, 0, 0, 1][..], &options].concat();
                    extended(44, &headers)
                },
                "refused",
                PLAIN6,
            ),
            ("a routing header of type 0", extended(43, &type_0), ELSEWHERE, "refused: ExtensionHeaders"),
            ("a segment list of its own mind", extended(43, &segments), ELSEWHERE, PLAIN6),
            ("longer than the frame", length, PLAIN6, "refused: IpMalformed"),
            ("shorter than its TCP header", short, PLAIN6, "refused: TransportMalformed"),
            ("version 5", version, PLAIN6, "refused: IpMalformed"),
        ]);
    });
}

#[test]
fn fragmentation_needed_has_no_type() {
    with_buffers("parsers::fragmentation_needed_has_no_type", || {
        // RFC 1191 §4: type 3, code 4, and the next hop's MTU; what it quotes doesn't matter here.
        let mut frame = changed(udp(), IP + 9, &[1]);
        frame[L4..L4 + 8].copy_from_slice(&[3, 4, 0, 0, 0, 0, 5, 0xdc]);
        let ip = Mbuf::from_bytes(&frame).unwrap().parse::<Ethernet>().unwrap().parse::<Ipv4>().unwrap();
        let icmp = ip.parse::<Icmpv4>().unwrap();
        assert_eq!((icmp.msg_type().to_string().as_str(), icmp.code()), ("3", 4), "a number, no name");
        let named = (0..=255).map(Icmpv4Type).filter(|kind| kind.to_string() != kind.0.to_string());
        let named: Vec<String> = named.map(|kind| kind.to_string()).collect();
        assert_eq!(named, ["Echo Reply", "Redirect", "Echo Request", "Time Exceeded"]);
        let ours = icmp::Icmp::new(&frame[L4..], false).unwrap();
        assert_eq!((ours.kind(), ours.mtu()), (icmp::Kind::Error, Some(1500)));
    });
}

#[test]
fn a_segment_list_overflows() {
    with_buffers("parsers::a_segment_list_overflows", || {
        // 255 + 1 segments, counted in eight bits: a panic where arithmetic is checked, zero where it isn't.
        let frame = extended(43, &[&[6, 2, 4, 0, 255, 0, 0, 0][..], &v6(DST6)].concat());
        let read = catch_unwind(AssertUnwindSafe(|| capsule_reads(&frame)));
        assert_eq!(read.is_err(), cfg!(debug_assertions));
        assert_eq!(we_read(&frame), PLAIN6);
    });
}

#[test]
fn an_outer_tag_alone_shifts_the_packet() {
    with_buffers("parsers::an_outer_tag_alone_shifts_the_packet", || {
        // 802.1ad allows a service tag with no second tag. Capsule takes the next four bytes for one: here they are EtherType
        // 0x0800 and the start of an IPv4 header.
        let mut frame = tcp();
        frame.splice(12..12, [0x88, 0xa8, 0, 7]);
        let inner = 12 + 4;
        assert_eq!(frame[inner..inner + 2], [8, 0]);
        let ethernet = Mbuf::from_bytes(&frame).unwrap().parse::<Ethernet>().unwrap();
        assert_eq!((ethernet.header_len(), inner + 2), (22, 18), "four bytes too many");
        assert!(ethernet.ether_type() != EtherTypes::Ipv4);
        // Ours hands a frame with a service tag to nobody, even where the same number in an 802.1Q tag is an interface's.
        let mac = Mac([4; 6]);
        let mut config = configuration("000102030405060708090a0b0c0d0e0f");
        config.interfaces[0].vlan = Some(7);
        let caps = [1500, 1700].map(|mtu| PortCaps { mac, mtu });
        let view = compile::compile(&config, Incarnation(1), &caps).unwrap();
        let intake = Intake::new(&view, PortId(0), mac);
        assert_eq!(parse::link(&frame, &view, &intake).map(|_| ()), Err(Verdict::UnknownVlan));
        frame[12..14].copy_from_slice(&eth::ethertype::VLAN.to_be_bytes());
        let link = parse::link(&frame, &view, &intake).unwrap();
        assert_eq!((link.ethertype, link.payload), (eth::ethertype::IPV4, inner + 2));
    });
}

#[test]
fn padding_becomes_part_of_the_packet() {
    with_buffers("parsers::padding_becomes_part_of_the_packet", || {
        // A short packet in a frame of the least length of Ethernet, as every NIC delivers it.
        let mut frame = udp();
        let ip_len = frame.len() - IP;
        frame.resize(60, 0xee);
        let ip = Mbuf::from_bytes(&frame).unwrap().parse::<Ethernet>().unwrap().parse::<Ipv4>().unwrap();
        assert_eq!(usize::from(ip.total_length()), ip_len);
        let mut udp = ip.parse::<Udp<Ipv4>>().unwrap();
        udp.reconcile_all();
        assert_eq!(usize::from(udp.length()), 60 - L4, "ten bytes of padding are sent on as data");
        assert_eq!(usize::from(udp.envelope().total_length()), 60 - IP);
        // Ours cuts the frame to the packet.
        assert_eq!(parsed(&frame).unwrap().1, ip_len);
    });
}

#[test]
fn a_datagram_without_checksum_gets_a_wrong_one() {
    with_buffers("parsers::a_datagram_without_checksum_gets_a_wrong_one", || {
        // Zero says that there is none (RFC 768); a receiver drops what has one that is wrong.
        let with_one = udp();
        let frame = changed(with_one.clone(), L4 + 6, &[0, 0]);
        let ip = Mbuf::from_bytes(&frame).unwrap().parse::<Ethernet>().unwrap().parse::<Ipv4>().unwrap();
        let mut udp = ip.parse::<Udp<Ipv4>>().unwrap();
        udp.set_dst_ip([10, 10, 0, 21].into()).unwrap();
        assert_ne!(udp.checksum(), 0);
        // Ours leaves it at zero.
        let rewritten = |mut frame: Vec<u8>| {
            let (ip, rest) = frame[IP..].split_at_mut(L4 - IP);
            let addresses = ipv4::translate(ip.try_into().unwrap(), Addr::v4(SRC), Addr::v4([10, 10, 0, 21]));
            wire_udp::translate((&mut rest[..8]).try_into().unwrap(), addresses, 20_000, 8080);
            frame
        };
        let none = rewritten(frame);
        assert_eq!(we_read(&none), "udp 192.168.1.5 20000 > 10.10.0.21 8080");
        assert_eq!(none[L4 + 6..L4 + 8], [0, 0]);
        // What has one gets the one that an independent implementation computes.
        let mut wanted = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(SRC, [10, 10, 0, 21], 63);
        builder.udp(20_000, 8080).write(&mut wanted, b"payload.").unwrap();
        assert_eq!(rewritten(with_one)[L4..], wanted[L4..]);
    });
}
