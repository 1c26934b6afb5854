"""Reads of a store that no server has open: sealed series, and what only the journals hold yet.

A running server reads the series store itself and has the rest in its head; this module serves the
command line on a stopped server, and the controller for journals that no worker writes any more.
"""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from rocksdict import AccessType, Cache, Rdict

from tbfast._ext.deleted import Deleted
from tbfast._ext.scan import RangeScan
from tbfast.errors import StoreError
from tbfast.model.ranges import RangeQuery
from tbfast.store import rocks
from tbfast.store.answer import Answer, newest
from tbfast.store.journal import (
    KEY,
    Position,
    block_key,
    read_definitions,
    read_epoch,
    retire_epoch,
)
from tbfast.store.layout import Layout
from tbfast.store.series import SeriesStore

_BUFFER_BYTES = 1 << 20  # nothing is written through these handles; each block is read once
_FAMILIES = ("default", "meta")
_OPEN_AGAIN_S = (0.01, 0.03, 0.1, 0.3)  # before a journal that cannot be opened counts as damaged

T = TypeVar("T")


class JournalFile:
    """A journal opened read-only, perhaps beside its writer; blocks the process.

    RocksDB opens what its manifest names one after the other: a file that the writer is done with
    meanwhile is missing then, as if the journal were damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        for pause_s in _OPEN_AGAIN_S:
            try:
                self._open()
            except StoreError:
                time.sleep(pause_s)
            else:
                return
        self._open()

    def _open(self) -> None:
        path = self.path
        opts = rocks.options(write_buffer_bytes=_BUFFER_BYTES, cache=Cache(_BUFFER_BYTES))
        opts.create_if_missing(False)
        with rocks.translated(path):
            self._db = Rdict(
                str(path), opts, dict.fromkeys(_FAMILIES, opts), AccessType.read_only(False)
            )

    def definitions(self) -> dict[int, list[tuple[int, bytes]]]:
        """Key definitions by epoch: (first number, names)."""
        found: dict[int, list[tuple[int, bytes]]] = {}
        for known in read_definitions(self._db.get_column_family("meta"), self.path):
            found.setdefault(known.epoch, []).append((known.first, known.defs))
        return found

    def epoch(self) -> int:
        """Newest epoch."""
        with rocks.translated(self.path):
            return read_epoch(self._db.get_column_family("meta"))

    def trimmed(self) -> Position:
        """Blocks up to there are gone: the series store has recorded that it has their rows."""
        with rocks.translated(self.path):
            raw = self._db.get_column_family("meta").get(b"t")
        return Position(*KEY.unpack(raw)) if raw else Position(0, 0)

    def blocks(self, after: Position) -> Iterator[tuple[Position, bytes]]:
        """Blocks after a position, in order."""
        start = block_key(Position(after.epoch, after.seq + 1))
        for key, block in rocks.pairs(self._db, self.path, start):
            yield Position(*KEY.unpack(key)), block

    def close(self) -> None:
        """Releases the files."""
        self._db.close()


def remove_journal(path: Path, epoch: int) -> None:
    """Deletes a journal whose rows are all sealed; a later one goes on after its epoch."""
    retire_epoch(path, epoch)
    path.with_name(path.name + ".mark").unlink(missing_ok=True)
    removed = path.with_name(path.name + ".removed")  # so that there is never half a journal
    shutil.rmtree(removed, ignore_errors=True)
    path.rename(removed)
    shutil.rmtree(removed)


class OfflineSeries:
    """`SeriesReader` of a stopped server; reads run one at a time in a thread."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._store: SeriesStore | None = None
        if layout.series.is_dir():
            self._store = SeriesStore(layout.series)
        self._journals: dict[int, JournalFile] = {}  # nobody writes them
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="series-read")

    async def range(self, device: int, query: RangeQuery) -> bytes:
        """Points or buckets; PeerError for buckets that cannot be had."""
        answer = Answer(device, query)

        def read() -> bytes:
            self._scan(answer.scan)
            return answer.text()

        return await self._in_thread(read)

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key."""
        return await self.range(device, newest(keys))

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys, sorted."""

        def read() -> list[str]:
            scan = RangeScan(device, None, limit=1)
            self._scan(scan)
            return scan.key_names()

        return await self._in_thread(read)

    async def close(self) -> None:
        """Releases the store and the journals."""
        self._thread.shutdown()
        for journal in self._journals.values():
            journal.close()
        if self._store is not None:
            self._store.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _scan(self, scan: RangeScan) -> None:
        sealed: dict[int, tuple[int, int]] = {}
        if self._store is not None:
            sealed = self._store.cursors()
            self._store.feed(scan, dict(self._store.key_names()))
        for number in self._layout.journal_numbers():
            after = Position(*sealed.get(number, (0, 0)))
            deleted = None
            if self._store is not None:
                deleted = self._store.tombstones.in_journal(scan.device_number, number)
            journal = self._journals.get(number)
            if journal is None:
                journal = self._journals[number] = JournalFile(self._layout.journal(number))
            _scan(scan, journal, after, deleted)


def scan_journal(
    scan: RangeScan, path: Path, after: Position, deleted: Deleted | None = None
) -> None:
    """Gives a journal's blocks after a position to a range scan; StoreError names what is damaged.

    Opens the journal read-only, which a running writer does not mind.
    """
    journal = JournalFile(path)
    try:
        _scan(scan, journal, after, deleted)
    finally:
        journal.close()


def _scan(scan: RangeScan, journal: JournalFile, after: Position, deleted: Deleted | None) -> None:
    definitions: dict[int, list[tuple[int, bytes]]] | None = None
    epoch = -1
    for position, block in journal.blocks(after):
        if definitions is None:
            definitions = journal.definitions()
        if position.epoch != epoch:
            epoch = position.epoch
            scan.epoch(definitions.get(epoch, ()))
        try:
            scan.feed(block, deleted)
        except StoreError as error:
            raise StoreError(
                f"{journal.path}: epoch {epoch}, sequence {position.seq}: {error}"
            ) from error


def open_offline(data_dir: Path) -> OfflineSeries:
    """Reader for a stopped server."""
    return OfflineSeries(Layout(data_dir))
