"""What happens to sealed windows beside sealing: chunks are joined, old windows dropped.

All of it runs in the sealer's one thread, in steps between which a run may be written.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import Final, Protocol, TypeVar

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.config import Series
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.obs.log import get_logger
from tbfast.store.joins import Join
from tbfast.store.series import SeriesStore
from tbfast.store.windows import Window

log = get_logger("tbfast.upkeep")

CHECK_S: Final = 1.0  # between two looks for old windows and for chunks to join
FULL_RETRY_S: Final = 60.0  # a full disk: joining needs space before it saves some
WINDOW_BYTES: Final = 1 << 20  # a window is never closed for its size before that

T = TypeVar("T")


class InThread(Protocol):
    """Runs work in the one thread that writes."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class ExpiryClock:
    """Wall time for ages: no step of the clock makes anything old at once.

    After a step forward it catches up at twice the speed of the monotonic clock, so that a wrong
    clock must be wrong for as long as rows are kept before it costs any.  After a step back, 1970
    at the start of a machine without a battery, nothing grows old; once the clock is right again
    it goes on from where it was, not from there.

    known_ms: a time that the machine has had before, 0 = none.
    """

    def __init__(self, wall_ms: int, monotonic_ms: int, known_ms: int = 0) -> None:
        self._ms = max(wall_ms, known_ms)
        self._monotonic_ms = monotonic_ms

    def now(self, wall_ms: int, monotonic_ms: int) -> int:
        """The time to reckon ages with, ms."""
        passed = max(0, monotonic_ms - self._monotonic_ms)
        self._monotonic_ms = monotonic_ms
        if wall_ms < self._ms:
            self._ms += passed
            return wall_ms
        self._ms = min(wall_ms, self._ms + 2 * passed)
        return self._ms


class Upkeep:
    """Windows of a series store: when one ends, is joined, and goes."""

    def __init__(
        self,
        store: SeriesStore,
        slot: Slot,
        settings: Series,
        in_thread: InThread,
        *,
        disk_bytes: int,
        on_broken: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._slot = slot
        self._in_thread = in_thread
        self._on_broken = on_broken
        self._retention_ms = settings.retention_ms
        self._max_bytes = settings.max_bytes
        bounds = [bound for bound in (settings.max_bytes, disk_bytes) if bound]
        self._span_bytes = (
            max(WINDOW_BYTES, min(bounds) // limits.WINDOWS_PER_BUDGET) if bounds else 0
        )
        known_ms = max((window.opened_at_ms for window in store.windows()), default=0)
        self._clock = ExpiryClock(_wall_ms(), _monotonic_ms(), known_ms)
        self._joining = asyncio.Lock()

    async def run(self, sealing: asyncio.Lock, stopping: asyncio.Event) -> None:
        """Drops and joins until `stopping`; never while a run is being written."""
        wait_s = CHECK_S
        while not await set_within(stopping, wait_s):
            wait_s = CHECK_S
            try:
                if not sealing.locked():
                    await self.expire()
                await self.join(sealing, stopping)
            except (StoreFull, StoreStall) as error:
                log.limited("join", logging.WARNING, "joining waits", error=str(error))
                wait_s = FULL_RETRY_S
            except StoreError as error:
                self._on_broken(error)
                raise

    async def stopped(self) -> None:
        """Returns when no join is running; for after `stopping` was set."""
        async with self._joining:
            pass

    # --- joining -----------------------------------------------------------------------------

    async def join(
        self, sealing: asyncio.Lock | None = None, stopping: asyncio.Event | None = None
    ) -> int:
        """Joins everything that is to be joined; how many times.  StoreFull, StoreError."""
        count = 0
        async with self._joining:
            while not (stopping and stopping.is_set()):
                if sealing is not None and sealing.locked():
                    return count  # a window may be about to take its run
                join = await self._in_thread(self._store.begin_join)
                if join is None:
                    return count
                if not await self._finished(join, sealing, stopping):
                    return count
                count += 1
        return count

    async def _finished(
        self, join: Join, sealing: asyncio.Lock | None, stopping: asyncio.Event | None
    ) -> bool:
        """Works one join off; False when it was given up to stop."""
        left = [join.family]
        try:
            while await self._step(join, sealing):
                if stopping and stopping.is_set():
                    left = []  # the next start drops what was written
                    return False
            await self._in_thread(join.flush)
            left = []  # after a failed write the record may name the new family, or not
            left = await self._in_thread(lambda: self._store.finish_join(join))
        finally:
            await self._in_thread(join.close)
            for family in left:
                await self._in_thread(partial(self._store.forget, family))
        self._slot.add(words.JOINED_POINTS, join.points)
        self._slot.add(words.JOINED_BYTES, join.nbytes)
        self.measure()
        log.debug("chunks joined", window=join.window, points=join.points)
        return True

    async def _step(self, join: Join, sealing: asyncio.Lock | None) -> bool:
        """A step and a pause as long; none while a run is being written."""
        begun = time.monotonic()
        more = await self._in_thread(join.step)
        await asyncio.sleep(time.monotonic() - begun)
        if sealing is not None and sealing.locked():
            async with sealing:
                pass
        return more

    # --- windows -----------------------------------------------------------------------------

    def window_for(self, retention_ms: int | None) -> int:
        """The window that rows of a class go to now; in the writer's thread."""
        return self._store.window_for(
            _wall_ms(), self._span_ms(retention_ms), self._span_bytes, retention_ms
        )

    def _kept_ms(self, retention_ms: int | None) -> int:
        return self._retention_ms if retention_ms is None else retention_ms

    def _span_ms(self, retention_ms: int | None) -> int:
        return self._kept_ms(retention_ms) // limits.WINDOWS_PER_RETENTION or limits.WINDOW_MS

    async def expire(self) -> None:
        """Drops what is too old, or too much; ends windows whose time is over."""
        await self._in_thread(self._expire)
        self.measure()

    def _expire(self) -> None:
        wall_ms = _wall_ms()
        stored = self._store.windows()
        if not stored:  # nothing can be too old yet: whatever the clock is set to is right
            self._clock = ExpiryClock(wall_ms, _monotonic_ms())
        now_ms = self._clock.now(wall_ms, _monotonic_ms())
        by_class: dict[int | None, list[Window]] = {}
        for window in stored:
            by_class.setdefault(window.retention_ms, []).append(window)
        for retention_ms, windows in by_class.items():
            self._end_newest(windows[-1], self._span_ms(retention_ms), wall_ms)
            kept_ms = self._kept_ms(retention_ms)
            for window in _older(windows, now_ms - kept_ms) if kept_ms else ():
                log.info("window dropped by age", window=window.number, points=window.points)
                self._store.drop_window(window.number)
        self._drop_beyond_max()
        self._store.forget_tombstones()

    def _end_newest(self, window: Window, span_ms: int, wall_ms: int) -> None:
        """On an idle node no later window ends it.  An end in the future is a wrong clock's.

        By the clock that windows are opened with: another would end each at once.
        """
        over = abs(wall_ms - window.opened_at_ms) >= span_ms
        if (over and window.closed_at_ms == 0) or window.closed_at_ms > wall_ms:
            self._store.close_window(window.number, wall_ms)

    def _drop_beyond_max(self) -> None:
        windows = self._store.windows()
        held = sum(w.chunk_bytes for w in windows)
        for window in windows[:-1]:
            if not self._max_bytes or held <= self._max_bytes:
                break
            log.warning("window dropped for space", window=window.number, points=window.points)
            self._store.drop_window(window.number)
            held -= window.chunk_bytes

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
        self.measure()
        return oldest.points

    def measure(self) -> None:
        """Publishes what is held."""
        windows = self._store.windows()
        self._slot.put(words.SERIES_POINTS, sum(w.points for w in windows))
        self._slot.put(words.SERIES_BYTES, sum(w.chunk_bytes for w in windows))


def _older(windows: list[Window], than_ms: int) -> list[Window]:
    """Those of one class whose last rows came at that time or before, oldest first.

    The last rows of a window came before the next was opened.  A clock that was wrong for a while
    (no battery, 1970; a step of years and back) makes nothing old before its time.
    """
    found = []
    newest = windows[-1]
    # Ended before it began: by a clock that was far back, so it may be as young as its beginning.
    ended_ms = max(newest.closed_at_ms, newest.opened_at_ms) if newest.closed_at_ms else None
    if ended_ms is not None and ended_ms <= than_ms:
        found.append(newest)
    for window, following in reversed(list(pairwise(windows))):
        next_ms = max(window.opened_at_ms, following.opened_at_ms)
        ended_ms = next_ms if ended_ms is None else min(ended_ms, next_ms)
        if ended_ms <= than_ms:
            found.append(window)
    return found[::-1]


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Whether an event was set, waiting so long for it."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
    return event.is_set()


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _monotonic_ms() -> int:
    return int(time.monotonic() * 1000)
