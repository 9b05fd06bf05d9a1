"""What the backplane carries while nothing changes: `python3 -m lab.steady N`, started by `scripts/soak steady`.

Packets of flows that are known enter at the first of three nodes. By the kernel's counters of the backplane's bridge, each node
sends one frame for each packet that another owns, its heartbeats, and now and then a question for a peer's Ethernet address or
the answer to one: no frame more, none less.
"""

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import build, hugepages, plan
from .capture import Capture
from .cluster import Cluster
from .errors import LabError
from .lab import Lab

VIP = plan.VIPS["dsr"]
ENTRY = 1
FLOWS = 24
PAYLOAD = bytes(18)
# Packets on their way at once: the devices' rings have room for twice as many, so none is lost.
WINDOW = 1024
# A packet that takes longer is lost.
PATIENCE = 2.0
# Of so many packets one may be lost before a node has it, as its device has no room when the machine is busy.
LOST = 10_000
# Between two questions for a peer's Ethernet address, at least.
NEIGHBOUR_SECONDS = 10
# The kernel counts a frame a moment before it stamps it.
DOUBT = 0.003
# The profile's, and the first of the ports that steered packets go to.
HEARTBEAT_SECONDS = 0.05
DATA_PORT = 6600
CONTROL_PORT = 6599


@dataclass
class Sent:
    """What a node has sent to the backplane, by the kernel's counters, and what it had to send."""

    node: str
    seconds: float
    frames: int
    # Packets of flows that others own, sent to this node.
    due: int
    # Those of them that it had and steered, as it says.
    steered: int
    # Captured frames that are no steered packets.
    heartbeats: int
    arp: int
    peers: int

    def fault(self) -> str | None:
        """Why it isn't as it must be, if it isn't."""
        scheduled = self.peers * self.seconds / HEARTBEAT_SECONDS
        if not 0.8 * scheduled <= self.heartbeats <= 1.2 * scheduled:
            return f"{self.node} sent {self.heartbeats} heartbeats where {scheduled:.0f} are scheduled"
        if not self.due * (1 - 1 / LOST) <= self.steered <= self.due:
            return f"{self.node} steered {self.steered} of {self.due} packets"
        if self.arp > 2 * self.peers * (self.seconds / NEIGHBOUR_SECONDS + 1):
            return f"{self.node} asked and answered {self.arp} times who has an address"
        if self.frames != self.steered + self.heartbeats + self.arp:
            return f"{self.row()}: that doesn't add up"
        return None

    def row(self) -> str:
        """For people."""
        return (
            f"{self.node}: {self.frames} frames in {self.seconds:.1f} s; {self.steered} of {self.due} packets that others own, "
            f"{self.heartbeats} heartbeats, {self.arp} of ARP"
        )


class Steady:
    """Flows that all nodes know, and the counters of the bridges."""

    def __init__(self, lab: Lab, nodes: Cluster):
        self._lab = lab
        self._nodes, self._names = nodes, nodes.names
        self._read = lab.switch.counters()
        lab.route(VIP, node=ENTRY)
        for server in lab.servers:
            server.hush()
        self._flows: list[tuple[socket.socket, bool]] = []
        for _ in range(FLOWS):
            with lab.client.entered():
                flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            flow.connect((VIP.address(4), plan.UDP_PORT))
            source, destination = (f"{address}:{port}" for address, port in (flow.getsockname(), flow.getpeername()))
            told = nodes.explain(ENTRY, "udp", source, destination)
            self._flows.append((flow, told["owner"]["node"] != f"n{ENTRY}"))
        # A flow counts as established from its second packet on.
        self._send(4 * FLOWS)
        # What is new is told at once, beside the schedule.
        self._nodes.wait_quiet(2)

    def count(self, packets: int, meanwhile: Callable[[], None] = lambda: None) -> list[Sent]:
        """Sends so many packets, and `meanwhile` does something; what each node sent to the backplane."""
        rest = f"not (udp and dst portrange {DATA_PORT}-{DATA_PORT + 99})"
        captures = [Capture(self._lab.switch, f"{name}b", rest) for name in self._names]
        try:
            begin, before = self._quiet(captures)
            said = self._steered()
            others = self._send(packets)
            meanwhile()
            said = [now - then for now, then in zip(self._steered(), said)]
            end, after = self._quiet(captures)
        finally:
            found = [capture.stop() for capture in captures]
        rows = []
        for number, (name, frames) in enumerate(zip(self._names, found), 1):
            own = [frame.head for frame in frames if not frame.left and begin < frame.at < end]
            beats, arp = sum(map(_is_control, own)), sum(head[12:14] == b"\x08\x06" for head in own)
            grown = after[f"{name}b"][0] - before[f"{name}b"][0]
            due = others if number == ENTRY else 0
            rows.append(Sent(name, end - begin, grown, due, said[number - 1], beats, arp, len(self._names) - 1))
        return rows

    def _steered(self) -> list[int]:
        """Packets that each node says it has steered, while none are on their way."""
        # Counters are published now and then.
        time.sleep(0.3)
        return [totals["steered_out"] for totals in self._nodes.totals()]

    def _quiet(self, captures: list[Capture]) -> tuple[float, dict[str, tuple[int, int]]]:
        """The counters at a moment at which no heartbeat was on its way, and when that was."""
        for _ in range(200):
            now, found = time.time(), self._read()
            # Until what was on its way then is captured.
            time.sleep(4 * DOUBT)
            if not any(abs(frame.at - now) < DOUBT for capture in captures for frame in capture.frames[-20:]):
                return now, found
        raise LabError("the backplane was never quiet")

    def _passed(self) -> int:
        """Frames that all nodes have sent to the front network."""
        found = self._read()
        return sum(found[f"{name}f"][0] for name in self._names)

    def _send(self, packets: int) -> int:
        """Sends so many packets, each flow's in turn, and waits until all have passed; how many of them another node owns."""
        begin, sent, others = self._passed(), 0, 0
        while sent < packets:
            burst = min(WINDOW // 2, packets - sent)
            for number in range(sent, sent + burst):
                flow, by_others = self._flows[number % FLOWS]
                flow.send(PAYLOAD)
                others += by_others
            sent += burst
            self._wait(begin + sent - WINDOW // 2 - sent // LOST)
        self._wait(begin + sent - packets // LOST)
        return others

    def _wait(self, passed: int) -> None:
        end = time.monotonic() + PATIENCE
        while (found := self._passed()) < passed:
            if time.monotonic() > end:
                raise LabError(f"{passed - found} packets too many did not come out within {PATIENCE} s")

    def close(self) -> None:
        """Ends the flows."""
        for flow, _ in self._flows:
            flow.close()


def _is_control(head: bytes) -> bool:
    """Whether it is a control frame: IPv4 without options, UDP, to the control port."""
    return head[12:15] == b"\x08\x00\x45" and head[23] == socket.IPPROTO_UDP and head[36:38] == CONTROL_PORT.to_bytes(2, "big")


def main(packets: int) -> int:
    """Counts once and prints what came of it; returns the exit code."""
    binary = build.product()
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, pages, log=True) as nodes:
        steady = Steady(lab, nodes)
        found = steady.count(packets)
        steady.close()
    faults = [fault for sent in found if (fault := sent.fault())]
    for line in [sent.row() for sent in found] + faults:
        print(line)
    return 1 if faults else 0


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
