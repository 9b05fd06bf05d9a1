"""The worker's turn in capsule's runtime, and the same on a thread of Steerage's own: rows of perf/capsule.rs."""
import os

from runner import program

FLOWS_ROWS = ["capsule_dsr_ipip", "dpdk_dsr_ipip"]
ROWS = [*FLOWS_ROWS, "capsule_io", "dpdk_io", "capsule_vec_mbuf"]
CORES = 2


def measure(names, family, take):
    """Builds the program with the feature `capsule`, and gives each of its rows to `take`; of the rows that have a family, those
    of `family` alone if it isn't None."""
    cores = len(os.sched_getaffinity(0))
    if cores < CORES:
        for name in names:
            take({"name": name, "io": "null", "reason": f"{cores} core"})
        return

    def suits(row):
        if family in (None, row["family"]) or row["family"] is None:
            take(row | {"io": "null"})

    program.results(program.build(bench="capsule", features=["capsule"]), names, suits)
