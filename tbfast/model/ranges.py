"""What a read of stored telemetry asks for, and the buckets of an aggregation (REST spec 7)."""

from datetime import UTC, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tbfast import limits
from tbfast.errors import PeerError

Aggregation = Literal["NONE", "MIN", "MAX", "AVG", "SUM", "COUNT"]
IntervalType = Literal["MILLISECONDS", "WEEK", "WEEK_ISO", "MONTH", "QUARTER"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RangeQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Points with start_ms <= ts < end_ms (None: no bound), of some keys (None: all).

    ``limit`` (per key) and ``ascending`` are for raw points; an aggregation has one point per
    bucket, ascending, and needs both bounds.  ``strings``: the answer has values as strings.
    ``max_bytes``: of the answer; a longer one is refused.
    """

    keys: tuple[str, ...] | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    limit: int = 100
    ascending: bool = False
    aggregation: Aggregation = "NONE"
    interval_ms: int = 0
    interval_type: IntervalType = "MILLISECONDS"
    time_zone: str = "UTC"
    strings: bool = False
    max_bytes: int = limits.REST_ANSWER_BYTES

    @property
    def aggregates(self) -> bool:
        """Whether it asks for buckets; an interval of 0 makes any aggregation behave as NONE."""
        if self.aggregation == "NONE":
            return False
        return self.interval_type != "MILLISECONDS" or self.interval_ms > 0


def bucket_bounds(query: RangeQuery) -> list[int]:
    """First times of the buckets, then the end of the last, Unix ms; PeerError if it cannot be."""
    start, end = query.start_ms, query.end_ms
    if start is None or end is None:
        raise PeerError("an aggregation needs both startTs and endTs")
    if start >= end:
        return []
    if query.interval_type == "MILLISECONDS":
        if -((start - end) // query.interval_ms) > limits.REST_BUCKETS:
            raise _too_many()
        return [*range(start, end, query.interval_ms), end]
    try:
        zone = ZoneInfo(query.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise PeerError(f"unknown timeZone: {query.time_zone[:64]}") from error
    bounds = [start]
    while bounds[-1] < end:
        if len(bounds) > limits.REST_BUCKETS:
            raise _too_many()
        bounds.append(min(_calendar_end(bounds[-1], query.interval_type, zone), end))
    return bounds


def _too_many() -> PeerError:
    return PeerError(f"more than {limits.REST_BUCKETS} intervals between startTs and endTs")


def _calendar_end(start_ms: int, interval_type: IntervalType, zone: ZoneInfo) -> int:
    """When the week, month or quarter ends that a time is in."""
    try:
        at = (_EPOCH + timedelta(milliseconds=start_ms)).astimezone(zone)
        day = at.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None, fold=0)
        if interval_type == "WEEK":  # begins on Sunday
            after = day + timedelta(days=7 - day.isoweekday() % 7)
        elif interval_type == "WEEK_ISO":  # begins on Monday
            after = day + timedelta(days=7 - day.weekday())
        else:
            months = 1 if interval_type == "MONTH" else 3 - (day.month - 1) % 3
            month = day.month - 1 + months
            after = day.replace(year=day.year + month // 12, month=month % 12 + 1, day=1)
        return (after.replace(tzinfo=zone) - _EPOCH) // timedelta(milliseconds=1)
    except (OverflowError, ValueError) as error:
        raise PeerError("startTs and endTs are outside the calendar (years 1 to 9999)") from error
