"""The HTTP port on real sockets: what tools ask for, and what peers abuse (hostile-input 12)."""

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast.codec.http import Response
from tests.support.http_server import read_all, serve
from tests.support.waiting import wait_until

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/http_requests.json").read_text())
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def port():
    with serve() as running:
        yield running


@pytest.fixture
def client(port):
    connection = http.client.HTTPConnection(*port.address, timeout=10)
    yield connection
    connection.close()


def ask(client, method, path, body=None, headers=()):
    client.request(method, path, body, dict(headers))
    response = client.getresponse()
    return response, response.read()


def test_pages_on_one_kept_connection(port, client):
    response, body = ask(client, "GET", "/healthz")
    assert (response.status, body) == (200, b"ok\n")
    sock = client.sock
    slot = port.slot
    slot.end()
    response, body = ask(client, "GET", "/readyz")
    assert (response.status, body) == (503, b"worker-0 is not running\n")
    slot.begin(os.getpid())
    slot.add(words.CONNECTIONS_HTTP)  # the page was just cleared under this connection
    slot.put(words.HEALTH_LISTENING, 1)
    slot.put(words.HEALTH_JOURNAL_OPEN, 1)
    response, body = ask(client, "GET", "/readyz?verbose")
    assert (response.status, body) == (200, b"ready\n")
    response, body = ask(client, "GET", "/metrics")
    assert response.status == 200
    assert response.getheader("Content-Type", "").startswith("text/plain; version=0.0.4")
    assert b'tbfast_connections{protocol="http"} 1\n' in body
    assert client.sock is sock


def test_head_has_length_and_no_body(client):
    response, body = ask(client, "HEAD", "/healthz")
    assert (response.status, response.getheader("Content-Length"), body) == (200, "3", b"")


def test_unknown_path_gets_the_error_envelope(client):
    for method in ("GET", "POST", "DELETE"):
        response, body = ask(client, method, "/nothing/here", b"x" if method == "POST" else None)
        envelope = json.loads(body)
        assert response.status == 404
        assert envelope.keys() == {"status", "message", "errorCode", "timestamp"}
        assert (envelope["status"], envelope["errorCode"]) == (404, 32)
        assert abs(envelope["timestamp"] - time.time() * 1000) < 60_000


def test_known_path_with_another_method(client):
    response, _ = ask(client, "POST", "/metrics", b"{}")
    assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")


def test_body_is_read_and_ignored(client):
    response, body = ask(client, "GET", "/healthz", b"x" * limits.HTTP_BODY_BYTES)
    assert (response.status, body) == (200, b"ok\n")
    response, body = ask(client, "GET", "/healthz")
    assert (response.status, body) == (200, b"ok\n")


@pytest.mark.parametrize(
    "case", [c for c in VECTORS if isinstance(c["expect"][0], int)], ids=lambda c: c["name"]
)
def test_refused_requests_get_one_answer_and_a_close(port, case):
    wrong_port = case["clause"].endswith("N5")
    before = sum(port.slot.get(word) for word in range(words.REFUSED_HTTP, words.REFUSED_HTTP + 16))
    answer = port.exchange(case["in"].encode("latin-1"))
    assert answer.count(b"HTTP/1.1 ") == (0 if wrong_port else 1)
    if not wrong_port:
        assert answer.startswith(b"HTTP/1.1 %d " % case["expect"][0])
        assert b"\r\nConnection: close\r\n" in answer
    after = sum(port.slot.get(word) for word in range(words.REFUSED_HTTP, words.REFUSED_HTTP + 16))
    assert after == before + 1
    wait_until(lambda: port.connections == 0, what="connection is counted as closed")


def test_one_header_of_64_mb_is_refused_at_the_bound(port):
    refused = port.slot.get(words.REFUSED_HTTP + words.REASON_TOO_BIG)
    with port.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * limits.HTTP_HEAD_BYTES)
        wait_until(lambda: port.slot.get(words.REFUSED_HTTP + words.REASON_TOO_BIG) == refused + 1)
        # What follows is dropped, and only for a moment.
        with pytest.raises(ConnectionError):
            while True:
                sock.sendall(b"y" * 65_536)
        assert port.exchange(LAST).endswith(b"ok\n")
    wait_until(lambda: port.connections == 0)


def test_many_headers_and_a_long_target(port):
    flood = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"
    assert port.exchange(flood).startswith(b"HTTP/1.1 431 ")
    assert port.exchange(b"GET /" + b"a" * (1 << 20)).startswith(b"HTTP/1.1 414 ")


def test_announced_body_above_the_bound_is_refused_before_it_comes(port):
    with port.connect() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        answer = read_all(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_expect_continue(port):
    with port.connect() as sock:
        sock.sendall(
            b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hi")
        assert read_all(sock).startswith(b"HTTP/1.1 404 ")


def test_pipelined_requests_are_all_answered_in_order(port):
    count = 20_000
    with port.connect() as sock:
        sender = threading.Thread(target=sock.sendall, args=(GET * (count - 1) + LAST,))
        sender.start()
        answers = read_all(sock)
        sender.join()
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == count


def settled(count: Callable[[], int]) -> int:
    """What a counter says once it has not moved for a while."""
    known, since = count(), time.monotonic()
    ends = since + 20
    while time.monotonic() < min(ends, since + 0.2):
        time.sleep(0.01)
        if count() != known:
            known, since = count(), time.monotonic()
    return known


def test_pipelining_without_reading_does_not_grow_or_stall_others(port):
    before = port.slot.get(words.RECEIVED_BYTES_HTTP)
    with port.connect() as greedy:
        greedy.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 1 << 30:
                sent += greedy.send(GET * 2_000)
        for _ in range(2):
            started = time.monotonic()
            assert port.exchange(LAST).endswith(b"ok\n")
            assert time.monotonic() - started < 5
            received = settled(lambda: port.slot.get(words.RECEIVED_BYTES_HTTP)) - before
        # Reading from the greedy peer has stopped: the rest of it is still in the system's buffers.
        assert received - 2 * len(LAST) < sent
    wait_until(lambda: port.connections == 0)


def test_requests_before_a_half_close_are_answered(port):
    answers = port.exchange(GET * 40, shut=True)
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 40


def test_cut_anywhere_leaves_nothing_behind(port):
    request = (
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    )
    for size in range(len(request)):
        with port.connect() as sock:
            sock.sendall(request[:size])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    wait_until(lambda: port.connections == 0)
    assert port.exchange(LAST).endswith(b"ok\n")


# --- deadlines: shortened, the mechanism is the same ---------------------------------------------


def drip(sock: socket.socket, data: bytes, every_s: float) -> float:
    """Sends byte by byte until the server closes; returns for how long that took."""
    started = time.monotonic()
    sock.settimeout(every_s)
    for byte in data:
        try:
            sock.send(bytes((byte,)))
            if sock.recv(4096) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - started


def test_silent_connection_is_closed(monkeypatch):
    monkeypatch.setattr(limits, "HTTP_HEAD_TIMEOUT_MS", 200)
    with serve() as port, port.connect() as sock:
        assert read_all(sock) == b""
        assert port.slot.get(words.REFUSED_HTTP + words.REASON_TIMEOUT) == 1


@pytest.mark.parametrize(
    ("limit", "start"),
    [
        ("HTTP_HEAD_TIMEOUT_MS", b""),
        ("HTTP_BODY_TIMEOUT_MS", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n"),
    ],
)
def test_progress_does_not_extend_a_deadline(monkeypatch, limit, start):
    monkeypatch.setattr(limits, limit, 400)
    with serve() as port, port.connect() as sock:
        sock.sendall(start)
        took = drip(sock, b"GET /" + b"a" * 5_000, every_s=0.02)
        assert took < 5
        wait_until(lambda: port.slot.get(words.REFUSED_HTTP + words.REASON_TIMEOUT) == 1)


def test_idle_connection_is_closed_quietly(monkeypatch):
    monkeypatch.setattr(limits, "HTTP_IDLE_TIMEOUT_MS", 200)
    with serve() as port, port.connect() as sock:
        sock.sendall(GET)
        assert read_all(sock).count(b"HTTP/1.1") == 1
        assert port.slot.get(words.REFUSED_HTTP + words.REASON_TIMEOUT) == 0


def test_a_peer_that_never_reads_is_disconnected(monkeypatch):
    monkeypatch.setattr(limits, "WRITE_TIMEOUT_MS", 300)
    with serve() as port, port.connect() as sock:
        sock.setblocking(False)
        with pytest.raises((BlockingIOError, ConnectionError)):
            while True:
                sock.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
        wait_until(lambda: port.connections == 0)


def test_the_oldest_connection_makes_room(monkeypatch):
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS", 3)
    with serve() as port:
        socks = []
        for number in range(3):
            socks.append(port.connect())
            wait_until(lambda n=number: port.connections == n + 1)
        with port.connect() as extra:
            extra.sendall(GET)
            assert extra.recv(1000).startswith(b"HTTP/1.1 200 ")
            assert read_all(socks[0]) == b""
        for sock in socks:
            sock.close()


# --- handlers of the worker ----------------------------------------------------------------------


class Echo:
    """Takes the paths below /echo; answers a turn of the loop later, in order."""

    streamed = False
    prefixes = (b"/slow", b"/fails")

    def __init__(self) -> None:
        self.order: list[bytes] = []

    def admit(self, head):
        return 1_000 if head.path.startswith((b"/slow", b"/fails")) else None

    def begin(self, exchange):
        if exchange.request.head.path == b"/fails":
            raise RuntimeError("secret detail")
        asyncio.get_running_loop().call_soon(self._answer, exchange)

    def _answer(self, exchange):
        self.order.append(exchange.request.body)
        exchange.answer(Response(200, exchange.request.body, "text/plain"))
        exchange.answer(Response(500))  # ignored: it has been answered


def test_handlers_answer_now_later_or_not_at_all():
    echo = Echo()

    def post(path: str, body: bytes) -> bytes:
        return (
            f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    with serve([echo]) as port:
        answers = port.exchange(
            post("/slow", b"one") + post("/slow", b"two") + GET + post("/fails", b"")
            + post("/none", b"") + LAST
        )  # fmt: skip
    statuses = [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"200", b"500", b"404", b"200"]
    assert echo.order == [b"one", b"two"]
    assert b"secret" not in answers
