"""One file of a multipart/form-data body, handed on while it arrives (RFC 7578)."""

from collections.abc import AsyncIterator
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from tbfast.control.rest.errors import BAD_REQUEST, RestError, bad_request

_GATHER_BYTES: Final = 262_144
_HEADERS: Final = 8  # of one part
_HEADER_BYTES: Final = 4_096
_PARTS: Final = 16
_DEFAULT_TYPE: Final = "application/octet-stream"


class UploadedFile:
    """The part with a given name; `file_name` and `content_type` are known before its first byte.

    Raises RestError for a body that is none, too long or without that part.
    """

    def __init__(self, request: Request, part: str, max_bytes: int) -> None:
        self._request = request
        self._part = part.encode()
        self._max_bytes = max_bytes
        self._parts = 0
        self._found = False
        self._wanted = False  # the part that is being read is the file
        self._ended = False
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._waiting = bytearray()
        self.file_name = ""
        self.content_type = _DEFAULT_TYPE

    async def parts(self) -> AsyncIterator[bytes]:
        """The bytes of the file, gathered to pieces worth a write."""
        parser = self._parser()
        received = 0
        try:
            async for chunk in self._request.stream():
                received += len(chunk)
                if received > self._max_bytes:
                    raise self._too_long()
                parser.write(chunk)
                if len(self._waiting) >= _GATHER_BYTES:
                    yield self._taken()
        except FormParserError as error:
            raise bad_request(f"The body is no multipart/form-data: {error}") from error
        except ClientDisconnect as error:
            raise bad_request("The body was cut short") from error
        if not self._ended:
            raise bad_request("The body was cut short")
        if not self._found:
            raise bad_request("Required request part 'file' is not present")
        if self._waiting:
            yield self._taken()

    def _parser(self) -> MultipartParser:
        declared = self._request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            raise self._too_long()
        kind, options = parse_options_header(self._request.headers.get("content-type", ""))
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise bad_request("The body should be multipart/form-data")
        callbacks: Any = {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, a, b: self._header[0].extend(data[a:b]),
            "on_header_value": lambda data, a, b: self._header[1].extend(data[a:b]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }
        try:
            return MultipartParser(
                boundary, callbacks, max_header_count=_HEADERS, max_header_size=_HEADER_BYTES
            )
        except FormParserError as error:
            raise bad_request(str(error)) from error

    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise bad_request(f"The body has more than {_PARTS} parts")
        self._headers = {}
        self._wanted = False

    def _header_ends(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers_end(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(disposition)
        if options.get(b"name") != self._part or self._found:
            return
        self._found = self._wanted = True
        self.file_name = options.get(b"filename", b"").decode(errors="replace") or "package"
        given = self._headers.get(b"content-type", b"").decode("latin-1").strip()
        self.content_type = given or _DEFAULT_TYPE

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self._waiting += data[start:end]

    def _end(self) -> None:
        self._ended = True

    def _taken(self) -> bytes:
        taken = bytes(self._waiting)
        self._waiting.clear()
        return taken

    def _too_long(self) -> RestError:
        return RestError(413, BAD_REQUEST, f"The body is longer than {self._max_bytes} bytes")
