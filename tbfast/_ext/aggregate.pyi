from collections.abc import Sequence

from tbfast._ext.scan import RangeScan

def aggregate_json(
    scan: RangeScan,
    aggregation: str,
    bounds: Sequence[int],
    strings: bool = False,
    max_bytes: int = ...,
) -> bytes: ...
