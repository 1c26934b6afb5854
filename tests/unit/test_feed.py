"""Blocks from a worker to the controller, over a real Unix socket."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tbfast._ext.series import block_info
from tbfast.link import channel as link
from tbfast.link import messages as msg
from tbfast.link.channel import Channel
from tbfast.store.journal import Journal, Position
from tbfast.worker.feed import BlockFeed
from tests.support.groups import GroupMaker

WAIT_S = 5.0
PLENTY = 1 << 20


class Controller:
    """Takes blocks in; gives credit back only when told to."""

    def __init__(self) -> None:
        self.blocks: list[tuple[int, int]] = []
        self.nbytes = 0
        self.channel: Channel | None = None
        self.server: asyncio.AbstractServer | None = None

    async def listen(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(lambda: Channel(self), str(path))

    def channel_opened(self, channel: Channel) -> None:
        self.channel = channel

    def channel_closed(self, channel: Channel) -> None:
        self.channel = None

    def message(self, channel: Channel, message: msg.Message) -> None:
        raise AssertionError(message)

    def block(self, channel: Channel, block: bytes) -> None:
        info = block_info(block)
        self.blocks.append((info["epoch"], info["seq"]))
        self.nbytes += len(block)

    def welcome(self, epoch: int, seq: int, credit: int = PLENTY) -> None:
        assert self.channel is not None
        self.channel.send(msg.Welcome(epoch, seq, credit, 0, False))

    def credit(self, nbytes: int) -> None:
        assert self.channel is not None
        self.channel.send(msg.Credit(nbytes))

    async def close(self) -> None:
        assert self.server is not None
        self.server.close()
        if self.channel is not None:
            self.channel.close()


class WorkerEnd:
    """What a worker's directory does for its feed."""

    def __init__(self, feed: BlockFeed) -> None:
        self._feed = feed

    def channel_opened(self, channel: Channel) -> None:
        """Hello is the directory's business."""

    def channel_closed(self, channel: Channel) -> None:
        self._feed.stop()

    def block(self, channel: Channel, block: bytes) -> None:
        raise AssertionError("a worker gets no blocks")

    def message(self, channel: Channel, message: msg.Message) -> None:
        match message:
            case msg.Welcome(epoch, seq, credit):
                self._feed.start(channel, Position(epoch, seq), credit)
            case msg.Credit(nbytes):
                self._feed.add_credit(nbytes)


class Bench:
    """A journal with a feed, linked to a controller."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "link.sock"
        self.journal = Journal(home / "journal" / "0", 0)
        self.feed = BlockFeed(asyncio.get_running_loop(), self.journal)
        self.make = GroupMaker(self.journal)
        self.controller = Controller()
        self._stopping = False
        self._link: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.controller.listen(self.socket)
        if self._link is None:
            self._link = asyncio.create_task(
                link.connect(str(self.socket), WorkerEnd(self.feed), stopping=self._is_stopping)
            )
        await self.until(lambda: self.controller.channel)

    async def restart_controller(self) -> None:
        await self.controller.close()
        self.controller = Controller()

    def _is_stopping(self) -> bool:
        return self._stopping

    def commit(self, n: int, *, seq: int = 0, known: bool = True) -> int:
        """Appends a block and announces it as durable; its size.  not known: only appends it."""
        group = self.make.group(n, seq=seq)
        self.journal.append(group)
        assert group.value is not None
        if known:
            before = self.journal.durable
            self.journal.durable = self.journal.written
            self.feed.committed(group, before)
        return len(group.value)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                await asyncio.sleep(0.001)

    async def close(self) -> None:
        self._stopping = True
        await self.controller.close()
        if self._link is not None:
            await self._link
        self.journal.close()


def run(tmp_path: Path, body: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        try:
            await body(bench)
        finally:
            await bench.close()

    asyncio.run(main())


def epoch_1(first: int, last: int) -> list[tuple[int, int]]:
    return [(1, seq) for seq in range(first, last + 1)]


def test_blocks_follow_as_they_are_committed(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.start()
        bench.controller.welcome(0, 0)
        for n in range(1, 11):
            bench.commit(n)
        await bench.until(lambda: len(bench.controller.blocks) >= 10)
        for n in range(11, 21):
            bench.commit(n)
            await asyncio.sleep(0)
        await bench.until(lambda: len(bench.controller.blocks) >= 20)
        assert bench.controller.blocks == epoch_1(1, 20)

    run(tmp_path, body)


def test_without_credit_it_falls_behind_and_catches_up(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.start()
        size = bench.commit(1)
        bench.controller.welcome(0, 0, 3 * size)
        await bench.until(lambda: bench.controller.blocks)
        for n in range(2, 101):
            bench.commit(n)
            await asyncio.sleep(0)
        await bench.until(lambda: len(bench.controller.blocks) >= 3)
        outstanding = 3 * size  # the credit; one block more may be under way
        assert outstanding <= bench.controller.nbytes <= outstanding + 2 * size
        bench.controller.credit(50 * size)
        await bench.until(lambda: len(bench.controller.blocks) >= 50)
        assert bench.controller.nbytes <= outstanding + 52 * size
        bench.controller.credit(PLENTY)
        await bench.until(lambda: len(bench.controller.blocks) >= 100)
        bench.commit(101)
        await bench.until(lambda: len(bench.controller.blocks) >= 101)
        assert bench.controller.blocks == epoch_1(1, 101)

    run(tmp_path, body)


def test_replay_starts_after_the_controllers_cursor(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        for n in range(1, 8):
            bench.commit(n)
        await bench.start()
        bench.controller.welcome(1, 4)
        await bench.until(lambda: len(bench.controller.blocks) >= 3)
        bench.commit(8)
        await bench.until(lambda: len(bench.controller.blocks) >= 4)
        assert bench.controller.blocks == epoch_1(5, 8)

    run(tmp_path, body)


def test_blocks_of_earlier_epochs_come_first(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        bench.commit(1)
        bench.commit(2)
        bench.journal.close()
        bench.journal = Journal(bench.journal.path, 0)
        bench.feed = BlockFeed(asyncio.get_running_loop(), bench.journal)
        bench.make = GroupMaker(bench.journal)
        await bench.start()
        bench.commit(3)
        bench.controller.welcome(1, 1)
        await bench.until(lambda: len(bench.controller.blocks) >= 2)
        assert bench.controller.blocks == [(1, 2), (2, 1)]

    run(tmp_path, body)


def test_holes(tmp_path: Path) -> None:
    """Sequence numbers that were refused; and the newest thing known may itself be a hole."""

    async def body(bench: Bench) -> None:
        for seq in (1, 2, 5, 9):
            bench.commit(seq, seq=seq)
        bench.journal.durable = Position(1, 12)
        await bench.start()
        bench.controller.welcome(0, 0)
        await bench.until(lambda: len(bench.controller.blocks) >= 4)
        bench.commit(13, seq=13)
        bench.commit(15, seq=15)
        await bench.until(lambda: len(bench.controller.blocks) >= 6)
        assert bench.controller.blocks == [(1, seq) for seq in (1, 2, 5, 9, 13, 15)]

    run(tmp_path, body)


def test_a_refused_block_that_was_written_is_sent_too(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.start()
        bench.controller.welcome(0, 0)
        bench.commit(1)
        await bench.until(lambda: bench.controller.blocks)
        bench.commit(2, known=False)
        group = bench.make.group(3)
        bench.journal.append(group)
        bench.journal.durable = bench.journal.written
        bench.feed.committed(group, Position(1, 2))
        await bench.until(lambda: len(bench.controller.blocks) >= 3)
        assert bench.controller.blocks == epoch_1(1, 3)

    run(tmp_path, body)


def test_controller_restarts(tmp_path: Path) -> None:
    async def body(bench: Bench) -> None:
        await bench.start()
        bench.controller.welcome(0, 0)
        for n in range(1, 4):
            bench.commit(n)
        await bench.until(lambda: len(bench.controller.blocks) >= 3)
        await bench.restart_controller()
        for n in range(4, 7):
            bench.commit(n)
        await bench.start()
        bench.commit(7)  # before it is welcome
        bench.controller.welcome(1, 2)
        bench.commit(8)
        await bench.until(lambda: len(bench.controller.blocks) >= 6)
        assert bench.controller.blocks == epoch_1(3, 8)

    run(tmp_path, body)
