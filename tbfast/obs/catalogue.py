"""Name, help, labels and scale of every metric; word numbers come from ``_ext/metrics.pxd``.

Counters end in ``_total``; units are seconds and bytes.  Label values are fixed words, never peer
data (hostile-input 1, I9).  The documented list is generated from this table.
"""

from typing import Final, Literal, NamedTuple

from tbfast._ext import metrics as w
from tbfast.model.rates import NAMES as RATE_LIMITS

Labels = tuple[tuple[str, str], ...]

# What becomes of the processes' values: added, the largest, one line per process or per worker.
Combine = Literal["sum", "max", "process", "worker"]

NANO: Final = 1e-9
MILLI: Final = 1e-3

REASONS: Final = (
    "malformed", "too_big", "payload", "topic", "auth", "timeout", "protocol", "early_queue",
    "store", "slow_consumer", "wrong_port", "key", "limit", "unavailable", "tls", "rate",
)  # fmt: skip


class Series(NamedTuple):
    """One word of a slot, or the first word of a histogram."""

    word: int
    labels: Labels = ()


class Family(NamedTuple):
    """One metric: a HELP line, a TYPE line and its series."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    series: tuple[Series, ...]
    scale: float = 1
    combine: Combine = "sum"


def _protocols(**words: int) -> tuple[Series, ...]:
    return tuple(Series(word, (("protocol", name),)) for name, word in words.items())


def _refusals(**bases: int) -> tuple[Series, ...]:
    return tuple(
        Series(base + number, (("protocol", protocol), ("reason", reason)))
        for protocol, base in bases.items()
        for number, reason in enumerate(REASONS)
    )


FAMILIES: Final = (
    Family(
        "tbfast_messages_total", "counter",
        "Telemetry and attribute messages accepted.",
        _protocols(mqtt=w.MESSAGES_MQTT, http=w.MESSAGES_HTTP),
    ),
    Family("tbfast_points_total", "counter", "Values stored.", (Series(w.POINTS),)),
    Family(
        "tbfast_records_dropped_total", "counter",
        "Records acknowledged and not stored: the key is refused, or the device was removed.",
        (
            Series(w.RECORDS_DROPPED_KEY, (("reason", "key"),)),
            Series(w.RECORDS_DROPPED_DEVICE, (("reason", "device"),)),
        ),
    ),
    Family(
        "tbfast_refused_total", "counter",
        "Messages and connections refused.",
        _refusals(mqtt=w.REFUSED_MQTT, http=w.REFUSED_HTTP),
    ),
    Family(
        "tbfast_rate_limited_total", "counter",
        "Messages and connections refused by a rate limit of the tenant profile.",
        tuple(
            Series(w.RATE_LIMITED + number, (("limit", name),))
            for number, name in enumerate(RATE_LIMITS)
        ),
    ),
    Family(
        "tbfast_bad_utf8_total", "counter",
        "Texts with invalid UTF-8, stored with the replacement character.",
        (Series(w.BAD_UTF8),),
    ),
    Family(
        "tbfast_received_bytes_total", "counter", "Bytes read from devices.",
        _protocols(mqtt=w.RECEIVED_BYTES_MQTT, http=w.RECEIVED_BYTES_HTTP),
    ),
    Family(
        "tbfast_sent_bytes_total", "counter", "Bytes written to devices.",
        _protocols(mqtt=w.SENT_BYTES_MQTT, http=w.SENT_BYTES_HTTP),
    ),
    Family(
        "tbfast_connections", "gauge", "Open connections.",
        _protocols(mqtt=w.CONNECTIONS_MQTT, http=w.CONNECTIONS_HTTP),
    ),
    Family(
        "tbfast_connects_delayed_total", "counter",
        "Connects of devices that came back too often and were answered late.",
        (Series(w.FLAPPING),),
    ),
    Family(
        "tbfast_tls_handshakes_total", "counter",
        "TLS handshakes completed: full ones, and sessions resumed by a ticket.",
        (
            Series(w.TLS_FULL, (("kind", "full"),)),
            Series(w.TLS_RESUMED, (("kind", "resumed"),)),
        ),
    ),
    Family(
        "tbfast_sessions", "gauge", "Authenticated sessions.",
        _protocols(mqtt=w.SESSIONS_MQTT),
    ),
    Family(
        "tbfast_ack_seconds", "histogram",
        "Time from reading a message to sending its acknowledgement.",
        (Series(w.ACK),), NANO,
    ),
    Family(
        "tbfast_commit_seconds", "histogram",
        "Time from the first row of a commit group to its being durable.",
        (Series(w.COMMIT),), NANO,
    ),
    Family(
        "tbfast_commits_total", "counter", "Commit groups made durable.", (Series(w.COMMITS),)
    ),
    Family(
        "tbfast_written_bytes_total", "counter",
        "Bytes of committed groups handed to the journal.",
        (Series(w.WRITTEN_BYTES),),
    ),
    Family(
        "tbfast_backpressure_total", "counter",
        "Times reading from devices was paused because too much was not durable yet.",
        (Series(w.BACKPRESSURE),),
    ),
    Family(
        "tbfast_journal_bytes", "gauge", "Size of the journal on disk.",
        (Series(w.JOURNAL_BYTES),), combine="worker",
    ),
    Family(
        "tbfast_unsynced_bytes", "gauge", "Bytes received and not durable yet.",
        (Series(w.UNSYNCED_BYTES),),
    ),
    Family(
        "tbfast_unsynced_window_seconds", "gauge",
        "Age of the oldest data a power cut would lose.",
        (Series(w.UNSYNCED_WINDOW_NS),), NANO, "max",
    ),
    Family(
        "tbfast_tail_lag_seconds", "gauge",
        "Age of the newest committed data that queries do not show yet.",
        (Series(w.TAIL_LAG_MS),), MILLI, "max",
    ),
    Family(
        "tbfast_sealed_points_total", "counter", "Points moved from journals into sealed series.",
        (Series(w.SEALED_POINTS),),
    ),
    Family(
        "tbfast_joined_points_total", "counter",
        "Points whose chunks were joined; a point counts again each time.",
        (Series(w.JOINED_POINTS),),
    ),
    Family(
        "tbfast_joined_bytes_total", "counter", "Bytes of the chunks that joining made.",
        (Series(w.JOINED_BYTES),),
    ),
    Family(
        "tbfast_series_points", "gauge",
        "Points held in sealed series; deleted and repeated ones until their chunks are joined.",
        (Series(w.SERIES_POINTS),),
    ),
    Family(
        "tbfast_series_bytes", "gauge",
        "Bytes of sealed chunks before the store's own compression.",
        (Series(w.SERIES_BYTES),),
    ),
    Family(
        "tbfast_disk_used_bytes", "gauge", "Space that the data directory takes, reserve included.",
        (Series(w.DISK_USED_BYTES),),
    ),
    Family(
        "tbfast_disk_budget_bytes", "gauge",
        "Space it may take before the oldest sealed rows are dropped.",
        (Series(w.DISK_BUDGET_BYTES),),
    ),
    Family(
        "tbfast_disk_free_bytes", "gauge", "Space left on its file system, reserve not counted.",
        (Series(w.DISK_FREE_BYTES),),
    ),
    Family(
        "tbfast_disk_reserve_bytes", "gauge",
        "Space kept for deletes and shutdown; 0 while the disk is full.",
        (Series(w.DISK_RESERVE_BYTES),),
    ),
    Family(
        "tbfast_disk_alarm", "gauge", "1 from 90 % of the budget or of the file system.",
        (Series(w.DISK_ALARM),),
    ),
    Family(
        "tbfast_disk_full", "gauge", "1 while telemetry is refused for lack of space.",
        (Series(w.DISK_FULL),), combine="max",
    ),
    Family(
        "tbfast_disk_stalled", "gauge",
        "1 while new connections are refused because the disk has not stored rows for long.",
        (Series(w.DISK_STALLED),), combine="max",
    ),
    Family(
        "tbfast_disk_dropped_points_total", "counter",
        "Points of sealed rows dropped because space was short.",
        (Series(w.DISK_DROPPED_POINTS),),
    ),
    Family(
        "tbfast_clock_steps_total", "counter",
        "Times a worker found the system clock set by more than 5 seconds.",
        (Series(w.CLOCK_STEPS),),
    ),
    Family(
        "tbfast_memory_used_bytes", "gauge",
        "Memory that counts against the limit of the node.",
        (Series(w.MEMORY_USED_BYTES),), combine="max",
    ),
    Family(
        "tbfast_memory_budget_bytes", "gauge",
        "Memory the node may take (cgroup or ulimit -v); 0 = no limit.",
        (Series(w.MEMORY_BUDGET_BYTES),), combine="max",
    ),
    Family(
        "tbfast_memory_level", "gauge",
        "0, or what is done about scarce memory: 1 no new connections, 2 also smaller windows, "
        "3 also peers that do not read are dropped.",
        (Series(w.MEMORY_LEVEL),), combine="max",
    ),
    Family(
        "tbfast_memory_shed_total", "counter",
        "Connections refused or closed because memory was scarce.",
        (Series(w.MEMORY_SHED),),
    ),
    Family(
        "tbfast_restarts_total", "counter", "Times a process ended and was started again.",
        (Series(w.RESTARTS),), combine="process",
    ),
    Family(
        "tbfast_log_suppressed_total", "counter",
        "Log lines left out because their reason was logged too often.",
        (Series(w.LOG_SUPPRESSED),),
    ),
    Family(
        "tbfast_log_dropped_total", "counter",
        "Log lines lost because standard error was not read or could not be written.",
        (Series(w.LOG_DROPPED),),
    ),
)  # fmt: skip
