"""Framing and reading journal blocks, against the same rows as struct-packed tuples in Python."""

import struct

import pytest

from tbfast._ext.batch import Batch
from tbfast._ext.scan import RangeScan
from tbfast._ext.tail import Tail
from tbfast._ext.tbjson import append_telemetry

pytestmark = pytest.mark.bench

MESSAGES = 1_000
PAYLOAD = b'{"temperature":21.5,"humidity":60,"ok":true}'
POINTS = 3 * MESSAGES


def filled_batch() -> Batch:
    """A group of 1,000 messages of 50 devices."""
    batch = Batch()
    batch.clear(1_700_000_000_000)
    for number in range(MESSAGES):
        append_telemetry(batch, number % 50 + 1, PAYLOAD, 1_700_000_000_000 + number)
    return batch


def rows_in_python() -> list[tuple[int, int, int, float]]:
    return [(n % 50 + 1, k, 1_700_000_000_000 + n, 21.5) for n in range(MESSAGES) for k in range(3)]


def test_bench_frame_block(benchmark):
    batch = filled_batch()
    block = benchmark(lambda: batch.to_block(0, 1, 1, 0, 1))
    benchmark.extra_info["bytes_per_point"] = round(len(block) / POINTS, 2)


def test_bench_baseline_pack_rows(benchmark):
    rows = rows_in_python()
    pack = struct.Struct("<QIqd").pack
    benchmark(lambda: b"".join(pack(*row) for row in rows))


def test_bench_scan_one_device(benchmark):
    block = filled_batch().to_block(0, 1, 1, 0, 1)

    def scan() -> bytes:
        reader = RangeScan(7, None, limit=100)
        reader.feed(block)
        return reader.to_json()

    assert benchmark(scan).startswith(b"{")


def test_bench_baseline_scan_rows(benchmark):
    unpack = struct.Struct("<QIqd").iter_unpack
    data = b"".join(struct.pack("<QIqd", *row) for row in rows_in_python())
    benchmark(lambda: [row for row in unpack(data) if row[0] == 7])


def test_bench_tail_apply(benchmark):
    block = filled_batch().to_block(0, 1, 1, 0, 1)
    tail = Tail()
    benchmark(lambda: tail.apply(block))
