"""What is measured: loads, and the servers that each load meets in the same run."""

from typing import Any, Final, NamedTuple

OPEN_RATE: Final = 40_000
IDLE_CONNECTIONS: Final = 5_000
SOCKETS_EMPTY_S: Final = 90.0  # QoS 0: what waits in socket buffers, at the pace of the slowest


class Scenario(NamedTuple):
    """A load; ``fields`` go into tbfast.loadgen.plan.Plan."""

    key: str
    title: str
    fields: dict[str, Any]


class Variant(NamedTuple):
    """A server; durability None is the baseline."""

    key: str
    durability: str | None
    workers: int


SCENARIOS: Final = (
    Scenario("500x1-q1", "500 connections, 1 in flight, QoS 1", {"connections": 500}),
    Scenario(
        "100x32-q1", "100 connections, 32 in flight, QoS 1", {"connections": 100, "depth": 32}
    ),
    Scenario(
        "500x1-q0",
        "500 connections, QoS 0 as fast as the sockets take it",
        {"connections": 500, "qos": 0, "drain_timeout_s": SOCKETS_EMPTY_S},
    ),
    Scenario(
        "100x32-q0",
        "100 connections, QoS 0, 32 a send, as fast as the sockets take it",
        {"connections": 100, "depth": 32, "qos": 0, "drain_timeout_s": SOCKETS_EMPTY_S},
    ),
    Scenario(
        "open-40k",
        f"open loop, {OPEN_RATE:,} messages/s over 500 connections, QoS 1",
        {"connections": 500, "depth": 1024, "rate": float(OPEN_RATE)},
    ),
)

IDLE: Final = Scenario(
    "idle",
    f"{IDLE_CONNECTIONS:,} idle connections",
    {"connections": IDLE_CONNECTIONS, "idle": True},
)

BASELINE: Final = "mosquitto"

VARIANTS: Final = (
    Variant(BASELINE, None, 1),
    Variant("tbfast process 1", "process", 1),
    Variant("tbfast disk 1", "disk", 1),
    Variant("tbfast process 2", "process", 2),
    Variant("tbfast disk 2", "disk", 2),
)
