"""What a living cluster goes through under load: a node joins, one is drained, one is killed and returns, a real server dies and
comes back. Each is an act: wrk runs, the deed is done, and what failed meanwhile is counted.

Where something must fail, the flows are our own (`flows`) instead of wrk's, so that it is known which ones failed: what nobody
could have kept is excused one by one, and nothing else is.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import load, plan
from .asker import Asker
from .caller import Caller
from .cluster import Cluster
from .errors import LabError
from .flows import Failed, Flows
from .lab import Lab

KINDS = ("nat", "dsr", "local")
CONNECTIONS = 4
# Of a Caller that keeps them: enough for each node to own some.
KEPT = 16
ACT_SECONDS = 7
# What a router needs to notice that a node is gone, and to give its flows to others.
ROUTER_SECONDS = 0.2
# Checks every second, of which two must agree, and a moment for each to come.
FOUND_SECONDS = 4
# Real servers are judged one by one, and what is served without state changes until all are: a report that was lost comes again
# after 5 s.
JUDGED_SECONDS = 6

# Why a flow's failure is no fault of the cluster's, if it isn't.
Excuse = Callable[[Flows, Failed], str | None]


def none(_flows: Flows, _failed: Failed) -> None:
    """No failure is excused."""


def served_by(server: str, died: float) -> Excuse:
    """Excuses what a real server had when it died, and what may have been given to it until it was found out."""

    def excuse(_flows: Flows, failed: Failed) -> str | None:
        if failed.server == server:
            return f"connections to {server}"
        if failed.server is None and failed.opened < died + FOUND_SECONDS:
            return f"flows begun before {server} was found out, which nobody had answered yet"
        return None

    return excuse


@dataclass
class Act:
    """An act's name, and what its loads saw, by virtual server."""

    name: str
    results: dict[str, load.Result] = field(default_factory=lambda: {kind: load.Result() for kind in KINDS})
    # Failures that are no fault of the cluster's and not in the results, by virtual server and why.
    excused: Counter[tuple[str, str]] = field(default_factory=Counter)

    def judge(self, kind: str, flows: Flows, excuse: Excuse) -> None:
        """Adds what became of flows."""
        result = load.Result(requests=flows.answered)
        for failed in flows.failed:
            why = excuse(flows, failed)
            if why:
                self.excused[kind, why] += 1
            else:
                result.fail(failed.why)
        self.results[kind].add(result)

    def failed(self) -> int:
        """Failures that nothing excuses."""
        return sum(result.failed for result in self.results.values())

    def row(self) -> list:
        """For a table: name, requests, failures by virtual server, what was excused."""
        requests = sum(result.requests for result in self.results.values())
        return [self.name, requests, *(self.results[kind].failed for kind in KINDS), self.excused.total()]

    def counts(self) -> str:
        """In one line what failed."""
        excused: Counter[str] = Counter()
        for (kind, _), count in self.excused.items():
            excused[kind] += count
        return ", ".join(
            f"{kind} {result.failed} of {result.requests}" + (f" (and {excused[kind]} excused)" if excused[kind] else "")
            for kind, result in self.results.items()
        )


class Stage:
    """A cluster of three nodes with room for a fourth, and what has happened so far."""

    def __init__(self, lab: Lab, nodes: Cluster, say: Callable[[str], None] = print):
        self._lab, self._nodes, self._say = lab, nodes, say
        self._begin = time.monotonic()
        # What excuses failures in the act that is played.
        self._excuse: Excuse = none
        self.acts: list[Act] = []

    def tell(self, text: str) -> None:
        """A line of the timeline."""
        self._say(f"  {time.monotonic() - self._begin:5.1f} s  {text}")

    def play(self) -> None:
        """All acts."""
        self._lab.deal([1, 2, 3])
        self._nodes.wait_quiet(JUDGED_SECONDS)
        self.join()
        self.drain()
        self.kill()
        self.revive()
        self.lose_server()
        self.regain_server()

    def join(self) -> None:
        """The fourth node joins."""
        with self._act("a fourth node joins"):
            self._nodes.join(4)
            self.tell("n4 is added and started")
            self._owns(4, lambda buckets: buckets >= 1000)
            self._lab.deal([1, 2, 3, 4])

    def drain(self) -> None:
        """The second gives all away, and gets its share again."""
        with self._act("a node is drained"):
            self._nodes.admin(1, ["node", "drain", "n2"])
            self.tell("n2 is told to give all away")
            self._owns(2, lambda buckets: buckets == 0)
        self._nodes.admin(1, ["node", "undrain", "n2"])
        self._owns(2, lambda buckets: buckets >= 1000)

    def kill(self) -> None:
        """The third of four is killed."""
        # Every bucket's state is at two nodes.
        self._nodes.wait_rest(3)
        kept, each = self._callers("nat")
        # What a node is told here of owners holds until the kill.
        kept.foresee(self._nodes, 1, KEPT)
        owned = sum(owner == "n3" for owner in kept.owners.values())
        with self._act("a node is killed", {"nat": [kept, each]}):
            self._nodes.kill(3)
            self.tell(f"n3 is killed (SIGKILL), which has {owned} of {KEPT} NATed connections that are kept")
            time.sleep(ROUTER_SECONDS)
            self._lab.deal([1, 2, 4])
            self._owns(3, lambda buckets: buckets == 0)

    def revive(self) -> None:
        """It is started again."""
        with self._act("it returns"):
            self._nodes.start_again(3)
            self.tell("n3 is started again")
            self._owns(3, lambda buckets: buckets >= 1000)
            self._lab.deal([1, 2, 3, 4])

    # A connection without state goes where its hash points, which changes with the real servers, and then it breaks. So what is
    # served without state is asked by datagrams while they change: each stands for itself.

    def lose_server(self) -> None:
        """A real server can't be reached."""
        flows = {"nat": self._callers("nat"), "dsr": self._callers("dsr"), "local": self._askers("local")}
        with self._act("a real server dies", flows):
            self._lab.unplug(1)
            self._excuse = served_by("s1", time.monotonic())
            self.tell("s1's plug is pulled")

    def regain_server(self) -> None:
        """It can be again."""
        # Not under wrk's load: that fills queues, and a datagram that finds one full is lost.
        flows = {"nat": self._callers("nat"), "dsr": self._callers("dsr"), "local": self._askers("local")}
        with self._act("it comes back", flows):
            self._lab.unplug(1, out=False)
            self.tell("s1 is plugged in again")

    def _callers(self, kind: str) -> list[Flows]:
        """As wrk has it: IPv4 on kept connections, IPv6 with one for each request."""
        vip = plan.VIPS[kind]
        return [Caller(self._lab.client, vip, 4, kept=KEPT), Caller(self._lab.client, vip, 6)]

    def _askers(self, kind: str) -> list[Flows]:
        return [Asker(self._lab.client, plan.VIPS[kind], family) for family in plan.FAMILIES]

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
                # What it was busy with.
                tail = self._nodes.process(number).tail()
                raise LabError(f"n{number} owns {buckets} buckets after {patience} s:\n{tail}")
            time.sleep(0.05)

    @contextmanager
    def _act(self, name: str, flows: dict[str, list[Flows]] | None = None) -> Iterator[None]:
        """Runs the load, with what is done in the block beginning a second later. `flows`: in wrk's place, by virtual server."""
        flows = flows or {}
        act = Act(name)
        self.acts.append(act)
        self._excuse = none
        self._say(name)
        end = time.monotonic() + ACT_SECONDS
        # IPv4 on kept connections, IPv6 with one for each request.
        runs = [(kind, family, load.Result()) for kind in KINDS if kind not in flows for family in plan.FAMILIES]
        threads = [threading.Thread(target=self._load, args=run, daemon=True) for run in runs]
        ours = [(kind, one) for kind, several in flows.items() for one in several]
        for thread in [*threads, *(one for _, one in ours)]:
            thread.start()
        time.sleep(1)
        try:
            yield
            time.sleep(max(0.0, end - time.monotonic()))
        finally:
            for thread in threads:
                thread.join()
            for kind, _, result in runs:
                act.results[kind].add(result)
            for kind, one in ours:
                one.stop()
                act.judge(kind, one, self._excuse)
        self.tell(f"failed: {act.counts()}")

    def _load(self, kind: str, family: int, result: load.Result) -> None:
        try:
            url = plan.VIPS[kind].url(family)
            load.run(self._lab.client, [url], ACT_SECONDS, CONNECTIONS, family == 4, total=result)
        except LabError as error:
            result.fail(str(error))

    def fault(self) -> str | None:
        """Why it was no success, if it wasn't."""
        for act in self.acts:
            if act.failed():
                reasons: Counter[str] = Counter()
                for result in act.results.values():
                    reasons.update(result.failures)
                said = ", ".join(f"{count} × {reason}" for reason, count in sorted(reasons.items()))
                return f"{act.name}: {act.failed()} requests failed: {said}"
            if not all(result.requests for result in act.results.values()):
                return f"{act.name}: a load made no request"
        return None

    def notes(self) -> list[str]:
        """What was excused, and why."""
        return [f"{act.name}: {count} at {kind}: {why}" for act in self.acts for (kind, why), count in act.excused.items()]
