"""A node whose disk is full, or whose log is damaged: it is offline and says why, and its peers carry on under load."""

import contextlib
import itertools
import json
import shutil
import time
from pathlib import Path

import pytest
from lab import Cluster, Lab, LabError, build, hugepages, plan
from lab.asker import Asker
from waiting import until

# Until a node that falls silent is taken out, and others serve what it owned.
TAKEN_OVER = 1.5


@pytest.fixture(scope="module")
def served():
    """A cluster that is asked all the time; the third node's disk is small."""
    with (
        Lab() as lab,
        hugepages.reserved() as pages,
        Cluster(lab, build.product(), pages, log=True, small_disk=3) as nodes,
    ):
        askers = [Asker(lab.client, plan.VIPS[name]) for name in ("dsr", "nat")]
        for name in ("dsr", "nat"):
            lab.route(plan.VIPS[name], node=1)
        time.sleep(1)
        for asker in askers:
            asker.start()
        time.sleep(0.5)
        yield nodes, askers
        for asker in askers:
            asker.stop()


def missed(askers: list[Asker], begin: float, end: float) -> list[float]:
    """When flows got no answer, in seconds from `begin`; those that had until `end` to get one."""
    return [round(at - begin, 2) for asker in askers for at in asker.missed if begin <= at < end - Asker.PATIENCE]


def offline(nodes: Cluster) -> str | None:
    """Why the third node is, as the first sees it; it owns nothing then."""
    (found,) = [node for node in nodes.status(1)["nodes"] if node["name"] == "n3"]
    return found["reason"] if found["phase"] == "offline" and not found["buckets"] else None


def fill(file: Path) -> None:
    """Writes until there is no room."""
    with contextlib.suppress(OSError), open(file, "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(1 << 16))


def serve_on(nodes: Cluster, askers: list[Asker], failed: float, reason: str) -> None:
    """That the other two serve, decide and know the `reason`, and no flow is lost but in the moment that it takes to replace the
    third."""
    time.sleep(TAKEN_OVER + 2 * Asker.PATIENCE)
    assert offline(nodes) == reason
    nodes.admin(1, ["set", f"profile/since-{failed:.0f}", "idle=5m"])
    assert [at for at in missed(askers, failed, time.monotonic()) if at > TAKEN_OVER] == []
    assert [nodes.stats(number)["ready"] for number in (1, 2)] == [True, True]


def test_a_full_disk_takes_its_node_out_and_its_peers_carry_on(served):
    nodes, askers = served
    node = nodes.process(3)
    fill(nodes.stored(3, seen_by=node) / "ballast")
    idle = itertools.count(1)

    def written_and_noticed() -> bool:
        # It has pages that it may use again, so it takes more than one write.
        fields = {"idle": f"{next(idle)}s"}
        changes = [{"key": f"profile/p{number}", "object": fields} for number in range(1000)]
        # If it leads, there is nobody to decide for a moment.
        assert nodes.rest(1, "POST", "/v1/writes", json.dumps(changes))[0] in (200, 503, 504)
        return "the replicated log has stopped" in node.text()

    until(written_and_noticed, "the disk is found to be full")
    failed = time.monotonic()
    serve_on(nodes, askers, failed, "it says that it can't go on: its replica of the log has stopped")
    assert missed(askers, 0, failed - 0.5) == []
    assert node.running() and not nodes.stats(3)["ready"]
    assert "No space left on device" in node.text()


def test_a_damaged_log_keeps_its_node_out_and_its_peers_carry_on(served):
    nodes, askers = served
    node = nodes.process(3)
    # What it has stored, on a disk with room, and with a bit wrong here and there.
    shutil.copytree(nodes.stored(3, seen_by=node), nodes.stored(3), dirs_exist_ok=True)
    nodes.kill(3)
    (nodes.stored(3) / "ballast").unlink()
    file = nodes.stored(3) / "log.redb"
    stored = bytearray(file.read_bytes())
    for place in range(4096, len(stored), 512):
        stored[place] ^= 1
    file.write_bytes(stored)
    failed = time.monotonic()
    nodes.start_again(3)
    with pytest.raises(LabError, match=r"(?s)n3 ended with code 1:.*log\.redb: .*corrupted"):
        nodes.wait_ready()
    serve_on(nodes, askers, failed, "it says that it can't go on: its replica of the log has stopped")
