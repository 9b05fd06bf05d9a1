"""Packets of clients, and what a hop and a rewrite make of them, computed by scapy."""

from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP, IPOption, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, Pad1, PadN
from scapy.packet import Packet
from world import FAR, NEAR, TAGGED


def fresh(packet: Packet) -> Packet:
    """The packet with every length and checksum that is not set by hand filled in."""
    return type(packet)(bytes(packet))


def aged(packet: Packet) -> Packet:
    """The packet one hop further, its transport as it is."""
    packet = packet.copy()
    if isinstance(packet, IPv6):
        packet.hlim -= 1
    else:
        packet.ttl -= 1
        del packet.chksum
    return fresh(packet)


def rewritten(packet: Packet, src: tuple[str, int], dst: tuple[str, int]) -> Packet:
    """The packet one hop further with other ends, all checksums computed anew; none stays none."""
    packet = aged(packet)
    packet.src, packet.dst = src[0], dst[0]
    transport = packet.getlayer(TCP) or packet.getlayer(UDP)
    transport.sport, transport.dport = src[1], dst[1]
    if isinstance(packet, IP):
        del packet.chksum
    if transport.chksum != 0 or isinstance(transport, TCP):
        del transport.chksum
    return fresh(packet)


def payload(length: int) -> bytes:
    """So many bytes, none of them like its neighbour."""
    return bytes((i * 37 + 11) & 0xFF for i in range(length))


def variants(kind: int) -> Iterator[Packet]:
    """IP headers of all sorts that a client may send."""
    if kind == 4:
        yield IP(ttl=64, flags="DF", id=1)
        yield IP(ttl=3, tos=0xB9, id=0xFFFF)
        yield IP(ttl=255, flags="DF", id=0x8000, options=[IPOption_Router_Alert()])
        yield IP(ttl=61, id=77, options=[IPOption(bytes([7, 39, 4]) + bytes(36)), IPOption(b"\0")])
    else:
        hop = IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
        yield IPv6(hlim=64, fl=0x12345)
        yield IPv6(hlim=3, tc=0xB9)
        yield IPv6(hlim=255) / hop
        options = IPv6ExtHdrDestOpt(options=[Pad1(), PadN(optdata=bytes(17))])
        # A fragment header on a whole datagram (RFC 6946).
        yield IPv6(hlim=61) / hop / options / IPv6ExtHdrFragment(id=9)


def flows(kind: int, vip: str, first_port: int) -> Iterator[Packet]:
    """A client's packets to `vip`, each of a flow of its own: TCP and UDP, all sorts of headers, even and odd lengths."""
    port = first_port
    clients = (FAR[kind], NEAR[kind], TAGGED[kind])
    lengths = (0, 1, 2, 3, 7, 64, 133)
    for number, length in enumerate(lengths * 2):
        for head in variants(kind):
            head = head.copy()
            client = clients[port % 3]
            head.src, head.dst = client, vip
            if number < len(lengths):
                options = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)] if length % 2 else []
                transport = TCP(sport=port, dport=80, seq=1000 + port, ack=0, flags="S", options=options)
            else:
                transport = UDP(sport=port, dport=80)
            yield fresh(head / transport / payload(length))
            port += 1
    if kind == 4:
        for length in (0, 5, 100):
            yield fresh(
                IP(src=clients[0], dst=vip, id=port) / UDP(sport=port, dport=80, chksum=0) / payload(length)
            )
            port += 1
