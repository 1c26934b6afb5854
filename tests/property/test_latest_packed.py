"""Stored latest values are a decoder's input like any other: damage is refused or readable."""

from hypothesis import example, given
from hypothesis import strategies as st

from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tests.property.test_block import VALUES
from tests.support.blocks import DECIMAL, Block, Point, Record, write_block

NAMES = (b"a", b"b", b"c")
EVERY_KEY = 2**32 - 1
DEVICES = (1, 9, 2**61 - 1)


def empty() -> Tail:
    tail = Tail()
    for number, name in enumerate(NAMES, 1):
        tail.restore_key(number, name)
    return tail


def told(tail: Tail) -> list[object]:
    """Everything that reads show."""
    devices = tail.numbers(0, 1_000)
    return [(d, tail.latest(d), tail.key_names(d), tail.activity_ms(d)) for d in sorted(devices)]


RECORDS = st.lists(
    st.tuples(
        st.sampled_from(DEVICES),
        st.integers(-(2**63), 2**63 - 1),
        st.dictionaries(st.integers(1, 3), VALUES, min_size=1),
    ),
    min_size=1,
    max_size=6,
)


def stored(records: list[tuple[int, int, dict]]) -> Tail:
    tail = empty()
    tail.define(0, 1, 1, list(NAMES))
    tail.apply(
        write_block(
            Block(0, 1, 1, 5, 1, (), [
                Record(device, ts, [Point(key, *value) for key, value in points.items()])
                for device, ts, points in records
            ])
        )
    )  # fmt: skip
    return tail


@given(RECORDS)
def test_what_is_packed_comes_back(records) -> None:
    before = stored(records)
    changed, recorded = empty(), empty()
    changed.restore_changes(before.pack_changes(before.freeze(), 0, 1_000, EVERY_KEY)[1])
    for device, packed in before.pack_stale(0, 1_000, EVERY_KEY):
        recorded.restore_latest(device, packed)
    assert told(changed) == told(recorded) == told(before)


@given(RECORDS, st.data())
def test_damage_is_refused_or_readable(records, data) -> None:
    before = stored(records)
    packed = bytearray(before.pack_changes(before.freeze(), 0, 1_000, EVERY_KEY)[1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] = data.draw(st.integers(0, 255))
    _refused_or_readable(bytes(packed))


@given(st.binary(max_size=40))
@example(bytes([5, 1 << 3 | DECIMAL, 200, 0, 2]))
def test_any_bytes_are_refused_or_readable(packed: bytes) -> None:
    _refused_or_readable(packed)


def _refused_or_readable(packed: bytes) -> None:
    after = empty()
    for take in (after.restore_changes, lambda packed: after.restore_latest(9, packed)):
        try:
            take(packed)
        except StoreError:
            continue
    shown = told(after)  # what came before the damage stays
    again = empty()
    for device, entries in after.pack_stale(0, 1_000, EVERY_KEY):
        if entries is not None:
            again.restore_latest(device, entries)
    known = {device for device, *_ in told(again)}
    assert told(again) == [entry for entry in shown if entry[0] in known]
