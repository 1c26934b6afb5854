from tbfast._ext.batch import Batch

def append_telemetry(
    batch: Batch,
    device: int,
    payload: bytes | bytearray | memoryview,
    now_ms: int,
    *,
    type_cast: bool = True,
    max_string: int = 0,
    max_depth: int = 255,
    max_keys: int = 10_000,
    max_plain: int = 4_096,
) -> tuple[int, int]: ...
def append_attributes(
    batch: Batch,
    device: int,
    payload: bytes | bytearray | memoryview,
    now_ms: int,
    *,
    type_cast: bool = True,
    max_string: int = 0,
    max_depth: int = 255,
    max_keys: int = 10_000,
    max_plain: int = 4_096,
) -> tuple[int, int]: ...
