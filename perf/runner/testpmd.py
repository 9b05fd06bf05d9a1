"""DPDK's own forwarder on the same null device, for orientation."""
import os
import re
import statistics
import subprocess
import time
from pathlib import Path

from runner.program import Failed, forget_dpdk

# Seconds of processor time of a run, and how many runs there are.
SECONDS, RUNS = 0.5, 5
# Seconds between two looks at the thread, and after which testpmd is given up.
LOOK, PATIENCE = 0.05, 60


def _forwarding(pid):
    """Processor time of the forwarding thread in nanoseconds, and whether it sleeps; None before it is there."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().startswith(("lcore-worker", "rte-worker")):
            sleeps = (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
            return int((task / "schedstat").read_text().split()[0]), sleeps
    return None


def _wait(running, enough):
    """Processor time of the forwarding thread once `enough` says so of it and of whether it sleeps; None: testpmd has ended."""
    for _ in range(int(PATIENCE / LOOK)):
        if running.poll() is not None:
            return None
        thread = _forwarding(running.pid)
        if thread and enough(*thread):
            return thread[0]
        time.sleep(LOOK)
    raise Failed("dpdk-testpmd neither forwards nor stops")


def _run():
    """Nanoseconds a packet in one run of testpmd."""
    first, last = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))
    prefix = f"steerage-perf-testpmd-{os.getpid()}"
    command = [
        "dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf",
        f"--file-prefix={prefix}", "--vdev=net_null0,size=64", f"--lcores=0@{first},1@{last}",
        "--", "--interactive", "--forward-mode=macswap", "--burst=32", "--nb-cores=1", "--total-num-mbufs=4096",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            running.stdin.write("start\n")
            running.stdin.flush()
            _wait(running, lambda ns, _: ns > SECONDS * 1e9)
            running.stdin.write("stop\n")
            running.stdin.flush()
            # It sleeps when it has stopped: only then do its time and the packets counted belong together.
            ns = _wait(running, lambda _, sleeps: sleeps)
            output, _ = running.communicate("quit\n", timeout=PATIENCE)
        except (BrokenPipeError, subprocess.TimeoutExpired) as why:
            running.kill()
            raise Failed("dpdk-testpmd ended early, or did not end") from why
        except BaseException:
            running.kill()
            raise
        finally:
            forget_dpdk(prefix)
    packets = re.search(r"\+ Accumulated forward statistics for all ports.*?RX-packets: (\d+)", output, re.S)
    if running.returncode or not packets or not ns:
        raise Failed(f"dpdk-testpmd did not run:\n{output}")
    return ns / int(packets[1])


def measure():
    """A row: what a packet of 64 bytes costs testpmd with `--forward-mode=macswap` on net_null."""
    each = sorted(_run() for _ in range(RUNS))
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return {
        "name": "testpmd_macswap", "flows": 1, "io": "null", "ns_per_packet": round(middle, 3),
        "spread": round(high - low, 3), "least": round(each[0], 3), "runs": RUNS,
    }
