"""Every row of tests/vectors/proto_payloads.json, and the bounds that need long payloads.

A row: name, clause of the MQTT spec (or of hostile-input), schema without its first line, payload
as hex, options of the JSON reader, and rows as [key, type, value] or "reject".
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tbfast import limits
from tbfast._ext.proto import Table, append
from tbfast.codec.proto_table import table, telemetry
from tbfast.errors import LocalError, PeerError
from tests.support.json_scan import DEVICE, NOW_MS, new_batch
from tests.support.proto_schemas import tagged
from tests.support.rows import read_batch

HEAD = 'syntax = "proto3";\n'
VECTORS = json.loads((Path(__file__).parent.parent / "vectors/proto_payloads.json").read_text())


def rows(schema: str, payload: bytes, **options: Any) -> list[tuple[int, str, str, Any]]:
    batch = new_batch()
    append(batch, telemetry(HEAD + schema).table, DEVICE, payload, NOW_MS, **options)
    return [
        (row.ts, row.key, row.type, row.value)
        for record in read_batch(batch).records
        for row in record
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    call = vector["schema"], bytes.fromhex(vector["hex"])
    options = vector.get("options", {})
    if vector["rows"] == "reject":
        with pytest.raises(PeerError) as caught:
            rows(*call, **options)
        assert caught.value.code == 0x99
        return
    ts = vector.get("ts", NOW_MS)
    assert rows(*call, **options) == [
        (ts, key, type_, Decimal(value) if type_ == "DECIMAL" else value)
        for key, type_, value in vector["rows"]
    ]


NESTED = "message T { T a = 1; }"


def nested(depth: int) -> bytes:
    payload = b""
    for _ in range(depth - 1):
        payload = tagged(1, 2, payload)
    return payload


def test_depth_bound() -> None:
    deepest = limits.PROTO_MAX_DEPTH
    assert rows(NESTED, nested(deepest))
    for depth in (deepest + 1, 1_000, 20_000):
        with pytest.raises(PeerError, match="nested too deeply"):
            rows(NESTED, nested(depth))
    groups = tagged(2, 3, b"") * 5_000 + tagged(2, 4, b"") * 5_000
    with pytest.raises(PeerError, match="malformed"):
        rows(NESTED, groups)


def test_field_bound() -> None:
    compiled = table(telemetry(HEAD + "message T { int32 a = 1; }").schema)
    small = Table(compiled, max_fields=3)
    batch = new_batch()
    append(batch, small, DEVICE, b"\x08\x01" * 3, NOW_MS)
    for payload in (b"\x08\x01" * 4, b"\x10\x01" * 4, b"\x13" + b"\x08\x01" * 3 + b"\x14"):
        with pytest.raises(PeerError):
            append(batch, small, DEVICE, payload, NOW_MS)


def test_what_a_payload_grows_to_is_bounded() -> None:
    """Empty messages of two bytes whose defaults are long (hostile input: amplification)."""
    names = "".join(f"string a_rather_long_name_{i} = {i};" for i in range(1, 200))
    schema = f"message I {{ {names} }} message T {{ repeated I a = 1; }}"
    with pytest.raises(PeerError, match="too long as JSON"):
        rows(schema, tagged(1, 2, b"") * 20_000)
    assert len(rows(schema, tagged(1, 2, b"") * 100)) == 1


def test_damaged_tables_are_refused() -> None:
    good = table(telemetry(HEAD + "enum E { Z = 0; } message T { E a = 1; T b = 40; }").schema)
    Table(good)
    for end in range(len(good)):
        with pytest.raises(LocalError):
            Table(good[:end])
    for at in range(0, len(good) - 4, 4):
        for word in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x00\x00\x00\x80"):
            damaged = good[:at] + word + good[at + 4 :]
            try:
                loaded = Table(damaged)
            except LocalError:
                continue
            loaded.print(b"")  # whatever passed can be followed
