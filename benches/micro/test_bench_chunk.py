"""Series chunks: bytes and nanoseconds a point.

    python -m pytest benches/micro/test_bench_chunk.py -o python_files='test_bench_*.py' \
        --benchmark-enable -s

Every row is one device's chunk with its times.  Baselines over the same points: 16 bytes a point
(ts and double), that under zlib level 1, and Parquet with zstd where pyarrow is installed.  The
codec's own figure is before RocksDB's zstd; "zlib" shows what a general compressor still finds.
"""

import io
import json
import math
import random
import struct
import zlib
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tbfast._ext.chunk import ChunkWriter, Columns, count_points, decode

Points = list[tuple[int, str, object]]
Case = list[tuple[int, Points]]

START = 1_764_000_000_000
ROUNDS = 20


def jittered(n: int, rng: random.Random) -> list[int]:
    """1 Hz by a clock that is right, read 5 ms early to 5 ms late."""
    return [START + i * 1_000 + rng.randint(-5, 5) for i in range(n)]


def drifting(n: int, rng: random.Random) -> list[int]:
    """Sleeps 1 s after the work: lateness adds up."""
    ts, out = START, []
    for _ in range(n):
        ts += 1_000 + rng.randint(0, 5)
        out.append(ts)
    return out


def events(n: int, rng: random.Random) -> list[int]:
    """Poisson, one in 30 s."""
    ts, out = START, []
    for _ in range(n):
        ts += 1 + int(rng.expovariate(1 / 30_000))
        out.append(ts)
    return out


def exact(n: int, rng: random.Random) -> list[int]:
    return [START + i * 10_000 for i in range(n)]


def walk(n: int, rng: random.Random, start: int, step: int) -> list[int]:
    out, value = [], start
    for _ in range(n):
        value += rng.randint(-step, step)
        out.append(value)
    return out


def shortest(mantissa: int, scale: int) -> tuple[str, object]:
    """As JavaScript prints it: no trailing zeros."""
    while scale > 0 and mantissa % 10 == 0:
        mantissa, scale = mantissa // 10, scale - 1
    return ("DECIMAL", (mantissa, scale)) if scale else ("INT64", mantissa)


def decimals(n: int, rng: random.Random, scale: int, step: int) -> list[tuple[str, object]]:
    return [("DECIMAL", (m, scale)) for m in walk(n, rng, 21 * 10**scale, step)]


def series(key: int, ts: list[int], values: list[tuple[str, object]]) -> tuple[int, Points]:
    return key, [(t, name, value) for t, (name, value) in zip(ts, values, strict=True)]


def messages_of_three(n: int, rng: random.Random) -> Case:
    """Temperature, humidity and a flag in each message."""
    ts = jittered(n, rng)
    return [
        series(1, ts, decimals(n, rng, 1, 3)),
        series(2, ts, decimals(n, rng, 2, 20)),
        series(3, ts, [("BOOL", i // 40 % 2 == 0) for i in range(n)]),
    ]


def gps(n: int, rng: random.Random) -> Case:
    """Two coordinates with 6 decimals, walking pace, and a speed."""
    ts = jittered(n, rng)
    lat, lon, course = 52_520_008, 13_404_954, 0.0
    rows = []
    for _ in range(n):
        course += rng.uniform(-0.2, 0.2)
        lat += round(12 * math.cos(course)) + rng.randint(-1, 1)
        lon += round(20 * math.sin(course)) + rng.randint(-1, 1)
        rows.append((lat, lon, 14 + rng.randint(-2, 2)))
    return [
        series(1, ts, [shortest(a, 6) for a, _, _ in rows]),
        series(2, ts, [shortest(b, 6) for _, b, _ in rows]),
        series(3, ts, [shortest(s, 1) for _, _, s in rows]),
    ]


def states(n: int, rng: random.Random) -> Case:
    names = ["RUNNING", "IDLE", "STARVED", "BLOCKED", "FAULT"]
    return [series(1, events(n, rng), [("STRING", rng.choice(names)) for _ in range(n)])]


def documents(n: int, rng: random.Random) -> Case:
    values = [
        ("JSON", json.dumps({"axis": i % 3, "rms": round(rng.gauss(2, 0.1), 3), "ok": True}))
        for i in range(n)
    ]
    return [series(1, jittered(n, rng), values)]


def float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


CASES: dict[str, Callable[[int, random.Random], Case]] = {
    "walk-1-decimal": lambda n, r: [series(1, jittered(n, r), decimals(n, r, 1, 3))],
    "walk-2-decimals": lambda n, r: [series(1, jittered(n, r), decimals(n, r, 2, 9))],
    "walk-2-decimals-drifting-clock": lambda n, r: [
        series(1, drifting(n, r), decimals(n, r, 2, 9))
    ],
    "walk-2-decimals-events": lambda n, r: [series(1, events(n, r), decimals(n, r, 2, 9))],
    "walk-2-decimals-javascript": lambda n, r: [
        series(1, jittered(n, r), [shortest(m, 2) for m in walk(n, r, 2_100, 9)])
    ],
    "noise-2-decimals": lambda n, r: [
        series(1, jittered(n, r), [("DECIMAL", (round(r.gauss(2_300, 30)), 2)) for _ in range(n)])
    ],
    "messages-of-3-keys": messages_of_three,
    "counter-exact-interval": lambda n, r: [
        series(1, exact(n, r), [("INT64", 7_000_000 + 12 * i) for i in range(n)])
    ],
    "counter-uneven": lambda n, r: [
        series(1, exact(n, r), [("INT64", 7_000_000 + 12 * i + r.randint(0, 9)) for i in range(n)])
    ],
    "boolean-exact-interval": lambda n, r: [
        series(1, exact(n, r), [("BOOL", i // 50 % 2 == 0) for i in range(n)])
    ],
    "boolean-random": lambda n, r: [
        series(1, exact(n, r), [("BOOL", r.random() < 0.5) for _ in range(n)])
    ],
    "gps": gps,
    "states": states,
    "json": documents,
    "double-of-2-decimals": lambda n, r: [
        series(1, jittered(n, r), [("DOUBLE", m / 100) for m in walk(n, r, 2_100, 9)])
    ],
    "float32-of-1-decimal": lambda n, r: [
        series(1, jittered(n, r), [("DOUBLE", float32(m / 10)) for m in walk(n, r, 210, 3)])
    ],
    "float32-any": lambda n, r: [
        series(1, jittered(n, r), [("DOUBLE", float32(r.gauss(20, 1))) for _ in range(n)])
    ],
    "double-any": lambda n, r: [
        series(1, jittered(n, r), [("DOUBLE", r.gauss(20, 1)) for _ in range(n)])
    ],
}


def plain_number(type_name: str, value: object) -> float:
    if type_name == "DECIMAL":
        assert isinstance(value, tuple)
        return float(value[0]) / 10 ** int(value[1])
    return float(value) if isinstance(value, (bool, int, float)) else 0.0


def plain(columns: Case) -> bytes:
    """Times, then values, of each column; texts with a length."""
    out = b""
    for _, points in columns:
        out += b"".join(struct.pack("<q", ts) for ts, _, _ in points)
        for _, name, value in points:
            if isinstance(value, str):
                out += struct.pack("<I", len(value)) + value.encode()
            else:
                out += struct.pack("<d", plain_number(name, value))
    return out


def parquet_bytes(columns: Case) -> int | None:
    """Size of a Parquet file of the same columns, zstd, without the footer's fixed part."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None

    def size(rows: int) -> int:
        table = {"ts": pa.array([ts for ts, _, _ in columns[0][1][:rows]], pa.int64())}
        for key, points in columns:
            values = [v if isinstance(v, str) else plain_number(t, v) for _, t, v in points[:rows]]
            table[str(key)] = pa.array(values)
        sink = io.BytesIO()
        pq.write_table(pa.table(table), sink, compression="zstd")
        return sink.tell()

    return size(len(columns[0][1])) - size(0)


@pytest.mark.parametrize("points", [13, 64, 1_000, 10_000])
@pytest.mark.parametrize("name", CASES)
def test_chunk_size(name: str, points: int) -> None:
    columns = CASES[name](points, random.Random(7))
    total = points * len(columns)
    data = Columns(columns).encode(ChunkWriter())
    assert decode(data) == columns
    raw = plain(columns)
    parquet = parquet_bytes(columns)
    print(
        f"\n{name:32} {points:6} x {len(columns)}: {len(data) / total:6.2f} B/pt,"
        f" zlib {len(zlib.compress(data, 6)) / total:6.2f} |"
        f" plain {len(raw) / total:6.2f}, zlib {len(zlib.compress(raw, 1)) / total:6.2f}"
        + (f" | Parquet zstd {parquet / total:6.2f}" if parquet is not None else ""),
        end="",
    )


def report(benchmark: BenchmarkFixture, points: int) -> None:
    if benchmark.stats is None:  # --benchmark-disable: the code ran once as a test
        return
    ns = benchmark.stats["min"] / points * 1e9
    benchmark.extra_info["ns_per_point"] = round(ns, 2)
    print(f"\n{benchmark.name}: {benchmark.extra_info}", end="")


@pytest.mark.parametrize("name", CASES)
def test_encode(benchmark: BenchmarkFixture, name: str) -> None:
    columns = CASES[name](4_000, random.Random(7))
    prepared, writer = Columns(columns), ChunkWriter()
    assert benchmark.pedantic(prepared.encode, args=(writer,), rounds=ROUNDS, warmup_rounds=2)
    report(benchmark, 4_000 * len(columns))


@pytest.mark.parametrize("name", CASES)
def test_decode(benchmark: BenchmarkFixture, name: str) -> None:
    columns = CASES[name](4_000, random.Random(7))
    data = Columns(columns).encode(ChunkWriter())
    points = 4_000 * len(columns)
    assert benchmark.pedantic(count_points, args=(data,), rounds=ROUNDS, warmup_rounds=2) == points
    report(benchmark, points)
