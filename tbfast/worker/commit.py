"""Group commit: when a group closes, how it becomes durable, and what happens when it cannot.

A group is written at the end of a loop turn when `COMMIT_INTERVAL_MS` has passed since the last
commit or `BATCH_COMMIT_BYTES` of rows wait; else a timer does it.  With durability "process" it is
complete when the write returns; with "disk" when a sync that began after the write has returned.
The sync runs in a thread of its own (the GIL is free there); the next groups form meanwhile.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain
from queue import SimpleQueue
from typing import Protocol

from tbfast import limits
from tbfast._ext.ingest import Group, Ingest
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.obs.log import get_logger
from tbfast.store.journal import Journal, Position

log = get_logger("tbfast.commit")

STALL_RETRY_S = 0.005
MARK_INTERVAL_S = 1.0  # also the window of durability "process"


class Answers(Protocol):
    """What a commit does to the connections: tbfast.worker.answers.Answers."""

    def complete(self, group: Group) -> None: ...
    def fail(self, group: Group, error: StoreError) -> None: ...
    def press(self, on: bool) -> None: ...


class CommitMetrics(Protocol):
    """Counters of the commit path."""

    def committed(self, group: Group, seconds: float) -> None: ...
    def refused(self, group: Group) -> None: ...
    def pressed(self) -> None: ...


class DiskSpace(Protocol):
    """The room telemetry may use: tbfast.store.space.Space."""

    def admits(self, nbytes: int) -> bool: ...


class Committer:
    """Commits the groups of one worker.

    on_durable(group, position of the block before it) is called for each block in order, before
    its answers are sent.
    on_broken(error) is called once if a write fails for another reason than lack of space, or a
    sync for any: nothing can be promised any more, the process must end (a failed fdatasync may
    have dropped the dirty pages; trying again would lie).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ingest: Ingest,
        journal: Journal,
        answers: Answers,
        metrics: CommitMetrics,
        *,
        disk: bool,
        on_durable: Callable[[Group, Position], None],
        on_broken: Callable[[StoreError], None],
        max_journal_bytes: int = limits.JOURNAL_MAX_BYTES,
        busy_ms: int = limits.JOURNAL_BUSY_MS,
        space: DiskSpace | None = None,
    ) -> None:
        self._loop = loop
        self._ingest = ingest
        self._journal = journal
        self._answers = answers
        self._metrics = metrics
        self._disk = disk
        self._on_durable = on_durable
        self._on_broken = on_broken
        self._max_journal_bytes = max_journal_bytes
        self._busy_ns = busy_ms * 1_000_000
        self._space = space
        self.stalled = False  # as `look` saw it, or since then over
        self._seq = 0
        self._last_commit_ns = 0
        self._synced_to = journal.written
        self._synced_at_ns = time.monotonic_ns()
        self._timer: asyncio.TimerHandle | None = None
        self._unwritten: deque[Group] = deque()  # bounded by INFLIGHT_BYTES: publishers are held
        self._retry: asyncio.TimerHandle | None = None
        self._unsynced: deque[Group] = deque()  # bounded likewise
        self._inflight_bytes = 0
        self._inflight_bound = limits.INFLIGHT_BYTES
        self._pressed = False
        self._syncing = False
        self._covered = 0  # oldest unsynced groups that the running sync makes durable
        self._broken = False
        self._full = False  # no space: RocksDB recovers by itself unless it is asked to sync
        self._left_behind = Position(0, 0)  # newest block that was refused after its write
        self.journal_bytes = journal.disk_bytes()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run_jobs, name="journal-sync", daemon=True)
        self._thread.start()
        self._mark_timer = loop.call_later(MARK_INTERVAL_S, self._background_sync)

    # --- closing groups ------------------------------------------------------------------

    def turn_ended(self) -> None:
        """The loop turn is over and the open group holds messages."""
        if self._disk and self._syncing and self._ingest.rows_bytes < limits.BATCH_GROUP_BYTES:
            return  # it goes out with the next sync
        waited_ns = time.monotonic_ns() - self._last_commit_ns  # the loop's time is in whole ms
        if (
            waited_ns >= limits.COMMIT_INTERVAL_MS * 900_000
            or self._ingest.rows_bytes >= limits.BATCH_COMMIT_BYTES
        ):
            self.commit()
        elif self._timer is None:
            self._timer = self._loop.call_later(limits.COMMIT_INTERVAL_MS / 1000, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if not self._ingest.group.empty:
            self.commit()

    def commit(self) -> None:
        """Closes the open group and writes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._last_commit_ns = time.monotonic_ns()
        self._seq += 1
        group = self._ingest.take(
            self._journal.journal_id,
            self._journal.epoch,
            self._seq,
            self._ingest.wall_ms,
            self._journal.written_keys + 1,
        )
        self._inflight_bytes += group.held_bytes
        self._unwritten.append(group)
        self._write()
        self._watch_pressure()

    def _write(self) -> None:
        if self._broken:
            return
        while self._unwritten and self._retry is None:
            group = self._unwritten[0]
            if group.value is not None:
                if (refusal := self._no_room(len(group.value))) is not None:
                    self._unwritten.popleft()
                    self._refuse(group, refusal)
                    continue
                try:
                    self._journal.append(group)
                except StoreStall:
                    self._retry = self._loop.call_later(STALL_RETRY_S, self._write_again)
                    self._watch_pressure()
                    return
                except StoreFull as error:
                    self._full = True
                    self._unwritten.popleft()
                    self._refuse_unsynced(error)
                    self._refuse(group, error)
                    continue
                except StoreError as error:
                    self._break(error)
                    return
                self._full = False
                self.journal_bytes += len(group.value)
            self._unwritten.popleft()
            self._unsynced.append(group)
        if not self._disk:
            self._complete(len(self._unsynced))
        elif self._unsynced and not self._syncing:
            if all(group.value is None for group in self._unsynced):
                self._complete(len(self._unsynced))
            else:
                self._start_sync()

    def _no_room(self, nbytes: int) -> StoreFull | None:
        """Why a block of that size is not even written."""
        if self.journal_bytes + nbytes > self._max_journal_bytes:
            return StoreFull(
                f"{self._journal.path}: journal.max_bytes ({self._max_journal_bytes}) is reached"
            )
        if self._space is not None and not self._space.admits(nbytes):
            return StoreFull(
                f"{self._journal.path}: the disk is full but for the reserve; free space and "
                f"writing resumes by itself"
            )
        return None

    def _write_again(self) -> None:
        self._retry = None
        self._write()
        self._watch_pressure()  # the store may refuse now what it only delayed before

    def _refuse(self, group: Group, error: StoreError) -> None:
        log.limited("store", logging.ERROR, "journal refused a group", error=str(error))
        self._metrics.refused(group)
        self._inflight_bytes -= group.held_bytes
        self._answers.fail(group, error)
        self._ingest.recycle(group)

    # --- durability ----------------------------------------------------------------------

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _start_sync(self) -> None:
        self._syncing = True
        self._covered = len(self._unsynced)
        self._jobs.put(self._sync_in_thread)

    def _sync_in_thread(self) -> None:
        error = None
        try:
            self._journal.sync()
        except StoreError as failed:
            error = failed
        self._loop.call_soon_threadsafe(self._synced, error)

    def _synced(self, error: StoreError | None) -> None:
        self._syncing = False
        covered, self._covered = self._covered, 0
        if self._broken:
            return
        if error is not None:
            self._break(error)
            return
        self._complete(covered)
        if not self._ingest.group.empty:
            self.commit()
        elif self._disk and self._unsynced:
            self._start_sync()

    def _refuse_unsynced(self, error: StoreFull) -> None:
        """Written groups that no sync covers: one would fail now, and for good."""
        if self._disk:
            for group in [self._unsynced.pop() for _ in range(len(self._unsynced) - self._covered)]:
                if group.value is not None:
                    left = Position(self._journal.epoch, group.seq)
                    self._left_behind = max(self._left_behind, left)
                self._refuse(group, error)

    def _break(self, error: StoreError) -> None:
        if self._broken:
            return
        self._broken = True
        for group in [*self._unsynced, *self._unwritten]:
            self._refuse(group, error)
        self._unsynced.clear()
        self._unwritten.clear()
        self._on_broken(error)

    def _complete(self, count: int) -> None:
        """The oldest `count` unsynced groups are durable."""
        now_ns = time.monotonic_ns()
        for _ in range(count):
            group = self._unsynced.popleft()
            self._inflight_bytes -= group.held_bytes
            if group.value is not None:
                position = Position(self._journal.epoch, group.seq)
                previous = self._journal.durable
                if self._left_behind < position:
                    previous = max(previous, self._left_behind)
                self._journal.durable = position
                self._on_durable(group, previous)
            self._metrics.committed(group, (now_ns - group.opened_ns) / 1e9)
            self._answers.complete(group)
            self._ingest.recycle(group)
        if count:
            self._watch_pressure()
            if self.stalled:
                self.look()

    def look(self) -> None:
        """Whether the disk keeps rows waiting for longer than `busy_ms`; call now and then.

        Sessions hold meanwhile and their acknowledgements come when the disk is done.
        """
        waiting = self._unsynced or self._unwritten
        waited_ns = time.monotonic_ns() - waiting[0].opened_ns if waiting else 0
        stalled = waited_ns > self._busy_ns
        if stalled == self.stalled:
            return
        self.stalled = stalled
        if stalled:
            log.error(
                "the disk is too slow: nothing was stored for long, newcomers are refused",
                path=str(self._journal.path), waited_s=round(waited_ns / 1e9, 1),
            )  # fmt: skip
        else:
            log.info("the disk has caught up: newcomers are let in")

    def _background_sync(self) -> None:
        """Once a second: syncs what "process" left behind, and moves the high-water mark."""
        position = self._journal.written if not self._disk else self._journal.durable
        self.journal_bytes = self._journal.disk_bytes()
        if not self._full:
            self._jobs.put(lambda: self._mark_in_thread(position))
        self._mark_timer = self._loop.call_later(MARK_INTERVAL_S, self._background_sync)

    def _mark_in_thread(self, position: Position) -> None:
        began_ns = time.monotonic_ns()
        try:
            if not self._disk:
                self._journal.sync()
                self._synced_to, self._synced_at_ns = position, began_ns
            if position.seq:
                self._mark(position)
        except StoreError as error:
            self._loop.call_soon_threadsafe(self._break, error)

    def _mark(self, position: Position) -> None:
        try:
            self._journal.mark(position)
        except StoreFull as error:  # the former mark stands
            log.limited("store", logging.ERROR, "high-water mark not moved", error=str(error))

    # --- back-pressure -------------------------------------------------------------------

    def narrow(self, on: bool) -> None:
        """A smaller bound on what is not durable yet, while memory is scarce."""
        self._inflight_bound = limits.MEMORY_INFLIGHT_BYTES if on else limits.INFLIGHT_BYTES
        self._watch_pressure()

    def _watch_pressure(self) -> None:
        if not self._pressed and (
            self._inflight_bytes >= self._inflight_bound or self._retry is not None
        ):
            self._pressed = True
            self._metrics.pressed()
            self._answers.press(True)
        elif (
            self._pressed
            and self._retry is None
            and self._inflight_bytes <= self._inflight_bound // 2
        ):
            self._pressed = False
            self._answers.press(False)

    @property
    def unsynced_window_ns(self) -> int:
        """Age of the oldest acknowledged data that a power cut would lose."""
        if self._disk or self._journal.written == self._synced_to:
            return 0
        return time.monotonic_ns() - self._synced_at_ns

    @property
    def accepted(self) -> Position:
        """Position of the newest row taken in, committed or not, that may still come.

        Messages without rows and refused groups make no block: nobody may wait for theirs.
        """
        epoch = self._journal.epoch
        if self._ingest.rows_bytes > 0:
            return Position(epoch, self._seq + 1)
        for group in chain(reversed(self._unwritten), reversed(self._unsynced)):
            if group.value is not None:
                return Position(epoch, group.seq)
        return self._journal.durable

    @property
    def inflight_bytes(self) -> int:
        """Bytes of rows and answers that are not durable yet, the open group aside."""
        return self._inflight_bytes

    @property
    def idle(self) -> bool:
        """Whether every accepted message has been committed and answered."""
        return self._ingest.group.empty and not self._unwritten and not self._unsynced

    @property
    def can_sync(self) -> bool:
        """Whether the journal takes a sync; not while the disk is full, nor after it failed."""
        return not self._broken and not self._full

    def close(self) -> None:
        """Stops the thread after its last job; call when idle."""
        self._mark_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._jobs.put(None)
        self._thread.join()
        if self._journal.written.seq and self.can_sync:
            self._journal.sync()
            self._journal.mark(self._journal.written)
