"""Chunks of several segments rewritten as one, in small steps (design section 3).

Nothing of it is visible before `SeriesStore.finish_join`: until then the new family is a stray
that the next start drops.  Rows of a device that came in several runs become chunks with the number
of the last of them, and of equal times the row of the last run stays.  That is the order reads
know, as long as no run in between has rows of the same device in another window; so that is where a
chunk ends (a device may change its retention class, and back).
"""

import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Final

from tbfast import limits
from tbfast._ext import page
from tbfast._ext.joiner import Joiner
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.pages import PagedChunks, read_chunk
from tbfast.store.series_files import CHUNK_KEY, SeriesFiles
from tbfast.store.tombstones import Tombstones
from tbfast.store.windows import Open, Segment, family_name, joined_times

STEP_BYTES: Final = 65_536  # written by one step: the GIL is held during a write
STEP_READ_BYTES: Final = 262_144
STEP_CHUNKS: Final = 1_000
_RUN: Final = struct.Struct(">I")
_DEVICE: Final = struct.Struct(">Q")


class _Source(PagedChunks):
    """Chunks of one segment, device by device."""

    def __init__(self, source: Open, path: Path) -> None:
        self._source = source
        self._pairs = rocks.pairs(source.family, path, once=True)
        super().__init__(self._visible())

    def _visible(self) -> Iterator[tuple[bytes, bytes]]:
        runs = self._source.runs
        for key, value in self._pairs:
            if runs is None or _RUN.unpack(key[-4:])[0] in runs:
                yield key, value

    def again(self, key: bytes) -> bytes:
        """A chunk that was not held."""
        chunk = read_chunk(self._source.family.get, *CHUNK_KEY.unpack(key))
        if chunk is None:
            raise StoreError("a chunk of the series store is gone")
        return chunk

    def close(self) -> None:
        """Ends the iterator, which would keep files alive."""
        self._pairs.close()


class _Elsewhere:
    """In which runs a device has rows in a segment of another class; asked in order of devices."""

    def __init__(self, segment: Open, path: Path) -> None:
        self._path = path
        self._runs = segment.runs
        self._it = segment.family.iter()
        self._group = -1  # first device of the pages in hand
        self._paged: dict[int, list[int]] = {}  # device -> runs
        self._seek(b"")

    def _seek(self, key: bytes) -> None:
        with rocks.translated(self._path):
            self._it.seek(key)
            self._read()

    def _next(self) -> None:
        with rocks.translated(self._path):
            self._it.next()
            self._read()

    def _read(self) -> None:
        self._key = self._it.key() if self._it.valid() else None
        if self._key is None:
            self._it.status()

    def _visible(self, run: int) -> bool:
        return self._runs is None or run in self._runs

    def _read_pages(self, first: int) -> None:
        self._group, self._paged = first, {}
        prefix = CHUNK_KEY.pack(first, 0, 0)[:-4]
        if self._key is not None and self._key < prefix:
            self._seek(prefix)
        while self._key is not None and self._key.startswith(prefix):
            run, value = _RUN.unpack(self._key[-4:])[0], self._it.value()
            if self._visible(run):
                shared = page.is_page(value)
                for device in page.devices(first, value) if shared else [first]:
                    self._paged.setdefault(device, []).append(run)
            self._next()

    def of(self, device: int) -> Iterator[int]:
        first = page.first_device(device)
        if first != self._group:
            self._read_pages(first)
        yield from self._paged.get(device, ())
        prefix = _DEVICE.pack(device)
        if self._key is not None and self._key < prefix:
            self._seek(prefix)
        while self._key is not None and self._key.startswith(prefix):
            run = _RUN.unpack(self._key[-4:])[0]
            if self._visible(run):
                yield run
            self._next()


class Join:
    """One rewriting: `step` until it says that there is no more, then `finish_join`, then `close`.

    elsewhere: segments of other classes.  key_names: asked once a device with deleted rows comes.
    Memory: `limits.JOIN_BYTES` of chunks, `limits.JOIN_POINTS` points, or those of one device and
    run if they are more.
    """

    def __init__(
        self,
        files: SeriesFiles,
        window: int,
        sources: list[Open],
        elsewhere: Iterable[Open],
        tombstones: Tombstones,
        key_names: Callable[[], Iterable[tuple[int, bytes]]],
    ) -> None:
        self.window = window
        self.old = [source.segment for source in sources]
        self._first = min(segment.first_run for segment in self.old)
        self._last = max(segment.last_run for segment in self.old)
        self._level = 1 + max(segment.level for segment in self.old)
        self._clean = tombstones.next_number  # before the first row is read
        self._files = files
        self._number = files.create(self._level)
        self.family = family_name(self._number, self._level)
        self._tombstones = tombstones
        self._key_names = key_names
        self._names: dict[int, bytes] | None = None
        self._joiner = Joiner()
        self._sources = [_Source(source, files.path) for source in sources]
        self._elsewhere = [
            _Elsewhere(segment, files.path)
            for segment in elsewhere
            if segment.segment.first_run < self._last and segment.segment.last_run > self._first
        ]
        self._read = 0  # chunks and bytes in this step
        self._read_bytes = 0
        self._work = self._devices()
        self._ended = False

    def step(self) -> bool:
        """Joins some more; False when everything has been written.  StoreError names the device."""
        self._read = self._read_bytes = 0
        out: list[tuple[bytes, bytes]] = []
        size = 0
        for joined in self._work:
            out += joined
            size += sum(len(chunk) for _, chunk in joined)
            if (
                size >= STEP_BYTES
                or self._read >= STEP_CHUNKS
                or self._read_bytes >= STEP_READ_BYTES
            ):
                break
        else:
            self._ended = True
        for part in _parts(out):
            self._files.write_unlogged(self.family, part)
        return not self._ended

    def _devices(self) -> Generator[list[tuple[bytes, bytes]], None, None]:
        """Joined chunks, some at a time."""
        while self._sources:
            here = [s.device for s in self._sources if s.device is not None]
            if not here:
                return
            yield from self._device(min(here))

    def _device(self, device: int) -> Iterator[list[tuple[bytes, bytes]]]:
        chunks = self._gathered(device)
        cuts = sorted({run for other in self._elsewhere for run in other.of(device)})
        deleted = self._tombstones.in_chunks(device)
        if deleted is not None and self._names is None:
            self._names = dict(self._key_names())
        joiner = self._joiner
        joiner.begin(device, self._names or {}, deleted)
        last = 0
        for run, key, source, chunk in chunks:
            if run != last and (
                joiner.points >= limits.JOIN_POINTS
                or joiner.nbytes >= limits.JOIN_BYTES
                or any(last < cut < run for cut in cuts)
            ):
                yield joiner.take()
            last = run
            try:
                joiner.add(run, key, source.again(key) if chunk is None else chunk)
            except StoreError as error:
                raise StoreError(
                    f"{self._files.path}: device {device}, run {run}: {error}; {rocks.RECOVER}"
                ) from error
        yield joiner.take()

    def _gathered(self, device: int) -> list[tuple[int, bytes, _Source, bytes | None]]:
        """Its chunks in order of runs."""
        found: list[tuple[int, bytes, _Source, bytes | None]] = []
        held = 0
        for source in self._sources:
            for run, key, chunk in source.of(device):
                held += len(chunk)
                found.append((run, key, source, chunk if held <= limits.JOIN_BYTES else None))
                self._read_bytes += len(chunk)
        self._read += len(found)
        found.sort(key=lambda chunk: chunk[:2])
        return found

    @property
    def points(self) -> int:
        """Points written so far."""
        return self._joiner.totals.points

    @property
    def nbytes(self) -> int:
        """Bytes of the chunks they are in."""
        return self._joiner.totals.nbytes

    def flush(self) -> None:
        """Everything written is on disk when it returns."""
        self._files.flush(self.family)

    def segment(self) -> Segment | None:
        """What came out; None when no row was left."""
        totals = self._joiner.totals
        if totals.points == 0:
            return None
        spans, odd = joined_times(self.old, totals.min_ts, totals.max_ts)
        return Segment(
            self._number,
            self._level,
            self._first,
            self._last,
            totals.points,
            totals.nbytes,
            totals.min_ts,
            totals.max_ts,
            self._clean,
            spans=spans,
            odd=odd,
        )

    def close(self) -> None:
        """Gives the old families free."""
        self._work.close()
        for source in self._sources:
            source.close()
        self._sources.clear()
        self._elsewhere.clear()


def _parts(chunks: list[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """Chunks for one write each."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for key, chunk in chunks:
        part.append((key, chunk))
        size += len(chunk)
        if size >= STEP_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
