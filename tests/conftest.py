"""Settings and fixtures for every test: how hard hypothesis looks, and servers to talk to."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.server import Server
from tests.support.wire import Wire

# Servers and commands that tests start, hundreds of them, compile each module once, also where no
# bytecode may be written beside the source: a quarter of the CPU time of a start.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    _BYTECODE = Path(__file__).parents[1] / "build" / "bytecode"
    os.environ.setdefault("PYTHONPYCACHEPREFIX", str(_BYTECODE))

# A shared machine is slow at times: the number of examples is the budget, not the clock.
_COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("short", max_examples=50, **_COMMON)
settings.register_profile("default", max_examples=200, **_COMMON)
settings.register_profile("long", max_examples=5_000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One running server for tests that leave it as it was; one worker, durability disk."""
    with Server() as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server for tests that stop it or take something away from it."""
    with Server() as running:
        yield running


@pytest.fixture
def token(server: Server) -> str:
    """Token and name of a device that no other test uses, on `server`."""
    return server.add_device(f"device-{next(_numbers)}")


@pytest.fixture
def wire(server: Server) -> Iterator[Callable[..., Wire]]:
    """Opens connections to `server`: wire(version=4, ...); closed after the test."""
    opened: list[Wire] = []

    def connect(**kwargs: object) -> Wire:
        opened.append(Wire(server.mqtt_port, **kwargs))  # type: ignore[arg-type]
        return opened[-1]

    yield connect
    for one in opened:
        one.close()
