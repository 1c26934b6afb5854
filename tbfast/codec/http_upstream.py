"""Answers of the controller out of a byte stream, for the reverse proxy; no I/O, no clock."""

from typing import Final

from tbfast import limits
from tbfast._ext.http_head import AnswerHead as AnswerHead
from tbfast.codec.http_body import BodyReader
from tbfast.errors import HttpError

LAST_CHUNK: Final = b"0\r\n\r\n"
_ANY_LENGTH: Final = (1 << 63) - 1


def chunk(part: bytes) -> bytes:
    """A part of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


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

    @property
    def fresh(self) -> bool:
        """Whether nothing of the next head has come."""
        return not self._buffer

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
        head = AnswerHead(bytes(self._buffer[: end + 4]), self._method)
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

    def passes(self, data: bytes) -> bool:
        """Whether the bytes are nothing but the next part of the body; then they are taken.

        Instead of `feed` and `next_part`, without a copy.
        """
        if self._buffer or self._reading is None or not self._reading.passes(len(data)):
            return False
        self.complete = self._reading.complete
        return True

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
