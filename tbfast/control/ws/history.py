"""Points of a time, as a subscription begins with them (REST spec 14.2, 14.5)."""

from typing import Final, cast

import msgspec

from tbfast import limits
from tbfast.control.services import SeriesReader
from tbfast.control.ws.updates import BAD_REQUEST, Point, points_of
from tbfast.errors import PeerError
from tbfast.model.ranges import Aggregation, RangeQuery

DEFAULT_LIMIT: Final = 100


class History(msgspec.Struct, frozen=True, rename="camel"):
    """Which points; up to `end_ts`, or over `time_window` from `start_ts`."""

    keys: list[str] | None = None
    start_ts: int = 0
    end_ts: int = 0
    time_window: int = 0
    interval: int = 0
    limit: int = 0
    agg: str | None = None


async def read_history(
    series: SeriesReader, device: int, wanted: History
) -> dict[str, list[Point]]:
    """Points by key, newest first; buckets oldest first.  PeerError for what cannot be had."""
    if wanted.interval < 0 or wanted.limit < 0:
        raise PeerError("interval and limit must not be negative", code=BAD_REQUEST)
    end_ms = wanted.end_ts or wanted.start_ts + wanted.time_window
    if wanted.start_ts >= end_ms:
        return {}
    query = RangeQuery(
        keys=None if wanted.keys is None else tuple(wanted.keys),
        start_ms=wanted.start_ts,
        end_ms=end_ms,
        limit=min(wanted.limit or DEFAULT_LIMIT, limits.REST_POINTS),
        aggregation=_aggregation(wanted.agg),
        interval_ms=wanted.interval,
    )
    return points_of(await series.range(device, query))


def _aggregation(text: str | None) -> Aggregation:
    word = text or "NONE"
    if word not in ("NONE", "MIN", "MAX", "AVG", "SUM", "COUNT"):
        raise PeerError(f"Unsupported agg: {word[:32]}", code=BAD_REQUEST)
    return cast(Aggregation, word)
