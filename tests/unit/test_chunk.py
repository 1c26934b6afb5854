"""Series chunks: golden bytes, refusals one by one, aggregates."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tbfast._ext.chunk import ChunkWriter, Columns, aggregate, count_points, decode, encode
from tbfast.errors import LocalError, StoreError
from tests.support import oracle_chunk
from tests.support.chunk_columns import Column, bits
from tests.support.chunk_vectors import ChunkVector, load
from tests.support.rows import crc32c

VECTORS = load()
T = 1_764_000_000_000


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_golden_bytes(vector: ChunkVector) -> None:
    assert encode(vector.columns) == vector.data
    assert bits(decode(vector.data)) == bits(vector.columns)
    assert bits(oracle_chunk.decode(vector.data)) == bits(vector.columns)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v.name)
def test_every_bit_and_every_cut_is_noticed(vector: ChunkVector) -> None:
    for at in range(len(vector.data)):
        with pytest.raises(StoreError):
            decode(vector.data[:at])
        for bit in range(8):
            damaged = bytearray(vector.data)
            damaged[at] ^= 1 << bit
            with pytest.raises(StoreError):
                decode(bytes(damaged))


def test_bytes_do_not_depend_on_the_seed() -> None:
    columns = [(1, [(i, "STRING", f"state-{i % 90}") for i in range(500)])]
    assert len({Columns(columns).encode(ChunkWriter(bytes([n] * 16))) for n in range(8)}) == 1


def test_newer_version_is_said_so() -> None:
    data = bytearray(encode([(1, [(1, "INT64", 1)])]))
    data[0] = 0xC2
    with pytest.raises(StoreError, match="newer"):
        decode(bytes(data))


# ---- what a chunk with a right checksum may not say ----


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def zigzag(value: int) -> bytes:
    return varint(value << 1 ^ value >> 63)


def sealed(columns: int, body: bytes) -> bytes:
    rest = varint(columns) + body
    return b"\xc1" + crc32c(b"\xc1" + rest).to_bytes(4, "little") + rest


def times(n: int, first: int, span: int | None = None, blocks: bytes | None = None) -> bytes:
    out = varint(n) + zigzag(first)
    out += varint(span) if span is not None else b""
    return out + (varint(len(blocks)) + blocks if blocks is not None else b"")


def column(stamps: bytes, kind: int, values: bytes, *, back: int = 0) -> bytes:
    return b"\x07" + varint(back) + stamps + bytes([kind]) + varint(len(values)) + values


ONE = times(1, 5)
THREE = times(3, 5, 2, b"\x01\x02")  # DELTA, base 1, no bits
HALF = 15 << 3  # a head: LAST, width 15
GOOD = {
    "one point": column(ONE, 0, b"\x08"),
    "three points": column(THREE, 0, b"\x08\x01\x02"),
    "dictionary": column(THREE, 0x16, b"\x02\x01a\x01b\x08\x00\x02"),
    "largest scale": column(ONE, 1, b"\x40\x08"),
    "last millisecond": column(times(2, 2**63 - 2, 1), 5, b"\x00\x02"),
}
BAD = {
    "no points": column(times(0, 5), 0, b"\x08"),
    "too many points": column(times(2**20 + 1, 5, 2**20, b"\1\2" * 9000), 0, b"\0" * 20000),
    "more points than its bytes can hold": column(times(9999, 5, 9998, b"\x01\x02"), 0, b"\x08"),
    "too few values": column(times(256, 5, 255, b"\x01\x02\x01\x00"), 5, b"\x00\x00"),
    "end of time beyond int64": column(times(2, 2**63 - 1, 1), 5, b"\x00\x00"),
    "span too short": column(times(3, 5, 1, b"\x01\x02"), 0, b"\x08\x01\x02"),
    "times stand still": column(times(3, 5, 2, b"\x01\x00"), 0, b"\x08\x01\x02"),
    "times go back": column(times(3, 5, 2, b"\x09\x01\x03"), 0, b"\x08\x01\x02"),
    "last time is not the one promised": column(times(3, 5, 3, b"\x01\x02"), 0, b"\x08\x01\x02"),
    "bytes after the times": column(times(3, 5, 2, b"\x01\x02\x00"), 0, b"\x08\x01\x02"),
    "bytes after the values": column(ONE, 0, b"\x08\x00"),
    "no values": column(ONE, 0, b""),
    "times before the first column": column(b"", 0, b"\x08", back=3),
    "times in itself": column(b"", 0, b"\x08", back=1),
    "unknown kind": column(ONE, 10, b"\x08"),
    "unknown flag": column(ONE, 0x20, b"\x08"),
    "dictionary of numbers": column(ONE, 0x10, b"\x08"),
    "scale above 64": column(ONE, 1, b"\x41\x08"),
    "common scale above 18": column(ONE, 2, b"\x13\x00\x08"),
    "floor above the scale": column(ONE, 2, b"\x01\x02\x08"),
    "scale missing": column(ONE, 9, b"\x01"),
    "form above 65": column(ONE, 3, b"\x00\x84\x01\x08"),
    "mixed numbers of a kind that is none": column(ONE, 9, b"\x04\x00\x00\x08"),
    "class above BYTES": column(ONE, 9, b"\x00\x00\x0e\x08"),
    "class below zero": column(ONE, 9, b"\x00\x00\x01\x08"),
    "boolean 2": column(ONE, 5, b"\x00\x04"),
    "empty dictionary": column(ONE, 0x16, b"\x00\x00\x00"),
    "dictionary of 257": column(ONE, 0x16, b"\x81\x02" + b"\x01a" * 257 + b"\x00\x00"),
    "dictionary cut short": column(ONE, 0x16, b"\x02\x01a\x09b"),
    "index beyond the dictionary": column(ONE, 0x16, b"\x01\x01a\x00\x02"),
    "index below zero": column(ONE, 0x16, b"\x01\x01a\x00\x01"),
    "text longer than the rest": column(ONE, 6, b"\x05abcd"),
    "not UTF-8": column(ONE, 6, b"\x01\xff"),
    "packed values cut short": column(THREE, 0, bytes([8, HALF, 0, 1, 2, 3])),
    "exception behind the block": column(THREE, 0, b"\x08\x05\x02\x01\x02\x01"),
    "more exceptions than bytes": column(THREE, 0, b"\x08\x05\x02\xff\x00\x01"),
    "more exceptions than values": column(THREE, 0, b"\x08\x05\x02\x03\x00\x00\x00\x01\x01\x01"),
    "exceptions of 64 bits": column(THREE, 0, b"\x08\xfd\x02\x01\x00\x01" + b"\0" * 16),
    "double of mode 3": column(ONE, 4, b"\x03" + b"\0" * 10),
    "double of exponent 11": column(ONE, 4, bytes([11 << 3 | 1, 8])),
    "double without its first value": column(ONE, 4, b"\x00" + b"\0" * 7),
    "double of 57 bits": column(ONE, 4, b"\x00" + b"\0" * 9 + b"\x39"),
    "double shifted out": column(ONE, 4, b"\x00" + b"\0" * 8 + b"\x21\x20"),
    "double exception behind the block": column(ONE, 4, b"\x05\x01\x01" + b"\0" * 8 + b"\x08"),
    "double exceptions cut short": column(ONE, 4, b"\x05\x02\x00" + b"\0" * 8),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_hand_made_chunks_are_read(name: str) -> None:
    data = sealed(1, GOOD[name])
    assert bits(decode(data)) == bits(oracle_chunk.decode(data))


@pytest.mark.parametrize("name", BAD)
def test_refused_with_a_right_checksum(name: str) -> None:
    with pytest.raises(StoreError):
        decode(sealed(1, BAD[name]))


@pytest.mark.parametrize("promised", [0, 1, 3, 2**32])
def test_columns_promised_and_there(promised: int) -> None:
    two = GOOD["one point"] + GOOD["three points"]
    assert len(decode(sealed(2, two))) == 2
    with pytest.raises(StoreError):
        decode(sealed(promised, two))


# ---- what the writer refuses ----


@pytest.mark.parametrize(
    "columns",
    [
        [],
        [(1, [])],
        [(1, [(5, "INT64", 1), (5, "INT64", 2)])],
        [(1, [(5, "INT64", 1), (4, "INT64", 2)])],
        [(1, [(5, "DECIMAL", (1, 65))])],
        [(1, [(5, "FLOAT", 1.0)])],
    ],
    ids=["no column", "no point", "same time", "time goes back", "scale 65", "type"],
)
def test_writer_refuses(columns: list[Column]) -> None:
    with pytest.raises(LocalError):
        encode(columns)


def test_largest_column_and_one_above() -> None:
    largest = 1 << 20
    points = [(i, "BOOL", True) for i in range(largest)]
    data = encode([(1, points)])
    assert len(data) < largest // 20
    assert count_points(data) == largest
    assert decode(data, first_ms=largest - 1) == [(1, points[-1:])]
    with pytest.raises(LocalError):
        encode([(1, [*points, (largest, "BOOL", True)])])


def test_buffer_grows_to_what_is_needed() -> None:
    rng = random.Random(3)
    texts = [rng.randbytes(40_000).hex() for _ in range(5)]
    columns: list[Column] = [(1, [(i, "STRING", t) for i, t in enumerate(texts)])]
    assert decode(encode(columns)) == columns


def test_times_are_shared_among_the_last_32_only() -> None:
    """More different times than are remembered: written again, read the same."""
    columns: list[Column] = [
        (key, [(T + key % 40 + i * 1_000, "INT64", i) for i in range(5)]) for key in range(120)
    ]
    assert decode(encode(columns)) == columns


# ---- sizes: the promise of at most two bytes a number ----


def jittered(n: int) -> list[int]:
    rng = random.Random(7)
    return [T + i * 1_000 + rng.randint(-5, 5) for i in range(n)]


def walk(n: int, step: int) -> list[int]:
    rng, value, out = random.Random(7), 2_150, []
    for _ in range(n):
        value += rng.randint(-step, step)
        out.append(value)
    return out


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ([("DECIMAL", (m, 1)) for m in walk(64, 3)], 1.5),
        ([("DECIMAL", (m, 2)) for m in walk(64, 20)], 2),
        ([("DOUBLE", m / 100) for m in walk(64, 20)], 2),
        ([("INT64", m) for m in walk(64, 3)], 1.5),
    ],
)
def test_bytes_a_point(values: Sequence[tuple[str, Any]], most: float) -> None:
    points = [(ts, *v) for ts, v in zip(jittered(64), values, strict=True)]
    assert len(encode([(1, points)])) <= most * 64


@pytest.mark.parametrize("name", ["INT64", "BOOL"])
def test_bytes_of_a_counter_and_a_flag_at_a_fixed_interval(name: str) -> None:
    values = [10**9 + 12 * i if name == "INT64" else i % 2 == 0 for i in range(64)]
    points = [(T + i * 10_000, name, v) for i, v in enumerate(values)]
    assert len(encode([(1, points)])) <= 64


def test_one_gap_does_not_widen_the_other_times() -> None:
    late = [ts + (3_600_000 if i > 20 else 0) for i, ts in enumerate(jittered(64))]
    without, with_gap = (
        len(encode([(1, [(ts, "INT64", 0) for ts in stamps])])) for stamps in (jittered(64), late)
    )
    assert with_gap <= without + 16


# ---- aggregates ----


def aggregated(*values: tuple[str, Any]) -> dict[str, Any]:
    result = aggregate(encode([(1, [(i, *v) for i, v in enumerate(values)])]), 1)
    assert result is not None
    return result


def test_min_and_max_come_as_they_were_stored() -> None:
    result = aggregated(("INT64", 21), ("DECIMAL", (2150, 2)), ("DECIMAL", (205, 1)))
    assert result["min"] == ("DECIMAL", (205, 1))
    assert result["max"] == ("DECIMAL", (2150, 2))
    assert result["sum"] == ("DECIMAL", (6300, 2))
    assert result["avg"] == 21.0


def test_texts_and_nan_count_and_do_no_more() -> None:
    result = aggregated(
        ("STRING", "x"), ("BOOL", True), ("DOUBLE", math.nan), ("DOUBLE", 1.5), ("INT64", 2)
    )
    assert (result["count"], result["numbers"]) == (5, 2)
    assert (result["min"], result["max"]) == (("DOUBLE", 1.5), ("INT64", 2))
    assert (result["sum"], result["avg"]) == (("DOUBLE", 3.5), 1.75)


def test_no_numbers() -> None:
    result = aggregated(("STRING", "x"))
    assert result["count"] == 1
    assert all(result[name] is None for name in ("min", "max", "sum", "avg"))
    assert aggregate(encode([(1, [(0, "INT64", 1)])]), 2) is None


def test_sum_beyond_int64_and_beyond_128_bits() -> None:
    big = 2**63 - 1
    assert aggregated(("INT64", big), ("INT64", 1))["sum"] == ("DOUBLE", 2.0**63)
    values = [("INT64", big)] * 40 + [("DECIMAL", (5, 18))]
    result = aggregated(*values)
    assert result["numbers"] == 41
    assert result["sum"] == ("DOUBLE", pytest.approx(40.0 * big, rel=1e-15))
    assert result["max"] == ("DOUBLE", float(big))
    assert result["min"] == ("DECIMAL", (5, 18))


def test_doubles_are_summed_without_losing_the_small_ones() -> None:
    result = aggregated(("DOUBLE", 1e16), *[("DOUBLE", 0.1)] * 10, ("DOUBLE", -1e16))
    assert result["avg"] * 12 == pytest.approx(1.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_infinities(sign: int) -> None:
    result = aggregated(("DOUBLE", sign * math.inf), ("DOUBLE", 1.0), ("DOUBLE", 2.0))
    assert result["sum"] == ("DOUBLE", sign * math.inf)


def test_aggregate_of_a_range() -> None:
    points = [(i, "INT64", i) for i in range(1_000)]
    result = aggregate(encode([(9, points)]), 9, first_ms=100, last_ms=199)
    assert result is not None
    assert (result["count"], result["min"], result["max"]) == (100, ("INT64", 100), ("INT64", 199))
    assert result["sum"] == ("INT64", sum(range(100, 200)))
