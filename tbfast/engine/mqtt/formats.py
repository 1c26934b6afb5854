"""What a device profile makes of topics and payloads (MQTT spec 2.2, 7.1).

One object per profile, shared by its sessions: topic filters, compiled schemas, and which format
a topic family has in either direction.
"""

from functools import lru_cache
from typing import Final

from tbfast import limits
from tbfast._ext.proto import Table
from tbfast.codec import proto_json, proto_table
from tbfast.codec.proto_model import SchemaError
from tbfast.codec.proto_table import Compiled
from tbfast.engine.mqtt.topics import Family, Route, Target, route
from tbfast.errors import PeerError
from tbfast.model.operations import RpcRequest
from tbfast.model.transport import (
    ATTRIBUTES_TOPIC,
    DEFAULT_MQTT,
    TELEMETRY_TOPIC,
    MqttProfile,
    ProtobufPayload,
)

_V2_TELEMETRY: Final = "v2/t"
_NO_SCHEMA: Final = "the device profile has no Protobuf schema for this"


class Formats:
    """Made by `formats_of`."""

    __slots__ = (
        "_attributes",
        "_compatible",
        "_json_downlinks",
        "_profile",
        "_protobuf",
        "_rpc_request",
        "_rpc_response",
        "_telemetry",
    )

    def __init__(self, profile: MqttProfile) -> None:
        payload = profile.payload
        self._profile = profile
        self._protobuf = isinstance(payload, ProtobufPayload)
        self._telemetry: Compiled | str = _NO_SCHEMA
        self._attributes: Compiled | str = _NO_SCHEMA
        self._rpc_request: Compiled | str = _NO_SCHEMA
        self._rpc_response: Compiled | str = _NO_SCHEMA
        self._compatible = self._json_downlinks = False
        if isinstance(payload, ProtobufPayload):
            self._compatible = payload.json_compatible
            self._json_downlinks = payload.json_compatible and payload.json_downlinks
            telemetry, attributes = payload.telemetry_schema or "", payload.attributes_schema or ""
            if telemetry.strip():
                self._telemetry = _compiled(telemetry, "telemetry")
            if attributes.strip():
                self._attributes = _compiled(attributes, "attributes")
            self._rpc_request = _compiled(payload.rpc_request_schema or "", "rpc_request")
            self._rpc_response = _compiled(payload.rpc_response_schema or "", "rpc_response")

    # --- topics ------------------------------------------------------------------------------

    def route(self, topic: str) -> Target:
        """First hit wins, in ThingsBoard's order (MQTT spec 2.1)."""
        profile = self._profile
        custom = profile.attributes_topic != ATTRIBUTES_TOPIC
        timed = profile.telemetry_topic != TELEMETRY_TOPIC
        if (not custom and not timed) or topic.startswith("v1/gateway"):
            return route(topic)
        if matches_filter(profile.attributes_topic, topic):
            return Target(Route.ATTRIBUTES)
        if matches_filter(profile.telemetry_topic, topic):
            return Target(Route.TELEMETRY)
        target = route(topic)
        default = target.family is Family.V1
        if default and (
            (custom and target.route is Route.ATTRIBUTES)
            or (timed and target.route is Route.TELEMETRY)
        ):
            return Target(Route.UNKNOWN)
        return target

    def subscribes(self, filter: str) -> bool:
        """Whether a subscription of it asks for changes of shared attributes (MQTT spec 2.4)."""
        wanted = self._profile.attributes_subscribe_topic
        return wanted != ATTRIBUTES_TOPIC and matches_filter(wanted, filter)

    def hot(self) -> tuple[bytes | None, bool, Table | None]:
        """What the hot path takes: exact topic (None: the default), whether v2/t, the schema."""
        topic: bytes | None = None
        wanted = self._profile.telemetry_topic
        if wanted != TELEMETRY_TOPIC or self.route(wanted).route is not Route.TELEMETRY:
            exact = not _is_wild(wanted) and self.route(wanted) == Target(Route.TELEMETRY)
            topic = wanted.encode() if exact else b""
        takes_v2 = self.route(_V2_TELEMETRY).route is Route.TELEMETRY
        if not self._protobuf:
            return topic, takes_v2, None
        if isinstance(self._telemetry, str):
            return b"", False, None
        return topic, takes_v2, self._telemetry.table

    @property
    def acks_refused(self) -> bool:
        """A payload that is refused is acknowledged to v3 clients (REJECT of the spec)."""
        return self._profile.send_ack_on_validation_exception

    # --- uplink ------------------------------------------------------------------------------

    def reads(self, family: Family) -> tuple[bool, bool]:
        """Whether a payload is tried as Protobuf, and then as JSON."""
        if family is Family.V2_JSON:
            return False, True
        if family is Family.V2_PROTOBUF:
            return True, False
        return self._protobuf, not self._protobuf or self._compatible

    def table(self, *, attributes: bool) -> Table:
        """The schema of what a device posts; PeerError (0x99) if there is none."""
        return _usable(self._attributes if attributes else self._telemetry).table

    def rpc_answer(self, payload: bytes | memoryview) -> bytes:
        """JSON text of a device's answer to a call of the server."""
        return _usable(self._rpc_response).table.print(payload)

    # --- downlink ----------------------------------------------------------------------------

    def writes_protobuf(self, family: Family) -> bool:
        """Whether what the device is told in this family is Protobuf."""
        if family is Family.V1:
            return self._protobuf and not self._json_downlinks
        return family is Family.V2_PROTOBUF or (family is Family.V2 and self._protobuf)

    def rpc_request(self, call: RpcRequest) -> bytes:
        """A call of the server; PeerError (0x99) if it does not fit the schema."""
        schema = _usable(self._rpc_request).schema
        text = call.to_json()
        return proto_json.from_json(schema, b'{"requestId":%d,%b' % (call.id, text[1:]))


def _usable(compiled: Compiled | str) -> Compiled:
    if isinstance(compiled, str):
        raise PeerError(compiled, code=0x99)
    return compiled


@lru_cache(maxsize=limits.PROTO_SCHEMAS)
def _compiled(text: str, kind: str) -> Compiled | str:
    """The schema, or why it is refused: it may have been stored by another version."""
    try:
        return proto_table.COMPILERS[kind](text)
    except SchemaError as error:
        return f"the device profile's {kind} schema is refused: {error}"


@lru_cache(maxsize=limits.PROTO_SCHEMAS)
def formats_of(profile: MqttProfile) -> Formats:
    """The same object for all sessions of a profile."""
    return Formats(profile)


DEFAULT_FORMATS: Final = formats_of(DEFAULT_MQTT)


# --- filters of profiles ---------------------------------------------------------------------


def _is_wild(filter: str) -> bool:
    return "+" in filter or "#" in filter


def matches_filter(filter: str, topic: str) -> bool:
    """Whether a profile's filter covers a topic (MQTT spec 7.1): not the rules of MQTT.

    `+` is one or more characters but `/`; `/#` is the end, or `/` and anything; a `#` elsewhere
    is itself.  Time is the product of both lengths at most.
    """
    if not _is_wild(filter):
        return filter == topic
    if filter == "#":
        return True
    if len(topic) > limits.MQTT_TOPIC_BYTES:
        return False
    return len(topic) in _ends(filter, topic)


def _ends(filter: str, topic: str) -> set[int]:
    """Where in the topic a match of the whole filter may end."""
    places, at = {0}, 0
    while at < len(filter) and places:
        if filter.startswith("/#", at):
            rest = {p for p in places if topic.startswith("/", p)}
            after = set(range(min(rest) + 1, len(topic) + 1)) if rest else set()
            places = after | ({len(topic)} & places)
            at += 2
        elif filter[at] == "+":
            places = _level_ends(topic, places)
            at += 1
        else:
            places = {p + 1 for p in places if topic.startswith(filter[at], p)}
            at += 1
    return places


def _level_ends(topic: str, places: set[int]) -> set[int]:
    """Every place that one or more characters but `/` lead to."""
    out: set[int] = set()
    inside = False
    for at, char in enumerate(topic):
        inside = char != "/" and (inside or at in places)
        if inside:
            out.add(at + 1)
    return out
