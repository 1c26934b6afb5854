"""The HTTP port of a worker: asyncio connections around `codec.http`.

Requests of a connection are answered strictly in order: the next one is parsed when the answer to
the one before it is written, so what a peer pipelines waits as bytes, bounded, and then in the
kernel.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, cast

import msgspec

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.codec.http import CONTINUE, HttpError, Request, RequestReader, Response
from tbfast.obs.http import HealthPages
from tbfast.obs.log import get_logger
from tbfast.obs.metrics import NodeMetrics

log = get_logger("tbfast.http")

# A handler answers now, later, or says with None that the path is not its own.
Handler = Callable[[Request], Response | Awaitable[Response] | None]

_ERROR_CODES: Final = {400: 31, 404: 32, 429: 33}  # REST spec 1.3; others are general
_GENERAL: Final = 2


def error_response(status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """The error envelope of ThingsBoard's API (REST spec 1.3)."""
    body = {
        "status": status,
        "message": message,
        "errorCode": _ERROR_CODES.get(status, _GENERAL),
        "timestamp": time.time_ns() // 1_000_000,
    }
    return Response(status, msgspec.json.encode(body), "application/json", tuple(headers))


class HttpPort:
    """All HTTP connections of one worker.

    handlers are asked in turn, after the pages of the node itself; a path of nobody is 404.
    """

    def __init__(
        self,
        node: NodeMetrics,
        slot: Slot | None = None,
        handlers: Sequence[Handler] = (),
        *,
        max_connections: int = limits.HTTP_CONNECTIONS,
    ) -> None:
        self._max_connections = max_connections
        self._pages = HealthPages(node)
        self._handlers = tuple(handlers)
        self.slot = Slot() if slot is None else slot
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}  # oldest first

    async def listen(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Serves connections of a bound socket."""
        self._server = await loop.create_server(lambda: _Connection(self, loop), sock=sock)

    def close(self) -> None:
        """Stops listening and closes every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()

    def opened(self, connection: "_Connection") -> None:
        """Takes a new connection in; when the port is full the oldest one goes."""
        if len(self._connections) >= self._max_connections:
            self.slot.add(words.REFUSED_HTTP + words.REASON_LIMIT)
            next(iter(self._connections)).abort()
        self._connections[connection] = None
        self.slot.add(words.CONNECTIONS_HTTP)

    def closed(self, connection: "_Connection") -> None:
        """Forgets a connection; called once for each."""
        if connection in self._connections:
            del self._connections[connection]
            self.slot.subtract(words.CONNECTIONS_HTTP)

    def answer(self, request: Request, now_s: float) -> Response | Awaitable[Response]:
        """What a request gets; a handler that fails gets 500 and is logged."""
        head = request.head
        page = self._pages.page(head.path, now_s)
        if page is not None:
            if head.method not in ("GET", "HEAD"):
                return error_response(405, "Method not allowed", [("Allow", "GET, HEAD")])
            return Response(page.status, page.body, page.content_type)
        for handler in self._handlers:
            response = handler(request)
            if response is not None:
                return response
        return error_response(404, "Not found")


class _Connection(asyncio.Protocol):
    """One connection: reader, the request being answered, and one deadline."""

    def __init__(self, port: HttpPort, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._loop = loop
        self._reader = RequestReader()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._scheduled = False
        self._read_paused = False
        self._write_paused = False
        self._closing = False
        self._eof = False
        self._continued = False
        # head: one is incomplete, or nothing came yet; body: likewise; idle: between two requests,
        # waiting: the same with its deadline set.
        self._phase: Literal["head", "body", "idle", "waiting"] = "head"
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.OUTBOUND_PAUSE_BYTES)
        self._port.opened(self)
        self._arm(limits.HTTP_HEAD_TIMEOUT_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._port.closed(self)

    def data_received(self, data: bytes) -> None:
        self._port.slot.add(words.RECEIVED_BYTES_HTTP, len(data))
        if self._closing:
            return  # lingering: the peer may not have seen the answer yet
        self._reader.feed(data)
        self._advance()

    def eof_received(self) -> bool:
        # A peer may end its side after its requests and still wait for the answers.
        self._eof = True
        return self._task is not None or self._scheduled or self._write_paused

    def pause_writing(self) -> None:
        self._write_paused = True
        self._arm(limits.WRITE_TIMEOUT_MS)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._closing:
            self._arm(limits.HTTP_LINGER_MS)
        elif self._task is not None:
            self._disarm()
        else:
            self._phase = "idle" if self._phase == "waiting" else self._phase
            self._advance()

    # --- requests -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Answers what is complete, a bounded number in a row, and sets the next deadline."""
        self._scheduled = False
        for _ in range(limits.HTTP_REQUESTS_PER_TURN):
            if self._closing or self._task is not None or self._write_paused:
                self._hold()
                return
            try:
                request = self._reader.next_request()
            except HttpError as error:
                self._refuse(error)
                return
            if request is None:
                self._wait()
                return
            self._phase = "idle"
            self._continued = False
            self._begin(request)
        if not (self._closing or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._advance)
            self._hold()

    def _begin(self, request: Request) -> None:
        try:
            answer = self._port.answer(request, self._loop.time())
        except Exception as error:  # noqa: BLE001  # one request's failure is not the worker's
            answer = self._failed(error)
        if isinstance(answer, Response):
            self._send(request, answer)
        else:
            self._disarm()
            self._task = self._loop.create_task(self._later(request, answer))

    async def _later(self, request: Request, answer: Awaitable[Response]) -> None:
        try:
            response = await answer
        except Exception as error:  # noqa: BLE001  # as in _begin
            response = self._failed(error)
        self._task = None
        self._send(request, response)
        self._advance()

    def _failed(self, error: Exception) -> Response:
        log.limited("http_handler", 40, "request failed", error=repr(error), exc_info=error)
        return error_response(500, "Internal error")

    def _send(self, request: Request, response: Response) -> None:
        keep_alive = request.head.keep_alive
        self._write(response.encode(request.head, keep_alive))
        if not keep_alive:
            self._linger()

    def _refuse(self, error: HttpError) -> None:
        reason = getattr(words, f"REASON_{error.reason.upper()}")
        self._port.slot.add(words.REFUSED_HTTP + reason)
        log.limited(
            f"http_{error.reason}", 20, "request refused", status=error.status, error=str(error),
            peer=self._peer(),
        )  # fmt: skip
        if error.reason == "wrong_port":
            self.abort()  # TLS or MQTT: the peer could not read an answer
            return
        self._write(error_response(error.status, str(error)).encode(None, keep_alive=False))
        self._linger()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._port.slot.add(words.SENT_BYTES_HTTP, len(data))
            self._transport.write(data)

    def _peer(self) -> str:
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "-"

    # --- reading and time ---------------------------------------------------------------------

    def _wait(self) -> None:
        """More bytes are needed: deadline by phase; progress within a phase does not extend it."""
        if self._eof:
            self._linger()
            return
        if self._read_paused and self._transport is not None:
            self._read_paused = False
            self._transport.resume_reading()
        if self._reader.in_body:
            if self._phase != "body":
                self._phase = "body"
                self._arm(limits.HTTP_BODY_TIMEOUT_MS)
            if self._reader.wants_continue and not self._continued:
                self._continued = True
                self._write(CONTINUE)
        elif self._reader.in_head:
            if self._phase in ("idle", "waiting"):
                self._phase = "head"
                self._arm(limits.HTTP_HEAD_TIMEOUT_MS)
        elif self._phase == "idle":
            self._phase = "waiting"
            self._arm(limits.HTTP_IDLE_TIMEOUT_MS)

    def _hold(self) -> None:
        """Bytes must wait: past the bound they wait in the kernel."""
        if (
            not (self._read_paused or self._closing)
            and self._transport is not None
            and self._reader.buffered > limits.HTTP_HEAD_BYTES
        ):
            self._read_paused = True
            self._transport.pause_reading()

    def _arm(self, timeout_ms: int) -> None:
        self._deadline = self._loop.time() + timeout_ms / 1000
        # A timer that is early looks again: moving it for every request would cost more.
        if self._timer is None or self._timer.when() > self._deadline:
            self._disarm()
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._on_timer)
        elif self._closing or self._write_paused or self._phase == "waiting":
            self.abort()
        elif self._reader.in_head or self._reader.in_body:
            self._refuse(HttpError(408, "request is not complete in time", "timeout"))
        else:
            self._port.slot.add(words.REFUSED_HTTP + words.REASON_TIMEOUT)
            self.abort()

    def _linger(self) -> None:
        """Ends our side; closing at once could destroy the answer on its way (RFC 9112 9.6)."""
        self._closing = True
        if self._transport is None:
            return
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()
        if self._eof:
            self._transport.close()
            return
        self._transport.write_eof()
        self._arm(limits.WRITE_TIMEOUT_MS if self._write_paused else limits.HTTP_LINGER_MS)

    def abort(self) -> None:
        """Closes without a further byte."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()
            self._port.closed(self)
