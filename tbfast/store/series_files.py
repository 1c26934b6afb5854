"""The RocksDB below the series store: its families, made and dropped while it runs."""

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from rocksdict import Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

from tbfast.errors import StoreError, StoreFull
from tbfast.store import rocks
from tbfast.store.windows import family_name

WRITE_BUFFER_BYTES: Final = 8 << 20
RUN_BUFFER_BYTES: Final = 8 << 20  # a larger run is flushed while it is still being written, ...
RUN_BUFFERS: Final = 18  # ... and never waits for that, as it would hold the GIL: heads are smaller
CACHE_BYTES: Final = 16 << 20
CHUNK_KEY: Final = struct.Struct(">QII")  # device, key number or 0, run
RUN: Final = struct.Struct(">I")  # its end
RUNS_END: Final = b"\xff" * RUN.size  # no run has this number
CHUNK_BLOCK_BYTES: Final = 16_384  # compressed together: neighbours are much alike
RAW_FILES: Final = 16  # of a segment before RocksDB merges them; joining rewrites them anyway
NO_STALL: Final = 1 << 20  # files: runs come no faster than they are made
FIXED: Final = ("default", "keys", "latest", "deleted", "changes")
Waits = Callable[[], contextlib.AbstractContextManager[None]]


def _of_runs(name: str) -> bool:
    return name not in FIXED and name.startswith(family_name(0, 0)[0])


class SeriesFiles:
    """Handles of all families; `chunks` holds those of segments by name.

    Everything that writes is for one thread at a time.
    """

    def __init__(self, path: Path, waits: Waits = contextlib.nullcontext) -> None:
        """waits: around what holds the GIL while it syncs, however long the disk takes."""
        self.path = path
        self._waits = waits
        names = [*FIXED]
        if path.is_dir() and (path / "CURRENT").exists():
            with rocks.translated(path):
                names = [*FIXED, *(n for n in Rdict.list_cf(str(path)) if n not in FIXED)]
        self.merging_held = False
        self._cache = Cache.new_hyper_clock_cache(CACHE_BYTES, 16_384)
        families = {name: self._options(name) for name in names}
        self.db = rocks.open_with(path, families["default"], families)
        fixed = [self.db.get_column_family(name) for name in FIXED[1:]]
        self.keys, self.latest, self.deleted, self.changes = fixed
        self.chunks = {n: self.db.get_column_family(n) for n in names if n not in FIXED}
        self._number = max((int(name[1:]) for name in self.chunks), default=0)
        self._unwanted: set[str] = set()  # what a full disk did not let go
        self._no_log = WriteOptions()
        self._no_log.disable_wal = True  # type: ignore[method-assign,assignment]

    def _options(self, name: str) -> Options:
        chunks = name not in FIXED
        made = rocks.options(
            write_buffer_bytes=RUN_BUFFER_BYTES if _of_runs(name) else WRITE_BUFFER_BYTES,
            cache=self._cache, packed=name.startswith("j"),
            block_bytes=CHUNK_BLOCK_BYTES if chunks else 4_096,
        )  # fmt: skip
        if _of_runs(name):
            made.set_max_write_buffer_number(RUN_BUFFERS)
        if chunks or name == "changes":
            made.set_level_zero_file_num_compaction_trigger(RAW_FILES)
            # Else RocksDB makes writers wait for the merging of their files.
            made.set_level_zero_slowdown_writes_trigger(NO_STALL)
            made.set_level_zero_stop_writes_trigger(NO_STALL)
            made.set_soft_pending_compaction_bytes_limit(0)
            made.set_hard_pending_compaction_bytes_limit(0)
            made.set_disable_auto_compactions(self.merging_held and _of_runs(name))
        if name == "changes":  # varints of differences, soon dropped: LZ4 saves a third of them
            made.set_compression_type(DBCompressionType.none())
        return made

    @property
    def cached_bytes(self) -> int:
        """Blocks of chunks in memory."""
        return int(self._cache.get_usage())

    def create(self, level: int) -> int:
        """A family for a segment of that level; a number is never tried twice.  Three syncs."""
        self._number += 1
        name = family_name(self._number, level)
        try:
            with self._waits(), rocks.translated(self.path):
                self.chunks[name] = self.db.create_column_family(name, self._options(name))
        except StoreFull:
            self._unwanted.add(name)  # RocksDB may have made it all the same
            raise
        return self._number

    def drop(self, name: str) -> None:
        """Drops a family that no record names; what a full disk does not let go goes with a later
        one.  Three syncs."""
        self.chunks.pop(name, None)  # a read that has it keeps it until it ends
        for unwanted in (name, *(self._unwanted - {name})):
            try:
                with self._waits(), rocks.translated(self.path):
                    self.db.drop_column_family(unwanted)
                self._unwanted.discard(unwanted)
            except StoreFull:
                self._unwanted.add(unwanted)
                return
            except StoreError:
                if unwanted == name:
                    raise
                self._unwanted.discard(unwanted)  # it was not made

    def write_unlogged(self, name: str, chunks: Iterable[tuple[bytes, bytes]]) -> None:
        """Pairs for a family, chunks or changes; on disk once it is flushed."""
        batch = WriteBatch(raw_mode=True)
        handle = self.db.get_column_family_handle(name)
        for key, value in chunks:
            batch.put(key, value, handle)
        with rocks.translated(self.path):
            self.db.write(batch, self._no_log)

    def hold_merging(self, hold: bool) -> None:
        """Whether RocksDB leaves the files of runs as they are, however many.

        Some ms with the GIL for each family of runs.  StoreFull: some are changed.
        """
        for name in filter(_of_runs, self.chunks):
            with self._waits(), rocks.translated(self.path):
                self.chunks[name].set_options(
                    {"disable_auto_compactions": "true" if hold else "false"}
                )
        self.merging_held = hold

    def flush(self, name: str) -> None:
        """Returns when all chunks of a family are on disk."""
        with rocks.translated(self.path):
            self.chunks[name].flush(True)

    def flush_changes(self) -> None:
        """Returns when all changes of latest values are in files."""
        with rocks.translated(self.path):
            self.changes.flush(True)

    def flush_names(self) -> None:
        """Returns when all names of keys are in files of their own."""
        with rocks.translated(self.path):
            self.keys.flush(True)

    def write(self, batch: WriteBatch) -> None:
        """Durable with the next synced write."""
        if len(batch):
            with rocks.translated(self.path):
                self.db.write(batch)

    def write_synced(self, batch: WriteBatch) -> None:
        """Durable when it returns."""
        with rocks.translated(self.path):
            self.db.write(batch)
            self.db.flush_wal(True)

    def sync(self) -> None:
        """Everything written so far is on disk when it returns."""
        with rocks.translated(self.path):
            self.db.flush_wal(True)

    def checkpoint(self, to: Path) -> None:
        """A copy of the present state."""
        for name in self.chunks:
            self.flush(name)  # without the GIL, which a checkpoint holds
        with self._waits():
            rocks.checkpoint(self.db, self.path, to)

    def records(self, prefix: bytes) -> Iterator[bytes]:
        """Values of the default family whose keys begin with a byte."""
        for key, value in rocks.pairs(self.db, self.path, prefix):
            if key[:1] != prefix:
                return
            yield value

    def close(self) -> None:
        """Releases the files."""
        fixed = (self.keys, self.latest, self.deleted, self.changes)
        for family in (*self.chunks.values(), *fixed):
            rocks.close(family, self.path)
        rocks.close(self.db, self.path)
