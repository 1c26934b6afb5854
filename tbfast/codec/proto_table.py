"""Schemas compiled to the table that C walks (layout: ext/c/tbf_proto.h), and which are allowed.

A compiled schema also keeps its types, for printing JSON as Protobuf (proto_json).
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final

from tbfast._ext.proto import Table
from tbfast.codec.proto_model import Enumeration, Field, Kind, Message, Schema, SchemaError
from tbfast.codec.proto_schema import parse

_MAGIC: Final = 0x31504254
_REPEATED, _PRESENCE = 1, 2
_ENTRY, _TIMED, _AS_JSON = 1, 2, 4
_DENSE_SPARE: Final = 16  # unused numbers that the direct index may hold

RPC_REQUEST: Final = """syntax = "proto3"; package rpc;
message RpcRequestMsg {
  optional string method = 1;
  optional int32 requestId = 2;
  optional string params = 3;
}
"""
RPC_RESPONSE: Final = """syntax = "proto3"; package rpc;
message RpcResponseMsg {
  optional string payload = 1;
}
"""


class Compiled:
    """A schema ready for payloads: `table` for C, `schema` for the way back."""

    __slots__ = ("schema", "table")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.table = Table(table(schema))


def telemetry(text: str) -> Compiled:
    """A schema of telemetry payloads; SchemaError if it is refused (MQTT spec 7.2)."""
    schema = parse(text)
    root = schema.root_message
    if not root.fields:
        raise SchemaError(f"message {root.name} has no fields: add at least one")
    names = {field.name: field for field in root.fields}
    if set(names) == {"ts", "values"} and not _is_timed(root):
        if names["values"].kind is not Kind.MESSAGE or names["values"].repeated:
            raise SchemaError(f"values of {root.name} must be a message: declare one as its type")
        raise SchemaError(f"ts of {root.name} must be declared as: optional int64 ts")
    return Compiled(schema)


def attributes(text: str) -> Compiled:
    """A schema of attribute payloads; SchemaError if it is refused."""
    return Compiled(parse(text))


def rpc_request(text: str = "") -> Compiled:
    """A schema of calls of the server; blank text: ThingsBoard's default."""
    schema = parse(text if text.strip() else RPC_REQUEST)
    root = schema.root_message
    fields = {field.name: field for field in root.fields}
    if set(fields) != {"method", "requestId", "params"}:
        raise SchemaError(f"message {root.name} must have the fields method, requestId and params")
    for field in root.fields:
        if field.repeated:
            raise SchemaError(f"{field.name} of {root.name} must not be repeated")
    for name, kind in (("method", Kind.STRING), ("requestId", Kind.INT32)):
        if fields[name].kind is not kind:
            raise SchemaError(f"{name} of {root.name} must be declared as {kind.name.lower()}")
    return Compiled(schema)


def rpc_response(text: str = "") -> Compiled:
    """A schema of answers to them; blank text: ThingsBoard's default."""
    return Compiled(parse(text if text.strip() else RPC_RESPONSE))


COMPILERS: Final[dict[str, Callable[[str], Compiled]]] = {
    "telemetry": telemetry,
    "attributes": attributes,
    "rpc_request": rpc_request,
    "rpc_response": rpc_response,
}


# --- bytes -----------------------------------------------------------------------------------


class _Names:
    """Every name once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._at: dict[str, int] = {}

    def put(self, name: str) -> tuple[int, int]:
        at = self._at.get(name)
        if at is None:
            at = self._at[name] = len(self.data)
            self.data += name.encode("ascii")
        return at, len(name)


def table(schema: Schema) -> bytes:
    """The table of a schema."""
    names = _Names()
    messages: list[int] = []
    fields: list[int] = []
    dense: list[int] = []
    field_count = 0
    for message in schema.messages:
        direct = _direct(message.fields)
        oneofs = max((field.oneof for field in message.fields), default=0)
        messages += (field_count, len(message.fields), len(dense), len(direct), oneofs)
        messages.append(_message_flags(message))
        dense += direct
        field_count += len(message.fields)
        for field in message.fields:
            flags = _REPEATED * field.repeated | _PRESENCE * field.presence
            fields += (field.number, field.kind, flags, field.type, *names.put(field.json_name))
            fields.append(field.oneof)
    enums, values = _enums(schema.enums, names)
    head = (
        _MAGIC,
        schema.root,
        len(schema.messages),
        field_count,
        len(dense),
        len(schema.enums),
        len(values) // 3,
        len(names.data),
    )
    words = [*head, *messages, *fields, *dense, *enums, *values]
    return struct.pack(f"<{len(words)}I", *words) + bytes(names.data)


def _direct(fields: Sequence[Field]) -> list[int]:
    """Index + 1 of field number 1, 2, .. as long as most numbers are in use."""
    index: list[int] = []
    for at, field in enumerate(fields):
        if field.number > 2 * at + _DENSE_SPARE:
            break
        index += [0] * (field.number - 1 - len(index))
        index.append(at + 1)
    return index


def _enums(enums: Sequence[Enumeration], names: _Names) -> tuple[list[int], list[int]]:
    heads: list[int] = []
    values: list[int] = []
    for enumeration in enums:
        heads += (len(values) // 3, len(enumeration.values))
        for number, name in enumeration.values:
            values += (number & 0xFFFF_FFFF, *names.put(name))
    return heads, values


def _message_flags(message: Message) -> int:
    if message.entry:
        return _ENTRY
    if _is_timed(message):
        return _TIMED
    json_names = {field.json_name for field in message.fields}
    return _AS_JSON if {"ts", "values"} <= json_names else 0


def _is_timed(message: Message) -> bool:
    """Exactly an `optional int64 ts` and a message `values`."""
    fields = {field.name: field for field in message.fields}
    if set(fields) != {"ts", "values"}:
        return False
    ts, values = fields["ts"], fields["values"]
    return (
        ts.kind is Kind.INT64
        and ts.presence
        and not ts.repeated
        and ts.oneof == 0
        and values.kind is Kind.MESSAGE
        and not values.repeated
        and values.oneof == 0
    )
