"""Real nodes in laboratories of their own: frozen ones, and nodes without hugepages."""

import signal
import threading

import pytest
from lab import Cluster, Lab, build, demo, hugepages, load, plan


@pytest.mark.parametrize("keepalive", [True, False])
def test_a_frozen_node_fails_the_demonstration(monkeypatch, keepalive):
    binary = build.product()
    monkeypatch.setattr(demo, "PHASES", (("nat", keepalive),))
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, pages) as nodes:
        assert demo.observe(lab, nodes, 2).fault() is None
        timers = [
            threading.Timer(1, nodes.process(2).signal, [signal.SIGSTOP]),
            threading.Timer(4, nodes.process(2).signal, [signal.SIGCONT]),
        ]
        for timer in timers:
            timer.start()
        report = demo.observe(lab, nodes, 6)
        for timer in timers:
            timer.join()
    assert report.total().failures.get(load.LATE, 0) > 0, report.text()
    assert load.LATE in report.fault()


def test_the_nodes_run_without_hugepages():
    with Lab(servers=1) as lab, Cluster(lab, build.product(), hugepages=False):
        assert load.fetch(lab.client, plan.VIPS["nat"].url(4)) == "s1\n"
