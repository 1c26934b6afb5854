"""Devices of a Protobuf profile as an operator and the device see them: a real server."""

import threading
from typing import Any

import pytest

from tbfast.codec import tbproto
from tbfast.model import mqtt as m
from tests.support import proto_profiles as protos
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire


def profile(server: Server, name: str, **configuration: Any) -> str:
    """A new MQTT profile; its id."""
    status, made = server.rest("POST", "/api/deviceProfile", body(name, **configuration))
    assert status == 200, made
    return str(made["id"]["id"])


def body(name: str, **configuration: Any) -> dict[str, Any]:
    transport = {
        "type": "MQTT", "transportPayloadTypeConfiguration": protos.CONFIGURATION, **configuration,
    }  # fmt: skip
    return {
        "name": name,
        "type": "DEFAULT",
        "transportType": "MQTT",
        "profileData": {"transportConfiguration": transport},
    }


def device(server: Server, name: str, profile_id: str) -> str:
    """A new device of the profile; its token."""
    made = {"name": name, "deviceProfileId": {"entityType": "DEVICE_PROFILE", "id": profile_id}}
    status, answer = server.rest("POST", f"/api/device?accessToken={name}", made)
    assert status == 200, answer
    return name


@pytest.fixture
def node() -> Any:
    with Server() as running:
        yield running


def test_a_protobuf_device(node: Server) -> None:
    kind = profile(node, "protobuf", deviceTelemetryTopic="plant/data")
    token = device(node, "meter", kind)
    with Wire(node.mqtt_port).open(token) as wire:
        reading = protos.made(protos.TELEMETRY, temperature=21.5, inner_object={"key4": 7})
        wire.publish(reading, 1, "plant/data")
        wire.publish(protos.made(protos.TELEMETRY, humidity=60.0), 2, "v2/t")
        wire.publish(protos.made(protos.ATTRIBUTES, firmware="1.0b"), 3, "v2/a/p")
        wait_until(lambda: node.values(token, "humidity") == [60.0], 10, "stored")
        assert node.values(token, "temperature") == [21.5]
        assert node.values(token, "innerObject") == [{"key4": 7}]
        wait_until(
            lambda: node.attributes(token, "CLIENT_SCOPE") == {"firmware": "1.0b"}, 10, "applied"
        )

        wire.send(m.Subscribe(4, (m.Subscription("v2/r/req/+", 0), m.Subscription("v2/a", 0))))
        wire.expect(m.Suback(4, (0, 0)))
        node.save_attributes(token, "SHARED_SCOPE", {"limit": 5})
        pushed = wire.receive()
        assert isinstance(pushed, m.Publish)
        [updated] = tbproto.decode("AttributeUpdateNotificationMsg", pushed.payload)[
            "sharedUpdated"
        ]
        assert (updated["kv"]["key"], updated["kv"]["longV"]) == ("limit", "5")

        answers: list[Any] = []
        params = {"pin": "23", "value": 1}
        caller = threading.Thread(
            target=lambda: answers.append(node.call(token, "twoway", "set", params))
        )
        caller.start()
        called = wire.receive()
        assert isinstance(called, m.Publish)
        call = protos.read(protos.RPC_REQUEST, called.payload)
        assert (call.method, call.params.pin, call.params.value) == ("set", "23", 1)
        answer = protos.made(protos.RPC_RESPONSE, payload="done")
        wire.publish(answer, 5, f"v2/r/res/{call.requestId}")
        caller.join(20)
        assert answers == [(200, {"payload": "done"})]

        status, failed = node.call(token, "twoway", "set", [1])
        assert (status, failed["result"]) == (200, "INVALID_ARGUMENTS")


def test_a_profile_with_a_bad_schema_is_refused_where_it_is_saved(node: Server) -> None:
    bad = {**protos.CONFIGURATION, "deviceTelemetryProtoSchema": 'syntax = "proto3";\nmessage T {'}
    wanted = body("bad", transportPayloadTypeConfiguration=bad)
    status, answer = node.rest("POST", "/api/deviceProfile", wanted)
    assert status == 400
    assert answer["message"].startswith("deviceTelemetryProtoSchema: line 2:")


def test_an_edited_schema_holds_on_open_connections(node: Server) -> None:
    kind = profile(node, "edited")
    token = device(node, "edited", kind)
    with Wire(node.mqtt_port).open(token) as wire:
        wire.publish(protos.made(protos.TELEMETRY, temperature=1.5), 1)
        saved = node.rest("GET", f"/api/deviceProfile/{kind}")[1]
        payload = saved["profileData"]["transportConfiguration"]
        payload["transportPayloadTypeConfiguration"]["deviceTelemetryProtoSchema"] = protos.TIMED
        assert node.rest("POST", "/api/deviceProfile", saved)[0] == 200

        def reads_the_new_one() -> bool:
            wire.publish(protos.made(protos.TIMED, ts=77, values={"level": 3}), 2)
            return node.values(token, "level") == [3]

        wait_until(reads_the_new_one, 10, "the new schema is in use")
