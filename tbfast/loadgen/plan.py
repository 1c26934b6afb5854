"""What a load test is to do."""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tbfast.errors import LocalError

TOPIC: Final = "v1/devices/me/telemetry"
MAX_BURST_BYTES: Final = 64 << 20  # of one round of one device, kept as one buffer


class PlanError(LocalError):
    """The settings of a load test contradict each other."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load test; durations in seconds.

    ``rate`` None: closed loop, ``depth`` messages per connection and the next round when all are
    acknowledged. With a rate: open loop of that many messages a second over all connections, at
    most ``depth`` of a connection in flight, latency from the intended time of sending; a device
    sends ``burst`` messages at once, as one that gathers them does.
    """

    port: Annotated[int, Meta(ge=1, le=65_535)]
    host: str = "127.0.0.1"
    connections: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    depth: Annotated[int, Meta(ge=1, le=65_535)] = 1
    rate: Annotated[float, Meta(gt=0)] | None = None
    burst: Annotated[int, Meta(ge=1, le=65_535)] = 1
    qos: Literal[0, 1, 2] = 1
    version: Literal[4, 5] = 4
    idle: bool = False
    keys: Annotated[int, Meta(ge=1, le=1_000)] = 3
    own_ts: bool = True
    first_ts_ms: Annotated[int, Meta(ge=1_000_000_000_000, lt=10_000_000_000_000)] | None = None
    payload: bytes | None = None
    topic: str = TOPIC
    tokens: tuple[str, ...] = ()
    duration_s: Annotated[float, Meta(gt=0)] = 10.0
    warmup_s: Annotated[float, Meta(ge=0)] = 1.0
    connect_timeout_s: float = 60.0
    drain_timeout_s: float = 10.0
    reconnect: bool = False
    ledger: Path | None = None
    pids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises PlanError."""
        if self.tokens and len(self.tokens) < self.connections:
            raise PlanError(f"{self.connections} connections need as many tokens")
        if self.ledger is not None and (self.qos == 0 or self.payload is not None):
            raise PlanError("a ledger needs acknowledgements and times: QoS 1 or 2, own payload")
        if self.ledger is not None and not self.own_ts:
            raise PlanError("a ledger needs messages with their own time")
        if self.idle and self.rate is not None:
            raise PlanError("idle connections have no rate")
        if self.burst > 1 and (self.rate is None or self.burst > self.depth):
            raise PlanError("bursts are of the open loop, and no longer than a connection's depth")
