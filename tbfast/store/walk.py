"""Chunks of one device in one segment, from the end where a read begins and no further than needed.

Chunks of a series lie in order of runs, and the segment knows the times of its runs: see
`Open.times`.  That bounds the times of all chunks that are still to come, so a read can stop
before it fetches them; rows that arrived out of order only make the bounds wider.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path

from tbfast.errors import StoreError
from tbfast.store import pages, rocks
from tbfast.store.series_files import CHUNK_KEY, RUN, RUNS_END
from tbfast.store.windows import Open


def damaged(path: Path, key: bytes, error: StoreError) -> StoreError:
    """What to raise for a chunk that does not parse."""
    device, number, run = CHUNK_KEY.unpack(key)
    where = f"device {device}, key {number}, run {run}"
    return StoreError(f"{path}: {where}: {error}; {rocks.RECOVER}")


class Walk:
    """A read's way through a segment, for rows with start_ms <= ts < end_ms.

    oldest_first: from the oldest run on, else from the newest.
    """

    def __init__(
        self,
        of: Open,
        path: Path,
        device: int,
        start_ms: int,
        end_ms: int,
        *,
        oldest_first: bool = True,
    ) -> None:
        self._of = of
        self._path = path
        self._device = device
        self._start, self._end = start_ms, end_ms
        self._oldest_first = oldest_first
        self._times = times = of.times(device)
        self._numbers = [number for number, _, _ in times]
        if oldest_first:  # the earliest time of a span and those after it
            self._rest = list(accumulate((low for _, low, _ in reversed(times)), min))[::-1]
        else:  # the latest time of a span and those before it
            self._rest = list(accumulate((high for _, _, high in times), max))

    def chunks(self, key: int, enough: Callable[[int], bool]) -> Iterator[tuple[int, bytes]]:
        """(run, chunk) of a series, or of what the device's small ones share (0).

        enough: whether rows at a time and further along the read are not needed any more.
        """
        raw = self._of.runs is not None
        for place in pages.places(self._device, key, raw=raw):
            yield from self._in_place(place, enough)

    def _in_place(self, place: bytes, enough: Callable[[int], bool]) -> Iterator[tuple[int, bytes]]:
        runs = self._of.runs
        before = 0
        last = None if self._oldest_first else place + RUNS_END
        for found, value in rocks.under(self._of.family, self._path, place, last):
            run: int = RUN.unpack(found[-RUN.size :])[0]
            if runs is not None and run not in runs:
                continue
            bound = self._bound(run, before)
            before = run
            if self._outside(bound) or enough(bound):
                return
            if self._skips(run):
                continue
            try:
                chunk = pages.chunk_of(self._device, found, value())
            except StoreError as error:
                raise damaged(self._path, found, error) from error
            if chunk is not None:
                yield run, chunk

    def _bound(self, run: int, before: int) -> int:
        """Which time no row of this and the following chunks is on the near side of."""
        if self._oldest_first and self._of.runs is None:
            at = bisect_right(self._numbers, before)  # where a joined chunk may begin
        else:
            at = bisect_left(self._numbers, run)
        return self._rest[min(at, len(self._rest) - 1)]

    def _skips(self, run: int) -> bool:
        """Whether a chunk as a run wrote it has no row in the range."""
        if self._of.runs is None:
            return False
        _, low, high = self._times[bisect_left(self._numbers, run)]
        return low >= self._end or high < self._start

    def _outside(self, bound: int) -> bool:
        return bound >= self._end if self._oldest_first else bound < self._start
