"""Hypothesis strategies: schemas, and payloads for them, good and bad."""

import struct
from typing import Any

from hypothesis import strategies as st

from tbfast.codec.proto_model import (
    SCALARS,
    Enumeration,
    Field,
    Kind,
    Message,
    Schema,
)

WIRE = {
    **dict.fromkeys((Kind.DOUBLE, Kind.FIXED64, Kind.SFIXED64), 1),
    **dict.fromkeys((Kind.FLOAT, Kind.FIXED32, Kind.SFIXED32), 5),
    **dict.fromkeys((Kind.STRING, Kind.BYTES, Kind.MESSAGE), 2),
}
FIELD_NAMES = ["a", "b", "temp_c", "key_1", "ts", "values", "wide_name_of_a_field", "x9", "Q", "z"]
KEY_KINDS = [kind for name, kind in SCALARS.items() if name not in ("double", "float", "bytes")]
NUMBERS = st.integers(1, 15) | st.sampled_from([16, 17, 100, 2048, 536_870_911])
ENUM = Enumeration(name="E", values=((-3, "MINUS"), (0, "ZERO"), (5, "FIVE"), (1000, "MANY")))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tagged(number: int, wire: int, body: bytes) -> bytes:
    return varint(number << 3 | wire) + (varint(len(body)) if wire == 2 else b"") + body


@st.composite
def schemas(draw: st.DrawFn, maps: bool = True) -> Schema:
    """Up to three messages (which may hold each other) and a map or two."""
    shapes = ["plain", "optional", "repeated", "oneof", *["map"] * maps]
    count = draw(st.integers(1, 3))
    entries: list[Message] = []
    messages = []
    for index in range(count):
        names = draw(st.lists(st.sampled_from(FIELD_NAMES), max_size=6, unique=True))
        numbers = draw(st.lists(NUMBERS, min_size=len(names), max_size=len(names), unique=True))
        fields = []
        for name, number in zip(names, sorted(numbers), strict=True):
            kind = draw(st.sampled_from([*SCALARS.values(), Kind.ENUM, Kind.MESSAGE]))
            target = draw(st.integers(0, count - 1)) if kind is Kind.MESSAGE else 0
            shape = draw(st.sampled_from(shapes))
            if shape == "map":
                entries.append(
                    Message(
                        name=f"entry{len(entries)}",
                        entry=True,
                        fields=(
                            Field(name="key", number=1, kind=draw(st.sampled_from(KEY_KINDS))),
                            Field(
                                name="value",
                                number=2,
                                kind=kind,
                                type=target,
                                presence=kind is Kind.MESSAGE,
                            ),
                        ),
                    )
                )
                kind, target = Kind.MESSAGE, count + len(entries) - 1
            fields.append(
                Field(
                    name=name,
                    number=number,
                    kind=kind,
                    type=target,
                    repeated=shape in ("repeated", "map"),
                    presence=shape in ("optional", "oneof")
                    or (kind is Kind.MESSAGE and shape == "plain"),
                    oneof=draw(st.integers(1, 2)) if shape == "oneof" else 0,
                )
            )
        messages.append(Message(name=f"m{index}", fields=_without_holes(fields)))
    return Schema(messages=(*messages, *entries), enums=(ENUM,))


def _without_holes(fields: list[Field]) -> tuple[Field, ...]:
    """Oneofs are 1, 2, ..; a schema text cannot leave one empty."""
    from msgspec.structs import replace

    used = sorted({field.oneof for field in fields} - {0})
    return tuple(
        replace(field, oneof=used.index(field.oneof) + 1 if field.oneof else 0) for field in fields
    )


def raw_number(kind: Kind) -> st.SearchStrategy[bytes]:
    if kind is Kind.DOUBLE:
        return _reals.map(lambda v: struct.pack("<d", v)) | st.binary(min_size=8, max_size=8)
    if kind is Kind.FLOAT:
        reals = st.floats(width=32) | st.integers(-10_000, 10_000).map(lambda v: v / 100)
        return reals.map(lambda v: struct.pack("<f", v)) | st.binary(min_size=4, max_size=4)
    wire = WIRE.get(kind, 0)
    if wire:
        return st.binary(min_size=8, max_size=8) if wire == 1 else st.binary(min_size=4, max_size=4)
    return (st.integers(-10, 10) | st.integers(-(1 << 63), (1 << 64) - 1)).map(varint)


_reals = (
    st.floats()
    | st.integers(-(10**9), 10**9).map(lambda v: v / 1000)
    | st.sampled_from([3.0, 1e10, 0.1 + 0.2, 1e-17, 12345678.0, -0.0, 1e23, 5e-324])
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["007", "42.0", "-1", "1e5", "true", "\\u0031", "a\\b", '"', "١٢", "𝟙", ""]
)


@st.composite
def payloads(draw: st.DrawFn, schema: Schema, index: int = 0, depth: int = 0) -> bytes:
    """Fields in any order, repeated, packed or not, with unknown ones and odd wire types among."""
    message = schema.messages[index]
    parts = []
    for _ in range(draw(st.integers(0, 6 if depth == 0 else 3))):
        # Google's decoder takes a pair with something unknown in it for unknown as a whole.
        if not message.entry and (not message.fields or draw(st.integers(0, 9)) == 0):
            parts.append(draw(unknown()))
            continue
        field = draw(st.sampled_from(message.fields))
        parts.append(draw(occurrence(schema, field, depth)))
    return b"".join(parts)


@st.composite
def occurrence(draw: st.DrawFn, schema: Schema, field: Field, depth: int) -> bytes:
    kind = field.kind
    if kind is Kind.MESSAGE:
        body = b"" if depth > 3 else draw(payloads(schema, field.type, depth + 1))
        return tagged(field.number, 2, body)
    if kind is Kind.STRING:
        return tagged(field.number, 2, draw(TEXTS).encode())
    if kind is Kind.BYTES:
        return tagged(field.number, 2, draw(st.binary(max_size=7)))
    if field.repeated and draw(st.booleans()):
        numbers = draw(st.lists(raw_number(kind), max_size=4))
        return tagged(field.number, 2, b"".join(numbers))
    return tagged(field.number, WIRE.get(kind, 0), draw(raw_number(kind)))


@st.composite
def unknown(draw: st.DrawFn) -> bytes:
    number = draw(NUMBERS | st.just(77_777))
    wire = draw(st.sampled_from([0, 1, 2, 3, 5]))
    if wire == 3:
        inner = draw(st.sampled_from([b"", tagged(3, 0, b"\x01"), tagged(9, 3, tagged(9, 4, b""))]))
        return tagged(number, 3, inner) + tagged(number, 4, b"")
    body: Any = {0: varint(draw(st.integers(0, 1 << 40))), 1: bytes(8), 2: b"abc", 5: bytes(4)}
    return tagged(number, wire, body[wire])


@st.composite
def damaged(draw: st.DrawFn, schema: Schema) -> bytes:
    """A payload with a byte changed, cut or inserted."""
    good = draw(payloads(schema))
    at = draw(st.integers(0, len(good)))
    how = draw(st.integers(0, 2))
    if how == 0:
        return good[:at]
    if how == 1:
        return good[:at] + draw(st.binary(min_size=1, max_size=2)) + good[at + 1 :]
    return good[:at] + draw(st.binary(min_size=1, max_size=3)) + good[at:]
