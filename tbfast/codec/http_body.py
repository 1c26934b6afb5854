"""Bodies of HTTP/1.x messages, cut out of a byte stream: by length or chunked (RFC 9112 6, 7.1)."""

from typing import Final

from tbfast import limits
from tbfast.errors import HttpError

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class BodyReader:
    """One body.

    length: its bytes, None if it is chunked.  Longer than max_bytes: HttpError (413), for a
    length at once, for a chunk when its size is known.
    """

    def __init__(self, length: int | None, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunked = length is None
        self._left = length  # of the body, or of the chunk; None: a chunk line is next
        self._size = 0  # data so far
        self._searched = 0  # bytes of the buffer known to hold no end of line
        self._trailers = False
        self._trailer_bytes = 0
        self._line_bytes = 0  # spent on chunk lines
        if length is not None:
            self._check_size(length)

    def move(self, buffer: bytearray, body: bytearray) -> bool:
        """Moves what there is from buffer to body; whether the body is complete.

        The buffer may only grow between two calls.  Raises HttpError.
        """
        if self._chunked:
            return self._move_chunks(buffer, body)
        assert self._left is not None
        piece = buffer[: self._left]
        del buffer[: len(piece)]
        body += piece
        self._left -= len(piece)
        return self._left == 0

    def passes(self, size: int) -> bool:
        """Whether that many bytes belong to a body with a length; then they are counted."""
        if self._chunked or self._left is None or size > self._left:
            return False
        self._left -= size
        return True

    @property
    def complete(self) -> bool:
        """Whether nothing of a body with a length is missing."""
        return not self._chunked and self._left == 0

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            message = f"Payload size exceeds the limit of {self._max_bytes} bytes"
            raise HttpError(413, message, "too_big")

    def _move_chunks(self, buffer: bytearray, body: bytearray) -> bool:
        offset = 0
        try:
            while True:
                if self._trailers:
                    line = self._line(buffer, offset, limits.HTTP_HEAD_BYTES)
                    if line is None:
                        return False
                    offset += len(line) + 2
                    self._trailer_bytes += len(line) + 2
                    if self._trailer_bytes > limits.HTTP_HEAD_BYTES:
                        raise HttpError(431, "trailer is too long", "too_big")
                    if not line:
                        return True
                elif self._left is None:
                    line = self._line(buffer, offset, limits.HTTP_CHUNK_LINE_BYTES)
                    if line is None:
                        return False
                    offset += len(line) + 2
                    size = _chunk_size(line)
                    self._check_overhead(len(line) + 4)
                    self._check_size(self._size + size)
                    self._trailers = size == 0
                    self._left = size + 2 if size else 0  # the CRLF after the data
                else:
                    offset = self._move_data(buffer, body, offset, self._left)
                    if self._left:
                        return False
                    self._left = None
        finally:
            # Once, at the end: cutting the front for every chunk would be quadratic (H4).
            del buffer[:offset]

    def _move_data(self, buffer: bytearray, body: bytearray, offset: int, left: int) -> int:
        """Moves what there is of a chunk's data and drops its CRLF; returns the new offset."""
        here = min(left, len(buffer) - offset)
        self._left = left - here
        # Of the last two bytes of a chunk, those present are the CRLF.
        text = min(here, max(0, left - 2))
        with memoryview(buffer) as view:
            body += view[offset : offset + text]
        self._size += text
        ending = buffer[offset + text : offset + here]
        if ending and ending != b"\r\n"[2 - min(left, 2) :][: len(ending)]:
            raise HttpError(400, "chunk data has another length than its size says")
        return offset + here

    def _line(self, buffer: bytearray, offset: int, limit: int) -> bytes | None:
        """The line at offset without CRLF, None if it is not complete."""
        start = max(offset, self._searched - 1)
        end = buffer.find(b"\r\n", start, offset + limit + 2)
        if end < 0:
            if len(buffer) - offset >= limit + 2:
                raise HttpError(400, "a line of a chunked body is too long", "too_big")
            self._searched = max(0, len(buffer) - offset)
            return None
        self._searched = 0
        return bytes(buffer[offset:end])

    def _check_overhead(self, size: int) -> None:
        """Bounds chunk lines by the data they carry: one-byte chunks pass, extensions do not."""
        self._line_bytes += size
        if self._line_bytes > 16 * self._size + 16_384:
            raise HttpError(400, "chunk lines outweigh the data", "too_big")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not 0 < len(digits) <= 16 or not _HEX.issuperset(digits):
        raise HttpError(400, "chunk size is not a hexadecimal number")
    return int(digits, 16)
