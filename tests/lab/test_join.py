"""A node takes its share while 200 downloads are under way, and the router deals them anew; with a control, in which nobody hands
over."""

import time

import pytest
from lab import Cluster, Lab, build, hugepages, load, plan
from lab.capture import Capture
from receivers import Receivers, moved
from waiting import until

VIP = plan.VIPS["nat"]
COUNT = 200
# A megabyte at this pace takes ten seconds, within which buckets have to move.
BYTES_A_SECOND = 100_000


@pytest.mark.parametrize("plant", [None, "previous-owner-forgotten"], ids=["", "control: handover off"])
def test_downloads_survive_a_node_that_joins_and_a_router_that_deals_anew(plant):
    binary = build.breakable() if plant else build.product()
    with (
        Lab(nodes=4) as lab,
        hugepages.reserved(4 * hugepages.NODE) as pages,
        Cluster(lab, binary, pages, log=True, begin=3, plant=plant) as nodes,
    ):
        lab.deal([1, 2, 3])
        # It joins drained: how long its start takes is the machine's affair.
        nodes.join(4, drained=True)
        until(lambda: fourth(nodes)["phase"] == "draining", "the fourth node has joined", 20)
        assert fourth(nodes)["buckets"].get("all", 0) == 0
        resets = Capture(lab.switch, "client", f"host {VIP.address(4)} and tcp[tcpflags] & tcp-rst != 0")
        # Nobody waits for what is lost for longer than its pace asks for.
        patience = 14 if plant else load.DOWNLOAD_SECONDS
        downloads = load.Downloads(lab.client, VIP.url(4), "1m", COUNT, BYTES_A_SECOND, patience)
        time.sleep(0.5)
        assert nodes.rest(1, "POST", "/v1/nodes/n4/undrain")[0] == 200
        until(lambda: fourth(nodes)["buckets"].get("all", 0) >= 1000, "the fourth node has its share")
        with Receivers(lab, VIP) as before:
            time.sleep(1)
        # By this order every flow gets another receiver.
        lab.deal([4, 3, 1, 2])
        time.sleep(0.1)
        with Receivers(lab, VIP) as after:
            time.sleep(1)
        # And twice more: to each of the four, whatever the first three had.
        for order in ([2, 1, 4, 3], [3, 4, 2, 1]):
            lab.deal(order)
            time.sleep(0.3)
        found = downloads.result()
        others = len(moved(before, after))
        asked = sum(node["handover_in"] for node in nodes.totals())
        print(f"{others} of {COUNT} have other receivers, {asked} packets were handed over, {found.failed} broke")
        if plant:
            assert asked == 0 and found.failed >= COUNT / 10, f"{found.failed} broke without handover"
        else:
            assert others >= 0.6 * COUNT
            assert found.failures == {} and resets.stop() == []
            assert asked > 100, "nothing was handed over: proves nothing"


def fourth(nodes: Cluster) -> dict:
    """What the first node says of the fourth."""
    (found,) = [node for node in nodes.status(1)["nodes"] if node["name"] == "n4"]
    return found
