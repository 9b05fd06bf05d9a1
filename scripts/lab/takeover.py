"""What becomes of a killed node's NATed downloads: `python3 -m lab.takeover N`, started by `scripts/soak downloads`.

Three nodes; a client downloads a file many times at once, at a slow pace, through the first two, and the third, which owns a
part of the flows, is killed and started again N times. No download may break, and none may change its SNAT address or port, as
the servers see it.
"""

import ipaddress
import sys
import time
from dataclasses import dataclass

from . import build, hugepages, load, plan
from .capture import Capture, Frame
from .cluster import Cluster
from .errors import LabError
from .kills import quantile
from .lab import Lab

VIP = plan.VIPS["nat"]
COUNT = 200
# A megabyte at this pace takes ten seconds.
BYTES_A_SECOND = 100_000
KILLED = 3
SNATS = {plan.front(host, 4) for host, _, _ in plan.snats(3)}
# How long downloads are under way before the kill.
BEFORE_SECONDS = 3
# Of which 99 of 100 downloads must not be silent for longer.
STALL_SECONDS = 1.5


@dataclass
class Takeover:
    """What came of the downloads."""

    # That the killed node owned.
    owned: int
    # By why.
    failures: dict[str, int]
    # SNAT addresses and ports that the servers saw behind the kill.
    sources: set[tuple[str, int]]
    # Those of them that they had not seen before.
    moved: set[tuple[str, int]]
    # How long each download was silent at most.
    silences: list[float]

    def stall(self) -> float:
        """How long 99 of 100 were silent at most."""
        return quantile(self.silences, 0.99)

    def __str__(self) -> str:
        broke = sum(self.failures.values())
        return (
            f"n{KILLED} had {self.owned} of {COUNT} downloads; {broke} broke, {len(self.moved)} changed their source; "
            f"99 of 100 were silent for at most {self.stall():.2f} s"
        )


def _source(frame: Frame) -> tuple[str, int]:
    """Address and port that an IPv4 TCP frame comes from."""
    return str(ipaddress.ip_address(frame.head[26:30])), int.from_bytes(frame.head[34:36], "big")


def _silences(frames: list[Frame], begin: float, end: float) -> list[float]:
    """For each connection, by the client's port, the longest time in which nothing came for it, of those that have a part in this
    one."""
    last: dict[int, float] = {}
    longest: dict[int, float] = {}
    for frame in frames:
        port = int.from_bytes(frame.head[36:38], "big")
        before = last.get(port, frame.at)
        if before <= end and frame.at >= begin:
            longest[port] = max(longest.get(port, 0), frame.at - before)
        last[port] = frame.at
    return list(longest.values())


def kill(lab: Lab, nodes: Cluster, patience: int = load.DOWNLOAD_SECONDS) -> Takeover:
    """Kills the third node once while downloads are under way, each of which has so many seconds."""
    nodes.wait_rest(KILLED)
    tcp = "tcp dst port 80 and src net 10.10.0.0/24"
    servers = [Capture(server.namespace, "eth0", tcp, length=64) for server in lab.servers]
    client = Capture(lab.client, "eth0", f"src host {VIP.address(4)} and tcp", length=64)
    downloads = load.Downloads(lab.client, VIP.url(4), "1m", COUNT, BYTES_A_SECOND, patience)
    time.sleep(BEFORE_SECONDS)
    owned = nodes.virtual_server(KILLED, "nat-v4")["sessions"]
    killed = time.time()
    nodes.kill(KILLED)
    failures = downloads.result().failures
    # Probes come from the nodes' own addresses.
    nated = [frame for server in servers for frame in server.stop() if _source(frame)[0] in SNATS]
    before = {_source(frame) for frame in nated if frame.at < killed}
    after = {_source(frame) for frame in nated if frame.at > killed + 1}
    return Takeover(owned, failures, after, after - before, _silences(client.stop(), killed, killed + 4))


def main(count: int) -> int:
    """Runs all kills and prints what came of them; returns the exit code."""
    found = []
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, build.product(), pages, log=True) as nodes:
        lab.deal([1, 2])
        for number in range(1, count + 1):
            found.append(kill(lab, nodes))
            print(f"kill {number}: {found[-1]}", flush=True)
            nodes.start_again(KILLED)
            nodes.wait_ready()
    broke = sum(sum(takeover.failures.values()) for takeover in found)
    moved = sum(len(takeover.moved) for takeover in found)
    silences = [silence for takeover in found for silence in takeover.silences]
    p50, p99 = quantile(silences, 0.5), quantile(silences, 0.99)
    owned = sum(takeover.owned for takeover in found)
    print(
        f"{count} kills, {owned} of {count * COUNT} downloads were the killed node's; {broke} broke, {moved} changed their source; "
        f"silent p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(silences):.2f} s"
    )
    return 0 if owned and not broke and not moved and p99 <= STALL_SECONDS else 1


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
