"""What the proxy writes, read by a parser nobody here wrote (h11): both sides see the same."""

import h11
from hypothesis import given
from hypothesis import strategies as st

from tbfast.codec.http import Admission, HttpError, RequestReader
from tbfast.codec.http_upstream import LAST_CHUNK, AnswerReader, chunk
from tests.support.http_strategies import pieces, requests

cuts = st.lists(st.integers(0), max_size=8)


def upstream(parts: list[bytes]) -> list[bytes]:
    """The bytes of each request, as a controller would get them, up to the first error."""
    reader = RequestReader(admit=lambda head: Admission(1_000, streamed=True))
    sent: list[bytes] = []
    chunked = False
    for part in parts:
        if reader.passes(part):
            sent[-1] += part
            continue
        reader.feed(part)
        try:
            while True:
                if reader.in_body and sent:
                    body = reader.next_part()
                    sent[-1] += chunk(body) if chunked else body
                    if reader.in_body:
                        break
                    sent[-1] += LAST_CHUNK if chunked else b""
                request = reader.next_request()
                if request is None:
                    break
                chunked = request.head.header(b"transfer-encoding") is not None
                sent.append(request.head.forward(b"192.0.2.1"))
        except HttpError:
            break
    return sent


def read_by_h11(data: bytes) -> tuple[str, bytes, dict[bytes, bytes], bytes, bool]:
    """Method, target, headers, body, and whether the request is complete."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    head = server.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += bytes(event.data)
    assert event is h11.NEED_DATA or isinstance(event, h11.EndOfMessage)
    assert server.trailing_data[0] == b""
    names = [name for name, _ in head.headers]
    for name in (b"host", b"content-length", b"transfer-encoding", b"x-tbfast-peer"):
        assert names.count(name) <= 1
    complete = isinstance(event, h11.EndOfMessage)
    return head.method.decode(), head.target, dict(head.headers), body, complete


def seen(data: bytes) -> list[object]:
    """What h11 reads of one stream of whole requests."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    found: list[object] = []
    while True:
        event = server.next_event()
        if isinstance(event, h11.Request):
            found.append([event.method, event.target, b""])
        elif isinstance(event, h11.Data):
            found[-1][2] += bytes(event.data)  # type: ignore[index]
        elif event is h11.PAUSED:
            server.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()
        elif event is h11.NEED_DATA:
            return found


@given(st.lists(requests(), min_size=1, max_size=4), cuts)
def test_any_split_gives_the_requests_that_were_sent(parts, where):
    data = b"".join(parts)
    found = [read_by_h11(one) for one in upstream(pieces(data, where))]
    assert all(complete for *_, complete in found)
    assert [[method.encode(), target, body] for method, target, _, body, _ in found] == seen(data)
    assert all(headers[b"x-tbfast-peer"] == b"192.0.2.1" for _, _, headers, _, _ in found)


mutations = st.lists(
    st.tuples(st.integers(0), st.sampled_from([
        b"\n", b"\r", b"\r\n", b" ", b"\t", b"\0", b":", b"0", b"5", b"Content-Length: 3\r\n", b"x",
        b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"//b",
        b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n", b"Connection: content-length\r\n", b";" * 300, b"+",
        b"X-Tbfast-Peer: 9\r\n",
    ])),
    min_size=1, max_size=3,
)  # fmt: skip


@given(st.lists(requests(), min_size=1, max_size=3), mutations, cuts)
def test_whatever_comes_the_controller_reads_one_request_at_a_time(parts, changes, where):
    data = b"".join(parts)
    for position, patch in changes:
        at = position % (len(data) + 1)
        data = data[:at] + patch + data[at:]
    whole, split = (
        [read_by_h11(one) for one in upstream(how)] for how in ([data], pieces(data, where))
    )
    assert all(complete for *_, complete in whole[:-1])
    # Of a request that turns bad, how much body went before depends on the split.
    assert [one[:3] for one in whole] == [one[:3] for one in split]
    assert whole[:-1] == split[:-1]
    for _, _, headers, _, _ in whole:
        assert headers[b"x-tbfast-peer"] == b"192.0.2.1"
        assert not (b"content-length" in headers and b"transfer-encoding" in headers)


@st.composite
def answers(draw):
    status = draw(st.sampled_from([200, 200, 201, 204, 304, 404]))
    body = draw(st.binary(max_size=60)) if status not in (204, 304) else b""
    shape = draw(st.sampled_from(["length", "chunked", "close"]))
    lines = [b"HTTP/1.1 %d Reason" % status, b"X-A: b"]
    lines += [b"Connection: x-b", b"X-B: c"] if draw(st.booleans()) else []
    if status in (204, 304):
        return b"\r\n".join([*lines, b"", b""]), status, b"", False
    if shape == "length":
        return (
            b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", b""]) + body,
            status, body, False,
        )  # fmt: skip
    if shape == "close":
        return b"\r\n".join([*lines, b"", b""]) + body, status, body, True
    data = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    rest = body
    while rest:
        size = draw(st.integers(1, len(rest)))
        data += chunk(rest[:size])
        rest = rest[size:]
    return data + LAST_CHUNK, status, body, False


@given(answers(), st.sampled_from(["GET", "HEAD", "POST"]), st.booleans(), cuts)
def test_any_split_of_an_answer_gives_the_peer_the_same(answer, method, early, where):
    data, status, body, to_close = answer
    if method == "HEAD":
        data = data[: data.index(b"\r\n\r\n") + 4]
        body, to_close = b"", False
    interim = b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" if early else b""
    asked_reader = RequestReader()
    asked_reader.feed(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode())
    asked = asked_reader.next_request().head

    reader = AnswerReader()
    reader.expect(method)
    written = b""
    head, chunked = None, False
    for piece in pieces(interim + data, where):
        if head is not None and reader.passes(piece):
            written += piece
            continue
        reader.feed(piece)
        while head is None and (found := reader.next_head()) is not None:
            chunked = not found.interim and found.length is None
            written += found.encode(asked, keep_alive=True, chunked=chunked)
            head = None if found.interim else found
        if head is not None and not reader.complete:
            part = reader.next_part()
            written += chunk(part) if chunked else part
    assert head is not None
    assert reader.complete is not to_close
    assert reader.closed()
    written += LAST_CHUNK if chunked else b""
    assert head.keep_alive is not to_close

    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(written)
    event = client.next_event()
    if early:
        assert isinstance(event, h11.InformationalResponse)
        event = client.next_event()
    assert isinstance(event, h11.Response)
    assert event.status_code == status
    assert (b"x-a", b"b") in list(event.headers)
    assert b"x-b" not in dict(event.headers) or b"connection: x-b" not in data.lower()
    got = b""
    while isinstance(event := client.next_event(), h11.Data):
        got += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage)
    assert got == body
    assert client.their_state is h11.DONE


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_random_answers_are_answers_or_one_error(parts):
    reader = AnswerReader()
    reader.expect("GET")
    head = None
    for part in [b"HTTP/1.1 200 OK\r\n", *parts]:
        reader.feed(part)
        try:
            head = head or reader.next_head()
            if head is not None:
                reader.next_part()
        except HttpError as error:
            assert error.status in (400, 431, 502)
            return
