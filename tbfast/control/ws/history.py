"""Points of a time, as a subscription begins with them (REST spec 14.2, 14.5)."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar, cast

import msgspec

from tbfast import limits
from tbfast.control.rest.long_answers import LongAnswers
from tbfast.control.services import SeriesReader
from tbfast.control.ws.updates import BAD_REQUEST, Point, points_of
from tbfast.errors import PeerError
from tbfast.model.ranges import Aggregation, RangeQuery

DEFAULT_LIMIT: Final = 100
# Of an answer of one device, as it is stored: a point takes at most three times what a client
# reads, so none is refused that the queue would have taken.
ANSWER_BYTES: Final = 3 * limits.WS_QUEUE_BYTES
_LONG_ANSWERS: Final = 4  # of the longest, read and not told apart yet, by all WebSockets
_SHORT_POINTS: Final = 1_000  # of a key: no room is set aside for so few
_INLINE_BYTES: Final = 65_536  # longer answers are told apart outside the loop

T = TypeVar("T")
Points = dict[str, list[Point]]


class History(msgspec.Struct, frozen=True, rename="camel"):
    """Which points; up to `end_ts`, or over `time_window` from `start_ts`."""

    keys: list[str] | None = None
    start_ts: int = 0
    end_ts: int = 0
    time_window: int = 0
    interval: int = 0
    limit: int = 0
    agg: str | None = None


class Room:
    """What the histories of several devices in one answer take together, bytes as stored."""

    def __init__(self) -> None:
        self._left = ANSWER_BYTES

    def take(self, nbytes: int) -> None:
        """PeerError when it is too much."""
        self._left -= nbytes
        if self._left < 0:
            raise PeerError(
                f"the answer is longer than {ANSWER_BYTES} bytes; ask for fewer devices, keys or "
                "points",
                code=BAD_REQUEST,
            )


class Histories:
    """Reads of all WebSockets; all methods belong to one event loop.

    A long answer is a few hundred thousand objects for a moment: they are made in a thread, so that
    the loop goes on, and for one answer at a time.
    """

    def __init__(self, series: SeriesReader) -> None:
        self._series = series
        self._answers = LongAnswers(_LONG_ANSWERS * ANSWER_BYTES)
        self._making = asyncio.Lock()

    async def read(
        self,
        device: int,
        wanted: History,
        made: Callable[[Points], T],
        room: Room | None = None,
    ) -> T:
        """What `made`, perhaps in a thread, makes of points by key; newest first, buckets oldest
        first.

        PeerError for what cannot be had, ResourceError while others ask for too much.
        """
        query = _query(wanted)
        if query is None:
            return made({})
        long = not query.aggregates and query.limit > _SHORT_POINTS
        share = await self._answers.take(ANSWER_BYTES if long else 0)
        try:
            text = await self._series.range(device, query)
            share.shrink(len(text))
            if room is not None:
                room.take(len(text))
            if len(text) <= _INLINE_BYTES:
                return made(points_of(text))
            async with self._making:
                return await asyncio.to_thread(lambda: made(points_of(text)))
        finally:
            share.free()


def _query(wanted: History) -> RangeQuery | None:
    """None: of no time at all."""
    if wanted.interval < 0 or wanted.limit < 0:
        raise PeerError("interval and limit must not be negative", code=BAD_REQUEST)
    end_ms = wanted.end_ts or wanted.start_ts + wanted.time_window
    if wanted.start_ts >= end_ms:
        return None
    return RangeQuery(
        keys=None if wanted.keys is None else tuple(wanted.keys),
        start_ms=wanted.start_ts,
        end_ms=end_ms,
        limit=min(wanted.limit or DEFAULT_LIMIT, limits.REST_POINTS),
        aggregation=_aggregation(wanted.agg),
        interval_ms=wanted.interval,
        max_bytes=ANSWER_BYTES,
    )


def _aggregation(text: str | None) -> Aggregation:
    word = text or "NONE"
    if word not in ("NONE", "MIN", "MAX", "AVG", "SUM", "COUNT"):
        raise PeerError(f"Unsupported agg: {word[:32]}", code=BAD_REQUEST)
    return cast(Aggregation, word)
