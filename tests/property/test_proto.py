"""Protobuf payloads become the rows that their printed JSON would become (MQTT spec 7.3).

The oracle is Google's decoder, a printer of its own, and the oracle of JSON.
"""

import json
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tbfast._ext.proto import Table, append
from tbfast.codec.proto_model import Field, Kind, Message, Schema
from tbfast.codec.proto_table import table
from tbfast.errors import PeerError
from tests.support import oracle_json, oracle_proto, proto_schemas
from tests.support.json_scan import (
    DEVICE,
    NOW_MS,
    Options,
    Records,
    Refused,
    new_batch,
    outcome,
    records_of,
)
from tests.support.rows import parse_strict

OPTIONS = st.builds(
    Options,
    type_cast=st.booleans(),
    max_string=st.sampled_from([0, 0, 0, 1, 5]),
    max_depth=st.sampled_from([255, 255, 1, 2, 3]),
    max_keys=st.sampled_from([10_000, 10_000, 1, 3]),
    max_plain=st.sampled_from([4_096, 10]),
)
CASES = proto_schemas.schemas().flatmap(
    lambda schema: st.tuples(st.just(schema), proto_schemas.payloads(schema))
)
DAMAGED = proto_schemas.schemas(maps=False).flatmap(
    lambda schema: st.tuples(st.just(schema), proto_schemas.damaged(schema))
)
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def scan(compiled: Table, payload: bytes, options: Options, *, attributes: bool) -> Records:
    batch = new_batch(max_keys=8)
    try:
        counts = append(
            batch, compiled, DEVICE, payload, NOW_MS, attributes=attributes, **options._asdict()
        )
    except PeerError as error:
        assert error.code == 0x99
        assert (batch.nbytes, batch.records, batch.points, batch.key_count) == (0, 0, 0, 0)
        raise Refused(str(error)) from error
    records = records_of(batch)
    assert counts == (len(records), sum(map(len, records)))
    return records


def wanted(schema: Schema, payload: bytes, options: Options, *, attributes: bool) -> Records:
    message = oracle_proto.decode(oracle_proto.message_class(schema), payload)
    text = oracle_proto.printed(message).encode()
    oracle = oracle_json.attributes if attributes else oracle_json.telemetry
    return oracle(text, NOW_MS, options)


def unordered(call: Any) -> Any:
    """The same rows, members of JSON objects sorted: Google's maps have no order in Python."""

    def tree(value: Any) -> Any:
        if isinstance(value, tuple):
            return (value[0], sorted((key, tree(each)) for key, each in value[1]))
        return [tree(each) for each in value] if isinstance(value, list) else value

    def sorted_rows(*args: Any, **options: Any) -> Records:
        return [
            [row._replace(value=tree(row.value)) for row in record]
            for record in call(*args, **options)
        ]

    return sorted_rows


def check(schema: Schema, payload: bytes, options: Options, *, attributes: bool) -> Any:
    calls: list[Any] = [scan, wanted]
    if any(message.entry for message in schema.messages):
        options = options._replace(max_keys=10_000)  # bounds the pairs sent, not those kept
        calls = [unordered(call) for call in calls]
    got = outcome(calls[0], Table(table(schema)), payload, options, attributes=attributes)
    expected = outcome(calls[1], schema, payload, options, attributes=attributes)
    assert got == expected, payload.hex()
    return got


@SLOW
@given(CASES, OPTIONS, st.booleans())
def test_rows_are_those_of_the_printed_json(
    case: tuple[Schema, bytes], options: Options, attributes: bool
) -> None:
    check(*case, options, attributes=attributes)


@SLOW
@given(DAMAGED, st.booleans())
def test_damaged_payloads(case: tuple[Schema, bytes], attributes: bool) -> None:
    """Google's decoder takes some malformed tags (field 0) that Java's and ours refuse."""
    schema, payload = case
    try:
        scan(Table(table(schema)), payload, Options(), attributes=attributes)
    except Refused as error:
        if str(error) == "Protobuf tag is malformed":
            return
    check(schema, payload, Options(), attributes=attributes)


@SLOW
@given(CASES)
def test_printed_text_says_what_google_reads(case: tuple[Schema, bytes]) -> None:
    schema, payload = case
    try:
        expected = oracle_proto.printed(
            oracle_proto.decode(oracle_proto.message_class(schema), payload)
        )
    except Refused:
        with pytest.raises(PeerError):
            Table(table(schema)).print(payload)
        return
    got = Table(table(schema)).print(payload)
    if not any(message.entry for message in schema.messages):
        assert parse_strict(got.decode()) == parse_strict(expected)
    assert json.loads(got) == json.loads(expected)


ONE_REAL = {
    kind: Schema(messages=(Message(name="m", fields=(Field(name="r", number=1, kind=kind),)),))
    for kind in (Kind.DOUBLE, Kind.FLOAT)
}


def _printed_real(kind: Kind, body: bytes) -> str:
    payload = proto_schemas.tagged(1, proto_schemas.WIRE[kind], body)
    return Table(table(ONE_REAL[kind])).print(payload).decode()


@given(st.binary(min_size=8, max_size=8) | proto_schemas.raw_number(Kind.DOUBLE))
@example(struct.pack("<d", 5e-324))
@example(struct.pack("<d", 9.88e-324))
@example(struct.pack("<d", 1e23))
@example(struct.pack("<d", 2.0**-1022))
@example(struct.pack("<d", 1.7976931348623157e308))
def test_doubles_print_as_java_prints_them(body: bytes) -> None:
    [value] = struct.unpack("<d", body)
    assert _printed_real(Kind.DOUBLE, body) == f'{{"r":{oracle_proto.real(value, double=True)}}}'


@given(st.binary(min_size=4, max_size=4) | proto_schemas.raw_number(Kind.FLOAT))
@example(struct.pack("<f", 1.4e-45))
@example(struct.pack("<f", 3.4028234e38))
@example(struct.pack("<f", 16_777_216))
def test_floats_print_as_java_prints_them(body: bytes) -> None:
    [value] = struct.unpack("<f", body)
    assert _printed_real(Kind.FLOAT, body) == f'{{"r":{oracle_proto.real(value, double=False)}}}'


@SLOW
@given(DAMAGED)
def test_refusal_leaves_the_batch_untouched(case: tuple[Schema, bytes]) -> None:
    schema, payload = case
    batch, compiled = new_batch(max_keys=2), Table(table(schema))
    append(batch, Table(table(ONE_REAL[Kind.DOUBLE])), DEVICE, b"", NOW_MS)
    before = batch.to_block(1, 1, 1, 0, 1)
    try:
        append(batch, compiled, DEVICE, payload, NOW_MS)
    except PeerError:
        assert batch.to_block(1, 1, 1, 0, 1) == before
    else:
        assert records_of(batch)[1:] == scan(compiled, payload, Options(), attributes=False)


@SLOW
@given(CASES, st.integers(0, 400))
def test_growing_batch_gives_the_same_rows(case: tuple[Schema, bytes], spare: int) -> None:
    """Filled just up to its capacity, so that every payload runs out of room at another place."""
    schema, payload = case
    compiled = Table(table(schema))
    try:
        expected = scan(compiled, payload, Options(), attributes=False)
    except Refused:
        assume(False)
    batch = new_batch()
    name = Field(name="f", number=1, kind=Kind.STRING)
    filler = Schema(messages=(Message(name="m", fields=(name,)),))
    text = b"x" * (16_384 - 40 - spare)
    append(batch, Table(table(filler)), DEVICE, proto_schemas.tagged(1, 2, text), NOW_MS)
    append(batch, compiled, DEVICE, payload, NOW_MS)
    assert records_of(batch)[1:] == expected
