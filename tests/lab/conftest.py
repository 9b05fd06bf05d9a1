"""Makes the laboratory's package importable and gives the tests what they share."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from lab import decap  # noqa: E402


@pytest.fixture(scope="session")
def decapsulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The servers' XDP program, built."""
    return decap.build(Path(__file__).with_name("decap.bpf.c"), tmp_path_factory.mktemp("xdp") / "decap.o")
