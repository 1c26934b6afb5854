"""Rows that the node itself writes, when memory is short."""

import asyncio
from pathlib import Path

import pytest

from tbfast._ext.metrics import Slot
from tbfast.control.tail import TailService
from tbfast.control.writer import TelemetryWriter
from tbfast.errors import StoreError


class ShortTail(TailService):
    """Has no memory for blocks."""

    def apply(self, block: bytes) -> None:
        raise MemoryError("no memory for the tail")


class Roomy:
    """A disk with room for everything."""

    def admits(self, nbytes: int) -> bool:
        return True


def test_rows_that_the_tail_has_no_memory_for_end_the_process(tmp_path: Path) -> None:
    """They are in the journal: the next start reads them.  Later ones must not pass them."""
    broken: list[StoreError] = []

    async def save_twice() -> None:
        writer = TelemetryWriter(
            tmp_path / "journal",
            tmp_path / "known",
            ShortTail(Slot()),
            Roomy(),
            on_broken=broken.append,
        )
        writer.replayed()
        for _ in range(2):
            with pytest.raises(StoreError, match="no memory"):
                await asyncio.wait_for(writer.save(1, b'{"a":1}'), 10)
        writer.close()

    asyncio.run(save_twice())
    assert len(broken) == 1
