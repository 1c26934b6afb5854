from collections.abc import Callable, Mapping

from tbfast._ext.deleted import Deleted
from tbfast._ext.head import Head
from tbfast._ext.packer import Totals
from tbfast._ext.scan import RangeScan

class Sealer:
    totals: list[Totals]
    done: bool
    def __init__(
        self,
        head: Head,
        run: int,
        classes: int = 1,
        class_of: Callable[[int], int] | None = None,
    ) -> None: ...
    def next(self, max_bytes: int) -> list[list[tuple[bytes, bytes]]]: ...

def feed_chunk(
    scan: RangeScan,
    chunk: bytes,
    names: Mapping[int, bytes],
    run: int,
    deleted: Deleted | None = None,
    again: Callable[[], bytes | None] | None = None,
) -> None: ...
