"""HTTP requests out of bytes, from vectors and at every bound."""

import json
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.codec.http import HttpError, RequestReader, Response
from tests.support.http_reader import outcome

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/http_requests.json").read_text())


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vector_whole_and_in_single_bytes(case):
    data = case["in"].encode("latin-1")
    assert outcome([data]) == case["expect"]
    assert outcome(data[i : i + 1] for i in range(len(data))) == case["expect"]


def head_of(size: int) -> bytes:
    """A valid head of exactly that many bytes, in headers of moderate size."""
    head = b"GET /a HTTP/1.1\r\nHost: a\r\n"
    while len(head) + 2 < size:
        room = size - len(head) - 2
        value = room - 5 if room <= 1000 else 900
        head += b"X: " + b"y" * value + b"\r\n"
    return head + b"\r\n"


def test_head_bound_is_exact():
    fits = head_of(limits.HTTP_HEAD_BYTES)
    assert len(fits) == limits.HTTP_HEAD_BYTES
    assert outcome([fits]) == ["GET /a 0"]
    assert outcome([head_of(limits.HTTP_HEAD_BYTES + 1)]) == [431]


def test_header_count_bound_is_exact():
    def head(count: int) -> bytes:
        return b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * (count - 1) + b"\r\n"

    assert outcome([head(limits.HTTP_HEADERS)]) == ["GET /a 0"]
    assert outcome([head(limits.HTTP_HEADERS + 1)]) == [431]


def test_target_bound_is_exact():
    def head(size: int) -> bytes:
        return b"GET /" + b"a" * (size - 1) + b" HTTP/1.1\r\nHost: a\r\n\r\n"

    [found] = outcome([head(limits.HTTP_TARGET_BYTES)])
    assert str(found).startswith("GET /aaa")
    assert outcome([head(limits.HTTP_TARGET_BYTES + 1)]) == [414]


def test_target_without_an_end_is_refused_before_the_head_bound():
    assert outcome([b"GET /" + b"a" * limits.HTTP_TARGET_BYTES + b"a" * 64]) == [414]


def test_body_bound_is_exact_plain_and_chunked():
    def chunked(size: int) -> bytes:
        return (
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"
        )  # fmt: skip

    def plain(size: int) -> bytes:
        return b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

    for make in (chunked, plain):
        assert outcome([make(100)], RequestReader(max_body=100)) == ["POST /a 100"]
        assert outcome([make(101)], RequestReader(max_body=100)) == [413]


def test_one_byte_chunks_pass_and_extensions_do_not():
    start = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert outcome([start + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"]) == ["POST /a 50000"]
    assert outcome([start + (b"1;" + b"e" * 200 + b"\r\nx\r\n") * 50_000]) == [400]
    assert outcome([start + b"1;" + b"e" * 300]) == [400]


def test_endless_trailer_is_refused():
    start = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    assert outcome([start + b"X: y\r\n" * 5_000]) == [431]


def test_continue_is_wanted_until_the_body_starts():
    reader = RequestReader()
    reader.feed(b"POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert reader.next_request() is None
    assert reader.wants_continue
    reader.feed(b"x")
    assert reader.next_request() is None
    assert not reader.wants_continue


def test_errors_name_a_metric_reason():
    reader = RequestReader()
    reader.feed(b"\x16\x03\x01")
    with pytest.raises(HttpError) as caught:
        reader.next_request()
    assert caught.value.reason == "wrong_port"


@pytest.mark.parametrize(
    ("request_bytes", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive(request_bytes, keep_alive):
    reader = RequestReader()
    reader.feed(request_bytes)
    request = reader.next_request()
    assert request is not None
    assert request.head.keep_alive is keep_alive


def test_answer_to_head_has_the_length_and_no_body():
    reader = RequestReader()
    reader.feed(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    request = reader.next_request()
    assert request is not None
    encoded = Response(200, b"ok\n", "text/plain").encode(request.head, keep_alive=True)
    assert b"Content-Length: 3\r\n" in encoded
    assert encoded.endswith(b"\r\n\r\n")
