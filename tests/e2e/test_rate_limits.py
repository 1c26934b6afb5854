"""Rate limits of the tenant profile on a node with two workers (MQTT spec 8.1, REST spec 13.3)."""

import contextlib
import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tbfast.model import mqtt as m
from tbfast.model.mqtt import ReasonCode
from tests.support.canaries import Canaries
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Closed, Wire

MESSAGES = "transportDeviceMsgRateLimit"
TELEMETRY_MESSAGES = "transportDeviceTelemetryMsgRateLimit"
POINTS = "transportDeviceTelemetryDataPointsRateLimit"
_numbers = iter(range(1, 1000))


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with Server(workers=2) as running:
        yield running


@pytest.fixture
def device(node: Server) -> Iterator[str]:
    """A new device; afterwards there are no limits."""
    yield node.add_device(f"limited-{next(_numbers)}")
    set_limits(node)


def profile_id(node: Server) -> str:
    return str(node.rest("GET", "/api/tenantProfileInfo/default")[1]["id"]["id"])


def set_limits(node: Server, **limits: str) -> dict[str, Any]:
    body = {
        "id": {"id": profile_id(node), "entityType": "TENANT_PROFILE"},
        "name": "Default",
        "profileData": {"configuration": {"type": "DEFAULT", **limits}},
    }
    status, answer = node.rest("POST", "/api/tenantProfile", body)
    assert status == 200, answer
    saved: dict[str, Any] = answer
    return saved


def post(
    node: Server, token: str, path: str = "telemetry", body: str = '{"n":1}'
) -> tuple[int, str | None, str]:
    """Status, Retry-After and message of a POST on a connection of its own."""
    return request(node, "POST", token, path, body)


def request(
    node: Server, method: str, token: str, path: str, body: str | None = None
) -> tuple[int, str | None, str]:
    """As `post`."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, f"/api/v1/{token}/{path}", body)
        answer = connection.getresponse()
        text = answer.read()
        message = json.loads(text)["message"] if answer.status == 429 else text.decode()
        return answer.status, answer.getheader("Retry-After"), message


def wire(node: Server, version: int = 4) -> Wire:
    return Wire(node.mqtt_port, version=version)


def refusals(node: Server, limit: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = re.search(rf'^tbfast_rate_limited_total{{limit="{limit}"}} (\d+)$', text, re.M)
    assert found is not None
    return int(found[1])


def plain(packet_id: int) -> m.Publish:
    return m.Publish(TELEMETRY, b'{"n":1}', 1, packet_id=packet_id)


def cold(packet_id: int) -> m.Publish:
    """Takes the session's path: an alias makes it unusual."""
    return m.Publish(
        TELEMETRY, b'{"n":1}', 1, packet_id=packet_id, properties=m.Properties(topic_alias=1)
    )


def spread(node: Server, device: str, version: int, messages: int) -> None:
    """Telemetry over many connections of both protocols, so that both workers get some."""
    for number in range(messages):
        if number % 2:
            assert post(node, device)[0] == 200
        else:
            with wire(node, version).open(device) as peer:
                peer.publish('{"n":1}', 1 + number)


# --- one bucket for everything --------------------------------------------------------------------


@pytest.mark.parametrize("publish", [plain, cold])
def test_mqtt_5_is_told_which_limit(node: Server, device: str, publish: Any) -> None:
    set_limits(node, **{TELEMETRY_MESSAGES: "20:600"})
    before = refusals(node, TELEMETRY_MESSAGES)
    spread(node, device, 5, 19)
    with wire(node, 5).open(device) as peer:
        # The 20th is accepted and acknowledged, the 21st ends the session without a PUBACK.
        peer.send(publish(7), publish(8), publish(9))
        puback, end = peer.expect_close()
    assert puback == m.Puback(7)
    assert isinstance(end, m.Disconnect)
    assert end.reason_code == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
    assert end.properties is not None
    reason = end.properties.reason_string or ""
    assert re.fullmatch(rf"{TELEMETRY_MESSAGES} 20:600 is used up; try again in \d+ s", reason)
    wait_until(
        lambda: refusals(node, TELEMETRY_MESSAGES) == before + 1, what="it is counted"
    )  # pages are cached
    assert len(node.values(device, "n")) <= 20  # one ms may hold several


def test_mqtt_3_is_closed_without_a_puback(node: Server, device: str) -> None:
    set_limits(node, **{TELEMETRY_MESSAGES: "20:600"})
    spread(node, device, 4, 20)
    with wire(node).open(device) as peer:
        peer.send(plain(9))
        assert peer.expect_close() == []


@pytest.mark.parametrize("content_type", [None, "application/json"])
def test_http_answers_429(node: Server, device: str, content_type: str | None) -> None:
    set_limits(node, **{TELEMETRY_MESSAGES: "20:600"})
    spread(node, device, 4, 20)
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)
    with contextlib.closing(connection):
        headers = {} if content_type is None else {"Content-Type": content_type, "Expect": ""}
        for _ in range(3):  # on one connection: it goes on
            connection.request("POST", f"/api/v1/{device}/telemetry", '{"n":1}', headers)
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert (answer.status, body["errorCode"]) == (429, 33)
            retry = answer.getheader("Retry-After")
            assert retry is not None
            assert 1 <= int(retry) <= 30
            assert body["message"] == (
                f"{TELEMETRY_MESSAGES} 20:600 is used up; try again in {retry} s"
            )
        connection.request("GET", f"/api/v1/{device}/attributes")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, "requests have another limit"


@pytest.mark.parametrize("kind", ["firmware", "software"])
def test_downloads_count_as_messages(node: Server, device: str, kind: str) -> None:
    """Also those of a package that the device does not have."""
    set_limits(node, **{MESSAGES: "2:600"})
    path = f"{kind}?title=t&version=1"
    answers = [request(node, "GET", device, path) for _ in range(3)]
    assert [status for status, _, _ in answers] == [404, 404, 429]
    _, retry, message = answers[-1]
    assert retry is not None and 0 < int(retry) <= 600
    assert MESSAGES in message and "2:600" in message
    set_limits(node)
    assert request(node, "GET", device, path)[0] == 404


def test_other_devices_are_not_disturbed(node: Server, device: str) -> None:
    with Canaries(node, 5) as canaries:
        set_limits(node, **{TELEMETRY_MESSAGES: "40:1"})  # for them as well, and more than enough
        for _ in range(3):
            with wire(node).open(device) as peer, contextlib.suppress(OSError, Closed):
                peer.send(*(plain(number) for number in range(1, 400)))
                assert len(peer.expect_close()) < 399
        canaries.check()


# --- what counts, and what is refused how ---------------------------------------------------------


def test_connects_and_requests_count_as_messages(node: Server, device: str) -> None:
    set_limits(node, **{MESSAGES: "4:600"})
    with wire(node, 5).open(device) as peer:  # the first
        peer.send(m.Publish("v1/devices/me/attributes/request/1", b"{}", 1, packet_id=1))  # 2
        peer.expect(m.Puback(1))
        peer.receive()
        for _ in range(8):  # free
            peer.publish('{"n":1}', 2)
            peer.ping()
        peer.send(m.Publish("v1/devices/me/telemetry", b"{}", 1, packet_id=3))  # 3: no values
        peer.expect(m.Puback(3))
        assert post(node, device, "claim", "{}")[0] != 429  # 4
        assert post(node, device, "claim", "{}")[2].startswith(f"{MESSAGES} 4:600 is used up")
        peer.send(m.Publish("v1/devices/me/rpc/request/1", b'{"method":"a","params":{}}', 1,
                            packet_id=4))  # fmt: skip
        [end] = peer.expect_close()
        assert isinstance(end, m.Disconnect)
        assert end.reason_code == ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR


@pytest.mark.parametrize(("version", "code"), [(4, 3), (5, 0x9F)])
def test_connect_is_refused_in_connack(node: Server, device: str, version: int, code: int) -> None:
    set_limits(node, **{MESSAGES: "1:600"})
    with wire(node, version).open(device):
        pass
    with wire(node, version) as peer:
        answer = peer.connect(device)
        assert answer.reason_code == code
        if version == 5:
            assert answer.properties is not None
            assert f"{MESSAGES} 1:600 is used up" in (answer.properties.reason_string or "")
        peer.expect_close()


def test_a_subscription_over_the_limit_is_granted_and_silent(node: Server, device: str) -> None:
    set_limits(node, **{MESSAGES: "2:600"})
    with wire(node, 5).open(device) as peer:
        attributes = m.Subscription("v1/devices/me/attributes", 1)
        calls = m.Subscription("v1/devices/me/rpc/request/+", 1)
        answers = m.Subscription("v1/devices/me/rpc/response/+", 1)  # free
        peer.send(m.Subscribe(1, (answers, attributes, calls)))
        peer.expect(m.Suback(1, (1, 1, 1)))
        node.save_attributes(device, "SHARED_SCOPE", {"a": 1})
        pushed = peer.receive()
        assert isinstance(pushed, m.Publish)
        assert pushed.topic == "v1/devices/me/attributes"
        status, _ = node.rest(
            "POST", f"/api/rpc/oneway/{node.device_id(device)}",
            {"method": "a", "params": {}, "timeout": 1000},
        )  # fmt: skip
        assert status != 200
        peer.ping()


def test_more_points_than_the_bucket_never_pass(node: Server, device: str) -> None:
    set_limits(node, **{POINTS: "3:600"})
    status, retry, message = post(node, device, body='{"a":1,"b":2,"c":3,"d":4}')
    assert (status, retry) == (429, None)
    assert message == f"{POINTS} 3:600 never allows 4 data points at once"
    assert post(node, device, "attributes", '{"a":1,"b":2}')[0] == 200
    assert post(node, device, body='{"a":1}')[0] == 200
    assert post(node, device, body='{"a":2}')[0] == 429
    assert node.values(device, "d") == []


# --- changing them --------------------------------------------------------------------------------


def test_a_change_holds_for_the_next_message(node: Server, device: str) -> None:
    peers = [wire(node) for _ in range(4)]  # whichever workers they meet
    names = [device, *(node.add_device(f"limited-{next(_numbers)}") for _ in range(3))]
    with contextlib.ExitStack() as stack:
        for peer, name in zip(peers, names, strict=True):
            stack.enter_context(peer).open(name)
        for capacity in (2, 1, 3):
            set_limits(node, **{TELEMETRY_MESSAGES: f"{capacity}:600,1000:60000"})
            for peer in peers:
                for number in range(capacity):
                    peer.publish('{"n":1}', 1 + number)
        for peer in peers:
            peer.send(plain(9))
            assert peer.expect_close() == []
    set_limits(node)
    for name in names:
        assert post(node, name)[0] == 200


def test_limits_survive_the_controller_and_workers(device: str) -> None:
    with Server(workers=2) as own:
        name = own.add_device("limited")
        set_limits(own, **{TELEMETRY_MESSAGES: "4:600"})
        assert post(own, name)[0] == 200
        for process in ("controller", "worker-0", "worker-1"):
            gone = own.kill9(process)
            wait_until(lambda: _restarted(own, process, gone), 30, f"{process} is back")  # noqa: B023
            wait_until(lambda: post(own, name)[0] != 503, 30, "the node serves")
        assert post(own, name)[0] == 429, "buckets are the node's, not a process's"
        assert own.stop() == 0
        own.start()
        assert [post(own, name)[0] for _ in range(5)] == [200] * 4 + [429]


def _restarted(own: Server, process: str, gone: int) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        workers = own.node()["workers"]
        return own.pids()[process] != gone and all(w["state"] == "serving" for w in workers)
    return False


def test_the_profile_over_rest(node: Server, device: str) -> None:
    id = profile_id(node)
    saved = set_limits(node, **{MESSAGES: "20:600", "transportGatewayMsgRateLimit": "10:1"})
    configuration = saved["profileData"]["configuration"]
    assert configuration[MESSAGES] == "20:600"
    assert configuration["transportTenantMsgRateLimit"] is None
    assert configuration["maxDevices"] == 0
    assert node.rest("GET", f"/api/tenantProfile/{id}") == (200, saved)
    assert node.rest("POST", "/api/tenantProfile", saved | {"version": 0})[0] == 409
    bad = saved | {"profileData": {"configuration": {"type": "DEFAULT", MESSAGES: "20"}}}
    status, refusal = node.rest("POST", "/api/tenantProfile", bad)
    assert (status, refusal["errorCode"]) == (400, 31)
    assert refusal["message"].startswith(f"profileData.configuration.{MESSAGES}: '20' is not")
    assert node.rest("GET", f"/api/tenantProfile/{id}") == (200, saved)
    assert node.rest("GET", "/api/tenantProfile/" + "1" * 8 + id[8:])[0] == 404
    assert node.rest("GET", f"/api/tenant/info/{_tenant(node)}")[1]["tenantProfileId"]["id"] == id


def _tenant(node: Server) -> str:
    return str(node.rest("GET", "/api/deviceProfileInfo/default")[1]["tenantId"]["id"])


@pytest.mark.parametrize("gateway", [False, True])
def test_sessions_are_told_their_limits(node: Server, device: str, gateway: bool) -> None:
    id = node.device_id(device)
    if gateway:
        found = node.rest("GET", f"/api/device/{id}")[1]
        changed = found | {"additionalInfo": {"gateway": True}}
        assert node.rest("POST", "/api/device", changed)[0] == 200
    set_limits(
        node,
        **{
            MESSAGES: "200:1,6000:60",
            "transportGatewayDeviceTelemetryMsgRateLimit": "3:600",
            "transportGatewayMsgRateLimit": "10:1",
        },
    )
    with wire(node).open(device) as peer:
        asks = b'{"method":"getSessionLimits","params":{}}'
        peer.send(m.Publish("v1/devices/me/rpc/request/1", asks, 1, packet_id=1))
        peer.expect(m.Puback(1))
        answer = peer.receive()
        assert isinstance(answer, m.Publish)
        told = json.loads(answer.payload)
        unlimited = {"messages": None, "telemetryMessages": None, "telemetryDataPoints": None}
        if gateway:
            assert told["rateLimits"] == unlimited | {"telemetryMessages": "3:600"}
            assert told["gatewayRateLimits"] == unlimited | {"messages": "10:1"}
            for number in range(3):
                peer.publish('{"n":1}', 2 + number)
            peer.send(plain(9))
            assert peer.expect_close() == []
        else:
            assert told["rateLimits"] == unlimited | {"messages": "200:1,6000:60"}
            assert "gatewayRateLimits" not in told
