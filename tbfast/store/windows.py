"""What a series store knows of its windows: records, and the index that reads go by.

A window holds the chunks that arrived in one span of time for devices of one retention class.  It
is a list of segments, each a column family: level 0 as runs wrote it, higher ones joined from those
before them.  One record per window names its segments, so that one write swaps them: chunks of a
family that no record names, or of a run that its segment does not list, are never read.
"""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, TypeVar

import msgspec
from rocksdict import Rdict

from tbfast.errors import StoreError

Cursors = dict[int, tuple[int, int]]  # journal -> (epoch, sequence)

T = TypeVar("T")

SPANS: Final = 64  # of a joined segment: what its record says of times within it
ODD: Final = 64  # devices of a segment whose times are told apart from those of all others
JOIN_FAN: Final = 8  # segments of one level of an open window that become one of the next


class Run(msgspec.Struct, array_like=True, frozen=True):
    """What one recorded run put into a window; journals up to `cursors` are in it or before it."""

    number: int
    cursors: Cursors
    points: int
    chunk_bytes: int
    min_ts: int
    max_ts: int


Times = tuple[int, int, int]  # last run of a span, earliest and latest time of rows of its runs
Odd = tuple[int, int, int]  # device, earliest and latest time of its rows: not counted in those


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """Chunks of one column family: of `runs` (level 0), or of all that it was joined from.

    Tombstones with numbers below `clean` have been applied to it.  spans: of a joined one, each
    begins after the one before; none in records of earlier versions.  odd: devices that have rows
    outside the times of `runs` and `spans`; a wrong clock must not make everybody's reads slow.
    min_ts, max_ts: of all rows.
    """

    family: int
    level: int
    first_run: int
    last_run: int
    points: int
    chunk_bytes: int
    min_ts: int
    max_ts: int
    clean: int = 0
    runs: tuple[Run, ...] = ()
    spans: tuple[Times, ...] = ()
    odd: tuple[Odd, ...] = ()

    def times(self) -> list[Times]:
        """Bounds of the times in it but those of odd devices, by runs; at least one."""
        if self.runs:
            return [(run.number, run.min_ts, run.max_ts) for run in self.runs]
        return list(self.spans) or [(self.last_run, self.min_ts, self.max_ts)]

    @property
    def name(self) -> str:
        """Of its column family; joined ones are compressed harder."""
        return family_name(self.family, self.level)


def family_name(number: int, level: int) -> str:
    """Column family of a segment."""
    return f"{'j' if level else 'w'}{number}"


def _with_run(
    family: int, runs: tuple[Run, ...], known: Iterable[Odd], run: Run, odd: Iterable[Odd]
) -> Segment:
    """A segment of level 0 with `runs` and odd devices `known`, after one more run; odd: of it."""
    both = (*runs, run)
    more = list(odd)
    kept = _told_apart(known, more, [(r.number, r.min_ts, r.max_ts) for r in both])
    _, low, high = _widened((0, run.min_ts, run.max_ts), more, kept)
    wide = msgspec.structs.replace(run, min_ts=low, max_ts=high)
    return raw_segment(family, (*runs, wide), kept.values())


def _told_apart(
    known: Iterable[Odd], more: Iterable[Odd], times: Iterable[Times]
) -> dict[int, Odd]:
    """By device: all of `known`, and the furthest from the times of others while there are few."""
    low, high = usual(times)
    kept = {odd[0]: odd for odd in known}
    for odd in sorted(more, key=lambda odd: max(low - odd[1], odd[2] - high), reverse=True):
        device, first, last = kept.get(odd[0], odd)
        if device in kept or len(kept) < ODD:
            kept[device] = device, min(first, odd[1]), max(last, odd[2])
    return kept


def _widened(times: Times, odd: Iterable[Odd], kept: Collection[int]) -> Times:
    """The bounds of a span with those of odd devices that are not told apart."""
    run, low, high = times
    for device, first, last in odd:
        if device not in kept:
            low, high = min(low, first), max(high, last)
    return run, low, high


def usual(times: Iterable[Times]) -> tuple[int, int]:
    """Earliest and latest time of spans; the earliest is the later one if there are no rows."""
    held = list(times)
    return min(low for _, low, _ in held), max(high for _, _, high in held)


def raw_segment(family: int, runs: Iterable[Run], odd: Iterable[Odd] = ()) -> Segment:
    """A segment of level 0."""
    held, apart = tuple(runs), tuple(odd)
    return Segment(
        family,
        0,
        held[0].number,
        held[-1].number,
        sum(run.points for run in held),
        sum(run.chunk_bytes for run in held),
        min((*(run.min_ts for run in held), *(first for _, first, _ in apart))),
        max((*(run.max_ts for run in held), *(last for _, _, last in apart))),
        runs=held,
        odd=apart,
    )


def joined_times(
    segments: Iterable[Segment], min_ts: int, max_ts: int
) -> tuple[tuple[Times, ...], tuple[Odd, ...]]:
    """Spans and odd devices of what is joined from these; min_ts, max_ts: of the rows left."""
    old = list(segments)
    odd = _told_apart(
        (), _merged(o for segment in old for o in segment.odd),
        [span for segment in old for span in segment.times()],
    )  # fmt: skip
    times = sorted(_widened(span, segment.odd, odd) for segment in old for span in segment.times())
    each = -(-len(times) // SPANS)
    parts = (times[at : at + each] for at in range(0, len(times), each))
    spans = tuple(
        (part[-1][0], max(low, min_ts), min(high, max_ts))
        for part in parts
        for low, high in (usual(part),)
    )
    return spans, tuple(odd.values())


def _merged(odd: Iterable[Odd]) -> Iterable[Odd]:
    """One of each device."""
    found: dict[int, Odd] = {}
    for device, first, last in odd:
        _, low, high = found.get(device, (device, first, last))
        found[device] = device, min(low, first), max(high, last)
    return found.values()


class Window(msgspec.Struct, array_like=True, frozen=True):
    """A span of arrival; oldest segments first.

    retention_ms: of its class; None = the default one.  closed_at_ms: 0 = it may take more runs
    until a later one of its class is opened.
    """

    number: int
    retention_ms: int | None
    opened_at_ms: int
    closed_at_ms: int = 0
    segments: tuple[Segment, ...] = ()

    @property
    def min_ts(self) -> int:
        """Earliest time of a row."""
        return min(segment.min_ts for segment in self.segments)

    @property
    def max_ts(self) -> int:
        """Latest time of a row."""
        return max(segment.max_ts for segment in self.segments)

    @property
    def points(self) -> int:
        """Rows."""
        return sum(segment.points for segment in self.segments)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of chunks before RocksDB's compression."""
        return sum(segment.chunk_bytes for segment in self.segments)

    def with_run(self, family: int, run: Run, odd: Iterable[Odd] = ()) -> "Window":
        """The window after a run whose chunks are in a family of level 0; odd: of the run."""
        segments = list(self.segments)
        for at, segment in enumerate(segments):
            if segment.family == family:
                segments[at] = _with_run(family, segment.runs, segment.odd, run, odd)
                break
        else:
            segments.append(_with_run(family, (), (), run, odd))
        return msgspec.structs.replace(self, segments=tuple(segments))

    def with_joined(self, old: Iterable[Segment], new: Segment | None) -> "Window":
        """The window with one segment (None = nothing was left) in place of others."""
        gone = {segment.family for segment in old}
        first = next(at for at, s in enumerate(self.segments) if s.family in gone)
        kept = [s for s in self.segments if s.family not in gone]
        if new is not None:
            kept.insert(first, new)
        return msgspec.structs.replace(self, segments=tuple(kept))

    def joinable(self, *, closed: bool, busy: set[int], runs: int) -> tuple[Segment, ...]:
        """Segments to be joined next, none if it is as it should be.

        closed: no run comes any more.  busy: families that a run is writing to.  runs: a segment
        of an open window takes so many.
        """
        settled = tuple(s for s in self.segments if s.family not in busy)
        if closed:
            whole = len(self.segments) == 1 and self.segments[0].level > 0
            return () if whole or len(settled) < len(self.segments) else settled
        for segment in settled:
            if segment.level == 0 and (
                len(segment.runs) >= runs or segment is not self.segments[-1]
            ):
                return (segment,)
        for level in {segment.level for segment in settled} - {0}:
            alike = tuple(s for s in settled if s.level == level)
            if len(alike) >= JOIN_FAN:
                return alike
        return ()


class State(msgspec.Struct, array_like=True, frozen=True):
    """Of the newest recorded run; window: the newest number given."""

    run: int
    window: int
    cursors: Cursors


class Open(NamedTuple):
    """A segment that reads may use; it keeps its family also when that is dropped meanwhile."""

    segment: Segment
    family: Rdict
    runs: frozenset[int] | None  # whose chunks count; None = all
    usual: tuple[int, int]  # earliest and latest time of devices that are not odd
    odd: dict[int, Odd]

    def bounds(self, device: int) -> tuple[int, int]:
        """Earliest and latest time that rows of a device may have."""
        low, high = self.usual
        if device not in self.odd:
            return low, high
        _, first, last = self.odd[device]
        return min(low, first), max(high, last)

    def times(self, device: int) -> list[Times]:
        """The same by runs; at least one."""
        times = self.segment.times()
        if device not in self.odd:
            return times
        return [_widened(span, (self.odd[device],), ()) for span in times]

    def overlaps(self, device: int, start_ms: int, end_ms: int) -> bool:
        """Whether it may hold rows of a device with start_ms <= ts < end_ms."""
        low, high = self.bounds(device)
        return high >= start_ms and low < end_ms


def opened(segment: Segment, family: Rdict) -> Open:
    """What reads need of a segment."""
    runs = frozenset(run.number for run in segment.runs) if segment.level == 0 else None
    return Open(segment, family, runs, usual(segment.times()), {odd[0]: odd for odd in segment.odd})


def decoded(raw: bytes, kind: type[T]) -> T:
    """A stored record; StoreError when it is damaged."""
    try:
        return msgspec.msgpack.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise StoreError(f"a record of the series store does not decode: {error}") from error


# --- format 1 --------------------------------------------------------------------------------


class _Run1(msgspec.Struct, array_like=True, frozen=True):
    number: int
    window: int
    cursors: Cursors
    points: int
    chunk_bytes: int
    min_ts: int
    max_ts: int
    sealed_at_ms: int


class _Window1(msgspec.Struct, array_like=True, frozen=True):
    number: int
    opened_at_ms: int


def from_format_1(runs: Iterable[bytes], windows: Iterable[bytes]) -> tuple[State, list[Window]]:
    """The records of format 1, one per run and per window, as they are now."""
    held: dict[int, list[Run]] = {}
    newest = number = 0
    cursors: Cursors = {}
    for raw in runs:
        run = decoded(raw, _Run1)
        for journal, position in run.cursors.items():
            cursors[journal] = max(cursors.get(journal, (0, 0)), position)
        newest, number = max(newest, run.number), max(number, run.window)
        if run.points:
            held.setdefault(run.window, []).append(
                Run(run.number, run.cursors, run.points, run.chunk_bytes, run.min_ts, run.max_ts)
            )
    found = []
    for raw in windows:
        old = decoded(raw, _Window1)
        number = max(number, old.number)
        if old.number in held:
            segment = raw_segment(old.number, sorted(held[old.number], key=lambda r: r.number))
            found.append(Window(old.number, None, old.opened_at_ms, segments=(segment,)))
    return State(newest, number, cursors), found
