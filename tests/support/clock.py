"""A wall clock that is set while a node runs."""

import mmap
import struct
from pathlib import Path

from tests.support.faulty_disk import preloaded

SOURCE = Path(__file__).with_name("clock_shim.c")


class ClockShim:
    """The preloaded library of clock_shim.c and its offset."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        library = preloaded(SOURCE, directory)
        offset = directory / "offset"
        offset.write_bytes(bytes(8))
        with open(offset, "r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        self.env = {"LD_PRELOAD": str(library), "TBFAST_TEST_CLOCK": str(offset)}

    def set_ahead(self, ms: int) -> None:
        """The node's clock is ahead of ours by so much."""
        self._offset[0:8] = struct.pack("<q", ms)
