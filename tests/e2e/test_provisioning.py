"""Devices that register themselves, over MQTT and HTTP, on a real node (MQTT spec 6.2)."""

import http.client
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from tbfast.model import mqtt as m
from tests.support.google_messages import decode, encode
from tests.support.provisioning import provisioning_profile
from tests.support.server import Server
from tests.support.wire import Wire

REQUEST, RESPONSE = "/provision/request", "/provision/response"
FAILURE = {"errorMsg": "Failed to provision device!", "status": "FAILURE"}
NOT_FOUND = {"errorMsg": "Provision data was not found!", "status": "NOT_FOUND"}
CERTIFICATE = "MIIBdemo+base64/only=="

_numbers = itertools.count(1)

Ask = Callable[[Server, dict[str, Any]], Any]


def over_http(server: Server, body: dict[str, Any]) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    connection.request("POST", "/api/v1/provision", json.dumps(body))
    response = connection.getresponse()
    text = response.read()
    connection.close()
    assert response.status == 200, text
    return json.loads(text)


def over_mqtt(server: Server, body: dict[str, Any]) -> Any:
    with Wire(server.mqtt_port) as wire:
        assert wire.connect("provision", client_id="any").reason_code == 0
        wire.send(m.Subscribe(1, (m.Subscription(RESPONSE, 1),)))
        wire.expect(m.Suback(1, (1,)))
        wire.send(m.Publish(REQUEST, json.dumps(body).encode(), 1, packet_id=7))
        wire.expect(m.Puback(7))
        answer = wire.receive()
        assert isinstance(answer, m.Publish) and answer.topic == RESPONSE
        wire.send(m.Puback(answer.packet_id or 0))
        return json.loads(bytes(answer.payload))


@pytest.fixture(params=[over_http, over_mqtt], ids=["http", "mqtt"])
def ask(request: pytest.FixtureRequest) -> Ask:
    chosen: Ask = request.param
    return chosen


def profile(server: Server, strategy: str) -> dict[str, str]:
    """A new profile; the members of a request that its devices send."""
    return provisioning_profile(server, f"key-{next(_numbers)}", strategy)


def name() -> str:
    return f"provisioned-{next(_numbers)}"


def codes(packets: list[m.Packet]) -> list[int]:
    return [p.reason_code for p in packets if isinstance(p, m.Puback | m.Disconnect)]


def test_a_new_device_with_a_random_token(server: Server, ask: Ask) -> None:
    secrets, device = profile(server, "ALLOW_CREATE_NEW_DEVICES"), name()
    answer = ask(server, {**secrets, "deviceName": f"  {device} "})
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    token = answer["credentialsValue"]
    assert len(token) == 20 and token.isalnum()
    assert server.attributes(device, "SERVER_SCOPE")["provisionState"] == "provisioned"
    with Wire(server.mqtt_port) as wire:
        wire.open(token).publish('{"ts":1,"values":{"a":1}}')
    assert server.values(device, "a") == [1]
    assert ask(server, {**secrets, "deviceName": device}) == FAILURE  # the name exists
    assert ask(server, {**secrets, "deviceName": "   "}) == FAILURE
    unnamed = ask(server, secrets)
    assert unnamed["status"] == "SUCCESS" and unnamed["credentialsValue"] != token


def test_credentials_of_its_own(server: Server, ask: Ask) -> None:
    secrets = profile(server, "ALLOW_CREATE_NEW_DEVICES")
    token, device = name(), name()
    answer = ask(server, {**secrets, "deviceName": device, "token": token, "gateway": True})
    assert answer == {
        "credentialsValue": token, "credentialsType": "ACCESS_TOKEN", "status": "SUCCESS",
    }  # fmt: skip
    status, found = server.rest("GET", f"/api/device/{server.device_id(device)}")
    assert status == 200 and found["additionalInfo"]["gateway"] is True
    # A token that is taken: no device is made.
    other = name()
    assert ask(server, {**secrets, "deviceName": other, "token": token}) == FAILURE
    assert server.rest("GET", f"/api/tenant/devices?deviceName={other}")[0] == 404

    basic = {"credentialsType": "MQTT_BASIC", "username": name(), "password": "p"}
    answer = ask(server, {**secrets, "deviceName": name(), **basic})
    assert answer["credentialsValue"] == {
        "clientId": "", "userName": basic["username"], "password": "p",
    }  # fmt: skip
    with Wire(server.mqtt_port) as wire:
        fields = {"username": basic["username"], "password": b"p"}
        assert wire.connect(None, **fields).reason_code == 0

    certificate = f"{CERTIFICATE}{next(_numbers)}"
    x509 = {"credentialsType": "X509_CERTIFICATE", "hash": certificate}
    answer = ask(server, {**secrets, "deviceName": name(), **x509})
    assert answer["credentialsValue"] == certificate
    # Members that are null are not given, as ThingsBoard's SDK sends them.
    nothing = {"username": None, "hash": None, "gateway": None, "deviceName": None}
    answer = ask(server, {**secrets, **nothing, "token": name(), "credentialsType": None})
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    # No credentials are given: the type does not matter.
    answer = ask(server, {**secrets, "deviceName": name(), "credentialsType": "MQTT_BASIC"})
    assert answer["credentialsType"] == "ACCESS_TOKEN"


def test_devices_that_are_registered_before(server: Server, ask: Ask) -> None:
    secrets, device = profile(server, "CHECK_PRE_PROVISIONED_DEVICES"), name()
    assert ask(server, {**secrets, "deviceName": device}) == FAILURE
    other = server.add_device(name())
    assert ask(server, {**secrets, "deviceName": other}) == FAILURE  # of another profile
    _, created = server.rest(
        "POST", "/api/device?accessToken=" + device,
        {"name": device, "type": "profile " + secrets["provisionDeviceKey"]},
    )  # fmt: skip
    assert created["name"] == device
    answer = ask(server, {**secrets, "deviceName": device, "token": "ignored"})
    assert answer["credentialsValue"] == device
    assert ask(server, {**secrets, "deviceName": device}) == FAILURE  # once only
    server.delete_attributes(device, "SERVER_SCOPE", "provisionState")
    assert ask(server, {**secrets, "deviceName": device})["status"] == "SUCCESS"


def test_wrong_keys(server: Server, ask: Ask) -> None:
    secrets = profile(server, "ALLOW_CREATE_NEW_DEVICES")
    disabled = profile(server, "DISABLED")
    for wrong in (
        {**secrets, "provisionDeviceKey": "unknown"},
        {**secrets, "provisionDeviceSecret": "wrong"},
        {**secrets, "provisionDeviceSecret": ""},
        {"provisionDeviceKey": "", "provisionDeviceSecret": ""},
        disabled,
    ):
        assert ask(server, {**wrong, "deviceName": name()}) == NOT_FOUND


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"provisionDeviceKey":"k"}', 400),
        (b'{"provisionDeviceKey":"k","provisionDeviceSecret":null}', 400),
        (b'{"provisionDeviceKey":"k","provisionDeviceSecret":"s","credentialsType":"X"}', 400),
        (b'{"provisionDeviceKey":"k","provisionDeviceSecret":{"a":1}}', 400),
    ],
)
def test_bad_requests_over_http(server: Server, body: bytes, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    connection.request("POST", "/api/v1/provision", body)
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.parametrize("version", [4, 5])
def test_bad_requests_over_mqtt(server: Server, version: int) -> None:
    for payload, code in (
        (b"\xff no JSON", 0x99),
        (b"{}", 0x83),
        (b'{"provisionDeviceKey":1}', 0x83),
    ):
        with Wire(server.mqtt_port, version=version) as wire:
            assert wire.connect("any", client_id="provision").reason_code == 0
            wire.send(m.Publish(REQUEST, payload, 1, packet_id=1))
            if version == 5 and code == 0x99:
                answer = wire.receive()
                assert isinstance(answer, m.Puback) and answer.reason_code == code
                wire.ping()  # it stays
            else:
                wire.expect_close()


def test_what_else_a_provisioning_client_may_do(server: Server) -> None:
    with Wire(server.mqtt_port, version=5) as wire:
        assert wire.connect("provision").reason_code == 0
        wire.send(
            m.Subscribe(
                3, (m.Subscription(RESPONSE, 0), m.Subscription("v1/devices/me/attributes", 1))
            )
        )
        wire.expect(m.Suback(3, (0, 0x8F)))
        wire.ping()
        wire.send(m.Unsubscribe(4, (RESPONSE,)))
        wire.expect(m.Unsuback(4, (0,)))
        wire.send(m.Publish("v1/devices/me/telemetry", b'{"a":1}', 1, packet_id=5))
        packets = wire.expect_close()
    assert [type(p) for p in packets] == [m.Puback, m.Disconnect]
    assert [p.reason_code for p in packets if isinstance(p, m.Puback | m.Disconnect)] == [
        0x90,
        0x90,
    ]


def test_several_requests_and_no_subscription(server: Server) -> None:
    """As real clients do: QoS 0, nothing subscribed, more than one request at once."""
    secrets = profile(server, "ALLOW_CREATE_NEW_DEVICES")
    names = [name() for _ in range(3)]
    with Wire(server.mqtt_port) as wire:
        assert wire.connect("provision").reason_code == 0
        for one in names:
            body = json.dumps({**secrets, "deviceName": one}).encode()
            wire.send(m.Publish(REQUEST, body, 0))
        answers = [wire.receive() for _ in names]
    assert all(isinstance(a, m.Publish) and a.qos == 1 for a in answers)
    tokens = {json.loads(bytes(a.payload))["credentialsValue"] for a in answers}
    assert len(tokens) == 3


def test_a_certificate_profile_is_not_for_this(server: Server) -> None:
    chain = "-----BEGIN CERTIFICATE-----\nMIIBroot\n-----END CERTIFICATE-----"
    body = {
        "name": f"chain {next(_numbers)}",
        "transportType": "DEFAULT",
        "provisionType": "X509_CERTIFICATE_CHAIN",
        "profileData": {
            "provisionConfiguration": {
                "type": "X509_CERTIFICATE_CHAIN",
                "provisionDeviceSecret": chain,
                "certificateRegExPattern": "(.*)",
                "allowCreateNewDevicesByX509Certificate": True,
            }
        },
    }
    status, made = server.rest("POST", "/api/deviceProfile", body)
    assert status == 200, made
    asked = {"provisionDeviceKey": made["provisionDeviceKey"], "provisionDeviceSecret": chain}
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    connection.request("POST", "/api/v1/provision", json.dumps(asked))
    assert connection.getresponse().status == 500
    connection.close()
    with Wire(server.mqtt_port, version=5) as wire:
        assert wire.connect("provision").reason_code == 0
        wire.send(m.Publish(REQUEST, json.dumps(asked).encode(), 1, packet_id=5))
        packets = wire.expect_close()
    assert [p.reason_code for p in packets if isinstance(p, m.Puback | m.Disconnect)] == [
        0x83,
        0x83,
    ]


# --- in Protobuf -----------------------------------------------------------------------------


def in_protobuf(secrets: dict[str, str], **members: Any) -> bytes:
    """A ProvisionDeviceRequestMsg by Google's library."""
    return encode("ProvisionDeviceRequestMsg", {"provisionDeviceCredentialsMsg": secrets} | members)


def ask_in_protobuf(wire: Wire, payload: bytes, qos: int = 1) -> dict[str, Any]:
    wire.send(m.Publish(REQUEST, payload, qos, packet_id=9 if qos else None))
    if qos:
        wire.expect(m.Puback(9))
    answer = wire.receive()
    assert isinstance(answer, m.Publish) and answer.topic == RESPONSE
    wire.send(m.Puback(answer.packet_id or 0))
    return decode("ProvisionDeviceResponseMsg", bytes(answer.payload))


def test_a_device_registers_in_protobuf(server: Server) -> None:
    secrets, device = profile(server, "ALLOW_CREATE_NEW_DEVICES"), name()
    with Wire(server.mqtt_port) as wire:
        wire.open("provision")
        answer = ask_in_protobuf(wire, in_protobuf(secrets, deviceName=device, gateway=True))
        assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
        token = answer["credentialsValue"]
        assert server.rest("GET", f"/api/device/{server.device_id(device)}")[1][
            "additionalInfo"
        ] == {"gateway": True}
        # The name exists; the answer to JSON comes in Protobuf from now on, too.
        again = json.dumps({**secrets, "deviceName": device}).encode()
        for payload in (in_protobuf(secrets, deviceName=device), again):
            assert ask_in_protobuf(wire, payload, 0) == {
                "status": "FAILURE", "credentialsType": "ACCESS_TOKEN", "credentialsValue": "",
            }  # fmt: skip
    with Wire(server.mqtt_port) as wire:
        wire.open(token).publish('{"ts":1,"values":{"a":1}}')
    assert server.values(device, "a") == [1]


def test_credentials_of_its_own_in_protobuf(server: Server) -> None:
    secrets = profile(server, "ALLOW_CREATE_NEW_DEVICES")
    user, certificate, token = name(), f"{CERTIFICATE}{next(_numbers)}", name()
    basic = {"clientId": "c", "userName": user, "password": "p"}
    for type_, member, value in (
        ("ACCESS_TOKEN", "validateDeviceTokenRequestMsg", {"token": token}),
        ("X509_CERTIFICATE", "validateDeviceX509CertRequestMsg", {"hash": certificate}),
        ("MQTT_BASIC", "validateBasicMqttCredRequestMsg", basic),
    ):
        payload = in_protobuf(
            secrets, deviceName=name(), credentialsType=type_, credentialsDataProto={member: value}
        )
        with Wire(server.mqtt_port) as wire:
            answer = ask_in_protobuf(wire.open("provision"), payload)
        assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", type_)
        got = answer["credentialsValue"]
        assert (json.loads(got) if type_ == "MQTT_BASIC" else got) in (basic, certificate, token)
    with Wire(server.mqtt_port) as wire:
        answer_of = wire.connect(user, client_id="c", password=b"p")
        assert answer_of.reason_code == 0


def test_protobuf_requests_that_are_refused(server: Server) -> None:
    secrets = profile(server, "ALLOW_CREATE_NEW_DEVICES")
    with Wire(server.mqtt_port, version=5) as wire:
        wire.open("provision")
        for payload in (b"", in_protobuf(secrets | {"provisionDeviceSecret": "wrong"})):
            assert ask_in_protobuf(wire, payload)["status"] == "NOT_FOUND"
        wire.send(m.Publish(REQUEST, in_protobuf(secrets)[:-1], 1, packet_id=2))  # cut short
        answer = wire.receive()
        assert isinstance(answer, m.Puback) and (answer.packet_id, answer.reason_code) == (2, 0x99)
        unknown_type = in_protobuf(secrets) + b"\x10\x2a"
        wire.send(m.Publish(REQUEST, unknown_type, 1, packet_id=3))
        assert codes(wire.expect_close()) == [0x83, 0x83]


@pytest.mark.parametrize("version", [4, 5])
def test_a_request_at_qos_2_registers_once(server: Server, version: int) -> None:
    secrets, device = profile(server, "ALLOW_CREATE_NEW_DEVICES"), name()
    body = json.dumps({**secrets, "deviceName": device}).encode()
    request = m.Publish(REQUEST, body, 2, packet_id=9)
    with Wire(server.mqtt_port, version=version) as wire:
        assert wire.connect("provision").reason_code == 0
        wire.send(request)
        wire.expect(m.Pubrec(9))
        answer = wire.receive()
        assert isinstance(answer, m.Publish)
        assert json.loads(bytes(answer.payload))["status"] == "SUCCESS"
        wire.send(request)  # its PUBREC seems lost: it is not acted on again
        wire.expect(m.Pubrec(9))
        wire.send(m.Pubrel(9))
        wire.expect(m.Pubcomp(9))
        wire.ping()
