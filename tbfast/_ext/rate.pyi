from tbfast.model.rates import RateLimits

RATE_SCOPE_TENANT: int
RATE_SCOPE_DEVICE: int
RATE_SCOPE_GATEWAY: int
RATE_SCOPE_GATEWAY_DEVICE: int

class Rates:
    def __init__(self) -> None: ...
    def put(self, limits: RateLimits) -> None: ...
    @property
    def limits(self) -> RateLimits: ...
    def message(self, scope: int, device: int, points: int, now_ns: int) -> None: ...

def take(
    cells: bytearray | memoryview,
    index: int,
    capacity: int,
    seconds: int,
    tokens: int,
    now_ns: int,
) -> int | None: ...
