"""Framing of the link: u32 little-endian length, one kind byte, body.

Kind 0 is a msgpack message, kind 1 a journal block as it is.  Output is bounded by the protocol
above (byte credit for blocks, one answer per request for the rest).
"""

import asyncio
import logging
import math
import struct
import time
from collections.abc import Callable
from typing import Final, Protocol, cast

import msgspec

from tbfast import limits
from tbfast.link.messages import Message

log = logging.getLogger("tbfast.link")

_HEAD: Final = struct.Struct("<IB")
_MESSAGE: Final = 0
_BLOCK: Final = 1
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Peer(Protocol):
    """What an end of the link does with what arrives."""

    def channel_opened(self, channel: "Channel") -> None: ...
    def message(self, channel: "Channel", message: Message) -> None: ...
    def block(self, channel: "Channel", block: bytes) -> None: ...
    def channel_closed(self, channel: "Channel") -> None: ...


class Channel(asyncio.BufferedProtocol):
    """One end of a link connection.

    Frames are acted on for so long in a turn of the loop; while more wait nothing is read.  The
    event loop reads into one buffer; what a frame holds is copied once, out of it.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._transport: asyncio.Transport | None = None
        self._buffer = memoryview(bytearray(limits.LINK_BUFFER_BYTES))
        self._begin = self._end = 0  # what was read and not acted on
        self._wanted = _HEAD.size  # bytes of that before a frame can be whole
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has classes of its own
        self._peer.channel_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._act(until=math.inf)
        self._transport = None
        self._peer.channel_closed(self)

    @property
    def open(self) -> bool:
        """Whether the other side can still be reached."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, message: Message) -> None:
        """Sends a message; dropped when the link is down: Hello rebuilds that state."""
        if self._transport is not None:
            body = _encoder.encode(message)
            self._transport.write(_HEAD.pack(len(body) + 1, _MESSAGE) + body)

    def send_block(self, block: bytes) -> None:
        """Sends a journal block."""
        if self._transport is not None:
            self._transport.writelines((_HEAD.pack(len(block) + 1, _BLOCK), block))

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: behind the others, and a whole frame has room."""
        held = self._end - self._begin
        wanted = max(self._wanted, held + 1)
        if self._begin + wanted > len(self._buffer):
            pending = self._buffer[self._begin : self._end]
            if wanted > len(self._buffer):
                self._buffer = memoryview(bytearray(2 * wanted))
            self._buffer[:held] = pending
            self._begin, self._end = 0, held
        return self._buffer[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self._end += nbytes
        if not self._paused:  # else a turn for them is due
            self._turn()

    def _turn(self) -> None:
        try:
            self._act(until=time.monotonic() + limits.LINK_TURN_S)
        except Exception:
            self._begin = self._end
            self.close()  # as the event loop does when reading fails
            raise
        self._rest()

    def _act(self, until: float) -> None:
        """Acts on frames until that moment."""
        while self._end - self._begin >= self._wanted:
            length, kind = _HEAD.unpack_from(self._buffer, self._begin)
            if not 1 <= length <= limits.LINK_FRAME_BYTES or kind > _BLOCK:
                log.error("link frame is damaged; closing the link")
                self._begin = self._end
                self.close()
                return
            if self._end - self._begin < length + 4:
                self._wanted = length + 4
                return
            self._wanted = _HEAD.size
            body = self._buffer[self._begin + _HEAD.size : self._begin + 4 + length]
            self._begin += 4 + length
            if kind == _BLOCK:
                self._peer.block(self, bytes(body))
            else:
                self._peer.message(self, _decoder.decode(body))
            if time.monotonic() > until:
                return

    def _rest(self) -> None:
        """Another turn for what is pending, or on with reading."""
        if self._begin == self._end:
            self._begin = self._end = 0
            if len(self._buffer) > limits.LINK_BUFFER_BYTES:
                self._buffer = memoryview(bytearray(limits.LINK_BUFFER_BYTES))
        if not self.open:
            return
        assert self._transport is not None
        waits = self._end - self._begin >= self._wanted
        if waits and not self._paused:
            self._transport.pause_reading()
        elif self._paused and not waits:
            self._transport.resume_reading()
        self._paused = waits
        if waits:
            asyncio.get_running_loop().call_soon(self._turn)


async def connect(path: str, peer: Peer, *, stopping: Callable[[], bool]) -> None:
    """Keeps a link to the socket at `path` until `stopping`, reconnecting with back-off."""
    loop = asyncio.get_running_loop()
    delay = 0.02
    while not stopping():
        try:
            transport, channel = await loop.create_unix_connection(lambda: Channel(peer), path)
        except OSError:  # the controller is starting, restarting, or its queue is full
            await asyncio.sleep(delay)
            delay = min(delay * 2, 0.5)
            continue
        delay = 0.02
        while channel.open and not stopping():
            await asyncio.sleep(0.05)
        transport.close()
