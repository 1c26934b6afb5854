"""The other side of the reverse proxy: heads written anew, answers cut out of a byte stream.

Nothing of a message's framing is passed on: the head is built from what was understood, with
exactly one framing, so that two parsers cannot disagree about where a request ends (RFC 9112 11.2).
"""

import re
from collections.abc import Iterable
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
_DROPPED: Final = _HOP | _CLAIMS | {b"expect", b"host", b"http2-settings"}
_HEAD: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r\n\0]*))?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n"
)
_HEADER: Final = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*?)[ \t]*\r\n")
_ANY_LENGTH: Final = (1 << 63) - 1


def chunk(part: bytes) -> bytes:
    """A part of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


def wants_websocket(head: Head) -> bool:
    """Whether a request asks for the one protocol that may follow an upgrade (RFC 6455 4.1)."""
    upgrade = head.header(b"upgrade")
    return (
        upgrade is not None
        and upgrade.lower() == b"websocket"
        and head.method == "GET"
        and head.version == "1.1"
        and head.header(b"transfer-encoding") is None
        and (head.header(b"content-length") or b"0") == b"0"
        and b"upgrade" in _named(head.headers)
    )


def request_head(head: Head, peer: str) -> bytes:
    """The head of a request as the controller gets it; peer: address of who sent it.

    Raises HttpError (400, 404) for a target that is no path of this node.
    """
    authority, host = head.authority, head.header(b"host")
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise HttpError(400, "the target names another host than the Host header")
    path, query = head.path, head.query
    if not path.startswith(b"/"):
        raise HttpError(404, "Not found", "topic")
    target = path + b"?" + query if query else path
    lines = [
        b"%b %b HTTP/1.1" % (head.method.encode(), target),
        b"host: " + (host or b"localhost"),
        b"%b: %b" % (PEER, peer.encode()),
    ]
    named = _named(head.headers)
    lines += [
        b"%b: %b" % pair
        for pair in head.headers
        if pair[0] not in _DROPPED and pair[0] not in named
    ]
    length = head.header(b"content-length")
    if head.header(b"transfer-encoding") is not None:
        lines.append(b"transfer-encoding: chunked")
    elif length is not None:
        lines.append(b"content-length: %d" % int(length))
    if wants_websocket(head):
        lines.append(b"connection: upgrade\r\nupgrade: websocket")
    elif head.expects_continue:
        lines.append(b"expect: 100-continue")
    return b"\r\n".join((*lines, b"", b""))


def _named(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that Connection names: they are of this connection only."""
    values = [value for name, value in headers if name == b"connection"]
    if not values:
        return frozenset()
    return frozenset(word.strip().lower() for word in b",".join(values).split(b","))


class AnswerHead(NamedTuple):
    """Status line and headers of an answer; names in lower case, order kept."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    length: int | None  # of the body; None: chunked, or up to the close
    chunked: bool
    keep_alive: bool

    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come (RFC 9110 15.2)."""
        return self.status < 200 and self.status != 101

    def encode(self, asked: Head, *, keep_alive: bool, chunked: bool) -> bytes:
        """The head for the peer; chunked: how a body of unknown length is framed for it."""
        lines = [b"HTTP/1.1 %d %b" % (self.status, self.reason)]
        named = _named(self.headers)
        # Lengths are kept where they are no framing: of HEAD and 304 (RFC 9110 8.6).
        has_length = self.status >= 200 and self.status != 204
        lines += [
            b"%b: %b" % pair
            for pair in self.headers
            if (has_length and pair[0] == b"content-length")
            or (pair[0] not in _HOP and pair[0] not in named)
        ]
        if chunked:
            lines.append(b"transfer-encoding: chunked")
        if self.status == 101:
            lines.append(b"connection: upgrade\r\nupgrade: websocket")
        elif self.interim:
            pass
        elif not keep_alive:
            lines.append(b"connection: close")
        elif asked.version == "1.0":
            lines.append(b"connection: keep-alive")
        return b"\r\n".join((*lines, b"", b""))


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
    version, code, reason, lines = match.groups()
    status = int(code)
    headers = tuple([(name.lower(), value) for name, value in _HEADER.findall(lines)])
    encodings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    lengths = [value for name, value in headers if name == b"content-length"]
    if encodings not in ([], [b"chunked"]) or len(lengths) + len(encodings) > 1:
        raise HttpError(502, "the length of an answer is not clear")
    if lengths and not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        raise HttpError(502, "the length of an answer is not a number")
    bodiless = method == "HEAD" or status < 200 or status in (204, 304)
    length = 0 if bodiless else int(lengths[0]) if lengths else None
    chunked = bool(encodings) and not bodiless
    named = _named(headers)
    keep_alive = (
        (version == b"1" or b"keep-alive" in named)
        and b"close" not in named
        and (chunked or length is not None)
    )
    return AnswerHead(status, reason or b"", headers, length, chunked, keep_alive)
