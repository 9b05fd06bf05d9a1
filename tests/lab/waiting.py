"""Waits of the tests."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], what: str, seconds: float = 6) -> T:
    """Waits until `holds` returns something true, and returns that; AssertionError that says `what` was waited for."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return found
