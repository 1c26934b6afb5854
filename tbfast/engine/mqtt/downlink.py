"""PUBLISHes to one device: subscriptions, QoS, packet identifiers, and what waits for a PUBACK.

At most `window` messages are on their way; later ones wait in a queue of bounded length and bytes.
A message that is not acknowledged in time is forgotten, never sent again (MQTT spec 1.7), and makes
room.
"""

from collections import deque
from collections.abc import Callable

from tbfast import limits
from tbfast.engine.mqtt.topics import CALLS, PUSHES, Family, matches
from tbfast.model.mqtt import Publish
from tbfast.model.operations import Delivery


class Downlink:
    """Made when a session first subscribes or is sent something.

    send(packet) is False for a packet that the peer's Maximum Packet Size does not allow.
    outcome(push, state) is called for every message with a push number, once per state.
    """

    __slots__ = (
        "_ack_timeout_ms",
        "_last_id",
        "_outcome",
        "_queue",
        "_queued_bytes",
        "_send",
        "_unacked",
        "_window",
        "attributes",
        "calls",
        "filters",
    )

    def __init__(
        self,
        send: Callable[[Publish], bool],
        outcome: Callable[[int, Delivery], None],
        *,
        window: int,
        ack_timeout_ms: int,
    ) -> None:
        self._send = send
        self._outcome = outcome
        self._window = min(window, limits.MQTT_DOWNLINK_WINDOW)
        self._ack_timeout_ms = ack_timeout_ms
        self._last_id = 0
        self._unacked: dict[int, tuple[int, int]] = {}  # packet identifier -> (push, expires)
        self._queue: deque[tuple[str, bytes, int]] = deque()
        self._queued_bytes = 0
        self.filters: dict[str, int] = {}  # granted filter -> QoS
        self.attributes: Family | None = None  # changes of shared attributes come in it
        self.calls: Family | None = None  # calls of the server come in it

    # --- subscriptions -----------------------------------------------------------------------

    def subscribe(self, filter: str, qos: int, *, pushes: bool = False) -> None:
        """A granted subscription; the last of its kind decides the family (2.3).

        pushes: the profile's own filter for changes of shared attributes.
        """
        self.filters[filter] = qos
        self.attributes = Family.V1 if pushes else PUSHES.get(filter, self.attributes)
        self.calls = CALLS.get(filter, self.calls)

    def unsubscribe(self, filter: str) -> bool:
        """Whether it was held; ending one of a kind ends that kind (2.5)."""
        if self.filters.pop(filter, None) is None:
            return False
        if filter in PUSHES:
            self.attributes = None
        elif filter in CALLS:
            self.calls = None
        return True

    # --- messages ----------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes, now: int, push: int = 0) -> None:
        """Sends a message, or queues it; a full queue drops it.  QoS 0 has arrived when written."""
        qos = max((q for f, q in self.filters.items() if matches(f, topic)), default=1)
        if qos == 0:
            self._advance_id()
            sent = self._send(Publish(topic=topic, payload=payload, qos=0))
            self._tell(push, "acknowledged" if sent else "too_big")
        elif len(self._unacked) < self._window:
            self._publish_acked(topic, payload, now, push)
        elif (
            len(self._queue) < limits.MQTT_DOWNLINK_QUEUE
            and self._queued_bytes + len(topic) + len(payload) <= limits.MQTT_DOWNLINK_QUEUE_BYTES
        ):
            self._queue.append((topic, payload, push))
            self._queued_bytes += len(topic) + len(payload)
        else:
            self._tell(push, "dropped")

    def acknowledged(self, packet_id: int, now: int) -> bool:
        """PUBACK: the message has arrived; whether it was one whose fate somebody follows."""
        waited = self._unacked.pop(packet_id, None)
        if waited is None:
            return False
        self._tell(waited[0], "acknowledged")
        self._drain(now)
        return bool(waited[0])

    @property
    def unacked(self) -> int:
        """Messages on their way."""
        return len(self._unacked)

    def deadline(self) -> int:
        """When `expire` wants to be called; 0 = never."""
        for _, expires in self._unacked.values():
            return expires  # all wait equally long, so the oldest is first
        return 0

    def expire(self, now: int) -> None:
        """Forgets messages whose PUBACK is overdue."""
        while self._unacked:
            packet_id, (push, expires) = next(iter(self._unacked.items()))
            if expires > now:
                return
            del self._unacked[packet_id]
            self._tell(push, "timeout")
            self._drain(now)

    def _publish_acked(self, topic: str, payload: bytes, now: int, push: int) -> None:
        packet_id = self._advance_id()
        while packet_id in self._unacked:
            packet_id = self._advance_id()
        if self._send(Publish(topic=topic, payload=payload, qos=1, packet_id=packet_id)):
            self._unacked[packet_id] = (push, now + self._ack_timeout_ms)
            self._tell(push, "sent")
        else:
            self._tell(push, "too_big")

    def _drain(self, now: int) -> None:
        while self._queue and len(self._unacked) < self._window:
            topic, payload, push = self._queue.popleft()
            self._queued_bytes -= len(topic) + len(payload)
            self._publish_acked(topic, payload, now, push)

    def _advance_id(self) -> int:
        self._last_id = self._last_id % 65535 + 1
        return self._last_id

    def _tell(self, push: int, state: Delivery) -> None:
        if push:
            self._outcome(push, state)
