"""From journal to series: when a head is sealed, and what follows from a recorded run."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import TypeVar

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.head import Head
from tbfast._ext.metrics import Slot
from tbfast._ext.sealer import Sealer
from tbfast.config import Series
from tbfast.control.tail import Cursor, TailService
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.obs.log import get_logger
from tbfast.store.series import WRITE_BATCH_BYTES, RunRecord, SeriesStore

log = get_logger("tbfast.sealer")

CHECK_S = 0.25
HURRY_BYTES = 1 << 20  # of rows; not worth a run below it
WINDOW_BYTES = 1 << 20  # a window is never closed for its size before that
FULL_RETRY_S = 5.0  # a full disk: the head waits, sealing is tried again
LATEST_SERIES_PER_STEP = 2_000  # packed in one turn of the loop

T = TypeVar("T")


class SealService:
    """Seals one head at a time: in a thread, without the GIL where it counts.

    disk_bytes: what the disk or its budget can hold, 0 = not known: windows are small beside it.
    before_record() is awaited before a run is recorded: what else came with the rows it covers
    must be on disk then.  on_run(cursors) is called on the loop after each recorded run: journals
    may be trimmed up to there.  on_broken(error) ends the controller: after a failed sync nothing
    can be promised.
    """

    def __init__(
        self,
        tail: TailService,
        store: SeriesStore,
        slot: Slot,
        settings: Series,
        *,
        disk_bytes: int = 0,
        on_run: Callable[[dict[int, Cursor]], None],
        on_broken: Callable[[StoreError], None],
        before_record: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._tail = tail
        self._store = store
        self._slot = slot
        self._head_bytes = settings.head_bytes
        self._interval_s = settings.seal_interval_ms / 1000
        self._retention_ms = settings.retention_ms
        self._max_bytes = settings.max_bytes
        self._window_span_ms = (
            settings.retention_ms // limits.WINDOWS_PER_RETENTION or limits.WINDOW_MS
        )
        self._before_record = before_record
        bounds = [bound for bound in (settings.max_bytes, disk_bytes) if bound]
        self._window_span_bytes = (
            max(WINDOW_BYTES, min(bounds) // limits.WINDOWS_PER_BUDGET) if bounds else 0
        )
        self._on_run = on_run
        self._on_broken = on_broken
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sealer")
        self._last_run = time.monotonic()
        self._sealing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._unrecorded: tuple[Head, dict[int, Cursor]] | None = None  # frozen, with its cursors
        self._keys_stored = 1
        self._hurried = False

    def restore(self) -> None:
        """Gives the tail what recorded runs hold: keys, latest values, cursors."""
        for number, name in self._store.key_names():
            self._tail.restore_key(number, name)
        self._keys_stored = self._tail.key_count + 1
        for device, packed in self._store.latest():
            self._tail.restore_latest(device, packed)
        self._tail.restore_cursors(self._store.cursors())
        for journal in self._store.tombstones.journals():
            self._tail.restore_deleted(journal, *self._store.tombstones.replayed(journal))
        self._measure()

    async def run(self) -> None:
        """Seals full and old heads until `finish`."""
        while not await self._stopped_within(CHECK_S):
            age_s = time.monotonic() - self._last_run
            head = self._tail.head
            hurried, self._hurried = self._hurried, False
            if (
                head.nbytes >= self._head_bytes
                or (self._due and age_s >= self._interval_s)
                or (hurried and head.nbytes >= HURRY_BYTES)
            ):
                with contextlib.suppress(StoreFull, StoreStall):  # only when stopping: see finish
                    await self.seal()

    def hurry(self) -> None:
        """Space is short: seal what is there soon, it takes less room than in the journals."""
        self._hurried = True

    async def finish(self) -> None:
        """Ends `run` and seals the rest.  On a full disk the rest stays in the journals."""
        self._stopping.set()
        try:
            while await self.seal() is not None:
                pass
        except (StoreFull, StoreStall) as error:
            log.warning("rows stay in the journals until the next start", error=str(error))

    async def seal(self) -> RunRecord | None:
        """Seals everything applied so far; None when there was nothing.

        StoreFull or StoreStall only once `finish` has been called; the rows stay readable.
        """
        async with self._sealing:
            if self._unrecorded is None:
                if not self._due:
                    return None
                self._unrecorded = self._tail.freeze(), self._tail.cursors()
            head, cursors = self._unrecorded
            record = await self._patiently(lambda: self._seal(head, cursors))
            self._tail.thaw(cursors)
            self._unrecorded = None
            self._last_run = time.monotonic()
            self._slot.add(words.SEALED_POINTS, record.points)
            self._on_run(cursors)
            await self._patiently(self._expire)
            self._measure()
            log.debug("run recorded", run=record.number, points=record.points)
            return record

    @property
    def _due(self) -> bool:
        """Whether a run would record anything; blocks may hold nothing but attributes."""
        return self._tail.head.points > 0 or self._tail.cursors() != self._store.cursors()

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Tries until the disk has room: rows stay readable from the head meanwhile."""
        while True:
            try:
                return await work()
            except (StoreFull, StoreStall) as error:
                log.limited("seal", logging.ERROR, "sealing waits", error=str(error))
                if await self._stopped_within(FULL_RETRY_S):
                    raise
            except StoreError as error:
                self._on_broken(error)
                raise

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _seal(self, head: Head, cursors: dict[int, Cursor]) -> RunRecord:
        now_ms = time.time_ns() // 1_000_000
        names = self._tail.names_from(self._keys_stored)
        number, window, sealer = await self._in_thread(
            lambda: self._write_chunks(head, names, now_ms)
        )
        start = -1
        while start:
            # Series that began after the freeze may have keys whose names are not stored yet.
            start, packed = self._tail.pack_latest(
                max(start, 0), LATEST_SERIES_PER_STEP, self._keys_stored + len(names)
            )
            await self._in_thread(partial(self._store.write_latest, packed))
        record = RunRecord(
            number=number,
            window=window,
            cursors=cursors,
            points=sealer.points,
            chunk_bytes=sealer.nbytes,
            min_ts=sealer.min_ts,
            max_ts=sealer.max_ts,
            sealed_at_ms=now_ms,
        )
        if self._before_record is not None:
            await self._before_record()
        await self._in_thread(lambda: self._store.finish_run(record))
        self._keys_stored += len(names)
        return record

    def _write_chunks(
        self, head: Head, names: list[tuple[int, bytes]], now_ms: int
    ) -> tuple[int, int, Sealer]:
        number = self._store.begin_run()
        window = self._store.window_for(now_ms, self._window_span_ms, self._window_span_bytes)
        self._store.write_keys(names)
        sealer = Sealer(head, number)
        while batch := sealer.next(WRITE_BATCH_BYTES):
            self._store.write_chunks(window, batch)
        return number, window, sealer

    async def write_deletes(self, devices: Iterable[int]) -> None:
        """Makes tombstones durable, with the latest values of these devices.

        In the one writer's thread, so that latest values packed before a delete are never written
        after it.
        """
        names = self._tail.names_from(self._keys_stored)
        latest = [(device, self._tail.pack_device(device)) for device in devices]
        await self._in_thread(lambda: self._store.write_deletes(names, latest))

    async def _expire(self) -> None:
        await self._in_thread(lambda: self._drop_windows(time.time_ns() // 1_000_000))

    def _drop_windows(self, now_ms: int) -> None:
        """Drops windows whose newest rows are too old, then the oldest beyond the byte bound."""
        windows = self._store.windows()
        closed_ms = now_ms
        expired = []
        for window, following in reversed(list(pairwise(windows))):
            # Its last rows came before the next was opened.  A clock that was wrong for a while
            # (no battery, 1970; a step of years and back) makes nothing old before its time.
            closed_ms = min(closed_ms, max(window.opened_at_ms, following.opened_at_ms))
            if self._retention_ms and closed_ms + self._retention_ms <= now_ms:
                expired.append(window)
        for window in reversed(expired):
            log.info("window dropped by age", window=window.number, points=window.points)
            self._store.drop_window(window.number)
        windows = self._store.windows()
        held = sum(w.chunk_bytes for w in windows)
        for window in windows[:-1]:
            if not self._max_bytes or held <= self._max_bytes:
                break
            log.warning("window dropped for space", window=window.number, points=window.points)
            self._store.drop_window(window.number)
            held -= window.chunk_bytes
        self._store.forget_tombstones()

    async def drop_oldest(self) -> int | None:
        """Points of the oldest sealed window, dropped; None when only the newest is left.

        On a disk that is full even for that it is tried again with the next call.
        """
        windows = self._store.windows()
        if len(windows) < 2:
            return None
        oldest = windows[0]
        log.warning("window dropped for space", window=oldest.number, points=oldest.points)
        try:
            await self._in_thread(lambda: self._store.drop_window(oldest.number))
        except (StoreFull, StoreStall) as error:
            log.limited("drop", logging.ERROR, "the window cannot go yet", error=str(error))
            return 0
        except StoreError as error:
            self._on_broken(error)
            raise
        self._measure()
        return oldest.points

    def _measure(self) -> None:
        windows = self._store.windows()
        self._slot.put(words.SERIES_POINTS, sum(w.points for w in windows))
        self._slot.put(words.SERIES_BYTES, sum(w.chunk_bytes for w in windows))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Waits for the thread."""
        self._thread.shutdown()
