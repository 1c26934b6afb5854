"""The reverse proxy on real sockets, before a real ASGI server: one port for everything."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tbfast import limits
from tests.support.front import Peer, asgi_front, ok, scripted_front
from tests.support.http_server import RunningPort, read_all, serve
from tests.support.server import Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    path = tmp_path_factory.mktemp("front") / "s"
    with asgi_front(path), serve(front=path) as running:
        yield running


def connection(port: RunningPort) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection(*port.address, timeout=20))


def ask(client, method, path, body=None, headers=()):
    client.request(method, path, body, dict(headers))
    response = client.getresponse()
    return response, response.read()


def test_one_connection_serves_pages_and_the_controller(port):
    with connection(port) as client:
        for _ in range(3):
            response, body = ask(client, "POST", "/api/echo/a%20b?c=d&c=e", b"hello")
            told = json.loads(body)
            assert (response.status, response.getheader("x-kept")) == (200, "yes")
            assert (told["method"], told["path"]) == ("POST", "/api/echo/a b")
            assert (told["query"], told["body"]) == ("c=d&c=e", "hello")
            sock = client.sock
            assert ask(client, "GET", "/healthz")[1] == b"ok\n"
            assert client.sock is sock


def test_the_controller_hears_the_true_peer_and_nothing_else(port):
    lies = [
        ("X-Tbfast-Peer", "9.9.9.9"), ("X-Forwarded-For", "9.9.9.9"), ("Forwarded", "for=9.9.9.9"),
        ("X-Real-IP", "9.9.9.9"), ("X-Forwarded-Proto", "https"), ("Keep-Alive", "timeout=5"),
        ("Connection", "keep-alive, X-Mine, x-tbfast-peer, Host"), ("X-Mine", "1"), ("TE", "gzip"),
        ("Upgrade", "h2c"), ("HTTP2-Settings", "x"), ("X-Authorization", "Bearer t"),
    ]  # fmt: skip
    with connection(port) as client:
        told = json.loads(ask(client, "GET", "/api/echo", None, lies)[1])
    assert told["headers"] == {
        "host": "{}:{}".format(*port.address),
        "x-tbfast-peer": "127.0.0.1",
        "accept-encoding": "identity",
        "x-authorization": "Bearer t",
    }
    assert len(told["names"]) == len(told["headers"])


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
def test_bodies_of_any_size_and_framing(port, size):
    with connection(port) as client:
        assert ask(client, "POST", "/api/count", b"x" * size)[1] == b"%d" % size
        parts = iter([b"y" * 10_000] * (size // 10_000))
        assert ask(client, "POST", "/api/count", parts)[1] == b"%d" % (size // 10_000 * 10_000)
        assert len(ask(client, "GET", f"/api/big/{size}")[1]) == size
        assert len(ask(client, "GET", f"/api/plain/{size}")[1]) == size
        assert ask(client, "GET", "/healthz")[1] == b"ok\n"


def test_answers_without_a_body(port):
    with connection(port) as client:
        for status in (204, 304):
            response, body = ask(client, "GET", f"/api/status/{status}")
            assert (response.status, body) == (status, b"")
            assert response.getheader("Transfer-Encoding") is None
        response, body = ask(client, "HEAD", "/api/plain/1234")
        assert (response.getheader("Content-Length"), body) == ("1234", b"")
        response, body = ask(client, "HEAD", "/api/big/1234")
        assert (response.status, body) == (200, b"")
        assert ask(client, "GET", "/healthz")[1] == b"ok\n"


def test_http_1_0_gets_no_chunks_and_keeps_alive_only_if_asked(port):
    answer = port.exchange(b"GET /api/big/100000 HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert b"\r\nconnection: close" in head
    assert body == b"z" * 100_000
    answers = port.exchange(
        b"GET /api/plain/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
        b"GET /api/plain/4 HTTP/1.0\r\n\r\n"
    )
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert b"\r\nconnection: keep-alive\r\n" in answers
    assert answers.endswith(b"xxxx")


def test_pipelined_requests_of_all_kinds_are_answered_in_order(port):
    want = []
    data = b""
    for n in range(40):
        data += b"GET /api/plain/%d HTTP/1.1\r\nHost: a\r\n\r\n" % n
        data += b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        data += b"POST /api/count HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"
        want += [b"x" * n, b"ok\n", b"2"]
    answers = port.exchange(data + b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    bodies = [part.partition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert bodies[:-1] == want


def test_too_long_a_body_is_refused_before_it_comes(port):
    for path, size in (
        (b"/api/count", limits.REST_BODY_BYTES),
        (b"/api/otaPackage/1", limits.REST_PACKAGE_BYTES),
    ):
        answer = port.exchange(
            b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path, size + 1)
        )
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["errorCode"] == 31


def test_a_chunked_body_is_refused_where_it_becomes_too_long(port):
    with connection(port) as client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        response, body = ask(client, "POST", "/api/count", iter([b"x" * 1_000_000] * 17))
        assert response.status == 413
        assert json.loads(body)["status"] == 413


def test_expect_continue_is_the_controllers_word(port):
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    with port.connect() as sock:
        sock.sendall(head % b"/api/count")
        assert sock.recv(1_000).startswith(b"HTTP/1.1 100 Continue\r\n")
        sock.sendall(b"abc")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).endswith(b"\r\n\r\n3")
    with port.connect() as sock:  # refused without the body: not even asked for
        sock.sendall(head % b"/api/refuse")
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"\r\nconnection: close\r\n" in answer


@pytest.mark.interop
def test_curl_uploads_and_downloads(port, tmp_path):
    if shutil.which("curl") is None:
        pytest.fail("curl is missing")
    url = "http://{}:{}".format(*port.address)
    file = tmp_path / "body"
    file.write_bytes(b"x" * 5_000_000)
    words = ["--silent", "--show-error", "--fail", "--max-time", "60"]
    for more in (["--data-binary", f"@{file}"], ["--upload-file", str(file), "--request", "POST"]):
        done = subprocess.run(
            ["curl", *words, *more, f"{url}/api/count"], capture_output=True, timeout=60, check=True
        )
        assert done.stdout == b"5000000"
    done = subprocess.run(
        ["curl", *words, f"{url}/api/big/2097152", f"{url}/healthz", f"{url}/api/plain/7"],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b"z" * 2_097_152 + b"ok\n" + b"x" * 7


# --- the controller is away, or goes ---------------------------------------------------------


def test_without_the_controller_pages_stay(tmp_path):
    with serve(front=tmp_path / "nobody") as port, connection(port) as client:
        response, body = ask(client, "GET", "/api/devices")
        assert (response.status, response.getheader("Retry-After")) == (503, "1")
        assert json.loads(body)["errorCode"] == 2
        assert ask(client, "GET", "/healthz")[1] == b"ok\n"
        response, _ = ask(client, "POST", "/api/x", b"x" * 1_000_000, [("Origin", "http://o")])
        assert response.status == 503
        assert response.getheader("Access-Control-Allow-Origin") == "http://o"


def test_a_kept_connection_that_ended_is_replaced(tmp_path):
    path = tmp_path / "s"

    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(ok(b"%d" % peer.number))
        if peer.number == 0:
            peer.read_until(b"\r\n\r\n")  # the second request: hears nothing
        else:
            peer.read_all()

    with scripted_front(path, script) as front, serve(front=path) as port:
        with connection(port) as client:
            assert ask(client, "GET", "/a")[1] == b"0"
            assert ask(client, "GET", "/b")[1] == b"1"
            assert len(front.peers) == 2


def test_one_connection_to_the_controller_while_it_is_used(tmp_path, monkeypatch):
    path = tmp_path / "s"

    def script(peer: Peer) -> None:
        for _ in range(5):
            peer.read_until(b"\r\n\r\n")
            peer.send(ok(b"%d" % peer.number))
        peer.read_all()

    monkeypatch.setattr(limits, "PROXY_IDLE_MS", 200)
    with scripted_front(path, script) as front, serve(front=path) as port:
        with connection(port) as client:
            for _ in range(5):
                assert ask(client, "GET", "/a")[1] == b"0"
            # Nobody uses it any more: it is closed before the controller would.
            assert front.peers[0].ended.wait(20)
            assert ask(client, "GET", "/a")[1] == b"1"
        assert front.peers[1].ended.wait(20)  # with the client's connection


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    ],
)
def test_an_answer_cut_short_ends_the_connection(tmp_path, answer):
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(answer)

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(
                b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
            )
            assert b"ok\n" not in read_all(sock)
        wait_until(lambda: port.connections == 0)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000,
    ],
)
def test_an_answer_that_is_not_clear_is_a_502(tmp_path, answer):
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(answer)
        peer.read_all()

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with connection(port) as client:
            response, body = ask(client, "GET", "/a")
            assert response.status == 502
            assert json.loads(body)["status"] == 502


def test_what_may_have_been_served_is_not_repeated(tmp_path):
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\nabc")

    with scripted_front(tmp_path / "s", script) as front, serve(front=tmp_path / "s") as port:
        with connection(port) as client:
            assert ask(client, "POST", "/a", b"abc")[0].status == 502
        assert len(front.peers) == 1


def test_a_body_up_to_the_close(tmp_path):
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\nx-a: b\r\n\r\n" + b"q" * 100_000)

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with connection(port) as client:
            for _ in range(2):
                response, body = ask(client, "GET", "/a")
                assert response.getheader("Transfer-Encoding") == "chunked"
                assert body == b"q" * 100_000


# --- bounds ----------------------------------------------------------------------------------


def test_connections_to_the_controller_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "PROXY_CONNECTIONS", 2)
    release = threading.Event()
    slow = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while True:
            if peer.read_until(b"\r\n\r\n").startswith(b"GET /slow"):
                slow.release()
                assert release.wait(20)
            peer.send(ok(b"served"))

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connection(port)) for _ in range(4)]
            assert ask(clients[0], "GET", "/a")[1] == b"served"  # keeps an idle one
            for client in clients[1:3]:
                client.request("GET", "/slow")
            # The idle one made room; now both are busy.
            assert slow.acquire(timeout=20)
            assert slow.acquire(timeout=20)
            response, _ = ask(clients[3], "GET", "/a")
            assert (response.status, response.getheader("Retry-After")) == (503, "1")
            assert ask(clients[3], "GET", "/healthz")[1] == b"ok\n"
            release.set()
            for client in clients[1:3]:
                response = client.getresponse()
                assert response.read() == b"served"
            assert ask(clients[0], "GET", "/a")[1] == b"served"


def test_a_controller_that_does_not_read_stops_the_client(tmp_path):
    release = threading.Event()
    total = limits.REST_PACKAGE_BYTES

    def script(peer: Peer) -> None:
        assert release.wait(20)
        _split(peer)
        end = peer.received.index(b"\r\n\r\n") + 4 + total
        while len(peer.received) < end:
            assert peer.read()
        peer.send(ok(b"%d" % len(peer.received.partition(b"\r\n\r\n")[2])))

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.setblocking(False)
            head = b"POST /api/otaPackage/x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            sock.send(head % total)
            sent = _fill(sock, total)
            assert sent < total // 2
            release.set()
            sock.setblocking(True)
            sock.sendall(b"x" * (total - sent))
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock).endswith(b"\r\n\r\n%d" % total)


def _fill(sock: socket.socket, most: int) -> int:
    """Sends until the kernel takes no more for a while; how much it took."""
    sent = 0
    block = b"x" * 65_536
    sock.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        while sent < most:
            sent += sock.send(block[: most - sent])
    return sent


def test_a_client_that_does_not_read_stops_the_controller_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WRITE_TIMEOUT_MS", 1_500)
    sent = 0

    def script(peer: Peer) -> None:
        nonlocal sent
        peer.read_until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        for _ in range(1_000):
            peer.send(b"x" * 1_000_000)
            sent += 1_000_000

    with scripted_front(tmp_path / "s", script) as front, serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100)
            wait_until(lambda: port.connections == 0)
            assert front.peers[0].ended.wait(20)
        assert front.peers[0].broken
        assert sent < 100_000_000


@pytest.mark.parametrize(
    "answer",
    [
        ok(b"x" * 100_000),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_client_that_reads_late_gets_every_answer(tmp_path, answer):
    requests = 100  # whose answers are more than the kernel holds
    served = threading.Semaphore(0)

    def script(peer: Peer) -> None:
        while True:
            peer.read_until(b"\r\n\r\n")
            peer.send(answer)
            served.release()

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
            count = 0
            while served.acquire(timeout=0.5):
                count += 1
            assert count < requests
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock).count(b"x") == 100_000 * requests


def test_a_slow_body_is_bounded_by_a_rate_not_by_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HTTP_BODY_TIMEOUT_MS", 300)
    monkeypatch.setattr(limits, "HTTP_BODY_RATE", 10_000)

    def script(peer: Peer) -> None:
        peer.read_all()

    with scripted_front(tmp_path / "s", script) as front, serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(
                b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 9_000
            )
            assert read_all(sock).startswith(b"HTTP/1.1 408 ")
        assert front.peers[0].ended.wait(20)


def test_a_client_that_resets_ends_its_connection_to_the_controller(tmp_path):
    def script(peer: Peer) -> None:
        peer.read_all()

    with scripted_front(tmp_path / "s", script) as front, serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until(lambda: front.peers and front.peers[0].received)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert front.peers[0].ended.wait(20)
        wait_until(lambda: port.connections == 0)


# --- upgrades --------------------------------------------------------------------------------

UPGRADE = (
    b"GET /api/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, keep-alive\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-accept: v\r\n\r\n"
)


def echo_after_switch(peer: Peer) -> None:
    head, _, early = _split(peer)
    assert b"\r\nupgrade: websocket" in head
    assert b"\r\nsec-websocket-key: k" in head
    peer.send(SWITCH + b"first;" + early)
    while data := peer.read():
        peer.send(data)


def _split(peer: Peer) -> tuple[bytes, bytes, bytes]:
    """A head, and what came with it."""
    while b"\r\n\r\n" not in peer.received:
        assert peer.read()
    return bytes(peer.received).partition(b"\r\n\r\n")


def test_after_an_upgrade_bytes_pass_both_ways(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "HTTP_IDLE_TIMEOUT_MS", 100)
    monkeypatch.setattr(limits, "HTTP_HEAD_TIMEOUT_MS", 400)
    with scripted_front(tmp_path / "s", echo_after_switch) as front:
        with serve(front=tmp_path / "s") as port, port.connect() as sock:
            sock.sendall(UPGRADE + b"early;")
            reader = sock.makefile("rb")
            head = b"".join(iter(reader.readline, b"\r\n"))
            assert head.startswith(b"HTTP/1.1 101 ")
            assert b"\r\nsec-websocket-accept: v\r\n" in head
            assert b"\r\nupgrade: websocket\r\n" in head
            assert reader.read(12) == b"first;early;"
            payload = bytes(range(256)) * 8_000
            sender = threading.Thread(target=sock.sendall, args=(payload,))
            sender.start()
            assert reader.read(len(payload)) == payload
            sender.join()
            sock.settimeout(1)  # past every deadline of a request
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(20)
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")  # no HTTP here
            assert sock.recv(1_000).startswith(b"GET /healthz")
            sock.close()
            reader.close()
            assert front.peers[0].ended.wait(20)
            wait_until(lambda: port.connections == 0)


def test_an_upgrade_ends_with_the_controller(tmp_path):
    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(SWITCH + b"x" * 300_000)

    with scripted_front(tmp_path / "s", script), serve(front=tmp_path / "s") as port:
        answer = port.exchange(UPGRADE)
        assert answer.endswith(b"x" * 300_000)
        wait_until(lambda: port.connections == 0)


def test_an_upgrade_that_is_declined_is_an_ordinary_answer(port):
    data = UPGRADE.replace(b"/api/ws", b"/api/plain/2")
    answers = port.exchange(data + b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_a_spliced_client_that_does_not_read_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "WRITE_TIMEOUT_MS", 1_000)

    def script(peer: Peer) -> None:
        peer.read_until(b"\r\n\r\n")
        peer.send(SWITCH)
        while True:
            peer.send(b"x" * 1_000_000)

    with scripted_front(tmp_path / "s", script) as front, serve(front=tmp_path / "s") as port:
        with port.connect() as sock:
            sock.sendall(UPGRADE)
            assert sock.recv(10)
            wait_until(lambda: port.connections == 0)
        assert front.peers[0].ended.wait(20)


# --- a real node -----------------------------------------------------------------------------


def test_a_node_serves_devices_and_the_controller_on_one_connection(own_server: Server):
    token = own_server.add_device("mixed")
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", own_server.http_port, timeout=20)
    ) as client:
        with asgi_front(own_server.data_dir / "front.sock"):
            for n in range(3):
                body = json.dumps({"ts": n + 1, "values": {"n": n}})
                assert ask(client, "POST", f"/api/v1/{token}/telemetry", body)[0].status == 200
                sock = client.sock
                assert ask(client, "POST", "/api/count", b"abc")[1] == b"3"
                assert client.sock is sock
        response, _ = ask(client, "GET", "/api/plain/1")
        assert (response.status, response.getheader("Retry-After")) == (503, "1")
    assert own_server.values("mixed", "n") == [0, 1, 2]


def test_a_node_that_stops_ends_upgraded_connections_and_endless_answers(own_server: Server):
    def script(peer: Peer) -> None:
        head = peer.read_until(b"\r\n\r\n")
        endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
        peer.send(SWITCH if b"upgrade: websocket" in head else endless)
        peer.read_all()

    address = ("127.0.0.1", own_server.http_port)
    with scripted_front(_free(own_server.data_dir / "front.sock"), script) as front:
        with contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
            for sock, request in zip(
                peers, (UPGRADE, b"GET /api/tail HTTP/1.1\r\nHost: a\r\n\r\n"), strict=True
            ):
                sock.sendall(request)
                assert sock.recv(1_000)
            own_server.terminate()
            for sock in peers:
                sock.settimeout(15)  # a worker grants its connections 20 s
                read_all(sock)
            assert own_server.wait() == 0
        assert all(peer.ended.wait(20) for peer in front.peers)


def _free(path: Path) -> Path:
    """The path of a socket, without the one that is there."""
    path.unlink(missing_ok=True)
    return path
