from typing import Final, final

from typing_extensions import Buffer

SLOT_WORDS: Final[int]
HEALTH_PID: Final[int]
HEALTH_HEARTBEAT_MS: Final[int]
HEALTH_LISTENING: Final[int]
HEALTH_JOURNAL_OPEN: Final[int]
HEALTH_END: Final[int]
RESTARTS: Final[int]
MESSAGES_MQTT: Final[int]
MESSAGES_HTTP: Final[int]
POINTS: Final[int]
RECORDS_DROPPED_KEY: Final[int]
RECORDS_DROPPED_DEVICE: Final[int]
BAD_UTF8: Final[int]
RECEIVED_BYTES_MQTT: Final[int]
RECEIVED_BYTES_HTTP: Final[int]
SENT_BYTES_MQTT: Final[int]
SENT_BYTES_HTTP: Final[int]
WRITTEN_BYTES: Final[int]
COMMITS: Final[int]
BACKPRESSURE: Final[int]
SEALED_POINTS: Final[int]
LOG_SUPPRESSED: Final[int]
LOG_DROPPED: Final[int]
DISK_DROPPED_POINTS: Final[int]
REFUSED_MQTT: Final[int]
REFUSED_HTTP: Final[int]
REFUSED_END: Final[int]
REASON_MALFORMED: Final[int]
REASON_TOO_BIG: Final[int]
REASON_PAYLOAD: Final[int]
REASON_TOPIC: Final[int]
REASON_AUTH: Final[int]
REASON_TIMEOUT: Final[int]
REASON_PROTOCOL: Final[int]
REASON_EARLY_QUEUE: Final[int]
REASON_STORE: Final[int]
REASON_SLOW_CONSUMER: Final[int]
REASON_WRONG_PORT: Final[int]
REASON_KEY: Final[int]
REASON_LIMIT: Final[int]
REASON_UNAVAILABLE: Final[int]
GAUGES: Final[int]
CONNECTIONS_MQTT: Final[int]
CONNECTIONS_HTTP: Final[int]
SESSIONS_MQTT: Final[int]
JOURNAL_BYTES: Final[int]
UNSYNCED_BYTES: Final[int]
UNSYNCED_WINDOW_NS: Final[int]
TAIL_LAG_MS: Final[int]
SERIES_POINTS: Final[int]
SERIES_BYTES: Final[int]
DISK_USED_BYTES: Final[int]
DISK_BUDGET_BYTES: Final[int]
DISK_FREE_BYTES: Final[int]
DISK_ALARM: Final[int]
DISK_RESERVE_BYTES: Final[int]
DISK_FULL: Final[int]
GAUGES_END: Final[int]
ACK: Final[int]
COMMIT: Final[int]
HISTOGRAM_STRIDE: Final[int]
HISTOGRAM_BUCKETS: Final[int]
SLOT_BYTES: Final[int]
BUCKET_BOUNDS_NS: Final[tuple[int, ...]]

@final
class Slot:
    def __init__(self, buffer: Buffer | None = None, number: int = 0) -> None: ...
    def add(self, word: int, n: int = 1) -> None: ...
    def subtract(self, word: int, n: int = 1) -> None: ...
    def put(self, word: int, n: int) -> None: ...
    def get(self, word: int) -> int: ...
    def observe_seconds(self, histogram: int, seconds: float) -> None: ...
    def begin(self, pid: int) -> None: ...
    def end(self) -> None: ...
