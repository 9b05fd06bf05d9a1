"""The acts of the demonstration: what counts as a failure, and how it is found out."""

import os
import signal
import time
from collections import Counter

import pytest
from lab import Lab, load, plan
from lab.asker import Asker
from lab.caller import Caller
from lab.flows import Failed
from lab.living import FOUND_SECONDS, KINDS, Act, Stage, none, served_by

KILLED = 100.0


class Ports:
    """Flows that have been."""

    def __init__(self, failed: list[Failed], answered: int = 100):
        self.failed, self.answered = failed, answered



@pytest.mark.parametrize(
    ("failed", "excused"),
    [
        (Failed(KILLED - 0.5, 1, "late", "s1"), True),
        (Failed(KILLED - 0.5, 1, "late", "s2"), False),
        (Failed(KILLED + FOUND_SECONDS - 0.1, 1, "late"), True),
        (Failed(KILLED + FOUND_SECONDS + 0.1, 1, "late"), False),
    ],
)
def test_of_a_dead_server_only_what_it_had_is_excused(failed, excused):
    assert bool(served_by("s1", KILLED)(Ports([]), failed)) == excused
    assert none(Ports([]), failed) is None


def act(name: str = "it") -> Act:
    """An act whose loads all made requests and saw no failure."""
    made = Act(name)
    for kind in KINDS:
        made.results[kind].add(load.Result(requests=10))
    return made


def test_an_act_counts_what_is_not_excused():
    made = act()
    lost, late = Failed(KILLED - 1, 3, "late", "s1"), Failed(KILLED + 1, 3, "late", "s2")
    made.judge("nat", Ports([lost, lost, late, Failed(KILLED - 1, 1, "reset", "s2")]), served_by("s1", KILLED))
    assert made.failed() == 2 and made.results["nat"].failures == {"late": 1, "reset": 1}
    assert [count for (kind, _), count in made.excused.items() if kind == "nat"] == [2]
    assert made.row() == ["it", 130, 2, 0, 0, 2]
    assert made.counts() == "nat 2 of 110 (and 2 excused), dsr 0 of 10, local 0 of 10"


def test_a_stage_says_the_sum_of_what_failed():
    stage = Stage(None, None)
    stage.acts = [act("first"), act("second")]
    stage.acts[0].excused["nat", "why"] = 3
    assert stage.fault() is None and stage.notes() == ["first: 3 at nat: why"]
    for kind, count in (("nat", 2), ("local", 5)):
        stage.acts[1].results[kind].fail(load.LATE, count)
    stage.acts[1].results["dsr"].fail("HTTP status")
    assert stage.fault() == f"second: 8 requests failed: 1 × HTTP status, 7 × {load.LATE}"


def test_a_load_without_a_request_is_a_fault():
    stage = Stage(None, None)
    stage.acts = [act()]
    stage.acts[0].results["dsr"].requests = 0
    assert stage.fault() == "it: a load made no request"


@pytest.fixture
def served():
    """A server that the client reaches past the nodes, of which none runs."""
    with Lab(nodes=1, servers=1) as lab:
        lab.route_to_server(plan.VIPS["dsr"], 1)
        yield lab


class Told:
    """Says that all flows are the first node's, in a cluster's stead."""

    def explanations(self, number: int, protocol: str, tuples: list[tuple[str, str]]) -> list[dict]:
        self.asked = (number, protocol, tuples)
        return [{"owner": {"node": "n1"}} for _ in tuples]


def test_callers_know_what_failed(served):
    vip, nodes = plan.VIPS["dsr"], Told()
    callers = [Caller(served.client, vip, 4, kept=4), Caller(served.client, vip, 6), Asker(served.client, vip, 6)]
    for caller in callers:
        caller.foresee(nodes, 1, 400)
        caller.start()
    assert nodes.asked[:2] == (1, "udp") and nodes.asked[2][0][1] == "[fd99::2]:9000"
    time.sleep(1)
    died = time.monotonic()
    served.unplug(1)
    time.sleep(2)
    served.unplug(1, out=False)
    time.sleep(0.5)
    for caller in callers:
        caller.stop()
    kept, each, datagrams = callers
    for caller in callers:
        assert caller.answered > 50 and caller.failed
        assert caller.lost(0) == Counter(n1=len(caller.failed)), "they had the ports that were asked about"
        assert all(failed.why.startswith("no answer within") for failed in caller.failed)
    assert len(kept.failed) == 4 and {failed.server for failed in kept.failed} == {"s1"}
    assert all(failed.opened < died for failed in kept.failed)
    for caller in (each, datagrams):
        assert all(failed.server is None and failed.opened > died - 0.1 for failed in caller.failed)
        assert caller.lost(died + 10) == Counter()


def test_a_caller_knows_a_refusal_from_silence(served):
    caller = Caller(served.client, plan.VIPS["dsr"], 4, kept=4)
    caller.start()
    time.sleep(0.5)
    assert not caller.failed
    os.kill(int((served.server(1).namespace.directory / "nginx.pid").read_text()), signal.SIGTERM)
    time.sleep(1)
    caller.stop()
    assert {failed.server for failed in caller.failed} == {"s1", None}
    assert Counter(failed.why for failed in caller.failed)["Connection refused"] > 10
