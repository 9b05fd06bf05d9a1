#!/usr/bin/python3
"""Stands in for `steerage` where a test is about the laboratory: it becomes ready and says that it did something.

standin.py run -c FILE; standin.py stats --json --socket SOCKET. With STANDIN_FAILS in the environment it ends at once.
"""

import json
import os
import signal
import socket
import sys
import tomllib
from pathlib import Path


def run(file: Path) -> None:
    """Is ready until SIGTERM."""
    if os.environ.get("STANDIN_FAILS"):
        sys.exit(f"{file.name}:1: it does not want to")
    node = tomllib.loads(file.read_text())["node"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(node["admin_socket"])
        signal.pause()


def stats(admin: Path) -> None:
    """Counters, the same at all times."""
    totals = {"rx": 100, "tx": 100, "steered_out": 60, "steered_in": 50, "sessions": 7, "drops_total": 3}
    workers = [{"id": 0, "drops": {"no_route": 3, "malformed": 0}}]
    print(json.dumps({"node": admin.stem, "ready": True, "view": 1, "workers": workers, "totals": totals}))


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(Path(sys.argv[3]))
    else:
        stats(Path(sys.argv[4]))
