"""Smuggling and floods through the reverse proxy (hostile-input 12): what the controller gets."""

import json
import re
from pathlib import Path

import pytest

from tbfast import limits
from tests.support.front import Peer, ok, scripted_front
from tests.support.http_server import serve

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/http_requests.json").read_text())
ALLOWED_HERE = "length above the bound"  # of device calls
REFUSED = [
    case for case in VECTORS if isinstance(case["expect"][0], int) and case["name"] != ALLOWED_HERE
]
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def front(tmp_path):
    """A controller that answers 200 to whatever looks like the end of a request."""

    def script(peer: Peer) -> None:
        while data := peer.read():
            for _ in range(data.count(b"\r\n\r\n") - data.count(b"0\r\n\r\n")):
                peer.send(ok(b"served"))

    with scripted_front(tmp_path / "s", script) as running, serve(front=tmp_path / "s") as port:
        yield running, port


def got(front) -> list[bytes]:
    """Request lines the controller has seen, in bytes between CRLFs anywhere."""
    log = b"".join(bytes(peer.log) for peer in front.peers)
    return re.findall(rb"^[A-Z]+ [^\r\n]* HTTP/1\.[01]\r$", log, re.MULTILINE)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["name"])
def test_what_is_refused_does_not_reach_the_controller(front, case):
    running, port = front
    data = case["in"].encode("latin-1")
    answer = port.exchange(data + LAST)
    assert b"served" not in answer
    assert answer.count(b"HTTP/1.1 ") == (0 if case["clause"].endswith("N5") else 1)
    assert not any(b"/last" in line or b"/b" in line for line in got(running))
    assert len(got(running)) <= ("chunk" in case["name"])  # a head may be right, its body wrong
    assert port.exchange(LAST).endswith(b"served")


def test_targets_that_are_no_path(front):
    running, port = front
    ask = b"%b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert port.exchange(ask % b"GET http://a/x?y").endswith(b"served")
    assert port.exchange(ask % b"GET http://A?y/z").endswith(b"served")
    assert got(running) == [b"GET /x?y HTTP/1.1\r", b"GET /?y/z HTTP/1.1\r"]
    for target, status in [
        (b"GET http://other/x", b"400"), (b"GET http://a:81/x", b"400"), (b"OPTIONS *", b"404"),
        (b"CONNECT a:80", b"404"), (b"GET http://a@other/x", b"400"),
    ]:  # fmt: skip
        answer = port.exchange(ask % target)
        assert answer.startswith(b"HTTP/1.1 " + status), (target, answer)
    assert len(got(running)) == 2


def test_a_body_that_looks_like_a_request_is_a_body(front):
    running, port = front
    inner = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"
    assert port.exchange(
        b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"%x;a=b\r\n%b\r\n0\r\nX: y\r\nContent-Length: 3\r\n\r\n" % (len(inner), inner)
    ).endswith(b"served")
    log = b"".join(bytes(peer.log) for peer in running.peers)
    assert log.endswith(
        b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    )  # no trailer, no ;a=b
    assert log.count(b"transfer-encoding: chunked") == 1
    assert b"content-length" not in log.lower()


def test_chunk_extensions_cost_the_sender_alone(front):
    running, port = front
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    flood = (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 65_536
    assert port.exchange(head + flood).startswith(b"HTTP/1.1 400 ")
    assert port.exchange(head + b"1;" + b"e" * 1_000_000).startswith(b"HTTP/1.1 400 ")
    log = b"".join(bytes(peer.log) for peer in running.peers)
    assert len(log) < 2_000
    assert b"eee" not in log


def test_one_byte_chunks_and_many_headers_stay_linear(front):
    _, port = front
    head = b"POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = port.exchange(head + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
    assert answer.endswith(b"served")
    many = b"".join(b"X-%d: y\r\n" % n for n in range(limits.HTTP_HEADERS - 2))
    answer = port.exchange(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + many + b"\r\n")
    assert answer.endswith(b"served")
    flood = b"GET /x HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000 + b"\r\n"
    assert port.exchange(flood).startswith(b"HTTP/1.1 431 ")


def test_cut_anywhere_leaves_nothing_behind(front):
    running, port = front
    request = (
        b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    )
    for size in range(0, len(request), 3):
        with port.connect() as sock:
            sock.sendall(request[:size])
    assert port.exchange(LAST).endswith(b"served")
    for peer in running.peers:
        assert peer.ended.wait(20)


def test_a_pipeline_without_reading_does_not_grow(front):
    _, port = front
    with port.connect() as greedy:
        greedy.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 1 << 28:
                sent += greedy.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 2_000)
        assert port.exchange(LAST).endswith(b"served")
    assert port.exchange(LAST).endswith(b"served")
