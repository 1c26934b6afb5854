"""From journal blocks to sealed and joined chunks: nanoseconds and bytes a point, memory a series.

    python -m pytest benches/path/test_bench_series.py -o python_files='test_bench_*.py' \
        --benchmark-enable -m bench -s

"all in" is the CPU time of the whole process, RocksDB's threads included, from blocks in memory to
a recorded run.  The baseline puts one RocksDB key per point, as a straightforward store would.
"""

import asyncio
import os
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict, WriteBatch

from tbfast._ext.ingest import Ingest
from tbfast._ext.metrics import Slot
from tbfast.config import Series
from tbfast.control.sealer import SealService
from tbfast.control.tail import TailService
from tbfast.store.series import SeriesStore

pytestmark = pytest.mark.bench

START_MS = 1_764_000_000_000
BLOCK_BYTES = 65_536
MANY = int(os.environ.get("TBFAST_TEST_BENCH_SERIES", "1000000"))


class Node:
    """Tail, sealer and store, fed with blocks."""

    def __init__(self, root: Path, **settings: int) -> None:
        self.root = root
        chosen = Series(**settings)
        self.store = SeriesStore(root, join_runs=chosen.join_runs)
        self.tail = TailService(Slot(), head_bytes=1 << 30)
        self.sealer = SealService(
            self.tail,
            self.store,
            Slot(),
            chosen,
            on_run=lambda cursors: None,
            on_broken=lambda error: None,
        )
        self._ingest = Ingest()
        self._seq = 0
        self._keys = 0

    def blocks(self, messages: Iterator[tuple[int, str]]) -> list[bytes]:
        """Messages (device, JSON) as a worker's journal would have them."""
        found = []
        self._ingest.at(START_MS, 0)
        for device, text in messages:
            self._ingest.append_json(device, text.encode())
            if self._ingest.rows_bytes >= BLOCK_BYTES:
                found.append(self._block())
        if self._ingest.rows_bytes:
            found.append(self._block())
        return found

    def _block(self) -> bytes:
        self._ingest.note(0, 0, 0)
        self._seq += 1
        group = self._ingest.take(0, 1, self._seq, START_MS, self._keys + 1)
        self._keys = max(self._keys, group.last_key)
        block = bytes(group.value)
        self._ingest.recycle(group)
        return block

    def take(self, blocks: list[bytes]) -> None:
        for block in blocks:
            self.tail.apply(block)

    def seal(self) -> None:
        assert asyncio.run(self.sealer.seal()) is not None

    def disk_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.root.glob("*.sst"))

    def close(self) -> None:
        self.sealer.close()
        self.store.close()


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "series"
    shutil.rmtree(tmp_path / "series", ignore_errors=True)


def stepped(rng: random.Random, devices: int, keys: int, points: int) -> Iterator[tuple[int, str]]:
    """All devices in turn send a message of all keys, so many times."""
    for point in range(points):
        for device in range(1, devices + 1):
            values = ",".join(f'"k{key}":{rng.randrange(2000, 2200) / 100}' for key in range(keys))
            ts = START_MS + point * 10_000 + device % 1000
            yield device, f'{{"ts":{ts},"values":{{{values}}}}}'


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("devices", "keys", "points"),
    [(MANY, 1, 1), (MANY // 10, 10, 1), (MANY // 100, 10, 10), (MANY // 1000, 10, 100)],
)
def test_seal(root: Path, devices: int, keys: int, points: int) -> None:
    """The third run of a node: series are known, and memory is warm from a run of its size."""
    node = Node(root)
    before_bytes = rss_bytes()
    rng = random.Random(7)
    first = node.blocks(stepped(rng, devices, keys, 1))
    empty_bytes = rss_bytes()
    node.take(first)
    held_bytes = rss_bytes()
    node.seal()
    after_bytes = rss_bytes()
    node.take(node.blocks(stepped(rng, devices, keys, points)))
    node.seal()
    blocks = node.blocks(stepped(rng, devices, keys, points))
    count = devices * keys * points
    begun = cpu_s()
    node.take(blocks)
    taken = cpu_s()
    wall = time.monotonic()
    node.seal()
    ended, wall = cpu_s(), time.monotonic() - wall
    series = devices * keys
    print(
        f"\n{devices:8} devices x {keys} keys x {points} points: all in "
        f"{(ended - begun) / count * 1e9:6.0f} ns/pt (tail {(taken - begun) / count * 1e9:4.0f}, "
        f"seal {(ended - taken) / count * 1e9:4.0f}, wall {wall / count * 1e9:4.0f}) | RSS "
        f"{(held_bytes - empty_bytes) / series:4.0f} B a series with its row, "
        f"{(after_bytes - before_bytes) / 1e6:4.0f} MB grown by the first run",
        end="",
    )
    node.close()


def test_baseline_row_per_key(root: Path) -> None:
    """The named baseline: a key and 9 bytes a point, batches of 1000."""
    root.mkdir()
    db = Rdict(str(root), Options(raw_mode=True))
    rng = random.Random(7)
    count = MANY // 5
    begun = cpu_s()
    for start in range(0, count, 1000):
        batch = WriteBatch(raw_mode=True)
        for n in range(start, start + 1000):
            key = struct.pack(">QIq", n % 1000, 1, START_MS + n)
            batch.put(key, struct.pack("<d", rng.random()))
        db.write(batch)
    db.flush(True)
    print(f"\nrow per key: {(cpu_s() - begun) / count * 1e9:6.0f} ns/pt", end="")
    db.close()


def walk(rng: random.Random, device: int, n: int) -> str:
    return f"{21 + (rng.randrange(-9, 10) + (n * 7 + device) % 40) / 100:.2f}"


def counter(rng: random.Random, device: int, n: int) -> str:
    return str(7_000_000 + 12 * n + device)


def boolean(rng: random.Random, device: int, n: int) -> str:
    return "true" if n // 50 % 2 else "false"


KINDS: dict[str, Callable[[random.Random, int, int], str]] = {
    "walk": walk,
    "counter": counter,
    "boolean": boolean,
}
RUNS = 64
DEVICES = 500


@pytest.mark.timeout(600)
@pytest.mark.parametrize("points", [1, 6, 60])  # of a run: every 10 min, 100 s, 10 s
@pytest.mark.parametrize("kind", [*KINDS, "message of 3"])
def test_join_size(root: Path, kind: str, points: int) -> None:
    kinds = [*KINDS] if kind not in KINDS else [kind]
    rng = random.Random(7)
    node = Node(root, join_runs=RUNS)
    step_ms = 600_000 // points
    for run in range(RUNS):
        messages = []
        for device in range(1, DEVICES + 1):
            for n in range(run * points, (run + 1) * points):
                values = ",".join(f'"{k}":{KINDS[k](rng, device, n)}' for k in kinds)
                ts = (
                    START_MS + n * step_ms + rng.randint(-5, 5) * (kind in ("walk", "message of 3"))
                )
                messages.append((device, f'{{"ts":{ts},"values":{{{values}}}}}'))
        node.take(node.blocks(iter(messages)))
        node.seal()
    count = RUNS * DEVICES * points * len(kinds)
    before = node.disk_bytes(), node.store.windows()[0].chunk_bytes
    begun, wall = cpu_s(), time.monotonic()
    assert asyncio.run(node.sealer.upkeep.join()) == 1
    spent, wall = cpu_s() - begun, time.monotonic() - wall
    after = node.disk_bytes(), node.store.windows()[0].chunk_bytes
    assert node.store.windows()[0].points == count
    print(
        f"\n{kind:12} {points:3} a run: on disk {before[0] / count:6.2f} -> "
        f"{after[0] / count:5.2f} B/pt (chunks {before[1] / count:6.2f} -> "
        f"{after[1] / count:5.2f}), joining {spent / count * 1e9:5.0f} ns/pt, "
        f"{spent / (RUNS * DEVICES) * 1e6:4.1f} us a small chunk",
        end="",
    )
    node.close()
