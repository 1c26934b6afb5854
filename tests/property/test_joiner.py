"""Joined chunks against plain dictionaries, and the joiner against chunks that are not well."""

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.chunk import decode, encode
from tbfast._ext.deleted import Deleted
from tbfast._ext.joiner import Joiner
from tbfast.errors import StoreError
from tbfast.store.series_files import CHUNK_KEY
from tests.support.chunk_columns import Column, bits, long_columns, short_columns
from tests.support.rows import crc32c

DEVICE = 7
Chunks = list[tuple[int, bytes, bytes]]  # run, key, chunk
NAMES = {key: b"k%d" % key for key in range(8)}


def join(chunks: Chunks, deleted: Deleted | None = None) -> list[tuple[bytes, bytes]]:
    joiner = Joiner()
    joiner.begin(DEVICE, NAMES, deleted)
    for run, key, chunk in chunks:
        joiner.add(run, key, chunk)
    out = joiner.take()
    assert joiner.totals.nbytes == sum(len(chunk) for _, chunk in out)
    assert joiner.totals.points == sum(len(p) for _, c in out for _, p in decode(c))
    return out


def as_chunk(run: int, columns: list[Column]) -> tuple[int, bytes, bytes]:
    return run, CHUNK_KEY.pack(DEVICE, 0, run), encode(columns)


def merged(runs: list[list[Column]], gone: Any = lambda run, key, ts: False) -> list[Column]:
    found: dict[int, dict[int, Any]] = {}
    for run, columns in enumerate(runs, 1):
        for key, points in columns:
            for point in points:
                if not gone(run, key, point[0]):
                    found.setdefault(key, {})[point[0]] = point
    return [(key, [points[ts] for ts in sorted(points)]) for key, points in sorted(found.items())]


def read(chunks: list[tuple[bytes, bytes]], run: int) -> list[Column]:
    assert [key for key, _ in chunks] == sorted(key for key, _ in chunks)
    columns: list[Column] = []
    for key, chunk in chunks:
        device, number, written = CHUNK_KEY.unpack(key)
        assert (device, written) == (DEVICE, run)
        held = decode(chunk)
        assert number == 0 or {key for key, _ in held} == {number}
        columns += held
    return sorted(columns)


def distinct(columns: list[Column]) -> list[Column]:
    """One column of each key, keys small."""
    return list({key % 8: (key % 8, points) for key, points in columns}.values())


RUNS = st.lists(
    st.lists(short_columns(), min_size=1, max_size=4).map(distinct), min_size=2, max_size=6
)


@given(RUNS)
def test_of_each_series_and_time_the_last_run_stays(runs: list[list[Column]]) -> None:
    out = join([as_chunk(run, columns) for run, columns in enumerate(runs, 1)])
    assert bits(read(out, len(runs))) == bits(merged(runs))


@given(
    RUNS,
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.none() | st.sampled_from(list(NAMES.values())),
            st.integers(-(2**63), 2**63 - 1),
            st.integers(-(2**63), 2**63 - 1),
        ).map(lambda e: (e[0], e[1], min(e[2:]), max(e[2:]))),
        min_size=1,
        max_size=3,
    ),
)
def test_what_was_deleted_is_left_out(
    runs: list[list[Column]], entries: list[tuple[int, bytes | None, int, int]]
) -> None:
    def gone(run: int, key: int, ts: int) -> bool:
        return any(
            run <= upto and name in (None, NAMES[key]) and first <= ts <= last
            for upto, name, first, last in entries
        )

    out = join([as_chunk(run, columns) for run, columns in enumerate(runs, 1)], Deleted(entries))
    assert bits(read(out, len(runs))) == bits(merged(runs, gone))


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(1, 400))
def test_long_series_of_every_kind(seed: int, count: int, points: int) -> None:
    runs = [distinct(long_columns(seed + run, points, 3)) for run in range(count)]
    out = join([as_chunk(run, columns) for run, columns in enumerate(runs, 1)])
    assert bits(read(out, count)) == bits(merged(runs))


def test_one_run_stays_as_it_is() -> None:
    chunks = [as_chunk(5, [(1, [(3, "INT64", 1)])])]
    assert join(chunks) == [chunks[0][1:]]


@given(RUNS, st.integers(0, 2**32), st.binary(min_size=1, max_size=4), st.booleans())
def test_a_chunk_that_is_not_well_is_refused_or_read(
    runs: list[list[Column]], at: int, new: bytes, cut: bool
) -> None:
    """Also with the right checksum: nothing is trusted because of it."""
    chunks = [as_chunk(run, columns) for run, columns in enumerate(runs, 1)]
    run, key, chunk = chunks[-1]
    at = 5 + at % (len(chunk) - 5)
    broken = bytearray(chunk[:at] if cut else chunk[:at] + new + chunk[at + len(new) :])
    broken[1:5] = struct.pack("<I", crc32c(bytes(broken[:1] + broken[5:])))
    joiner = Joiner()
    joiner.begin(DEVICE, NAMES)
    try:
        for part in [*chunks[:-1], (run, key, bytes(broken))]:
            joiner.add(*part)
        joiner.take()
    except StoreError:
        pass
