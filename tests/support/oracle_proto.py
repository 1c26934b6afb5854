"""Google's decoder and a slow printer of canonical protobuf-JSON (MQTT spec 7.3).

Knows nothing of ext/c: a schema becomes descriptors, a payload a message, the message text; numbers
are printed by exact arithmetic in Java's form.
"""

import base64
import json
import math
import struct
from fractions import Fraction
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tbfast.codec.proto_model import Kind, Schema
from tests.support.oracle_json import Refused

TYPES = {0: "INT", 1: "STRING"}
QUOTED = {Kind.INT64, Kind.UINT64, Kind.FIXED64, Kind.SFIXED64, Kind.SINT64}


def message_class(schema: Schema, package: str = "t") -> Any:
    """Google's class of the schema's root.  Every type is declared at the top level."""
    file = descriptor_pb2.FileDescriptorProto(name="schema.proto", package=package, syntax="proto3")
    names = {i: f"M{i}" for i in range(len(schema.messages))}
    entries: dict[int, Any] = {}
    for index, message in enumerate(schema.messages):
        if message.entry:
            continue
        out = file.message_type.add(name=names[index])
        oneofs = max((field.oneof for field in message.fields), default=0)
        for number in range(oneofs):
            out.oneof_decl.add(name=f"oneof_{number}")
        for field in message.fields:
            _field(schema, out, field, names, package, f"{package}.{names[index]}", entries)
    for index, enumeration in enumerate(schema.enums):
        out = file.enum_type.add(name=f"E{index}")
        values = sorted(enumeration.values, key=lambda value: value[0] != 0)
        for number, name in values:
            out.value.add(name=f"E{index}_{name}", number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName(f"{package}.{names[schema.root]}")
    return message_factory.GetMessageClass(found)


def _field(
    schema: Schema, out: Any, field: Any, names: dict[int, str], package: str, scope: str, seen: Any
) -> None:
    made = out.field.add(name=field.name, number=field.number, type=int(field.kind))
    made.label = 3 if field.repeated else 1
    if field.oneof:
        made.oneof_index = field.oneof - 1
    elif field.presence and field.kind is not Kind.MESSAGE:
        made.proto3_optional = True
        made.oneof_index = len(out.oneof_decl)
        out.oneof_decl.add(name=f"_optional_{field.number}")
    if field.kind is Kind.ENUM:
        made.type_name = f".{package}.E{field.type}"
    if field.kind is not Kind.MESSAGE:
        return
    target = schema.messages[field.type]
    if not target.entry:
        made.type_name = f".{package}.{names[field.type]}"
        return
    camel = "".join(part[:1].upper() + part[1:] for part in field.name.split("_"))
    entry = out.nested_type.add(name=f"{camel}Entry")
    entry.options.map_entry = True
    for part in target.fields:
        _field(schema, entry, part, names, package, scope, seen)
    for part in entry.field:
        part.ClearField("oneof_index")
        part.ClearField("proto3_optional")
    del entry.oneof_decl[:]
    made.type_name = f".{scope}.{entry.name}"


def decode(cls: Any, payload: bytes) -> Any:
    """The message; Refused if it is none."""
    message = cls()
    try:
        message.ParseFromString(payload)
    except (DecodeError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from error
    return message


def printed(message: Any) -> str:
    """Canonical JSON, defaults included, fields by number."""
    return "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in members(message)) + "}"


def members(message: Any) -> list[tuple[str, str]]:
    out = []
    for field in sorted(message.DESCRIPTOR.fields, key=lambda field: field.number):
        value = getattr(message, field.name)
        if field.is_repeated:
            out.append((field.json_name, _repeated(field, value)))
        elif not field.has_presence or message.HasField(field.name):
            out.append((field.json_name, _value(field, value)))
    return out


def _repeated(field: Any, value: Any) -> str:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        of_value = entry.fields_by_name["value"]
        pairs = (f"{json.dumps(_key(k))}:{_value(of_value, value[k])}" for k in value)
        return "{" + ",".join(pairs) + "}"
    return "[" + ",".join(_value(field, each) for each in value) + "]"


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _value(field: Any, value: Any) -> str:
    kind = Kind(field.type)
    if kind is Kind.MESSAGE:
        return printed(value)
    if kind is Kind.BYTES:
        return json.dumps(base64.b64encode(value).decode())
    if kind is Kind.ENUM:
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else json.dumps(known.name.partition("_")[2])
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return real(value, double=kind is Kind.DOUBLE)
    if kind in QUOTED:
        return f'"{value}"'
    return json.dumps(value)


def real(value: float, *, double: bool) -> str:
    """Double.toString or Float.toString, quoted where JSON has no number for it."""
    if math.isnan(value):
        return '"NaN"'
    if math.isinf(value):
        return '"Infinity"' if value > 0 else '"-Infinity"'
    form = "<d" if double else "<f"
    bits = int.from_bytes(struct.pack(form, value), "little")
    return java_text(bits, double=double)


def java_text(bits: int, *, double: bool) -> str:
    """The shortest decimal within the rounding interval, the nearest of one or two digits."""
    fraction_bits, bias, top = (52, 1075, 63) if double else (23, 150, 31)
    sign = "-" if bits >> top else ""
    fraction = bits & ((1 << fraction_bits) - 1)
    field = bits >> fraction_bits & (0x7FF if double else 0xFF)
    whole = fraction if field == 0 else fraction | 1 << fraction_bits
    if whole == 0:
        return sign + "0.0"
    unit = Fraction(2) ** ((field or 1) - bias)
    value = whole * unit
    low = value - unit / (4 if fraction == 0 and field > 1 else 2)
    high = value + unit / 2

    def inside(x: Fraction) -> bool:
        return low <= x <= high if whole % 2 == 0 else low < x < high

    exponent = len(str(value.numerator)) - len(str(value.denominator))
    while Fraction(10) ** exponent > value:
        exponent -= 1
    while Fraction(10) ** (exponent + 1) <= value:
        exponent += 1
    for n in range(2, 19):
        step = Fraction(10) ** (exponent + 1 - n)
        near = value // step
        fits = [(abs(value - x * step), x % 2, x) for x in (near, near + 1) if inside(x * step)]
        if fits:
            digits = str(min(fits)[2])
            return sign + _java_form(digits.rstrip("0"), exponent + len(digits) - n)
    raise AssertionError("17 digits are always enough")


def _java_form(digits: str, exponent: int) -> str:
    if not -3 <= exponent < 7:
        return f"{digits[0]}.{digits[1:] or '0'}E{exponent}"
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    return f"{digits[: exponent + 1].ljust(exponent + 1, '0')}.{digits[exponent + 1 :] or '0'}"
