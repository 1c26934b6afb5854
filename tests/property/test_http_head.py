"""Heads read and written in C against the model in plain Python around llhttp."""

from hypothesis import example, given
from hypothesis import strategies as st

from tbfast import limits
from tbfast._ext.http_head import AnswerHead, Head, whole_answer, whole_request
from tbfast.codec.http import Admission, RequestReader
from tbfast.codec.http_upstream import AnswerReader
from tbfast.errors import HttpError
from tests.support import http_model as model

PEER = b"2001:db8::1"
METHODS = [b"GET", b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"M-SEARCH"]
ODD_METHODS = [b"get", b"BREW", b"G-T", b""]
TARGETS = [
    b"/", b"/api/x", b"/a?b=c?d", b"/a?", b"//a", b"/a#b?c", b"http://a", b"http://a/x?y",
    b"http://A?y/z", b"https://a/",
]  # fmt: skip
ODD_TARGETS = [
    b"*", b"a", b"", b"/a b", b"/\xe4", b"https://a:80/", b"http://b/x", b"ftp://a/x", b"HTTP://a/x",
    b"http:/a", b"http://a@b@c/", b"http://a|b/", b"http://[::1]/", b"/\x7f", b"?a",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]
ODD_VERSIONS = [b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b""]
FRAMINGS = [b"Content-Length: 3", b"content-length:0", b"Transfer-Encoding: chunked"]
HEADERS = [
    b"Connection: close", b"Connection: Keep-Alive", b"Connection: keep-alive, close",
    b"Connection: upgrade, X-Mine", b"Connection: upgrade", b"Connection: closed",
    b"Connection: ,x-mine ,content-type,,HOST", b"Connection: close x", b"Proxy-Connection: close",
    b"Proxy-Connection: a, keep-alive", b"Upgrade: WebSocket", b"Upgrade: h2c", b"Expect: x",
    b"Expect: 100-Continue", b"X-Mine: 1", b"x-mine:\t2 \t", b"Content-Type: a/b",
    b"X-Tbfast-Peer: 9", b"x-forwarded-for: 9", b"Forwarded: for=9", b"X-Real-IP: 9",
    b"TE: trailers", b"Trailer: x", b"Keep-Alive: 5", b"HTTP2-Settings: x", b"E:", b"E: ",
    b"Proxy-Authorization: x", b"Accept: \xe4", b"!#$%&'*+-.^_`|~: 1", b"X-Long: " + b"y" * 300,
]  # fmt: skip
ODD_HEADERS = [
    b"Content-Length: 03 ", b"Content-Length: +3", b"Content-Length:", b"Content-Length: 3, 3",
    b"Transfer-Encoding:Chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:",
    b"Transfer-Encoding: identity", b" folded: 1", b"\tx", b"No-Colon", b"Sp ace: 1", b"Sp : 1",
    b": 1", b"N: a\0", b"N: a\x0b", b"N: a\x7f", b"N: a\rb", b"N: a\nb", b"Host: a", b"(: 1",
    *FRAMINGS,
]  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> list[bytes]:
    lines = draw(st.lists(st.sampled_from(HEADERS), max_size=5))
    lines += [draw(st.sampled_from(FRAMINGS))] if draw(st.integers(0, 2)) == 0 else []
    lines += [draw(st.sampled_from(ODD_HEADERS))] if draw(st.integers(0, 5)) == 0 else []
    return draw(st.permutations(lines))


def one(draw: st.DrawFn, usual: list[bytes], odd: list[bytes]) -> bytes:
    return draw(st.sampled_from(odd if draw(st.integers(0, 19)) == 19 else usual))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then with other bytes, and up to its first empty line."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data) - 5))
        data = data[:at] + draw(st.binary(max_size=2)) + data[at + draw(st.integers(0, 2)) :]
    return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


@st.composite
def request_heads(draw: st.DrawFn) -> bytes:
    blank = one(draw, [b" "], [b"  ", b"\t"])
    lines = [
        one(draw, METHODS, ODD_METHODS) + blank + one(draw, TARGETS, ODD_TARGETS) + blank
        + one(draw, VERSIONS, ODD_VERSIONS)
    ]  # fmt: skip
    lines += [b"Host: a"] if draw(st.integers(0, 19)) else []
    return draw(damaged(b"\r\n".join([*lines, *draw(headers())]) + b"\r\n\r\n"))


def described(head) -> tuple[object, ...]:
    return tuple(getattr(head, name) for name in model.ModelHead._fields)


def sent(make) -> bytes | int:
    try:
        return make()
    except HttpError as error:
        return error.status


@given(request_heads())
@example(b"GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
def test_a_request_head_is_what_the_model_says(data: bytes) -> None:
    try:
        expected = model.read_request(data)
    except HttpError as error:
        refused = sent(lambda: described(Head(data)))
        # Which of two mistakes is named first does not matter, nor does how words are blamed.
        assert isinstance(refused, int)
        assert refused == error.status or {refused, error.status} == {400, 405}
        return
    head = Head(data)
    assert described(head) == tuple(expected)
    for name, value in reversed(expected.headers):
        first = next(other for key, other in expected.headers if key == name)
        assert head.header(name) == first
        assert first == value or sum(key == name for key, _ in expected.headers) > 1
    assert head.header(b"none") is None
    written = sent(lambda: head.forward(PEER))
    assert written == sent(lambda: model.forward(expected, PEER))
    if isinstance(written, bytes):
        again = Head(written)
        assert (again.method, again.path, again.query) == (head.method, head.path, head.query)
        assert (again.chunked, again.length) == (head.chunked, head.length)
        assert again.forward(PEER) == written


@given(request_heads(), st.sampled_from([b"", b"abc", b"abcd", b"3\r\nabc\r\n0\r\n\r\n"]))
def test_a_whole_request_is_what_the_reader_reads(head: bytes, body: bytes) -> None:
    found = whole_request(head + body, PEER, (b"/a",))
    if found is None:
        return
    whole, forwarded = found
    assert not whole.path.startswith(b"/a")
    reader = RequestReader(admit=lambda head: Admission(limits.REST_BODY_BYTES))
    reader.feed(head + body)
    request = reader.next_request()
    assert request is not None
    assert reader.idle
    assert request.body == body
    assert described(request.head) == described(whole)
    assert forwarded == request.head.forward(PEER) + request.body


def test_the_commonest_requests_are_whole() -> None:
    get = b"GET /api/x?y=z HTTP/1.1\r\nHost: a:8080\r\nX-Authorization: Bearer t\r\n\r\n"
    post = b"POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc"
    for data in (get, post):
        found = whole_request(data, PEER, (b"/api/v1/", b"/healthz"))
        assert found is not None
        head, forwarded = found
        assert head.path == b"/api/x"
        assert forwarded.startswith(data[: data.index(b" HTTP")])
        assert all(whole_request(data[:cut], PEER, ()) is None for cut in range(len(data)))
        assert whole_request(data + b"G", PEER, ()) is None
        assert whole_request(data, PEER, (b"/api/",)) is None


def test_headers_of_a_connection_are_bounded() -> None:
    def head(size: int) -> bytes:
        return b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b"x" * size + b"\r\n\r\n"

    assert Head(head(1_000)).keep_alive
    assert sent(lambda: Head(head(1_100))) == 431


LINES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 204 None", b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 404", b"HTTP/1.1 404 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 103 Early",
    b"HTTP/1.1 101 Up",
]  # fmt: skip
ODD_LINES = [
    b"HTTP/1.1 600 X", b"HTTP/1.1 20 X", b"HTTP/1.1 2000 X", b"HTTP/2.0 200 OK", b"ICY 200 OK",
    b"HTTP/1.1  200 OK",
]  # fmt: skip


@st.composite
def answer_heads(draw: st.DrawFn) -> bytes:
    lines = [one(draw, LINES, ODD_LINES), *draw(headers())]
    return draw(damaged(b"\r\n".join(lines) + b"\r\n\r\n"))


NEW, OLD, HEAD = (
    Head(b"%b / HTTP/1.%d\r\nHost: a\r\nConnection: keep-alive\r\n\r\n" % (method, minor))
    for method, minor in ((b"GET", 1), (b"GET", 0), (b"HEAD", 1))
)


@given(answer_heads(), st.sampled_from([NEW, OLD, HEAD]), st.booleans(), st.booleans())
def test_an_answer_head_is_what_the_model_says(
    data: bytes, asked: Head, keep_alive: bool, chunked: bool
) -> None:
    try:
        expected = model.read_answer(data, asked.method)
    except HttpError:
        assert sent(lambda: AnswerHead(data, asked.method).encode(
            asked, keep_alive=True, chunked=False)) == 502  # fmt: skip
        return
    found = AnswerHead(data, asked.method)
    for name in ("status", "length", "chunked", "keep_alive"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.interim is (expected.status < 200 and expected.status != 101)
    assert found.encode(asked, keep_alive=keep_alive, chunked=chunked) == expected.encode(
        asked.version == "1.0", keep_alive=keep_alive, chunked=chunked
    )


@given(answer_heads(), st.sampled_from([b"", b"abc", b"abcd"]), st.sampled_from([NEW, OLD, HEAD]))
def test_a_whole_answer_is_what_the_reader_reads(head: bytes, body: bytes, asked: Head) -> None:
    whole = whole_answer(head + body, asked)
    if whole is None:
        return
    reader = AnswerReader()
    reader.expect(asked.method)
    reader.feed(head + body)
    answer = reader.next_head()
    assert answer is not None
    assert not answer.interim
    assert answer.status != 101
    assert answer.keep_alive
    part = reader.next_part()
    assert reader.complete
    assert reader.rest() == b""
    assert whole == answer.encode(asked, keep_alive=True, chunked=False) + part


def test_the_commonest_answers_are_whole() -> None:
    data = b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 3\r\n\r\nabc"
    assert whole_answer(data, NEW) == (
        b"HTTP/1.1 200 OK\r\nserver: x\r\ncontent-length: 3\r\n\r\nabc"
    )
    assert all(whole_answer(data[:cut], NEW) is None for cut in range(len(data)))
    assert whole_answer(data + b"H", NEW) is None
    assert whole_answer(data.replace(b"server", b"connection: close\r\nx"), NEW) is None
