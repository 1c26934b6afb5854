"""What a load test found."""

import msgspec

from tbfast._ext.hist import Histogram


class Latency(msgspec.Struct, frozen=True):
    """Quantiles in microseconds."""

    p50: float
    p90: float
    p99: float
    p999: float
    max: float

    @classmethod
    def of(cls, histogram: Histogram) -> "Latency":
        """From a histogram of nanoseconds."""
        at = histogram.quantile
        values = (at(0.5), at(0.9), at(0.99), at(0.999), histogram.max)
        return cls(*(round(value / 1000, 1) for value in values))


class Server(msgspec.Struct, frozen=True):
    """The measured processes; memory in bytes, at the end of the measured phase.

    ``rss_per_connection`` is growth since before the first connection.
    """

    cpu_us_per_message: float | None
    cpu_cores: float
    rss: int
    pss: int
    rss_per_connection: float


class Result(msgspec.Struct, frozen=True):
    """The measured phase; ``latency`` is None without acknowledgements (QoS 0, idle).

    ``unsent`` and ``unacknowledged``: what was still owed when the test gave up waiting.
    ``disconnect_code``: reason of the last DISCONNECT the server sent (MQTT 5).
    ``lag``: how late the generator itself sent, open loop only; latency includes it.
    """

    connections: int
    connect_rate: float
    connect: Latency
    messages: int
    seconds: float
    rate: float
    latency: Latency | None
    lag: Latency | None
    refused: int
    stray: int
    unsent: int
    unacknowledged: int
    lost: int
    reconnects: int
    broken: int
    disconnect_code: int | None
    generator_cores: float
    server: Server | None
