"""What the golden packets' world looks like, and a second implementation of what stands in a node's headers.

The addresses are those of the configuration in main.rs. The hash, the cookie and the header between nodes are written
here again from their description, so that an error in the node's own would show.
"""

import ipaddress
import struct

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, in6_getnsma, in6_getnsmac
from scapy.layers.l2 import Dot1Q, Ether

NODE_FRONT = "02:00:00:00:01:01"
NODE_BACK = "02:00:00:00:02:01"
PEER_BACK = "02:00:00:00:02:02"
SECRET = bytes(range(16))
DATA_PORT = 6600
CONTROL_PORT = 6599
GUE_PORT = 6080
BACKPLANE = {4: ("10.20.0.11", "10.20.0.12"), 6: ("fd20::11", "fd20::12")}
NODE, PEER = 0, 1
NODE_LIFE, PEER_LIFE = 7, 3
STAGE_OWNER = 2
STAGE_RETURNED = 4
HEADER_BYTES = 32
SNAT = {4: "10.10.0.101", 6: "fd10::101"}
PEER_SNAT = {4: "10.10.0.111", 6: "fd10::111"}
OWN = {4: "10.10.0.11", 6: "fd10::11"}
SERVER = {4: "10.10.0.21", 6: "fd10::21"}
SERVER_PORT = 8080
TAGGED_SERVER = "10.70.0.21"
ROUTER = {4: "10.10.0.254", 6: "fd10::fe"}
FAR = {4: "192.168.1.5", 6: "fd77::5"}
NEAR = {4: "10.10.0.1", 6: "fd10::1"}
TAGGED = {4: "10.70.0.1", 6: "fd70::1"}
VLAN = 7
MTU = 1500

M64 = (1 << 64) - 1


def host_mac(address: str) -> str:
    """The Ethernet address of the host with this IP address."""
    return f"02:00:00:00:09:{ipaddress.ip_address(address).packed[-1]:02x}"


def sip(key: tuple[int, int], data: bytes, compression: int, finalisation: int) -> int:
    """SipHash-c-d (Aumasson and Bernstein, 2012) with a 64-bit result."""

    def turn(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & M64

    v0, v1, v2, v3 = (
        k ^ c
        for k, c in zip(
            key * 2, (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
        )
    )

    def rounds(n: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(n):
            v0, v2 = (v0 + v1) & M64, (v2 + v3) & M64
            v1, v3 = turn(v1, 13) ^ v0, turn(v3, 16) ^ v2
            v0 = turn(v0, 32)
            v2, v0 = (v2 + v1) & M64, (v0 + v3) & M64
            v1, v3 = turn(v1, 17) ^ v2, turn(v3, 21) ^ v0
            v2 = turn(v2, 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v3 ^= word
        rounds(compression)
        v0 ^= word
    v2 ^= 0xFF
    rounds(finalisation)
    return v0 ^ v1 ^ v2 ^ v3


def _derive(domain: int) -> tuple[int, int]:
    first, second = (sip((domain, half), SECRET, 2, 4) for half in (1, 2))
    return first, second


HASH_KEY, AUTH_KEY = _derive(1), _derive(2)


def cookie(sender: int, life: int) -> int:
    """What proves that a data frame comes from that life of a node."""
    return sip(AUTH_KEY, struct.pack(">HHI", sender, 0, life), 2, 4)


def flow_hash(packet: IP | IPv6) -> int:
    """The keyed hash of the packet's tuple."""
    transport = packet.getlayer(TCP) or packet.getlayer(UDP)
    number = 6 if transport.name == "TCP" else 17
    ends = b"".join(ipaddress.ip_address(a).packed for a in (packet.src, packet.dst))
    tail = struct.pack("<HHB3x", transport.sport, transport.dport, number)
    return sip(HASH_KEY, ends + tail, 1, 3)


def _mix(x: int) -> int:
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & M64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & M64
    return x ^ x >> 31


def bucket(value: int) -> int:
    """The bucket of a flow hash."""
    return _mix(value ^ 0x6275636B65740001) % 4096


def label(value: int) -> int:
    """What a tunnel's IPv6 flow label is cut from."""
    return _mix(value ^ 0x736C6F7400000002) & 0xFFFFFFFF


def outer_port(value: int) -> int:
    """The UDP source port of a frame that carries this flow."""
    return 0xC000 | _mix(value ^ 0x706F727400000004) & 0x3FFF


def header(stage: int, sender: int, life: int, value: int, proof: int) -> bytes:
    """The header of a steered packet."""
    return struct.pack(">BBBxHxxI4xQQ", 0x5B, 1, stage, sender, life, value, proof)


def family(packet: IP | IPv6) -> int:
    """4 or 6."""
    return 6 if isinstance(packet, IPv6) else 4


def ip_class(packet: IP | IPv6) -> int:
    """DSCP and ECN."""
    return packet.tc if isinstance(packet, IPv6) else packet.tos


def outer(
    source: str, target: str, inside: IP | IPv6, number: int, spread: int
) -> IP | IPv6:
    """The outer header that a node puts in front of `inside`."""
    if ":" in target:
        return IPv6(src=source, dst=target, tc=ip_class(inside), fl=spread & 0xFFFFF, hlim=64, nh=number)
    return IP(src=source, dst=target, tos=ip_class(inside), id=0, flags="DF", ttl=64, proto=number)


def steered(packet: IP | IPv6, over: int, value: int | None = None, stage: int = STAGE_OWNER) -> Ether:
    """The backplane frame in which the node steers `packet` to its peer."""
    value = flow_hash(packet) if value is None else value
    own, peer = BACKPLANE[over]
    port = outer_port(value)
    envelope = outer(own, peer, packet, 17, label(value))
    load = header(stage, NODE, NODE_LIFE, value, cookie(NODE, NODE_LIFE)) + bytes(packet)
    return Ether(dst=PEER_BACK, src=NODE_BACK) / envelope / UDP(sport=port, dport=DATA_PORT, chksum=0) / load


def from_peer(packet: IP | IPv6, over: int, value: int | None = None, stage: int = STAGE_OWNER, **forged: int) -> Ether:
    """The backplane frame in which the peer steers `packet` to the node; `forged` are other header fields."""
    own, peer = BACKPLANE[over]
    value = flow_hash(packet) if value is None else value
    fields = {"sender": PEER, "life": PEER_LIFE, "proof": cookie(PEER, PEER_LIFE)} | forged
    load = header(stage, fields["sender"], fields["life"], value, fields["proof"]) + bytes(packet)
    envelope = IPv6(src=peer, dst=own, hlim=64) if over == 6 else IP(src=peer, dst=own, ttl=64, flags="DF")
    return Ether(dst=NODE_BACK, src=PEER_BACK) / envelope / UDP(sport=50000, dport=DATA_PORT, chksum=0) / load


def link(packet, dst: str, src: str, vlan: int | None = None) -> Ether:
    """`packet` in Ethernet, tagged if asked for."""
    frame = Ether(dst=dst, src=src)
    return frame / Dot1Q(vlan=vlan) / packet if vlan else frame / packet


def solicited(address: str) -> tuple[str, str]:
    """The solicited-node group of an IPv6 address, and its Ethernet address."""
    group = in6_getnsma(ipaddress.ip_address(address).packed)
    return str(ipaddress.ip_address(group)), in6_getnsmac(group)
