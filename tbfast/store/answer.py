"""From what a read asks for to the scan that gathers it and the JSON text that answers it."""

from collections.abc import Sequence

from tbfast import limits
from tbfast._ext.aggregate import aggregate_json
from tbfast._ext.series import RangeScan
from tbfast.model.ranges import RangeQuery, bucket_bounds


class Answer:
    """One read: everything is given to `scan`, then `text` answers.

    PeerError for buckets that cannot be had. Memory: `limit` points of each key, or
    limits.REST_AGGREGATE_POINTS of each that is aggregated.
    """

    def __init__(self, device: int, query: RangeQuery) -> None:
        self._aggregation = query.aggregation
        self._bounds = bucket_bounds(query) if query.aggregates else None
        self.scan = RangeScan(
            device,
            query.keys,
            start_ms=query.start_ms,
            end_ms=query.end_ms,
            # One above the bound, so that passing it shows.
            limit=limits.REST_AGGREGATE_POINTS + 1 if query.aggregates else query.limit,
            ascending=query.aggregates or query.ascending,
        )

    def text(self) -> bytes:
        """{"key":[{"ts":..,"value":..},..],..}; keys without points are absent."""
        if self._bounds is None:
            return self.scan.to_json()
        if not self._bounds:
            return b"{}"
        return aggregate_json(
            self.scan, self._aggregation, self._bounds, limits.REST_AGGREGATE_POINTS
        )


def newest(keys: Sequence[str] | None) -> RangeQuery:
    """The newest point of each key."""
    return RangeQuery(keys=None if keys is None else tuple(keys), limit=1)
