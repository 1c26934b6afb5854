"""What simulated devices measure: random walks that look like sensors, meters and trackers."""

import json
import random
from collections.abc import Callable

Readings = dict[str, object]


def climate(rng: random.Random) -> Callable[[], Readings]:
    """Room sensor: one decimal, slow drift."""
    temperature, humidity = rng.uniform(18, 24), rng.uniform(35, 55)

    def read() -> Readings:
        nonlocal temperature, humidity
        temperature += rng.gauss(0, 0.08)
        humidity = min(95.0, max(5.0, humidity + rng.gauss(0, 0.2)))
        return {"temperature": round(temperature, 1), "humidity": round(humidity, 1)}

    return read


def meter(rng: random.Random) -> Callable[[], Readings]:
    """Energy meter: a counter that only grows, and noisy power."""
    energy_wh = rng.randrange(1_000_000)

    def read() -> Readings:
        nonlocal energy_wh
        power = max(0.0, rng.gauss(1500, 400))
        energy_wh += int(power / 36)
        voltage = rng.gauss(230, 0.8)
        return {"energy": energy_wh, "power": round(power, 2), "voltage": round(voltage, 1)}

    return read


def machine(rng: random.Random) -> Callable[[], Readings]:
    """Machine tool: vibration, load, and a state that changes now and then."""
    states = ("idle", "running", "running", "running", "fault")
    state = "idle"

    def read() -> Readings:
        nonlocal state
        if rng.random() < 0.02:
            state = rng.choice(states)
        load = rng.gauss(70, 8) if state == "running" else rng.gauss(3, 1)
        return {"state": state, "load": round(load, 2), "vibration": rng.random() * load / 1000}

    return read


def door(rng: random.Random) -> Callable[[], Readings]:
    """Door contact with a battery."""
    is_open, battery = False, 100

    def read() -> Readings:
        nonlocal is_open, battery
        is_open ^= rng.random() < 0.1
        battery = max(1, battery - (rng.random() < 0.001))
        return {"open": is_open, "battery": battery}

    return read


def tracker(rng: random.Random) -> Callable[[], Readings]:
    """Vehicle: a position that moves, and a nested object."""
    latitude, longitude = 48.1 + rng.random() / 10, 11.5 + rng.random() / 10

    def read() -> Readings:
        nonlocal latitude, longitude
        latitude += rng.gauss(0, 0.0002)
        longitude += rng.gauss(0, 0.0002)
        return {
            "latitude": round(latitude, 6),
            "longitude": round(longitude, 6),
            "gps": {"satellites": rng.randrange(5, 14), "fix": "3d"},
        }

    return read


KINDS: dict[str, Callable[[random.Random], Callable[[], Readings]]] = {
    "climate": climate,
    "meter": meter,
    "machine": machine,
    "door": door,
    "tracker": tracker,
}


def kind_of(number: int) -> str:
    """Kind of the fleet's device with this number."""
    return list(KINDS)[number % len(KINDS)]


def payload(readings: Readings) -> bytes:
    """Telemetry as devices send it."""
    return json.dumps(readings, separators=(",", ":")).encode()
