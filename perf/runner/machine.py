"""What the figures were measured on."""
import os
import platform
import subprocess
from pathlib import Path


def free_memory():
    """Bytes that can be had without swapping."""
    return _meminfo("MemAvailable")


def _meminfo(name):
    for text in Path("/proc/meminfo").read_text().splitlines():
        key, _, value = text.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return 0


def _cpu():
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            return text.partition(":")[2].strip()
    return platform.machine()


def _commit():
    root = Path(__file__).resolve().parent.parent.parent
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def describe():
    """Processor, cores, memory, kernel, load at the start, and which sources."""
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": _meminfo("MemTotal"),
        "kernel": platform.release(),
        "transparent_hugepages": pages.read_text().partition("[")[2].partition("]")[0] if pages.exists() else None,
        "load": os.getloadavg()[0],
        "commit": _commit(),
    }
