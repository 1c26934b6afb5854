"""From journal to series: when a head is sealed, and what follows from a recorded run."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from tbfast import allocator, limits
from tbfast._ext import metrics as words
from tbfast._ext.head import Head
from tbfast._ext.metrics import Slot
from tbfast._ext.sealer import Sealer
from tbfast.config import Series
from tbfast.control.tail import Cursor, TailService
from tbfast.control.upkeep import Upkeep, set_within
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.obs.log import get_logger
from tbfast.store import rocks
from tbfast.store.series import WRITE_BATCH_BYTES, RunRecord, SeriesStore
from tbfast.store.windows import Run

log = get_logger("tbfast.sealer")

CHECK_S = 0.25
SOON_S = 0.01  # a head that fills fast is looked at again in time, but not sooner
HURRY_BYTES = 1 << 20  # of rows; not worth a run below it
FULL_RETRY_S = 5.0  # a full disk: the head waits, sealing is tried again
MERGE_AFTER_S = 5.0  # without a full head
GIVE_BACK_S = 60.0  # free memory stays ours for as long: sealing and reads come again
CHANGES_PER_STEP = 20_000  # series packed in one turn of the loop, 0.3 ms; each costs 0.1 beside
RECORDS_PER_STEP = 5_000  # the same where every device gets a key

T = TypeVar("T")
Tally = Callable[[Sequence[tuple[bytes, bytes]]], None]  # (key, chunk) of a batch


class Lookout:
    """When the head is looked at next, so that it is not far over its size by then."""

    def __init__(self, head_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._now_s = 0.0
        self._held = head_bytes  # at the first look nothing seems to have come

    def pause_s(self, now_s: float, held: int) -> float:
        """At most CHECK_S; held: bytes in the head now."""
        passed_s, filled = now_s - self._now_s, held - self._held
        self._now_s, self._held = now_s, held
        if filled <= 0:  # nothing came, or it is another head
            return CHECK_S
        left_s = (self._head_bytes - held) * passed_s / filled
        return min(max(left_s, SOON_S), CHECK_S)


class SealService:
    """Seals one head at a time: in a thread, without the GIL where it counts.

    disk_bytes: what the disk or its budget can hold, 0 = not known: windows are small beside it.
    before_record() is awaited before a run is recorded: what else came with the rows it covers
    must be on disk then.  on_run(cursors) is called on the loop after each recorded run: journals
    may be trimmed up to there.  class_of(device number): place of its retention class in
    `Series.retention_classes`.  on_broken(error) ends the controller: after a failed sync nothing
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
        class_of: Callable[[int], int] = lambda device: 0,
    ) -> None:
        self._tail = tail
        self._store = store
        self._slot = slot
        self._head_bytes = settings.head_bytes
        self._interval_s = settings.seal_interval_ms / 1000
        self._before_record = before_record
        self._classes = settings.retention_classes()
        self._class_of = class_of
        self._upkeep = Upkeep(
            store, slot, settings, self._in_thread, disk_bytes=disk_bytes, on_broken=on_broken
        )
        self._on_run = on_run
        self._on_broken = on_broken
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sealer")
        self._last_run = time.monotonic()
        self._last_full = -math.inf  # when a full head was last found
        self._sealing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._unrecorded: tuple[Head, dict[int, Cursor]] | None = None  # frozen, with its cursors
        self._keys_stored = 1
        self._folded_run = 0  # changes since are not in the records of their devices
        self._hurried = False
        self._give_back_at_s = time.monotonic() + GIVE_BACK_S

    def restore(self) -> None:
        """Gives the tail what recorded runs hold: keys, latest values, cursors; StoreError."""
        try:
            for number, name in self._store.key_names():
                self._tail.restore_key(number, name)
            self._keys_stored = self._tail.key_count + 1
            for device, packed in self._store.latest.records():
                self._tail.restore_latest(device, packed)
            for packed in self._store.latest.changes():
                self._tail.restore_changes(packed)
        except StoreError as error:
            raise StoreError(f"{self._store.path}: {error}; {rocks.RECOVER}") from error
        self._folded_run = self._store.recorded
        self._tail.restore_cursors(self._store.cursors())
        for journal in self._store.tombstones.journals():
            self._tail.restore_deleted(journal, *self._store.tombstones.replayed(journal))
        self._upkeep.measure()

    @property
    def upkeep(self) -> Upkeep:
        """Joining and dropping, in the same thread."""
        return self._upkeep

    async def run(self) -> None:
        """Seals full and old heads, joins chunks and drops old windows until `finish`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._upkeep.run(self._sealing, self._stopping))
            await self._run()

    async def _run(self) -> None:
        full = False
        lookout = Lookout(self._head_bytes)
        while not await set_within(
            self._stopping,
            0 if full else lookout.pause_s(time.monotonic(), self._tail.head.nbytes),
        ):
            if time.monotonic() >= self._give_back_at_s:
                await self._in_thread(allocator.give_back)
                self._give_back_at_s = time.monotonic() + GIVE_BACK_S
            age_s = time.monotonic() - self._last_run
            if age_s >= limits.HEAD_SPARE_MS / 1000:
                self._tail.release_spare()
            head = self._tail.head
            hurried, self._hurried = self._hurried, False
            full = head.nbytes >= self._head_bytes
            await self._pace(full)
            if (
                full
                or (self._due and age_s >= self._interval_s)
                or (hurried and head.nbytes >= HURRY_BYTES)
            ):
                with contextlib.suppress(StoreFull, StoreStall):  # only when stopping: see finish
                    await self.seal()

    async def _pace(self, full: bool) -> None:
        """While full heads come one upon the other, their files are not merged."""
        now = time.monotonic()
        hold = now - self._last_full < MERGE_AFTER_S
        if full:
            self._last_full = now
        if hold == self._store.merging_held:
            return
        try:
            await self._in_thread(partial(self._store.hold_merging, hold))
        except (StoreFull, StoreStall) as error:
            log.limited("merge", logging.WARNING, "merging as before", error=str(error))
            return
        except StoreError as error:
            self._on_broken(error)
            raise
        self._tail.keep_spare(hold)
        if not hold:
            self._give_back_at_s = now

    def hurry(self) -> None:
        """Space is short: seal what is there soon, it takes less room than in the journals."""
        self._hurried = True

    async def finish(self) -> None:
        """Ends `run` and seals the rest.  On a full disk the rest stays in the journals."""
        self._stopping.set()
        await self._upkeep.stopped()
        try:
            while await self.seal() is not None:
                pass
        except (StoreFull, StoreStall) as error:
            log.warning("rows stay in the journals until the next start", error=str(error))

    async def seal(self, tally: Tally | None = None) -> RunRecord | None:
        """Seals everything applied so far; None when there was nothing.

        tally: is given the chunks, in the writer's thread.

        StoreFull or StoreStall only once `finish` has been called; the rows stay readable.
        """
        async with self._sealing:
            if self._unrecorded is None:
                if not self._due:
                    return None
                self._unrecorded = self._tail.freeze(), self._tail.cursors()
            head, cursors = self._unrecorded
            record = await self._patiently(lambda: self._seal(head, cursors, tally))
            self._tail.thaw(cursors)
            self._unrecorded = None
            self._last_run = time.monotonic()
            self._slot.add(words.SEALED_POINTS, record.points)
            self._on_run(cursors)
            await self._patiently(self._upkeep.expire)
            await self._fold()
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
                if await set_within(self._stopping, FULL_RETRY_S):
                    raise
            except StoreError as error:
                self._on_broken(error)
                raise

    async def _fold(self) -> None:
        """Every so often: changes of latest values go into the records of their devices."""
        runs = self._store.recorded - self._folded_run
        if runs < limits.LATEST_RUNS and self._store.latest.changes_bytes < limits.LATEST_BYTES:
            return
        before = self._store.latest.next_change
        start = 0
        # Changes of devices that were looked at already come after `before`.
        while (
            packed := self._tail.pack_stale(start, RECORDS_PER_STEP, self._keys_stored)
        ) is not None:
            if packed:
                write = partial(self._store.latest.write_records, packed)
                await self._patiently(partial(self._in_thread, write))
            start += RECORDS_PER_STEP
        forget = partial(self._store.latest.forget_changes, before)
        await self._patiently(partial(self._in_thread, forget))
        self._folded_run = self._store.recorded

    async def _seal(self, head: Head, cursors: dict[int, Cursor], tally: Tally | None) -> RunRecord:
        names = self._tail.names_from(self._keys_stored)
        record = await self._in_thread(lambda: self._write_chunks(head, cursors, names, tally))
        start = -1
        while start:
            # Series that began after the freeze may have keys whose names are not stored yet.
            start, packed = self._tail.pack_changes(
                head, max(start, 0), CHANGES_PER_STEP, self._keys_stored + len(names)
            )
            await self._in_thread(partial(self._store.latest.write_changes, packed))
        if self._before_record is not None:
            await self._before_record()
        await self._in_thread(lambda: self._store.finish_run(record))
        self._keys_stored += len(names)
        return record

    def _write_chunks(
        self,
        head: Head,
        cursors: dict[int, Cursor],
        names: list[tuple[int, bytes]],
        tally: Tally | None,
    ) -> RunRecord:
        number = self._store.begin_run()
        self._store.write_keys(names)
        classes = self._classes
        sealer = Sealer(head, number, len(classes), self._class_of if len(classes) > 1 else None)
        windows: dict[int, int] = {}  # class -> window; those without rows need none
        while not sealer.done:
            for which, batch in enumerate(sealer.next(WRITE_BATCH_BYTES)):
                if not batch:
                    continue
                if which not in windows:
                    windows[which] = self._upkeep.window_for(classes[which])
                self._store.write_chunks(windows[which], batch)
                if tally is not None:
                    tally(batch)
        parts = []
        for which, window in windows.items():
            totals = sealer.totals[which]
            run = Run(number, cursors, totals.points, totals.nbytes, totals.min_ts, totals.max_ts)
            parts.append((window, run, tuple(totals.odd)))
        return RunRecord(number, cursors, tuple(parts))

    async def write_deletes(self, devices: Iterable[int]) -> None:
        """Makes tombstones durable, with the latest values of these devices.

        In the one writer's thread, so that latest values packed before a delete are never written
        after it.
        """
        names = self._tail.names_from(self._keys_stored)
        changes = b"".join(map(self._tail.pack_device_changes, devices))
        await self._in_thread(lambda: self._store.write_deletes(names, changes))

    async def checkpoint(self, to: Path) -> None:
        """A copy of the series store between two runs."""
        async with self._sealing:
            await self._in_thread(lambda: self._store.checkpoint(to))

    async def drop_oldest(self) -> int | None:
        """Points of the oldest sealed window, dropped; None when only the newest is left."""
        return await self._upkeep.drop_oldest()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Waits for the thread."""
        self._thread.shutdown()
