"""One allocation after the other fails while rows are taken in, sealed, joined and read.

Run with memory_shim.c preloaded: `python -m tests.support.no_memory NAME` does the work of that
name over and over, each time with the next allocation failing, until none is left that could.
Every failure must be a MemoryError; what is tried again then gives what it gives without one, and
nothing stays allocated.
"""

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from tbfast import limits
from tbfast._ext.aggregate import aggregate_json
from tbfast._ext.chunk import decode, encode
from tbfast._ext.deleted import Deleted
from tbfast._ext.ingest import Ingest
from tbfast._ext.joiner import Joiner
from tbfast._ext.page import is_page, unpack
from tbfast._ext.scan import RangeScan
from tbfast._ext.sealer import Sealer, feed_chunk
from tbfast._ext.tail import Tail
from tests.support.blocks import (
    DECIMAL,
    DOUBLE,
    INT64,
    STRING,
    Block,
    Point,
    Record,
    write_block,
)
from tests.support.rows import read_block

SHIM = ctypes.CDLL(None)
SHIM.shim_fail_after.argtypes = [ctypes.c_int64]
SHIM.shim_failures.restype = SHIM.shim_live.restype = ctypes.c_int64

EVERY_KEY = 2**32 - 1
DEVICES = 400  # more than a tail and a head have room for at first
SOME = 12  # of them, where each costs allocations of its own
KEYS = ["a", "b", "c", "text"]

Steps = list[Callable[[], Any]]


def _blocks() -> list[bytes]:
    """Enough rows for everything of a tail and of a head to grow."""
    blocks = []
    for seq in range(1, 6):
        records = [
            Record(device, seq * 1_000 + device % 3, [
                Point(1, INT64, device * seq),
                Point(2, DECIMAL, (device + seq, 1)),
                Point(3, DOUBLE, device / 7),
                *([Point(4, STRING, "x" * (seq * 300))] if device % 7 == 0 else []),
            ])
            for device in range(1, DEVICES)
        ]  # fmt: skip
        blocks.append(write_block(Block(0, 1, seq, seq, 1, KEYS if seq == 1 else [], records)))
    return blocks


BLOCKS = _blocks()
CHUNKS = [
    encode([
        (1, [(run + 3 * n, "INT64", run * n) for n in range(300)]),
        (2, [(run + n, "STRING", f"{run} {n}") for n in range(80)]),
    ])
    for run in range(1, 25)
]  # fmt: skip
NAMES = {1: b"a", 2: b"b"}


def _again(step: Callable[[], Any]) -> Any:
    """What a step gives, at the second try if there was no memory for the first."""
    failures = SHIM.shim_failures()
    try:
        result = step()
    except MemoryError:
        assert SHIM.shim_failures() == failures + 1
        return step()
    assert SHIM.shim_failures() == failures, "a failure that nobody was told of"
    return result


def _sealed(head: Any) -> dict[int, Any]:
    sealer = Sealer(head, 1)
    found: dict[int, Any] = {}
    while not sealer.done:
        for key, value in sealer.next(65_536)[0]:
            device = int.from_bytes(key[:8], "big")
            chunks = unpack(device, value) if is_page(value) else [(device, value)]
            for number, chunk in chunks:
                found.setdefault(number, []).extend(decode(chunk))
    return {device: sorted(columns, key=str) for device, columns in found.items()}


def _told(tail: Tail) -> list[Any]:
    return [(d, tail.latest(d), tail.activity_ms(d)) for d in sorted(tail.numbers(0, SOME))]


def taken_in() -> Any:
    """Blocks into a tail, block by block; what was applied once may be applied again."""
    tail = _again(Tail)
    for block in BLOCKS:
        _again(lambda block=block: tail.apply(block))
    told = _again(lambda: _told(tail))
    head = _again(tail.freeze)
    changes = _again(lambda: tail.pack_changes(head, 0, 10_000, EVERY_KEY))
    stale = _again(lambda: tail.pack_stale(0, SOME, EVERY_KEY))
    assert len(stale) == SOME
    return told, changes, stale, _again(lambda: _sealed(head))


def _restored() -> Any:
    whole = Tail()
    for block in BLOCKS:
        whole.apply(block)
    changes = whole.pack_changes(whole.freeze(), 0, 10_000, EVERY_KEY)[1]
    records = whole.pack_stale(0, 2 * SOME, EVERY_KEY)

    def restore() -> list[Any]:
        tail = Tail()
        for number, name in enumerate(KEYS, 1):
            tail.restore_key(number, name.encode())
        for device, packed in records:
            tail.restore_latest(device, packed)
        tail.restore_changes(changes)
        return _told(tail)

    return restore


RESTORE = _restored()


def restored() -> Any:
    """Latest values into a new tail, as at a start."""
    return _again(RESTORE)


def _read(ascending: bool, aggregation: str | None) -> Any:
    bounds = {"start_ms": 0, "end_ms": 3_000, "limit": 1 << 40 if aggregation else 500}
    scan = RangeScan(7, None, ascending=ascending, **bounds)
    scan.epoch([])
    for block in BLOCKS:
        scan.feed(block)
    deleted = Deleted([(9, b"a", 100, 200), (3, None, 5, 50)])
    for run, chunk in enumerate(CHUNKS, 1):
        feed_chunk(scan, chunk, NAMES, run, deleted, lambda chunk=chunk: chunk)
        scan.has_enough(b"a", 500)
    if aggregation is None:
        return scan.to_json(), RangeScan(7, None).key_names(), scan.key_names()
    return aggregate_json(scan, aggregation, [0, 7, 500, 3_000])


def read() -> Any:
    """Reads of every kind, of chunks that are kept and of such as are read again."""
    found = [_again(lambda up=up: _read(up, None)) for up in (False, True)]
    found += [_again(lambda f=f: _read(True, f)) for f in ("MIN", "SUM")]
    limits.READ_CHUNK_BYTES, kept = 1 << 14, limits.READ_CHUNK_BYTES  # type: ignore[misc]
    try:
        return found, _again(lambda: _read(True, "MAX"))
    finally:
        limits.READ_CHUNK_BYTES = kept  # type: ignore[misc]


def _join() -> Any:
    joiner = Joiner()
    joiner.begin(7, NAMES, Deleted([(9, b"a", 100, 200)]))
    for run, chunk in enumerate(CHUNKS, 1):
        for part in range(12):  # of one run each, so that there are more than a joiner begins with
            joiner.add(run, b"%d" % part, chunk)
    return [(key, decode(chunk)) for key, chunk in joiner.take()], joiner.totals.points


def joined() -> Any:
    """Chunks of many runs into one."""
    return _again(_join)


def written() -> Any:
    """Messages into a batch, each once more when there was no room for it, and blocks of them.

    A group that could not be closed is closed with the next messages.
    """
    ingest = _again(lambda: Ingest(seed=bytes(16)))
    ingest.at(1_000, 0)
    stored: list[int] = []
    for first in range(0, 300, 100):
        for slot in range(first, first + 100):
            payload = json.dumps({f"key{slot}": slot, "text": "x" * 200, "d": slot / 10}).encode()
            _again(lambda slot=slot, payload=payload: ingest.append_json(slot, payload))
            _again(lambda slot=slot: ingest.open(slot, slot, 4))
            for packet in range(4):
                _again(lambda slot=slot, packet=packet: ingest.note(slot, 4, packet + 1))
        try:
            group = ingest.take(0, 1, 1, 1_000, 1)
        except MemoryError:
            if first < 200:
                continue
            group = ingest.take(0, 1, 1, 1_000, 1)
        in_block = [record[0].device for record in read_block(group.value).records]
        answered = [slot for slot, _, owed in group.answers() if len(owed) == 4]
        assert answered == in_block, "answers without rows"
        stored += in_block
    return stored


WORK: dict[str, Callable[[], Any]] = {
    work.__name__: work for work in (taken_in, restored, read, joined, written)
}


def main(name: str) -> None:
    """Prints how many allocations could fail."""
    work = WORK[name]
    assert SHIM.shim_watch() > 0
    SHIM.shim_fail_after(-1)
    expected = work()
    gc.collect()
    live = SHIM.shim_live()
    n = 0
    while True:
        SHIM.shim_fail_after(n)
        found = work()
        failed = SHIM.shim_failures()
        SHIM.shim_fail_after(-1)
        assert found == expected, f"another result after allocation {n} failed"
        del found
        gc.collect()
        assert SHIM.shim_live() == live, f"{SHIM.shim_live() - live} kept: allocation {n} failed"
        if not failed:
            break
        n += 1
    print(n)


if __name__ == "__main__":
    main(sys.argv[1])
