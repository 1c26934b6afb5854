"""MQTT packets that no encoder writes: every field as given, right or wrong."""

from typing import NamedTuple

from tests.support.oracle_mqtt import PROPERTIES


def varint(number: int, width: int = 0) -> bytes:
    """Variable Byte Integer, at least `width` bytes long."""
    out = bytearray()
    while True:
        number, digit = number >> 7, number & 0x7F
        more = number or len(out) + 1 < width
        out.append(digit | (0x80 if more else 0))
        if not more:
            return bytes(out)


def frame(first: int, body: bytes) -> bytes:
    """A packet with the right Remaining Length."""
    return bytes([first]) + varint(len(body)) + body


def text(data: bytes | str) -> bytes:
    """UTF-8 string or binary data with its length."""
    raw = data.encode() if isinstance(data, str) else data
    return len(raw).to_bytes(2, "big") + raw


def connect(
    *,
    version: int = 4,
    name: bytes | None = None,
    level: int | None = None,
    flags: int = 0x82,
    block: bytes = b"\x00",
    client_id: bytes = b"x",
    will: bytes = b"",
    user: bytes | None = b"nobody",
    tail: bytes = b"",
) -> bytes:
    """CONNECT; `block` is the property block with its length, `will` all will fields as bytes."""
    head = text(name if name is not None else (b"MQIsdp" if version == 3 else b"MQTT"))
    body = head + bytes([version if level is None else level, flags]) + b"\x00\x3c"
    body += (block if version == 5 else b"") + text(client_id) + will
    return frame(0x10, body + (text(user) if user is not None else b"") + tail)


def block(*properties: bytes) -> bytes:
    """A property block with its length."""
    inside = b"".join(properties)
    return varint(len(inside)) + inside


class Place(NamedTuple):
    """A packet type that may carry properties, and how to write one with a given block."""

    name: str
    first: int
    before: bytes
    after: bytes = b""

    def packet(self, properties: bytes) -> bytes:
        return frame(self.first, self.before + properties + self.after)


PLACES = [
    Place("PUBLISH", 0x32, text("v2/t") + b"\x00\x01", b'{"bad":1}'),
    Place("PUBACK", 0x40, b"\x00\x01\x00"),
    Place("PUBREC", 0x50, b"\x00\x01\x00"),
    Place("PUBREL", 0x62, b"\x00\x01\x00"),
    Place("PUBCOMP", 0x70, b"\x00\x01\x00"),
    Place("SUBSCRIBE", 0x82, b"\x00\x01", text("v2/a") + b"\x00"),
    Place("UNSUBSCRIBE", 0xA2, b"\x00\x01", text("v2/a")),
    Place("DISCONNECT", 0xE0, b"\x00"),
    Place("AUTH", 0xF0, b"\x00"),
]
"""Packets of an open session; CONNECT and its will are written with `connect`."""

SAMPLES = {
    0x01: b"\x00", 0x02: b"\0\0\0\x01", 0x03: text("t"), 0x08: text("t"), 0x09: text(b"d"),
    0x0B: b"\x01", 0x11: b"\0\0\0\x01", 0x12: text("c"), 0x13: b"\0\x01", 0x15: text("m"),
    0x16: text(b"d"), 0x17: b"\x01", 0x18: b"\0\0\0\x01", 0x19: b"\x01", 0x1A: text("r"),
    0x1C: text("s"), 0x1F: text("r"), 0x21: b"\0\x01", 0x22: b"\0\x01", 0x23: b"\0\x01",
    0x24: b"\x01", 0x25: b"\x01", 0x26: text("k") + text("v"), 0x27: b"\0\0\x01\0",
    0x28: b"\x01", 0x29: b"\x01", 0x2A: b"\x01",
}  # fmt: skip
"""A value that is right, by property identifier."""


def may_carry(place: str, identifier: int) -> bool:
    """Whether the packet may carry the property (MQTT 5 2.2.2.2)."""
    return place in PROPERTIES[identifier][2].split()


def sample(identifier: int) -> bytes:
    """The property with its sample value."""
    return bytes([identifier]) + SAMPLES[identifier]
