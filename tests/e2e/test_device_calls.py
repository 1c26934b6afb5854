"""Devices call the server: a webhook answers, or whoever fetches the calls, or nobody in time."""

import contextlib
import http.client
import http.server
import json
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tbfast.cli import client
from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire

REQUEST = "v1/devices/me/rpc/request/"
RESPONSE = "v1/devices/me/rpc/response/"


@contextlib.contextmanager
def caller(server: Server, token: str, version: int = 4) -> Iterator[Callable[..., Any]]:
    """call(id, method, params): what the device gets back, as text."""
    with Wire(server.mqtt_port, version=version, timeout_s=20.0).open(token) as wire:
        wire.send(m.Subscribe(1, (m.Subscription(RESPONSE + "+", 0),)))
        assert isinstance(wire.receive(), m.Suback)

        def call(number: int, method: str, params: Any = None) -> str:
            wire.publish(json.dumps({"method": method, "params": params}), 5, f"{REQUEST}{number}")
            answer = wire.receive()
            assert isinstance(answer, m.Publish)
            assert answer.topic == f"{RESPONSE}{number}"
            return bytes(answer.payload).decode()

        yield call


def http_call(server: Server, token: str, method: str, params: Any = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    with contextlib.closing(connection) as peer:
        body = json.dumps({"method": method, "params": params})
        peer.request("POST", f"/api/v1/{token}/rpc", body)
        answer = peer.getresponse()
        return answer.status, answer.read().decode()


class Webhook:
    """An operator's handler; `answers` maps a method to status and body."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.go = threading.Event()
        self.inside = 0
        self.most = 0
        lock = threading.Lock()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    hook.seen.append({**call, "type": self.headers["Content-Type"]})
                    hook.inside += 1
                    hook.most = max(hook.most, hook.inside)
                if call["method"] == "wait":
                    hook.go.wait(20)
                status, body = hook.answers.get(call["method"], (200, b"true"))
                with lock:
                    hook.inside -= 1
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                hook.seen.append({"redirected": self.path})

            def log_message(self, *_: object) -> None:
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/calls"
        self.thread = threading.Thread(target=self.httpd.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.go.set()
        self.httpd.shutdown()
        self.httpd.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    with contextlib.closing(Webhook()) as hook:
        yield hook


@pytest.fixture(scope="module")
def hooked(webhook: Webhook) -> Iterator[Server]:
    settings = {
        "TBFAST_RPC__WEBHOOK_URL": webhook.url,
        "TBFAST_RPC__WEBHOOK_TIMEOUT_MS": "5000",
        "http_proxy": "http://127.0.0.1:9",  # what it names must not get the calls
    }
    with Server(env=settings) as server:
        yield server


@pytest.mark.parametrize("version", [4, 5])
def test_a_webhook_answers(webhook: Webhook, hooked: Server, version: int) -> None:
    token = hooked.add_device(f"caller {version}", f"caller-{version}")
    webhook.answers["limits"] = (200, b'{"max": 1.50}')
    with caller(hooked, token, version) as call:
        assert call(77, "limits", {"of": [1]}) == '{"max": 1.50}'  # verbatim
        assert int(call(78, "getCurrentTime")) > 1_700_000_000_000
    assert webhook.seen[-1] == {
        "deviceName": f"caller {version}",
        "deviceId": hooked.device_id(f"caller {version}"),
        "method": "limits",
        "params": {"of": [1]},
        "requestId": 77,
        "type": "application/json",
    }
    assert http_call(hooked, token, "limits") == (200, '{"max": 1.50}')
    assert webhook.seen[-1]["requestId"] == 0


def test_a_webhook_that_does_not_answer_well(webhook: Webhook, hooked: Server) -> None:
    token = hooked.add_device("unlucky")
    failed = '{"error":"the handler of calls failed"}'
    with caller(hooked, token) as call:
        for number, answer in enumerate(
            ((302, b"{}"), (500, b"{}"), (200, b"no json"), (200, b""), (200, b'"%065536d"' % 0))
        ):
            webhook.answers["bad"] = answer
            assert call(number, "bad") == failed
        assert call(9, "good") == "true"
    assert "redirected" not in json.dumps(webhook.seen)
    assert http_call(hooked, token, "bad") == (200, failed)


def test_a_webhook_is_asked_a_bounded_number_of_times_at_once(
    webhook: Webhook, hooked: Server
) -> None:
    tokens = [hooked.add_device(f"many-{number}") for number in range(3)]
    answers: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda t=token: answers.append(http_call(hooked, t, "wait")))
        for token in tokens
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: webhook.inside == 16)
    webhook.go.set()
    for thread in threads:
        thread.join(20)
    assert answers == [(200, "true")] * 24
    assert webhook.most == 16


def test_calls_are_fetched_and_answered(server: Server, token: str) -> None:
    answers: list[Any] = []
    device = threading.Thread(
        target=lambda: answers.append(http_call(server, token, "ask", {"x": 1.50}))
    )
    device.start()
    status, call = server.rest("GET", "/api/rpc/calls?timeout=15000")
    call_id = call.pop("id")
    assert (status, call) == (
        200,
        {
            "deviceName": token, "deviceId": server.device_id(token), "method": "ask",
            "params": {"x": 1.5}, "requestId": 0,
        },
    )  # fmt: skip
    assert server.rest("GET", "/api/rpc/calls?timeout=0") == (204, None)  # handed out once
    with caller(server, token) as mqtt:
        device_too = threading.Thread(target=lambda: answers.append(mqtt(3, "other")))
        device_too.start()
        _, other = server.rest("GET", "/api/rpc/calls?timeout=15000")
        assert (other["method"], other["requestId"]) == ("other", 3)
        assert server.rest("POST", f"/api/rpc/calls/{other['id']}", "mine") == (200, None)
        device_too.join(20)
    assert answers == ['"mine"']
    assert server.rest("POST", f"/api/rpc/calls/{call_id}", {"y": 2}) == (200, None)
    device.join(20)
    assert answers[1:] == [(200, '{"y": 2}')]
    assert server.rest("POST", f"/api/rpc/calls/{call_id}", 1)[0] == 404
    assert server.rest("POST", "/api/rpc/calls/x", 1)[0] == 400
    assert server.rest("GET", "/api/rpc/calls?timeout=x")[0] == 400


Way = contextlib.AbstractContextManager[tuple[socket.socket, str]]


@contextlib.contextmanager
def socket_of_the_owner(server: Server) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(server.data_dir / client.SOCKET_NAME))
        yield peer, ""


@contextlib.contextmanager
def port_of_a_worker(server: Server) -> Iterator[tuple[socket.socket, str]]:
    """With a header that lets in."""
    address = f"leaver-{uuid.uuid4()}@example.org"
    user = {"email": address, "authority": "TENANT_ADMIN"}
    user_id = server.rest("POST", "/api/user", user)[1]["id"]["id"]
    token = server.rest("GET", f"/api/user/{user_id}/token")[1]["token"]
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as peer:
        yield peer, f"X-Authorization: Bearer {token}\r\n"
    assert server.rest("DELETE", f"/api/user/{user_id}") == (200, None)


@pytest.mark.parametrize("way", [socket_of_the_owner, port_of_a_worker])
@pytest.mark.parametrize("before", [0, 2])  # requests: the worker passes later ones another way
def test_a_call_is_not_given_to_somebody_who_has_left(
    server: Server, token: str, way: Callable[[Server], Way], before: int
) -> None:
    with way(server) as (leaver, header):
        for timeout_ms in (0,) * before + (60_000,):
            line = f"GET /api/rpc/calls?timeout={timeout_ms} HTTP/1.1"
            leaver.sendall(f"{line}\r\nHost: x\r\n{header}\r\n".encode())
            if timeout_ms == 0:
                assert leaver.recv(4096).startswith(b"HTTP/1.1 204 ")
        assert server.rest("GET", "/api/rpc/calls?timeout=100") == (204, None)
    answers: list[Any] = []
    device = threading.Thread(target=lambda: answers.append(http_call(server, token, "ask")))
    device.start()
    _, call = server.rest("GET", "/api/rpc/calls?timeout=15000")
    assert server.rest("POST", f"/api/rpc/calls/{call['id']}", 1) == (200, None)
    device.join(20)
    assert answers == [(200, "1")]


def test_calls_that_nobody_answers() -> None:
    settings = {"CLIENT_SIDE_RPC_TIMEOUT": "300", "TBFAST_RPC__BUILTIN": "false"}
    with Server(env=settings) as server:
        token = server.add_device("d")
        with caller(server, token) as call:
            assert call(1, "getCurrentTime") == '{"error":"timeout"}'
        assert http_call(server, token, "x") == (200, '{"error":"timeout"}')
        # Given up: it is not handed out any more.
        assert server.rest("GET", "/api/rpc/calls?timeout=0") == (204, None)


def test_an_answer_that_is_not_json_is_refused(server: Server, token: str) -> None:
    answers: list[Any] = []
    device = threading.Thread(target=lambda: answers.append(http_call(server, token, "ask")))
    device.start()
    _, call = server.rest("GET", "/api/rpc/calls?timeout=15000")
    path = f"/api/rpc/calls/{call['id']}"
    assert server.rest("POST", path)[0] == 400  # empty
    assert server.rest("POST", path, "x" * 65_536)[0] == 400
    assert server.rest("POST", path, None)[0] == 400
    assert server.rest("POST", path, [None]) == (200, None)
    device.join(20)
    assert answers == [(200, "[null]")]
