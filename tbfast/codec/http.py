"""HTTP/1.x requests out of a byte stream; no I/O, no clock.

`RequestReader` finds the end of a head and gives the parser one complete, bounded head
(hostile-input 12, H1 and H2).  Bodies are cut here as well, so a request ends at an exact byte and
pipelined ones follow it.  After an error nothing more is read: a stream that was misread once
cannot be resynchronised (H3).
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from tbfast import limits
from tbfast._ext.http_head import Head as Head
from tbfast.codec.http_body import BodyReader
from tbfast.errors import HttpError as HttpError

_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}


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
        text = self.head(head, len(self.body), keep_alive=keep_alive)
        return text if head is not None and head.method == "HEAD" else text + self.body

    def head(self, head: Head | None, length: int, *, keep_alive: bool) -> bytes:
        """The same without the body, which has so many bytes."""
        lines = [f"HTTP/1.1 {self.status} {_PHRASES[self.status]}"]
        if self.content_type:
            lines.append(f"Content-Type: {self.content_type}")
        lines.append(f"Content-Length: {length}")
        lines.append("Cache-Control: no-store")
        lines += (f"{name}: {value}" for name, value in self.headers)
        if not keep_alive:
            lines.append("Connection: close")
        elif head is not None and head.version == "1.0":
            lines.append("Connection: keep-alive")
        return "\r\n".join((*lines, "", "")).encode("ascii")


CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Admission(NamedTuple):
    """What a request may bring, decided when its head is complete."""

    max_body: int  # bytes
    streamed: bool = False  # the body is handed over in parts


class RequestReader:
    """Bytes in, requests out, one at a time.

    max_body: bytes of a body; a longer one is refused when its length is known (H5).
    admit(head) decides by request instead, if given; it may raise HttpError.
    """

    def __init__(
        self,
        max_body: int = limits.HTTP_BODY_BYTES,
        admit: Callable[[Head], Admission] | None = None,
    ) -> None:
        self._admit = admit
        self._admission = Admission(max_body)
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer known to hold no end of head
        self._head: Head | None = None
        self._reading: BodyReader | None = None  # None: there is no body
        self._handed = False  # the request of a streamed body was returned
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
        return head is not None and head.expects_continue and not self._body and not self._buffer

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; nothing is parsed."""
        if not self._failed:
            self._buffer += data

    def next_request(self) -> Request | None:
        """The next complete request, or None if more bytes are needed.

        One whose body is streamed comes without it, as soon as its head is complete; no other
        follows before `next_part` has returned the whole body.
        Raises HttpError; after it every call returns None.
        """
        if self._failed or self._handed:
            return None
        try:
            if self._head is None and not self._read_head():
                return None
            head = self._head
            assert head is not None
            if self._reading is None:
                self._head = None
                return Request(head, b"")
            if self._admission.streamed:
                self._handed = True
                return Request(head, b"")
            if not self._reading.move(self._buffer, self._body):
                return None
        except HttpError:
            self._fail()
            raise
        return Request(head, self._end_body())

    def next_part(self) -> bytes:
        """What has come of a streamed body since the last call; `in_body` says if more is to come.

        Raises HttpError; after it every call returns nothing.
        """
        if self._failed or not self._handed:
            return b""
        assert self._reading is not None
        try:
            if self._reading.move(self._buffer, self._body):
                self._handed = False
                return self._end_body()
        except HttpError:
            self._fail()
            raise
        part = bytes(self._body)
        self._body.clear()
        return part

    def passes(self, data: bytes) -> bool:
        """Whether the bytes are nothing but the next part of a streamed body; then they are taken.

        Instead of `feed` and `next_part`, without a copy.
        """
        if not self._handed or self._buffer or self._body:
            return False
        assert self._reading is not None
        if not self._reading.passes(len(data)):
            return False
        if self._reading.complete:
            self._handed = False
            self._end_body()
        return True

    def rest(self) -> bytes:
        """Everything received and not parsed: what a peer sent after a request to upgrade."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _end_body(self) -> bytes:
        body = bytes(self._body)
        self._body.clear()
        self._head = self._reading = None
        return body

    def _fail(self) -> None:
        self._failed = True
        self._buffer.clear()

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
        self._head = Head(head)
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
        if self._admit is not None:
            self._admission = self._admit(head)
        max_body = self._admission.max_body
        if head.chunked:
            self._reading = BodyReader(None, max_body)
        else:
            self._reading = BodyReader(head.length, max_body) if head.length else None
