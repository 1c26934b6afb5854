"""Damage to a block is never silent, wherever it is."""

import itertools

import pytest

from tbfast._ext.ingest import Ingest
from tbfast._ext.scan import RangeScan
from tbfast._ext.series import block_info, rows, split_definitions
from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tests.support.blocks import DECIMAL, INT64, STRING, TRUE, Block, Point, Record, write_block
from tests.support.rows import crc32c, read_block

RECORDS = [
    Record(1, 1_000, [Point(1, INT64, 5), Point(2, STRING, "text"), Point("inline", TRUE)]),
    Record(2, 999, [Point(1, INT64, 4, dead=True), Point(1, DECIMAL, (-5, 2))]),
]
BLOCK = write_block(Block(3, 4, 5, 1_700, 1, ["a", "b"], RECORDS))
READERS = {
    "info": block_info,
    "rows": lambda data: rows(data, {}),
    "range": lambda data: RangeScan(1, None).feed(data),
    "tail": lambda data: Tail().apply(data),
}


@pytest.fixture(params=READERS)
def read(request: pytest.FixtureRequest):
    return READERS[request.param]


def test_sound_block(read) -> None:
    read(BLOCK)
    assert block_info(BLOCK) == {
        "journal_id": 3, "epoch": 4, "seq": 5, "commit_ms": 1_700, "base_ms": 1_700,
        "min_ts": 999, "max_ts": 1_000, "records": 2, "points": 4, "first_key": 1,
        "defs_bytes": 4, "rows_bytes": len(BLOCK) - 84,
    }  # fmt: skip
    assert rows(BLOCK, {}, {2}) == [(2, 0, 999, "a", "decimal", b"-0.05")]


@pytest.mark.parametrize("bit", range(8))
def test_flipped_bit_anywhere(read, bit: int) -> None:
    for offset in range(len(BLOCK)):
        damaged = bytearray(BLOCK)
        damaged[offset] ^= 1 << bit
        with pytest.raises(StoreError):
            read(bytes(damaged))


def test_cut_or_longer(read) -> None:
    for length in range(len(BLOCK)):
        with pytest.raises(StoreError):
            read(BLOCK[:length])
    with pytest.raises(StoreError):
        read(BLOCK + b"\0")


@pytest.mark.parametrize("count", [2**32 - 1, 10**8, len(BLOCK)])
@pytest.mark.parametrize("offset", [64, 68])  # records, points
def test_more_than_its_rows_can_hold(read, offset: int, count: int) -> None:
    """A whole checksum around a count that makes room for it, or looking for room, never end."""
    with pytest.raises(StoreError, match="damaged"):
        read(_with_u32(BLOCK, offset, count))


@pytest.mark.parametrize("first", [2**32 - 1, 2**30, 2**20])
def test_a_key_number_that_no_journal_gives(first: int) -> None:
    """Tables of keys are as long as the greatest number: one damaged byte must not make them so."""
    damaged = _with_u32(BLOCK, 72, first)
    scan = RangeScan(1, None)
    for refuse in (
        lambda: Tail().apply(damaged),
        lambda: scan.feed(damaged),
        lambda: Tail().define(1, 1, first, [b"a", b"b"]),
        lambda: scan.epoch([(first, b"\1a\1b")]),
    ):
        with pytest.raises(StoreError, match="key number"):
            refuse()
    with pytest.raises(ValueError, match="too many"):
        Ingest(keys_per_epoch=2**20 + 1)


def test_the_greatest_key_number() -> None:
    last = 2**20
    records = [Record(1, 5, [Point(last, INT64, 7)])]
    block = write_block(Block(1, 1, 1, 5, last, ["last"], records))
    scan, tail = RangeScan(1, None), Tail()
    scan.feed(block)
    tail.apply(block)
    assert scan.to_json() == b'{"last":[{"ts":5,"value":7}]}' == tail.latest(1)[0] + b"}"


def _with_u32(block: bytes, offset: int, value: int) -> bytes:
    changed = bytearray(block)
    changed[offset : offset + 4] = value.to_bytes(4, "little")
    changed[76:80] = crc32c(bytes(changed[:76] + changed[80:])).to_bytes(4, "little")
    return bytes(changed)


def test_newer_format_is_named() -> None:
    with pytest.raises(StoreError, match="newer format"):
        block_info(BLOCK[:4] + b"\2" + BLOCK[5:])


def test_key_that_nothing_defines() -> None:
    block = write_block(Block(1, 1, 1, 0, 1, [], [Record(1, 0, [Point(9, INT64, 1)])]))
    with pytest.raises(StoreError, match="nothing defines"):
        rows(block, {})
    with pytest.raises(StoreError, match="nothing defines"):
        Tail().apply(block)


def test_damaged_definitions() -> None:
    assert split_definitions(b"\1a\2bc") == [b"a", b"bc"]
    with pytest.raises(StoreError):
        split_definitions(b"\1a\2b")


def test_keys_beyond_the_table_travel_inline() -> None:
    ingest = Ingest(keys_per_epoch=2)
    ingest.at(1, 0)
    ingest.append_json(1, b'{"a":1,"b":2,"c":3,"d":4,"c":5}')
    group = ingest.take(0, 1, 1, 1, 1)
    assert group.last_key == 2
    assert read_block(group.value).keys == ["a", "b"]
    scan = RangeScan(1, None)
    scan.feed(group.value)
    values = {"a": 1, "b": 2, "c": 5, "d": 4}
    expected = ",".join(f'"{k}":[{{"ts":1,"value":{v}}}]' for k, v in values.items())
    keys = sorted(scan.key_names())
    assert keys == list(values)
    assert sorted(scan.to_json()[1:-1].split(b',"')) == sorted(expected.encode().split(b',"'))


def test_definitions_come_again_until_they_are_durable() -> None:
    ingest = Ingest()
    ingest.at(1, 0)
    ingest.append_json(1, b'{"a":1}')
    first = ingest.take(0, 1, 1, 1, 1)
    ingest.append_json(1, b'{"b":2,"a":3}')
    second = ingest.take(0, 1, 2, 1, 1)  # the first one was not written
    ingest.append_json(1, b'{"a":4}')
    third = ingest.take(0, 1, 3, 1, second.last_key + 1)
    assert read_block(first.value).keys == ["a"]
    assert read_block(second.value).keys == ["a", "b"]
    assert block_info(third.value)["defs_bytes"] == 0


def test_a_large_answer_is_cut_while_scanning() -> None:
    """More hits than are kept: the newest stay, whatever order they come in."""
    scan = RangeScan(1, ["n"], limit=3)
    points = 150_000
    order = itertools.chain(range(0, points, 2), range(1, points, 2))
    seq = 0
    while chunk := list(itertools.islice(order, 10_000)):
        seq += 1
        records = [Record(1, n, [Point(1, INT64, n)]) for n in chunk]
        scan.feed(write_block(Block(0, 1, seq, seq, 1, ["n"] if seq == 1 else [], records)))
    newest = [f'{{"ts":{n},"value":{n}}}' for n in (149_999, 149_998, 149_997)]
    assert scan.to_json() == f'{{"n":[{",".join(newest)}]}}'.encode()
