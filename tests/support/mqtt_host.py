"""One session engine on a real Ingest, driven as the reactor and the port drive it: no sockets,
no clock, commits when the test says so."""

from typing import Any

from tbfast import limits
from tbfast._ext.ingest import Group, Ingest
from tbfast._ext.rate import Rates
from tbfast.codec import mqtt as codec
from tbfast.engine.mqtt.effects import (
    Abort,
    Ask,
    Authenticate,
    Delivered,
    Effect,
    Finish,
    Listen,
    Refused,
    SessionOpened,
)
from tbfast.engine.mqtt.session import MqttSession
from tbfast.engine.mqtt.settings import Settings, State
from tbfast.errors import PeerError, RateLimited
from tbfast.model import mqtt as m
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.model.operations import Notice, Result
from tbfast.model.rates import DEVICE as DEVICE_SCOPE

SLOT = 3
DEVICE = 42
WALL_MS = 1_700_000_000_000
START_MS = 5_000
SEED = bytes(range(16))
CLIENT_ID = "made-up"
KNOWN = StoredCredentials("token", "ACCESS_TOKEN", DEVICE, "pump")
ANSWERS = {4: m.Puback, 5: m.Pubrec}


class _ColdSink:
    """An Ingest whose sessions never take the hot path."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ingest, name)

    def open(
        self, slot: int, device: int, version: int, hot: bool = True, scope: int = DEVICE_SCOPE
    ) -> int:
        return self._ingest.open(slot, device, version, False, scope)


class Host:
    """``sent`` is every byte that went to the peer; ``ended`` is None, "finish" or "abort".

    who: what the lookup of credentials answers; "later" leaves it open until `authenticate`.
    """

    def __init__(
        self,
        *,
        hot: bool = True,
        who: StoredCredentials | str | None = KNOWN,
        settings: Settings | None = None,
        rates: Rates | None = None,
    ) -> None:
        self.settings = settings or Settings()
        self.ingest = Ingest(max_remaining=self.settings.max_remaining, seed=SEED, rates=rates)
        self.hot = hot
        self.now = START_MS
        self.wall = WALL_MS
        self._tick()
        sink = self.ingest if hot else _ColdSink(self.ingest)
        self.engine = MqttSession(SLOT, sink, self.settings, lambda: CLIENT_ID, self.now)
        self.who = who
        self.sent = bytearray()
        self.ended: str | None = None
        self.asked: list[Presented] = []
        self.opened = 0
        self.refusals: list[str] = []
        self.operations: list[Ask] = []  # not answered yet
        self.listens: list[Listen] = []
        self.delivered: list[tuple[int, str]] = []
        self.blocks: list[bytes] = []
        self._kept = b""
        self._seq = 0
        self._taken = 0

    # --- what the reactor does ---------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self.ended is not None:
            return
        self._tick()
        self._kept += data
        while self._kept and self.ended is None:
            if not self.hot and self.state is State.OPEN:
                self.engine.receive(self._kept, self.now)
                self._kept = b""
                self._pump()
                return
            try:
                used, full = self.ingest.walk(SLOT, self._kept)
            except RateLimited as error:
                self.engine.limited(error, self.now)
                self._pump()
                return
            self._kept = self._kept[used:]
            if full:
                self.commit()
                continue
            try:
                length = codec.frame_length(self._kept, self.settings.max_remaining)
            except PeerError:
                length = len(self._kept)  # the engine names the error and closes
            if length == 0:
                return
            packet, self._kept = self._kept[:length], self._kept[length:]
            self.engine.receive_packet(memoryview(packet), self.now)
            self._pump()

    def commit(self) -> bytes | None:
        """The open group becomes durable and is answered; its block, if it has rows."""
        group = self.take()
        self.complete(group)
        return self.blocks[-1] if group.value is not None else None

    def take(self) -> Group:
        """Closes the open group; nothing of it is durable yet."""
        self._seq += 1
        group = self.ingest.take(1, 1, self._seq, self.wall, 1)
        self._tick()
        return group

    def complete(self, group: Group) -> None:
        if group.value is not None:
            self.blocks.append(group.value)
        for slot, owed in self.ingest.settle(group):
            assert slot == SLOT
            for kind, packet_id in owed:
                self._send(codec.encode(ANSWERS[kind](packet_id=packet_id), self.engine.version))
            if self.ingest.awaiting(SLOT) == 0:
                self.engine.drained(self.now)
        self._pump()

    def fail(self, group: Group) -> None:
        """The store did not take the group."""
        for _slot, _owed in self.ingest.settle(group):
            self.engine.failed(self.now)
        self._pump()

    def advance(self, ms: int) -> None:
        """Time passes; the deadline is looked at, as the sweep does."""
        self.now += ms
        self.wall += ms
        self._tick()
        deadline = self.engine.deadline()
        if deadline and deadline <= self.now:
            self.engine.timeout(self.now)
            self._pump()

    # --- what the port does ------------------------------------------------------------------

    def authenticate(self, who: StoredCredentials | None) -> None:
        self.engine.authenticated(who, self.now)
        self._pump()

    def unavailable(self) -> None:
        self.engine.auth_unavailable(self.now)
        self._pump()

    def busy(self) -> None:
        self.engine.busy(self.now)
        self._pump()

    def answer(self, result: Result) -> None:
        """The controller answers the oldest operation."""
        self.engine.answered(self.operations.pop(0), result, self.now)
        self._pump()

    def notify(self, notice: Notice, push: int = 0) -> None:
        self.engine.notify(notice, push, self.now)
        self._pump()

    def shutdown(self, code: m.ReasonCode, reason: str = "because") -> None:
        self.engine.shutdown(code, reason, self.now)
        self._pump()

    def _pump(self) -> None:
        for effect in self.engine.effects():
            self._act(effect)
        self._send(self.engine.output())

    def _act(self, effect: Effect) -> None:
        match effect:
            case Authenticate(client):
                self.asked.append(client)
                if self.who != "later":
                    assert not isinstance(self.who, str)
                    self.authenticate(self.who)
            case SessionOpened():
                self.opened += 1
            case Refused(reason):
                self.refusals.append(reason)
            case Ask():
                self.operations.append(effect)
            case Listen():
                self.listens.append(effect)
            case Delivered(push, state):
                self.delivered.append((push, state))
            case Finish():
                self._send(self.engine.output())
                self.ended = "finish"
                self.ingest.close(SLOT)
            case Abort():
                self.ended = "abort"
                self.ingest.close(SLOT)

    def _send(self, data: bytes) -> None:
        assert not data or self.ended is None, "bytes after the end"
        self.sent += data

    def _tick(self) -> None:
        self.ingest.at(self.wall, self.now * 1_000_000)

    # --- for the test ------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self.engine.state

    def write(self, *packets: m.Packet, version: int | None = None) -> None:
        """Encodes and receives packets, one by one."""
        for packet in packets:
            chosen = version or self.engine.version or getattr(packet, "protocol_version", 4)
            self.receive(codec.encode(packet, chosen))

    def replies(self) -> list[m.Packet]:
        """Packets sent since the last call."""
        decoder = codec.Decoder(max_remaining=2**20, version=self.engine.version or 4)
        packets = decoder.feed(bytes(self.sent[self._taken :]))
        assert decoder.buffered == 0, "half a packet was sent"
        self._taken = len(self.sent)
        return packets


def connect(version: int, **fields: Any) -> m.Connect:
    """A CONNECT with a token, unless fields say otherwise."""
    given = {"client_id": "c", "username": "token"} | fields
    return m.Connect(protocol_version=version, **given)


def opened(version: int = 4, **kwargs: Any) -> Host:
    """A host whose session is open, the CONNACK read."""
    fields = kwargs.pop("connect", {})
    host = Host(**kwargs)
    host.write(connect(version, **fields))
    (answer,) = host.replies()
    assert isinstance(answer, m.Connack)
    assert answer.reason_code == 0
    return host


MAX_REMAINING = limits.MQTT_MAX_REMAINING_BYTES
