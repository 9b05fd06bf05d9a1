"""A case of the golden packets: what comes in, what has to go out, and the neighbours that every case needs."""

from collections import Counter
from pathlib import Path

import capture
import world
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP
from scapy.packet import Packet
from world import FAR, NEAR, NODE_BACK, NODE_FRONT, OWN, PEER_BACK, ROUTER, SERVER, TAGGED, VLAN, host_mac, link

# What a node takes from a port in a turn.
BURST = 32
SHORTEST = 60
# Ethernet padding: anything but zero, so that a checksum over it would show.
PADDING = 0xA5


class Case:
    """What comes in on both ports, what has to go out, and what has to be refused."""

    def __init__(self, over: int, folder: Path) -> None:
        self.over = over
        self.folder = folder
        self.front: list[bytes] = []
        self.back: list[bytes] = []
        self.expected_front: list[bytes] = []
        self.expected_back: list[bytes] = []
        self.drops: Counter[str] = Counter()
        _neighbours(self)

    def send(self, frame: Packet | bytes, *front: Packet, back: Packet | None = None) -> None:
        """A frame on the front port, and the frames that it makes the node send."""
        self.front.append(_padded(frame))
        self._expect(front, back)

    def steer(self, frame: Packet | bytes, *front: Packet, back: Packet | None = None) -> None:
        """A frame on the backplane, and the frames that it makes the node send."""
        self.back.append(_padded(frame))
        self._expect(front, back)

    def refuse(self, reason: str, frame: Packet | bytes) -> None:
        """A frame on the front port that goes no further."""
        self.send(frame)
        self.drops[reason] += 1

    def refuse_steered(self, reason: str, frame: Packet | bytes) -> None:
        """A frame on the backplane that goes no further."""
        self.steer(frame)
        self.drops[reason] += 1

    def settle(self) -> None:
        """What comes after this is received after everything before it, whichever port it comes on."""
        turns = max(1, -(-len(self.front) // BURST), -(-len(self.back) // BURST))
        own, peer = world.BACKPLANE[self.over]
        answer = arp_answer if self.over == 4 else advertisement
        while len(self.front) < turns * BURST:
            self.send(arp_answer(world.TAGGED_SERVER, "10.70.0.11", host_mac(world.TAGGED_SERVER), NODE_FRONT, VLAN))
        while len(self.back) < turns * BURST:
            self.steer(answer(peer, own, PEER_BACK, NODE_BACK))

    def _expect(self, front: tuple[Packet, ...], back: Packet | None) -> None:
        self.expected_front += [bytes(frame) for frame in front]
        self.expected_back += [bytes(back)] if back else []

    def write(self, name: str) -> None:
        """Writes the four files of the case."""
        for port, given, expected in [
            ("front", self.front, self.expected_front),
            ("back", self.back, self.expected_back),
        ]:
            capture.write(self.folder / f"{name}.{port}.in.pcap", given)
            capture.write(self.folder / f"{name}.{port}.expected.pcap", expected)


def _padded(frame: Packet | bytes) -> bytes:
    raw = bytes(frame)
    if isinstance(frame, bytes):
        return raw
    return raw + bytes([PADDING]) * (SHORTEST - len(raw))


def arp_answer(host: str, node: str, own: str, mac: str, vlan: int | None = None) -> Packet:
    """A host, whose Ethernet address is `own`, tells it to the node at `mac`."""
    answer = ARP(op="is-at", hwsrc=own, psrc=host, hwdst=mac, pdst=node)
    return link(answer, mac, own, vlan)


def advertisement(host: str, node: str, own: str, mac: str, vlan: int | None = None) -> Packet:
    """The same in IPv6."""
    message = ICMPv6ND_NA(tgt=host, R=0, S=1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=own)
    return link(IPv6(src=host, dst=node, hlim=255) / message, mac, own, vlan)


def arp_exchange(host: str, target: str, vlan: int | None = None) -> tuple[Packet, Packet]:
    """A host asks who has `target`, and the node's answer."""
    question = ARP(op="who-has", hwsrc=host_mac(host), psrc=host, hwdst="00:00:00:00:00:00", pdst=target)
    answer = ARP(op="is-at", hwsrc=NODE_FRONT, psrc=target, hwdst=host_mac(host), pdst=host)
    return (
        link(question, "ff:ff:ff:ff:ff:ff", host_mac(host), vlan),
        link(answer, host_mac(host), NODE_FRONT, vlan),
    )


def solicitation(host: str, target: str, vlan: int | None = None) -> Packet:
    """A host asks who has `target`; without an address (`::`) to find out whether it is free."""
    group, mac = world.solicited(target)
    message = ICMPv6ND_NS(tgt=target)
    if host != "::":
        message /= ICMPv6NDOptSrcLLAddr(lladdr=host_mac(host))
    return link(IPv6(src=host, dst=group, hlim=255) / message, mac, host_mac(host), vlan)


def discovery_exchange(host: str, target: str, vlan: int | None = None) -> tuple[Packet, Packet]:
    """A host's solicitation and the node's advertisement."""
    free = host == "::"
    to, mac = ("ff02::1", "33:33:00:00:00:01") if free else (host, host_mac(host))
    message = ICMPv6ND_NA(tgt=target, R=0, S=0 if free else 1, O=1) / ICMPv6NDOptDstLLAddr(lladdr=NODE_FRONT)
    answer = link(IPv6(src=target, dst=to, hlim=255) / message, mac, NODE_FRONT, vlan)
    return solicitation(host, target, vlan), answer


def _neighbours(case: Case) -> None:
    """The clients on the link ask for the node's address; hosts and the peer answer its questions for theirs."""
    case.send(*arp_exchange(NEAR[4], OWN[4]))
    case.send(*arp_exchange(TAGGED[4], "10.70.0.11", VLAN))
    case.send(*discovery_exchange(NEAR[6], OWN[6]))
    case.send(*discovery_exchange(TAGGED[6], "fd70::11", VLAN))
    while len(case.front) < BURST:
        case.send(arp_exchange(NEAR[4], "10.10.0.77")[0])
    for host in (SERVER[4], ROUTER[4]):
        case.send(arp_answer(host, OWN[4], host_mac(host), NODE_FRONT))
    for host in (SERVER[6], ROUTER[6]):
        case.send(advertisement(host, OWN[6], host_mac(host), NODE_FRONT))
    case.settle()


def from_client(packet: Packet) -> Packet:
    """A client's packet as the node receives it: from the router, from the client itself, or in a VLAN."""
    return link(packet, NODE_FRONT, _way(packet.src), _vlan(packet.src))


def to_client(packet: Packet) -> Packet:
    """A packet that the node sends to a client."""
    return link(packet, _way(packet.dst), NODE_FRONT, _vlan(packet.dst))


def _vlan(client: str) -> int | None:
    return VLAN if client in TAGGED.values() else None


def _way(client: str) -> str:
    kind = 6 if ":" in client else 4
    return host_mac(ROUTER[kind] if client == FAR[kind] else client)
