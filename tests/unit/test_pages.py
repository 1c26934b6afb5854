"""Values that several devices share: layout, damage, and reading them device by device."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext import page
from tbfast._ext.crc import crc32c
from tbfast.errors import StoreError
from tbfast.store.pages import PagedChunks, chunk_of, expanded, places, read_chunk
from tbfast.store.series_files import CHUNK_KEY


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def a_page(chunks: dict[int, bytes]) -> bytes:
    """By place, written as tbf_page.h says."""
    directory = varint(len(chunks))
    for place, chunk in chunks.items():
        directory += bytes([place]) + varint(len(chunk))
    crc = crc32c(b"\xc2" + directory)
    return b"\xc2" + struct.pack("<I", crc) + directory + b"".join(chunks.values())


CHUNKS = {0: b"\xc1first", 7: b"\xc1" * 200, 63: b""}


def test_layout() -> None:
    value = a_page(CHUNKS)
    assert page.is_page(value) and not page.is_page(b"\xc1") and not page.is_page(b"")
    assert page.unpack(128, value) == [(128 + place, chunk) for place, chunk in CHUNKS.items()]
    assert page.devices(128, value) == [128, 135, 191]
    assert page.find(135, value) == CHUNKS[7]
    assert page.find(136, value) is None
    assert [page.first_device(n) for n in (0, 63, 64, 2**64 - 1)] == [0, 0, 64, 2**64 - 64]


@pytest.mark.parametrize(
    "chunks", [{}, {64: b"x"}, {255: b"x"}, dict.fromkeys(range(65), b"")], ids=str
)
def test_places_that_cannot_be(chunks: dict[int, bytes]) -> None:
    with pytest.raises(StoreError, match="page of chunks is damaged"):
        page.unpack(0, a_page(chunks))


def test_places_that_do_not_ascend() -> None:
    for chunks in ({3: b"x", 2: b"y"}, {3: b"x", 1: b""}):
        with pytest.raises(StoreError, match="damaged"):
            page.find(3, a_page(chunks))


def test_any_byte_of_the_directory_counts() -> None:
    value = a_page(CHUNKS)
    for at in range(1, 5 + 1 + 2 + 3 + 2):
        hurt = bytearray(value)
        hurt[at] ^= 0x10
        with pytest.raises(StoreError, match="damaged"):
            page.unpack(0, bytes(hurt))
    for hurt_whole in (value[:-1], value + b"x", value[:4], b"\xc2"):
        with pytest.raises(StoreError, match="damaged"):
            page.unpack(0, hurt_whole)


@given(st.binary(max_size=40))
def test_random_bytes(data: bytes) -> None:
    """A page or StoreError, never anything else."""
    try:
        found = page.unpack(0, b"\xc2" + data)
    except StoreError:
        return
    assert a_page(dict(found)) == b"\xc2" + data


# --- device by device ------------------------------------------------------------------------


def test_where_a_chunk_may_be() -> None:
    def prefix(device: int, key: int) -> bytes:
        return CHUNK_KEY.pack(device, key, 0)[:-4]

    assert places(70, 0, raw=True) == [prefix(70, 0), prefix(64, 0)]
    assert places(70, 0, raw=False) == [prefix(70, 0)]
    assert places(70, 3, raw=True) == [prefix(70, 3)]
    assert places(64, 0, raw=True) == [prefix(64, 0)]


def test_a_value_under_the_first_device_s_key() -> None:
    key = CHUNK_KEY.pack(64, 0, 5)
    assert chunk_of(64, key, b"\xc1own") == b"\xc1own"
    assert chunk_of(65, key, b"\xc1own") is None
    assert chunk_of(65, key, a_page({1: b"\xc1other"})) == b"\xc1other"
    assert chunk_of(64, key, a_page({1: b"\xc1other"})) is None


RUNS = st.integers(1, 4)
# (device, key, run) of chunks, and which of the common ones a page takes
STORED = st.tuples(
    st.sets(st.tuples(st.sampled_from([0, 1, 63, 64, 65, 127, 128, 300, 301]),
                      st.sampled_from([0, 0, 1, 9]), RUNS)),
    st.sets(st.tuples(st.sampled_from([0, 64, 128, 256]), RUNS)),
)  # fmt: skip


@given(STORED)
def test_whatever_shares_a_value_comes_device_by_device(
    stored: tuple[set[tuple[int, int, int]], set[tuple[int, int]]],
) -> None:
    chunks, paged = stored
    content = {at: b"\xc1" + repr(at).encode() for at in chunks}
    values: dict[bytes, bytes] = {}
    pages: dict[tuple[int, int], dict[int, bytes]] = {}
    for device, key, run in sorted(chunks):
        first = device - device % 64
        if key == 0 and (first, run) in paged:
            pages.setdefault((first, run), {})[device % 64] = content[device, key, run]
        else:
            values[CHUNK_KEY.pack(device, key, run)] = content[device, key, run]
    for (first, run), held in pages.items():
        values[CHUNK_KEY.pack(first, 0, run)] = a_page(held)

    source = PagedChunks(iter(sorted(values.items())))
    found: dict[tuple[int, int, int], bytes] = {}
    devices = []
    while source.device is not None:
        device = source.device
        devices.append(device)
        assert list(source.of(device - 1)) == []
        for of_run, stored_key, chunk in source.of(device):
            at = CHUNK_KEY.unpack(stored_key)
            assert (at[0], at[2]) == (device, of_run) and at not in found
            found[at] = chunk
    assert found == content
    assert all(a < b for a, b in pairwise(devices))
    unpacked = [pair for stored_value in values.items() for pair in expanded(*stored_value)]
    assert {CHUNK_KEY.unpack(key): chunk for key, chunk in unpacked} == content
    for at, chunk in content.items():
        assert read_chunk(values.get, *at) == chunk
    assert read_chunk(values.get, 2, 0, 1) is None
