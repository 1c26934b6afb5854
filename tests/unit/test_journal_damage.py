"""Damage inside a journal's table files is never read past in silence."""

import asyncio
import time
from pathlib import Path

import pytest

from tbfast._ext import metrics as words
from tbfast._ext.ingest import Ingest
from tbfast._ext.metrics import Slot
from tbfast.control.tail import TailService
from tbfast.errors import StoreError
from tbfast.model.ranges import RangeQuery
from tbfast.store.journal import Journal, Position
from tbfast.store.layout import Layout
from tbfast.store.series_reader import open_offline
from tests.support.blocks import INT64, Block, Point, Record, write_block

BLOCKS = 60


def _filled(layout: Layout) -> Position:
    """A journal whose blocks are in a table file; position of its last block."""
    journal = Journal(layout.journal(0), 0)
    ingest = Ingest()
    for seq in range(1, BLOCKS + 1):
        ingest.at(1_000_000 + seq, seq)
        text = f'{{"ts":{seq},"values":{{"n":{seq},"pad":"{"x" * 2000}"}}}}'
        ingest.append_json(1, text.encode())
        ingest.note(0, 0, 0)
        group = ingest.take(0, journal.epoch, seq, seq, journal.written_keys + 1)
        journal.append(group)
    last = journal.written
    journal.close()
    Journal(layout.journal(0), 0).close()  # opening flushes the replayed log to a table file
    return last


def _damage(directory: Path) -> None:
    """Flips bytes in the middle of the largest table file."""
    table = max(directory.glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    middle = len(data) // 2
    for at in range(middle, middle + 64):
        data[at] ^= 0xFF
    table.write_bytes(data)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path)
    made.prepare()
    return made


def test_a_range_read_says_so(layout: Layout):
    _filled(layout)
    _damage(layout.journal(0))

    async def read() -> bytes:
        reader = open_offline(layout.root)
        try:
            return await reader.range(1, RangeQuery(keys=("n",), limit=1000, ascending=True))
        finally:
            await reader.close()

    with pytest.raises(StoreError, match="damaged"):
        asyncio.run(read())


def test_the_feed_does_not_take_it_for_a_hole(layout: Layout):
    last = _filled(layout)
    _damage(layout.journal(0))
    journal = Journal(layout.journal(0), 0)
    try:
        with pytest.raises(StoreError, match="damaged"):
            after = Position(0, 0)
            while blocks := journal.read(after, last, 1 << 16):
                after = blocks[-1][0]
            assert after == last
    finally:
        journal.close()


def test_the_lag_of_queries_grows_while_damage_hides_rows() -> None:
    """Blocks of other journals do not make it small, and nor does having nothing to do."""
    slot = Slot()
    tail = TailService(slot)
    now_ms = time.time_ns() // 1_000_000
    for journal in (0, 1):
        tail.define(journal, 1, 1, [b"a"])

    def block(journal: int, seq: int, age_ms: int) -> bytes:
        rows = [Record(1, seq, [Point(1, INT64, seq)])]
        return write_block(Block(journal, 1, seq, now_ms - age_ms, 1, (), rows))

    tail.apply(block(0, 1, 50))
    tail.settle()
    tail.settle()
    assert slot.get(words.TAIL_LAG_MS) == 0
    hurt = bytearray(block(0, 2, 60_000))
    hurt[-1] ^= 1
    tail.apply(bytes(hurt))
    with pytest.raises(StoreError, match="sequence 2"):
        tail.check()
    tail.settle()
    assert slot.get(words.TAIL_LAG_MS) >= 60_000
    tail.apply(block(1, 1, 0))
    assert slot.get(words.TAIL_LAG_MS) >= 60_000
    tail.settle()
    tail.settle()
    assert slot.get(words.TAIL_LAG_MS) >= 60_000
