"""One time of one key written through two workers: the later write wins, also after replay."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tbfast.model.ranges import RangeQuery
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until
from tests.support.writers import writers

SEED = int(os.environ.get("TBFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
TIMES = 40
ROWS = 60  # of a message that makes a journal long
BACKLOG_BYTES = 20 << 20
SMALL_HEAD = {"TBFAST_SERIES__HEAD_BYTES": str(1 << 20)}
FILLER = b"[%s]" % b",".join(
    b'{"ts":%d,"values":{"filler":"%s"}}' % (ts, b"x" * 1_000) for ts in range(ROWS)
)


def write(node: Node, token: str) -> dict[int, int]:
    """Every time is written by several workers in turn; what each must hold, by time."""
    print(f"TBFAST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    wanted: dict[int, int] = {}
    with writers(node) as each:
        for n in range(3 * TIMES):
            ts = rng.randrange(TIMES)
            rng.choice(each).post(token, b'{"ts":%d,"values":{"n":%d}}' % (ts, n))
            wanted[ts] = n
            if n % 3 == 0:  # the journal of worker 0 becomes much longer than the other
                for _ in range(BACKLOG_BYTES // TIMES // len(FILLER)):
                    each[0].post(token, FILLER)
    return wanted


def stored(node: Node) -> dict[int, int]:
    with node.api() as api:
        text = api.history(api.find("d0"), RangeQuery(keys=("n",), limit=1_000_000))
    return {point["ts"]: point["value"] for point in json.loads(text)["n"]}


def latest(node: Node) -> tuple[int, int]:
    with node.api() as api:
        path = f"/api/plugins/telemetry/DEVICE/{api.find('d0').id}/values/timeseries"
        (point,) = api.get(f"{path}?keys=n&useStrictDataTypes=true", dict)["n"]
    return point["ts"], point["value"]


def tables(node: Node) -> set[Path]:
    """Files of the series store, each of one run or of several merged."""
    return set((node.data_dir / "series").glob("*.sst"))


def check(node: Node, wanted: dict[int, int]) -> None:
    assert stored(node) == wanted
    assert latest(node) == max(wanted.items())


def test_replay_after_a_killed_controller(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        (token,) = node.add_devices(1)
        wanted = write(node, token)
        check(node, wanted)
        pid = node.controller_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: node.controller_pid() not in (0, pid), what="another controller")
        node.wait_ready()
        check(node, wanted)


def test_a_backlog_lags_until_it_is_replayed(tmp_path: Path) -> None:
    """Also when nothing new comes after it."""
    with running_node(tmp_path / "data", workers=1) as node, writers(node) as (writer,):
        (token,) = node.add_devices(1)
        writer.post(token, b'{"ts":1,"values":{"n":0}}')  # the worker knows it now
        with node.controller_away():
            writer.post(token, b'{"ts":1,"values":{"n":1}}')
            time.sleep(2)
        node.wait_ready()
        seen = [0.0]

        def over() -> bool:
            seen.append(node.metric("tbfast_tail_lag_seconds"))
            return max(seen) >= 2 and seen[-1] == 0

        wait_until(over, what="a lag, and its end")


@pytest.mark.parametrize("workers", [2, 1])
def test_replay_into_many_runs(tmp_path: Path, workers: int) -> None:
    """A backlog of several heads; with fewer workers a journal has no writer any more."""
    with running_node(tmp_path / "data") as node:
        (token,) = node.add_devices(1)
        wanted = write(node, token)
        node.kill_all()
        node.env.update(SMALL_HEAD)
        node.workers = workers
        node.start()
        check(node, wanted)
        # Of equal times one remains in each run: there were several.
        wait_until(lambda: node.metric("tbfast_sealed_points_total") > 2 * (ROWS + TIMES))
        check(node, wanted)
        assert node.stop() == 0
        found = json.loads(
            node.cli("query", "d0", "--keys", "n", "--limit", "1000", "--json").stdout
        )
        assert {point["ts"]: point["value"] for point in found["n"]} == wanted


def test_the_journal_of_a_former_worker_is_larger_than_the_head(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        (token,) = node.add_devices(1)
        with writers(node) as each:
            for n in range(150):
                rows = b",".join(
                    b'{"ts":%d,"values":{"n":1}}' % (1000 * n + i) for i in range(1000)
                )
                each[1].post(token, b"[%s]" % rows)
        node.kill_all()
        node.env.update(SMALL_HEAD)
        node.workers = 1
        node.start()
        assert len(stored(node)) == 150_000
        # 4.8 MB of rows, and never more than four heads at once: it was sealed in between.
        wait_until(lambda: node.metric("tbfast_sealed_points_total") > 75_000)
        assert node.stop() == 0
        node.start()
        former = node.data_dir / "journal" / "1"
        wait_until(lambda: not former.exists(), what="the empty journal is removed")
        assert len(stored(node)) == 150_000


def test_killed_again_and_again_in_the_middle_of_a_replay(tmp_path: Path) -> None:
    """A backlog of 20 heads, which fill one upon the other."""
    count, each = 400, 50
    texts = {n: f"{n}-{'x' * 1_000}" for n in range(count * each)}
    with running_node(tmp_path / "data", workers=1) as node:
        (token,) = node.add_devices(1)
        with writers(node) as (writer,):
            for first in range(0, count * each, each):
                rows = [{"ts": n, "values": {"text": texts[n]}} for n in range(first, first + each)]
                writer.post(token, json.dumps(rows).encode())
        node.kill_all()
        node.env.update(SMALL_HEAD)
        known = tables(node)
        for _ in range(2):  # a run is of up to four heads: there are five at least
            node.spawn()
            wait_until(lambda: len(tables(node) - known) > 3, 60.0, "some runs")
            node.kill_all()
            known.update(tables(node))
        node.start()
        with node.api() as api:  # waits for all of it
            text = api.history(api.find("d0"), RangeQuery(keys=("text",), limit=1_000_000))
        assert {p["ts"]: p["value"] for p in json.loads(text)["text"]} == texts
        wait_until(lambda: node.metric("tbfast_sealed_points_total") > 0, what="more runs")
        assert node.stop() == 0  # what makes no full head is sealed now
        node.start()
        assert node.metric("tbfast_series_points") == count * each
