"""Makes a series store whole again from the rows that were saved of a damaged one.

Chunks are the rows; everything else tells where they are or follows from them.  Records of windows
are written anew from the chunks that are there, so that they say what reads will find; families of
chunks that no record names any more become segments again.
"""

import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from rocksdict import Rdict

from tbfast._ext import page
from tbfast._ext.chunk import describe
from tbfast._ext.scan import RangeScan
from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.pages import expanded
from tbfast.store.series import FORMAT_VERSION, SeriesStore
from tbfast.store.series_files import CHUNK_KEY, FIXED
from tbfast.store.verify_records import NAME_COPY, SEGMENT, latest_damage
from tbfast.store.windows import (
    Cursors,
    Run,
    Segment,
    State,
    Window,
    decoded,
    from_format_1,
    raw_segment,
)

BUFFER_BYTES: Final = 8 << 20
# Later than any position: no delete is taken to reach the rows of a run whose record is lost.
UNKNOWN: Final[Cursors] = {0: (0xFFFF_FFFF, 0)}
_U32: Final = struct.Struct(">I")
_NUMBERS_AHEAD: Final = 10_000
_LATEST_PER_WRITE: Final = 1_000

T = TypeVar("T")


class _Held:
    """What chunks of one run in one family hold."""

    def __init__(self) -> None:
        self.points = self.nbytes = 0
        self.min_ts, self.max_ts = (1 << 63) - 1, -(1 << 63)

    def add(self, chunk: bytes, columns: Iterable[tuple[int, str, int, int, int, int]]) -> None:
        self.nbytes += len(chunk)
        for _, _, points, min_ts, max_ts, _ in columns:
            self.points += points
            self.min_ts = min(self.min_ts, min_ts)
            self.max_ts = max(self.max_ts, max_ts)


_Runs = dict[int, _Held]  # by run


def mend_series(to: Path, families: Iterable[str], lossy: Iterable[str]) -> list[str]:
    """The store at `to`; returns sentences about what is lost.

    lossy: families that lack rows.
    """
    segments = [name for name in families if SEGMENT.fullmatch(name)]
    db = rocks.open_families(to, [*FIXED, *segments], write_buffer_bytes=BUFFER_BYTES)
    lost: list[str] = []
    keys: set[int] = set()
    held: dict[str, _Runs] = {}
    try:
        for name in segments:
            held[name] = _mend_chunks(db, to, name, keys, lost)
        _mend_records(db, to, held, lost, complete="default" not in lossy)
        if "keys" in lossy:
            lost += _mend_keys(db, to, keys)
        if "deleted" in lossy:
            lost.append("deletes: what they had deleted may be seen again")
        latest = {"latest", "changes"} & set(lossy) or latest_damage(db, to, FIXED)
        with rocks.translated(to):
            db.flush_wal(True)
    finally:
        rocks.close(db, to)
    if latest:
        lost += _mend_latest(to)
    return lost


def _mend_chunks(db: Rdict, path: Path, name: str, keys: set[int], lost: list[str]) -> _Runs:
    found: _Runs = {}
    family = db.get_column_family(name)
    for key, value in rocks.pairs(family, path):
        device, number, run = CHUNK_KEY.unpack(key)
        kept = []
        try:
            stored = expanded(key, value)
        except StoreError as error:
            last = device + page.DEVICES - 1
            lost.append(f"chunks of devices {device} to {last}, run {run}: {error}")
            stored = []
        for at, chunk in stored:
            try:
                columns = describe(chunk)
            except StoreError as error:
                owner = CHUNK_KEY.unpack(at)[0]
                lost.append(f"chunk of device {owner}, key {number}, run {run}: {error}")
                continue
            kept.append((at, chunk))
            keys |= {column[0] for column in columns}
            found.setdefault(run, _Held()).add(chunk, columns)
        if not stored or len(kept) < len(stored):  # what a page keeps is stored singly
            with rocks.translated(path):
                family.delete(key)
                for at, chunk in kept:
                    family.put(at, chunk)
    rocks.close(family, path)
    return found


# --- records ---------------------------------------------------------------------------------


def _mend_records(
    db: Rdict, path: Path, held: dict[str, _Runs], lost: list[str], *, complete: bool
) -> None:
    """complete: no record is missing; then chunks that no record names were never visible."""
    windows, state = _read_records(db, path, lost)
    named = {segment.name for window in windows for segment in window.segments}
    known = complete and named <= held.keys()
    mended = []
    for window in windows:
        pairs = [(s, _mended(s, held.get(s.name, {}), lost, known=known)) for s in window.segments]
        kept = tuple(segment for _, segment in pairs if segment is not None)
        if kept:
            mended.append(msgspec.structs.replace(window, segments=kept))
    strays = [(name, runs) for name, runs in held.items() if name not in named and runs]
    for name, runs in sorted(strays, key=lambda stray: min(stray[1])) if not known else ():
        lost.append(f"the record of {_words(min(runs), max(runs))}; the chunks are kept")
        _adopt(mended, _stray(name, runs))
    newest = max((run for runs in held.values() for run in runs), default=0)
    begun = db.get(b"n")
    with rocks.translated(path):
        for prefix in (b"r", b"w"):
            for key in [key for key, _ in rocks.pairs(db, path, prefix) if key[:1] == prefix]:
                db.delete(key)
        for window in mended:
            db.put(b"w" + _U32.pack(window.number), msgspec.msgpack.encode(window))
        state = State(
            max(state.run, *(s.last_run for w in mended for s in w.segments), 0),
            max(state.window, *(w.number for w in mended), 0),
            state.cursors,
        )
        db.put(b"c", msgspec.msgpack.encode(state))
        db.put(b"f", _U32.pack(FORMAT_VERSION))
        newest = max(newest, state.run)
        if begun is None or _U32.unpack(begun)[0] <= newest:
            db.put(b"n", _U32.pack(newest + _NUMBERS_AHEAD))


def _read_records(db: Rdict, path: Path, lost: list[str]) -> tuple[list[Window], State]:
    """Those that can be decoded, of either format."""
    raw = {prefix: _records(db, path, prefix) for prefix in (b"r", b"w", b"c")}
    if raw[b"r"] or db.get(b"f") == _U32.pack(1):
        readable = [r for r in raw[b"r"] if _tried(partial(from_format_1, [r], []), lost)]
        old = [w for w in raw[b"w"] if _tried(partial(from_format_1, [], [w]), lost)]
        state, windows = from_format_1(readable, old)
        return windows, state
    found = (_tried(partial(decoded, w, Window), lost) for w in raw[b"w"])
    windows = [window for window in found if window is not None]
    states = [_tried(partial(decoded, c, State), lost) for c in raw[b"c"]]
    for stored in states:
        if stored is not None:
            return windows, stored
    # What the journals hold of newer runs is read twice, which nobody sees.
    cursors: Cursors = {}
    for run in (run for window in windows for s in window.segments for run in s.runs):
        for journal, position in run.cursors.items():
            if run.cursors != UNKNOWN:
                cursors[journal] = max(cursors.get(journal, (0, 0)), position)
    return windows, State(0, 0, cursors)


def _records(db: Rdict, path: Path, prefix: bytes) -> list[bytes]:
    return [value for key, value in rocks.pairs(db, path, prefix) if key[:1] == prefix]


def _tried(read: Callable[[], T], lost: list[str]) -> T | None:
    try:
        return read()
    except StoreError as error:
        lost.append(str(error))
        return None


def _mended(segment: Segment, runs: _Runs, lost: list[str], *, known: bool) -> Segment | None:
    """A segment as its chunks are; None when it has none.

    known: its record is the newest, so that runs it does not list do not count.
    """
    if segment.level:
        if not runs:
            lost.append(f"chunks of {_words(segment.first_run, segment.last_run)}")
            return None
        joined = _joined(segment, runs)
        lost += _fewer(segment.points, joined.points, segment.first_run, segment.last_run)
        return joined
    listed = {run.number: run for run in segment.runs}
    lost += [
        f"chunks of {_words(n, n)}" for n, run in listed.items() if n not in runs and run.points
    ]
    for number in sorted(runs.keys() & listed.keys()):
        lost += _fewer(listed[number].points, runs[number].points, number, number)
    for number in sorted(runs.keys() - listed.keys()) if not known else ():
        lost.append(f"the record of {_words(number, number)}; its chunks are kept")
        listed[number] = Run(number, UNKNOWN, 0, 0, 0, 0)
    counted = [_counted(listed[n], runs[n]) for n in sorted(listed.keys() & runs.keys())]
    return raw_segment(segment.family, counted) if counted else None


def _fewer(recorded: int, held: int, first: int, last: int) -> list[str]:
    """What to say when a record promises more points than its chunks hold."""
    if held >= recorded:
        return []
    return [f"{recorded - held} of {recorded} points of {_words(first, last)}"]


def _stray(name: str, runs: _Runs) -> Segment:
    number, level = int(name[1:]), int(name[0] == "j")
    if level:
        return _joined(Segment(number, level, min(runs), max(runs), 0, 0, 0, 0), runs)
    empty = {n: Run(n, UNKNOWN, 0, 0, 0, 0) for n in sorted(runs)}
    return raw_segment(number, [_counted(run, runs[n]) for n, run in empty.items()])


def _counted(run: Run, held: _Held) -> Run:
    return msgspec.structs.replace(
        run,
        points=held.points,
        chunk_bytes=held.nbytes,
        min_ts=held.min_ts,
        max_ts=held.max_ts,
    )


def _joined(segment: Segment, runs: _Runs) -> Segment:
    held = runs.values()
    return msgspec.structs.replace(
        segment,
        points=sum(h.points for h in held),
        chunk_bytes=sum(h.nbytes for h in held),
        min_ts=min(h.min_ts for h in held),
        max_ts=max(h.max_ts for h in held),
    )


def _adopt(windows: list[Window], segment: Segment) -> None:
    """Into the window of the default class that its runs follow, or one of its own."""
    at = None
    for i, window in enumerate(windows):
        if window.retention_ms is None and window.segments[0].first_run <= segment.first_run:
            at = i
    if at is None:
        number = max((window.number for window in windows), default=0) + 1
        now_ms = time.time_ns() // 1_000_000
        windows.append(Window(number, None, now_ms, segments=(segment,)))
        return
    inside = sorted((*windows[at].segments, segment), key=lambda s: s.first_run)
    windows[at] = msgspec.structs.replace(windows[at], segments=tuple(inside))


def _words(first: int, last: int) -> str:
    return f"run {first}" if first == last else f"runs {first} to {last}"


# --- keys, latest values ---------------------------------------------------------------------


def _mend_keys(db: Rdict, path: Path, used: set[int]) -> Iterator[str]:
    family = db.get_column_family("keys")
    known = {_U32.unpack(key)[0] for key, _ in rocks.pairs(family, path)}
    copies = {
        _U32.unpack(key[1:])[0]: name
        for key, name in rocks.pairs(db, path, NAME_COPY)
        if key[:1] == NAME_COPY
    }
    missing = range(1, max(known | used | copies.keys(), default=0) + 1)  # numbers have no holes
    for number in sorted(set(missing) - known):
        made_up = f"recovered-key-{number}"
        with rocks.translated(path):
            family.put(_U32.pack(number), copies.get(number, made_up.encode()))
        if number not in copies:
            yield f"the name of key {number}, now {made_up!r}"
    rocks.close(family, path)


def _mend_latest(path: Path) -> list[str]:
    """Latest values from what is left of them and from the chunks: without, reads find no key."""
    lost = []
    store = SeriesStore(path)
    try:
        names = dict(store.key_names())
        tail = Tail()
        for number in sorted(names):
            tail.restore_key(number, names[number])
        for device, packed in store.latest.records():
            try:
                tail.restore_latest(device, packed)
            except StoreError as error:
                lost.append(f"device {device}: {error}")
                store.latest.write_records([(device, None)])  # perhaps none takes its place
        for packed in store.latest.changes():
            try:
                tail.restore_changes(packed)
            except StoreError as error:
                lost.append(str(error))
        before = store.latest.next_change
        for device in sorted(set(store.devices())):
            scan = RangeScan(device, None, limit=1)
            store.feed(scan, names)
            tail.adopt_latest(device, scan)
        start = 0
        while tail.numbers(start, 1):
            packed_devices = tail.pack_stale(start, _LATEST_PER_WRITE, len(names) + 1)
            store.latest.write_records(packed_devices)
            start += _LATEST_PER_WRITE
        store.latest.forget_changes(before)
    finally:
        store.close()
    return lost
