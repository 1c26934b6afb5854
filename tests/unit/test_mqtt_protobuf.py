"""Sessions of profiles with topics and payload formats of their own (MQTT spec 2.2, 7)."""

import json
from typing import Any

import msgspec
import pytest

from tbfast.codec import tbproto
from tbfast.engine.mqtt.formats import matches_filter
from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode as Code
from tbfast.model.operations import (
    AnswerRpc,
    Attributes,
    AttributesDeleted,
    AttributesUpdated,
    CallServer,
    Claim,
    Done,
    ReadAttributes,
    Refusal,
    Reply,
    RpcRequest,
)
from tbfast.model.transport import MqttProfile
from tests.support.mqtt_host import WALL_MS, Host, opened
from tests.support.proto_profiles import (
    ATTRIBUTES,
    PAYLOAD,
    RPC_REQUEST,
    RPC_RESPONSE,
    TELEMETRY,
    TIMED,
    known,
    made,
    read,
)
from tests.support.rows import read_block

V1 = "v1/devices/me/"
READING = made(TELEMETRY, temperature=21.5, inner_object={"key1": "a", "key4": 7})
READING_ROWS = [
    (WALL_MS, "temperature", 21.5),
    (WALL_MS, "innerObject", '{"key1":"a","key4":7}'),
]
COMPATIBLE = msgspec.structs.replace(PAYLOAD, json_compatible=True)
JSON_DOWN = msgspec.structs.replace(COMPATIBLE, json_downlinks=True)
NO_SCHEMAS = msgspec.structs.replace(
    PAYLOAD, telemetry_schema=" ", attributes_schema=None, rpc_request_schema="x"
)


def publish(topic: str, payload: bytes, packet_id: int = 9) -> m.Publish:
    return m.Publish(topic=topic, payload=payload, qos=1, packet_id=packet_id)


def stored(host: Host) -> list[tuple[int, str, Any]]:
    """Rows since the last commit; their messages are acknowledged."""
    block = host.commit()
    (answer,) = host.replies()
    assert isinstance(answer, m.Puback)
    assert answer.reason_code == 0
    rows = [] if block is None else [row for r in read_block(block).records for row in r]
    return [
        (row.ts, row.key, row.value if isinstance(row.value, str) else float(row.value))
        for row in rows
    ]


def is_refused(host: Host, packet: m.Publish) -> bool:
    """Nothing stored, and a v5 client is told why."""
    host.write(packet)
    assert host.commit() is None
    (answer,) = host.replies()
    assert isinstance(answer, m.Puback)
    return (answer.packet_id, answer.reason_code) == (9, 0x99)


def down(host: Host) -> list[tuple[str, bytes]]:
    packets = host.replies()
    assert all(isinstance(p, m.Publish) for p in packets), packets
    return [(p.topic, p.payload) for p in packets]


@pytest.mark.parametrize("hot", [True, False])
@pytest.mark.parametrize("topic", [V1 + "telemetry", "v2/t", "v2/t/p"])
def test_telemetry_by_the_schema(topic: str, hot: bool) -> None:
    host = opened(5, who=known(), hot=hot)
    host.write(publish(topic, READING))
    assert stored(host) == READING_ROWS


@pytest.mark.parametrize("hot", [True, False])
def test_telemetry_with_a_time(hot: bool) -> None:
    timed = msgspec.structs.replace(PAYLOAD, telemetry_schema=TIMED)
    host = opened(who=known(payload=timed), hot=hot)
    host.write(publish("v2/t", made(TIMED, ts=5, values={"level": 3, "samples": [1.0, 2.5]})))
    assert stored(host) == [(5, "level", 3.0), (5, "samples", "[1.0,2.5]")]
    host.write(publish("v2/t", made(TIMED, values={"level": 3})))
    assert stored(host) == [(WALL_MS, "values", '{"level":3,"samples":[]}')]


@pytest.mark.parametrize("topic", [V1 + "attributes", "v2/a", "v2/a/p"])
def test_attributes_by_the_schema(topic: str) -> None:
    host = opened(5, who=known())
    host.write(publish(topic, made(ATTRIBUTES, firmware="1.0b", serial=1 << 40)))
    assert stored(host) == [(WALL_MS, "firmware", "1.0b"), (WALL_MS, "serial", float(1 << 40))]


def test_json_only_where_the_topic_or_the_profile_says_so() -> None:
    host = opened(5, who=known())
    for topic in ("v2/t/j", "v2/a/j"):
        host.write(publish(topic, b'{"a":1}'))
        assert stored(host) == [(WALL_MS, "a", 1.0)]
    for topic in ("v2/t", "v2/t/p", "v2/a", V1 + "telemetry", V1 + "attributes"):
        assert is_refused(host, publish(topic, b'{"a":1}')), topic
    host = opened(5, who=known(payload=COMPATIBLE))
    for topic in ("v2/t", "v2/a", V1 + "telemetry", V1 + "attributes"):
        host.write(publish(topic, b'{"a":1}'))
        assert stored(host) == [(WALL_MS, "a", 1.0)]
    host.write(publish("v2/t", READING))
    assert stored(host) == READING_ROWS
    assert is_refused(host, publish("v2/t/p", b'{"a":1}'))
    assert is_refused(host, publish("v2/t", b"{,"))


def test_profiles_without_schemas_refuse_protobuf() -> None:
    for who in (known(payload=NO_SCHEMAS), known(payload=MqttProfile().payload)):
        host = opened(5, who=who)
        for topic in ("v2/t/p", "v2/a/p"):
            assert is_refused(host, publish(topic, READING)), topic
    host = opened(5, who=known(payload=NO_SCHEMAS))
    assert is_refused(host, publish("v2/t", READING))
    host = opened(5, who=known(payload=MqttProfile().payload))
    assert is_refused(host, publish("v2/r/res/p/1", made(RPC_RESPONSE, payload="1")))


@pytest.mark.parametrize("acks", [True, False])
def test_refused_payloads_of_v3_clients(acks: bool) -> None:
    host = opened(4, who=known(send_ack_on_validation_exception=acks))
    host.write(publish("v2/t", b"\x00"))
    assert host.replies() == ([m.Puback(packet_id=9)] if acks else [])
    assert host.ended == (None if acks else "finish")


def test_requests_for_attributes() -> None:
    host = opened(who=known())
    body = tbproto.encode("AttributesRequest", {"clientKeys": "a,b", "sharedKeys": ""})
    host.write(publish(V1 + "attributes/request/7", body))
    assert host.operations[0].operation == ReadAttributes(("a", "b"), None)
    assert host.replies() == [m.Puback(packet_id=9)]
    times = (11, 12, 13, 14, 1_700_000_000_000)
    host.answer(Attributes(b'{"a":1,"b":"x","c":2.5,"d":true,"e":{"f":null}}', b"", times))
    [(topic, payload)] = down(host)
    assert topic == V1 + "attributes/response/7"
    answer = tbproto.decode("GetAttributeResponseMsg", payload)
    values = [kv["kv"] for kv in answer["clientAttributeList"]]
    assert [int(kv["ts"]) for kv in answer["clientAttributeList"]] == list(times)
    assert [(kv["key"], kv["type"]) for kv in values] == [
        ("a", "LONG_V"), ("b", "STRING_V"), ("c", "DOUBLE_V"), ("d", "BOOLEAN_V"), ("e", "JSON_V"),
    ]  # fmt: skip
    assert (values[0]["longV"], values[1]["stringV"], values[2]["doubleV"]) == ("1", "x", 2.5)
    assert (values[3]["boolV"], values[4]["jsonV"]) == (True, '{"f":null}')
    assert (answer["requestId"], answer["isMultipleAttributesRequest"]) == (7, True)
    assert answer["sharedAttributeList"] == []


@pytest.mark.parametrize(
    ("topic", "reply"), [("v2/a/req/p/1", "v2/a/res/p/1"), ("v2/r/req/p/1", "v2/r/res/p/1")]
)
def test_fixed_messages_work_without_a_protobuf_profile(topic: str, reply: str) -> None:
    host = opened()
    host.write(publish(topic, made(RPC_RESPONSE, payload="m")))  # field 1, as both have
    host.answer(Attributes() if "/a/" in topic else Reply(b"[1]"))
    _, answer = host.replies()
    assert isinstance(answer, m.Publish)
    assert answer.topic == reply
    if "/r/" in topic:
        assert tbproto.decode("ToServerRpcResponseMsg", answer.payload)["payload"] == "[1]"


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ('{"a":1}', b'{"a":1}'),
        ("", b"null"),
        ("5", b"5"),
        ("YWJj", b'"YWJj"'),
        ("YQ==", b'"YQ=="'),
    ],
)
def test_calls_of_the_server(params: str, wanted: bytes) -> None:
    host = opened(who=known())
    body = tbproto.encode("RpcRequest", {"method": "now", "params": params})
    host.write(publish(V1 + "rpc/request/3", body))
    assert host.operations[0].operation == CallServer("now", wanted, 3)
    host.answer(Refusal("timeout", "timeout"))
    _, answer = host.replies()
    assert isinstance(answer, m.Publish)
    reply = tbproto.decode("ToServerRpcResponseMsg", answer.payload)
    assert reply == {"requestId": 3, "payload": "", "error": "timeout"}


def test_requests_that_are_refused() -> None:
    host = opened(5, who=known())
    bad = tbproto.encode("RpcRequest", {"method": "now", "params": "not json!"})
    for topic, payload in (
        (V1 + "rpc/request/3", bad),
        (V1 + "rpc/request/x", b""),
        (V1 + "attributes/request/1", b"\xff"),
        (V1 + "claim", b"\x0a\x05"),
        (V1 + "rpc/response/3", b"\x0a\x05"),
    ):
        assert is_refused(host, publish(topic, payload)), topic


def test_session_limits_in_the_format_of_the_profile() -> None:
    for payload in (PAYLOAD, JSON_DOWN):
        host = opened(who=known(payload=payload))
        body = tbproto.encode("RpcRequest", {"method": "getSessionLimits"})
        host.write(publish(V1 + "rpc/request/3", body))
        _, answer = host.replies()
        assert isinstance(answer, m.Publish)
        text = answer.payload
        if payload is PAYLOAD:
            text = tbproto.decode("ToServerRpcResponseMsg", answer.payload)["payload"]
        assert json.loads(text)["maxPayloadSize"] == 65_536


def test_claims() -> None:
    host = opened(who=known())
    body = tbproto.encode("ClaimDevice", {"secretKey": "s", "durationMs": 60_000})
    host.write(publish(V1 + "claim", body), publish(V1 + "claim", b"", 10))
    asked = [ask.operation for ask in host.operations]
    assert asked == [Claim("s", 60_000), Claim("", 0)]
    host.answer(Done())
    assert host.replies() == [m.Puback(packet_id=9)]


def subscribe(host: Host, *filters: str) -> tuple[int, ...]:
    wanted = tuple(m.Subscription(filter=f, qos=1) for f in filters)
    host.write(m.Subscribe(packet_id=77, subscriptions=wanted))
    (suback,) = host.replies()
    assert isinstance(suback, m.Suback)
    return suback.reason_codes


@pytest.mark.parametrize("filter", [V1 + "attributes", "v2/a", "v2/a/p"])
def test_changes_of_shared_attributes(filter: str) -> None:
    host = opened(who=known())
    subscribe(host, filter)
    host.notify(AttributesUpdated(b'{"x":42.0}'), 1)
    host.notify(AttributesDeleted(("a", "b")), 2)
    [(topic, first), (_, second)] = down(host)
    assert topic == filter
    [updated] = tbproto.decode("AttributeUpdateNotificationMsg", first)["sharedUpdated"]
    assert (updated["kv"]["key"], updated["kv"]["doubleV"]) == ("x", 42.0)
    assert tbproto.decode("AttributeUpdateNotificationMsg", second)["sharedDeleted"] == ["a", "b"]


def test_json_downlinks_of_a_compatible_profile_are_for_v1_topics() -> None:
    for filter, is_json in ((V1 + "attributes", True), ("v2/a", False), ("v2/a/j", True)):
        host = opened(who=known(payload=JSON_DOWN))
        subscribe(host, filter)
        host.notify(AttributesUpdated(b'{"x":42.0}'))
        [(_, payload)] = down(host)
        assert (payload == b'{"x":42.0}') is is_json


def test_calls_of_the_device_and_their_answers() -> None:
    host = opened(who=known())
    subscribe(host, V1 + "rpc/request/+")
    host.notify(RpcRequest(0, "setGpio", b'{"pin":"23","value":1,"unknown":[]}'), 5)
    [(topic, payload)] = down(host)
    assert topic == V1 + "rpc/request/0"
    call = read(RPC_REQUEST, payload)
    assert (call.method, call.requestId, call.HasField("requestId")) == ("setGpio", 0, True)
    assert (call.params.pin, call.params.value) == ("23", 1)
    host.write(publish(V1 + "rpc/response/0", made(RPC_RESPONSE, payload='{"value1":"A"}')))
    answer = host.operations[0].operation
    assert answer == AnswerRpc(0, b'{"payload":"{\\"value1\\":\\"A\\"}"}')


@pytest.mark.parametrize(
    ("who", "filter"), [(known(), "v2/r/req/+"), (known(payload=NO_SCHEMAS), "v2/r/req/p/+")]
)
def test_calls_that_do_not_fit_the_schema_are_answered_for_the_device(
    who: Any, filter: str
) -> None:
    host = opened(who=who)
    subscribe(host, filter)
    host.notify(RpcRequest(4, "setGpio", b"[1]"), 5)
    assert host.replies() == []
    operation = host.operations[0].operation
    assert isinstance(operation, AnswerRpc)
    assert json.loads(operation.body) == {
        "result": "INVALID_ARGUMENTS",
        "error": "Failed to convert device RPC command to MQTT msg: setGpio[1]",
    }
    assert host.delivered == [(5, "dropped")]
    host.answer(Done())
    assert host.ended is None


# --- topics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "matching", "others"),
    [
        ("a/b", ["a/b"], ["a/b/", "a", "a/bc", "A/b"]),
        ("#", ["", "a", "a/b", "/"], []),
        ("+", ["a", "abc"], ["", "/", "a/b"]),
        ("a/+/c", ["a/b/c", "a/xyz/c"], ["a//c", "a/b/d", "a/b/b/c", "a/b/cc"]),
        ("Sensor/#", ["Sensor", "Sensor/", "Sensor/a/b"], ["Sensors", "a/Sensor", "Senso"]),
        ("a/#/z", ["a/b/c/z", "a//z"], ["a", "a/z", "az", "a/b"]),
        ("Sensor/Temperature#", ["Sensor/Temperature#"], ["Sensor/Temperature", "Sensor/T"]),
        ("s+", ["sensor", "s1"], ["s", "s/", "xs1"]),
        ("a.b/+", ["a.b/c"], ["axb/c"]),
        ("++", ["ab", "abc"], ["a", "a/b"]),
        ("/#", ["", "/", "/a"], ["a"]),
    ],
)
def test_filters_of_profiles(filter: str, matching: list[str], others: list[str]) -> None:
    for topic in matching:
        assert matches_filter(filter, topic), topic
    for topic in others:
        assert not matches_filter(filter, topic), topic


@pytest.mark.parametrize("hot", [True, False])
def test_topics_of_the_profile(hot: bool) -> None:
    json_profile = {"payload": MqttProfile().payload}
    who = known(telemetry_topic="plant/data", attributes_topic="plant/+/state", **json_profile)
    host = opened(5, who=who, hot=hot)
    for topic in ("plant/data", "v2/t", "v2/t/j"):
        host.write(publish(topic, b'{"a":1}'))
        assert stored(host) == [(WALL_MS, "a", 1.0)]
    host.write(publish("plant/7/state", b'{"b":1}'), publish("v2/a", b'{"b":1}'))
    block = host.commit()
    assert block is not None
    assert {r.kind for record in read_block(block).records for r in record} == {"client_attr"}
    host.replies()
    for topic in ("v1/devices/me/telemetry", "v1/devices/me/attributes", "plant/dat", "plant"):
        host.write(publish(topic, b'{"a":1}'))
        (answer,) = host.replies()
        assert answer.reason_code == Code.TOPIC_NAME_INVALID, topic
    host.write(publish("v1/gateway/telemetry", b'{"a":1}'))
    assert host.replies() == []


@pytest.mark.parametrize("hot", [True, False])
def test_the_attributes_filter_is_tested_first(hot: bool) -> None:
    who = known(attributes_topic="#", telemetry_topic="plant/data", payload=MqttProfile().payload)
    host = opened(who=who, hot=hot)
    for number, topic in enumerate(("plant/data", "v2/t", "v1/devices/me/telemetry", "x"), 1):
        host.write(publish(topic, b'{"a":%d}' % number))
    block = host.commit()
    assert block is not None
    kinds = [row.kind for record in read_block(block).records for row in record]
    assert kinds == ["client_attr"] * 4


def test_an_edited_profile_holds_from_the_next_packet_on() -> None:
    host = opened(who=known())
    host.write(publish("v2/t", READING))
    assert stored(host) == READING_ROWS
    host.engine.profile_changed(MqttProfile(telemetry_topic="other"))
    for topic in ("v2/t", "other"):
        host.write(publish(topic, b'{"a":1}'))
        assert stored(host) == [(WALL_MS, "a", 1.0)]
    host.write(publish("v1/devices/me/telemetry", b'{"a":1}'))
    assert host.commit() is None
    host.engine.profile_changed(MqttProfile())
    host.replies()
    host.write(publish("v1/devices/me/telemetry", b'{"a":1}'))
    assert stored(host) == [(WALL_MS, "a", 1.0)]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("filter", ["#", "v1/devices/#", "v1/+/me/attributes/#"])
def test_pushes_have_the_qos_of_a_wide_subscription(filter: str, qos: int) -> None:
    """Granted as the profile's own topic, it covers the topic of the pushes (MQTT spec 2.3)."""
    host = opened(5, who=known(attributes_subscribe_topic="#", payload=MqttProfile().payload))
    host.write(m.Subscribe(1, (m.Subscription(filter, qos),)))
    assert host.replies() == [m.Suback(1, (qos,))]
    host.notify(AttributesUpdated(b'{"x":1}'))
    (push,) = host.replies()
    assert isinstance(push, m.Publish)
    assert (push.topic, push.qos) == (V1 + "attributes", qos)


def test_subscription_to_the_profiles_own_topic() -> None:
    who = known(attributes_subscribe_topic="plant/+/shared", payload=MqttProfile().payload)
    host = opened(5, who=who)
    assert subscribe(host, "plant/7/shared", "plant/7/other") == (1, Code.TOPIC_FILTER_INVALID)
    assert host.listens[-1].attributes
    host.notify(AttributesUpdated(b'{"x":1}'))
    assert down(host) == [(V1 + "attributes", b'{"x":1}')]
    host.write(m.Unsubscribe(packet_id=8, filters=("plant/7/shared",)))
    (unsuback,) = host.replies()
    assert isinstance(unsuback, m.Unsuback)
    assert unsuback.reason_codes == (Code.TOPIC_FILTER_INVALID,)
    assert host.engine.listens[0]  # as ThingsBoard: the pushes go on
