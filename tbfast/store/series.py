"""The sealed series: chunks of runs in RocksDB, one column family per window (design section 3).

A run turns a frozen head into chunks.  Chunks are written with the log off and flushed; then ONE
synced record makes the run visible and says which journal positions it covers.  Chunks of a run
without a record are never read, and its number is never given again: each row is in a recorded run
or still in a journal, never in both and never in neither.

Column families:

    default   b"f" format version, b"n" next run number,
              b"r" + run -> RunRecord, b"w" + window -> WindowRecord
    keys      key number (u32) -> name
    deleted   device (u64), number (u64) -> Tombstone
    latest    device (u64) -> latest value of each of its series
    w<number> chunks of one window: device (u64), key number or 0 (u32), run (u32)

All numbers in keys are big-endian.  Key numbers belong to this store, not to a journal epoch.
"""

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
from rocksdict import Cache, Rdict, WriteBatch, WriteOptions

from tbfast._ext.sealer import feed_chunk
from tbfast._ext.series import RangeScan
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.tombstones import KEY as TOMBSTONE_KEY
from tbfast.store.tombstones import Tombstones, decode

FORMAT_VERSION: Final = 1
WRITE_BUFFER_BYTES: Final = 8 << 20
CACHE_BYTES: Final = 16 << 20
WRITE_BATCH_BYTES: Final = 65_536  # the GIL is held during one write
CHUNK_KEY: Final = struct.Struct(">QII")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_FIXED: Final = ("default", "keys", "latest", "deleted")


class RunRecord(msgspec.Struct, array_like=True, frozen=True):
    """One recorded run: journals up to `cursors` are in it or in runs before it."""

    number: int
    window: int
    cursors: dict[int, tuple[int, int]]  # journal -> (epoch, sequence)
    points: int
    chunk_bytes: int
    min_ts: int
    max_ts: int
    sealed_at_ms: int


class WindowRecord(msgspec.Struct, array_like=True, frozen=True):
    """When a window was opened; chunks that arrive later than its span go to the next one."""

    number: int
    opened_at_ms: int


class Window(NamedTuple):
    """What reads need to know about a window."""

    number: int
    opened_at_ms: int
    min_ts: int
    max_ts: int
    points: int
    chunk_bytes: int


class SeriesStore:
    """Chunks, runs, key names and latest values.  One writer thread at a time; reads in another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        families = [*_FIXED]
        if path.is_dir() and (path / "CURRENT").exists():
            with rocks.translated(path):
                families = [*_FIXED, *(n for n in Rdict.list_cf(str(path)) if n not in _FIXED)]
        self._cache = Cache.new_hyper_clock_cache(CACHE_BYTES, 16_384)
        self._db = rocks.open_families(path, families, write_buffer_bytes=WRITE_BUFFER_BYTES)
        self._windows_db = {
            int(name[1:]): self._db.get_column_family(name)
            for name in families
            if name not in _FIXED
        }
        self._keys_db = self._db.get_column_family("keys")
        self._latest_db = self._db.get_column_family("latest")
        self._deleted_db = self._db.get_column_family("deleted")
        self._no_log = WriteOptions()
        self._no_log.disable_wal = True  # type: ignore[method-assign,assignment]
        try:
            self._check_format()
            self.runs = self._read_runs()
            self._opened = self._read_windows()
            self._forget_strays()
            self.tombstones = self._read_tombstones()
        except BaseException:
            self.close()
            raise
        self._valid = {run.number for run in self.runs if run.window in self._windows_db}
        stored = self._db.get(b"n")
        self._begun = _U32.unpack(stored)[0] - 1 if stored else 0
        self._spoilt = 0

    def _forget_strays(self) -> None:
        """Families of windows that were being opened or dropped when the process ended."""
        for number in self._windows_db.keys() - self._opened.keys():
            with rocks.translated(self.path):
                del self._windows_db[number]
                self._db.drop_column_family(f"w{number}")

    def _read_tombstones(self) -> Tombstones:
        found = Tombstones()
        pairs = rocks.pairs(self._deleted_db, self.path)
        found.restore(sorted((decode(raw) for _, raw in pairs), key=lambda t: t.number))
        for run in self.runs:
            found.recorded(run.number, run.cursors)
        return found

    def _check_format(self) -> None:
        stored = self._db.get(b"f")
        if stored is None:
            self._db.put(b"f", _U32.pack(FORMAT_VERSION))
            return
        version = _U32.unpack(stored)[0]
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer tbfast (format {version}, this one knows "
                f"{FORMAT_VERSION}); start that version or use another --data-dir"
            )

    def _records(self, prefix: bytes) -> Iterator[bytes]:
        for key, value in rocks.pairs(self._db, self.path, prefix):
            if key[:1] != prefix:
                return
            yield value

    def _read_runs(self) -> list[RunRecord]:
        decoder = msgspec.msgpack.Decoder(RunRecord)
        return [decoder.decode(value) for value in self._records(b"r")]

    def _read_windows(self) -> dict[int, int]:
        decoder = msgspec.msgpack.Decoder(WindowRecord)
        records = (decoder.decode(value) for value in self._records(b"w"))
        return {r.number: r.opened_at_ms for r in records}

    # --- runs ----------------------------------------------------------------------------

    def cursors(self) -> dict[int, tuple[int, int]]:
        """Journal positions that recorded runs cover."""
        newest: dict[int, tuple[int, int]] = {}
        for run in self.runs:
            for journal, position in run.cursors.items():
                newest[journal] = max(newest.get(journal, (0, 0)), position)
        return newest

    def begin_run(self) -> int:
        """A run number that was never given before, synced."""
        stored = self._db.get(b"n")
        number = _U32.unpack(stored)[0] if stored else 1
        with rocks.translated(self.path):
            self._db.put(b"n", _U32.pack(number + 1))
            self._db.flush_wal(True)
        self._begun = int(number)
        return self._begun

    @property
    def begun(self) -> int:
        """The newest run number given; every row of that run has been read from its journal."""
        return self._begun

    def window_for(self, now_ms: int, span_ms: int, span_bytes: int = 0) -> int:
        """The window for chunks that arrive now, opening one if the newest is over its span.

        span_ms, span_bytes: a window takes no more chunks after that; 0 = without end.
        """
        newest = max((*self._opened, *(run.window for run in self.runs)), default=0)
        newest = max(newest, self._spoilt)
        # A clock that was far off when the newest was opened must not keep it open for years.
        if (
            newest in self._opened
            and (span_ms == 0 or abs(now_ms - self._opened[newest]) < span_ms)
            and (span_bytes == 0 or self._chunk_bytes(newest) < span_bytes)
        ):
            return newest
        return self._open_window(newest + 1, now_ms)

    def _chunk_bytes(self, window: int) -> int:
        return sum(run.chunk_bytes for run in self.runs if run.window == window)

    def _open_window(self, number: int, now_ms: int) -> int:
        with rocks.translated(self.path):
            if number not in self._windows_db:
                self._windows_db[number] = self._create_family(number)
            record = WindowRecord(number, now_ms)
            self._db.put(b"w" + _U32.pack(number), msgspec.msgpack.encode(record))
            self._db.flush_wal(True)
        self._opened[number] = now_ms
        return number

    def _create_family(self, number: int) -> Rdict:
        options = rocks.options(write_buffer_bytes=WRITE_BUFFER_BYTES, cache=self._cache)
        try:
            return self._db.create_column_family(f"w{number}", options)
        except BaseException:
            # On a full disk RocksDB may have made it all the same: the number is not tried again.
            self._spoilt = number
            raise

    def write_chunks(self, window: int, chunks: Iterable[tuple[bytes, bytes]]) -> None:
        """Writes chunks of a run, sorted by key, without the log."""
        batch = WriteBatch(raw_mode=True)
        handle = self._db.get_column_family_handle(f"w{window}")
        for key, value in chunks:
            batch.put(key, value, handle)
        with rocks.translated(self.path):
            self._db.write(batch, self._no_log)

    def write_keys(self, names: Iterable[tuple[int, bytes]]) -> None:
        """Names of new key numbers; durable with the next recorded run."""
        batch = WriteBatch(raw_mode=True)
        handle = self._db.get_column_family_handle("keys")
        for number, name in names:
            batch.put(_U32.pack(number), name, handle)
        if len(batch):
            with rocks.translated(self.path):
                self._db.write(batch)

    def write_latest(self, values: Iterable[tuple[int, bytes]]) -> None:
        """Latest values per device; durable with the next recorded run."""
        batch = WriteBatch(raw_mode=True)
        handle = self._db.get_column_family_handle("latest")
        for device, value in values:
            batch.put(_U64.pack(device), value, handle)
        if len(batch):
            with rocks.translated(self.path):
                self._db.write(batch)

    def finish_run(self, run: RunRecord) -> None:
        """Flushes the window's chunks, then records the run: from here on it is visible."""
        with rocks.translated(self.path):
            self._windows_db[run.window].flush(True)
            self._db.put(b"r" + _U32.pack(run.number), msgspec.msgpack.encode(run))
            self._db.flush_wal(True)
        self.tombstones.recorded(run.number, run.cursors)  # before its chunks are read
        self._valid.add(run.number)
        self.runs.append(run)

    # --- reads ---------------------------------------------------------------------------

    def windows(self) -> list[Window]:
        """Windows with at least one recorded run, oldest first."""
        found: dict[int, Window] = {}
        for run in list(self.runs):
            opened_ms = self._opened.get(run.window)
            if opened_ms is None:
                continue  # dropped; the record is kept for its cursors
            w = found.get(run.window)
            found[run.window] = Window(
                run.window,
                opened_ms,
                min(run.min_ts, w.min_ts) if w else run.min_ts,
                max(run.max_ts, w.max_ts) if w else run.max_ts,
                run.points + (w.points if w else 0),
                run.chunk_bytes + (w.chunk_bytes if w else 0),
            )
        return [found[number] for number in sorted(found)]

    def chunks(
        self, device: int, key: int, start_ms: int, end_ms: int
    ) -> Iterator[tuple[int, bytes]]:
        """(run, chunk) of a series (key 0: shared by the device's small series), any order.

        Only windows whose times overlap [start_ms, end_ms) are looked at.
        """
        prefix = CHUNK_KEY.pack(device, key, 0)[:-4]
        for window in self.windows():
            if window.max_ts < start_ms or window.min_ts >= end_ms:
                continue
            family = self._windows_db.get(window.number)
            if family is None:
                continue  # dropped by the sealer's thread since `windows`
            for found, chunk in rocks.pairs(family, self.path, prefix):
                if found[:-4] != prefix:
                    break
                run = _U32.unpack(found[-4:])[0]
                if run in self._valid:
                    yield run, chunk

    def feed(self, scan: RangeScan, names: dict[int, bytes]) -> None:
        """Gives what recorded runs hold of the scan's device and keys to it."""
        device, start, end = scan.device_number, scan.start, scan.end
        deleted = self.tombstones.in_chunks(device)
        for key in (0, *(n for n, name in names.items() if scan.wants(name))):
            for run, chunk in self.chunks(device, key, start, end):
                try:
                    feed_chunk(scan, chunk, names, run, deleted)
                except StoreError as error:
                    raise StoreError(
                        f"{self.path}: device {device}, key {key}, run {run}: {error}; restore the "
                        f"directory from a backup"
                    ) from error

    def key_names(self) -> Iterator[tuple[int, bytes]]:
        """(number, name) of every key."""
        for key, name in rocks.pairs(self._keys_db, self.path):
            yield _U32.unpack(key)[0], name

    def latest(self) -> Iterator[tuple[int, bytes]]:
        """(device, packed latest values)."""
        for key, packed in rocks.pairs(self._latest_db, self.path):
            yield _U64.unpack(key)[0], packed

    # --- deletes -------------------------------------------------------------------------

    def write_deletes(
        self, names: Iterable[tuple[int, bytes]], latest: Iterable[tuple[int, bytes | None]]
    ) -> None:
        """Makes new tombstones durable, with the latest values they left (None = device removed).

        names: of the key numbers in them.  After an error the next call tries the rest again.
        """
        changes = self.tombstones.take_changes()
        batch = WriteBatch(raw_mode=True)
        family = self._db.get_column_family_handle("deleted")
        for (device, number), tombstone in changes.items():
            key = TOMBSTONE_KEY.pack(device, number)
            if tombstone is None:
                batch.delete(key, family)
            else:
                batch.put(key, msgspec.msgpack.encode(tombstone), family)
        family = self._db.get_column_family_handle("keys")
        for number, name in names:
            batch.put(_U32.pack(number), name, family)
        family = self._db.get_column_family_handle("latest")
        for device, packed in latest:
            if packed is None:
                batch.delete(_U64.pack(device), family)
            else:
                batch.put(_U64.pack(device), packed, family)
        try:
            with rocks.translated(self.path):
                self._db.write(batch)
                self._db.flush_wal(True)
        except BaseException:
            self.tombstones.give_back(changes)
            raise

    def forget_tombstones(self) -> None:
        """Drops tombstones that nothing stored needs any more; durable with the next delete."""
        self.tombstones.forget(min(self._valid, default=None), self.cursors())

    # --- retention -----------------------------------------------------------------------

    def drop_window(self, number: int) -> None:
        """Forgets a whole window; run records stay until their cursors are superseded."""
        newest = self.runs[-1].number if self.runs else 0  # its cursors cover all journals
        batch = WriteBatch(raw_mode=True)
        batch.delete(b"w" + _U32.pack(number))
        for run in self.runs:
            if run.window == number and run.number != newest:
                batch.delete(b"r" + _U32.pack(run.number))
        with rocks.translated(self.path):
            self._db.write(batch)
            self._db.flush_wal(True)
            self._opened.pop(number)
            self.runs = [r for r in self.runs if r.window != number or r.number == newest]
            self._valid = {r.number for r in self.runs if r.window in self._opened}
            # A read that has the family keeps it until it ends.
            del self._windows_db[number]
            self._db.drop_column_family(f"w{number}")

    def close(self) -> None:
        """Releases the store."""
        fixed = (self._keys_db, self._latest_db, self._deleted_db)
        for family in (*self._windows_db.values(), *fixed):
            rocks.close(family, self.path)
        rocks.close(self._db, self.path)
