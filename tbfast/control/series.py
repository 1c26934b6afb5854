"""What REST reads of stored telemetry are answered from."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tbfast._ext.series import RangeScan
from tbfast.control.links import LinkServer
from tbfast.control.tail import TailService
from tbfast.errors import ResourceError
from tbfast.store.series import SeriesStore

COMPLETE_TIMEOUT_S = 15.0  # a worker is back in 2 s; replaying a large journal takes longer

T = TypeVar("T")


class NodeSeries:
    """Sealed chunks, and the head for what is not sealed yet.

    Every answer holds all rows acknowledged before the call: it waits for a worker that restarts
    or a journal that is being replayed, and says so (ResourceError) when that takes too long.
    Chunks are read in a thread of their own, one read at a time; the workers' loops have no part
    in it.
    """

    def __init__(
        self, tail: TailService, links: LinkServer, store: SeriesStore, workers: int
    ) -> None:
        self._workers = frozenset(range(workers))
        self._tail = tail
        self._links = links
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="series-read")

    async def range(
        self,
        device: int,
        keys: Sequence[str] | None,
        *,
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        ascending: bool,
    ) -> bytes:
        """Points with start_ms <= ts < end_ms, at most `limit` per key."""
        await self._complete()
        scan = RangeScan(
            device, keys, start_ms=start_ms, end_ms=end_ms, limit=limit, ascending=ascending
        )
        # The head first: a run recorded in between is then read twice, never missed.
        self._tail.feed(scan, device)
        names = self._tail.key_numbers(device)

        def read() -> bytes:
            self._store.feed(scan, names)
            return scan.to_json()

        return await self._in_thread(read)

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key."""
        await self._complete()
        text, elsewhere = self._tail.latest(device, None if keys is None else list(keys))
        if not elsewhere:
            return text + b"}"
        rest = await self.range(
            device, elsewhere, start_ms=None, end_ms=None, limit=1, ascending=False
        )
        separator = b"," if len(text) > 1 and len(rest) > 2 else b""
        return text + separator + rest[1:]

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys, sorted."""
        await self._complete()
        return self._tail.keys(device)

    async def _complete(self) -> None:
        """Returns when the tail holds everything acknowledged before the call."""
        self._tail.check()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + COMPLETE_TIMEOUT_S
        while missing := self._workers - await self._links.caught_up():
            if loop.time() > deadline:
                names = ", ".join(f"worker-{number}" for number in sorted(missing))
                raise ResourceError(
                    f"{names} is away or still being replayed; what it has stored is missing here"
                )
            await asyncio.sleep(0.02)
        self._tail.check()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Waits for the read that is running."""
        self._thread.shutdown()
