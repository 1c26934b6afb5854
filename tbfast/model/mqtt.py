"""MQTT control packets as values, the same for 3.1, 3.1.1 and 5 (MQTT 5 chapter 3).

A field the version does not have keeps its default.  Where a packet has no properties (MQTT 5: an
empty block) ``properties`` is None.  Packets hold no cycles, so the collector need not see them.
"""

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

import msgspec


class ReasonCode(IntEnum):
    """MQTT 5 2.4.  Fields that carry one are plain ints: a peer may send a code not listed here."""

    SUCCESS = 0x00
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    RE_AUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


class Properties(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Every MQTT 5 property (2.2.2.2); None or empty means absent.  Times are in seconds."""

    payload_format_indicator: int | None = None
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifier_available: int | None = None
    shared_subscription_available: int | None = None


PROPERTY_FIELDS: Final[Mapping[int, str]] = {
    1: "payload_format_indicator",
    2: "message_expiry_interval",
    3: "content_type",
    8: "response_topic",
    9: "correlation_data",
    11: "subscription_identifiers",
    17: "session_expiry_interval",
    18: "assigned_client_identifier",
    19: "server_keep_alive",
    21: "authentication_method",
    22: "authentication_data",
    23: "request_problem_information",
    24: "will_delay_interval",
    25: "request_response_information",
    26: "response_information",
    28: "server_reference",
    31: "reason_string",
    33: "receive_maximum",
    34: "topic_alias_maximum",
    35: "topic_alias",
    36: "maximum_qos",
    37: "retain_available",
    38: "user_properties",
    39: "maximum_packet_size",
    40: "wildcard_subscription_available",
    41: "subscription_identifier_available",
    42: "shared_subscription_available",
}
"""Property identifier to field of Properties."""


class Will(msgspec.Struct, frozen=True, gc=False):
    """What a server publishes when the connection ends without DISCONNECT (MQTT 5 3.1.3)."""

    topic: str
    payload: bytes = b""
    qos: int = 0
    retain: bool = False
    properties: Properties | None = None


class Connect(msgspec.Struct, frozen=True, gc=False):
    """``protocol_version``: 3 (MQTT 3.1), 4 (3.1.1) or 5.  ``keep_alive`` in seconds, 0 = off."""

    protocol_version: int
    client_id: str
    clean_start: bool = True
    keep_alive: int = 0
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties | None = None

    def __repr__(self) -> str:
        """Without user name and password: on this API the user name is the access token."""
        return (
            f"Connect(protocol_version={self.protocol_version}, client_id={self.client_id!r}, "
            f"clean_start={self.clean_start}, keep_alive={self.keep_alive})"
        )


class Connack(msgspec.Struct, frozen=True, gc=False):
    """``reason_code`` is the return code 0..5 before MQTT 5."""

    session_present: bool
    reason_code: int
    properties: Properties | None = None


class Publish(msgspec.Struct, frozen=True, gc=False):
    """``packet_id`` is None exactly on QoS 0; ``topic`` may be empty on MQTT 5 (topic alias)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int | None = None
    properties: Properties | None = None


class Puback(msgspec.Struct, frozen=True, gc=False):
    """Answer to a QoS 1 PUBLISH (MQTT 5 3.4)."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


class Pubrec(msgspec.Struct, frozen=True, gc=False):
    """First answer to a QoS 2 PUBLISH (MQTT 5 3.5)."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


class Pubrel(msgspec.Struct, frozen=True, gc=False):
    """The sender of a QoS 2 PUBLISH releases its identifier (MQTT 5 3.6)."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


class Pubcomp(msgspec.Struct, frozen=True, gc=False):
    """Last packet of a QoS 2 exchange (MQTT 5 3.7)."""

    packet_id: int
    reason_code: int = 0
    properties: Properties | None = None


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """One entry of SUBSCRIBE; all but ``filter`` and ``qos`` are MQTT 5's (3.8.3.1)."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """Asks for topics; answered by Suback (MQTT 5 3.8)."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties | None = None


class Suback(msgspec.Struct, frozen=True, gc=False):
    """``reason_codes`` in the order of the request; before MQTT 5: 0, 1, 2 or 0x80."""

    packet_id: int
    reason_codes: tuple[int, ...]
    properties: Properties | None = None


class Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    """Answered by Unsuback (MQTT 5 3.10)."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties | None = None


class Unsuback(msgspec.Struct, frozen=True, gc=False):
    """``reason_codes`` is empty before MQTT 5."""

    packet_id: int
    reason_codes: tuple[int, ...] = ()
    properties: Properties | None = None


class Pingreq(msgspec.Struct, frozen=True, gc=False):
    """The client is alive (MQTT 5 3.12)."""


class Pingresp(msgspec.Struct, frozen=True, gc=False):
    """Answer to Pingreq (MQTT 5 3.13)."""


class Disconnect(msgspec.Struct, frozen=True, gc=False):
    """Why the sender closes the connection (MQTT 5 3.14)."""

    reason_code: int = 0
    properties: Properties | None = None


class Auth(msgspec.Struct, frozen=True, gc=False):
    """Extended authentication (MQTT 5 3.15)."""

    reason_code: int = 0
    properties: Properties | None = None


Packet = (
    Connect
    | Connack
    | Publish
    | Puback
    | Pubrec
    | Pubrel
    | Pubcomp
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)

PACKET_TYPES: Final[tuple[type[Packet], ...]] = (
    Connect,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
)
"""Index + 1 is the control packet type of the fixed header (MQTT 5 2.1.2)."""
