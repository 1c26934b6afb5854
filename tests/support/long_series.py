"""A long series in the files of a stopped server, in runs as a running one would have made them."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from tbfast.config import Series
from tests.support.registry import with_registry
from tests.support.storage import Storage

KEY = "t"
START_MS = 1_764_000_000_000


def points_of(count: int) -> Iterator[tuple[int, int]]:
    """(time, tenths): one a second with some jitter, always the same."""
    rng, value = random.Random(1), 215
    for n in range(count):
        value += int(7 * rng.random()) - 3
        yield START_MS + n * 1000 + int(80 * rng.random()), value


def store_series(
    data_dir: Path, device_id: str, points: int, *, points_per_run: int = 600, join: bool = True
) -> None:
    """The first `points` of `points_of`, under KEY, with one decimal.

    join: as the upkeep of a server does, once a segment is full.
    """

    async def number(registry) -> int:
        return (await registry.device(device_id)).number

    device = with_registry(data_dir, number)
    series = points_of(points)
    storage = Storage(data_dir, journals=1, settings=Series())
    try:
        with asyncio.Runner() as runner:
            for _ in range(0, points, points_per_run):
                some = itertools.islice(series, points_per_run)
                rows = [f'{{"ts":{ts},"values":{{"{KEY}":{t / 10}}}}}' for ts, t in some]
                storage.write_json(0, device, f"[{','.join(rows)}]".encode())
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
