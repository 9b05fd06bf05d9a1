//! Packets made by the independent implementation, and strategies for their fields.

use etherparse::{
    IpAuthHeader, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, TcpHeader,
};
use proptest::collection::vec;
use proptest::prelude::*;
use steerage::base::Addr;

/// Up to 100 bytes, the odd lengths too.
pub fn payload() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..100)
}

/// An IPv6 address that is no IPv4-mapped one.
pub fn v6() -> impl Strategy<Value = [u8; 16]> {
    any::<[u8; 16]>().prop_filter("IPv4-mapped", |a| !Addr(*a).is_v4())
}

/// Two addresses of one family.
pub fn pair() -> impl Strategy<Value = (Addr, Addr)> {
    prop_oneof![
        any::<[[u8; 4]; 2]>().prop_map(|[a, b]| (Addr::v4(a), Addr::v4(b))),
        (v6(), v6()).prop_map(|(a, b)| (Addr(a), Addr(b))),
    ]
}

/// IPv4 options: up to 40 bytes in steps of four.
pub fn ipv4_header() -> impl Strategy<Value = Ipv4Header> {
    let fields = (any::<[[u8; 4]; 2]>(), any::<u16>(), 1u8.., 0u8..64, 0u8..4);
    (fields, any::<[bool; 2]>(), prop_oneof![Just(0u16), 0u16..0x2000], vec(any::<[u8; 4]>(), 0..=10))
        .prop_map(|((addresses, id, ttl, dscp, ecn), [df, mf], offset, options)| {
            let mut header = Ipv4Header::new(0, ttl, IpNumber::TCP, addresses[0], addresses[1]).unwrap();
            header.identification = id;
            header.dscp = dscp.try_into().unwrap();
            header.ecn = ecn.try_into().unwrap();
            header.dont_fragment = df;
            header.more_fragments = mf;
            header.fragment_offset = IpFragOffset::try_new(offset).unwrap();
            header.options = options.as_flattened().try_into().unwrap();
            header
        })
}

/// An IPv6 fixed header.
pub fn ipv6_header() -> impl Strategy<Value = Ipv6Header> {
    (v6(), v6(), any::<u8>(), 0u32..1 << 20, 1u8..).prop_map(
        |(source, destination, traffic_class, label, hop_limit)| Ipv6Header {
            traffic_class,
            flow_label: Ipv6FlowLabel::try_new(label).unwrap(),
            payload_length: 0,
            next_header: IpNumber::TCP,
            hop_limit,
            source,
            destination,
        },
    )
}

/// Either IP header, without extension headers; its lengths and its protocol are filled in by [`transport`].
pub fn ip_headers() -> impl Strategy<Value = IpHeaders> {
    prop_oneof![
        ipv4_header().prop_map(|h| IpHeaders::Ipv4(h, Ipv4Extensions::default())),
        ipv6_header().prop_map(|h| IpHeaders::Ipv6(h, Ipv6Extensions::default())),
    ]
}

/// A TCP header with any options and flags.
pub fn tcp_header() -> impl Strategy<Value = TcpHeader> {
    let numbers = (any::<[u16; 2]>(), any::<[u32; 2]>(), any::<[u16; 2]>());
    (numbers, any::<[bool; 8]>(), vec(any::<[u8; 4]>(), 0..=10)).prop_map(
        |((ports, [seq, ack], [window, urgent]), f, options)| {
            let mut header = TcpHeader::new(ports[0], ports[1], seq, window);
            header.acknowledgment_number = ack;
            header.urgent_pointer = urgent;
            [header.fin, header.syn, header.rst, header.psh] = [f[0], f[1], f[2], f[3]];
            [header.ack, header.urg, header.ece, header.cwr] = [f[4], f[5], f[6], f[7]];
            header.set_options_raw(options.as_flattened()).unwrap();
            header
        },
    )
}

/// What stands above IP.
#[derive(Clone, Debug)]
pub enum Transport {
    Tcp(TcpHeader),
    Udp(u16, u16),
    Echo { reply: bool, id: u16, seq: u16 },
}

/// Any transport.
pub fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![
        tcp_header().prop_map(Transport::Tcp),
        any::<(u16, u16)>().prop_map(|(a, b)| Transport::Udp(a, b)),
        any::<(bool, u16, u16)>().prop_map(|(reply, id, seq)| Transport::Echo { reply, id, seq }),
    ]
}

/// The whole IP packet, all lengths and checksums right.
pub fn packet(ip: &IpHeaders, transport: &Transport, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let v4 = matches!(ip, IpHeaders::Ipv4(..));
    let step = PacketBuilder::ip(ip.clone());
    match transport {
        Transport::Tcp(tcp) => step.tcp_header(tcp.clone()).write(&mut out, payload),
        Transport::Udp(src, dst) => step.udp(*src, *dst).write(&mut out, payload),
        Transport::Echo { reply: false, id, seq } if v4 => {
            step.icmpv4_echo_request(*id, *seq).write(&mut out, payload)
        }
        Transport::Echo { id, seq, .. } if v4 => step.icmpv4_echo_reply(*id, *seq).write(&mut out, payload),
        Transport::Echo { reply: false, id, seq } => {
            step.icmpv6_echo_request(*id, *seq).write(&mut out, payload)
        }
        Transport::Echo { id, seq, .. } => step.icmpv6_echo_reply(*id, *seq).write(&mut out, payload),
    }
    .unwrap();
    out
}

/// One extension header of a chain, before its "next header" is known.
#[derive(Clone, Debug)]
pub enum Extension {
    /// Type (hop-by-hop, routing, destination options, mobility, HIP, shim6) and the bytes behind the length field.
    Raw(u8, Vec<u8>),
    /// Integrity check value.
    Authentication(Vec<u8>),
    Fragment {
        offset: u16,
        more: bool,
        id: u32,
    },
}

impl Extension {
    /// Its protocol number.
    pub fn number(&self) -> u8 {
        match self {
            Self::Raw(number, _) => *number,
            Self::Authentication(_) => 51,
            Self::Fragment { .. } => 44,
        }
    }

    fn write(&self, next: u8, out: &mut Vec<u8>) {
        match self {
            Self::Raw(_, bytes) => {
                Ipv6RawExtHeader::new_raw(IpNumber(next), bytes).unwrap().write(out).unwrap()
            }
            Self::Authentication(icv) => {
                IpAuthHeader::new(IpNumber(next), 1, 2, icv).unwrap().write(out).unwrap();
            }
            Self::Fragment { offset, more, id } => {
                let offset = IpFragOffset::try_new(*offset).unwrap();
                Ipv6FragmentHeader::new(IpNumber(next), offset, *more, *id).write(out).unwrap();
            }
        }
    }
}

/// An extension header of up to `8 * units` bytes that may stand anywhere, fragment headers left out.
pub fn extension(units: usize) -> impl Strategy<Value = Extension> {
    let numbers = prop_oneof![Just(43u8), Just(60), Just(135), Just(139), Just(140)];
    prop_oneof![
        4 => (numbers, 0..units).prop_map(|(n, u)| {
            let mut body = vec![0xab; 6 + 8 * u];
            body[1] = if n == 43 { 0 } else { 0xab }; // a routing header at its end
            Extension::Raw(n, body)
        }),
        1 => (0..=2 * units).prop_map(|words| Extension::Authentication(vec![0xcd; 4 * words.saturating_sub(3)])),
    ]
}

/// A packet with a chain of extension headers, and the offset of what follows them.
pub fn chained(header: &Ipv6Header, chain: &[Extension], upper: u8, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut body = Vec::new();
    for (i, extension) in chain.iter().enumerate() {
        extension.write(chain.get(i + 1).map_or(upper, Extension::number), &mut body);
    }
    let offset = 40 + body.len();
    body.extend_from_slice(payload);
    let mut header = header.clone();
    header.next_header = IpNumber(chain.first().map_or(upper, Extension::number));
    header.set_payload_length(body.len()).unwrap();
    let mut out = header.to_bytes().to_vec();
    out.append(&mut body);
    (out, offset)
}
