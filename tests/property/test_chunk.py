"""Series chunks: every point comes back to the last bit, and damage is always noticed."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.chunk import aggregate, count_points, decode, describe, encode
from tbfast.errors import StoreError
from tests.support import oracle_chunk
from tests.support.chunk_columns import Column, bits, long_columns, short_columns
from tests.support.rows import crc32c

SEEDS = st.integers(0, 2**32)


def check(columns: list[Column]) -> None:
    data = encode(columns)
    assert bits(decode(data)) == bits(columns)
    assert bits(oracle_chunk.decode(data)) == bits(columns)
    heads = describe(data)
    assert [h[0] for h in heads] == [key for key, _ in columns]
    for head, (_, points) in zip(heads, columns, strict=True):
        assert head[2:5] == (len(points), points[0][0], points[-1][0])


@given(st.lists(short_columns(), min_size=1, max_size=4))
def test_short_columns(columns: list[Column]) -> None:
    check(columns)


@given(SEEDS, st.integers(1, 700), st.integers(1, 4))
def test_long_columns(seed: int, n: int, count: int) -> None:
    check(long_columns(seed, n, count))


@given(SEEDS, st.integers(1, 400), st.data())
def test_range(seed: int, n: int, data: st.DataObject) -> None:
    columns = long_columns(seed, n, 2)
    stamps = sorted({ts for _, points in columns for ts, _, _ in points})
    near = st.sampled_from(stamps).flatmap(lambda ts: st.integers(ts - 1, ts + 1))
    first, last = sorted([data.draw(near), data.draw(near)])
    chunk = encode(columns)
    expected = [(key, [p for p in points if first <= p[0] <= last]) for key, points in columns]
    assert bits(decode(chunk, first_ms=first, last_ms=last)) == bits(expected)
    assert count_points(chunk, first_ms=first, last_ms=last) == sum(len(p) for _, p in expected)


@given(st.one_of(st.lists(short_columns(), min_size=1, max_size=2)), SEEDS, st.integers(1, 255))
def test_one_damaged_byte_is_noticed(columns: list[Column], place: int, flip: int) -> None:
    data = bytearray(encode(columns))
    data[place % len(data)] ^= flip
    with pytest.raises(StoreError):
        decode(bytes(data))


@given(SEEDS, st.integers(1, 200))
def test_cut_anywhere(seed: int, n: int) -> None:
    data = encode(long_columns(seed, n, 2))
    for length in range(0, len(data), 1 if len(data) < 300 else 7):
        with pytest.raises(StoreError):
            decode(data[:length])


@given(SEEDS, st.integers(1, 300), st.lists(st.tuples(SEEDS, st.integers(1, 255)), max_size=4))
def test_damage_under_a_right_checksum(seed: int, n: int, damage: list[tuple[int, int]]) -> None:
    """A writer's bug, not the disk's: refused or read as something, never beyond the chunk."""
    data = bytearray(encode(long_columns(seed, n, 2)))
    for place, flip in damage:
        data[5 + place % (len(data) - 5)] ^= flip
    data[1:5] = crc32c(bytes(data[:1] + data[5:])).to_bytes(4, "little")
    try:
        heads = describe(bytes(data))
        assert count_points(bytes(data)) == sum(points for _, _, points, *_ in heads)
    except StoreError:
        pass


@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode(data)


def fraction(name: str, value: int | tuple[int, int]) -> Fraction:
    return Fraction(value[0], 10 ** value[1]) if isinstance(value, tuple) else Fraction(value)


NUMBERS = st.one_of(
    st.tuples(st.just("INT64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(
        st.just("DECIMAL"),
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 18)),
    ),
    st.tuples(st.just("DECIMAL"), st.tuples(st.integers(-999, 999), st.integers(1, 2))),
)


@given(st.lists(NUMBERS, min_size=1, max_size=15))
def test_exact_aggregates(values: list[tuple[str, int | tuple[int, int]]]) -> None:
    points = [(i, *v) for i, v in enumerate(values)]
    result = aggregate(encode([(1, points)]), 1)
    assert result is not None
    assert result["count"] == result["numbers"] == len(values)
    exact = [fraction(*v) for v in values]
    assert fraction(*result["min"]) == min(exact)
    assert fraction(*result["max"]) == max(exact)
    name, total = result["sum"]
    if name == "DOUBLE":
        assert total == pytest.approx(float(sum(exact)), rel=1e-14, abs=0)
    else:
        assert fraction(name, total) == sum(exact)
    assert result["avg"] == pytest.approx(float(sum(exact) / len(exact)), rel=1e-14, abs=0)
