"""From what a read asks for to the scan that gathers it and the JSON text that answers it."""

from collections.abc import Sequence
from typing import Final

from tbfast._ext.aggregate import aggregate_json
from tbfast._ext.scan import RangeScan
from tbfast.model.ranges import RangeQuery, bucket_bounds

_NO_LIMIT: Final = 1 << 62


class Answer:
    """One read: everything is given to `scan`, then `text` answers.

    PeerError for buckets that cannot be had and for an answer over the query's `max_bytes`.
    Points of an aggregation stream through; of raw ones `limit` are held at a time.
    """

    def __init__(self, device: int, query: RangeQuery) -> None:
        self._aggregation = query.aggregation
        self._strings = query.strings
        self._most = query.max_bytes
        self._bounds = bucket_bounds(query) if query.aggregates else None
        self.scan = RangeScan(
            device,
            query.keys,
            start_ms=query.start_ms,
            end_ms=query.end_ms,
            limit=_NO_LIMIT if query.aggregates else query.limit,
            ascending=query.aggregates or query.ascending,
        )

    def text(self) -> bytes:
        """{"key":[{"ts":..,"value":..},..],..}; keys without points are absent.

        Only once: what was given to the scan is free again.
        """
        try:
            if self._bounds is None:
                return self.scan.to_json(self._strings, self._most)
            if not self._bounds:
                return b"{}"
            return aggregate_json(
                self.scan, self._aggregation, self._bounds, self._strings, self._most
            )
        finally:
            self.scan.release()


def newest(keys: Sequence[str] | None) -> RangeQuery:
    """The newest point of each key."""
    return RangeQuery(keys=None if keys is None else tuple(keys), limit=1)
