from tbfast._ext.batch import Batch

Data = bytes | bytearray | memoryview

class Table:
    nbytes: int
    def __init__(
        self,
        table: bytes,
        *,
        max_depth: int = ...,
        max_fields: int = ...,
        max_printed: int = ...,
    ) -> None: ...
    def print(self, payload: Data) -> bytes: ...

def append(
    batch: Batch,
    table: Table,
    device: int,
    payload: Data,
    now_ms: int,
    *,
    attributes: bool = False,
    type_cast: bool = True,
    max_string: int = 0,
    max_depth: int = 255,
    max_keys: int = 10_000,
    max_plain: int = 4_096,
) -> tuple[int, int]: ...
