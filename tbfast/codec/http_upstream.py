"""The other side of the reverse proxy: heads written anew, answers cut out of a byte stream.

Nothing of a message's framing is passed on: the head is built from what was understood, with
exactly one framing, so that two parsers cannot disagree about where a request ends (RFC 9112 11.2).
"""

import re
from typing import Final, NamedTuple

from tbfast import limits
from tbfast.codec.http import Head
from tbfast.codec.http_body import BodyReader, HttpError

LAST_CHUNK: Final = b"0\r\n\r\n"

# Of one connection only (RFC 9110 7.6.1), or written anew.
_HOP: Final = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    )
)  # fmt: skip
# Who the peer is, only this proxy says.
PEER: Final = b"x-tbfast-peer"
_CLAIMS: Final = frozenset(
    (
        PEER, b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port",
        b"x-forwarded-proto", b"x-real-ip",
    )
)  # fmt: skip
_SPECIAL: Final = _HOP | _CLAIMS | {b"expect", b"host", b"http2-settings"}
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r\n\0]*))?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n"
)
_ANY_LENGTH: Final = (1 << 63) - 1


def chunk(part: bytes) -> bytes:
    """A part of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


class Forwarded(NamedTuple):
    """A request as the controller gets it."""

    head: bytes
    has_body: bool
    chunked: bool
    websocket: bool  # the one protocol that may follow an upgrade (RFC 6455 4.1)


def forward(head: Head, peer: str) -> Forwarded:
    """The head written anew; peer: address of who sent it.

    Raises HttpError (400, 404) for a target that is no path of this node.
    """
    path, query = head.path, head.query
    if not path.startswith(b"/"):
        raise HttpError(404, "Not found", "topic")
    lines = [b"%b: %b" % (PEER, peer.encode())]
    special: dict[bytes, bytes] = {}
    for name, value in head.headers:
        if name not in _SPECIAL:
            lines.append(b"%b: %b" % (name, value))
        elif name == b"connection" and name in special:
            special[name] += b"," + value
        else:
            special[name] = value
    host = special.get(b"host", b"localhost")
    authority = head.authority
    if authority is not None and authority.lower() != host.lower():
        raise HttpError(400, "the target names another host than the Host header")
    named = _named(special.get(b"connection", b""))
    if named:
        lines = lines[:1] + [line for line in lines[1:] if line.partition(b":")[0] not in named]
    chunked = b"transfer-encoding" in special
    length = int(special.get(b"content-length", b"0"))
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif b"content-length" in special:
        lines.append(b"content-length: %d" % length)
    has_body = chunked or length > 0
    websocket = (
        not has_body
        and head.method == "GET"
        and head.version == "1.1"
        and special.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in named
    )
    if websocket:
        lines.append(b"connection: upgrade\r\nupgrade: websocket")
    elif b"expect" in special and head.expects_continue:
        lines.append(b"expect: 100-continue")
    start = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n" % (
        head.method.encode(),
        path,
        b"?" + query if query else b"",
        host,
    )
    return Forwarded(start + b"\r\n".join((*lines, b"", b"")), has_body, chunked, websocket)


_USUAL: Final = frozenset((b"", b"close", b"keep-alive", b"Keep-Alive"))


def _named(connection: bytes) -> frozenset[bytes]:
    """Headers that Connection names: they are of this connection only."""
    if connection in _USUAL:
        return frozenset()
    return frozenset([word.strip().lower() for word in connection.split(b",")])


class AnswerHead(NamedTuple):
    """Status line and headers of an answer."""

    status: int
    reason: bytes
    lines: tuple[bytes, ...]  # the headers that are passed on
    length: int | None  # of the body; None: chunked, or up to the close
    chunked: bool
    keep_alive: bool

    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come (RFC 9110 15.2)."""
        return self.status < 200 and self.status != 101

    def encode(self, asked: Head, *, keep_alive: bool, chunked: bool) -> bytes:
        """The head for the peer; chunked: how a body of unknown length is framed for it."""
        end = b"\r\n"
        if chunked:
            end = b"transfer-encoding: chunked\r\n\r\n"
        if self.status == 101:
            end = b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        elif self.interim:
            pass
        elif not keep_alive:
            end = b"connection: close\r\n" + end
        elif asked.version == "1.0":
            end = b"connection: keep-alive\r\n" + end
        start = b"HTTP/1.1 %d %b" % (self.status, self.reason)
        return b"\r\n".join((start, *self.lines, end))


class AnswerReader:
    """Answers out of the bytes of one connection, one at a time.  Raises HttpError (502)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._method = ""
        self._body = bytearray()
        self._reading: BodyReader | None = None
        self._to_close = False  # the body ends with the connection
        self.complete = True

    def expect(self, method: str) -> None:
        """The next answer is one to this method."""
        self._method = method
        self.complete = False

    def feed(self, data: bytes) -> None:
        """Adds bytes; nothing is parsed."""
        self._buffer += data

    def next_head(self) -> AnswerHead | None:
        """The next head, None if more bytes are needed; after one that is not interim, parts."""
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if max(end, len(self._buffer) if end < 0 else 0) > limits.HTTP_HEAD_BYTES:
            raise HttpError(502, "the head of an answer is too long")
        if end < 0:
            self._searched = len(self._buffer)
            return None
        head = _answer_head(bytes(self._buffer[: end + 4]), self._method)
        del self._buffer[: end + 4]
        self._searched = 0
        if not head.interim:
            self._expect_body(head)
        return head

    def _expect_body(self, head: AnswerHead) -> None:
        self._to_close = head.length is None and not head.chunked
        self._reading = None
        if head.chunked:
            self._reading = BodyReader(None, _ANY_LENGTH)
        elif head.length:
            self._reading = BodyReader(head.length, _ANY_LENGTH)
        else:
            self.complete = not self._to_close

    def next_part(self) -> bytes:
        """What has come of the body; `complete` says if that was all of it."""
        if self.complete:
            return b""
        if self._to_close:
            self._body += self._buffer
            self._buffer.clear()
        elif self._reading is not None and self._reading.move(self._buffer, self._body):
            self.complete = True
        part = bytes(self._body)
        self._body.clear()
        return part

    def rest(self) -> bytes:
        """What follows: the first bytes after an upgrade, else nothing that was asked for."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def closed(self) -> bool:
        """The connection has ended; whether that completes the answer."""
        if self._to_close:
            self.complete = True
        return self.complete


def _answer_head(data: bytes, method: str) -> AnswerHead:
    match = _HEAD.fullmatch(data)
    if match is None:
        raise HttpError(502, "an answer is malformed")
    version, code, reason, headers = match.groups()
    status = int(code)
    lines: list[bytes] = []
    encoding = length_text = None
    connection = b""
    for line in headers.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name not in _HOP:
            lines.append(line)
            continue
        value = value.strip(b" \t")
        if name == b"content-length":
            if length_text is not None or not _LENGTH.fullmatch(value):
                raise HttpError(502, "the length of an answer is not a number")
            length_text = value
        elif name == b"transfer-encoding":
            if encoding is not None or value.lower() != b"chunked":
                raise HttpError(502, "the encoding of an answer is not known")
            encoding = value
        elif name == b"connection":
            connection += b"," + value if connection else value
    if encoding is not None and length_text is not None:
        raise HttpError(502, "the length of an answer is not clear")
    named = _named(connection)
    if named:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in named]
    if length_text is not None and status >= 200 and status != 204:
        # Also where it is no framing: of HEAD and 304 (RFC 9110 8.6).
        lines.append(b"content-length: " + length_text)
    bodiless = method == "HEAD" or status < 200 or status in (204, 304)
    length = 0 if bodiless else None if length_text is None else int(length_text)
    chunked = encoding is not None and not bodiless
    persistent = connection.lower() == b"keep-alive" if version == b"0" else True
    keep_alive = (
        persistent
        and connection != b"close"
        and b"close" not in named
        and (chunked or length is not None)
    )
    return AnswerHead(status, reason or b"", tuple(lines), length, chunked, keep_alive)
