"""What REST reads of stored telemetry are answered from."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from tbfast._ext.scan import RangeScan
from tbfast.control.links import LinkServer
from tbfast.control.tail import TailService
from tbfast.model.ranges import RangeQuery
from tbfast.store.answer import Answer, newest
from tbfast.store.journal import Position
from tbfast.store.layout import Layout
from tbfast.store.series import SeriesStore
from tbfast.store.series_reader import scan_journal

COMPLETE_TIMEOUT_S = 2.5  # a worker is back in 2 s

_READ_NICENESS = 10  # a tenth of the weight of the other threads when processors are short

T = TypeVar("T")


def _give_way() -> None:
    """A long read yields the processor to who ingests: on Linux a thread has its own niceness."""
    with contextlib.suppress(PermissionError):  # some sandboxes forbid even that
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _READ_NICENESS)


class NodeSeries:
    """Sealed chunks, and the head for what is not sealed yet.

    Every answer holds all rows acknowledged before the call: it waits a moment for a worker that
    restarts or a journal that is being replayed, and then reads that journal's files itself.
    Chunks and journals are read in a thread of their own, one read at a time; the workers' loops
    have no part in it.
    """

    def __init__(
        self,
        tail: TailService,
        links: LinkServer,
        store: SeriesStore,
        layout: Layout,
        workers: int,
        former: Collection[int] = (),
    ) -> None:
        """former: journals without a worker whose rows are not all in the tail yet."""
        self._layout = layout
        self._workers = frozenset(range(workers))
        self._former = former
        self._tail = tail
        self._links = links
        self._store = store
        self._thread = ThreadPoolExecutor(1, "series-read", _give_way)
        self._turn = asyncio.Lock()

    async def range(self, device: int, query: RangeQuery) -> bytes:
        """Points or buckets; PeerError for buckets that cannot be had."""
        answer = Answer(device, query)
        return await self._scanned(answer.scan, answer.text)

    async def newest(self, device: int, keys: Sequence[str]) -> RangeScan:
        """A scan that holds the newest stored point of each key."""
        scan = RangeScan(device, keys, limit=1)

        def settled() -> RangeScan:
            scan.settle()
            return scan

        return await self._scanned(scan, settled)

    async def _scanned(self, scan: RangeScan, result: Callable[[], T]) -> T:
        device = scan.device_number
        missing = await self.missing()
        async with self._turn:  # one at a time also holds rows of the head
            unapplied = [(number, Position(*self._tail.cursor(number))) for number in missing]
            # Heads, then journals, then chunks: rows that are sealed in between are read twice and
            # never missed, also if their journal is trimmed.
            await self._tail.feed(scan, device)
            names = self._tail.key_numbers(device)

            def read() -> T:
                for number, after in unapplied:
                    deleted = self._store.tombstones.in_journal(device, number)
                    scan_journal(scan, self._layout.journal(number), after, deleted)
                self._store.feed(scan, names)
                return result()

            return await self._in_thread(read)

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key."""
        if await self.missing():
            return await self.range(device, newest(keys))
        return await self._latest(device, keys)

    async def latest_of(self, devices: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """The newest point of each key, for each device."""
        if await self.missing():
            return [await self.range(device, newest(keys)) for device in devices]
        return [await self._latest(device, keys) for device in devices]

    async def _latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        text, elsewhere = self._tail.latest(device, None if keys is None else list(keys))
        if not elsewhere:
            return text + b"}"
        rest = await self.range(device, newest(elsewhere))
        separator = b"," if len(text) > 1 and len(rest) > 2 else b""
        return text + separator + rest[1:]

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys, sorted."""
        if await self.missing():
            found = await self.latest(device, None)
            return sorted(msgspec.json.decode(found, type=dict[str, msgspec.Raw]))
        return self._tail.keys(device)

    async def missing(self) -> frozenset[int]:
        """Journals of which the tail may lack rows acknowledged before the call, after waiting."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + COMPLETE_TIMEOUT_S
        while missing := (self._workers - await self._links.caught_up()).union(self._former):
            if loop.time() > deadline:
                break
            await asyncio.sleep(0.02)
        self._tail.check()
        return missing

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Waits for the read that is running."""
        self._thread.shutdown()
