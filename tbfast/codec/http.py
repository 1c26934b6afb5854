"""HTTP/1.x requests out of a byte stream; no I/O, no clock.

`RequestReader` finds the end of a head itself and gives the parser one complete, bounded head:
llhttp alone accepts a head of any size in quadratic time (hostile-input 12, H1 and H2).  Bodies
are cut here as well, so a request ends at an exact byte and pipelined ones follow it.  After an
error nothing more is read: a stream that was misread once cannot be resynchronised (H3).
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

import httptools

from tbfast import limits
from tbfast.errors import PeerError

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
_SCHEMES: Final = (b"http://", b"https://")


class HttpError(PeerError):
    """A request that is refused; ``code`` is the status, ``reason`` the metric's word."""

    def __init__(self, status: int, message: str, reason: str = "malformed") -> None:
        super().__init__(message, code=status)
        self.status = status
        self.reason = reason


class Head(NamedTuple):
    """Request line and headers; names of headers in lower case, order kept."""

    method: str
    target: bytes
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool

    @property
    def path(self) -> bytes:
        """The target's path, still percent-encoded; a named host is ignored (H12)."""
        target = self.target
        for scheme in _SCHEMES:
            if target.startswith(scheme):
                slash = target.find(b"/", len(scheme))
                target = b"/" if slash < 0 else target[slash:]
                break
        return target.partition(b"?")[0]

    @property
    def query(self) -> bytes:
        """What follows the first question mark, still encoded."""
        return self.target.partition(b"?")[2]

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


class Request(NamedTuple):
    """One complete request."""

    head: Head
    body: bytes


class Response(NamedTuple):
    """An answer; without a content type there is no body."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, head: Head | None, *, keep_alive: bool) -> bytes:
        """The bytes to send for a request; head is None if it could not be read."""
        lines = [f"HTTP/1.1 {self.status} {_PHRASES[self.status]}"]
        if self.content_type:
            lines.append(f"Content-Type: {self.content_type}")
        lines.append(f"Content-Length: {len(self.body)}")
        lines.append("Cache-Control: no-store")
        lines += (f"{name}: {value}" for name, value in self.headers)
        if not keep_alive:
            lines.append("Connection: close")
        elif head is not None and head.version == "1.0":
            lines.append("Connection: keep-alive")
        text = "\r\n".join((*lines, "", "")).encode("ascii")
        return text if head is not None and head.method == "HEAD" else text + self.body


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestReader:
    """Bytes in, requests out, one at a time.

    max_body: bytes of a body; a longer one is refused when its length is known (H5).
    admit(head) gives that number by request instead, if given; it may raise HttpError.
    """

    def __init__(
        self,
        max_body: int = limits.HTTP_BODY_BYTES,
        admit: Callable[[Head], int] | None = None,
    ) -> None:
        self._admit = admit
        self._max_body = max_body
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer known to hold no end of head or line
        self._head: Head | None = None
        self._left: int | None = None  # of the body, or of the chunk; None: a chunk line is next
        self._chunked = False
        self._trailers = False
        self._trailer_bytes = 0
        self._chunk_lines = 0  # bytes spent on them in this body
        self._body = bytearray()
        self._failed = False

    @property
    def buffered(self) -> int:
        """Bytes received and not yet part of a request."""
        return len(self._buffer)

    @property
    def held(self) -> int:
        """Bytes of an incomplete request."""
        return len(self._buffer) + len(self._body)

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not complete."""
        return self._head is None and bool(self._buffer)

    @property
    def in_body(self) -> bool:
        """Whether a head is complete and its body is not."""
        return self._head is not None

    @property
    def head(self) -> Head | None:
        """The head whose body is being read, or whose request was refused."""
        return self._head

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is here."""
        return self._head is None and not self._buffer and not self._failed

    @property
    def wants_continue(self) -> bool:
        """Whether the peer waits for 100 (Continue) before it sends the body."""
        head = self._head
        return (
            head is not None
            and head.version == "1.1"
            and not self._body
            and not self._buffer
            and (head.header(b"expect") or b"").lower() == b"100-continue"
        )

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; nothing is parsed."""
        if not self._failed:
            self._buffer += data

    def next_request(self) -> Request | None:
        """The next complete request, or None if more bytes are needed.

        Raises HttpError; after it every call returns None.
        """
        if self._failed:
            return None
        try:
            if self._head is None and not self._read_head():
                return None
            if not (self._read_chunks() if self._chunked else self._read_plain()):
                return None
        except HttpError:
            self._failed = True
            self._buffer.clear()
            raise
        head = self._head
        assert head is not None
        request = Request(head, bytes(self._body))
        self._head = None
        self._body.clear()
        return request

    # --- head --------------------------------------------------------------------------------

    def _read_head(self) -> bool:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):  # left over after a body by old clients
            del buffer[:2]
            self._searched = 0
        if not buffer:
            return False
        if buffer[0] not in _LETTERS and buffer != b"\r":
            raise HttpError(400, "this is not HTTP", "wrong_port")
        # One byte of overlap: a CR at the end of the last piece belongs to this search.
        start = max(0, self._searched - 3)
        end = buffer.find(b"\r\n\r\n", start, limits.HTTP_HEAD_BYTES)
        if end < 0:
            self._check_partial(start)
            self._searched = len(buffer)
            return False
        head = bytes(buffer[: end + 4])
        del buffer[: end + 4]
        self._searched = 0
        self._head = _parse_head(head)
        self._expect_body(self._head)
        return True

    def _check_partial(self, start: int) -> None:
        buffer = self._buffer
        line = buffer.find(b"\r\n", 0, limits.HTTP_TARGET_BYTES + 64)
        if line < 0 and len(buffer) >= limits.HTTP_TARGET_BYTES + 64:
            raise HttpError(414, "request target is too long", "too_big")
        if len(buffer) >= limits.HTTP_HEAD_BYTES:
            raise HttpError(431, "request head is too long", "too_big")
        if buffer.count(b"\n", start) != buffer.count(b"\r\n", max(0, start - 1)):
            raise HttpError(400, "a line of the head ends without CR")

    def _expect_body(self, head: Head) -> None:
        encoding = head.header(b"transfer-encoding")
        length = head.header(b"content-length")
        self._chunked = encoding is not None
        self._trailers = False
        self._trailer_bytes = 0
        self._chunk_lines = 0
        if self._admit is not None:
            self._max_body = self._admit(head)
        if encoding is not None:
            if head.version != "1.1" or encoding.strip().lower() != b"chunked":
                raise HttpError(400, "this transfer encoding is not supported")
            self._left = None
            return
        self._left = 0 if length is None else int(length)
        self._check_size(self._left)

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            message = f"Payload size exceeds the limit of {self._max_body} bytes"
            raise HttpError(413, message, "too_big")

    # --- body --------------------------------------------------------------------------------

    def _read_plain(self) -> bool:
        assert self._left is not None
        self._take(self._left)
        return self._left == 0

    def _take(self, wanted: int) -> None:
        """Moves up to that many bytes from the buffer to the body."""
        piece = self._buffer[:wanted]
        del self._buffer[: len(piece)]
        self._body += piece
        self._left = wanted - len(piece)

    def _read_chunks(self) -> bool:
        offset = 0
        try:
            while True:
                if self._trailers:
                    line = self._line(offset, limits.HTTP_HEAD_BYTES)
                    if line is None:
                        return False
                    offset += len(line) + 2
                    self._trailer_bytes += len(line) + 2
                    if self._trailer_bytes > limits.HTTP_HEAD_BYTES:
                        raise HttpError(431, "trailer is too long", "too_big")
                    if not line:
                        return True
                elif self._left is None:
                    line = self._line(offset, limits.HTTP_CHUNK_LINE_BYTES)
                    if line is None:
                        return False
                    offset += len(line) + 2
                    size = _chunk_size(line)
                    self._check_overhead(len(line) + 4)
                    self._check_size(len(self._body) + size)
                    self._trailers = size == 0
                    self._left = size + 2 if size else 0  # the CRLF after the data
                else:
                    offset = self._read_data(offset, self._left)
                    if self._left:
                        return False
                    self._left = None
        finally:
            # Once, at the end: cutting the front for every chunk would be quadratic (H4).
            del self._buffer[:offset]
            if offset:
                self._searched = 0

    def _read_data(self, offset: int, left: int) -> int:
        """Takes what there is of a chunk's data and its CRLF; returns the new offset."""
        data = self._buffer[offset : offset + left]
        self._left = left - len(data)
        # Of the last two bytes of a chunk, those present are the CRLF.
        text = min(len(data), max(0, left - 2))
        self._body += data[:text]
        ending = data[text:]
        if ending and ending != b"\r\n"[2 - min(left, 2) :][: len(ending)]:
            raise HttpError(400, "chunk data has another length than its size says")
        return offset + len(data)

    def _line(self, offset: int, limit: int) -> bytes | None:
        """The line at offset without CRLF, None if it is not complete."""
        start = max(offset, self._searched - 1)
        end = self._buffer.find(b"\r\n", start, offset + limit + 2)
        if end < 0:
            if len(self._buffer) - offset >= limit + 2:
                raise HttpError(400, "a line of a chunked body is too long", "too_big")
            self._searched = max(0, len(self._buffer) - offset)
            return None
        self._searched = 0
        return bytes(self._buffer[offset:end])

    def _check_overhead(self, size: int) -> None:
        """Bounds chunk lines by the data they carry: one-byte chunks pass, extensions do not."""
        self._chunk_lines += size
        if self._chunk_lines > 16 * len(self._body) + 16_384:
            raise HttpError(400, "chunk lines outweigh the data", "too_big")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not 0 < len(digits) <= 16 or not _HEX.issuperset(digits):
        raise HttpError(400, "chunk size is not a hexadecimal number")
    return int(digits, 16)


class _HeadParts:
    """What llhttp reports of one head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep_alive = False
        self.parser: httptools.HttpRequestParser | None = None

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        # Asked here: at the end of a message without a body the parser has forgotten it.
        assert self.parser is not None
        self.keep_alive = bool(self.parser.should_keep_alive())


def _parse_head(data: bytes) -> Head:
    first, _, rest = data.partition(b"\r\n")
    if len(first) > limits.HTTP_TARGET_BYTES + 32:
        raise HttpError(414, "request target is too long", "too_big")
    if rest.count(b"\r\n") > limits.HTTP_HEADERS + 1:
        raise HttpError(431, "too many headers", "too_big")
    parts = _HeadParts()
    parser = parts.parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # Upgrade is not offered here: an ordinary request (RFC 9110 section 7.8)
    except httptools.HttpParserInvalidMethodError as error:
        method = first.partition(b" ")[0]
        if _LETTERS.issuperset(method) and first.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            raise HttpError(405, "this method is not known", "protocol") from error
        raise HttpError(400, "request line is malformed") from error
    except httptools.HttpParserError as error:
        raise HttpError(400, f"request is malformed: {error}") from error
    finally:
        parts.parser = None
    version = parser.get_http_version()
    if version not in ("1.0", "1.1") or not first.endswith(b" HTTP/" + version.encode()):
        raise HttpError(400, "only HTTP/1.x is spoken here", "protocol")
    if len(parts.target) > limits.HTTP_TARGET_BYTES:
        raise HttpError(414, "request target is too long", "too_big")
    hosts = sum(name == b"host" for name, _ in parts.headers)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise HttpError(400, "one Host header is required")
    encodings = sum(name == b"transfer-encoding" for name, _ in parts.headers)
    if encodings > 1:
        raise HttpError(400, "two Transfer-Encoding headers")
    return Head(
        parser.get_method().decode("ascii"),
        parts.target,
        version,
        tuple(parts.headers),
        parts.keep_alive,
    )
