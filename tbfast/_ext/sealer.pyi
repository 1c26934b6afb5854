from collections.abc import Mapping

from tbfast._ext.deleted import Deleted
from tbfast._ext.head import Head
from tbfast._ext.series import RangeScan

class Sealer:
    points: int
    nbytes: int
    min_ts: int
    max_ts: int
    def __init__(self, head: Head, run: int) -> None: ...
    def next(self, max_bytes: int) -> list[tuple[bytes, bytes]]: ...

def feed_chunk(
    scan: RangeScan,
    chunk: bytes,
    names: Mapping[int, bytes],
    run: int,
    deleted: Deleted | None = None,
) -> None: ...
