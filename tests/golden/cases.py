"""The golden packets: for each case what clients, servers and the peer send, and what the node has to send then."""

from pathlib import Path

import capture
import world
from case import Case, arp_exchange, discovery_exchange, from_client, solicitation, to_client
from packets import aged, flows, fresh, payload, rewritten
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from scapy.utils import checksum
from world import FAR, MTU, NEAR, NODE_FRONT, OWN, PEER_SNAT, SERVER, SERVER_PORT, SNAT, TAGGED, VLAN, host_mac, link

FAMILIES = (4, 6)
# The virtual servers of main.rs, by the family of their clients.
NAT = {4: "10.99.0.1", 6: "fd99::1"}
DSR = {4: "10.99.0.2", 6: "fd99::2"}
AWAY = {4: "10.99.0.7", 6: "fd99::7"}
ON_LINK = {4: "10.10.0.99", 6: "fd10::99"}
DSR_TAGGED = "10.99.0.8"
# Those with tunnels, and the family that the tunnel runs over.
IPIP = [(4, "10.99.0.3", 4), (6, "fd99::3", 6), (4, "10.99.0.5", 6), (6, "fd99::5", 4)]
GUE = [(4, "10.99.0.4", 4), (6, "fd99::4", 6), (4, "10.99.0.6", 6), (6, "fd99::6", 4)]


def to_server(packet: Packet, over: int) -> Packet:
    """A packet that the node sends to the real server."""
    return link(packet, host_mac(SERVER[over]), NODE_FRONT)


def by_dsr(packet: Packet) -> Packet:
    """What `dsr-l2` makes of a packet."""
    return to_server(aged(packet), world.family(packet))


def by_ipip(packet: Packet, over: int) -> Packet:
    """What `ipip` makes of it."""
    number = 41 if world.family(packet) == 6 else 4
    spread = world.label(world.flow_hash(packet))
    return to_server(world.outer(OWN[over], SERVER[over], packet, number, spread) / aged(packet), over)


def by_gue(packet: Packet, over: int) -> Packet:
    """What `gue` makes of it."""
    value = world.flow_hash(packet)
    envelope = world.outer(OWN[over], SERVER[over], packet, 17, world.label(value))
    port = UDP(sport=world.outer_port(value), dport=world.GUE_PORT, chksum=0)
    return to_server(envelope / port / bytes(aged(packet)), over)


def _openers() -> list[Packet]:
    return [packet for kind in FAMILIES for packet in flows(kind, NAT[kind], 2000)]


def nat_openers(case: Case) -> None:
    """The first packets of NATed flows. What becomes of them is judged in `nat`, when their SNAT ports are known."""
    for packet in _openers():
        case.send(from_client(packet))


def _snat_ports(openers: list[Packet], path: Path) -> list[int]:
    """The source ports that the node gave to the flows; they must name the flows' buckets."""
    ports = []
    for raw in capture.read(path):
        frame = Ether(raw)
        ends = frame.getlayer(TCP) or frame.getlayer(UDP)
        if frame.dst in map(host_mac, SERVER.values()) and ends and ends.dport == SERVER_PORT:
            ports.append(ends.sport)
    if len(ports) != len(openers):
        raise ValueError(f"{len(openers)} flows were opened and {len(ports)} packets reached the server")
    for packet, port in zip(openers, ports):
        if port % 4096 != world.bucket(world.flow_hash(packet)) or port < 4096:
            raise ValueError(f"{packet.summary()}: SNAT port {port} does not name the flow's bucket")
    return ports


def nat(case: Case) -> None:
    """Whole conversations: every flow's first packet, the server's answers, the client's further packets."""
    openers = _openers()
    ports = _snat_ports(openers, case.folder / "nat-openers.front.out.pcap")
    forward = {}
    for packet, port in zip(openers, ports):
        kind = world.family(packet)
        ends = (SNAT[kind], port), (SERVER[kind], SERVER_PORT)
        forward[id(packet)] = ends
        case.send(from_client(packet), to_server(rewritten(packet, *ends), kind))
    case.settle()
    # Two of every three; each sort of header and each length is among them.
    for number, opener in enumerate(openers):
        if number % 3 == 0:
            continue
        kind, ends = world.family(opener), forward[id(opener)]
        for packet in _conversation(opener, ends):
            if packet.src == opener.src:
                case.send(from_client(packet), to_server(rewritten(packet, *ends), kind))
                continue
            transport = opener.getlayer(TCP) or opener.getlayer(UDP)
            back = rewritten(packet, (opener.dst, 80), (opener.src, transport.sport))
            if number % 5 == 1:
                # It came in at the peer, which steered it home.
                case.steer(world.from_peer(packet, case.over), to_client(back))
            else:
                case.send(link(packet, NODE_FRONT, host_mac(SERVER[kind])), to_client(back))


def _conversation(opener: Packet, ends: tuple) -> list[Packet]:
    """What follows a flow's first packet, as client and server send it. `ends` are those that the server sees."""
    client = opener.getlayer(TCP) or opener.getlayer(UDP)
    kind, length = world.family(opener), len(client.payload)
    (snat, port), (server, server_port) = ends
    ip = IPv6 if kind == 6 else IP
    home, away = ip(src=opener.src, dst=opener.dst), ip(src=server, dst=snat)
    if isinstance(client, UDP):
        ports = {"sport": server_port, "dport": port}
        sent = [away / UDP(**ports) / payload(length + 1), away / UDP(**ports) / payload(300)]
        if kind == 4:
            sent.append(away / UDP(chksum=0, **ports) / payload(length + 3))
        as_seen = ip(src=opener.dst, dst=opener.src) / UDP(sport=80, dport=client.sport)
        # Checksums that come out as zero, which UDP writes as all ones: behind the node, and before it.
        sent.append(away / UDP(**ports) / _cancelling(as_seen))
        sent.append(away / UDP(**ports) / _cancelling(away / UDP(**ports)))
        sent.append(home / UDP(sport=client.sport, dport=80) / payload(length + 2))
        return [fresh(packet) for packet in sent]

    def segment(way: Packet, flags: str, data: bytes = b"", **more: object) -> Packet:
        numbers = (client.sport, 80) if way is home else (server_port, port)
        return fresh(way / TCP(sport=numbers[0], dport=numbers[1], flags=flags, **more) / data)

    as_seen = ip(src=opener.dst, dst=opener.src) / TCP(sport=80, dport=client.sport, flags="PA", seq=9001, ack=2)
    return [
        segment(away, "SA", seq=9000, ack=1, options=[("MSS", 1440), ("Timestamp", (1, 2))]),
        segment(home, "A", seq=1, ack=9001),
        segment(home, "PA", payload(length + 1), seq=1, ack=9001),
        segment(away, "A", seq=9001, ack=2),
        segment(away, "PA", _cancelling(as_seen), seq=9001, ack=2),
        segment(away, "PA", payload(400 + length % 2), seq=9003, ack=2, window=1),
        segment(home, "FA", seq=2, ack=9003),
        segment(away, "FA", seq=9003, ack=3),
        segment(home, "A", seq=3, ack=9004),
    ]


def _cancelling(packet: Packet) -> bytes:
    """Two bytes of payload with which the packet's transport checksum is zero."""
    whole = fresh(packet / bytes(2))
    return (whole.getlayer(TCP) or whole.getlayer(UDP)).chksum.to_bytes(2, "big")


def dsr(case: Case) -> None:
    """MAC rewrite, to a server on the link and to one in a VLAN."""
    for kind in FAMILIES:
        for packet in flows(kind, DSR[kind], 3000):
            case.send(from_client(packet), by_dsr(packet))
    for packet in list(flows(4, DSR_TAGGED, 3500))[:9]:
        out = link(aged(packet), host_mac(world.TAGGED_SERVER), NODE_FRONT, VLAN)
        case.send(from_client(packet), out)


def ipip(case: Case) -> None:
    """IP in IP, all four ways."""
    for kind, vip, over in IPIP:
        for packet in flows(kind, vip, 4000):
            case.send(from_client(packet), by_ipip(packet, over))


def gue(case: Case) -> None:
    """GUE, all four ways."""
    for kind, vip, over in GUE:
        for packet in flows(kind, vip, 5000):
            case.send(from_client(packet), by_gue(packet, over))


def steered_out(case: Case) -> None:
    """Clients' packets whose virtual server only the peer serves, and servers' answers to the peer's SNAT address."""
    for kind in FAMILIES:
        for packet in flows(kind, AWAY[kind], 6000):
            # The second one is steered by the steering session that the first has made.
            for _ in range(2):
                case.send(from_client(packet), back=world.steered(packet, case.over))
        ip = IPv6 if kind == 6 else IP
        for length in (0, 1, 1300):
            reply = ip(src=SERVER[kind], dst=PEER_SNAT[kind]) / TCP(sport=8080, dport=4096 + length, flags="PA")
            reply = fresh(reply / payload(length))
            case.send(link(reply, NODE_FRONT, host_mac(SERVER[kind])), back=world.steered(reply, case.over))


def steered_in(case: Case) -> None:
    """What the peer steers to the node, and frames that no living peer has sent."""
    for kind in FAMILIES:
        for packet in flows(kind, DSR[kind], 7000):
            case.steer(world.from_peer(packet, case.over), by_dsr(packet))
    for methods, make in ((IPIP, by_ipip), (GUE, by_gue)):
        for kind, vip, over in methods:
            for packet in list(flows(kind, vip, 7500))[::5]:
                case.steer(world.from_peer(packet, case.over), make(packet, over))
    packet = next(iter(flows(4, DSR[4], 7900)))
    for reason, frame in [
        ("backplane_cookie", world.from_peer(packet, case.over, proof=world.cookie(world.PEER, world.PEER_LIFE + 1))),
        ("backplane_malformed", world.from_peer(packet, case.over, stage=0)),
        ("backplane_malformed", world.from_peer(packet, case.over, stage=9)),
        ("backplane_malformed", world.from_peer(packet, case.over, sender=world.NODE)),
        ("backplane_malformed", world.from_peer(packet, case.over, sender=9)),
    ]:
        case.refuse_steered(reason, frame)
        case.steer(world.from_peer(packet, case.over), by_dsr(packet))
    # A flow that isn't the node's goes back to its owner, once; and a packet tells its size where it ends.
    away = next(iter(flows(4, AWAY[4], 7901)))
    returned = world.STAGE_RETURNED
    case.steer(world.from_peer(away, case.over), back=world.steered(away, case.over, stage=returned))
    case.refuse_steered("stage_exhausted", world.from_peer(away, case.over, stage=returned))
    for kind, vip, over in IPIP:
        big = _of_size(kind, vip, MTU)
        case.steer(world.from_peer(big, case.over), _too_big(big, MTU - (20 if over == 4 else 40)))
        case.drops["too_big"] += 1
    case.settle()
    # The same frame on a front port is refused.
    frame = world.from_peer(packet, case.over)
    frame.dst = NODE_FRONT
    case.refuse("bad_address", frame)


def local(case: Case) -> None:
    """ARP, neighbour discovery and echo, with and without a VLAN tag."""
    for target in (OWN[4], SNAT[4], ON_LINK[4]):
        case.send(*arp_exchange(NEAR[4], target))
    case.send(*arp_exchange(TAGGED[4], "10.70.0.11", VLAN))
    # Not ours to answer, but the sender is a neighbour that it tells of.
    case.send(arp_exchange(NEAR[4], "10.10.0.77")[0])
    case.send(arp_exchange(NEAR[4], PEER_SNAT[4])[0])
    case.refuse("neighbour_ignored", arp_exchange(FAR[4], "10.10.0.77")[0])
    for target in (OWN[6], SNAT[6], ON_LINK[6]):
        case.send(*discovery_exchange(NEAR[6], target))
        case.send(*discovery_exchange("::", target))
    case.send(*discovery_exchange(TAGGED[6], "fd70::11", VLAN))
    case.refuse("neighbour_ignored", solicitation(NEAR[6], "fd10::77"))
    for length in (0, 1, 2, 33, 56, 1400):
        for number, kind in enumerate(FAMILIES * 3):
            client = (FAR, NEAR, TAGGED)[number // 2][kind]
            for target in (OWN[kind], NAT[kind], SNAT[kind]):
                _ping(case, client, target, 7 * length, length)
    # A reply that is all zero has all ones for a checksum.
    request = fresh(IP(src=FAR[4], dst=NAT[4], flags="DF") / ICMP(type=8, id=0, seq=0) / bytes(8))
    answer = fresh(IP(src=NAT[4], dst=FAR[4], flags="DF") / ICMP(type=0, id=0, seq=0, chksum=0xFFFF) / bytes(8))
    case.send(from_client(request), to_client(answer))
    ip = IP(src=FAR[4], dst=NAT[4], id=5, tos=8, options=b"\x94\x04\0\0\x01\x01\x01\0") / ICMP(type=8, id=1) / b"odd"
    answer = fresh(ip)
    (answer.src, answer.dst, answer.ttl, answer[ICMP].type) = (NAT[4], FAR[4], 64, 0)
    del answer.chksum, answer[ICMP].chksum
    case.send(from_client(fresh(ip)), to_client(fresh(answer)))
    head = IPv6(src=FAR[6], dst=NAT[6], tc=8, fl=3, hlim=9) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    back = IPv6(src=NAT[6], dst=FAR[6], tc=8, fl=3, hlim=64) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    request = fresh(head / ICMPv6EchoRequest(id=1, seq=2, data=b"odd"))
    case.send(from_client(request), to_client(fresh(back / ICMPv6EchoReply(id=1, seq=2, data=b"odd"))))


def _ping(case: Case, client: str, target: str, number: int, length: int) -> None:
    if ":" in client:
        request = IPv6(src=client, dst=target, hlim=5) / ICMPv6EchoRequest(id=number, seq=1, data=payload(length))
        answer = IPv6(src=target, dst=client, hlim=64) / ICMPv6EchoReply(id=number, seq=1, data=payload(length))
    else:
        request = IP(src=client, dst=target, ttl=5, id=number) / ICMP(type=8, id=number, seq=1) / payload(length)
        answer = IP(src=target, dst=client, ttl=64, id=number) / ICMP(type=0, id=number, seq=1) / payload(length)
    case.send(from_client(fresh(request)), to_client(fresh(answer)))


def _of_size(kind: int, vip: str, size: int, flags: str = "DF") -> Packet:
    """A TCP packet of so many bytes."""
    ip = IPv6(src=FAR[6], dst=vip) if kind == 6 else IP(src=FAR[4], dst=vip, flags=flags, id=size)
    head = fresh(ip / TCP(sport=8000, dport=80, flags="A", seq=size))
    return fresh(ip / TCP(sport=8000, dport=80, flags="A", seq=size) / payload(size - len(head)))


def _too_big(packet: Packet, mtu: int) -> Packet:
    """What the sender of a packet that is larger than `mtu` is told; it quotes what a minimal MTU carries."""
    if isinstance(packet, IPv6):
        head = IPv6(src=packet.dst, dst=packet.src, hlim=64) / ICMPv6PacketTooBig(mtu=mtu)
        return to_client(fresh(head / bytes(packet)[: 1280 - 48]))
    head = IP(src=packet.dst, dst=packet.src, ttl=64, flags="DF", id=0) / ICMP(type=3, code=4, nexthopmtu=mtu)
    return to_client(fresh(head / bytes(packet)[: 576 - 28]))


def too_big(case: Case) -> None:
    """Packets that just fit behind the tunnel's headers, and ones that don't."""
    for methods, make, more in ((IPIP, by_ipip, 0), (GUE, by_gue, 8)):
        for kind, vip, over in methods:
            room = MTU - (20 if over == 4 else 40) - more
            fits = _of_size(kind, vip, room)
            case.send(from_client(fits), make(fits, over))
            for size in (room + 1, MTU):
                packet = _of_size(kind, vip, size)
                case.send(from_client(packet), _too_big(packet, room))
                case.drops["too_big"] += 1
            if kind == 4:
                case.refuse("too_big_silent", from_client(_of_size(4, vip, MTU, flags="")))


def malformed(case: Case) -> None:
    """Between good packets, bad ones that must not come out."""
    good = iter([packet for kind in FAMILIES for packet in flows(kind, DSR[kind], 9000)])
    for reason, frame in _bad_frames():
        case.refuse(reason, frame)
        packet = next(good)
        case.send(from_client(packet), by_dsr(packet))


def _bad_frames() -> list[tuple[str, Packet | bytes]]:
    def changed(packet: Packet, at: int, *values: int, mend: bool = True) -> bytes:
        """The frame of a packet with other bytes from offset `at` of its IP header on; an IPv4 checksum mended."""
        raw = bytearray(bytes(packet))
        raw[at : at + len(values)] = values
        if mend and raw[0] == 0x45:
            raw[10:12] = bytes(2)
            raw[10:12] = checksum(bytes(raw[:20])).to_bytes(2, "big")
        frame = bytes(from_client(packet))
        return frame[:14] + bytes(raw)

    tcp4, udp4 = (
        fresh(IP(src=FAR[4], dst=DSR[4]) / kind(sport=9999, dport=80) / payload(20)) for kind in (TCP, UDP)
    )
    tcp6, udp6 = (
        fresh(IPv6(src=FAR[6], dst=DSR[6]) / kind(sport=9999, dport=80) / payload(20)) for kind in (TCP, UDP)
    )
    whole, asked = bytes(from_client(tcp4)), bytes(arp_exchange(NEAR[4], OWN[4])[0])
    deep = IPv6(src=FAR[6], dst=DSR[6])
    for _ in range(9):
        deep /= IPv6ExtHdrDestOpt()
    return [
        ("ethernet_malformed", whole[:10]),
        ("not_our_mac", link(tcp4, "02:00:00:00:01:77", host_mac(FAR[4]))),
        ("unknown_vlan", link(tcp4, NODE_FRONT, host_mac(FAR[4]), vlan=8)),
        ("unknown_ethertype", Ether(dst=NODE_FRONT, src=host_mac(FAR[4]), type=0x88CC) / payload(50)),
        ("arp_malformed", asked[:14] + b"\0\x06" + asked[16:]),
        ("ip_malformed", changed(tcp4, 0, 0x55, mend=False)),
        ("ip_malformed", changed(tcp4, 0, 0x44, mend=False)),
        ("ip_malformed", changed(tcp4, 2, 0, 19)),
        ("ip_malformed", changed(tcp4, 2, 6, 0)),
        ("ip_malformed", whole[: 14 + 15]),
        ("ip_malformed", changed(tcp6, 4, 6, 0)),
        ("ip_malformed", bytes(from_client(tcp6))[: 14 + 39]),
        ("ip_checksum", changed(tcp4, 10, tcp4.chksum >> 8 ^ 1, mend=False)),
        ("bad_address", changed(tcp4, 12, 224)),
        ("bad_address", changed(tcp4, 12, 127)),
        ("bad_address", changed(tcp6, 8, 0xFF)),
        ("fragment", changed(tcp4, 6, 0x20, 0)),
        ("fragment", changed(tcp4, 6, 0, 3)),
        ("extension_headers", from_client(fresh(deep / TCP(sport=9999, dport=80)))),
        ("transport_malformed", changed(tcp4, 20 + 12, 0x40)),
        ("transport_malformed", changed(tcp4, 20 + 12, 0xF0)),
        ("transport_malformed", changed(tcp4, 20 + 13, 0x03)),
        ("transport_malformed", changed(tcp6, 40 + 13, 0x06)),
        ("transport_malformed", changed(udp4, 20 + 4, 1, 0)),
        ("transport_malformed", changed(udp6, 40 + 4, 0, 7)),
        ("not_our_address", changed(udp4, 16, 10, 99, 9, 9)),
        ("no_virtual_server", changed(udp4, 20 + 2, 0, 81)),
        ("no_virtual_server", changed(udp6, 6, 47)),
        ("no_session", from_client(fresh(IP(src=FAR[4], dst=NAT[4]) / TCP(sport=9999, dport=80, flags="A")))),
        ("no_session", link(fresh(IP(src=SERVER[4], dst=SNAT[4]) / TCP(sport=8080, dport=5000, flags="SA")),
                            NODE_FRONT, host_mac(SERVER[4]))),
        ("ttl_expired", changed(tcp4, 8, 1)),
        ("ttl_expired", changed(tcp6, 7, 1)),
        ("icmp_ignored", from_client(fresh(IP(src=FAR[4], dst=DSR[4]) / ICMP(type=5, code=1) / bytes(28)))),
        ("transport_malformed", changed(fresh(IP(src=FAR[4], dst=DSR[4]) / ICMP(type=8) / bytes(28)), 30, 1)),
    ]
