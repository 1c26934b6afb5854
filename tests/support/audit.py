"""Compares what devices were told (tests.support.ledger) with what the store answers."""

import msgspec

from tbfast.model.ranges import RangeQuery
from tests.support.ledger import BASE_MS, Device, Record
from tests.support.node import Node

LIMIT = 1_000_000


class _Point(msgspec.Struct):
    ts: int
    value: int | str


_Series = dict[str, list[_Point]]


def audit(node: Node, record: Record) -> int:
    """Every acknowledged message is there, none twice, none invented; latest is the newest.

    Devices are d0.. with the record's tokens in order.  Returns the number of acknowledged ones.
    """
    total = 0
    with node.api() as api:
        for number, (token, device) in enumerate(record.devices.items()):
            view = api.find(f"d{number}")
            stored = msgspec.json.decode(api.history(view, RangeQuery(limit=LIMIT)), type=_Series)
            latest = api.get(
                f"/api/plugins/telemetry/DEVICE/{view.id}/values/timeseries?useStrictDataTypes=true",
                _Series,
            )
            total += _check(token, device, stored, latest)
    return total


def _check(who: str, device: Device, stored: _Series, latest: _Series) -> int:
    acked = {n for first, last in device.acked for n in range(first, last + 1)}
    if not stored:
        assert not acked, f"{who}: {len(acked)} acknowledged, nothing stored"
        return 0
    assert set(stored) == {"n", "text"}, who
    times = [point.ts for point in stored["n"]]
    assert len(times) < LIMIT
    assert times == sorted(set(times), reverse=True), f"{who}: times repeat or are out of order"
    assert [p.ts for p in stored["text"]] == times, who
    for n_point, text_point in zip(stored["n"], stored["text"], strict=True):
        n = n_point.ts - BASE_MS
        assert 0 <= n < device.sent, f"{who}: message {n} was never sent"
        assert (n_point.value, text_point.value) == (n, f"message {n}"), who
    missing = sorted(acked - {ts - BASE_MS for ts in times})
    assert not missing, f"{who}: {len(missing)} of {len(acked)} lost: {missing[:20]}"
    for key, points in stored.items():
        assert latest[key] == points[:1], f"{who}: latest {key} is {latest[key]}, not {points[0]}"
    return len(acked)


def query(node: Node, name: str, key: str) -> dict[int, object]:
    """{time: value} through ``tbfast query``."""
    done = node.cli("query", name, "--keys", key, "--limit", str(LIMIT), "--json")
    assert done.returncode == 0, done.stderr
    points = msgspec.json.decode(done.stdout, type=_Series).get(key, [])
    found = {point.ts: point.value for point in points}
    assert len(found) == len(points), "a time twice"
    return found


def audit_stopped(node: Node, record: Record, devices: int = 4) -> None:
    """Some devices once more through ``tbfast query``, which reads a stopped node's store too."""
    for number, device in enumerate(list(record.devices.values())[:devices]):
        found = query(node, f"d{number}", "n")
        acked = {n for first, last in device.acked for n in range(first, last + 1)}
        missing = sorted(n for n in acked if found.get(BASE_MS + n) != n)
        assert not missing, f"d{number}: {len(missing)} of {len(acked)} lost: {missing[:20]}"
