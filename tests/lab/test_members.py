"""Nodes that decide together: they begin a cluster, one is killed and returns, and what it served goes on elsewhere."""

import socket
import threading
import time

import pytest
from lab import Cluster, Lab, build, hugepages, load, plan

SOCKETS = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def cluster():
    binary = build.release()
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, hugepages=pages, log=True) as nodes:
        yield lab, nodes


class Asker(threading.Thread):
    """Asks a virtual server for an echo by a new flow every few milliseconds, and notes when it got none."""

    PATIENCE = 0.3

    def __init__(self, lab, vip: plan.Vip, family: int = 4, every: float = 0.01):
        super().__init__(daemon=True)
        self._lab, self._to, self._family, self._every = lab, (vip.address(family), plan.UDP_PORT), family, every
        self._end = threading.Event()
        self.asked: list[float] = []
        self.missed: list[float] = []

    def run(self) -> None:
        waiting: list[tuple[float, socket.socket]] = []
        with self._lab.client.entered():
            while not self._end.is_set() or waiting:
                now = time.monotonic()
                if not self._end.is_set():
                    flow = socket.socket(SOCKETS[self._family], socket.SOCK_DGRAM)
                    flow.connect(self._to)
                    flow.setblocking(False)
                    flow.send(b"x")
                    waiting.append((now, flow))
                    self.asked.append(now)
                left = []
                for since, flow in waiting:
                    try:
                        flow.recv(100)
                        flow.close()
                    except BlockingIOError:
                        if now - since < self.PATIENCE:
                            left.append((since, flow))
                            continue
                        self.missed.append(since)
                        flow.close()
                waiting = left
                time.sleep(self._every)

    def stop(self) -> None:
        """Asks no more, and waits for the last answers."""
        self._end.set()
        self.join()


def test_a_cluster_begins_and_serves(cluster):
    lab, _ = cluster
    targets = [plan.VIPS[name].url(family) for name in ("nat", "dsr") for family in plan.FAMILIES]
    for keepalive in (True, False):
        found = load.run(lab.client, targets, 2, 8, keepalive)
        assert found.failures == {} and found.requests > 500


@pytest.mark.parametrize("name", ["nat", "dsr"])
def test_downloads_survive_a_node_that_returns_and_a_router_that_deals_anew(cluster, name):
    lab, nodes = cluster
    vip = plan.VIPS[name]
    nodes.kill(3)
    lab.deal([1, 2])
    time.sleep(2)
    downloads = load.Downloads(lab.client, vip.url(4), "1m", 200, 120_000)
    time.sleep(3)
    nodes.start_again(3)
    nodes.wait_ready()
    time.sleep(1)
    # By this order every flow gets another receiver.
    lab.deal([2, 3, 1])
    found = downloads.result()
    assert found.failures == {}
    totals = nodes.totals()
    assert sum(node["handover_in"] for node in totals) > 100, "nothing was handed over: proves nothing"


def test_a_killed_node_is_replaced_and_returns(cluster):
    lab, nodes = cluster
    vips = [plan.VIPS["dsr"], plan.VIPS["nat"]]
    for vip in vips:
        # Its upstream router has noticed: what matters here is what the dead node owned.
        lab.route(vip, node=1)
    time.sleep(1)
    askers = [Asker(lab, vip) for vip in vips]
    for asker in askers:
        asker.start()
    time.sleep(1)
    killed = time.monotonic()
    nodes.kill(3)
    time.sleep(3)
    back = time.monotonic()
    nodes.start_again(3)
    nodes.wait_ready()
    time.sleep(3)
    for asker in askers:
        asker.stop()
        assert len(asker.asked) > 300
        assert [at for at in asker.missed if at < killed - 0.05] == []
        print("lost from", [round(at - killed, 3) for at in asker.missed][:1], "to",
              [round(at - killed, 3) for at in asker.missed][-1:], len(asker.missed), "of", len(asker.asked))
        late = [round(at - killed, 3) for at in asker.missed if killed + 1 < at < back]
        assert late == [], "not recovered within a second"
        assert [round(at - back, 3) for at in asker.missed if at >= back] == [], "lost while it returned"
