"""Realistic series: what sensors, meters and machines send, as telemetry messages."""

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

START_MS = 1_764_000_000_000

Value = float | int | bool | str
Message = tuple[int, dict[str, Value | dict[str, Value]]]  # time in ms, values by key


class Kind(NamedTuple):
    """One kind of series; `numeric`: databases of numbers can hold it."""

    messages: Callable[[random.Random, int], Iterator[Message]]
    numeric: bool


def _times(rng: random.Random, count: int) -> Iterator[int]:
    """1 Hz, read up to 5 ms early or late."""
    return (START_MS + n * 1_000 + rng.randint(-5, 5) for n in range(count))


def _walk(decimals: int) -> Callable[[random.Random, int], Iterator[Message]]:
    def messages(rng: random.Random, count: int) -> Iterator[Message]:
        value = 21 * 10**decimals
        for ts in _times(rng, count):
            value += rng.randint(-3, 3)
            yield ts, {"t": value / 10**decimals}

    return messages


def _counter(rng: random.Random, count: int) -> Iterator[Message]:
    total = 7_000_000
    for ts in _times(rng, count):
        total += rng.choice((10, 11, 12))
        yield ts, {"n": total}


def _flag(rng: random.Random, count: int) -> Iterator[Message]:
    on = False
    for ts in _times(rng, count):
        on ^= rng.random() < 0.02
        yield ts, {"on": on}


def _gps(rng: random.Random, count: int) -> Iterator[Message]:
    lat, lon, course = 52_520_008, 13_404_954, 0.0
    for ts in _times(rng, count):
        course += rng.uniform(-0.2, 0.2)
        lat += round(12 * math.cos(course))
        lon += round(20 * math.sin(course))
        yield ts, {"lat": lat / 1e6, "lon": lon / 1e6}


def _state(rng: random.Random, count: int) -> Iterator[Message]:
    names = ("RUNNING", "IDLE", "STARVED", "BLOCKED", "FAULT")
    name = names[0]
    for ts in _times(rng, count):
        if rng.random() < 0.03:
            name = rng.choice(names)
        yield ts, {"state": name}


def _document(rng: random.Random, count: int) -> Iterator[Message]:
    for n, ts in enumerate(_times(rng, count)):
        yield ts, {"o": {"axis": n % 3, "rms": round(rng.gauss(2, 0.1), 3), "ok": True}}


KINDS: dict[str, Kind] = {
    "walk, 1 decimal": Kind(_walk(1), True),
    "walk, 2 decimals": Kind(_walk(2), True),
    "counter": Kind(_counter, True),
    "boolean": Kind(_flag, True),
    "GPS, 6 decimals": Kind(_gps, True),
    "enumerated text": Kind(_state, False),
    "JSON": Kind(_document, False),
}


def as_json(messages: list[Message]) -> bytes:
    """One telemetry payload."""
    return json.dumps([{"ts": ts, "values": values} for ts, values in messages]).encode()
