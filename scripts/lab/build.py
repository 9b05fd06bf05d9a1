"""Builds the binaries."""

import json
import os
import subprocess
from pathlib import Path

from .errors import LabError

ROOT = Path(__file__).resolve().parents[2]


def product() -> Path:
    """Builds `steerage` for release, or by the profile that STEERAGE_PROFILE names, unless it is up to date, and returns the
    binary; cargo's progress is shown."""
    profile = os.environ.get("STEERAGE_PROFILE")
    # Tests name one, and want the measuring program, too. Some dependencies have more features when it is built along: all that
    # uses them would be built twice.
    return _build("--profile", profile, "--bench", "lab") if profile else _build("--profile", "release")


def breakable() -> Path:
    """The same with the feature `sim`: nodes in which a fault can be planted (`run --plant NAME`); as `cargo test` with these
    features builds it, with what tests need beside it."""
    return _build("--profile", "test", "--features", "capsule,sim", "--bench", "capsule")


def _build(*how: str) -> Path:
    argv = ["cargo", "build", *how, "--locked", "--bin", "steerage", "--message-format", "json-render-diagnostics"]
    said = f"`cargo build {' '.join(how)}`"
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise LabError(f"{said} failed")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["target"]["name"] == "steerage":
            return Path(message["executable"])
    raise LabError(f"{said} made no binary")
