"""What every part of a session knows: its settings and its states."""

from enum import Enum, auto

from tbfast import limits


class Settings:
    """What the configuration says about sessions; shared by all of them."""

    __slots__ = (
        "ack_timeout_ms",
        "close_timeout_ms",
        "connect_timeout_ms",
        "idle_timeout_ms",
        "keep_alive_factor",
        "max_remaining",
        "queue_limit",
    )

    def __init__(
        self,
        *,
        max_remaining: int = limits.MQTT_MAX_REMAINING_BYTES,
        close_timeout_ms: int = limits.MQTT_CLOSE_TIMEOUT_MS,
        connect_timeout_ms: int = limits.MQTT_CONNECT_TIMEOUT_MS,
        idle_timeout_ms: int = limits.MQTT_IDLE_TIMEOUT_MS,
        keep_alive_factor: float = 0.0,
        ack_timeout_ms: int = limits.MQTT_ACK_TIMEOUT_MS,
        queue_limit: int = limits.MQTT_QUEUE,
    ) -> None:
        self.max_remaining = max_remaining
        self.close_timeout_ms = close_timeout_ms
        self.connect_timeout_ms = connect_timeout_ms
        self.idle_timeout_ms = idle_timeout_ms
        self.keep_alive_factor = keep_alive_factor
        self.ack_timeout_ms = ack_timeout_ms
        self.queue_limit = queue_limit


class State(Enum):
    """See the module's table."""

    NEW = auto()
    AUTHENTICATING = auto()
    OPEN = auto()
    CLOSING = auto()
    CLOSED = auto()
