"""What a device asks for and is told beside its rows: attributes, calls, claims, subscriptions.

The part of a session that needs the controller.  Requests become Ask effects; their results, and
what the controller says unasked, become PUBLISHes or acknowledgements (MQTT spec 2.3 - 2.5, 4, 5).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from tbfast import limits
from tbfast.codec import tbproto
from tbfast.engine.mqtt.downlink import Downlink
from tbfast.engine.mqtt.downloads import (
    ERROR_TOPIC,
    ERRORS,
    TOO_LARGE,
    ChunkOf,
    Downloads,
    Remembered,
    chunk_request,
    reading,
)
from tbfast.engine.mqtt.effects import AckOf, Ask, Delivered, Effect, Listen, Refused, ReplyTo
from tbfast.engine.mqtt.formats import DEFAULT_FORMATS
from tbfast.engine.mqtt.settings import Settings, State
from tbfast.engine.mqtt.topics import (
    CALLS,
    FILTERS,
    PROVISION_REQUEST,
    PROVISION_RESPONSE,
    PUSHES,
    Family,
    Route,
    Target,
    call_topic,
    push_topic,
    reply_topic,
    request_id,
)
from tbfast.errors import PeerError, RateLimited
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tbfast.model.operations import (
    AnswerRpc,
    Attributes,
    AttributesDeleted,
    CallServer,
    Chunk,
    Delivery,
    Done,
    FindPackage,
    Notice,
    PackageFound,
    Provisioned,
    ReadAttributes,
    Refusal,
    Reply,
    Result,
    RpcRequest,
)
from tbfast.ops import attributes as attributes_ops
from tbfast.ops import claim as claim_ops
from tbfast.ops import provision as provision_ops
from tbfast.ops import rpc as rpc_ops

PUBLISH_BYTES: Final = 10  # of a PUBLISH beside its topic and payload, at most
SESSION_LIMITS: Final = "getSessionLimits"
_Read = TypeVar("_Read")


class Requests(ABC):
    """Base of MqttSession, which sends, answers and closes."""

    __slots__ = (
        "_asking",
        "_downlink",
        "_downloads",
        "_effects",
        "_formats",
        "_leaves_ms",
        "_peer_max_packet",
        "_peer_window",
        "_registers_in_protobuf",
        "_settings",
        "provisions",
        "state",
        "version",
    )

    def __init__(self, settings: Settings) -> None:
        self.state = State.NEW
        self.version = 0
        self._settings = settings
        self._effects: list[Effect] = []
        self._downlink: Downlink | None = None
        self._formats = DEFAULT_FORMATS
        self.provisions = False  # a client that came to be registered (6.2)
        self._registers_in_protobuf = False  # since its first such request, for good
        self._leaves_ms = 0  # when it is sent away; 0 = no reply yet
        self._asking = 0  # requests that wait for the controller
        self._downloads: Downloads | None = None
        self._peer_max_packet = 0  # bytes; 0 = any
        self._peer_window = limits.MQTT_DOWNLINK_WINDOW

    # --- what the session does ---------------------------------------------------------------

    @abstractmethod
    def _send(self, packet: m.Packet) -> bool:
        """False: larger than the client takes, and dropped."""

    @abstractmethod
    def _acknowledge(self, packet: m.Publish) -> None:
        """ACK(0)."""

    @abstractmethod
    def _answer(self, packet: m.Publish, code: Code, why: str) -> None:
        """ACK(code)."""

    @abstractmethod
    def _reject(self, packet: m.Publish, why: str, now: int) -> None:
        """REJECT."""

    @abstractmethod
    def _close(self, code: Code, reason: str, now: int) -> None:
        """CLOSE(code)."""

    @abstractmethod
    def _no_activity(self) -> None:
        """The packet at hand does not show that the device is active (8.5)."""

    @abstractmethod
    def _refused(self, reason: str, detail: str) -> None:
        """One counter and one log line."""

    @abstractmethod
    def _spend(self) -> RateLimited | None:
        """Accounts one message without values; what it is over, if it is (8.1)."""

    @abstractmethod
    def limited(self, error: RateLimited, now: int) -> None:
        """A message was over a rate limit: CLOSE, and no acknowledgement."""

    @abstractmethod
    def _rate_limits(self) -> dict[str, dict[str, str | None]]:
        """What the session is told about its limits (5.2)."""

    # --- requests ----------------------------------------------------------------------------

    def _read(
        self,
        family: Family,
        payload: bytes,
        protobuf: Callable[[bytes], _Read],
        plain: Callable[[bytes], _Read],
    ) -> _Read:
        """A payload in the formats of its family (MQTT spec 2.2); the last one's PeerError."""
        as_protobuf, as_json = self._formats.reads(family)
        if as_protobuf:
            try:
                return protobuf(payload)
            except PeerError:
                if not as_json:
                    raise
        return plain(payload)

    def _on_request(self, packet: m.Publish, target: Target, now: int) -> None:
        """Attributes wanted, or a call of the server: PUBACK first, then the reply (4.2, 5.2)."""
        request = request_id(target.request)
        if request is None:
            self._reject(packet, "no request id", now)
            return
        wants = target.route is Route.ATTRIBUTES_REQUEST
        operation: ReadAttributes | CallServer
        try:
            if wants:
                operation = self._read(
                    target.family,
                    packet.payload,
                    attributes_ops.protobuf_request,
                    attributes_ops.request,
                )
            else:
                operation = self._read(
                    target.family, packet.payload, rpc_ops.protobuf_call, rpc_ops.call
                )
        except PeerError as error:
            self._reject(packet, str(error), now)
            return
        to = ReplyTo(target.route, target.family, request)
        limits_of = isinstance(operation, CallServer) and operation.method == SESSION_LIMITS
        if limits_of and target.family is Family.V1:
            self._no_activity()
            self._acknowledge(packet)
            self._reply(to, self._session_limits(), now)
            return
        if not self._may_ask(packet, now):
            return
        self._acknowledge(packet)
        if isinstance(operation, CallServer):
            operation = msgspec.structs.replace(operation, id=request)
        if wants and request < 0:
            return  # as ThingsBoard: no reply
        self._ask(Ask(operation, to))

    def _reply(self, to: ReplyTo, body: bytes, now: int, *, error: str = "") -> None:
        """What the server's method returned, or why it did not, in the format of the family."""
        if self._formats.writes_protobuf(to.family):
            body = tbproto.rpc_reply(to.request, body, error=error)
        elif error:
            body = msgspec.json.encode({"error": error})
        self._publish(reply_topic(to.route, to.family, to.request), body, now)

    def _reply_attributes(self, asked: Ask, to: ReplyTo, found: Attributes, now: int) -> None:
        body = found.to_json()
        if self._formats.writes_protobuf(to.family):
            wanted = asked.operation
            assert isinstance(wanted, ReadAttributes)
            several = len(wanted.client or ()) + len(wanted.shared or ()) > 1
            body = tbproto.attributes(to.request, found, several=several)
        self._publish(reply_topic(to.route, to.family, to.request), body, now)

    def _session_limits(self) -> bytes:
        """Answered here, at once: real clients send nothing else before (clients spec, rule 1)."""
        return msgspec.json.encode(
            {
                "maxPayloadSize": self._settings.max_remaining,
                "maxInflightMessages": self._settings.queue_limit,
                **self._rate_limits(),
            }
        )

    def _on_rpc_answer(self, packet: m.Publish, target: Target, now: int) -> None:
        request = request_id(target.request)
        if request is None:
            self._reject(packet, "no request id", now)
            return
        try:
            body = self._read(target.family, bytes(packet.payload), self._formats.rpc_answer, bytes)
        except PeerError as error:
            self._reject(packet, str(error), now)
            return
        if self._may_ask(packet, now):
            self._ask(Ask(AnswerRpc(request, body), AckOf(packet)))

    def _on_claim(self, packet: m.Publish, target: Target, now: int) -> None:
        try:
            operation = self._read(
                target.family, packet.payload, claim_ops.protobuf_request, claim_ops.request
            )
        except PeerError as error:
            self._reject(packet, str(error), now)
            return
        if self._may_ask(packet, now):
            self._ask(Ask(operation, AckOf(packet)))

    def _on_provision(self, packet: m.Publish, topic: str, now: int) -> None:
        """A PUBLISH of a client that came to be registered (6.2)."""
        if topic != PROVISION_REQUEST:
            why = "a client that registers may publish nothing else"
            self._refused("topic", why)
            self._answer(packet, Code.TOPIC_NAME_INVALID, why)
            self._close(Code.TOPIC_NAME_INVALID, why, now)
            return
        try:
            operation, protobuf = provision_ops.any_request(packet.payload)
        except PeerError as error:
            if error.code == provision_ops.INCOMPLETE:
                self._refused("payload", str(error))
                self._fail_provisioning(packet, str(error), now)
            else:
                self._reject(packet, str(error), now)
            return
        self._registers_in_protobuf |= protobuf
        if self._may_ask(packet, now):
            self._ask(Ask(operation, AckOf(packet)))

    def _fail_provisioning(self, packet: m.Publish, why: str, now: int) -> None:
        self._answer(packet, Code.IMPLEMENTATION_SPECIFIC_ERROR, why)
        self._close(Code.IMPLEMENTATION_SPECIFIC_ERROR, why, now)

    def _may_ask(
        self, packet: m.Publish, now: int, waiting: int = 0, *, free: bool = False
    ) -> bool:
        """Whether one more request may wait; else the session is told, or closed (v3).

        Accounts it as a message, unless a client registers or it is free.
        """
        if self._asking + waiting < self._settings.queue_limit:
            if self.provisions or free or (error := self._spend()) is None:
                return True
            self.limited(error, now)
            return False
        why = f"more than {self._settings.queue_limit} requests wait for an answer"
        self._refused("limit", why)
        if self.version == 5 and packet.qos > 0:
            self._answer(packet, Code.QUOTA_EXCEEDED, why)
        else:
            self._close(Code.QUOTA_EXCEEDED, why, now)
        return False

    def _ask(self, effect: Ask) -> None:
        self._asking += 1
        self._effects.append(effect)

    # --- chunks of packages (6.3) -------------------------------------------------------------

    def _on_chunk(self, packet: m.Publish, target: Target, now: int) -> None:
        try:
            wanted = chunk_request(packet, target)
        except PeerError as error:
            self._reject(packet, str(error), now)
            return
        if wanted.size > self._settings.max_remaining:
            self._fail_chunk(TOO_LARGE, now)
            return
        if self._downloads is None:
            self._downloads = Downloads()
        downloads = self._downloads
        # Only the first request of an id is accounted (8.1).
        known = downloads.find(wanted) is not None
        if self._may_ask(packet, now, len(downloads.waiting) - downloads.asked, free=known):
            downloads.waiting.append(wanted)
            self._next_chunk(now)

    def _next_chunk(self, now: int) -> None:
        """Begins with the next request, if the device has taken enough of what it got."""
        downloads = self._downloads
        if downloads is None or downloads.asked or not downloads.waiting:
            return
        if self._down().unacked >= min(self._peer_window, limits.MQTT_PACKAGE_CHUNKS):
            return
        wanted = downloads.waiting[0]
        known = downloads.find(wanted)
        downloads.asked = True
        if known is None:
            self._ask(Ask(FindPackage(wanted.type), wanted))
        else:
            self._read_chunk(wanted, known, now)

    def _read_chunk(self, wanted: ChunkOf, known: Remembered, now: int) -> None:
        read = reading(wanted, known)
        room = self._peer_max_packet
        if read is None or (room and read.length + len(wanted.topic) + PUBLISH_BYTES > room):
            self._fail_chunk(TOO_LARGE, now)
        elif read.length == 0:
            self._send_chunk(wanted, b"", now)
        else:
            self._ask(Ask(read, wanted))

    def _send_chunk(self, wanted: ChunkOf, data: bytes, now: int) -> None:
        assert self._downloads is not None
        self._acknowledge(wanted.packet)
        self._publish(wanted.topic, data, now)
        self._downloads.waiting.popleft()
        self._downloads.asked = False
        self._next_chunk(now)

    def _fail_chunk(self, why: str, now: int) -> None:
        self._refused("payload", f"a chunk of a package cannot be had: {why}")
        self._publish(ERROR_TOPIC, why.encode(), now)
        self._close(Code.IMPLEMENTATION_SPECIFIC_ERROR, why, now)

    def answered(self, asked: Ask, result: Result, now: int) -> None:
        """The host's answer to Ask."""
        self._asking -= 1
        if self.state is not State.OPEN:
            return
        match asked.then, result:
            case AckOf(packet), Done():
                self._acknowledge(packet)
            case AckOf(packet), Provisioned():
                self._acknowledge(packet)
                protobuf = self._registers_in_protobuf
                body = tbproto.provisioned(result) if protobuf else result.to_json()
                self._publish(PROVISION_RESPONSE, body, now)
                self._leaves_ms = self._leaves_ms or now + limits.MQTT_PROVISION_MS
            case AckOf(packet), Refusal(_, message) if self.provisions:
                self._refused("unavailable", message)
                self._fail_provisioning(packet, message, now)
            case AckOf(packet), Refusal(_, message):
                self._refused("unavailable", message)
                if self.version == 5 and packet.qos > 0:
                    self._answer(packet, Code.IMPLEMENTATION_SPECIFIC_ERROR, message)
                else:  # a v3 client takes any PUBACK, and silence, as success
                    self._close(Code.SERVER_UNAVAILABLE, message, now)
            case ChunkOf() as wanted, PackageFound():
                assert self._downloads is not None
                self._read_chunk(wanted, self._downloads.remember(wanted, result), now)
            case ChunkOf() as wanted, Chunk(data):
                self._send_chunk(wanted, data, now)
            case ChunkOf(), Refusal(reason, message):
                if reason in ERRORS:
                    self._fail_chunk(ERRORS[reason], now)
                else:
                    self._refused("unavailable", message)
                    self._close(Code.SERVER_UNAVAILABLE, message, now)
            case ReplyTo() as to, Attributes():
                self._reply_attributes(asked, to, result, now)
            case ReplyTo() as to, Reply(body):
                self._reply(to, body, now)
            case ReplyTo() as to, Refusal(_, message):
                self._refused("unavailable", message)
                if to.route is Route.RPC_REQUEST:
                    self._reply(to, b"", now, error=message)

    def notify(self, notice: Notice, push: int, now: int) -> None:
        """Something the device is told unasked; what becomes of a push is an effect."""
        downlink = self._downlink
        is_call = isinstance(notice, RpcRequest)
        family = None
        if downlink is not None and self.state is State.OPEN:
            family = downlink.calls if is_call else downlink.attributes
        if family is None:
            self._outcome(push, "dropped")
        elif isinstance(notice, RpcRequest):
            self._call(notice, family, push, now)
        else:
            body = notice.to_json()
            if self._formats.writes_protobuf(family):
                body = (
                    tbproto.attributes_deleted(notice.keys)
                    if isinstance(notice, AttributesDeleted)
                    else tbproto.attributes_updated(notice)
                )
            self._publish(push_topic(family), body, now, push)

    def _call(self, call: RpcRequest, family: Family, push: int, now: int) -> None:
        """A call of the server; what does not fit the schema is answered for the device (5.1)."""
        try:
            protobuf = self._formats.writes_protobuf(family)
            body = self._formats.rpc_request(call) if protobuf else call.to_json()
        except PeerError as error:
            self._refused("payload", str(error))
            what = f"{call.method}{call.params.decode(errors='replace')}"
            why = f"Failed to convert device RPC command to MQTT msg: {what}"
            answer = msgspec.json.encode({"result": "INVALID_ARGUMENTS", "error": why})
            self._ask(Ask(AnswerRpc(call.id, answer), None))
            self._outcome(push, "dropped")
            return
        self._publish(call_topic(family, call.id), body, now, push)

    def _publish(self, topic: str, payload: bytes, now: int, push: int = 0) -> None:
        self._down().publish(topic, payload, now, push)

    def _down(self) -> Downlink:
        if self._downlink is None:
            self._downlink = Downlink(
                self._send_publish,
                self._outcome,
                window=self._peer_window,
                ack_timeout_ms=self._settings.ack_timeout_ms,
            )
        return self._downlink

    def _send_publish(self, packet: m.Publish) -> bool:
        sent = self._send(packet)
        if not sent:
            self._refused("too_big", "a message is larger than the device's Maximum Packet Size")
        return sent

    def _outcome(self, push: int, state: Delivery) -> None:
        if push:
            if state != "dropped":
                self._spend()  # the report counts; a call does not hang because of it
            self._effects.append(Delivered(push, state))

    def _on_puback(self, packet: m.Puback, now: int) -> None:
        if self._downlink is None or not self._downlink.acknowledged(packet.packet_id, now):
            self._no_activity()
        self._next_chunk(now)

    @property
    def listens(self) -> tuple[bool, bool]:
        """Whether the session is subscribed to (shared attributes, calls of the server)."""
        down = self._downlink
        return (False, False) if down is None else (
            down.attributes is not None, down.calls is not None
        )  # fmt: skip

    # --- SUBSCRIBE, UNSUBSCRIBE --------------------------------------------------------------

    def _on_subscribe(self, packet: m.Subscribe, now: int) -> None:
        registered: list[str] = []
        codes = [
            self._subscribe_one(i, wanted, registered)
            for i, wanted in enumerate(packet.subscriptions)
        ]
        self._send(m.Suback(packet_id=packet.packet_id, reason_codes=tuple(codes)))
        if registered:
            self._effects.append(Listen(*self.listens, any(f in CALLS for f in registered)))

    def _subscribe_one(self, index: int, wanted: m.Subscription, registered: list[str]) -> int:
        """Its code; `registered` gets the filter if something is sent to it unasked."""
        held = self._down().filters
        full = len(held) >= limits.MQTT_SUBSCRIPTIONS and wanted.filter not in held
        if index >= limits.MQTT_FILTERS_PER_SUBSCRIBE or full:
            return Code.QUOTA_EXCEEDED if self.version == 5 else 0x80
        known = (PROVISION_RESPONSE,) if self.provisions else FILTERS
        pushes = not self.provisions and self._formats.subscribes(wanted.filter)
        if wanted.filter not in known and not pushes:
            return Code.TOPIC_FILTER_INVALID if self.version == 5 else 0x80
        qos = min(wanted.qos, 1)
        if pushes or wanted.filter in PUSHES or wanted.filter in CALLS:
            if (error := self._spend()) is not None:
                self._effects.append(Refused("rate", str(error), error.limit))
                return qos  # as ThingsBoard: granted, and not registered (2.4)
            registered.append(wanted.filter)
        self._down().subscribe(wanted.filter, qos, pushes=pushes)
        return qos

    def _on_unsubscribe(self, packet: m.Unsubscribe, now: int) -> None:
        before, codes = self.listens, []
        for wanted in packet.filters:
            held = self._downlink is not None and self._downlink.unsubscribe(wanted)
            if held and (wanted in PUSHES or wanted in CALLS):
                self._spend()  # counts; whoever leaves is let go
            # As ThingsBoard: a profile's own filter is refused, and its pushes go on (2.5).
            known = 0 if wanted in FILTERS or self.provisions else int(Code.TOPIC_FILTER_INVALID)
            codes.append(known if held else int(Code.NO_SUBSCRIPTION_EXISTED))
        self._send(
            m.Unsuback(
                packet_id=packet.packet_id,
                reason_codes=tuple(codes) if self.version == 5 else (),
            )
        )
        if self.listens != before:
            self._effects.append(Listen(*self.listens, False))
