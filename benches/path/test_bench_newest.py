"""The newest and the oldest points of a long series: 14 days at 1 Hz, an hour a run, joined.

A read looks at the chunks it needs, whatever the series has besides: compare with the whole day in
`test_bench_range`.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tbfast.model.ranges import RangeQuery
from tests.support.storage import Storage

pytestmark = pytest.mark.bench

HOURS = 14 * 24
DEVICE = 1
LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    storage = Storage(tmp_path_factory.mktemp("newest") / "data", journals=1)
    for hour in range(HOURS):
        for first in range(hour * 3600, (hour + 1) * 3600, 900):
            rows = [(n * 1000, {"t": f"{n % 500 / 10}"}) for n in range(first, first + 900)]
            storage.write(0, DEVICE, *rows)
        LOOP.run_until_complete(storage.sealer.seal())
        LOOP.run_until_complete(storage.sealer.upkeep.join())
    yield storage
    storage.close()


@pytest.mark.parametrize("ascending", [False, True], ids=["newest", "oldest"])
@pytest.mark.parametrize("limit", [1, 100, 10_000])
def test_read_points_at_an_end(benchmark, storage: Storage, limit: int, ascending: bool) -> None:
    query = RangeQuery(keys=("t",), limit=limit, ascending=ascending)

    def read() -> bytes:
        return LOOP.run_until_complete(storage.reads.range(DEVICE, query))

    assert benchmark(read).count(b'"ts"') == limit
