"""The slow, obvious MQTT decoder: written from the standard, sharing no code with the C parser.

Only the packet types are shared, so that results compare with ``==``.  Tables here are its own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tbfast.model import mqtt as m


class Bad(Exception):
    """``kind``: malformed, too_large or unsupported."""

    def __init__(self, kind: str = "malformed") -> None:
        super().__init__(kind)
        self.kind = kind


class Incomplete(Exception):
    """The packet is not all there."""


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, n: int) -> bytes:
        if n > len(self.data):
            raise Bad
        head, self.data = self.data[:n], self.data[n:]
        return head

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def binary(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        try:
            text = self.binary().decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise Bad from None
        if "\0" in text:
            raise Bad
        return text

    def packet_id(self) -> int:
        number = self.number(2)
        if number == 0:
            raise Bad
        return number

    def variable(self) -> int:
        total = 0
        for place in range(4):
            byte = self.number(1)
            total += (byte % 128) * 128**place
            if byte < 128:
                return total
        raise Bad

    def end(self) -> None:
        if self.data:
            raise Bad


def flag(value: int) -> bool:
    return value in (0, 1)


def positive(value: int) -> bool:
    return value > 0


Read = Callable[[Reader], Any]
BYTE: Read = partial(Reader.number, width=1)
TWO: Read = partial(Reader.number, width=2)
FOUR: Read = partial(Reader.number, width=4)
PUBACKS = "PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK"

# identifier: (field, reader, packets that may carry it, rule a value must meet)
PROPERTIES: dict[int, tuple[str, Read, str, Callable[[int], bool] | None]] = {
    0x01: ("payload_format_indicator", BYTE, "PUBLISH WILL", flag),
    0x02: ("message_expiry_interval", FOUR, "PUBLISH WILL", None),
    0x03: ("content_type", Reader.text, "PUBLISH WILL", None),
    0x08: ("response_topic", Reader.text, "PUBLISH WILL", None),
    0x09: ("correlation_data", Reader.binary, "PUBLISH WILL", None),
    0x0B: ("subscription_identifiers", Reader.variable, "PUBLISH SUBSCRIBE", positive),
    0x11: ("session_expiry_interval", FOUR, "CONNECT CONNACK DISCONNECT", None),
    0x12: ("assigned_client_identifier", Reader.text, "CONNACK", None),
    0x13: ("server_keep_alive", TWO, "CONNACK", None),
    0x15: ("authentication_method", Reader.text, "CONNECT CONNACK AUTH", None),
    0x16: ("authentication_data", Reader.binary, "CONNECT CONNACK AUTH", None),
    0x17: ("request_problem_information", BYTE, "CONNECT", flag),
    0x18: ("will_delay_interval", FOUR, "WILL", None),
    0x19: ("request_response_information", BYTE, "CONNECT", flag),
    0x1A: ("response_information", Reader.text, "CONNACK", None),
    0x1C: ("server_reference", Reader.text, "CONNACK DISCONNECT", None),
    0x1F: ("reason_string", Reader.text, f"CONNACK {PUBACKS} DISCONNECT AUTH", None),
    0x21: ("receive_maximum", TWO, "CONNECT CONNACK", positive),
    0x22: ("topic_alias_maximum", TWO, "CONNECT CONNACK", None),
    0x23: ("topic_alias", TWO, "PUBLISH", None),
    0x24: ("maximum_qos", BYTE, "CONNACK", flag),
    0x25: ("retain_available", BYTE, "CONNACK", flag),
    0x26: (
        "user_properties",
        lambda r: (r.text(), r.text()),
        f"CONNECT WILL CONNACK PUBLISH {PUBACKS} SUBSCRIBE UNSUBSCRIBE DISCONNECT AUTH",
        None,
    ),
    0x27: ("maximum_packet_size", FOUR, "CONNECT CONNACK", positive),
    0x28: ("wildcard_subscription_available", BYTE, "CONNACK", flag),
    0x29: ("subscription_identifier_available", BYTE, "CONNACK", flag),
    0x2A: ("shared_subscription_available", BYTE, "CONNACK", flag),
}
NAMES = (
    "", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
    "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)  # fmt: skip


def properties(r: Reader, where: str, version: int) -> m.Properties | None:
    if version != 5:
        return None
    block = Reader(r.take(r.variable()))
    fields: dict[str, Any] = {}
    users: list[tuple[str, str]] = []
    identifiers: list[int] = []
    while block.data:
        known = PROPERTIES.get(block.number(1))
        if known is None:
            raise Bad
        field, read, allowed, rule = known
        value = read(block)
        if where not in allowed.split() or (rule is not None and not rule(value)):
            raise Bad
        if field == "user_properties":
            users.append(value)
        elif field == "subscription_identifiers":
            if identifiers and where != "PUBLISH":
                raise Bad
            identifiers.append(value)
        elif field in fields:
            raise Bad
        else:
            fields[field] = value
    if len(users) > 64:
        raise Bad
    if not (fields or users or identifiers):
        return None
    return m.Properties(
        user_properties=tuple(users),
        subscription_identifiers=tuple(identifiers),
        **fields,
    )


def connect(r: Reader) -> m.Connect:
    name, level = r.binary(), r.number(1)
    if (name, level) not in ((b"MQIsdp", 3), (b"MQTT", 4), (b"MQTT", 5)):
        raise Bad("unsupported")
    bits = f"{r.number(1):08b}"
    username, password, retain, clean = (bits[i] == "1" for i in (0, 1, 2, 6))
    has_will, qos = bits[5] == "1", int(bits[3:5], 2)
    if (bits[7] == "1" and level > 3) or qos == 3 or (not has_will and (retain or qos)):
        raise Bad
    keep_alive = r.number(2)
    props = properties(r, "CONNECT", level)
    client_id = r.text()
    will = None
    if has_will:
        will_props = properties(r, "WILL", level)
        will = m.Will(r.text(), r.binary(), qos, retain, will_props)
    user = r.text() if username else None
    secret = r.binary() if password else None
    r.end()
    return m.Connect(level, client_id, clean, keep_alive, user, secret, will, props)


def publish(r: Reader, flags: int, version: int) -> m.Publish:
    topic = r.text()
    if "+" in topic or "#" in topic or (topic == "" and version != 5):
        raise Bad
    qos = flags >> 1 & 3
    packet_id = r.packet_id() if qos else None
    props = properties(r, "PUBLISH", version)
    return m.Publish(topic, r.data, qos, bool(flags & 1), bool(flags & 8), packet_id, props)


def acknowledgement(r: Reader, kind: int, version: int) -> m.Packet:
    packet_id, reason, props = r.packet_id(), 0, None
    if version == 5 and r.data:
        reason = r.number(1)
        if r.data:
            props = properties(r, NAMES[kind], version)
    r.end()
    return (m.Puback, m.Pubrec, m.Pubrel, m.Pubcomp)[kind - 4](packet_id, reason, props)


def subscribe(r: Reader, version: int) -> m.Subscribe:
    packet_id = r.packet_id()
    props = properties(r, "SUBSCRIBE", version)
    entries = []
    while r.data:
        name, options = r.text(), r.number(1)
        qos, no_local, published = options % 4, bool(options & 4), bool(options & 8)
        handling, reserved = options // 16 % 4, options // 64
        if qos == 3 or handling == 3 or reserved or (version != 5 and options > 2):
            raise Bad
        entries.append(m.Subscription(name, qos, no_local, published, handling))
    if not entries:
        raise Bad
    return m.Subscribe(packet_id, tuple(entries), props)


def unsubscribe(r: Reader, version: int) -> m.Unsubscribe:
    packet_id = r.packet_id()
    props = properties(r, "UNSUBSCRIBE", version)
    filters = []
    while r.data:
        filters.append(r.text())
    if not filters:
        raise Bad
    return m.Unsubscribe(packet_id, tuple(filters), props)


def outcome(r: Reader, kind: int, version: int) -> m.Packet:
    make = m.Disconnect if kind == 14 else m.Auth
    if version != 5:
        if kind == 15:
            raise Bad
        r.end()
        return make()
    if not r.data:
        return make()
    reason, props = r.number(1), None
    if r.data or kind == 15:
        props = properties(r, NAMES[kind], version)
    r.end()
    return make(reason, props)


def body(kind: int, flags: int, data: bytes, version: int) -> m.Packet:
    r = Reader(data)
    if kind == 1:
        return connect(r)
    if kind == 3:
        return publish(r, flags, version)
    if kind in (4, 5, 6, 7):
        return acknowledgement(r, kind, version)
    if kind == 8:
        return subscribe(r, version)
    if kind == 10:
        return unsubscribe(r, version)
    if kind in (12, 13):
        return m.Pingreq() if kind == 12 else m.Pingresp()
    if kind in (14, 15):
        return outcome(r, kind, version)
    if kind == 2:
        first, code = r.number(1), r.number(1)
        if first not in (0, 1):
            raise Bad
        props = properties(r, "CONNACK", version)
        r.end()
        return m.Connack(first == 1, code, props)
    packet_id = r.packet_id()
    props = properties(r, NAMES[kind], version)
    codes = tuple(r.data)
    if (kind == 11 and version != 5) == bool(codes):
        raise Bad
    return (m.Suback if kind == 9 else m.Unsuback)(packet_id, codes, props)


def first_packet(data: bytes, version: int, max_remaining: int) -> tuple[m.Packet, int]:
    """The first packet and its size.  Raises Bad or Incomplete."""
    if not data:
        raise Incomplete
    kind, flags = divmod(data[0], 16)
    wanted = 2 if kind in (6, 8, 10) else 0
    if kind == 0 or (flags in (6, 7, 14, 15) if kind == 3 else flags != wanted):
        raise Bad
    remaining, at = 0, 1
    while True:
        if at == 5:
            raise Bad
        if at == len(data):
            raise Incomplete
        remaining += (data[at] & 127) << (7 * (at - 1))
        at += 1
        if data[at - 1] < 128:
            break
    if remaining > max_remaining:
        raise Bad("too_large")
    if kind in (12, 13) and remaining:
        raise Bad
    if len(data) < at + remaining:
        raise Incomplete
    return body(kind, flags, data[at : at + remaining], version), at + remaining


def stream(data: bytes, version: int, max_remaining: int) -> tuple[list[m.Packet], str | None]:
    """Packets of a stream up to the first bad one, and what was wrong with that."""
    packets: list[m.Packet] = []
    try:
        while True:
            packet, size = first_packet(data, version, max_remaining)
            packets.append(packet)
            data = data[size:]
            if version == 0 and isinstance(packet, m.Connect):
                version = packet.protocol_version
    except Incomplete:
        return packets, None
    except Bad as bad:
        return packets, bad.kind
