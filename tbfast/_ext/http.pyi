from collections.abc import Callable
from typing import Any, Protocol

from tbfast._ext.ingest import Ingest

class _Known(Protocol):
    @property
    def device(self) -> int: ...

def plain_post(data: bytes) -> tuple[str, bytes] | None: ...
def take_post(
    ingest: Ingest, devices: Callable[[str], _Known | None], waiter: Any, data: bytes
) -> bool: ...
