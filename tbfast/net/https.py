"""HTTP over TLS: handshakes, before their connections are those of the HTTP port (HTTP spec 1).

Each connection shakes hands under the certificate of that moment, so that files may change; how
many do so at a time, and how long, is bounded.
"""

import asyncio
import logging
import socket
from typing import Final

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast.net.http import HttpPort
from tbfast.net.strangers import Strangers
from tbfast.net.tls import ServerTls
from tbfast.obs.log import get_logger

log = get_logger("tbfast.http")

_SHAKE_S: Final = limits.HTTP_HEAD_TIMEOUT_MS / 1000
_SHUTDOWN_S: Final = limits.WRITE_TIMEOUT_MS / 1000
_RETRY_S: Final = 0.2  # after a connection that could not be accepted


class HttpsDoor:
    """Where TLS connections come in, on their way to an `HttpPort`; all calls on the loop's thread.

    most: handshakes under way; past it the oldest of the address that has most of them goes.
    """

    def __init__(self, port: HttpPort, tls: ServerTls, most: int = limits.TLS_HANDSHAKES) -> None:
        self._port = port
        self._tls = tls
        self._strangers = Strangers(most)
        self._shaking: dict[int, asyncio.Task[None]] = {}
        self._last = 0
        self._accepting: asyncio.Task[None] | None = None

    def listen(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        """Serves connections of a bound socket."""
        self._accepting = loop.create_task(self._accept(loop, sock))

    def close(self) -> None:
        """Takes no more connections; handshakes under way come to nothing."""
        if self._accepting is not None:
            self._accepting.cancel()
        for task in self._shaking.values():
            task.cancel()

    async def _accept(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> None:
        while True:
            try:
                sock, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptor is free, or the peer has gone already
                log.limited("accept", logging.WARNING, "a connection was not accepted",
                            error=str(error))  # fmt: skip
                await asyncio.sleep(_RETRY_S)
                continue
            self._begin(loop, sock, str(address[0]))

    def _begin(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, peer: str) -> None:
        number = self._last = self._last + 1
        self._shaking[number] = loop.create_task(self._shake(loop, sock, peer))
        self._shaking[number].add_done_callback(lambda _: self._ended(number))
        self._strangers.add(number, peer.encode())
        one_too_many = self._strangers.to_close()
        if one_too_many is not None:
            self._port.slot.add(words.REFUSED_HTTP + words.REASON_LIMIT)
            self._shaking[one_too_many].cancel()
            self._ended(one_too_many)

    def _ended(self, number: int) -> None:
        """It is over, one way or another."""
        self._shaking.pop(number, None)
        self._strangers.remove(number)

    async def _shake(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, peer: str) -> None:
        slot = self._port.slot
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: self._port.connection(loop),
                sock,
                ssl=self._tls.context,
                ssl_handshake_timeout=_SHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError as error:  # TLS errors and timeouts are some as well
            slot.add(words.REFUSED_HTTP + words.REASON_TLS)
            log.limited("tls", logging.INFO, "a TLS handshake failed", peer=peer,
                        error=str(error) or type(error).__name__)  # fmt: skip
            return
        known = transport.get_extra_info("ssl_object")
        resumed = known is not None and known.session_reused
        slot.add(words.TLS_RESUMED if resumed else words.TLS_FULL)
