"""One connection of a worker to the controller's ASGI server."""

import asyncio
from typing import Final, Protocol, cast

from tbfast import limits
from tbfast._ext.http_head import whole_answer, whole_request
from tbfast.codec.http import Head, HttpError, Request
from tbfast.codec.http_upstream import (
    LAST_CHUNK,
    AnswerHead,
    AnswerReader,
    chunk,
)
from tbfast.net.http_exchange import Carrier, Origins, error_response
from tbfast.net.http_stream import Stream
from tbfast.obs.log import get_logger

log = get_logger("tbfast.proxy")

_SAFE: Final = frozenset(("GET", "HEAD", "OPTIONS"))
_CALLS: Final = b"/api/rpc/calls"  # whose answer is given to one client only


class Owner(Protocol):
    """Who keeps upstreams: tbfast.net.proxy.Proxy."""

    origins: Origins

    def rested(self, upstream: "Upstream") -> None: ...
    def resumed(self, upstream: "Upstream") -> bool: ...
    def ended(self, upstream: "Upstream") -> None: ...
    def again(self, exchange: Stream, asked: Head, request: bytes) -> None: ...
    def unavailable(self, exchange: Stream) -> None: ...


class Upstream(asyncio.Protocol):
    """Serves one exchange at a time."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._exchange: Stream | None = None
        self._lane: Stream | None = None  # of all requests that `take` took
        self._asked: Head | None = None
        self._request: bytes | None = None
        self._used = False  # for an exchange before this one
        self._body_sent = True
        self._chunked_up = False
        self._answer: AnswerHead | None = None
        self._chunked_down = False
        self._keep_alive = False  # of the client's connection
        self._held = False  # is not read: the client does not take what there is
        self.spliced = False

    # --- one exchange -------------------------------------------------------------------------

    def begin(self, exchange: Stream, asked: Head, request: bytes) -> None:
        """Sends a request, whose body follows in parts; the connection is open and idle."""
        assert self._transport is not None
        self._exchange, self._asked, self._request = exchange, asked, request
        self._answer = None
        self._reader.expect(asked.method)
        self._chunked_up = asked.chunked
        self._body_sent = not asked.has_body
        exchange.on_part = self._send_part
        exchange.on_flow = self._flow
        exchange.on_gone = self.end
        exchange.on_ended = self._client_ended
        self._transport.write(request)
        if not self._body_sent:
            exchange.want(True)
        if exchange.peer_ended:
            self._client_ended()

    def take(self, carrier: Carrier, data: bytes, reserved: tuple[bytes, ...]) -> Stream | None:
        """As Link.take."""
        transport = self._transport
        found = whole_request(data, carrier.forwarded, reserved)
        if found is None or transport is None or not self._owner.resumed(self):
            return None
        asked, request = found
        lane = self._lane
        if lane is None:
            lane = self._lane = Stream(carrier, Request(asked, b""), 0)
            lane.on_flow = self._flow
            lane.on_gone = self.end
            lane.on_ended = self._client_ended
        else:
            lane.renew(carrier, Request(asked, b""))
        self._exchange, self._asked, self._request = lane, asked, request
        self._answer = None
        self._reader.expect(asked.method)
        self._body_sent = True
        transport.write(request)
        return lane

    def _client_ended(self) -> None:
        """It may wait for its answer, but a device's call must not go to one that has gone."""
        exchange, asked = self._exchange, self._asked
        if exchange is None or asked is None or asked.path != _CALLS or self._answer is not None:
            return
        self._exchange = None
        self.end()
        exchange.break_off()

    def _send_part(self, part: bytes, last: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._chunked_up and not self.spliced:
            part = chunk(part) + (LAST_CHUNK if last else b"")
        self._body_sent = last
        if part:
            self._transport.write(part)

    def _flow(self, on: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._held = not on
        if on:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _pass_whole(self, exchange: Stream, data: bytes) -> bool:
        """Passes on an answer that came in one read, if both connections go on after it."""
        asked = self._asked
        fresh = self._answer is None and self._reader.fresh
        if asked is None or not (fresh and self._body_sent):
            return False
        answer = whole_answer(data, asked)
        if answer is None:
            return False
        self._exchange = self._asked = None
        self._used = True
        self._owner.rested(self)
        exchange.pass_answer(answer)
        return True

    def _relay(self, exchange: Stream) -> None:
        """Passes on what has come of the answer, in one write if it came in one read."""
        reader = self._reader
        out = b""
        while self._answer is None:
            answer = reader.next_head()
            if answer is None:
                return
            out = self._take_head(exchange, answer)
            if answer.status == 101:
                return
        part = reader.next_part()
        complete = reader.complete
        if self._chunked_down:
            part = chunk(part) + (LAST_CHUNK if complete else b"")
        if out or part:
            exchange.send(out + part)
        if complete:
            self._finish(exchange)

    def _take_head(self, exchange: Stream, answer: AnswerHead) -> bytes:
        """The head for the client, if it is not sent here: an interim one or an upgrade's."""
        asked, request = self._asked, self._request
        assert asked is not None
        assert request is not None
        if answer.status == 101:
            if not asked.websocket:
                raise HttpError(502, "the controller upgrades what nobody asked for")
            self._answer = answer
            exchange.send(
                answer.encode(asked, keep_alive=True, chunked=False) + self._reader.rest()
            )
            self.spliced = True
            exchange.splice()
            return b""
        if answer.interim:
            if asked.version == "1.1":
                exchange.send_interim(answer.encode(asked, keep_alive=True, chunked=False))
            return b""
        self._answer = answer
        unknown = not self._reader.complete and answer.length is None
        self._chunked_down = unknown and asked.version == "1.1"
        # Who answers before the body is there will not read the rest of it.
        self._keep_alive = (
            asked.keep_alive and self._body_sent and (self._chunked_down or not unknown)
        )
        return answer.encode(asked, keep_alive=self._keep_alive, chunked=self._chunked_down)

    def _finish(self, exchange: Stream) -> None:
        answer = self._answer
        assert answer is not None
        reusable = answer.keep_alive and self._body_sent and not self._reader.rest()
        self._exchange = self._asked = None
        self._used = True
        if self._held:
            self._flow(True)  # what the client has not taken yet holds up its own requests only
        if reusable:
            self._owner.rested(self)
        else:
            self.end()
        exchange.finish(keep_alive=self._keep_alive)

    # --- asyncio ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.PROXY_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.end()  # an answer that nobody asked for
        elif self.spliced:
            exchange.send(data)
        elif self._answer is not None and not self._chunked_down and self._reader.passes(data):
            exchange.send(data)
            if self._reader.complete:
                self._finish(exchange)
        elif not self._pass_whole(exchange, data):
            self._reader.feed(data)
            try:
                self._relay(exchange)
            except HttpError as error:
                log.limited(
                    "proxy_answer", 30, "the controller's answer is refused", error=str(error)
                )
                self._fail(exchange, error.status, str(error))

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.want(False)

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.want(True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.ended(self)
        exchange, asked, request = self._exchange, self._asked, self._request
        if exchange is None or asked is None or request is None:
            return
        if self.spliced:
            exchange.finish(keep_alive=False)
        elif self._answer is not None:
            self._end_of_answer(exchange)
        elif self._used and asked.method in _SAFE and self._body_sent and not exchange.begun:
            self._exchange = None
            self._owner.again(exchange, asked, request)
        elif asked.method in _SAFE:
            self._owner.unavailable(exchange)
        else:
            self._fail(exchange, 502, "The controller went away; the request may have been served")

    def _end_of_answer(self, exchange: Stream) -> None:
        if not self._reader.closed():
            self._fail(exchange, 502, "")
            return
        if self._chunked_down:
            exchange.send(LAST_CHUNK)
        self._finish(exchange)

    def _fail(self, exchange: Stream, status: int, message: str) -> None:
        """Ends the exchange with an error, or with its connection if an answer has begun."""
        self._exchange = None
        self.end()
        if exchange.begun:
            exchange.break_off()
        else:
            assert exchange.request is not None
            exchange.headers = self._owner.origins.headers(exchange.request.head)
            exchange.answer(error_response(status, message))

    # --- its end ------------------------------------------------------------------------------

    def abandon(self) -> None:
        """As Link.abandon."""
        self.end()

    def end(self) -> None:
        """Closes; what a spliced client has sent still arrives.  Who waits is told."""
        exchange, self._exchange = self._exchange, None
        transport, self._transport = self._transport, None
        self._owner.ended(self)
        if transport is not None and self.spliced:
            transport.close()
        elif transport is not None:
            transport.abort()
        if exchange is None:
            return
        if self.spliced:
            exchange.finish(keep_alive=False)
        elif exchange.begun:
            exchange.break_off()
        else:
            self._owner.unavailable(exchange)
