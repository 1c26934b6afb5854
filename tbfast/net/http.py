"""The HTTP port of a worker: asyncio connections around `codec.http`.

Requests of a connection are answered strictly in order: the next one is parsed when the answer to
the one before it is written, so what a peer pipelines waits as bytes, bounded, and then in the
kernel.
"""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from typing import Final, Literal, Protocol, cast

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.codec.http import CONTINUE, Admission, Head, HttpError, RequestReader, Response
from tbfast.net.http_exchange import RETRY, Exchange, Handler, Link, error_response
from tbfast.net.http_pages import Nobody, Pages
from tbfast.net.http_stream import Stream
from tbfast.obs.log import get_logger
from tbfast.obs.metrics import NodeMetrics

log = get_logger("tbfast.http")

OK: Final = Response(200)
_NEVER: Final = float("inf")
_OK_BYTES: Final = OK.encode(None, keep_alive=True)


class FastPath(Protocol):
    """Who takes plain telemetry: tbfast.net.http_device.DeviceApi."""

    def take(self, exchange: Exchange, data: bytes) -> bool: ...


class HttpPort:
    """All HTTP connections of one worker.

    handlers are asked in turn, after the pages of the node itself; a path of nobody is 404.
    fast: who takes plain telemetry POSTs without the detour of a parsed head.
    """

    def __init__(
        self,
        node: NodeMetrics,
        slot: Slot | None = None,
        handlers: Sequence[Handler] = (),
        *,
        fast: FastPath | None = None,
        max_connections: int | None = None,
    ) -> None:
        self._handlers: tuple[Handler, ...] = (Pages(node), *handlers, Nobody())
        self.reserved = tuple(prefix for one in self._handlers for prefix in one.prefixes)
        self.fast = fast
        self.slot = Slot() if slot is None else slot
        self.stopping = False
        self._body_bytes = 0  # held by all connections
        self._max_connections = max_connections or limits.HTTP_CONNECTIONS
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, None] = {}  # oldest first

    async def listen(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Serves connections of a bound socket."""
        self._server = await loop.create_server(lambda: _Connection(self, loop), sock=sock)

    def connection(self, loop: asyncio.AbstractEventLoop) -> asyncio.Protocol:
        """The protocol of a connection that was accepted elsewhere."""
        return _Connection(self, loop)

    def stop(self) -> None:
        """Takes no more connections; each that is open gets the answer it is owed, then ends."""
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()

    @property
    def open(self) -> int:
        """Connections that have not ended."""
        return len(self._connections)

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

    def bodies_grew(self, nbytes: int) -> None:
        """Bodies that are being read hold that much more; past the bound the largest is refused."""
        self._body_bytes += nbytes
        if self._body_bytes > limits.HTTP_BODIES_BYTES:
            self.slot.add(words.REFUSED_HTTP + words.REASON_LIMIT)
            max(self._connections, key=lambda connection: connection.body_bytes).refuse_body()

    def admit(self, head: Head) -> tuple[Handler, int]:
        """Whose request it is, and how many bytes its body may have."""
        for handler in self._handlers:
            max_body = handler.admit(head)
            if max_body is not None:
                return handler, max_body
        raise AssertionError("the last handler takes every path")


class _Connection(asyncio.Protocol):
    """One connection: reader, the request being answered, and one deadline."""

    def __init__(self, port: HttpPort, loop: asyncio.AbstractEventLoop) -> None:
        self._port = port
        self._loop = loop
        self._reader = RequestReader(admit=self._admit)
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None  # the one that is being answered
        self._stream: Stream | None = None  # the same, if it is one
        self._plain = Exchange(None, None, 0)  # the same for requests on the fast path
        self.link: Link | None = None
        self.peer = "-"  # its address
        self.forwarded = b"-"  # the same for the controller, and whether over TLS
        self._handler: Handler | None = None  # of the request that is being read
        self.body_bytes = 0  # as last told to the port
        self._scheduled = False
        self._beginning = False  # an answer that comes at once must not recurse
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
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = name[0]
        over_tls = transport.get_extra_info("sslcontext") is not None
        self.forwarded = self.peer.encode() + (b";proto=https" if over_tls else b"")
        self._port.opened(self)
        self._arm(limits.HTTP_HEAD_TIMEOUT_MS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        self._port.closed(self)

    def data_received(self, data: bytes) -> None:
        self._port.slot.add(words.RECEIVED_BYTES_HTTP, len(data))
        if self._closing:
            return  # lingering: the peer may not have seen the answer yet
        if self._exchange is None and not self._write_paused and self._reader.idle:
            fast = self._port.fast
            if fast is not None and fast.take(self._plain, data):
                self._exchange = self._plain
                self._plain.owe(self)
                self._phase = "idle"
                self._deadline = _NEVER
                return
            if self.link is not None:
                taken = self.link.take(self, data, self._port.reserved)
                if taken is not None:
                    self._exchange = self._stream = taken
                    self._phase = "idle"
                    self._deadline = _NEVER
                    return
        stream = self._stream
        if stream is not None:
            if stream.spliced:
                stream.on_part(data, False)
                return
            if stream.wants() and self._reader.passes(data):
                stream.pass_part(data, not self._reader.in_body)
                self.body_wanted()
                return
        self._reader.feed(data)
        self._advance()

    def eof_received(self) -> bool:
        # A peer may end its side after its requests and still wait for the answers.
        self._eof = True
        if self._stream is not None:
            if self._stream.spliced:
                return False
            self.body_wanted()
        if self._exchange is not None:
            self._exchange.ended()
        if self._transport is not None and not self._transport.can_write_eof():
            return False  # TLS ends both sides at once
        return self._exchange is not None or self._scheduled or self._write_paused

    @property
    def peer_ended(self) -> bool:
        """Whether no more comes from the peer."""
        return self._eof

    def pause_writing(self) -> None:
        self._write_paused = True
        self._arm(limits.WRITE_TIMEOUT_MS)
        if self._stream is not None:
            self._stream.on_flow(False)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._closing:
            self._arm(limits.HTTP_LINGER_MS)
        elif self._exchange is not None:
            self._disarm()
            if self._stream is not None:
                self._stream.on_flow(True)
                self.body_wanted()
        else:
            self._phase = "idle" if self._phase == "waiting" else self._phase
            self._advance()

    # --- requests -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Answers what is complete, a bounded number in a row, and sets the next deadline."""
        self._scheduled = False
        for _ in range(limits.HTTP_REQUESTS_PER_TURN):
            if self._stream is not None:
                self.body_wanted()
                return
            if self._closing or self._exchange is not None or self._write_paused:
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
            if self.body_bytes:
                self._count_body(0)
            assert self._handler is not None
            kind = Stream if self._handler.streamed else Exchange
            self._begin(kind(self, request, time.monotonic_ns()), self._handler)
        if not (self._closing or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._advance)
            self._hold()

    def _admit(self, head: Head) -> Admission:
        self._continued = False
        self._handler, max_body = self._port.admit(head)
        return Admission(max_body, self._handler.streamed)

    def _begin(self, exchange: Exchange, handler: Handler) -> None:
        self._exchange = exchange
        self._stream = exchange if isinstance(exchange, Stream) else None
        self._beginning = True
        try:
            handler.begin(exchange)
        except Exception as error:  # noqa: BLE001  # one request's failure is not the worker's
            self._failed(exchange, error)
        finally:
            self._beginning = False
        if self._exchange is not None:
            self._disarm()

    def _failed(self, exchange: Exchange, error: Exception) -> None:
        log.limited("http_handler", 40, "request failed", error=repr(error), exc_info=error)
        exchange.answer(error_response(500, "Internal error"))

    # --- what exchanges do --------------------------------------------------------------------

    def answered(self, exchange: Exchange, response: Response) -> None:
        """The whole answer of the current exchange."""
        request = exchange.request
        if request is None and response is OK and not self._port.stopping:
            self._write(_OK_BYTES)
            self._exchange = None
            self._next()
            return
        # After a 400 the peer and we may not agree where the next request begins (HTTP spec 1.2).
        # Nor is it known after an answer that came before the whole request.
        keep_alive = not self._port.stopping and response.status != 400 and not self._reader.in_body
        head = request.head if request is not None else None
        keep_alive = keep_alive and (head is None or head.keep_alive)
        if exchange.headers:
            response = response._replace(headers=(*response.headers, *exchange.headers))
        self._write(response.encode(head, keep_alive=keep_alive))
        self.finished(keep_alive=keep_alive)

    def finished(self, *, keep_alive: bool) -> None:
        """The answer has been written; the next request, or the end."""
        self._exchange = self._stream = None
        if not keep_alive or self._port.stopping:
            self._linger()
        elif not self._beginning:
            self._next()

    def passed(self, answer: bytes) -> None:
        """The whole answer of a stream, framed; the connection goes on."""
        self._stream = None  # whose sender must not be held up by what it sent last
        self._write(answer)
        self.finished(keep_alive=True)

    def _next(self) -> None:
        """The connection is free for another request."""
        if (
            self._timer is None
            or self._write_paused
            or self._read_paused
            or self._eof
            or not self._reader.idle
        ):
            self._advance()
            return
        # As _wait; the timer was set before this request, so it is not later than this.
        self._phase = "waiting"
        self._deadline = self._loop.time() + limits.HTTP_IDLE_TIMEOUT_MS / 1000

    def send(self, data: bytes) -> None:
        """Part of an answer."""
        self._write(data)

    def broke_off(self) -> None:
        """The answer ends before it is complete."""
        self.abort()

    def body_wanted(self) -> None:
        """Hands on what there is of a streamed body, or lets it wait; past the bound in the kernel.

        The peer's time to send runs only while somebody waits for it.
        """
        stream = self._stream
        if stream is None or self._transport is None or self._closing:
            return
        if stream.spliced:
            self._read(on=stream.wants())
            return
        now_s = self._loop.time()
        try:
            more = stream.pump(self._reader, now_s)
        except HttpError as error:
            self._refuse(error)
            return
        if stream is not self._stream:
            return
        if more and self._eof:
            self.abort()  # the rest of the body will not come
        elif more:
            self._read(on=True)
            self._arm(stream.patience_ms(now_s))
        else:
            if not self._write_paused:
                self._disarm()
            self._hold()

    def splice(self) -> None:
        """No more HTTP here: what came early goes first."""
        stream = self._stream
        assert stream is not None
        if early := self._reader.rest():
            stream.on_part(early, False)
        stream.want(True)

    def _write(self, data: bytes) -> None:
        """Sends bytes."""
        if self._transport is not None:
            self._port.slot.add(words.SENT_BYTES_HTTP, len(data))
            self._transport.write(data)

    def stop(self) -> None:
        """Ends after the answer that is owed; at once if none is."""
        if self._exchange is None and not self._closing:
            self._linger()

    def _count_body(self, nbytes: int) -> None:
        grown, self.body_bytes = nbytes - self.body_bytes, nbytes
        if grown:
            self._port.bodies_grew(grown)

    def refuse_body(self) -> None:
        """The worker holds too much of what is not complete yet."""
        self._refuse(HttpError(503, "too much is being received; try again", "limit"))

    def _drop(self) -> None:
        """Nobody is there any more."""
        self._count_body(0)
        exchange, self._exchange, self._stream = self._exchange, None, None
        if exchange is not None:
            exchange.gone()
        if self.link is not None:
            self.link.abandon()
            self.link = None

    def _refuse(self, error: HttpError) -> None:
        reason = getattr(words, f"REASON_{error.reason.upper()}")
        self._port.slot.add(words.REFUSED_HTTP + reason)
        log.limited(
            f"http_{error.reason}", 20, "request refused", status=error.status, error=str(error),
            peer=self.peer,
        )  # fmt: skip
        begun = self._stream is not None and self._stream.begun
        if error.reason == "wrong_port" or begun:
            self.abort()  # TLS or MQTT: the peer could not read an answer; or it has half of one
            return
        self._write(self._refusal(error).encode(None, keep_alive=False))
        self._drop()
        self._linger()

    def _refusal(self, error: HttpError) -> Response:
        head = self._reader.head
        if error.status == 413 and head is not None and head.path.startswith(b"/api/v1/"):
            return Response(413, json.dumps(str(error)).encode(), "application/json")
        headers = RETRY if error.status == 503 else ()
        return error_response(error.status, str(error), headers)

    # --- reading and time ---------------------------------------------------------------------

    def _wait(self) -> None:
        """More bytes are needed: deadline by phase; progress within a phase does not extend it."""
        if self._eof:
            self._linger()
            return
        self._read(on=True)
        if self._reader.in_body:
            if self._phase != "body":
                self._phase = "body"
                self._arm(limits.HTTP_BODY_TIMEOUT_MS)
            self._count_body(self._reader.held)
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
        if self._closing or self._transport is None:
            return
        self._read(on=self._reader.buffered <= limits.HTTP_HEAD_BYTES)

    def _read(self, *, on: bool) -> None:
        if self._transport is None or self._transport.is_closing() or on is not self._read_paused:
            return
        self._read_paused = not on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _arm(self, timeout_ms: int) -> None:
        self._deadline = self._loop.time() + timeout_ms / 1000
        # A timer that is early looks again: moving it for every request would cost more.
        if self._timer is None or self._timer.when() > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _disarm(self) -> None:
        """The timer stays and fires for nothing: cancelling it each time would cost more."""
        self._deadline = _NEVER

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline == _NEVER:
            return
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
        self._read(on=True)
        if self._eof:
            self._transport.close()
            return
        if not self._transport.can_write_eof():
            self._transport.close()  # TLS waits for the peer's end of it, bounded by its own timer
            return
        self._transport.write_eof()
        self._arm(limits.WRITE_TIMEOUT_MS if self._write_paused else limits.HTTP_LINGER_MS)

    def abort(self) -> None:
        """Closes without a further byte."""
        self._closing = True
        self._drop()
        if self._transport is not None:
            self._transport.abort()
            self._port.closed(self)
