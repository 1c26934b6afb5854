from collections.abc import Sequence

from tbfast._ext.series import RangeScan

def aggregate_json(
    scan: RangeScan, aggregation: str, bounds: Sequence[int], max_points: int
) -> bytes: ...
