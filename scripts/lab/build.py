"""Builds the release binary."""

import json
import subprocess
from pathlib import Path

from .errors import LabError

ROOT = Path(__file__).resolve().parents[2]


def release() -> Path:
    """Builds `steerage` for release, unless it is up to date, and returns the binary; cargo's progress is shown."""
    argv = ["cargo", "build", "--release", "--locked", "--bin", "steerage", "--message-format", "json-render-diagnostics"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise LabError("`cargo build --release` failed")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "steerage":
            return Path(message["executable"])
    raise LabError("`cargo build --release` made no binary")
