"""JSON becomes the Protobuf that Google's parser makes of it, and comes back (MQTT spec 7.3)."""

import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tbfast.codec import proto_json, tbproto
from tbfast.codec.proto_model import Schema
from tbfast.codec.proto_schema import parse
from tbfast.codec.proto_table import Compiled, rpc_request
from tbfast.errors import PeerError
from tbfast.model.operations import Attributes, AttributesUpdated
from tests.support import oracle_proto, proto_schemas

CASES = proto_schemas.schemas().flatmap(
    lambda schema: st.tuples(st.just(schema), proto_schemas.payloads(schema))
)
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@SLOW
@given(CASES)
def test_printed_payloads_come_back(case: tuple[Schema, bytes]) -> None:
    schema, payload = case
    cls = oracle_proto.message_class(schema)
    try:
        message = oracle_proto.decode(cls, payload)
    except oracle_proto.Refused:
        return
    text = oracle_proto.printed(message)
    again = cls.FromString(proto_json.from_json(schema, text.encode()))
    assert oracle_proto.printed(again) == text or json.loads(oracle_proto.printed(again)) == (
        json.loads(text)
    )


SCALARS = """syntax = "proto3";
enum E { ZERO = 0; ONE = 1; }
message M {
  int32 an_int = 1; uint64 big = 2; sint64 zig = 3; fixed32 fixed = 4; double real = 5;
  float single = 6; bool flag = 7; string text = 8; bytes blob = 9; E choice = 10;
  repeated int32 many = 11; map<string, M> by_name = 12; M inner = 13; optional int32 maybe = 14;
  oneof one { string left = 15; int32 right = 16; }
}
"""
COMPILED = Compiled(parse(SCALARS))
GOOGLE = oracle_proto.message_class(parse(SCALARS))


@pytest.mark.parametrize(
    "members",
    [
        {"anInt": -5, "inner": None, "big": "18446744073709551615", "zig": -(2**63)},
        {"an_int": 1e2, "fixed": "7", "real": "-Infinity", "single": 3.5},
        {"real": 1, "single": "1e10", "flag": True, "text": "ä\u0000", "blob": "AQI="},
        {"blob": "_-8", "choice": "E0_ONE", "many": [1, 2, -3], "maybe": 0},
        {"byName": {"": {}, "x": {"anInt": 1, "byName": {"y": {"flag": True}}}}, "inner": {}},
        {"left": "", "unknown": {"anything": [1]}},
        {},
    ],
)
def test_google_reads_the_same(members: dict[str, Any]) -> None:
    text = json.dumps(members)
    expected = json_format.Parse(text, GOOGLE(), ignore_unknown_fields=True)
    ours = text.replace("E0_ONE", "ONE").encode()
    assert GOOGLE.FromString(proto_json.from_json(COMPILED.schema, ours)) == expected


@pytest.mark.parametrize(
    "text",
    [
        b'{"anInt":1.5}', b'{"anInt":2147483648}', b'{"anInt":true}', b'{"anInt":"x"}',
        b'{"anInt":[1]}', b'{"anInt":1e999999999}', b'{"anInt":"1_0"}',
        b'{"real":"inf"}', b'{"real":" 1"}', b'{"big":-1}', b'{"fixed":4294967296}',
        b'{"real":1e999}', b'{"single":1e39}', b'{"real":"x"}', b'{"flag":1}', b'{"flag":"yes"}',
        b'{"text":{}}', b'{"blob":"?"}', b'{"choice":"TWO"}', b'{"many":1}', b'{"many":[null]}',
        b'{"many":{}}', b'{"byName":[]}', b'{"byName":{"x":1}}', b'{"inner":5}',
        b'{"left":"a","right":1}', b"[]", b"5", b"", b'{"real":NaN}', b"\xff",
        b'{"inner":' * 40 + b"{}" + b"}" * 40, b"[" * 100_000, b'{"big":%b}' % (b"9" * 5_000),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused(text: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        proto_json.from_json(COMPILED.schema, text)
    assert caught.value.code == 0x99


@pytest.mark.parametrize(
    ("params", "wanted"),
    [(b'"a"', "a"), (b"1.50", "1.50"), (b"true", "true"), (b"null", None)],
)
def test_params_of_the_default_schema_are_text_as_written(
    params: bytes, wanted: str | None
) -> None:
    compiled = rpc_request()
    text = b'{"requestId":0,"method":"m","params":%b}' % params
    cls = oracle_proto.message_class(compiled.schema)
    call = cls.FromString(proto_json.from_json(compiled.schema, text))
    assert (call.method, call.requestId, call.HasField("requestId")) == ("m", 0, True)
    assert (call.params if call.HasField("params") else None) == wanted


def test_text_of_zero_bytes_is_set() -> None:
    payload = proto_json.from_json(COMPILED.schema, b'{"text":"\\u0000","blob":"AA=="}')
    message = GOOGLE.FromString(payload)
    assert (message.text, message.blob) == ("\0", b"\0")


MESSAGES = [
    ("ClaimDevice", {"secretKey": "s", "durationMs": "60000"}),
    ("AttributesRequest", {"clientKeys": "a,b", "sharedKeys": ""}),
    ("RpcRequest", {"method": "m", "params": "{}"}),
    ("ToServerRpcResponseMsg", {"requestId": 1, "payload": "{}", "error": ""}),
    (
        "ProvisionDeviceRequestMsg",
        {
            "deviceName": "D",
            "credentialsType": "MQTT_BASIC",
            "provisionDeviceCredentialsMsg": {
                "provisionDeviceKey": "K",
                "provisionDeviceSecret": "S",
            },
            "gateway": True,
        },
    ),
    (
        "ProvisionDeviceResponseMsg",
        {"status": "NOT_FOUND", "credentialsType": "ACCESS_TOKEN", "credentialsValue": ""},
    ),
]


@pytest.mark.parametrize(("name", "members"), MESSAGES, ids=[name for name, _ in MESSAGES])
def test_fixed_messages_come_back(name: str, members: dict[str, Any]) -> None:
    assert tbproto.decode(name, tbproto.encode(name, members)) == members


def test_numbers_of_fixed_messages_are_those_of_the_specification() -> None:
    """By hand, so that no table can be wrong on both ways."""
    assert (
        tbproto.encode("ClaimDevice", {"secretKey": "s", "durationMs": 1}) == b"\x0a\x01s\x10\x01"
    )
    assert tbproto.rpc_reply(3, b"[]", error="x") == b"\x08\x03\x12\x02[]\x1a\x01x"
    kv = b"\x0a\x01a\x10\x01\x20\x05"  # key a, LONG_V, 5
    assert tbproto.attributes_updated(AttributesUpdated(b'{"a":5}')) == b"\x0a\x09\x12\x07" + kv
    assert tbproto.attributes_deleted(("a",)) == b"\x12\x01a"
    found = Attributes(b'{"a":5}', b"", (0,), ())
    reply = tbproto.attributes(7, found, several=True)
    assert reply == b"\x08\x07\x12\x09\x12\x07" + kv + b"\x20\x01"
    answer = {"status": "SUCCESS", "credentialsType": "MQTT_BASIC", "credentialsValue": "v"}
    assert tbproto.encode("ProvisionDeviceResponseMsg", answer) == b"\x08\x01\x10\x02\x1a\x01v"
