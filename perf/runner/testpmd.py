"""DPDK's own forwarder on the same null device, for orientation."""
import os
import re
import subprocess
import time
from pathlib import Path

from runner.program import Failed


def _lcore_ns(pid):
    """Processor time of the forwarding thread in nanoseconds, or None before it is there."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(("lcore-worker", "rte-worker")):
            return int((task / "schedstat").read_text().split()[0])
    return None


def measure(seconds):
    """A row: what a packet of 64 bytes costs testpmd with `--forward-mode=macswap` on net_null."""
    last = max(os.sched_getaffinity(0))
    command = [
        "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf",
        f"--file-prefix=steerage-perf-testpmd-{os.getpid()}", "--vdev=net_null0,size=64", f"--lcores=0@{min(os.sched_getaffinity(0))},1@{last}",
        "--", "--forward-mode=macswap", "--auto-start", "--burst=32", "--nb-cores=1", "--total-num-mbufs=4096",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        time.sleep(seconds)
        ns = _lcore_ns(running.pid) if running.poll() is None else None
        # A line ends it; what it prints then is what it has carried.
        output, _ = running.communicate("\n")
    packets = re.search(r"\+ Accumulated forward statistics for all ports.*?RX-packets: (\d+)", output, re.S)
    if running.returncode or not packets or not ns:
        raise Failed(f"dpdk-testpmd did not run:\n{output}")
    each = ns / int(packets[1])
    return {
        "name": "testpmd_macswap", "family": None, "flows": 1, "io": "null", "ns_per_packet": round(each, 3), "spread": 0.0,
        "mpps": round(1e3 / each, 3), "ratio_to_limit": None, "p50_turn_ns": None, "p99_turn_ns": None, "max_turn_ns": None,
    }
