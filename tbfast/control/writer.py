"""Rows that the node itself writes: telemetry saved by people, states of updates.

They take the way of all rows, through a journal: the controller's own.  It is applied to the tail
as soon as it is durable, so nothing pulls it; sealing trims it like the others.  What former runs
of the controller left in it is read beside the workers' journals (tbfast.control.former).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from tbfast import limits
from tbfast._ext.ingest import Group, Ingest
from tbfast.control.tail import Cursor, TailService
from tbfast.errors import StoreError, StoreFull, StoreStall
from tbfast.obs.log import get_logger
from tbfast.store.journal import Journal, Position
from tbfast.store.layout import NODE_JOURNAL

log = get_logger("tbfast.writer")

T = TypeVar("T")


class Room(Protocol):
    """The room rows may use: tbfast.store.space.Space."""

    def admits(self, nbytes: int) -> bool: ...


class TelemetryWriter:
    """All methods belong to one event loop, but for the constructor, which may take a while.

    on_broken(error) is called once if a write fails for another reason than lack of space, or a
    sync for any: nothing can be promised by this process any more.
    """

    def __init__(
        self,
        path: Path,
        known_epoch: Path,
        tail: TailService,
        room: Room,
        *,
        on_broken: Callable[[StoreError], None],
        type_cast: bool = True,
        max_string: int = 0,
    ) -> None:
        """Opens the journal; StoreError as `Journal`."""
        self._journal = Journal(path, NODE_JOURNAL, known_epoch)
        self._tail = tail
        self._room = room
        self._on_broken = on_broken
        self._broken: StoreError | None = None
        self._ingest = Ingest(type_cast=type_cast, max_string=max_string)
        self._seq = 0
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="node-journal")
        self._replayed = asyncio.Event()

    def replayed(self) -> None:
        """The tail has all rows of former runs: others may come after them."""
        self._replayed.set()

    async def save(self, device: int, payload: bytes, *, exact: bool = False) -> int:
        """Rows of one telemetry payload as a device would send it; their number.

        exact: a string that looks like a number stays a string (json.type_cast_enabled).
        They are durable and readable on return.  PeerError if the payload is refused; StoreFull or
        StoreStall when there is no room for them now.
        """
        if self._broken is not None:
            raise self._broken
        if not self._replayed.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._replayed.wait(), limits.REPLAY_WAIT_S)
        if (
            not self._replayed.is_set()
            or self._tail.full
            or self._ingest.rows_bytes >= limits.BATCH_GROUP_BYTES
        ):
            raise StoreStall("the store is busy; try again later")
        self._ingest.at(time.time_ns() // 1_000_000, time.monotonic_ns())
        append = self._ingest.append_exact if exact else self._ingest.append_json
        _records, points = append(device, payload)
        if points:
            durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._ingest.wait(durable)
            if self._writing is None:
                self._writing = asyncio.create_task(self._write())
            await asyncio.shield(durable)  # a caller that goes away does not undo it
        return points

    async def _write(self) -> None:
        while not self._ingest.group.empty and self._broken is None:
            self._seq += 1
            group = self._ingest.group
            try:
                group = self._ingest.take(
                    NODE_JOURNAL,
                    self._journal.epoch,
                    self._seq,
                    self._ingest.wall_ms,
                    self._journal.written_keys + 1,
                )
                error = await self._written(group)
            except MemoryError as shortage:
                # The journal may have rows that the tail lacks; the next start reads them from it.
                error = self._break(StoreError(f"no memory for rows to store: {shortage}"))
            for waiter in group.waiters:
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)
                    waiter.exception()  # retrieved, should the caller have been cancelled
            self._ingest.recycle(group)
        self._writing = None

    async def _written(self, group: Group) -> StoreError | None:
        block = group.value
        if block is None:  # every row had a key that storage refuses
            return None
        if not self._room.admits(len(block)):
            return StoreFull("the disk is full; free space and writing resumes by itself")
        try:
            self._journal.append(group)
        except (StoreFull, StoreStall) as error:
            return error
        except StoreError as error:
            return self._break(error)
        try:
            await self._in_thread(self._journal.sync)
            position = Position(self._journal.epoch, group.seq)
            self._journal.durable = position
            self._tail.apply(block)
            await self._in_thread(lambda: self._mark(position))
        except StoreError as error:
            return self._break(error)
        return None

    def _mark(self, position: Position) -> None:
        try:
            self._journal.mark(position)
        except StoreFull as error:  # the former mark stands
            log.limited("store", logging.ERROR, "high-water mark not moved", error=str(error))

    def _break(self, error: StoreError) -> StoreError:
        self._broken = error
        self._on_broken(error)
        return error

    def run_recorded(self, cursors: dict[int, Cursor]) -> None:
        """Rows up to these positions are sealed."""
        position = cursors.get(NODE_JOURNAL)
        if position is None or self._broken is not None:
            return
        try:
            self._journal.trim(Position(*position))
        except (StoreFull, StoreStall) as error:  # the next run asks for more
            log.limited("trim", logging.WARNING, "the journal is not trimmed", error=str(error))

    async def reclaim(self, *, pressed: bool) -> None:
        """Frees the files of sealed rows."""
        if not self._journal.reclaimable(pressed=pressed):
            return
        try:
            await self._in_thread(self._journal.reclaim)
        except StoreError as error:  # trimmed files stay a little longer
            log.limited("reclaim", logging.WARNING, "no space was freed", error=str(error))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def finish(self) -> None:
        """Waits for what was begun; nothing may be saved any more."""
        if self._writing is not None:
            await self._writing

    def close(self) -> None:
        """Releases the journal, once what it holds has been sealed."""
        self._thread.shutdown()
        if self._broken is None:
            self._journal.close()
