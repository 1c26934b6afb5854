"""Latest values that a run changes: packed by one tail, taken back by the next."""

import json
import random
from typing import Any

import pytest

from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tests.support.blocks import DECIMAL, DOUBLE, INT64, STRING, Block, Point, Record, write_block

NAMES = ("a", "b", "c")
EVERY_KEY = 2**32 - 1
COMMIT_MS = 1_764_000_000_000


def tail_of(*records: Record) -> Tail:
    tail = empty()
    tail.define(0, 1, 1, [name.encode() for name in NAMES])
    tail.apply(write_block(Block(0, 1, 1, COMMIT_MS, 1, (), list(records))))
    return tail


def empty() -> Tail:
    tail = Tail()
    for number, name in enumerate(NAMES, 1):
        tail.restore_key(number, name.encode())
    return tail


def changes(tail: Tail, step: int = 1) -> list[bytes]:
    head, found, start = tail.freeze(), [], -1
    while start:
        start, packed = tail.pack_changes(head, max(start, 0), step, EVERY_KEY)
        found.append(packed)
    return found


def latest(tail: Tail, device: int) -> dict[str, tuple[int, Any]]:
    text, elsewhere = tail.latest(device)
    assert not elsewhere
    values = json.loads(text + b"}")
    return {name: (value["ts"], value["value"]) for name, (value,) in values.items()}


RECORDS = (
    Record(1, COMMIT_MS, [Point(1, INT64, -5), Point(2, DECIMAL, (215, 1)), Point(3, DOUBLE, 0.1)]),
    Record(9, 2**63 - 1, [Point(1, INT64, 2**63 - 1)]),
    Record(9, -(2**63), [Point(2, STRING, "low"), Point(3, INT64, -(2**63))]),
    Record(2**61 - 1, 0, [Point(3, STRING, "")]),
)


@pytest.mark.parametrize("step", [1, 2, 1_000])
def test_what_a_run_changed_comes_back(step: int) -> None:
    before, after = tail_of(*RECORDS), empty()
    for packed in changes(before, step):
        after.restore_changes(packed)
    for device in (1, 9, 2**61 - 1):
        assert latest(after, device) == latest(before, device) != {}
        assert after.activity_ms(device) == before.activity_ms(device) == COMMIT_MS
    assert latest(after, 9)["c"] == (-(2**63), -(2**63))


def test_a_device_that_is_gone_between_others() -> None:
    before, after = tail_of(*RECORDS), empty()
    before.delete_device(9)
    packed = b"".join(before.pack_device_changes(device, EVERY_KEY) for device in (1, 9, 2**61 - 1))
    after.restore_changes(packed)
    assert latest(after, 1) == latest(before, 1)
    assert latest(after, 2**61 - 1) == latest(before, 2**61 - 1)
    after.define(0, 1, 1, [name.encode() for name in NAMES])
    after.apply(write_block(Block(0, 1, 2, COMMIT_MS, 1, (), [RECORDS[1]])))
    assert latest(after, 9) == {}
    assert after.dropped == 1


def test_entries_may_name_their_device_each() -> None:
    """As stores hold them that were written before entries could follow one another."""
    after = empty()
    # device 5: activity at 7; key 1 INT64 3 at 100; key 2 INT64 -1 at 50
    after.restore_changes(bytes([5, 3, 0, 14, 5, 8, 0, 0xC8, 1, 6, 5, 16, 0, 100, 1]))
    assert latest(after, 5) == {"a": (100, 3), "b": (50, -1)}
    assert after.activity_ms(5) == 7


def test_changes_cut_anywhere_are_refused_or_shorter() -> None:
    (packed,) = changes(tail_of(*RECORDS[:1]), 1_000)
    whole = latest(tail_of(*RECORDS[:1]), 1)
    for n in range(len(packed)):
        after = empty()
        try:
            after.restore_changes(packed[:n])
        except StoreError:
            continue
        assert latest(after, 1).items() < whole.items()
    for damaged in (b"\x00", b"\x00\x08\x00\x00\x00", packed + b"\x00", packed + b"\x01"):
        with pytest.raises(StoreError, match="damaged"):
            empty().restore_changes(damaged)


@pytest.mark.parametrize("scale", [65, 96, 200, 253])
def test_a_decimal_of_a_scale_that_no_row_can_have_is_refused(scale: int) -> None:
    entry = bytes([1 << 3 | DECIMAL, scale, 0, 2])
    with pytest.raises(StoreError, match="damaged"):
        empty().restore_latest(5, entry)
    with pytest.raises(StoreError, match="damaged"):
        empty().restore_changes(b"\5" + entry)


def test_a_latest_value_that_json_has_no_number_for_is_null() -> None:
    odd = [float("nan"), float("inf"), float("-inf")]
    points = [Point(key, DOUBLE, value) for key, value in enumerate(odd, 1)]
    text, _ = tail_of(Record(1, 5, points)).latest(1)
    assert (
        text
        == b'{"a":[{"ts":5,"value":null}],"b":[{"ts":5,"value":null}],"c":[{"ts":5,"value":null}]'
    )


def test_texts_of_any_length_follow_one_another() -> None:
    rng = random.Random(2)
    tail = empty()
    tail.define(0, 1, 1, [name.encode() for name in NAMES])
    last: dict[str, tuple[int, Any]] = {}
    for n in range(1, 2_000):
        key = rng.randrange(len(NAMES))
        value = rng.choice(("", "a" * 7, "b" * 8, f"{n:07}", "c" * rng.randrange(300), n))
        point = Point(key + 1, INT64 if isinstance(value, int) else STRING, value)
        record = Record(1, n, [point])
        tail.apply(write_block(Block(0, 1, n, COMMIT_MS, 1, (), [record])))
        last[NAMES[key]] = n, value
        assert latest(tail, 1) == last
