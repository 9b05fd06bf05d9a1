"""While nothing changes the backplane carries what must be and nothing else, by the kernel's counters; and a frame more is seen."""

import socket

import pytest
from lab import Cluster, Lab, build, hugepages, plan
from lab.steady import DATA_PORT, Sent, Steady
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether


@pytest.fixture(scope="module")
def steady():
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, build.product(), pages, log=True) as nodes:
        made = Steady(lab, nodes)
        yield lab, made
        made.close()


def test_a_steered_packet_is_one_frame_and_there_are_heartbeats_besides(steady):
    _, steady = steady
    found = steady.count(500_000)
    assert [sent.fault() for sent in found] == [None, None, None]
    # Two thirds of the flows, but for luck.
    assert 200_000 < found[0].frames < 450_000


@pytest.mark.parametrize("port", [DATA_PORT, 9])
def test_one_frame_more_is_noticed(steady, port):
    lab, steady = steady

    def stray() -> None:
        link = Ether(src=plan.backplane_mac(2), dst=plan.backplane_mac(1))
        frame = link / IP(src=plan.backplane(2), dst=plan.backplane(1)) / UDP(sport=50000, dport=port) / bytes(32)
        with lab.node(2).entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
            wire.bind(("back", 0))
            wire.send(bytes(frame))

    faults = [sent.fault() for sent in steady.count(100_000, stray)]
    assert [fault is None for fault in faults] == [True, False, True], faults


def test_what_is_beside_the_schedule_is_noticed():
    for heartbeats, arp, fine in ((400, 8, True), (200, 0, False), (500, 0, False), (400, 9, False)):
        sent = Sent("n1", 10.0, 1000 + heartbeats + arp, 1000, 1000, heartbeats, arp, 2)
        assert (sent.fault() is None) is fine
