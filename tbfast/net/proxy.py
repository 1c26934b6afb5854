"""The reverse proxy of a worker: paths that are nobody's here are the controller's.

Every client connection has at most one connection to the controller, kept between its requests
for a moment.  Both directions stop reading when the other side does not take what there is.
"""

import asyncio
import re
from typing import Final

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.codec.http import Head, HttpError
from tbfast.net.http_exchange import ANY_ORIGIN, RETRY, Exchange, Origins, error_response
from tbfast.net.http_stream import Stream
from tbfast.net.proxy_upstream import Upstream

_PACKAGE: Final = re.compile(rb"/api/otaPackage/[^/]+")


class Proxy:
    """Hands requests to the ASGI server that listens on a Unix socket; all on the loop's thread.

    Put it last among the handlers: it takes every path.
    """

    streamed = True
    prefixes: tuple[bytes, ...] = ()

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        slot: Slot,
        *,
        max_upload: int = limits.REST_PACKAGE_BYTES,
        max_connections: int | None = None,
        origins: Origins = ANY_ORIGIN,
    ) -> None:
        self._loop = loop
        self._path = path
        self._slot = slot
        self._max_upload = max_upload
        self._max_connections = max_connections or limits.PROXY_CONNECTIONS
        self.origins = origins
        self._open: set[Upstream] = set()  # bound: max_connections
        self._idle: dict[Upstream, float] = {}  # longest first; since when
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def admit(self, head: Head) -> int:
        """As Handler.admit."""
        package = head.method == "POST" and _PACKAGE.fullmatch(head.path)
        return self._max_upload if package else limits.REST_BODY_BYTES

    def begin(self, exchange: Exchange) -> None:
        """As Handler.begin."""
        assert isinstance(exchange, Stream)
        assert exchange.request is not None
        asked = exchange.request.head
        exchange.headers = self.origins.headers(asked)  # of answers that are not the controller's
        try:
            request = asked.forward(exchange.forwarded)
        except HttpError as error:
            self._count(error.reason)
            exchange.answer(error_response(error.status, str(error)))
            return
        link = exchange.link
        if isinstance(link, Upstream) and self.resumed(link):
            link.begin(exchange, asked, request)
        elif len(self._open) >= self._max_connections and not self._evict():
            self._count("limit")
            self.unavailable(exchange)
        else:
            self._connect(exchange, asked, request)

    def stop(self) -> None:
        """Graceful stop: spliced connections end now, answers that never end in a moment."""
        for upstream in list(self._open):
            if upstream.spliced:
                upstream.end()
        self._loop.call_later(limits.PROXY_DRAIN_MS / 1000, self.close)

    def close(self) -> None:
        """Ends every connection to the controller."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for upstream in list(self._open):
            upstream.end()

    # --- what upstreams say -------------------------------------------------------------------

    def rested(self, upstream: Upstream) -> None:
        """An exchange is over and the connection is good for the next one."""
        self._idle[upstream] = self._loop.time()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(limits.PROXY_IDLE_MS / 1000, self._sweep)

    def resumed(self, upstream: Upstream) -> bool:
        """A connection that rests is used again; False: it does not rest."""
        return self._idle.pop(upstream, None) is not None

    def ended(self, upstream: Upstream) -> None:
        """A connection is no more."""
        self._open.discard(upstream)
        self._idle.pop(upstream, None)

    def again(self, exchange: Stream, asked: Head, request: bytes) -> None:
        """A kept connection ended before it said anything: one more try on a new one."""
        self._connect(exchange, asked, request)

    def unavailable(self, exchange: Exchange) -> None:
        """Nobody has seen the request."""
        assert exchange.request is not None
        exchange.headers = self.origins.headers(exchange.request.head)
        exchange.answer(error_response(503, "The controller is away; try again", RETRY))

    # --- connections --------------------------------------------------------------------------

    def _connect(self, exchange: Stream, asked: Head, request: bytes) -> None:
        upstream = Upstream(self)
        self._open.add(upstream)
        exchange.link = upstream
        exchange.on_gone = upstream.end
        task = self._loop.create_task(self._dial(upstream, exchange, asked, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _dial(
        self, upstream: Upstream, exchange: Stream, asked: Head, request: bytes
    ) -> None:
        try:
            await self._loop.create_unix_connection(lambda: upstream, self._path)
        except OSError:
            self.ended(upstream)
            self.unavailable(exchange)
            return
        if exchange.open:
            upstream.begin(exchange, asked, request)
        else:
            upstream.end()

    def _evict(self) -> bool:
        upstream = next(iter(self._idle), None)
        if upstream is None:
            return False
        upstream.end()
        self.ended(upstream)
        return True

    def _sweep(self) -> None:
        self._sweeper = None
        now = self._loop.time()
        wait_s = limits.PROXY_IDLE_MS / 1000
        for upstream, since in list(self._idle.items()):
            if since + wait_s > now:
                self._sweeper = self._loop.call_at(since + wait_s, self._sweep)
                return
            upstream.end()

    def _count(self, reason: str) -> None:
        self._slot.add(words.REFUSED_HTTP + getattr(words, f"REASON_{reason.upper()}"))
