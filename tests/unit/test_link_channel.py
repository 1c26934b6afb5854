"""One end of a link: frames cut anywhere, a peer that needs long for each, faults."""

import asyncio
import functools
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tbfast import limits
from tbfast.link import messages as msg
from tbfast.link.channel import Channel


def on_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Runs a test on the event loop that the server has."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        uvloop.run(test(**fixtures))

    return run


class Peer:
    """Keeps what arrives; needs `seconds` for each message, and fails at `fails_at`."""

    def __init__(self, seconds: float = 0.0, fails_at: int = -1) -> None:
        self.seconds, self.fails_at = seconds, fails_at
        self.got: list[msg.Message | bytes | None] = []  # None: closed
        self.closed = asyncio.Event()

    def channel_opened(self, channel: Channel) -> None:
        pass

    def message(self, channel: Channel, message: msg.Message) -> None:
        if len(self.got) == self.fails_at:
            raise RuntimeError("cannot act on it")
        until = time.monotonic() + self.seconds
        while time.monotonic() < until:
            pass
        self.got.append(message)

    def block(self, channel: Channel, block: bytes) -> None:
        self.got.append(block)

    def channel_closed(self, channel: Channel) -> None:
        self.got.append(None)
        self.closed.set()


@asynccontextmanager
async def linked(tmp_path: Path, peer: Peer) -> AsyncIterator[Channel]:
    """A channel whose other end is the peer's."""
    path = str(tmp_path / "link.sock")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Channel(peer), path)
    transport, channel = await loop.create_unix_connection(lambda: Channel(Peer()), path)
    try:
        yield channel
    finally:
        transport.close()
        server.close()


def mark(number: int) -> msg.Message:
    return msg.Trim(0, number)


async def until(done: Callable[[], bool], *, within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not done():
            await asyncio.sleep(0.001)


@on_loop
async def test_others_have_their_turn_while_a_burst_is_acted_on(tmp_path: Path) -> None:
    peer = Peer(seconds=0.001)
    async with linked(tmp_path, peer) as channel:
        for number in range(200):
            channel.send(mark(number))
        longest, last = 0.0, time.process_time()
        while len(peer.got) < 200:
            await asyncio.sleep(0)
            now = time.process_time()
            longest, last = max(longest, now - last), now
        assert peer.got == [mark(number) for number in range(200)]
        assert longest < 0.05  # 0.2 s in one go without turns


@on_loop
async def test_what_arrived_before_the_end_is_acted_on(tmp_path: Path) -> None:
    peer = Peer(seconds=0.001)
    async with linked(tmp_path, peer) as channel:
        for number in range(100):
            channel.send(mark(number))
        channel.close()
        await asyncio.wait_for(peer.closed.wait(), 10)
        assert peer.got == [*(mark(number) for number in range(100)), None]


@on_loop
async def test_frames_cut_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINK_TURN_S", 0.0)  # one frame a turn
    rng = random.Random(4)
    sent: list[msg.Message | bytes | None] = [
        rng.randbytes(rng.choice((1, 100, 70_000, 3 * limits.LINK_BUFFER_BYTES)))
        if rng.random() < 0.5
        else mark(number)
        for number in range(100)
    ]
    kept = bytearray()

    class Wire(asyncio.Transport):
        """Keeps what is written."""

        def write(self, data: bytes | bytearray | memoryview) -> None:
            kept.extend(data)

    writer = Channel(Peer())
    writer.connection_made(Wire())
    for item in sent:
        if isinstance(item, bytes):
            writer.send_block(item)
        elif item is not None:
            writer.send(item)
    peer = Peer()
    path = str(tmp_path / "link.sock")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Channel(peer), path)
    _, stream = await asyncio.open_unix_connection(path)
    while kept:
        n = rng.choice((1, 4, 5, 6, 1_000, 100_000))
        stream.write(bytes(kept[:n]))
        del kept[:n]
        await stream.drain()
        await asyncio.sleep(0)
    await until(lambda: len(peer.got) == len(sent))
    assert peer.got == sent
    stream.close()
    server.close()


@pytest.mark.parametrize("turn_s", [0.0, 10.0])
@on_loop
async def test_a_fault_ends_the_link_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn_s: float
) -> None:
    monkeypatch.setattr(limits, "LINK_TURN_S", turn_s)
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: faults.append(context.get("exception"))
    )
    peer = Peer(fails_at=3)
    async with linked(tmp_path, peer) as channel:
        for number in range(10):
            channel.send(mark(number))
        await asyncio.wait_for(peer.closed.wait(), 10)
        assert peer.got == [mark(0), mark(1), mark(2), None]
        assert [type(fault) for fault in faults] == [RuntimeError]
