"""JSON to Protobuf by a schema, for what the server sends (MQTT spec 7.3).

The rules are those of protobuf-JSON parsers: both names of a field are known, unknown members are
ignored, null is unset, 64-bit numbers may be text, a text field takes any scalar as it is written.
"""

import base64
import binascii
import contextlib
import json
import math
import re
import struct
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from tbfast import limits
from tbfast.codec.proto_model import BLOBS, Field, Kind, Message, Schema
from tbfast.errors import PeerError

_FORMATS: Final = {
    Kind.DOUBLE: "<d",
    Kind.FLOAT: "<f",
    Kind.FIXED64: "<Q",
    Kind.SFIXED64: "<q",
    Kind.FIXED32: "<I",
    Kind.SFIXED32: "<i",
}
_SIGNED_32: Final = (-(1 << 31), (1 << 31) - 1)
_SIGNED_64: Final = (-(1 << 63), (1 << 63) - 1)
_RANGES: Final = {
    Kind.INT32: _SIGNED_32,
    Kind.SINT32: _SIGNED_32,
    Kind.SFIXED32: _SIGNED_32,
    Kind.ENUM: _SIGNED_32,
    Kind.INT64: _SIGNED_64,
    Kind.SINT64: _SIGNED_64,
    Kind.SFIXED64: _SIGNED_64,
    Kind.UINT32: (0, (1 << 32) - 1),
    Kind.FIXED32: (0, (1 << 32) - 1),
    Kind.UINT64: (0, (1 << 64) - 1),
    Kind.FIXED64: (0, (1 << 64) - 1),
}
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,9})?", re.ASCII)
_MAX_NUMBER_CHARS: Final = 64  # of an integer with a point or an exponent
_MAX_DIGITS: Final = 20  # of 64 bits


class _Number(str):
    """A JSON number as it is written."""

    __slots__ = ()


def from_json(schema: Schema, text: bytes) -> bytes:
    """The root message of a JSON object; PeerError (0x99) if it cannot be converted."""
    try:
        document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise PeerError("not JSON", code=0x99) from error
    return encode(schema, schema.root_message, document)


def encode(schema: Schema, message: Message, members: Any, depth: int = 1) -> bytes:
    """One message; members is what json.loads gives, or Python's own numbers."""
    if not isinstance(members, Mapping):
        raise _error(message.name, "an object")
    if depth > limits.PROTO_MAX_DEPTH:
        raise PeerError("messages are nested too deeply", code=0x99)
    parts = []
    oneofs: set[int] = set()
    for field in message.fields:
        value = members.get(field.json_name)
        value = members.get(field.name) if value is None else value
        if value is None:
            continue
        if field.oneof:
            if field.oneof in oneofs:
                raise PeerError("two members of a oneof are set", code=0x99)
            oneofs.add(field.oneof)
        parts.append(_field(schema, field, value, depth))
    return b"".join(parts)


def _field(schema: Schema, field: Field, value: Any, depth: int) -> bytes:
    entry = schema.messages[field.type] if field.kind is Kind.MESSAGE else None
    if entry is not None and entry.entry:
        if not isinstance(value, Mapping):
            raise _error(field.name, "an object")
        pairs = ({"key": key, "value": each} for key, each in value.items())
        return b"".join(_tagged(field, encode(schema, entry, pair, depth)) for pair in pairs)
    if not field.repeated:
        body = _value(schema, field, value, depth)
        is_set = bool(body) if field.kind in BLOBS else any(body)
        return _tagged(field, body) if field.presence or is_set else b""
    if not isinstance(value, list):
        raise _error(field.name, "an array")
    bodies = [_value(schema, field, each, depth) for each in value]
    if field.kind in BLOBS:
        return b"".join(_tagged(field, body) for body in bodies)
    packed = b"".join(bodies)
    return varint(field.number << 3 | 2) + varint(len(packed)) + packed if packed else b""


def _tagged(field: Field, body: bytes) -> bytes:
    if field.kind in BLOBS:
        return varint(field.number << 3 | 2) + varint(len(body)) + body
    wire = {8: 1, 4: 5}[struct.calcsize(_FORMATS[field.kind])] if field.kind in _FORMATS else 0
    return varint(field.number << 3 | wire) + body


def varint(value: int) -> bytes:
    """LEB128 of a number of 64 bits; negative ones as two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _value(schema: Schema, field: Field, value: Any, depth: int) -> bytes:
    kind = field.kind
    if kind is Kind.MESSAGE:
        return encode(schema, schema.messages[field.type], value, depth + 1)
    if isinstance(value, (Mapping, list)) or value is None:
        raise _error(field.name, "a scalar")
    if kind is Kind.STRING:
        return _text(value).encode(errors="replace")
    if kind is Kind.BYTES:
        return _bytes(field, value)
    if kind is Kind.BOOL:
        if _text(value) not in ("true", "false"):
            raise _error(field.name, "true or false")
        return varint(_text(value) == "true")
    if kind in (Kind.DOUBLE, Kind.FLOAT):
        return _real(field, value)
    if kind is Kind.ENUM:
        for number, name in schema.enums[field.type].values:
            if value == name and not isinstance(value, _Number):
                return varint(number)
    number = _integer(field, value)
    if kind in _FORMATS:
        return struct.pack(_FORMATS[kind], number)
    return varint(number << 1 ^ number >> 63 if kind in (Kind.SINT32, Kind.SINT64) else number)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _integer(field: Field, value: Any) -> int:
    low, high = _RANGES[field.kind]
    text = _text(value)
    if _NUMBER.fullmatch(text) and len(text) <= _MAX_NUMBER_CHARS:
        exact = Decimal(text)
        if exact.adjusted() < _MAX_DIGITS and exact == int(exact) and low <= exact <= high:
            return int(exact)
    raise _error(field.name, f"a number of type {field.kind.name.lower()}")


def _real(field: Field, value: Any) -> bytes:
    text = _text(value)
    named = text in ("NaN", "Infinity", "-Infinity")
    if named or _NUMBER.fullmatch(text):
        number = float(text)
        with contextlib.suppress(OverflowError):  # beyond a float's range
            if named or math.isfinite(number):
                return struct.pack(_FORMATS[field.kind], number)
    raise _error(field.name, "a number in its range")


def _bytes(field: Field, value: Any) -> bytes:
    """Base64 of either alphabet, padded or not."""
    text = _text(value).translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _error(field.name, "base64 text") from error


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _error(name: str, wanted: str) -> PeerError:
    return PeerError(f"{name} should be {wanted}", code=0x99)
