"""A node is killed that has NATed downloads under way, and others go on with them; with a control."""

import pytest
from lab import Cluster, Lab, build, hugepages, load
from lab import takeover as lab_takeover


@pytest.mark.parametrize("plant", [None, "state-uninherited"], ids=["", "control: nobody goes on with them"])
def test_nated_downloads_survive_their_node(plant):
    binary = build.breakable() if plant else build.product()
    with (
        Lab() as lab,
        hugepages.reserved() as pages,
        Cluster(lab, binary, pages, log=True, plant=plant) as nodes,
    ):
        lab.deal([1, 2])
        takeover = lab_takeover.kill(lab, nodes, patience=14 if plant else load.DOWNLOAD_SECONDS)
    print(takeover)
    if plant:
        assert sum(takeover.failures.values()) >= takeover.owned / 2, "they outlive their node without anybody's help"
        return
    assert takeover.owned >= lab_takeover.COUNT / 10 and takeover.sources, "nothing was killed: proves nothing"
    assert takeover.failures == {}
    assert not takeover.moved, "connections have other SNAT addresses or ports"
    assert takeover.stall() <= lab_takeover.STALL_SECONDS
