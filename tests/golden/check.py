"""Judges what a node has sent: `check.py CASE.PORT.out.pcap…` prints what is wrong, a line each.

- Each file holds the frames of CASE.PORT.expected.pcap, and nothing else but what a node says unasked.
- Neither tshark nor scapy has anything against a packet: lengths, checksums, and whatever else tshark looks at. Packets
  that tunnels over UDP carry (GUE, the backplane's own) are judged too, as frames of their own.
- Both have something against every packet with a damaged checksum.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import capture
import world
from scapy.config import conf
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6PacketTooBig, IPerror6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

TSHARK = [
    *("tshark", "-n"),
    *("-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"),
    # Frames between nodes and tunnels go without one over IPv6 too; that nothing else does, scapy's part sees to.
    *("-o", "udp.ignore_ipv6_zero_checksum:TRUE"),
    # The captures hold no whole connections, and what is missing is no fault of a packet.
    *("-o", "tcp.analyze_sequence_numbers:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"),
    # Our payload is nothing that tshark knows, whatever the ports say.
    *("-d", "tcp.port==0-65535,data", "-d", "udp.port==0-65535,data"),
]
WARNING = 0x600000
# The transport that an ICMP error quotes is cut off, and tshark sums what is left of it.
QUOTING = "(icmp.type == 3 || icmpv6.type == 2)"
COMPLAINT = (
    "_ws.malformed || _ws.unreassembled"
    ' || ip.checksum.status == "Bad" || icmp.checksum.status == "Bad" || icmpv6.checksum.status == "Bad"'
    f' || !{QUOTING} && (tcp.checksum.status == "Bad" || udp.checksum.status == "Bad"'
    f" || _ws.expert.severity >= {WARNING})"
)
SUMS = {
    IP: "chksum",
    TCP: "chksum",
    UDP: "chksum",
    ICMP: "chksum",
    ICMPv6EchoReply: "cksum",
    ICMPv6ND_NA: "cksum",
    ICMPv6ND_NS: "cksum",
    ICMPv6PacketTooBig: "cksum",
}
# UDP ports that carry a packet, and the bytes of the header in front of it.
TUNNELS = {world.GUE_PORT: 0, world.DATA_PORT: world.HEADER_BYTES}
# Those that need no checksum over IPv6: tunnels (RFC 6935), and control frames, which end in a code of their own.


def by_tshark(frames: list[bytes]) -> dict[int, str]:
    """What tshark complains of, by the index of the frame."""
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        capture.write(Path(file.name), frames)
        command = [*TSHARK, "-r", file.name, "-Y", COMPLAINT, "-T", "fields", "-E", "separator=/t"]
        command += ["-e", "frame.number", "-e", "_ws.expert.message", "-e", "_ws.col.Info"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = (line.split("\t", 1) for line in done.stdout.splitlines())
    return {int(number) - 1: text for number, text in lines}


def layers(packet: Packet) -> list[Packet]:
    """The layers of a packet, without those that an error quotes."""
    found = []
    while packet and not isinstance(packet, (IPerror, IPerror6)):
        found.append(packet)
        packet = packet.payload
    return found


def by_scapy(frames: list[bytes]) -> dict[int, str]:
    """Frames whose checksums differ from those that scapy computes, or that it would write otherwise."""
    complaints = {}
    for i, raw in enumerate(frames):
        packet = Ether(raw)
        chain = layers(packet)
        for below, layer in zip([None, *chain], chain):
            if isinstance(layer, UDP) and layer.chksum == 0:
                if isinstance(below, IP) or layer.dport in TUNNELS:
                    continue
                complaints[i] = "UDP over IPv6 without a checksum"
            if type(layer) in SUMS:
                delattr(layer, SUMS[type(layer)])
        if bytes(packet) != raw:
            differing = next((at for at, (a, b) in enumerate(zip(bytes(packet), raw)) if a != b), "its end")
            complaints.setdefault(i, f"differs from what scapy writes at offset {differing}: {packet.summary()}")
        if any(isinstance(layer, IP) and layer.len != len(layer.original) for layer in chain):
            complaints.setdefault(i, "its length is not the packet's")
    return complaints


def inner(raw: bytes) -> list[bytes]:
    """The packets that tunnels over UDP in a frame carry, as frames."""
    udp = Ether(raw).getlayer(UDP)
    if udp is None or udp.dport not in TUNNELS:
        return []
    packet = bytes(udp.payload)[TUNNELS[udp.dport] :]
    kind = {4: b"\x08\0", 6: b"\x86\xdd"}[packet[0] >> 4]
    frame = raw[:12] + kind + packet
    return [frame, *inner(frame)]


def with_inner(path: Path) -> list[bytes]:
    """A file's frames, and those that they carry."""
    return [frame for raw in capture.read(path) for frame in [raw, *inner(raw)]]


def damaged(raw: bytes) -> list[tuple[type[Packet], bytes]]:
    """The frame with a wrong checksum, once for each layer that has one."""
    out, at = [], 0
    for layer in layers(Ether(raw)):
        kind = type(layer)
        if kind in SUMS and layer.getfieldval(SUMS[kind]):
            where = at + {IP: 10, TCP: 16, UDP: 6}.get(kind, 2)
            out.append((kind, raw[:where] + bytes([raw[where] ^ 0x40]) + raw[where + 1 :]))
        at += len(layer.original) - len(layer.payload.original)
    return out


def complaints_about(frames: list[bytes]) -> list[tuple[str, dict[int, str]]]:
    """Both judges' complaints."""
    return [("tshark", by_tshark(frames)), ("scapy", by_scapy(frames))]


def judge(paths: list[Path]) -> list[str]:
    """What tshark and scapy have against the packets."""
    named = [(path.name, raw) for path in paths for raw in with_inner(path)]
    out = []
    for who, complaints in complaints_about([raw for _, raw in named]):
        for i, text in complaints.items():
            name, raw = named[i]
            out.append(f"{name}: {who}: {text}: {raw.hex()}")
    return out


def control(paths: list[Path]) -> list[str]:
    """Damaged packets that tshark or scapy has nothing against: one for each stack of layers and checksum."""
    samples = {}
    for path in paths:
        for raw in with_inner(path):
            stack = [layer.name for layer in layers(Ether(raw))]
            for damage, bad in damaged(raw):
                samples.setdefault((*stack, damage), bad)
    touched = {damage for *_, damage in samples}
    out = [f"no {kind.__name__} to damage" for kind in SUMS if kind not in touched]
    frames = list(samples.values())
    for who, complaints in complaints_about(frames):
        out += [f"{who} takes a wrong checksum: {raw.hex()}" for i, raw in enumerate(frames) if i not in complaints]
    return out


def unasked(raw: bytes) -> bool:
    """Whether a node sends such a frame by itself: questions for neighbours, announcements, heartbeats."""
    packet = Ether(raw)
    heartbeat = UDP in packet and packet[UDP].dport == world.CONTROL_PORT
    announcement = ICMPv6ND_NA in packet and packet[ICMPv6ND_NA].S == 0
    return heartbeat or announcement or ICMPv6ND_NS in packet or ARP in packet and packet[ARP].op == 1


def compare(paths: list[Path]) -> list[str]:
    """Frames that are missing, and those that should not be there."""
    out = []
    for path in paths:
        wanted = Counter(capture.read(path.with_name(path.name.replace(".out.", ".expected."))))
        found = Counter(capture.read(path))
        more = [raw for raw in (found - wanted).elements() if not unasked(raw)]
        for what, frames in (("missing", (wanted - found).elements()), ("unexpected", more)):
            out += [f"{path.name}: {what}: {Ether(raw).summary()}: {raw.hex()}" for raw in frames]
    return out


def main() -> int:
    conf.verb = 0
    paths = [Path(path) for path in sys.argv[1:]]
    complaints = compare(paths) + judge(paths) + control(paths)
    print("\n".join(complaints))
    return 1 if complaints else 0


sys.exit(main())
