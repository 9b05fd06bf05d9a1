"""The software of three nodes is renewed, one after the other, while requests go on, from a release that speaks the last wire
version only; with a control, in which a new node speaks the next one at once."""

import pytest
from lab import Cluster, Lab, build, hugepages, load, plan
from waiting import until

NODES = [1, 2, 3]
OLD, NEW = 3, 4


@pytest.fixture(name="nodes")
def of_the_last_release():
    """Three nodes whose software, as far as others can tell, is the last release's."""
    binary = build.breakable()
    with (
        Lab() as lab,
        hugepages.reserved() as pages,
        Cluster(lab, binary, pages, log=True, plant="software-old", closed="1s") as nodes,
    ):
        lab.deal(NODES)
        until(lambda: settled(nodes, 1), "buckets have their owners", 20)
        yield nodes


def node(nodes: Cluster, asked: int, number: int) -> dict:
    """What node `asked` says of node `number`."""
    return next(found for found in nodes.status(asked)["nodes"] if found["name"] == f"n{number}")


def settled(nodes: Cluster, asked: int) -> bool:
    """Whether all nodes serve and nothing moves."""
    status = nodes.status(asked)
    moving = sum(group["moving"] + group["unowned"] + group["handing_over"] for group in status["groups"])
    return moving == 0 and all(found["phase"] == "active" and found["buckets"] for found in status["nodes"])


def emptied(nodes: Cluster, asked: int, number: int) -> bool:
    """Whether a node neither owns anything that another could, nor has sessions of what it gave away."""
    found = node(nodes, asked, number)
    alone = {group for group, members in plan.GROUPS.items() if members == (number,)}
    return not found["buckets"].keys() - alone and not found["leaving"]


def test_software_is_renewed_node_by_node_and_no_request_fails(nodes):
    assert [nodes.status(number)["wire"] for number in NODES] == [OLD] * 3
    # What the last release doesn't know waits until none runs it.
    status, said = nodes.rest(2, "PUT", "/v1/objects/persistence/nat-v4", "{}")
    assert status == 409 and "last release" in said["faults"][0]["message"], said
    urls = [plan.VIPS["nat"].url(4), plan.VIPS["dsr"].url(6)]
    runs = [load.Wrk(nodes.lab.client, url, 120, connections=4, keepalive=False) for url in urls]
    for number in NODES:
        asked = number % 3 + 1
        # Where the last leader was renewed there is none for a moment.
        until(lambda: nodes.rest(asked, "POST", f"/v1/nodes/n{number}/drain")[0] == 200, f"n{number} is drained")
        nodes.lab.deal([other for other in NODES if other != number])
        until(lambda: emptied(nodes, asked, number), f"n{number} has nothing left", 30)
        assert nodes.status(asked)["wire"] == OLD, "not while somebody can't speak the next"
        nodes.renew(number)
        until(lambda: node(nodes, asked, number)["ready"], f"n{number} is back", 20)
        until(lambda: nodes.rest(asked, "POST", f"/v1/nodes/n{number}/undrain")[0] == 200, f"n{number} is not drained")
        until(lambda: settled(nodes, asked), f"n{number} has its share", 20)
        nodes.lab.deal(NODES)
    until(lambda: [nodes.status(number)["wire"] for number in NODES] == [NEW] * 3, "the next wire version is spoken")
    software = [node(nodes, asked, number)["software"] for asked in NODES for number in NODES]
    assert software == [software[0]] * 9 and software[0], "which only that version says"
    for run in runs:
        run.end()
    found = [run.result() for run in runs]
    print(f"{[one.requests for one in found]} requests")
    assert [one.failures for one in found] == [{}, {}]
    assert all(one.requests > 1000 for one in found)
    # Software that is left behind is not let in, and keeps nobody from anything: it was the leader's until now.
    behind = int(until(lambda: nodes.status(1)["leader"], "somebody leads")[1:])
    asked = behind % 3 + 1
    nodes.renew(behind, "software-old")
    until(lambda: node(nodes, asked, behind)["phase"] == "offline", f"n{behind} is out")
    why = until(lambda: (found := node(nodes, asked, behind))["speaks"] == OLD and found["reason"], "it is told apart", 20)
    assert "wire version" in why and not node(nodes, asked, behind)["buckets"]
    assert node(nodes, asked, behind)["phase"] == "offline" and nodes.status(asked)["leader"] != f"n{behind}"


def test_control_a_node_that_speaks_for_itself_is_not_understood(nodes):
    nodes.renew(3, "newest-spoken")
    until(lambda: node(nodes, 1, 3)["phase"] != "active", "n3 is out")
    until(lambda: nodes.stats(3), "n3 runs", 20)
    with pytest.raises(AssertionError):
        until(lambda: node(nodes, 1, 3)["phase"] == "active", "n3 is let in", 5)
