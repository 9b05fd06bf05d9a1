"""What a living cluster goes through under load: a node joins, one is drained, one is killed and returns, a real server dies and
comes back. Each is an act: wrk runs, the deed is done, and what failed meanwhile is counted."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import load, plan
from .cluster import Cluster
from .errors import LabError
from .lab import Lab

KINDS = ("nat", "dsr", "local")
CONNECTIONS = 4
ACT_SECONDS = 7
# What a router needs to notice that a node is gone, and to give its flows to others.
ROUTER_SECONDS = 0.2


@dataclass
class Act:
    """An act's name, and what its loads saw, by virtual server."""

    name: str
    # Why failures of these virtual servers are no fault of the cluster's.
    excused: dict[str, str] = field(default_factory=dict)
    results: dict[str, load.Result] = field(default_factory=dict)

    def failed(self) -> int:
        """Failures that nothing excuses."""
        return sum(result.failed for kind, result in self.results.items() if kind not in self.excused)

    def row(self) -> list:
        """For a table: name, requests, failures by virtual server."""
        requests = sum(result.requests for result in self.results.values())
        return [self.name, requests, *(self.results[kind].failed for kind in KINDS)]


class Stage:
    """A cluster of three nodes with room for a fourth, and what has happened so far."""

    def __init__(self, lab: Lab, nodes: Cluster, say: Callable[[str], None] = print):
        self._lab, self._nodes, self._say = lab, nodes, say
        self._begin = time.monotonic()
        self.acts: list[Act] = []

    def tell(self, text: str) -> None:
        """A line of the timeline."""
        self._say(f"  {time.monotonic() - self._begin:5.1f} s  {text}")

    def play(self) -> None:
        """All acts."""
        self._lab.deal([1, 2, 3])
        with self._act("a fourth node joins"):
            self._nodes.join(4)
            self.tell("n4 is added and started")
            self._owns(4, lambda buckets: buckets >= 1000)
            self._lab.deal([1, 2, 3, 4])
        with self._act("a node is drained"):
            self._nodes.admin(1, ["node", "drain", "n2"])
            self.tell("n2 is told to give all away")
            self._owns(2, lambda buckets: buckets == 0)
        self._nodes.admin(1, ["node", "undrain", "n2"])
        self._owns(2, lambda buckets: buckets >= 1000)
        theirs = "connections that were established on it are lost with it: their NAT is nowhere else"
        with self._act("a node is killed", {"nat": theirs}):
            self._nodes.kill(3)
            self.tell("n3 is killed (SIGKILL)")
            time.sleep(ROUTER_SECONDS)
            self._lab.deal([1, 2, 4])
            self._owns(3, lambda buckets: buckets == 0)
        with self._act("it returns"):
            self._nodes.start_again(3)
            self.tell("n3 is started again")
            self._owns(3, lambda buckets: buckets >= 1000)
            self._lab.deal([1, 2, 3, 4])
        theirs = "connections to it, and those it is given until it is found out"
        with self._act("a real server dies", dict.fromkeys(KINDS, theirs)):
            self._lab.unplug(1)
            self.tell("s1's plug is pulled")
        theirs = "without state, a connection goes where its hash points, and that is the old server again for some"
        with self._act("it comes back", {"local": theirs}):
            self._lab.unplug(1, out=False)
            self.tell("s1 is plugged in again")

    def _owns(self, number: int, enough: Callable[[int], bool], patience: float = ACT_SECONDS) -> None:
        """Waits until a node's share of the buckets of all nodes is `enough`."""
        end = time.monotonic() + patience
        while True:
            asked = 1 if number != 1 else 2
            nodes = self._nodes.status(asked)["nodes"]
            buckets = next((node["buckets"].get("all", 0) for node in nodes if node["name"] == f"n{number}"), 0)
            if enough(buckets):
                self.tell(f"n{number} owns {buckets} of 4096 buckets")
                return
            if time.monotonic() > end:
                raise LabError(f"n{number} owns {buckets} buckets after {patience} s")
            time.sleep(0.05)

    @contextmanager
    def _act(self, name: str, excused: dict[str, str] | None = None) -> Iterator[None]:
        """Runs the load, with what is done in the block beginning a second later."""
        act = Act(name, excused or {}, {kind: load.Result() for kind in KINDS})
        self.acts.append(act)
        self._say(name)
        # IPv4 on kept connections, IPv6 with one for each request.
        runs = [(kind, family, family == 4) for kind in KINDS for family in plan.FAMILIES]
        found = [(kind, load.Result()) for kind, *_ in runs]
        threads = [
            threading.Thread(target=self._load, args=(kind, family, keepalive, result), daemon=True)
            for (kind, family, keepalive), (_, result) in zip(runs, found)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1)
        try:
            yield
        finally:
            for thread in threads:
                thread.join()
            for kind, result in found:
                act.results[kind].add(result)
        counts = ", ".join(f"{kind} {result.failed} of {result.requests}" for kind, result in act.results.items())
        self.tell(f"failed: {counts}")

    def _load(self, kind: str, family: int, keepalive: bool, result: load.Result) -> None:
        try:
            url = plan.VIPS[kind].url(family)
            load.run(self._lab.client, [url], ACT_SECONDS, CONNECTIONS, keepalive, total=result)
        except LabError as error:
            result.fail(str(error))

    def fault(self) -> str | None:
        """Why it was no success, if it wasn't."""
        for act in self.acts:
            if act.failed():
                reasons = {
                    reason: count
                    for kind, result in act.results.items()
                    if kind not in act.excused
                    for reason, count in result.failures.items()
                }
                said = ", ".join(f"{count} × {reason}" for reason, count in reasons.items())
                return f"{act.name}: {act.failed()} requests failed: {said}"
            if not all(result.requests for result in act.results.values()):
                return f"{act.name}: a load made no request"
        return None

    def notes(self) -> list[str]:
        """What was excused, and why."""
        return [
            f"{act.name}: {act.results[kind].failed} at {kind}: {why}"
            for act in self.acts
            for kind, why in act.excused.items()
            if act.results[kind].failed
        ]
