from collections.abc import Mapping

from tbfast._ext.deleted import Deleted
from tbfast._ext.packer import Totals

class Joiner:
    totals: Totals
    points: int
    nbytes: int
    def begin(
        self, device: int, names: Mapping[int, bytes], deleted: Deleted | None = None
    ) -> None: ...
    def add(self, run: int, key: bytes, chunk: bytes) -> None: ...
    def take(self) -> list[tuple[bytes, bytes]]: ...
