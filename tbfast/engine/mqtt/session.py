"""One MQTT connection as a state machine without I/O.

States and what ends them (MQTT spec 1.2 - 1.9):

    NEW             bytes until a CONNECT; other packets wait in the early queue
    AUTHENTICATING  the host is looking the device up; packets wait in the early queue
    OPEN            accepted; plain telemetry may bypass this object (tbf_walk.h), unless the client
                    came to be registered: then it stays a stranger
    CLOSING         a close was decided; answers for messages accepted earlier still go out
    CLOSED          nothing is acted on

The acknowledgement of a stored message never starts here: it is noted in the sink's open commit
group and leaves when that group is durable.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from tbfast import limits
from tbfast._ext.proto import Table
from tbfast._ext.rate import Rates
from tbfast.codec import mqtt as codec
from tbfast.engine.mqtt.effects import (
    Abort,
    Authenticate,
    Effect,
    Finish,
    Refused,
    SessionOpened,
)
from tbfast.engine.mqtt.formats import formats_of
from tbfast.engine.mqtt.requests import Requests
from tbfast.engine.mqtt.settings import Settings, State
from tbfast.engine.mqtt.topics import Route, Target
from tbfast.errors import PeerError, RateLimited
from tbfast.model import mqtt as m
from tbfast.model.auth import ClientCertificate, Presented, StoredCredentials
from tbfast.model.mqtt import ReasonCode as Code
from tbfast.model.rates import GATEWAY, GATEWAY_DEVICE, RateLimits
from tbfast.model.transport import MqttProfile

CONNECT = 1
PUBACK = 4
PUBREC = 5
MAX_HEADER_BYTES = 5  # packet type and the longest Remaining Length


class Sink(Protocol):
    """The ingest path as a session sees it: tbfast._ext.ingest.Ingest."""

    @property
    def rates(self) -> Rates | None: ...
    def open(
        self, slot: int, device: int, version: int, hot: bool = True, scope: int = ...
    ) -> int: ...
    def spend(self, device: int, scope: int = ...) -> None: ...
    def cool(self, slot: int) -> None: ...
    def awaiting(self, slot: int) -> int: ...
    def active_ms(self, slot: int) -> int: ...
    def append_json(self, device: int, data: bytes, scope: int = ...) -> tuple[int, int]: ...
    def append_attributes(self, device: int, data: bytes, scope: int = ...) -> tuple[int, int]: ...
    def append_proto(
        self, device: int, data: bytes, table: Table, attributes: bool, scope: int = ...
    ) -> tuple[int, int]: ...
    def profile(
        self, slot: int, topic: bytes | None, takes_v2: bool, table: Table | None
    ) -> None: ...
    def note(self, slot: int, ack_type: int, packet_id: int) -> None: ...


# A v3 CONNACK code for each v5 reason we refuse with (MQTT spec 1.6).
_V3_CONNACK = {
    Code.CLIENT_IDENTIFIER_NOT_VALID: 2,
    Code.SERVER_UNAVAILABLE: 3,
    Code.SERVER_BUSY: 3,
    Code.CONNECTION_RATE_EXCEEDED: 3,
}
_NOT_AUTHORIZED_V3 = 5


class MqttSession(Requests):
    """The engine of one connection in `slot` of the sink.

    All times are monotonic milliseconds.  `new_client_id` supplies random client identifiers for
    MQTT 5 clients that have none (announced, used for nothing).
    """

    __slots__ = (
        "_active_ms",
        "_aliases",
        "_connect",
        "_deadline",
        "_early",
        "_early_bytes",
        "_ended",
        "_keep_alive_ms",
        "_last_ms",
        "_new_client_id",
        "_out",
        "_partial",
        "_previous_ms",
        "_problem_information",
        "_qos2",
        "_sink",
        "_unframed",
        "_why",
        "certificate",
        "credentials",
        "slot",
    )

    def __init__(
        self,
        slot: int,
        sink: Sink,
        settings: Settings,
        new_client_id: Callable[[], str],
        now: int,
    ) -> None:
        super().__init__(settings)
        self.slot = slot
        self.credentials: StoredCredentials | None = None
        self.certificate: ClientCertificate | None = None  # presented to TLS, until CONNECT
        self._sink = sink
        self._new_client_id = new_client_id
        self._partial = b""
        self._out: list[bytes] = []
        self._early: list[bytes] | None = None
        self._early_bytes = 0
        self._ended = False  # the peer sends nothing more, and what it sent waits for the lookup
        self._unframed = False  # the early queue ends in what cannot be a packet
        self._connect: m.Connect | None = None
        self._deadline = now + settings.connect_timeout_ms
        self._last_ms = self._active_ms = self._previous_ms = now
        self._keep_alive_ms = 0
        self._aliases: dict[int, str] | None = None
        self._qos2: bytearray | None = None
        self._problem_information = True
        self._why: tuple[Code, str] | None = None

    # --- pulls -------------------------------------------------------------------------------

    def output(self) -> bytes:
        """Bytes to send now."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def effects(self) -> list[Effect]:
        """Effects since the last call, in order."""
        if not self._effects:
            return []
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> int:
        """When `timeout` wants to be called; 0 = never."""
        if self._downlink is not None and (overdue := self._downlink.deadline()):
            return min(self._deadline, overdue, self._leaves_ms or overdue)
        return min(self._deadline, self._leaves_ms or self._deadline)

    # --- input -------------------------------------------------------------------------------

    def receive(self, view: bytes | memoryview, now: int) -> None:
        """Bytes from the peer, split anywhere."""
        data = self._partial + bytes(view)
        at = 0
        while self.state not in (State.CLOSING, State.CLOSED):
            rest = memoryview(data)[at:]
            try:
                length = codec.frame_length(rest, self._settings.max_remaining)
            except PeerError:
                length = len(rest)  # receive_packet finds the same and acts on it
            if length == 0:
                break
            self.receive_packet(rest[:length], now)
            at += length
        self._partial = data[at:]

    def receive_packet(self, packet: bytes | memoryview, now: int) -> None:
        """One complete packet, or bytes that cannot become one; cheaper than `receive`."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        try:
            first = self.state is State.NEW and packet[0] >> 4 == CONNECT
            if self.state is not State.OPEN and not first:
                self._queue_early(packet, now)
                return
            codec.frame_length(packet, self._settings.max_remaining)
            decoded = codec.decode(packet, self.version or 4)
        except PeerError as error:
            self._malformed(error, now)
            return
        self._previous_ms, self._active_ms, self._last_ms = self._active_ms, now, now
        _HANDLERS[type(decoded)](self, decoded, now)

    def _queue_early(self, packet: bytes | memoryview, now: int) -> None:
        """Keeps a packet until the CONNECT is accepted."""
        if self._unframed:
            return
        try:
            codec.frame_length(packet, self._settings.max_remaining)
        except PeerError:
            if self.state is State.NEW:
                raise
            # Whether the lookup has answered yet must not show: it is refused in its turn.
            self._unframed = True
            packet = packet[:MAX_HEADER_BYTES]
        if self._early is None:
            self._early = []
        self._early_bytes += len(packet)
        if (
            len(self._early) >= self._settings.queue_limit
            or self._early_bytes > limits.MQTT_EARLY_BYTES
        ):
            self._refused("early_queue", "too many packets before CONNACK")
            self._close(Code.QUOTA_EXCEEDED, "too many packets before CONNACK", now)
            return
        self._early.append(bytes(packet))

    def _malformed(self, error: PeerError, now: int) -> None:
        if isinstance(error, codec.PacketTooLarge):
            reason = "too_big"
        else:
            reason = "protocol" if isinstance(error, codec.UnsupportedProtocol) else "malformed"
        self._refused(reason, str(error))
        if self.state is State.NEW:
            self._abort()  # no CONNECT was accepted: no CONNACK, no DISCONNECT (1.2)
        else:
            self._close(Code.MALFORMED_PACKET, str(error), now)

    def peer_ended(self, now: int) -> bool:
        """The peer sends nothing more; whether what it sent still has to be acted on or answered.

        Clients may send and go without waiting for CONNACK: whether the lookup has answered by
        then must not show.
        """
        if self.state is State.AUTHENTICATING:
            self._ended = bool(self._early)
            return self._ended
        if self.state is State.OPEN and self.credentials and self._sink.awaiting(self.slot):
            self._wind_up(now)
        return self.state is State.CLOSING

    @property
    def last_ms(self) -> int:
        """Time of the last packet on the event path that was activity."""
        return self._active_ms

    def waited(self, ms: int) -> None:
        """The host has kept the peer waiting before its first packet: that is not its delay."""
        self._deadline += ms

    def timeout(self, now: int) -> None:
        """The deadline has passed."""
        if self.state in (State.NEW, State.AUTHENTICATING):
            self._refused("timeout", "no accepted CONNECT in time")
            self._abort()
        elif self.state is State.OPEN:
            if self._downlink is not None:
                self._downlink.expire(now)
                self._next_chunk(now)
            if self._leaves_ms and self._leaves_ms <= now:
                self._finish(disconnect=False)
                return
            hot = 0 if self.credentials is None else self._sink.active_ms(self.slot)
            self._deadline = self._idle_at(hot)
            if self._deadline <= now:
                self._refused("timeout", "no activity")
                self._close(Code.MAXIMUM_CONNECT_TIME, "inactivity timeout", now)
        elif self.state is State.CLOSING:
            self._finish()

    def _idle_at(self, hot: int) -> int:
        """When the session ends unless something comes; hot: last message on the hot path."""
        at = max(self._active_ms, hot) + self._settings.idle_timeout_ms
        if self._keep_alive_ms:  # for which every packet counts (MQTT 3.1.2.10)
            at = min(at, max(self._last_ms, hot) + self._keep_alive_ms)
        return at

    # --- CONNECT -----------------------------------------------------------------------------

    def _on_connect(self, packet: m.Connect, now: int) -> None:
        if self.state is not State.NEW:
            self._refused("protocol", "second CONNECT")
            self._close(Code.PROTOCOL_ERROR, "second CONNECT", now)
            return
        self.version = packet.protocol_version
        self._connect = packet
        if self._settings.keep_alive_factor and packet.keep_alive:
            self._keep_alive_ms = int(packet.keep_alive * 1000 * self._settings.keep_alive_factor)
        properties = packet.properties
        if properties is not None:
            self._peer_max_packet = properties.maximum_packet_size or 0
            self._peer_window = min(self._peer_window, properties.receive_maximum or 65_535)
            self._problem_information = properties.request_problem_information != 0
        if packet.client_id == "provision" or packet.username == "provision":
            self.provisions = True
            self._opened(packet, now)
            return
        self.state = State.AUTHENTICATING
        self._effects.append(
            Authenticate(
                Presented(packet.client_id, packet.username, packet.password, self.certificate)
            )
        )

    def authenticated(
        self,
        credentials: StoredCredentials | None,
        now: int,
        why: str = "credentials are not known",
    ) -> None:
        """The host's answer to Authenticate; None = no credentials accept this client, and why."""
        if self.state is not State.AUTHENTICATING:
            return
        connect = self._connect
        assert connect is not None
        if credentials is None:
            self._refused("auth", why)
            code = Code.NOT_AUTHORIZED if self.certificate else _refusal_code(connect)
            self._refuse_connect(code, why)
            return
        if credentials.transport not in ("DEFAULT", "MQTT"):
            self._refused("auth", "the device's profile is for another transport")
            self._refuse_connect(
                Code.SERVER_UNAVAILABLE, "the device profile is not for MQTT devices"
            )
            return
        try:
            self._sink.spend(credentials.device, credentials.scope)
        except RateLimited as error:
            self._effects.append(Refused("rate", str(error), error.limit))
            self._refuse_connect(Code.CONNECTION_RATE_EXCEEDED, str(error))
            return
        self.credentials = credentials
        self._sink.open(self.slot, credentials.device, self.version, True, scope=credentials.scope)
        self._follow(credentials.mqtt)
        self._opened(connect, now)

    def _opened(self, connect: m.Connect, now: int) -> None:
        self.state = State.OPEN
        self.certificate = None
        self._connect = None
        self._last_ms = self._active_ms = now
        self._deadline = self._idle_at(0)
        if self.credentials is not None:
            self._effects.append(SessionOpened(self.credentials))
        self._send(
            m.Connack(
                session_present=False, reason_code=0, properties=self._connack_properties(connect)
            )
        )
        early, self._early, self._early_bytes = self._early, None, 0
        for frame in early or ():
            self.receive_packet(frame, now)
        if self._ended and self.state is State.OPEN:
            self._wind_up(now)

    def profile_changed(self, mqtt: MqttProfile) -> None:
        """The profile was edited: its settings hold from the next packet on (MQTT spec 1.7)."""
        if self.credentials is not None:
            self.credentials = msgspec.structs.replace(self.credentials, mqtt=mqtt)
            if self.state is State.OPEN:
                self._follow(mqtt)

    def _follow(self, mqtt: MqttProfile) -> None:
        """Topics and payload formats are those of this profile, on the hot path too."""
        formats = formats_of(mqtt)
        if formats is not self._formats:
            self._formats = formats
            self._sink.profile(self.slot, *formats.hot())

    def auth_unavailable(self, now: int) -> None:
        """Nobody could be asked who this is: "try later"."""
        if self.state is State.AUTHENTICATING:
            self._refused("auth", "credentials could not be looked up")
            self._refuse_connect(Code.SERVER_UNAVAILABLE, "credentials cannot be checked now")

    def busy(self, now: int) -> None:
        """The disk has been behind for too long to take anybody in: "try later" (promises 8)."""
        if self.state is State.AUTHENTICATING:
            self._refused("store", "the disk is too slow for new sessions")
            self._refuse_connect(Code.SERVER_BUSY, "the server waits for its disk; try later")

    def _connack_properties(self, connect: m.Connect) -> m.Properties | None:
        if self.version < 5:
            return None
        expiry = connect.properties.session_expiry_interval if connect.properties else None
        return m.Properties(
            receive_maximum=limits.MQTT_RECEIVE_MAXIMUM,
            maximum_packet_size=self._settings.max_remaining + 4,
            topic_alias_maximum=limits.MQTT_TOPIC_ALIAS_MAXIMUM,
            assigned_client_identifier=None if connect.client_id else self._new_client_id(),
            session_expiry_interval=0 if expiry else None,
        )

    def _refuse_connect(self, code: Code, reason: str) -> None:
        v3 = _V3_CONNACK.get(code, _NOT_AUTHORIZED_V3)
        if self.version == 5:
            self._send(
                m.Connack(session_present=False, reason_code=code, properties=self._reason(reason))
            )
        else:
            self._send(m.Connack(session_present=False, reason_code=v3))
        self._finish(disconnect=False)

    # --- PUBLISH and its answers -------------------------------------------------------------

    def _on_publish(self, packet: m.Publish, now: int) -> None:
        topic = packet.topic
        if self.version == 5:
            resolved = self._resolve_alias(packet)
            if resolved is None:
                self._refused("topic", "topic alias is not set")
                self._answer(packet, Code.TOPIC_NAME_INVALID, "topic alias is not set")
                return
            topic = resolved
        if packet.qos == 2 and self._is_repeat(packet.packet_id or 0):
            # Stored before; PUBREC again, after whatever group still holds it.
            self._sink.note(self.slot, PUBREC, packet.packet_id or 0)
            return
        if self.provisions:
            self._on_provision(packet, topic, now)
            return
        target = self._formats.route(topic)
        _ROUTES[target.route](self, packet, target, now)

    def _on_telemetry(self, packet: m.Publish, target: Target, now: int) -> None:
        self._post(packet, target, now, self._sink.append_json, attributes=False)

    def _on_attributes(self, packet: m.Publish, target: Target, now: int) -> None:
        self._post(packet, target, now, self._sink.append_attributes, attributes=True)

    def _on_gateway(self, packet: m.Publish, target: Target, now: int) -> None:
        self._refused("topic", "gateway topic from a device that is not a gateway")

    def _on_package(self, packet: m.Publish, target: Target, now: int) -> None:
        self._no_activity()
        self._on_chunk(packet, target, now)

    def _on_unknown(self, packet: m.Publish, target: Target, now: int) -> None:
        self._refused("topic", "unknown topic")
        self._answer(packet, Code.TOPIC_NAME_INVALID, "unknown topic")

    def _resolve_alias(self, packet: m.Publish) -> str | None:
        """The packet's topic, through its alias if it has one; None = an alias that is not set."""
        alias = packet.properties.topic_alias if packet.properties else None
        if packet.topic:
            if alias is not None and 1 <= alias <= limits.MQTT_TOPIC_ALIAS_MAXIMUM:
                if self._aliases is None:
                    self._aliases = {}
                kept = sum(len(t) for a, t in self._aliases.items() if a != alias)
                if kept + len(packet.topic) <= limits.MQTT_TOPIC_ALIAS_BYTES:
                    self._aliases[alias] = packet.topic
                else:
                    self._aliases.pop(alias, None)  # its former topic would be the wrong one
            return packet.topic
        return None if alias is None or self._aliases is None else self._aliases.get(alias)

    def _is_repeat(self, packet_id: int) -> bool:
        """Whether this QoS 2 identifier still waits for its PUBREL."""
        seen = self._qos2
        return seen is not None and bool(seen[packet_id >> 3] & (1 << (packet_id & 7)))

    def _post(
        self,
        packet: m.Publish,
        target: Target,
        now: int,
        append_json: Callable[[int, bytes, int], tuple[int, int]],
        *,
        attributes: bool,
    ) -> None:
        """Rows into the open batch; the answer is owed once they are durable."""
        assert self.credentials is not None
        device, scope = self.credentials.device, self.credentials.scope

        def append_proto(payload: bytes) -> tuple[int, int]:
            table = self._formats.table(attributes=attributes)
            return self._sink.append_proto(device, payload, table, attributes, scope)

        try:
            self._read(
                target.family,
                packet.payload,
                append_proto,
                lambda payload: append_json(device, payload, scope),
            )
        except RateLimited as error:
            self.limited(error, now)
            return
        except PeerError as error:
            self._reject(packet, str(error), now)
            return
        if packet.qos == 2:
            self._remember(packet.packet_id or 0)
        ack = (0, PUBACK, PUBREC)[packet.qos]
        self._sink.note(self.slot, ack, packet.packet_id or 0)

    def _remember(self, packet_id: int) -> None:
        if self._qos2 is None:
            self._qos2 = bytearray(8192)
        self._qos2[packet_id >> 3] |= 1 << (packet_id & 7)

    def _reject(self, packet: m.Publish, why: str, now: int) -> None:
        """REJECT of the spec's vocabulary: v5 is told; v3 is closed, unless the profile says so."""
        self._refused("payload", why)
        self._no_activity()
        if packet.qos > 0 and (self.version == 5 or self._formats.acks_refused):
            self._answer(packet, Code.PAYLOAD_FORMAT_INVALID, why)
        else:
            self._close(Code.PAYLOAD_FORMAT_INVALID, why, now)

    def _answer(self, packet: m.Publish, code: Code, why: str) -> None:
        """ACK(code) of the spec's vocabulary: nothing was stored, so nothing is waited for."""
        if packet.qos == 0 or packet.packet_id is None:
            return
        v5 = self.version == 5
        answer = m.Puback if packet.qos == 1 else m.Pubrec
        if packet.qos == 2 and not v5:
            self._remember(packet.packet_id)  # a v3 PUBREC cannot refuse: the exchange goes on
        self._send(
            answer(
                packet_id=packet.packet_id,
                reason_code=code if v5 else 0,
                properties=self._reason(why) if v5 else None,
            )
        )

    def _acknowledge(self, packet: m.Publish) -> None:
        """ACK(0): what the message asked for is under way, or done."""
        if packet.qos == 1:
            self._send(m.Puback(packet_id=packet.packet_id or 0))
        elif packet.qos == 2:
            self._remember(packet.packet_id or 0)
            self._send(m.Pubrec(packet_id=packet.packet_id or 0))

    def _on_pubrel(self, packet: m.Pubrel, now: int) -> None:
        self._no_activity()
        known = self._is_repeat(packet.packet_id)
        if known:
            assert self._qos2 is not None
            self._qos2[packet.packet_id >> 3] &= ~(1 << (packet.packet_id & 7)) & 0xFF
        unknown = Code.PACKET_IDENTIFIER_NOT_FOUND if self.version == 5 else 0
        self._send(m.Pubcomp(packet_id=packet.packet_id, reason_code=0 if known else unknown))

    def failed(self, now: int) -> None:
        """A message of this session was not stored: no acknowledgement, the connection ends.

        Real clients take any PUBACK, and silence on an open connection, as delivered.
        """
        self._refused("store", "the store refuses writes")
        self._close(Code.QUOTA_EXCEEDED, "the store refuses writes; try again later", now)
        if not self._sink.awaiting(self.slot):
            self.drained(now)

    # --- rate limits -------------------------------------------------------------------------

    def _spend(self) -> RateLimited | None:
        assert self.credentials is not None
        try:
            self._sink.spend(self.credentials.device, self.credentials.scope)
        except RateLimited as error:
            return error
        return None

    def limited(self, error: RateLimited, now: int) -> None:
        """A message was over a rate limit: CLOSE, and no acknowledgement (8.1)."""
        self._effects.append(Refused("rate", str(error), error.limit))
        self._close(Code.IMPLEMENTATION_SPECIFIC_ERROR, str(error), now)

    def _rate_limits(self) -> dict[str, dict[str, str | None]]:
        assert self.credentials is not None
        rates = self._sink.rates
        found = RateLimits() if rates is None else rates.limits
        reported = {"rateLimits": found.reported(self.credentials.scope)}
        if self.credentials.scope == GATEWAY_DEVICE:
            reported["gatewayRateLimits"] = found.reported(GATEWAY)
        return reported

    # --- PINGREQ, DISCONNECT -----------------------------------------------------------------

    def _on_pingreq(self, packet: m.Pingreq, now: int) -> None:
        self._send(m.Pingresp())

    def _on_disconnect(self, packet: m.Disconnect, now: int) -> None:
        """The client leaves; its rows stay, answers it still waits for would never be read."""
        if self.version == 5:
            self._send(m.Disconnect())  # as ThingsBoard (1.7)
        self._finish(disconnect=False)

    def _ignore(self, packet: object, now: int) -> None:
        """Packets only a server sends, and acknowledgements of what we never sent (1.2)."""
        self._no_activity()

    # --- closing -----------------------------------------------------------------------------

    def shutdown(self, code: Code, reason: str, now: int) -> None:
        """The server ends this session (takeover, device removed, stop)."""
        if self.state is State.OPEN:
            self._close(code, reason, now)
        elif self.state in (State.NEW, State.AUTHENTICATING):
            self._abort()

    def drained(self, now: int) -> None:
        """No answer is owed any more."""
        if self.state is State.CLOSING:
            self._finish()

    def _close(self, code: Code, reason: str, now: int) -> None:
        """CLOSE of the spec's vocabulary, after the answers of messages accepted earlier."""
        if self.state in (State.CLOSING, State.CLOSED):
            return
        self._why = (code, reason)
        self._wind_up(now)

    def _wind_up(self, now: int) -> None:
        """Answers that are owed still go out, for a while."""
        accepted = self.state is State.OPEN and self.credentials is not None
        self.state = State.CLOSING
        self._sink.cool(self.slot)
        if accepted and self._sink.awaiting(self.slot):
            self._deadline = now + self._settings.close_timeout_ms
        else:
            self._finish()

    def _finish(self, *, disconnect: bool = True) -> None:
        if disconnect and self.version == 5 and self._why is not None:
            code, reason = self._why
            self._send(m.Disconnect(reason_code=code, properties=self._reason(reason)))
        self.state = State.CLOSED
        self._deadline = 0
        self._forget()
        self._effects.append(Finish())

    def _abort(self) -> None:
        self.state = State.CLOSED
        self._deadline = 0
        self._forget()
        self._effects.append(Abort())

    def _forget(self) -> None:
        self._early = None
        self.certificate = None
        self._connect = None
        self._aliases = None
        self._qos2 = None
        self._downlink = None
        self._downloads = None

    # --- small things ------------------------------------------------------------------------

    def _no_activity(self) -> None:
        self._active_ms = self._previous_ms

    def _refused(self, reason: str, detail: str) -> None:
        self._effects.append(Refused(reason, detail))

    def _reason(self, text: str) -> m.Properties | None:
        return m.Properties(reason_string=text) if self._problem_information else None

    def _send(self, packet: m.Packet) -> bool:
        """False: larger than the client takes, and dropped (MQTT 5 3.1.2.11.4)."""
        data = codec.encode(packet, self.version)
        if self._peer_max_packet and len(data) > self._peer_max_packet:
            bare = getattr(packet, "properties", None) is None
            return False if bare else self._send(_bare(packet))
        self._out.append(data)
        return True


def _bare(packet: m.Packet) -> m.Packet:
    """Without its properties: none that we send is worth losing the packet for."""
    return msgspec.structs.replace(packet, properties=None)


def _refusal_code(connect: m.Connect) -> Code:
    """Why nothing matched (MQTT spec 1.6)."""
    if connect.username is not None or connect.password is not None:
        return Code.BAD_USER_NAME_OR_PASSWORD
    return Code.CLIENT_IDENTIFIER_NOT_VALID if connect.client_id.strip() else Code.NOT_AUTHORIZED


_HANDLERS: dict[type, Callable[..., None]] = {
    m.Connect: MqttSession._on_connect,
    m.Publish: MqttSession._on_publish,
    m.Pubrel: MqttSession._on_pubrel,
    m.Subscribe: MqttSession._on_subscribe,
    m.Unsubscribe: MqttSession._on_unsubscribe,
    m.Pingreq: MqttSession._on_pingreq,
    m.Disconnect: MqttSession._on_disconnect,
    m.Connack: MqttSession._ignore,
    m.Puback: MqttSession._on_puback,
    m.Pubrec: MqttSession._ignore,
    m.Pubcomp: MqttSession._ignore,
    m.Suback: MqttSession._ignore,
    m.Unsuback: MqttSession._ignore,
    m.Pingresp: MqttSession._ignore,
    m.Auth: MqttSession._ignore,
}

_ROUTES: dict[Route, Callable[[MqttSession, m.Publish, Target, int], None]] = {
    Route.TELEMETRY: MqttSession._on_telemetry,
    Route.ATTRIBUTES: MqttSession._on_attributes,
    Route.ATTRIBUTES_REQUEST: MqttSession._on_request,
    Route.RPC_REQUEST: MqttSession._on_request,
    Route.RPC_ANSWER: MqttSession._on_rpc_answer,
    Route.CLAIM: MqttSession._on_claim,
    Route.GATEWAY: MqttSession._on_gateway,
    Route.FIRMWARE: MqttSession._on_package,
    Route.SOFTWARE: MqttSession._on_package,
    Route.UNKNOWN: MqttSession._on_unknown,
}
