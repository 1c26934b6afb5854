from collections.abc import Callable
from ssl import SSLObject

ACCEPT_ANY: int

class TlsStream:
    error: str | None
    def __init__(self, wrap: Callable[..., SSLObject]) -> None: ...
    @property
    def resumed(self) -> bool: ...
    def chain(self) -> tuple[bytes, ...]: ...
