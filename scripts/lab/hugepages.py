"""Hugepages of 2 MB for the nodes, given back afterwards."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

DIRECTORY = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
# A node's, 160 MB, as the profile `lab` says.
NODE = 80


@contextlib.contextmanager
def reserved(needed: int = 3 * NODE, directory: Path = DIRECTORY) -> Iterator[bool]:
    """Makes sure that `needed` pages are free for the time of the block; False if the machine doesn't permit it."""
    total = directory / "nr_hugepages"
    try:
        before = int(total.read_text())
        missing = needed - int((directory / "free_hugepages").read_text())
        if missing > 0:
            total.write_text(str(before + missing))
        enough = int((directory / "free_hugepages").read_text()) >= needed
    except OSError:
        yield False
        return
    try:
        yield enough
    finally:
        if missing > 0:
            total.write_text(str(before))
