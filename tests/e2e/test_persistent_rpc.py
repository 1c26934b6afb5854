"""Persistent calls on a real node: every state, every protocol, across kill -9 (MQTT spec 5.1)."""

import contextlib
import http.client
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tbfast.model import mqtt as m
from tests.support.rpc_device import CALLS, WAIT_S, device
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire


def keep(server: Server, token: str, method: str = "m", mode: str = "twoway", **more: Any) -> str:
    """A persistent call; its id."""
    body = {"method": method, "persistent": True, "timeout": 60_000, **more}
    status, answer = server.rest("POST", f"/api/rpc/{mode}/{server.device_id(token)}", body)
    assert status == 200, answer
    return str(answer["rpcId"])


def show(server: Server, call_id: str) -> dict[str, Any]:
    status, body = server.rest("GET", f"/api/rpc/persistent/{call_id}")
    assert status == 200, body
    found: dict[str, Any] = body
    return found


def reaches(server: Server, call_id: str, status: str) -> dict[str, Any]:
    wait_until(
        lambda: show(server, call_id)["status"] == status, WAIT_S, f"the call becomes {status}"
    )
    return show(server, call_id)


def page(server: Server, token: str, **query: Any) -> Any:
    asked = {"pageSize": 100, "page": 0, **query}
    words = "&".join(f"{name}={value}" for name, value in asked.items())
    return server.rest("GET", f"/api/rpc/persistent/device/{server.device_id(token)}?{words}")


def names(answer: tuple[int, Any]) -> list[str]:
    status, body = answer
    assert status == 200, body
    return [call["request"]["body"]["method"] for call in body["data"]]


@pytest.mark.parametrize("version", [4, 5])
def test_every_state_of_a_call_that_is_answered(server: Server, token: str, version: int) -> None:
    call_id = keep(server, token, "setGpio", params={"pin": 7}, additionalInfo={"why": "test"})
    queued = show(server, call_id)
    device_id = {"entityType": "DEVICE", "id": server.device_id(token)}
    assert queued.pop("createdTime") + 60_000 == queued["expirationTime"]
    assert queued == {
        "id": {"entityType": "RPC", "id": call_id},
        "tenantId": queued["tenantId"],
        "deviceId": device_id,
        "expirationTime": queued["expirationTime"],
        "request": {
            "id": call_id,
            "tenantId": queued["tenantId"],
            "deviceId": device_id,
            "oneway": False,
            "expirationTime": queued["expirationTime"],
            "body": {"method": "setGpio", "params": '{"pin":7}'},
            "persisted": True,
            "retries": None,
        },
        "response": None,
        "status": "QUEUED",
        "additionalInfo": {"why": "test"},
    }
    with device(server, token, version) as one:
        call = one.call()
        assert call.topic == CALLS + "0"
        assert call.payload == b'{"method":"setGpio","params":{"pin":7}}'
        reaches(server, call_id, "SENT")
        one.acknowledge(call)
        reaches(server, call_id, "DELIVERED")
        one.answer(call, b'{"ok":true}')
        # The PUBACK of the answer says that it is on disk.
        done = show(server, call_id)
        assert (done["status"], done["response"]) == ("SUCCESSFUL", {"ok": True})
        one.answer(call, b'{"ok":false}')
        assert show(server, call_id) == done


def test_answers_that_are_not_json_are_kept_as_errors(server: Server, token: str) -> None:
    with device(server, token, qos=0) as one:
        for body, response in (
            (b"not json", {"error": "not json"}),
            (b'"text"', "text"),
            (b"\xff", {"error": "\ufffd"}),
            (b"[" * 60_000, {"error": "[" * 60_000}),
        ):
            call_id = keep(server, token)
            call = one.call()
            reaches(server, call_id, "DELIVERED")
            one.answer(call, body)
            found = show(server, call_id)
            assert (found["status"], found["response"]) == ("SUCCESSFUL", response)


def test_a_one_way_call_ends_when_it_is_delivered(server: Server, token: str) -> None:
    with device(server, token) as one:
        call_id = keep(server, token, mode="oneway")
        call = one.call()
        one.acknowledge(call)
        found = reaches(server, call_id, "DELIVERED")
        one.answer(call, b"1")
        assert show(server, call_id) == found
        # While its PUBACK is missing an answer counts.
        early = keep(server, token, mode="oneway")
        call = one.call()
        reaches(server, early, "SENT")
        one.answer(call, b"2")
        assert show(server, early)["status"] == "SUCCESSFUL"


def test_a_call_over_http(server: Server, token: str) -> None:
    call_id = keep(server, token, "first")
    second = keep(server, token, "second", mode="oneway")

    def poll() -> tuple[int, Any]:
        path = f"/api/v1/{token}/rpc?timeout=500"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port)) as peer:
            peer.request("GET", path)
            answer = peer.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None

    assert poll() == (200, {"id": 0, "method": "first", "params": None})
    assert poll() == (200, {"id": 1, "method": "second", "params": None})
    reaches(server, second, "DELIVERED")
    # Nothing else is pending: the kept one that is not answered comes again.
    assert poll() == (200, {"id": 0, "method": "first", "params": None})
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port)) as peer:
        peer.request("POST", f"/api/v1/{token}/rpc/0", "text")
        assert peer.getresponse().status == 200
    assert show(server, call_id)["response"] == {"error": "text"}
    assert poll() == (408, None)


def test_a_call_expires(server: Server, token: str) -> None:
    call_id = keep(server, token, expirationTime=int(time.time() * 1000) + 300)
    assert reaches(server, call_id, "EXPIRED")["response"] is None
    past = {"method": "m", "persistent": True, "expirationTime": 1}
    path = f"/api/rpc/twoway/{server.device_id(token)}"
    assert server.rest("POST", path, past) == (504, None)
    with device(server, token) as one:
        last = keep(server, token, "last")
        assert b'"last"' in one.call().payload
        server.rest("DELETE", f"/api/rpc/persistent/{last}")


def test_deleting_withdraws(server: Server, token: str) -> None:
    calls = [keep(server, token, name) for name in ("a", "b")]
    assert server.rest("DELETE", f"/api/rpc/persistent/{calls[0]}") == (200, None)
    assert server.rest("GET", f"/api/rpc/persistent/{calls[0]}")[0] == 404
    assert server.rest("DELETE", f"/api/rpc/persistent/{calls[0]}")[0] == 404
    with device(server, token) as one:
        call = one.call()
        assert (call.topic, b'"b"' in call.payload) == (CALLS + "1", True)


def test_lists(server: Server, token: str) -> None:
    for name in ("beta", "alpha", "gamma"):
        keep(server, token, name, params={"name": name})
    with device(server, token, qos=0) as one:
        call = one.call()
        one.answer(call, b"1")
    assert names(page(server, token)) == ["beta", "alpha", "gamma"]
    assert names(page(server, token, sortOrder="DESC")) == ["gamma", "alpha", "beta"]
    by_request = page(server, token, sortProperty="request", pageSize=2)
    assert names(by_request) == ["alpha", "beta"]
    assert by_request[1] | {"data": 0} == {
        "data": 0, "totalPages": 2, "totalElements": 3, "hasNext": True,
    }  # fmt: skip
    assert names(page(server, token, rpcStatus="SUCCESSFUL")) == ["beta"]
    assert names(page(server, token, textSearch="ALPH")) == ["alpha"]
    for property in ("createdTime", "expirationTime", "response", "status"):
        assert len(names(page(server, token, sortProperty=property))) == 3
    assert page(server, token, rpcStatus="DELETED")[0] == 400
    assert page(server, token, rpcStatus="LOST")[0] == 400
    assert page(server, token, sortProperty="method")[0] == 400


def test_a_request_uuid_makes_one_call(server: Server, token: str) -> None:
    wanted = str(uuid.uuid4())
    assert keep(server, token, "m", requestUUID=wanted) == wanted
    assert keep(server, token, "m", requestUUID=wanted) == wanted
    body = {"method": "other", "persistent": True, "requestUUID": wanted}
    path = f"/api/rpc/twoway/{server.device_id(token)}"
    assert server.rest("POST", path, body)[0] == 409
    assert server.rest("POST", path, body | {"requestUUID": "x"})[0] == 400
    assert len(names(page(server, token))) == 1


def test_numbers_and_booleans_may_be_texts(server: Server, token: str) -> None:
    """As ThingsBoard reads them; null is as if the member were missing."""
    path = f"/api/rpc/twoway/{server.device_id(token)}"
    texts = {"persistent": "true", "timeout": "7000", "retries": "3", "expirationTime": None}
    status, kept = server.rest("POST", path, {"method": "m", "params": "5", **texts})
    assert status == 200
    _, shown = server.rest("GET", f"/api/rpc/persistent/{kept['rpcId']}")
    assert shown["expirationTime"] - shown["createdTime"] == 7000
    assert shown["request"]["retries"] == 3
    assert shown["request"]["body"] == {"method": "m", "params": '"5"'}
    past = {"method": "m", "persistent": None, "expirationTime": "1"}
    assert server.rest("POST", path, past) == (504, None)


def test_hostile_sizes(server: Server, token: str) -> None:
    path = f"/api/rpc/twoway/{server.device_id(token)}"
    body = {"method": "m", "persistent": True}
    for hostile in (
        {"params": "x" * 65_536},
        {"method": "m" * 65_537},
        {"additionalInfo": {"x": "y" * 4_096}},
        {"timeout": 1 << 62},
        {"expirationTime": 1 << 62},
        {"retries": "many"},
        {"requestUUID": "x" * 1_000},
        {"method": " "},
    ):
        status, envelope = server.rest("POST", path, body | hostile)
        assert (status, envelope["errorCode"]) == (400, 31), hostile
    assert server.rest("GET", "/api/rpc/persistent/x")[0] == 400
    for _ in range(100):
        keep(server, token)
    assert server.rest("POST", path, body)[0] == 503
    assert page(server, token)[1]["totalElements"] == 100
    with device(server, token, qos=0) as one:
        for number in range(100):
            call = one.call()
            assert call.topic == f"{CALLS}{number}"
            one.answer(call, b"%d" % number)
    assert names(page(server, token, rpcStatus="SUCCESSFUL")) == ["m"] * 100


def test_a_call_longer_than_the_device_takes_fails(server: Server, token: str) -> None:
    with Wire(server.mqtt_port, version=5) as wire:
        wire.open(token, properties=m.Properties(maximum_packet_size=200))
        wire.send(m.Subscribe(1, (m.Subscription(CALLS + "+", 1),)))
        assert isinstance(wire.receive(), m.Suback)
        call_id = keep(server, token, params="x" * 200)
        assert "longer" in reaches(server, call_id, "FAILED")["response"]["error"]


def test_the_device_takes_its_calls_along(server: Server) -> None:
    token = server.add_device("leaves")
    calls = [keep(server, token, str(number)) for number in range(3)]
    server.remove_device(token)
    for call_id in calls:
        wait_until(lambda id=call_id: server.rest("GET", f"/api/rpc/persistent/{id}")[0] == 404)


# --- settings --------------------------------------------------------------------------------


def test_retries_end(own_server_with: Any) -> None:
    server = own_server_with(MQTT__TIMEOUT="100", ACTORS__RPC__MAX_RETRIES="2")
    token = server.add_device("d")
    call_id = keep(server, token)
    with device(server, token) as one:
        for _ in range(2):
            call = one.call()
            assert call.topic == CALLS + "0"
            reaches(server, call_id, "TIMEOUT")
            one.subscribe()
        one.call()
        found = reaches(server, call_id, "FAILED")
    assert found["response"] == {
        "error": "There was a Timeout and all retry attempts have been exhausted. "
        "Retry attempts set: 2"
    }
    none = keep(server, token, retries=0)
    with device(server, token) as one:
        one.call()
        assert "set: 0" in reaches(server, none, "FAILED")["response"]["error"]


def test_a_session_that_does_not_acknowledge_is_closed(own_server_with: Any) -> None:
    server = own_server_with(
        MQTT__TIMEOUT="100", ACTORS__RPC__CLOSE_SESSION_ON_RPC_DELIVERY_TIMEOUT="true"
    )
    token = server.add_device("d")
    call_id = keep(server, token, retries=0)
    with device(server, token, version=5) as one:
        one.call()
        packets = one.wire.expect_close(WAIT_S)
        assert [p.reason_code for p in packets if isinstance(p, m.Disconnect)] == [0x98]
    reaches(server, call_id, "QUEUED")
    with device(server, token) as one:
        call = one.call()
        one.acknowledge(call)
        one.answer(call, b"1")
        assert show(server, call_id)["status"] == "SUCCESSFUL"


def test_one_after_the_other_on_acknowledgement(own_server_with: Any) -> None:
    server = own_server_with(
        MQTT__TIMEOUT="300", ACTORS__RPC__SUBMIT_STRATEGY="SEQUENTIAL_ON_ACK_FROM_DEVICE"
    )
    token = server.add_device("d")
    calls = [keep(server, token, str(number)) for number in range(3)]
    with device(server, token) as one:
        first = one.call()
        again = one.call()  # not acknowledged in time: the same one again, by itself
        assert first.topic == again.topic == CALLS + "0"
        one.acknowledge(again)
        for number in (1, 2):
            call = one.call()
            assert call.topic == f"{CALLS}{number}"
            one.acknowledge(call)
        for call_id in calls:
            reaches(server, call_id, "DELIVERED")


def test_one_after_the_other_on_response(own_server_with: Any) -> None:
    server = own_server_with(
        ACTORS__RPC__SUBMIT_STRATEGY="SEQUENTIAL_ON_RESPONSE_FROM_DEVICE",
        ACTORS__RPC__RESPONSE_TIMEOUT_MS="1500",
    )
    token = server.add_device("d")
    calls = [keep(server, token, str(number)) for number in range(3)]
    with device(server, token) as one:
        for number in range(2):
            call = one.call()
            assert call.topic == f"{CALLS}{number}"
            one.acknowledge(call)
            reaches(server, calls[number], "DELIVERED")
            assert show(server, calls[number + 1])["status"] == "QUEUED"
            if number == 0:
                one.answer(call, b"0")
        last = one.call()  # the one before has failed by then
        assert show(server, calls[1])["response"] == {
            "error": "There was a timeout awaiting for RPC response from device."
        }
        one.answer(last, b"2")
    assert [show(server, call_id)["status"] for call_id in calls] == [
        "SUCCESSFUL", "FAILED", "SUCCESSFUL",
    ]  # fmt: skip


@pytest.fixture
def own_server_with() -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def start(workers: int = 1, **env: str) -> Server:
            named = {f"TBFAST_{name}": value for name, value in env.items()}
            return stack.enter_context(Server(workers=workers, env=named))

        yield start


def test_finished_calls_go_when_they_are_too_old(own_server_with: Any) -> None:
    server = own_server_with(RPC__KEPT_MS="1000")
    token = server.add_device("d")
    call_id = keep(server, token)
    with device(server, token, qos=0) as one:
        one.answer(one.call(), b"1")
        assert show(server, call_id)["status"] == "SUCCESSFUL"
    time_of = show(server, call_id)["createdTime"]
    wait_until(lambda: time.time() * 1000 > time_of + 1_000)
    kill_controller(server)  # it looks when it starts
    wait_until(lambda: server.rest("GET", f"/api/rpc/persistent/{call_id}")[0] == 404, WAIT_S)


# --- kill -9 ---------------------------------------------------------------------------------


def kill_controller(server: Server) -> None:
    killed = server.kill9("controller")

    def back() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(server.node()["pid"] != killed)
        return False

    wait_until(back, WAIT_S, "another controller")


def kill_worker(server: Server, number: int = 0) -> None:
    killed = server.kill9(f"worker-{number}")

    def back() -> bool:
        worker = server.node()["workers"][number]
        return worker["pid"] != killed and worker["state"] == "serving"

    wait_until(back, WAIT_S, "another worker")


@pytest.mark.parametrize("victim", ["controller", "worker"])
def test_calls_survive_in_every_state(own_server: Server, victim: str) -> None:
    server = own_server
    kill = kill_controller if victim == "controller" else kill_worker
    token = server.add_device("d")
    queued = keep(server, token, "queued")
    kill(server)
    assert show(server, queued)["status"] == "QUEUED"

    with device(server, token) as one:  # SENT: it comes again, by itself or on SUBSCRIBE
        call = one.call()
        assert call.topic == CALLS + "0"
        reaches(server, queued, "SENT")
        kill(server)
        if victim == "controller":
            call = one.call()
            assert call.topic == CALLS + "0"
            one.acknowledge(call)
            reaches(server, queued, "DELIVERED")
    with device(server, token) as one:  # DELIVERED: on SUBSCRIBE only
        call = one.call()
        assert call.topic == CALLS + "0"
        one.acknowledge(call)
        reaches(server, queued, "DELIVERED")
        kill(server)
        if victim == "controller":
            one.answer(call, b"1")
            assert show(server, queued)["status"] == "SUCCESSFUL"
        else:
            with device(server, token) as again:
                call = again.call()
                again.answer(call, b"1")
                assert show(server, queued)["status"] == "SUCCESSFUL"
    kill(server)
    assert show(server, queued)["response"] == 1
    following = keep(server, token, "following")
    with device(server, token) as one:
        call = one.call()
        assert b"following" in call.payload
        one.acknowledge(call)
        one.answer(call, b"2")
    assert show(server, following)["status"] == "SUCCESSFUL"


def test_numbers_go_on_after_a_restart(own_server: Server) -> None:
    server = own_server
    token = server.add_device("d")
    kept = [keep(server, token, str(number)) for number in range(3)]
    server.rest("DELETE", f"/api/rpc/persistent/{kept[0]}")
    kill_controller(server)
    kept.append(keep(server, token, "3"))
    with device(server, token, qos=0) as one:
        calls = [one.call() for _ in range(3)]
        assert [(c.topic[-1], json.loads(c.payload)["method"]) for c in calls] == [
            ("1", "1"), ("2", "2"), ("3", "3"),
        ]  # fmt: skip


def test_an_overdue_call_stays_overdue_across_a_restart(own_server_with: Any) -> None:
    server = own_server_with(MQTT__TIMEOUT="100")
    token = server.add_device("d")
    call_id = keep(server, token)
    with device(server, token) as one:
        one.call()
        reaches(server, call_id, "TIMEOUT")
        kill_controller(server)
        assert show(server, call_id)["status"] == "TIMEOUT"
        one.subscribe()
        call = one.call()
        one.acknowledge(call)
        reaches(server, call_id, "DELIVERED")


def test_calls_meet_a_device_on_any_worker(own_server_with: Any) -> None:
    server = own_server_with(workers=2)
    tokens = [server.add_device(f"d{number}") for number in range(8)]
    calls = {token: keep(server, token, token) for token in tokens}
    with contextlib.ExitStack() as stack:
        for token in tokens:
            for _ in range(2):  # the second session takes over, perhaps on the other worker
                one = stack.enter_context(device(server, token))
                call = one.call()
            assert token.encode() in call.payload
            one.acknowledge(call)
            one.answer(call, b"1")
            assert show(server, calls[token])["status"] == "SUCCESSFUL"
