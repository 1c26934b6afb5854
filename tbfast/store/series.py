"""The sealed series: chunks of runs in RocksDB, in windows of arrival (design section 3).

A run turns a frozen head into chunks.  Chunks are written with the log off and flushed; then ONE
synced batch makes the run visible and says which journal positions it covers.  Chunks of a run
that is not recorded are never read, and its number is never given again: each row is in a recorded
run or still in a journal, never in both and never in neither.

Column families:

    default   b"f" format version, b"n" next run number, b"c" -> State, b"w" + window -> Window,
              b"k" + key number (u32) -> name, once more: without names no row can be asked for
    keys      key number (u32) -> name
    deleted   device (u64), number (u64) -> Tombstone
    latest    device (u64) -> latest value of each of its series, without
    changes   number (u64) -> those of some series since, oldest first
    w<number> chunks of runs, j<number> joined ones: device (u64), key number or 0 (u32), run (u32)
              in w<number> common chunks of neighbours share a value: see `pages`

All numbers in keys are big-endian.  Key numbers belong to this store, not to a journal epoch.
"""

import contextlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import WriteBatch

from tbfast import limits
from tbfast._ext import page
from tbfast._ext.scan import RangeScan
from tbfast._ext.sealer import feed_chunk
from tbfast.errors import StoreError
from tbfast.store import pages, rocks
from tbfast.store.joins import Join
from tbfast.store.latest import LatestValues
from tbfast.store.series_files import CHUNK_KEY, SeriesFiles, Waits
from tbfast.store.tombstones import KEY as TOMBSTONE_KEY
from tbfast.store.tombstones import Tombstones, decode
from tbfast.store.verify_records import NAME_COPY
from tbfast.store.walk import Walk, damaged
from tbfast.store.windows import (
    Cursors,
    Odd,
    Open,
    Run,
    Segment,
    State,
    Window,
    decoded,
    family_name,
    from_format_1,
    opened,
)

FORMAT_VERSION: Final = 4
WRITE_BATCH_BYTES: Final = 65_536  # the GIL is held during one write
_U32: Final = struct.Struct(">I")


class RunRecord(msgspec.Struct, frozen=True):
    """A run about to be recorded: journals up to `cursors` are in it or in runs before it.

    parts: (window, what the run put there, devices with odd times); windows it put nothing into
    are left out.
    """

    number: int
    cursors: Cursors
    parts: tuple[tuple[int, Run, tuple[Odd, ...]], ...]

    @property
    def points(self) -> int:
        """Rows of all windows."""
        return sum(run.points for _, run, _ in self.parts)

    @property
    def windows(self) -> tuple[int, ...]:
        """Windows it put something into."""
        return tuple(window for window, _, _ in self.parts)


class SeriesStore:
    """Chunks, runs, key names and latest values.  One writer thread at a time; reads in another."""

    def __init__(
        self,
        path: Path,
        *,
        join_runs: int = limits.JOIN_RUNS,
        waits: Waits = contextlib.nullcontext,
    ) -> None:
        """join_runs: a segment takes so many runs, then its chunks are to be joined.

        waits: around what holds the GIL while it syncs, however long the disk takes.
        """
        self.path = path
        self._join_runs = join_runs
        self._raw: dict[int, int] = {}  # window -> family that takes its next run
        self._busy: set[int] = set()  # families that a run is being written to
        self._last_keys: dict[int, bytes] = {}  # window -> of the run being written
        self._index: tuple[Open, ...] = ()
        self._files = SeriesFiles(path, waits)
        try:
            self._check_format()
            self._state = self._read_state()
            windows = (decoded(raw, Window) for raw in self._files.records(b"w"))
            self._windows = {window.number: window for window in windows}
            named = self._present(self._segments())
            for stray in self._files.chunks.keys() - named:
                self._files.drop(stray)  # was being filled or dropped when the process ended
            self._replace(self._windows)
            self.tombstones = self._read_tombstones()
            stored = self._files.db.get(b"n")
            self._begun = _U32.unpack(stored)[0] - 1 if stored else 0
            self.latest = LatestValues(self._files)
            self._copy_names()
        except BaseException:
            self.close()
            raise

    def _read_tombstones(self) -> Tombstones:
        found = Tombstones()
        pairs = rocks.pairs(self._files.deleted, self.path)
        found.restore(
            sorted((decode(raw) for _, raw in pairs), key=lambda t: t.number),
            max((s.clean for s in self._segments()), default=0),
        )
        runs = [run for segment in self._segments() for run in segment.runs]
        for run in sorted(runs, key=lambda run: run.number):
            found.recorded(run.number, run.cursors)
        found.recorded(self._state.run, self._state.cursors)
        return found

    def _segments(self) -> list[Segment]:
        return [s for window in self._windows.values() for s in window.segments]

    def _check_format(self) -> None:
        db = self._files.db
        stored = db.get(b"f")
        version = FORMAT_VERSION if stored is None else _U32.unpack(stored)[0]
        if version > FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written by a newer tbfast (format {version}, this one knows "
                f"{FORMAT_VERSION}); start that version or use another --data-dir"
            )
        if version == 1:
            self._upgrade()
        elif stored is None or version < FORMAT_VERSION:  # 2 has no pages, 3 no odd devices
            db.put(b"f", _U32.pack(FORMAT_VERSION))

    def _upgrade(self) -> None:
        """From format 1, in one synced batch."""
        state, windows = from_format_1(self._files.records(b"r"), self._files.records(b"w"))
        batch = WriteBatch(raw_mode=True)
        for prefix in (b"r", b"w"):
            batch.delete_range(prefix, bytes([prefix[0] + 1]))
        for window in windows:
            _put_window(batch, window)
        batch.put(b"c", msgspec.msgpack.encode(state))
        batch.put(b"f", _U32.pack(FORMAT_VERSION))
        self._files.write_synced(batch)

    def _read_state(self) -> State:
        stored = self._files.db.get(b"c")
        return decoded(stored, State) if stored else State(0, 0, {})

    # --- runs ----------------------------------------------------------------------------

    def cursors(self) -> Cursors:
        """Journal positions that recorded runs cover."""
        return dict(self._state.cursors)

    def begin_run(self) -> int:
        """A run number that was never given before, synced."""
        batch = WriteBatch(raw_mode=True)
        batch.put(b"n", _U32.pack(self._begun + 2))
        self._files.write_synced(batch)
        self._begun += 1
        self._busy.clear()
        self._last_keys.clear()
        return self._begun

    @property
    def begun(self) -> int:
        """The newest run number given; every row of that run has been read from its journal."""
        return self._begun

    @property
    def recorded(self) -> int:
        """The newest recorded run."""
        return self._state.run

    def window_for(
        self, now_ms: int, span_ms: int, span_bytes: int = 0, retention_ms: int | None = None
    ) -> int:
        """The window for chunks that arrive now, opening one if the newest is over its span.

        span_ms, span_bytes: a window takes no more chunks after that; 0 = without end.
        retention_ms: of the class, None = the default one.
        """
        newest = self._windows.get(self._newest_of(retention_ms))
        # A clock that was far off when the newest was opened must not keep it open for years.
        if (
            newest is None
            or newest.closed_at_ms
            or (span_ms and abs(now_ms - newest.opened_at_ms) >= span_ms)
            or (span_bytes and newest.chunk_bytes >= span_bytes)
        ):
            number = max((self._state.window, *self._windows)) + 1
            newest = Window(number, retention_ms, now_ms)
        family = self._family_for(newest)
        self._windows = {**self._windows, newest.number: newest}
        self._raw[newest.number] = family
        self._busy.add(family)
        return newest.number

    def _newest_of(self, retention_ms: int | None) -> int:
        """Number of the newest window of a class, 0 = there is none."""
        return max((w.number for w in self._windows.values() if w.retention_ms == retention_ms),
                   default=0)  # fmt: skip

    def _family_for(self, window: Window) -> int:
        """The family that takes a window's next run."""
        if window.segments:
            last = window.segments[-1]
            if last.level == 0 and len(last.runs) < self._join_runs:
                return last.family
        known = self._raw.get(window.number, 0)  # perhaps of a run that was never recorded
        taken = {segment.family for segment in window.segments}
        if known not in taken and family_name(known, 0) in self._files.chunks:
            return known
        return self._files.create(0)

    def hold_merging(self, hold: bool) -> None:
        """While runs come one upon the other, merging their files over and over would take longer
        than writing them: RocksDB leaves them alone until it is told otherwise.  StoreFull."""
        if hold != self.merging_held:
            self._files.hold_merging(hold)

    @property
    def merging_held(self) -> bool:
        """What `hold_merging` was told last."""
        return self._files.merging_held

    def write_chunks(self, window: int, chunks: Sequence[tuple[bytes, bytes]]) -> None:
        """Writes chunks of a run, in ascending order of keys, without the log.

        StoreError if they are not: one chunk in the place of another is a loss that nobody sees,
        as the run's record lets the journals go.
        """
        last = self._last_keys.get(window, b"")
        for key, _ in chunks:
            if key <= last:
                raise StoreError(f"{self.path}: sealing gave two chunks for one place: {key.hex()}")
            last = key
        self._last_keys[window] = last
        self._files.write_unlogged(family_name(self._raw[window], 0), chunks)

    def write_keys(self, names: Iterable[tuple[int, bytes]]) -> None:
        """Names of new key numbers, twice and never in one file; durable when this returns."""
        pairs = [(_U32.pack(number), name) for number, name in names]
        if not pairs:
            return
        batch, copies = WriteBatch(raw_mode=True), WriteBatch(raw_mode=True)
        handle = self._files.db.get_column_family_handle("keys")
        for number, name in pairs:
            batch.put(number, name, handle)
            copies.put(NAME_COPY + number, name)
        self._files.write(copies)
        self._files.write_synced(batch)
        self._files.flush_names()  # the copies stay in the log for long

    def _copy_names(self) -> None:
        """Second copies of the names that a build before them wrote, or that were lost."""
        there = {key for key, _ in rocks.pairs(self._files.db, self.path, NAME_COPY)}
        copies = WriteBatch(raw_mode=True)
        for number, name in self.key_names():
            key = NAME_COPY + _U32.pack(number)
            if key not in there:
                copies.put(key, name)
        self._files.write(copies)

    def finish_run(self, run: RunRecord) -> None:
        """Flushes the run's chunks, then records the run: from here on it is visible."""
        changed = {
            number: self._windows[number].with_run(self._raw[number], part, odd)
            for number, part, odd in run.parts
        }
        for number in changed:
            self._files.flush(family_name(self._raw[number], 0))
        self.latest.flush()
        state = State(run.number, max((self._state.window, *changed)), dict(run.cursors))
        batch = WriteBatch(raw_mode=True)
        for window in changed.values():
            _put_window(batch, window)
        batch.put(b"c", msgspec.msgpack.encode(state))
        self._files.write_synced(batch)
        self.tombstones.recorded(run.number, run.cursors)  # before its chunks are read
        self._state = state
        self._busy.clear()
        self._replace({**self._windows, **changed})

    def _present(self, segments: Iterable[Segment]) -> set[str]:
        """Families of these segments; StoreError when one is missing: another may have its rows."""
        named = {segment.name for segment in segments}
        missing = named - self._files.chunks.keys()
        if missing:
            raise StoreError(f"{self.path}: chunks are missing ({min(missing)}); {rocks.RECOVER}")
        return named

    def _replace(self, windows: dict[int, Window]) -> None:
        """What reads that begin from now on go by."""
        self._windows = windows
        known = {of.segment.family: of for of in self._index}
        self._index = tuple(
            known[s.family]
            if s.family in known and known[s.family].segment is s
            else opened(s, self._files.chunks[s.name])
            for s in self._segments()
        )

    # --- reads ---------------------------------------------------------------------------

    def windows(self) -> list[Window]:
        """Windows with at least one recorded run, oldest first."""
        windows = self._windows
        return [windows[number] for number in sorted(windows) if windows[number].segments]

    def chunks(
        self, device: int, key: int, start_ms: int, end_ms: int
    ) -> Iterator[tuple[int, bytes]]:
        """(run, chunk) of a series (key 0: shared by the device's small series), any order.

        Only segments whose times overlap [start_ms, end_ms) are looked at.
        """
        for segment in self._index:
            if segment.overlaps(device, start_ms, end_ms):
                walk = Walk(segment, self.path, device, start_ms, end_ms)
                yield from walk.chunks(key, lambda bound: False)

    def feed(self, scan: RangeScan, names: dict[int, bytes]) -> None:
        """Gives what recorded runs hold of the scan's device and keys to it.

        A limited scan gets no more than it needs: from the end where its points are, until no time
        that segments and their runs may still hold can matter.
        """
        device, start, end = scan.device_number, scan.start, scan.end
        wanted = {number: name for number, name in names.items() if scan.wants(name)}
        # One look at the index for all keys: a join that ends meanwhile moves no row past us.
        overlapping = [segment for segment in self._index if segment.overlaps(device, start, end)]
        if scan.oldest_first:
            overlapping.sort(key=lambda of: of.bounds(device)[0])
        else:
            overlapping.sort(key=lambda of: of.bounds(device)[1], reverse=True)
        deleted = self.tombstones.in_chunks(device)
        for segment in overlapping:
            low, high = segment.bounds(device)
            nearest = low if scan.oldest_first else high
            # Segments further on hold nothing nearer: what is enough now stays so.
            wanted = {k: name for k, name in wanted.items() if not scan.has_enough(name, nearest)}
            if not wanted:
                break
            walk = Walk(segment, self.path, device, start, end, oldest_first=scan.oldest_first)
            for key in (0, *wanted):
                needed = [wanted[key]] if key else list(wanted.values())
                for run, chunk in walk.chunks(key, partial(_have_enough, scan, needed)):
                    again = partial(self._chunk, segment, device, key, run)
                    try:
                        feed_chunk(scan, chunk, names, run, deleted, again)
                    except StoreError as error:
                        stored = CHUNK_KEY.pack(device, key, run)
                        raise damaged(self.path, stored, error) from error

    def _chunk(self, segment: Open, device: int, key: int, run: int) -> bytes | None:
        with rocks.translated(self.path):
            return pages.read_chunk(segment.family.get, device, key, run)

    def key_names(self) -> Iterator[tuple[int, bytes]]:
        """(number, name) of every key."""
        for key, name in rocks.pairs(self._files.keys, self.path):
            yield _U32.unpack(key)[0], name

    # --- deletes -------------------------------------------------------------------------

    def write_deletes(self, names: Iterable[tuple[int, bytes]], latest: bytes) -> None:
        """Makes new tombstones durable, with the changes of latest values they made.

        names: of the key numbers in them.  After an error the next call tries the rest again.
        """
        self.write_keys(names)
        batch = WriteBatch(raw_mode=True)
        family = self._files.db.get_column_family_handle("deleted")
        changes = self.tombstones.take_changes()
        try:
            for (device, number), tombstone in changes.items():
                key = TOMBSTONE_KEY.pack(device, number)
                if tombstone is None:
                    batch.delete(key, family)
                else:
                    batch.put(key, msgspec.msgpack.encode(tombstone), family)
            self.latest.put_changes(batch, latest)
            self._files.write_synced(batch)
        except BaseException:
            self.tombstones.give_back(changes)
            raise

    def forget_tombstones(self) -> None:
        """Drops tombstones that nothing stored needs any more; durable with the next delete."""
        segments = self._segments()
        self.tombstones.forget([(s.first_run, s.clean) for s in segments], self.cursors())

    # --- joining -------------------------------------------------------------------------

    def begin_join(self) -> Join | None:
        """What is to be joined next, of the oldest window that needs it; None when none does."""
        windows = self._windows
        newest = {self._newest_of(w.retention_ms) for w in windows.values()}
        for window in self.windows():
            closed = window.number not in newest or window.closed_at_ms > 0
            wanted = window.joinable(closed=closed, busy=self._busy, runs=self._join_runs)
            if wanted:
                families = {segment.family for segment in wanted}
                alike = {s.family for w in windows.values() for s in w.segments
                         if w.retention_ms == window.retention_ms}  # fmt: skip
                return Join(
                    self._files,
                    window.number,
                    [o for o in self._index if o.segment.family in families],
                    [o for o in self._index if o.segment.family not in alike],
                    self.tombstones,
                    self.key_names,
                )
        return None

    def finish_join(self, join: Join) -> list[str]:
        """Makes the joined chunks visible instead of the old ones; returns families to `forget`.

        Those are the new one if the window was dropped meanwhile.  `Join.flush` comes before.
        """
        window = self._windows.get(join.window)
        held = {s.family for s in window.segments} if window is not None else set()
        if window is None or not {s.family for s in join.old} <= held:
            return [join.family]
        changed = window.with_joined(join.old, join.segment())
        batch = WriteBatch(raw_mode=True)
        if changed.segments:
            _put_window(batch, changed)
        else:
            batch.delete(_window_key(changed.number))
        self._files.write_synced(batch)
        self._replace({**self._windows, changed.number: changed})
        unused = [join.family] if join.segment() is None else []
        return [*(segment.name for segment in join.old), *unused]

    def forget(self, family: str) -> None:
        """Drops a family that a join has left; reads that have it keep it until they end."""
        self._files.drop(family)

    # --- retention -----------------------------------------------------------------------

    def close_window(self, number: int, now_ms: int) -> None:
        """The window takes no more runs."""
        window = msgspec.structs.replace(self._windows[number], closed_at_ms=now_ms)
        batch = WriteBatch(raw_mode=True)
        _put_window(batch, window)
        self._files.write_synced(batch)
        self._replace({**self._windows, number: window})

    def drop_window(self, number: int) -> None:
        """Forgets what recorded runs put into a window; one that is being written stays whole."""
        batch = WriteBatch(raw_mode=True)
        batch.delete(_window_key(number))
        self._files.write_synced(batch)
        window = self._windows[number]
        left = {n: w for n, w in self._windows.items() if n != number}
        writing = self._raw.get(number)
        if writing in self._busy:
            left[number] = msgspec.structs.replace(window, segments=())
        else:
            self._raw.pop(number, None)
        self._replace(left)
        for segment in window.segments:
            if segment.family != writing or writing not in self._busy:
                self._files.drop(segment.name)

    def devices(self) -> Iterator[int]:
        """Numbers of devices that have chunks; one may come more than once."""
        for segment in self._index:
            start = b""
            while True:
                pair = next(rocks.pairs(segment.family, self.path, start), None)
                if pair is None:
                    break
                key, value = pair
                device, number, _ = CHUNK_KEY.unpack(key)
                yield from (CHUNK_KEY.unpack(k)[0] for k, _ in pages.expanded(key, value))
                if number or page.first_device(device) != device:
                    start = CHUNK_KEY.pack(device + 1, 0, 0)
                else:  # the next run may have put a page there
                    start = key + b"\0"

    def checkpoint(self, to: Path) -> None:
        """A copy of its present state; recorded runs are in it whole."""
        self._files.checkpoint(to)

    def close(self) -> None:
        """Releases the store."""
        self._index = ()
        self._files.close()


def _have_enough(scan: RangeScan, names: list[bytes], bound_ms: int) -> bool:
    """Whether a scan needs no row of these keys at a time and further along."""
    return all(scan.has_enough(name, bound_ms) for name in names)


def _window_key(number: int) -> bytes:
    return b"w" + _U32.pack(number)


def _put_window(batch: WriteBatch, window: Window) -> None:
    batch.put(_window_key(window.number), msgspec.msgpack.encode(window))
