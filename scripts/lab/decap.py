"""Builds XDP programs."""

from pathlib import Path

from .process import output


def build(source: Path, target: Path) -> Path:
    """Compiles an XDP program in C to an object file that `ip link set … xdpdrv obj` loads; returns `target`."""
    # <asm/types.h> is in the machine's own directory, which clang does not search for its BPF target.
    machine = output(["clang", "-print-multiarch"]).stdout.strip()
    argv = ["clang", "-target", "bpf", "-O2", "-g", "-Wall", "-Werror", f"-I/usr/include/{machine}"]
    output([*argv, "-c", str(source), "-o", str(target)])
    return target
