"""How long new flows suffer when a node is killed: `python3 -m lab.kills N`, started by `scripts/soak kills`.

Three nodes; every client enters at the first, and the third is killed and started again N times. Flows through the first one's
own buckets must never fail; those through the dead one's fail until another has taken them over.
"""

import sys
import time

from . import build, hugepages, plan
from .asker import Asker
from .cluster import Cluster
from .errors import LabError
from .lab import Lab

# What each kill gets before the node is started again, and before the next one.
REST_SECONDS = 3


def quantile(values: list[float], share: float) -> float:
    """The value that `share` of all don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def kill(nodes: Cluster, askers: dict[str, Asker]) -> dict[str, float]:
    """Kills the third node once, and starts it again; seconds until the last flow that got no answer, by virtual server."""
    at = time.monotonic()
    nodes.kill(3)
    time.sleep(REST_SECONDS)
    back = time.monotonic()
    nodes.start_again(3)
    nodes.wait_ready()
    time.sleep(REST_SECONDS)
    missed = {name: [when for when in asker.missed if when >= at - 0.05] for name, asker in askers.items()}
    for name, times in missed.items():
        late = [round(when - back, 2) for when in times if when >= back]
        if late:
            raise LabError(f"{name}: flows failed when the node had returned, {late} s after its start")
    return {name: max((when - at for when in times), default=0.0) for name, times in missed.items()}


def main(count: int) -> int:
    """Runs all kills and prints what came of them; returns the exit code."""
    binary = build.product()
    found: dict[str, list[float]] = {"dsr": [], "nat": []}
    with Lab() as lab, hugepages.reserved() as pages, Cluster(lab, binary, pages, log=True) as nodes:
        askers = {name: Asker(lab.client, plan.VIPS[name]) for name in found}
        for name in found:
            lab.route(plan.VIPS[name], node=1)
        time.sleep(REST_SECONDS)
        for asker in askers.values():
            asker.start()
        for number in range(1, count + 1):
            for name, seconds in kill(nodes, askers).items():
                found[name].append(seconds)
            print(f"kill {number}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in found.items()), flush=True)
        for asker in askers.values():
            asker.stop()
    for name, times in found.items():
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        print(f"{name}: p50 {p50:.2f} s, p99 {p99:.2f} s, max {max(times):.2f} s of {count} kills")
    return 0 if all(quantile(times, 0.99) <= 1 for times in found.values()) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except LabError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)
