from collections.abc import Sequence
from enum import IntEnum

from tbfast._ext.hist import Histogram

class Flow(IntEnum):
    PAUSED = 0
    CLOSED = 1
    OPEN = 2

class Goal(IntEnum):
    NOTHING = 0
    CONNECTED = 1
    QUIET = 2

class Template:
    def __init__(self, frame: bytes, *, id_at: int, ts_at: int, values: Sequence[int]) -> None: ...

class Generator:
    latency: Histogram
    lag: Histogram
    connect_time: Histogram
    ready: int
    sent: int
    acked: int
    refused: int
    stray: int
    lost: int
    in_flight: int
    abandoned: int
    connect_failed: int
    reconnects: int
    broken: int
    due: int
    begun: int
    last_errno: int
    last_disconnect: int
    def __init__(
        self,
        *,
        address: bytes,
        sources: list[bytes],
        connects: list[bytes],
        publish: Template,
        marker: Template,
        version: int,
        qos: int,
        window: int,
        reconnect: bool,
        first_ts_ms: int,
        burst: int = ...,
        ledger_fd: int = ...,
        prefixes: list[bytes] | None = ...,
    ) -> None: ...
    def set_flow(self, flow: Flow, rate: float = ...) -> None: ...
    def measure(self, from_ns: int, until_ns: int) -> None: ...
    def send_markers(self) -> None: ...
    def run(self, until_ns: int, goal: Goal = ...) -> bool: ...
    def close(self) -> None: ...
    @property
    def refusal_codes(self) -> dict[int, int]: ...
