"""What the fast path takes for a plain POST, the strict reader reads the same way."""

from typing import NamedTuple
from urllib.parse import unquote

from hypothesis import example, given
from hypothesis import strategies as st

from tbfast import limits
from tbfast._ext.http import plain_post, take_post
from tbfast._ext.ingest import Ingest
from tbfast.codec.http import HttpError, RequestReader
from tbfast.errors import PeerError

TOKENS = st.text("abcXYZ019-_.~", min_size=1, max_size=12) | st.sampled_from(
    ["a%20b", "..", "a/b", "", "provision", "x" * 255, "x" * 256]
)
HEADERS = st.sampled_from(
    [
        b"Host: a", b"host:b ", b"Content-Type: application/json", b"Accept: */*",
        b"Connection: keep-alive", b"Connection: close", b"Expect: 100-continue",
        b"Transfer-Encoding: chunked", b"Content-Length: 3", b"Content-Length: 2",
        b"Content-Length:  7 ", b"Content-Length: +7", b"Origin: http://x", b"Upgrade: websocket",
        b"X-Long: " + b"y" * 300, b" folded: x", b"No-Colon", b"Sp ace: 1", b"Tab:\tx", b"E:",
    ]
)  # fmt: skip
PLAIN = b'POST /api/v1/t/telemetry HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{"n":1}'
BODIES = st.binary(max_size=12) | st.just(b'{"n":1}')


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    body = draw(BODIES)
    lines = [b"POST /api/v1/%b/telemetry HTTP/1.1" % draw(TOKENS).encode()]
    lines += [b"Host: h"] if draw(st.integers(0, 9)) else []
    lines += draw(st.lists(HEADERS, max_size=3))
    lines += [b"Content-Length: %d" % len(body)] if draw(st.integers(0, 9)) else []
    data = b"\r\n".join(lines) + b"\r\n\r\n" + body
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data


@given(requests())
@example(PLAIN)
def test_the_reader_agrees(data: bytes) -> None:
    plain = plain_post(data)
    if plain is None:
        return
    token, body = plain
    reader = RequestReader(limits.HTTP_DEVICE_BODY_BYTES)
    reader.feed(data)
    try:
        request = reader.next_request()
    except HttpError as error:
        raise AssertionError(f"the reader refuses it: {error}") from error
    assert request is not None
    assert reader.idle
    assert request.body == body
    assert request.head.method == "POST"
    assert unquote(request.head.path.decode()) == f"/api/v1/{token}/telemetry"
    assert request.head.keep_alive
    assert token not in ("", "provision") or request.head.path.count(b"/") == 4


class Waiter:
    read_ns = 0


class Known(NamedTuple):
    device: int


@given(requests(), st.booleans())
@example(PLAIN, True)
def test_rows_and_waiters_are_those_of_the_ordinary_path(data: bytes, known: bool) -> None:
    seed = bytes(range(16))
    fast, slow, waiter = Ingest(seed=seed), Ingest(seed=seed), Waiter()
    taken = take_post(fast, lambda token: Known(7) if known else None, waiter, data)
    plain = plain_post(data)
    slow.at(fast.wall_ms, waiter.read_ns)
    try:
        if plain is None or not known or not plain[1]:
            raise PeerError("left for the strict reader")
        slow.append_json(7, plain[1])
        slow.wait(waiter)
    except PeerError:
        assert not taken
        assert fast.group.empty
        assert fast.group.waiters == []
        return
    assert taken
    assert fast.group.waiters == [waiter]
    groups = [ingest.take(1, 2, 3, slow.wall_ms, 1) for ingest in (fast, slow)]
    assert groups[0].value == groups[1].value
    assert groups[0].messages == groups[1].messages == 1
    assert groups[0].bad_utf8 == groups[1].bad_utf8


def test_another_charset_is_not_plain() -> None:
    def post(kind: bytes) -> bytes:
        return PLAIN.replace(b"Host: a", b"Host: a\r\nContent-Type: " + kind)

    for kind in (b"text/plain", b"application/json;charset=UTF-8", b"a/b; charset=utf-8"):
        assert plain_post(post(kind)) is not None
    for kind in (b"a/b; charset=utf-16", b'a/b; charset="utf-8"', b"a/b; x=y", b"charset=utf-8x"):
        assert plain_post(post(kind)) is None


def test_the_commonest_requests_are_plain() -> None:
    for extra in (b"", b"Content-Type: application/json\r\nAccept: */*\r\nUser-Agent: curl/7\r\n"):
        head = b"POST /api/v1/A1_TEST-TOKEN/telemetry HTTP/1.1\r\nHost: a:8080\r\n" + extra
        data = head + b'Content-Length: 8\r\n\r\n{"a": 1}'
        assert plain_post(data) == ("A1_TEST-TOKEN", b'{"a": 1}')
        for cut in range(len(data)):
            assert plain_post(data[:cut]) is None
        assert plain_post(data + b"G") is None
