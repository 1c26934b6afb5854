"""Downloads of packages over HTTP (HTTP spec 5): chunks or whole files, in bounded memory."""

from typing import Final

from tbfast import limits
from tbfast.codec.http import Head, HttpError, Response
from tbfast.codec.http_range import byte_range
from tbfast.errors import RateLimited
from tbfast.model.auth import StoredCredentials
from tbfast.model.operations import Chunk, FindPackage, PackageFound, ReadChunk, Refusal, Result
from tbfast.model.package import PackageType, disposition, media_type
from tbfast.net.http_device import DeviceApi, response_of
from tbfast.net.http_exchange import Exchange, error_response
from tbfast.net.http_routes import ROOT, integer, parameters, target
from tbfast.net.http_stream import Stream
from tbfast.net.worker import Operations

_TYPES: Final[dict[str, PackageType]] = {"firmware": "FIRMWARE", "software": "SOFTWARE"}
_INT32_MAX: Final = (1 << 31) - 1
_STATUS: Final = {"unassigned": 404, "elsewhere": 404, "different": 400}


class PackageApi:
    """GET .../firmware and .../software; put it before the DeviceApi, which has the rest."""

    streamed = True
    prefixes: tuple[bytes, ...] = (ROOT,)

    def __init__(self, devices: DeviceApi, operations: Operations) -> None:
        self._devices = devices
        self._operations = operations

    def admit(self, head: Head) -> int | None:
        """As Handler.admit."""
        if head.method not in ("GET", "HEAD") or not head.path.startswith(ROOT):
            return None
        try:
            found = target(head.path)
        except HttpError:  # the DeviceApi says why
            return None
        return 0 if found is not None and found.name in _TYPES else None

    def begin(self, exchange: Exchange) -> None:
        """As Handler.begin."""
        assert isinstance(exchange, Stream)
        assert exchange.request is not None
        head = exchange.request.head
        exchange.headers = self._devices.origins.headers(head)
        found = target(head.path)
        assert found is not None  # else it would not have been admitted
        try:
            download = _Download(
                self._devices, self._operations, exchange, head, _TYPES[found.name]
            )
        except HttpError as error:
            self._devices.refuse(exchange, error)
            return
        self._devices.accept(found.token, exchange, download.begin)


class _Download:
    """One answer: which package, then its bytes a piece at a time while the peer takes them."""

    def __init__(
        self,
        devices: DeviceApi,
        operations: Operations,
        stream: Stream,
        head: Head,
        type_: PackageType,
    ) -> None:
        """HttpError (400) for parameters that are missing or no numbers."""
        query = parameters(head)
        self._wanted = FindPackage(
            type_, title=_required(query, "title"), version=_required(query, "version")
        )
        self._size = max(integer(query.get("size", "0"), "size"), 0)
        self._chunk = integer(query.get("chunk", "0"), "chunk") if self._size else 0
        if self._chunk < 0 or self._chunk * self._size > _INT32_MAX:
            raise HttpError(400, "The chunk is out of range")
        self._devices = devices
        self._operations = operations
        self._stream = stream
        self._head = head
        self._partial: tuple[str, str] | None = None  # Content-Range, if not all was wanted
        self._package = PackageFound("", 0)
        self._offset = 0
        self._left = 0
        self._device = 0
        self._request = 0  # what is being waited for; 0 = nothing
        self._flows = True
        stream.on_gone = self._give_up
        stream.on_flow = self._flow

    def begin(self, who: StoredCredentials) -> None:
        """The device is known."""
        if not self._stream.open:
            return
        try:
            self._devices.spend(who)
        except RateLimited as error:
            self._devices.limited(self._stream, error)
            return
        self._device = who.device
        self._request = self._operations.ask(who.device, self._wanted, self._found)

    def _found(self, result: Result) -> None:
        self._request = 0
        if not isinstance(result, PackageFound):
            self._refuse(result)
            return
        self._package = result
        self._offset = min(self._chunk * self._size, result.size)
        rest = result.size - self._offset
        self._left = min(self._size, rest) if self._size else rest
        if not self._narrow():
            return
        if self._left == 0 or self._head.method == "HEAD":
            self._finish(self._response_head())
        else:
            self._read()

    def _narrow(self) -> bool:
        """To the range that is wanted of these bytes; False: there is none, and 416 was answered.

        Nothing here can match an If-Range: without validators the whole is sent.
        """
        head, whole = self._head, self._left
        header = head.header(b"range")
        if header is None or head.method != "GET" or head.header(b"if-range") is not None:
            return True
        part = byte_range(header.decode("latin-1"), whole)
        if part is None or not whole:
            return True
        if not part:
            refusal = [("Content-Range", f"bytes */{whole}")]
            self._stream.answer(error_response(416, "The range cannot be had", refusal))
            return False
        self._offset += part.start
        self._left = len(part)
        self._partial = ("Content-Range", f"bytes {part.start}-{part.stop - 1}/{whole}")
        return True

    def _read(self) -> None:
        length = min(self._left, limits.OUTBOUND_PAUSE_BYTES)
        wanted = ReadChunk(self._package.id, self._offset, length)
        self._request = self._operations.ask(self._device, wanted, self._came)

    def _came(self, result: Result) -> None:
        self._request = 0
        stream = self._stream
        if not isinstance(result, Chunk):
            if stream.begun:
                stream.break_off()
            else:
                self._refuse(result)
            return
        data = result.data if stream.begun else self._response_head() + result.data
        self._offset += len(result.data)
        self._left -= len(result.data)
        if self._left == 0:
            self._finish(data)
            return
        stream.send(data)
        if self._flows and stream.open and not self._request:
            self._read()

    def _flow(self, on: bool) -> None:
        self._flows = on
        if on and self._left and not self._request and self._stream.begun:
            self._read()

    def _finish(self, data: bytes) -> None:
        self._left = 0
        self._stream.send(data)
        self._stream.finish(keep_alive=self._head.keep_alive)

    def _response_head(self) -> bytes:
        package = self._package
        headers = [*disposition(package.file_name), ("Accept-Ranges", "bytes")]
        if self._partial is not None:
            headers.append(self._partial)
        response = Response(
            206 if self._partial else 200,
            b"",
            media_type(package.content_type),
            (*headers, *self._stream.headers),
        )
        return response.head(self._head, self._left, keep_alive=self._head.keep_alive)

    def _refuse(self, result: Result) -> None:
        if isinstance(result, Refusal) and result.reason in _STATUS:
            status = _STATUS[result.reason]
            self._stream.answer(Response(status))
        elif isinstance(result, Refusal):
            self._stream.answer(response_of(result))
        else:
            self._stream.answer(error_response(500, "Internal error"))

    def _give_up(self) -> None:
        if self._request:
            self._operations.drop(self._request)
            self._request = 0


def _required(query: dict[str, str], name: str) -> str:
    if name not in query:
        raise HttpError(400, f"Required request parameter '{name}' is not present")
    return query[name]
