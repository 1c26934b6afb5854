"""Series of a month at 1 Hz, read through a worker of a real node, also while devices publish."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.audit import audit
from tests.support.ledger import running_load
from tests.support.long_series import KEY, START_MS, points_of, store_series
from tests.support.node import Node, running_node
from tests.support.rest_client import Person

HOURS = 29 * 24  # an aggregation has at most 700 intervals
HOUR_MS = 3_600_000
POINTS = HOURS * 3_600
END_MS = START_MS + HOURS * HOUR_MS
DEVICES = 6
READERS = 3
RAW = 300_000  # about 10 MB


class Month:
    """A node with the series; ``points``: (time, tenths) in order."""

    def __init__(self, node: Node, device: str, tokens: list[str]) -> None:
        self.node = node
        self.tokens = tokens
        self.points = list(points_of(POINTS))
        self._path = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
        found = re.search(
            r"administrator is (\S+?), the password (\S+?)\b(?=\\n|\n|\")", _log(node)
        )
        assert found is not None, node.tail_of_log()
        self._login = found[1], found[2]

    @contextlib.contextmanager
    def person(self) -> Iterator[Person]:
        with contextlib.closing(Person(self.node.http_port)) as person:
            yield person.login(*self._login)

    def ask(self, person: Person, **query: Any) -> tuple[int, Any]:
        asked = {"keys": KEY, "startTs": START_MS, "endTs": END_MS, **query}
        return person("GET", self._path, **asked)

    def read(self, person: Person, **query: Any) -> list[dict[str, Any]]:
        status, answer = self.ask(person, **query)
        assert status == 200, answer
        points: list[dict[str, Any]] = answer[KEY]
        return points


def _log(node: Node) -> str:
    return node.log.read_text(errors="replace")


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    data_dir: Path = tmp_path_factory.mktemp("month") / "data"
    with running_node(data_dir, workers=1) as node:
        tokens = node.add_devices(DEVICES)
        with node.api() as api:
            device = api.create("month", "month", None, None).id
        assert node.stop() == 0
        store_series(data_dir, device, POINTS, points_per_run=14_400)
        node.start()
        yield Month(node, device, tokens)


def hours(points: Sequence[tuple[int, int]]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(HOURS)]
    for ts, tenths in points:
        found[(ts - START_MS) // HOUR_MS].append(tenths)
    return found


@pytest.mark.parametrize("which", ["AVG", "MAX", "SUM", "COUNT"])
def test_a_month_by_hours(month: Month, which: str) -> None:
    with month.person() as person:
        found = month.read(person, agg=which, interval=HOUR_MS)
    expected = {
        "AVG": lambda values: Decimal(sum(values)) / 10 / len(values),
        "MAX": lambda values: Decimal(max(values)) / 10,
        "SUM": lambda values: Decimal(sum(values)) / 10,
        "COUNT": len,
    }[which]
    assert len(found) == HOURS
    for n, (point, values) in enumerate(zip(found, hours(month.points), strict=True)):
        assert point["ts"] == START_MS + n * HOUR_MS + HOUR_MS // 2
        assert float(point["value"]) == pytest.approx(float(expected(values)), rel=1e-12)


@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_raw_points_up_to_the_limit(month: Month, order: str) -> None:
    with month.person() as person:
        found = month.read(person, limit=RAW, orderBy=order, useStrictDataTypes="true")
    points = month.points[:RAW] if order == "ASC" else month.points[: -RAW - 1 : -1]
    assert [point["ts"] for point in found] == [ts for ts, _ in points]
    assert [round(point["value"] * 10) for point in found] == [tenths for _, tenths in points]


def test_reads_do_not_stop_acknowledgements(month: Month) -> None:
    """By the ledger: devices are served at their rate while others read without a pause."""
    node, stop = month.node, threading.Event()
    reads = [0] * READERS
    failures: list[BaseException] = []

    def reading(number: int) -> None:
        raw = {"limit": RAW} if number else {"agg": "MIN", "interval": HOUR_MS}
        try:
            with month.person() as person:
                while not stop.is_set():
                    assert len(month.read(person, **raw)) == (RAW if number else HOURS)
                    reads[number] += 1
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=reading, args=(n,)) for n in range(READERS)]
    with running_load(node.mqtt_port, month.tokens, http_port=node.http_port, rate=50) as load:
        load.wait_acked(100)
        for thread in threads:
            thread.start()
        try:
            while min(reads) < 4 and not failures:
                load.wait_acked(30 * DEVICES)  # a part of a second's messages, in 20 s at most
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        record = load.finish()
        refused = load.progress.refused
    assert not failures
    assert refused == 0
    assert audit(node, record) == load.acked
