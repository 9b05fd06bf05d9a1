"""How long new flows suffer when a node is killed: `python3 -m lab.kills N`, started by `scripts/soak kills`.

Three nodes; every client enters at the first, and the third is killed and started again N times. Flows that the third doesn't own
must never fail; those that it owns fail until another has taken them over. Who owns a flow the first is asked before the kill.
"""

import sys
import time
from collections import Counter
from dataclasses import dataclass

from . import build, hugepages, plan
from .asker import Asker
from .cluster import Cluster
from .errors import LabError
from .lab import Lab

# What each kill gets before the node is started again, and before the next one.
REST_SECONDS = 3
# Flows of which nobody was asked have their answers before the kill.
BEFORE_SECONDS = 0.5
# As many as begin from then until the node is started again.
FLOWS = 100 * (REST_SECONDS + 1)
KILLED = 3


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of all don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass
class Loss:
    """What a kill cost the new flows to a virtual server."""

    # From the kill to the last flow that got no answer.
    seconds: float
    # How many got none, by the node that owned them.
    owners: Counter[str]

    def own(self) -> int:
        """Those of them that the killed node owned."""
        return self.owners[f"n{KILLED}"]

    def __str__(self) -> str:
        lost = ", ".join(f"{count} of {owner}" for owner, count in sorted(self.owners.items()))
        return f"{self.seconds:.2f} s ({lost or 'none'})"


def kill(nodes: Cluster, askers: dict[str, Asker]) -> dict[str, Loss]:
    """Kills the third node once, and starts it again; what that cost, by virtual server."""
    nodes.wait_rest(KILLED)
    for asker in askers.values():
        asker.foresee(nodes, 1, FLOWS)
    since = time.monotonic()
    time.sleep(BEFORE_SECONDS)
    at = time.monotonic()
    nodes.kill(KILLED)
    time.sleep(REST_SECONDS)
    back = time.monotonic()
    nodes.start_again(KILLED)
    nodes.wait_ready()
    time.sleep(REST_SECONDS)
    found = {}
    for name, asker in askers.items():
        missed = [when for when in asker.missed if when >= since]
        late = [round(when - back, 2) for when in missed if when >= back]
        if late:
            raise LabError(f"{name}: flows failed when the node had returned, {late} s after its start")
        found[name] = Loss(max([0.0, *(when - at for when in missed)]), asker.lost(since))
    return found


def main(count: int) -> int:
    """Runs all kills and prints what came of them; returns the exit code."""
    binary = build.product()
    found: dict[str, list[Loss]] = {"dsr": [], "nat": []}
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, pages, log=True) as nodes:
        askers = {name: Asker(lab.client, plan.VIPS[name]) for name in found}
        for name in found:
            lab.route(plan.VIPS[name], node=1)
        time.sleep(REST_SECONDS)
        for asker in askers.values():
            asker.start()
        for number in range(1, count + 1):
            for name, loss in kill(nodes, askers).items():
                found[name].append(loss)
            print(f"kill {number}: " + ", ".join(f"{name} {losses[-1]}" for name, losses in found.items()), flush=True)
        for asker in askers.values():
            asker.stop()
    good = True
    for name, losses in found.items():
        times = [loss.seconds for loss in losses]
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        # Between kills, too.
        lost = len(askers[name].missed)
        others = lost - sum(loss.own() for loss in losses)
        print(
            f"{name}: p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(times):.2f} s of {count} kills; "
            f"{lost} flows lost, {others} of them not the killed node's"
        )
        good = good and p99 <= 1 and not others
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
