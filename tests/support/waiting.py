"""Waiting for a condition instead of for a time."""

import threading
import time
from collections.abc import Callable

_TICK = threading.Event()


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0, what: str = "") -> None:
    """Returns as soon as the condition holds; AssertionError if it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what or condition}"
        _TICK.wait(0.005)
