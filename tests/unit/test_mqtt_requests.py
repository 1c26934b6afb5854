"""Requests of a session and what it is told: attributes, calls, claims, subscriptions."""

import json
from typing import Any

import msgspec
import pytest

from tbfast import limits
from tbfast.engine.mqtt.settings import Settings
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
from tests.support.mqtt_host import Host, opened
from tests.support.rows import read_block

ATTRIBUTES_REQUEST = "v1/devices/me/attributes/request/"
RPC_REQUEST = "v1/devices/me/rpc/request/"
RPC_RESPONSE = "v1/devices/me/rpc/response/"
CLAIM = "v1/devices/me/claim"


def publish(topic: str, payload: bytes, *, qos: int = 1, packet_id: int = 9) -> m.Publish:
    return m.Publish(topic=topic, payload=payload, qos=qos, packet_id=packet_id if qos else None)


def subscribe(host: Host, *filters: str, qos: int = 1) -> tuple[int, ...]:
    wanted = tuple(m.Subscription(filter=f, qos=qos) for f in filters)
    host.write(m.Subscribe(packet_id=77, subscriptions=wanted))
    (suback,) = host.replies()
    assert isinstance(suback, m.Suback)
    return suback.reason_codes


def replied(host: Host) -> list[tuple[str, Any]]:
    """Messages sent to the device since the last look, payloads parsed."""
    packets = host.replies()
    assert all(isinstance(p, m.Publish) for p in packets)
    return [(p.topic, json.loads(p.payload)) for p in packets]


# --- client attributes -----------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["v1/devices/me/attributes", "v2/a", "v2/a/j"])
@pytest.mark.parametrize("version", [4, 5])
def test_attributes_are_rows_acknowledged_by_the_commit(topic: str, version: int) -> None:
    host = opened(version)
    host.write(publish(topic, b'{"fw":"1.0","n":5}'))
    assert host.replies() == []
    block = host.commit()
    assert [type(p) for p in host.replies()] == [m.Puback]
    assert block is not None
    (record,) = read_block(block).records
    assert {row.key: row.value for row in record} == {"fw": 1.0, "n": 5}


@pytest.mark.parametrize("payload", [b"[]", b"5", b"", b"null", b'[{"a":1}]', b"{"])
def test_attributes_must_be_an_object(payload: bytes) -> None:
    host = opened(5)
    host.write(publish("v1/devices/me/attributes", payload))
    (puback,) = host.replies()
    assert puback.reason_code == Code.PAYLOAD_FORMAT_INVALID


# --- attribute requests ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "operation"),
    [
        (b"{}", ReadAttributes((), ())),
        (b'{"clientKeys":"a,b","sharedKeys":"c"}', ReadAttributes(("a", "b"), ("c",))),
        (b'{"clientKeys":"a, b"}', ReadAttributes(("a", " b"), None)),
        (b'{sharedKeys:"c"}', ReadAttributes(None, ("c",))),
        (b'{"clientKeys":["a"]}', ReadAttributes(("a",), None)),
        (b'{"clientKeys":"","sharedKeys":"c"}', ReadAttributes(None, ("c",))),
        (b'{"clientKeys":"a,,b,"}', ReadAttributes(("a", "b"), None)),
        (b'{"clientKeys":","}', ReadAttributes((), ())),
    ],
)
def test_what_a_request_asks_for(payload: bytes, operation: ReadAttributes) -> None:
    host = opened(4)
    host.write(publish(ATTRIBUTES_REQUEST + "1", payload))
    assert [type(p) for p in host.replies()] == [m.Puback]  # before the reply
    assert [asked.operation for asked in host.operations] == [operation]


@pytest.mark.parametrize(
    ("topic", "reply"),
    [
        (ATTRIBUTES_REQUEST + "1", "v1/devices/me/attributes/response/1"),
        (ATTRIBUTES_REQUEST + "007", "v1/devices/me/attributes/response/7"),
        ("v2/a/req/2", "v2/a/res/2"),
        ("v2/a/req/j/3", "v2/a/res/j/3"),
    ],
)
def test_the_reply_follows_the_request(topic: str, reply: str) -> None:
    host = opened(5)
    host.write(publish(topic, b"{}", qos=0))
    host.answer(Attributes(b'{"a":1}', b'{"s":"x"}'))
    assert replied(host) == [(reply, {"client": {"a": 1}, "shared": {"s": "x"}})]
    host.write(publish(topic, b"{}", qos=0))
    host.answer(Attributes())
    assert replied(host) == [(reply, {})]


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (ATTRIBUTES_REQUEST + "1", b""),
        (ATTRIBUTES_REQUEST + "1", b"[]"),
        (ATTRIBUTES_REQUEST + "1", b'{"clientKeys":null}'),
        (ATTRIBUTES_REQUEST + "1", b'{"clientKeys":{}}'),
        (ATTRIBUTES_REQUEST + "1", b'{"clientKeys":["a","b"]}'),
        (ATTRIBUTES_REQUEST + "x", b"{}"),
        (ATTRIBUTES_REQUEST + "2147483648", b"{}"),
        (ATTRIBUTES_REQUEST, b"{}"),
        (RPC_REQUEST + "1", b"[]"),
        (RPC_REQUEST + "1", b""),
        (RPC_REQUEST + "1", b'{"params":{}}'),
        (RPC_REQUEST + "1", b'{"method":null}'),
        (RPC_REQUEST + "1", b'{"method":{}}'),
        (RPC_REQUEST + "1/2", b'{"method":"m"}'),
        (RPC_RESPONSE + "x", b"{}"),
        (CLAIM, b"[]"),
        (CLAIM, b'{"durationMs":"x"}'),
        (CLAIM, b'{"secretKey":null}'),
        ("v2/a/p", b"\x00"),
        ("v2/a/req/p/1", b"\x00"),
        ("v2/r/res/p/1", b"\x00"),
    ],
)
@pytest.mark.parametrize("version", [4, 5])
def test_refused_requests(version: int, topic: str, payload: bytes) -> None:
    host = opened(version)
    host.write(publish(topic, payload))
    assert host.operations == []
    if version == 5:
        (puback,) = host.replies()
        assert puback.reason_code == Code.PAYLOAD_FORMAT_INVALID
        assert host.ended is None
    else:
        assert host.replies() == []
        assert host.ended == "finish"


def test_a_negative_id_is_acknowledged_and_not_replied_to() -> None:
    host = opened(4)
    host.write(publish(ATTRIBUTES_REQUEST + "-1", b"{}"))
    assert [type(p) for p in host.replies()] == [m.Puback]
    assert host.operations == []


# --- calls of the server ---------------------------------------------------------------------


def test_a_device_calls_the_server() -> None:
    host = opened(4)
    host.write(publish(RPC_REQUEST + "4", b"{method:go,params:{x:1}}"))
    host.replies()
    (asked,) = host.operations
    assert asked.operation == CallServer("go", b'{"x":1}', 4)
    host.answer(Reply(b'"ok"'))
    assert replied(host) == [(RPC_RESPONSE + "4", "ok")]


@pytest.mark.parametrize("version", [4, 5])
def test_session_limits_are_told_at_once(version: int) -> None:
    host = opened(version)
    host.write(
        publish(RPC_REQUEST + "1", b'{"method":"getSessionLimits","params":{"timeout":5000}}')
    )
    puback, reply = host.replies()
    assert puback == m.Puback(packet_id=9)
    assert reply.topic == RPC_RESPONSE + "1"
    assert json.loads(reply.payload) == {
        "maxPayloadSize": limits.MQTT_MAX_REMAINING_BYTES,
        "maxInflightMessages": 100,
        "rateLimits": {"messages": None, "telemetryMessages": None, "telemetryDataPoints": None},
    }
    host.write(publish("v2/r/req/1", b'{"method":"getSessionLimits"}', qos=0))
    assert isinstance(host.operations[0].operation, CallServer)  # built in on the v1 topic only


def test_a_call_nobody_answers_is_told_so() -> None:
    host = opened(4)
    host.write(publish("v2/r/req/j/4", b'{"method":"go"}', qos=0))
    host.answer(Refusal("timeout", "timeout"))
    assert replied(host) == [("v2/r/res/j/4", {"error": "timeout"})]


@pytest.mark.parametrize("version", [4, 5])
def test_an_answer_is_acknowledged_when_it_has_arrived(version: int) -> None:
    host = opened(version)
    host.write(publish(RPC_RESPONSE + "3", b"anything"))
    assert host.replies() == []
    (asked,) = host.operations
    assert asked.operation == AnswerRpc(3, b"anything")
    host.answer(Done())
    assert host.replies() == [m.Puback(packet_id=9)]


@pytest.mark.parametrize("version", [4, 5])
def test_what_cannot_be_done_is_never_acknowledged(version: int) -> None:
    host = opened(version)
    host.write(publish(CLAIM, b"{}"))
    assert host.operations[0].operation == Claim()
    host.answer(Refusal("unavailable", "try again"))
    if version == 5:
        (puback,) = host.replies()
        assert puback.reason_code == Code.IMPLEMENTATION_SPECIFIC_ERROR
        assert puback.properties is not None
        assert puback.properties.reason_string == "try again"
    else:
        assert host.replies() == []
        assert host.ended == "finish"


@pytest.mark.parametrize(
    ("payload", "operation"),
    [
        (b"", Claim()),
        (b'{"secretKey":"s","durationMs":60000}', Claim("s", 60_000)),
        (b'{"secretKey":7,"durationMs":"5"}', Claim("7", 5)),
    ],
)
def test_claims(payload: bytes, operation: Claim) -> None:
    host = opened(4)
    host.write(publish(CLAIM, payload))
    assert host.operations[0].operation == operation


@pytest.mark.parametrize("version", [4, 5])
def test_requests_without_end_are_bounded(version: int) -> None:
    host = opened(version)
    for n in range(limits.MQTT_QUEUE):
        host.write(publish(f"{ATTRIBUTES_REQUEST}{n}", b"{}", qos=0))
    assert host.ended is None
    host.write(publish(ATTRIBUTES_REQUEST + "1000", b"{}"))
    assert len(host.operations) == limits.MQTT_QUEUE
    if version == 5:
        (puback,) = host.replies()
        assert puback.reason_code == Code.QUOTA_EXCEEDED
        host.answer(Attributes())
        host.replies()
        host.write(publish(ATTRIBUTES_REQUEST + "1001", b"{}", qos=0))
        assert len(host.operations) == limits.MQTT_QUEUE
    else:
        assert host.ended == "finish"


def test_an_answer_after_the_end_goes_nowhere() -> None:
    host = opened(5)
    host.write(publish(ATTRIBUTES_REQUEST + "1", b"{}", qos=0))
    host.write(m.Disconnect())
    sent = bytes(host.sent)
    host.answer(Attributes())
    host.notify(RpcRequest(0, "m"), push=5)
    assert bytes(host.sent) == sent
    assert host.delivered == [(5, "dropped")]


# --- what the device is told -----------------------------------------------------------------


def test_subscriptions_are_told_to_the_controller() -> None:
    host = opened(5)
    subscribe(host, "v1/devices/me/attributes/response/+")
    assert host.listens == []
    subscribe(host, "v2/a")
    subscribe(host, "v1/devices/me/rpc/request/+")
    subscribe(host, "v1/devices/me/rpc/request/+")
    told = [(one.attributes, one.rpc, one.pending) for one in host.listens]
    assert told == [(True, False, False), (True, True, True), (True, True, True)]
    host.write(m.Unsubscribe(packet_id=1, filters=("v1/devices/me/rpc/request/+", "v2/a")))
    (unsuback,) = host.replies()
    assert unsuback.reason_codes == (0, 0)
    assert host.engine.listens == (False, False)


@pytest.mark.parametrize(
    ("filters", "topic"),
    [
        (("v1/devices/me/attributes",), "v1/devices/me/attributes"),
        (("v1/devices/me/attributes", "v2/a"), "v2/a"),
        (("v2/a", "v2/a/j"), "v2/a/j"),
    ],
)
def test_changes_come_in_the_family_of_the_last_subscription(
    filters: tuple[str, ...], topic: str
) -> None:
    host = opened(4)
    subscribe(host, *filters)
    host.notify(AttributesUpdated(b'{"a":1}'))
    host.notify(AttributesDeleted(("a", "b")))
    assert replied(host) == [(topic, {"a": 1}), (topic, {"deleted": ["a", "b"]})]


def test_a_call_of_the_server() -> None:
    host = opened(4)
    subscribe(host, "v2/r/req/+")
    host.notify(RpcRequest(12, "setGpio", b'{"pin":"23"}'), push=8)
    (packet,) = host.replies()
    assert (packet.topic, packet.qos) == ("v2/r/req/12", 1)
    assert packet.payload == b'{"method":"setGpio","params":{"pin":"23"}}'
    assert host.delivered == [(8, "sent")]
    host.write(m.Puback(packet_id=packet.packet_id))
    host.write(m.Puback(packet_id=packet.packet_id))
    assert host.delivered == [(8, "sent"), (8, "acknowledged")]


def test_qos_0_is_delivered_when_it_is_written() -> None:
    host = opened(4)
    subscribe(host, "v1/devices/me/rpc/request/+", qos=0)
    host.notify(RpcRequest(1, "m"), push=8)
    (packet,) = host.replies()
    assert packet.qos == 0
    assert host.delivered == [(8, "acknowledged")]


def test_nobody_listens() -> None:
    host = opened(4)
    host.notify(RpcRequest(1, "m"), push=8)
    subscribe(host, "v2/r/req/p/+")  # no schema to write it with
    host.notify(RpcRequest(2, "m"), push=9)
    assert host.replies() == []
    assert host.delivered == [(8, "dropped"), (9, "dropped")]


def test_an_acknowledgement_that_does_not_come() -> None:
    host = opened(4, settings=Settings(ack_timeout_ms=1_000))
    subscribe(host, "v2/r/req/+")
    host.notify(RpcRequest(1, "m"), push=8)
    host.advance(999)
    assert host.delivered == [(8, "sent")]
    host.advance(1)
    assert host.delivered == [(8, "sent"), (8, "timeout")]
    assert host.ended is None
    assert host.engine.deadline() > host.now


def test_a_client_that_takes_one_message_at_a_time() -> None:
    host = opened(5, connect={"properties": m.Properties(receive_maximum=1)})
    subscribe(host, "v2/r/req/+")
    for n in range(limits.MQTT_DOWNLINK_QUEUE + 2):
        host.notify(RpcRequest(n, "m"), push=n + 1)
    (packet,) = host.replies()
    assert host.delivered == [(1, "sent"), (limits.MQTT_DOWNLINK_QUEUE + 2, "dropped")]
    host.write(m.Puback(packet_id=packet.packet_id))
    (following,) = host.replies()
    assert following.topic == "v2/r/req/1"


def test_what_waits_for_a_slow_client_is_bounded_in_bytes() -> None:
    host = opened(5, connect={"properties": m.Properties(receive_maximum=1)})
    subscribe(host, "v2/a")
    body = b'{"a":"%b"}' % (b"x" * (limits.MQTT_DOWNLINK_QUEUE_BYTES // 3))
    for push in range(1, 5):
        host.notify(AttributesUpdated(body), push)
    assert host.delivered == [(1, "sent"), (4, "dropped")]
    for expected in (2, 3):  # room again
        (packet,) = host.replies()
        host.write(m.Puback(packet_id=packet.packet_id))
        assert (expected, "sent") in host.delivered
        host.notify(AttributesUpdated(body), expected + 10)
    assert (12, "dropped") not in host.delivered


def test_the_window_of_a_client_that_takes_everything_is_bounded() -> None:
    host = opened(5, connect={"properties": m.Properties(receive_maximum=65_535)})
    subscribe(host, "v2/a")
    for _ in range(limits.MQTT_DOWNLINK_WINDOW + 50):
        host.notify(AttributesUpdated(b"{}"))
    assert len(host.replies()) == limits.MQTT_DOWNLINK_WINDOW


def test_a_message_larger_than_the_client_takes() -> None:
    host = opened(5, connect={"properties": m.Properties(maximum_packet_size=60)})
    subscribe(host, "v2/a")
    host.notify(AttributesUpdated(b'{"a":"%b"}' % (b"x" * 100)), push=3)
    assert host.replies() == []
    assert host.delivered == [(3, "too_big")]
    host.notify(AttributesUpdated(b'{"a":1}'), push=4)
    assert replied(host) == [("v2/a", {"a": 1})]


def test_packet_identifiers_wrap_and_skip_those_in_use() -> None:
    host = opened(4)
    subscribe(host, "v2/a")
    host.notify(AttributesUpdated(b"{}"))
    (first,) = host.replies()
    for _ in range(65_535):
        host.notify(AttributesUpdated(b"{}"))
        (packet,) = host.replies()
        assert 1 <= packet.packet_id <= 65_535
        assert packet.packet_id != first.packet_id
        host.write(m.Puback(packet_id=packet.packet_id))


def test_bodies_are_compact_json() -> None:
    assert RpcRequest(3, "ä", b"[1]").to_json(with_id=True) == (
        '{"id":3,"method":"ä","params":[1]}'.encode()
    )
    assert msgspec.json.decode(Attributes(b"", b'{"s":1}').to_json()) == {"shared": {"s": 1}}
