"""A long series in the files of a stopped server, in runs as a running one would have made them."""

import asyncio
import random
from pathlib import Path

from tbfast.config import Series
from tests.support.registry import with_registry
from tests.support.storage import Storage

KEY = "t"
START_MS = 1_764_000_000_000


def store_series(
    data_dir: Path, device_id: str, points: int, *, points_per_run: int = 600, join: bool = True
) -> None:
    """`points` of KEY, one a second with some jitter and one decimal.

    join: as the upkeep of a server does, once a segment is full.
    """

    async def number(registry) -> int:
        return (await registry.device(device_id)).number

    device = with_registry(data_dir, number)
    storage = Storage(data_dir, journals=1, settings=Series())
    try:
        rng, value = random.Random(1), 215
        with asyncio.Runner() as runner:
            for first in range(0, points, points_per_run):
                rows = []
                for n in range(first, min(points, first + points_per_run)):
                    value += rng.randint(-3, 3)
                    ts = START_MS + n * 1000 + rng.randint(0, 80)
                    rows.append((ts, {KEY: f"{value / 10}"}))
                storage.write(0, device, *rows)
                runner.run(storage.sealer.seal())
        while join and (work := storage.store.begin_join()) is not None:
            while work.step():
                pass
            work.flush()
            left = storage.store.finish_join(work)
            work.close()
            for family in left:
                storage.store.forget(family)
    finally:
        storage.close()
