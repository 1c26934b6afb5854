"""What a subscription is told while its first answer is being read, and after it."""

import msgspec
import pytest

from tbfast.control.queries import as_text
from tbfast.control.rest.queries import EntityData
from tbfast.control.rest.shapes import EntityId
from tbfast.control.ws.entities import _flowed, _seen, _value
from tbfast.control.ws.updates import GONE, Point
from tbfast.control.ws.watches import Watch

TEXTS = [b"42.5", b'"a \\u00e9"', '"é"'.encode(), b'{"a":1}', b"true"]

Told = list[dict[str, list[Point]]]


@pytest.fixture
def told() -> Told:
    return []


def entity_values(ts_ms: int, text: bytes) -> dict[str, list[Point]]:
    """What was sent of a device, the way an entity subscription sends it."""
    answer = {
        "entityId": {"entityType": "DEVICE", "id": "784f394c-42b6-435a-983c-b7beff2784f9"},
        "latest": {"TIME_SERIES": {"k": {"ts": ts_ms, "value": as_text(text)}}},
    }
    return _seen(msgspec.convert(answer, EntityData), "TIME_SERIES")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("entities", [False, True])
def test_a_row_that_was_read_already_is_no_news(told: Told, text: bytes, entities: bool) -> None:
    watch = Watch(["k"], told.append)
    watch.take([("k", (1000, text))])  # comes by while the answer is being read
    watch.begin(entity_values(1000, text) if entities else {"k": [(1000, text)]})
    watch.take([("k", (1000, text))])
    assert told == []
    watch.take([("k", (1000, b"7"))])  # the same time, another value
    assert told == [{"k": [(1000, b"7")]}]


@pytest.mark.parametrize("entities", [False, True])
def test_what_came_after_the_answer_was_read_is_told(told: Told, entities: bool) -> None:
    watch = Watch(None, told.append)
    watch.take([("k", (2000, b"2"))])
    watch.begin(entity_values(1000, b"1") if entities else {"k": [(1000, b"1")]})
    assert told == [{"k": [(2000, b"2")]}]


def test_a_key_without_a_value_has_been_seen_by_nobody(told: Told) -> None:
    watch = Watch(["k"], told.append)
    watch.begin(entity_values(0, b'""'))
    watch.take([("k", (0, b"1"))])
    watch.take([("k", GONE)])
    assert told == [{"k": [(0, b"1")]}, {"k": [GONE]}]


@pytest.mark.parametrize("text", TEXTS)
def test_points_of_a_series_that_were_just_sent_are_no_news(told: Told, text: bytes) -> None:
    points = [_value((2000, text)), _value((1000, b"1"))]
    watch = Watch(["k"], told.append, 1000)
    for point in ((1000, b"1"), (2000, text), (3000, b"3")):
        watch.take([("k", point)])
    watch.begin(_flowed(EntityData(EntityId("DEVICE", "x"), {}, {"k": points})))
    assert told == [{"k": [(3000, b"3")]}]


def test_a_series_gets_every_point_that_came_early(told: Told) -> None:
    watch = Watch(["k"], told.append, 10_000)
    for n in range(10):
        watch.take([("k", (n, b"%d" % n))])
    watch.take([("k", (5, b"5"))])  # older than what came before it: as always no news
    watch.begin({"k": [(3, b"3")]})
    assert told == [{"k": [(n, b"%d" % n) for n in range(9, 3, -1)]}]
    watch.take([("k", (10, b"10"))])
    assert told[1:] == [{"k": [(10, b"10")]}]


def test_what_was_deleted_meanwhile_is_not_told(told: Told) -> None:
    watch = Watch(["k"], told.append, 10_000)
    for point in ((1, b"1"), (2, b"2"), GONE, (1, b"3")):
        watch.take([("k", point)])
    watch.begin({})
    assert told == [{"k": [(1, b"3")]}]


def test_what_comes_early_is_bounded(told: Told) -> None:
    watch = Watch(["k"], told.append, 1000)
    for n in range(100):
        watch.take([("k", (n, b"%d" % n))])
    watch.begin({})
    (points,) = (one["k"] for one in told)
    assert points[0] == (99, b"99")
    assert 2 < len(points) < 12
