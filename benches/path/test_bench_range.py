"""A day of one series at 1 Hz: from sealed chunks to the JSON text that REST answers.

The baseline turns the same text into strings in Python, as a straightforward server would.  The
loop is kept: `asyncio.run` of Python 3.11 puts a coroutine's result, here megabytes, into the text
of an exception that it then swallows.  Through a whole server: `python -m benches.reads`.
"""

import asyncio
import json
from collections.abc import Iterator

import msgspec
import pytest

from tbfast.model.ranges import RangeQuery
from tests.support.storage import Storage

pytestmark = pytest.mark.bench

POINTS = 86_400
DEVICE = 1
DAY = RangeQuery(keys=("t",), start_ms=0, end_ms=POINTS * 1000, limit=POINTS)
STRINGS = msgspec.structs.replace(DAY, strings=True)
HOURS = msgspec.structs.replace(DAY, aggregation="AVG", interval_ms=3_600_000)
LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    storage = Storage(tmp_path_factory.mktemp("range") / "data", journals=1)
    for first in range(0, POINTS, 900):
        rows = [(n * 1000, {"t": f"{n % 500 / 10}"}) for n in range(first, first + 900)]
        storage.write(0, DEVICE, *rows)
    LOOP.run_until_complete(storage.sealer.seal())
    yield storage
    storage.close()


def day(storage: Storage, query: RangeQuery = DAY) -> bytes:
    return LOOP.run_until_complete(storage.reads.range(DEVICE, query))


def in_python(text: bytes) -> bytes:
    """The named baseline."""
    series = json.loads(text)
    for points in series.values():
        for point in points:
            point["value"] = str(point["value"])
    return json.dumps(series, separators=(",", ":")).encode()


def test_read_a_day(benchmark, storage: Storage) -> None:
    assert benchmark(day, storage).count(b'"ts"') == POINTS


def test_read_a_day_as_strings(benchmark, storage: Storage) -> None:
    assert benchmark(day, storage, STRINGS) == in_python(day(storage))


def test_average_hours_of_a_day(benchmark, storage: Storage) -> None:
    assert benchmark(day, storage, HOURS).count(b'"ts"') == 24


def test_strings_of_a_day_in_python(benchmark, storage: Storage) -> None:
    benchmark(in_python, day(storage))
