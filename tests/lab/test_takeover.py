"""A node is killed that has NATed downloads under way, and others go on with them; with a control, in which nobody makes sessions of their state."""

import ipaddress
import time

import pytest
from lab import Cluster, Lab, build, hugepages, load, plan
from lab.capture import Capture, Frame
from waiting import until

VIP = plan.VIPS["nat"]
COUNT = 200
# A megabyte at this pace takes ten seconds.
BYTES_A_SECOND = 100_000
KILLED = 3
SNATS = {plan.front(host, 4) for host, _, _ in plan.snats(3)}
# Of which 99 of 100 downloads must not be silent for longer (MECHANISMS §4).
STALL_SECONDS = 1.5


def source(frame: Frame) -> tuple[str, int]:
    """Address and port that an IPv4 TCP frame comes from."""
    return str(ipaddress.ip_address(frame.head[26:30])), int.from_bytes(frame.head[34:36], "big")


def silences(frames: list[Frame], begin: float, end: float) -> list[float]:
    """For each connection, by the client's port, how long nothing came for it at most within that time."""
    last: dict[int, float] = {}
    longest: dict[int, float] = {}
    for frame in frames:
        port = int.from_bytes(frame.head[36:38], "big")
        if begin <= frame.at <= end:
            longest[port] = max(longest.get(port, 0), frame.at - last.get(port, frame.at))
        last[port] = frame.at
    return sorted(longest.values())


@pytest.mark.parametrize("plant", [None, "state-uninherited"], ids=["", "control: nobody goes on with them"])
def test_nated_downloads_survive_their_node(plant):
    binary = build.breakable() if plant else build.product()
    with (
        Lab() as lab,
        hugepages.reserved() as pages,
        Cluster(lab, binary, pages, log=True, plant=plant) as nodes,
    ):
        lab.deal([1, 2])
        nodes.wait_rest(KILLED)
        servers = [Capture(server.namespace, "eth0", "tcp dst port 80 and src net 10.10.0.0/24", length=64) for server in lab.servers]
        client = Capture(lab.client, "eth0", f"src host {VIP.address(4)} and tcp", length=64)
        patience = 14 if plant else load.DOWNLOAD_SECONDS
        downloads = load.Downloads(lab.client, VIP.url(4), "1m", COUNT, BYTES_A_SECOND, patience)
        until(lambda: nodes.virtual_server(KILLED, "nat-v4")["sessions"] >= COUNT / 10, "the third node has its part")
        time.sleep(2)
        owned = nodes.virtual_server(KILLED, "nat-v4")["sessions"]
        killed = time.time()
        nodes.kill(KILLED)
        found = downloads.result()
        seen = [frame for capture in servers for frame in capture.stop()]
        # Probes come from the nodes' own addresses.
        nated = [frame for frame in seen if source(frame)[0] in SNATS]
        before = {source(frame) for frame in nated if frame.at < killed}
        after = {source(frame) for frame in nated if frame.at > killed + 1}
        stalls = silences(client.stop(), killed, killed + 4)
        longest = stalls[int(0.99 * (len(stalls) - 1))]
        print(f"n3 had {owned} of {COUNT}; {found.failed} broke; 99 of 100 were silent for at most {longest:.2f} s")
        if plant:
            assert found.failed >= owned / 2, f"{found.failed} of {owned} broke without copies"
            return
        assert owned >= COUNT / 10 and after, "nothing was killed: proves nothing"
        assert found.failures == {}
        assert after <= before, f"connections have other SNAT addresses or ports: {after - before}"
        assert longest <= STALL_SECONDS
