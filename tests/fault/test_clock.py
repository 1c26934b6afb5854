"""The system clock is set: nobody is disconnected, nothing expires, device times are theirs."""

import json
import signal
import time
from pathlib import Path

from tbfast.model.ranges import RangeQuery
from tbfast.store.series import SeriesStore
from tests.support.audit import audit, audit_stopped, query
from tests.support.clock import ClockShim
from tests.support.ledger import running_load
from tests.support.mqtt_client import Client, connected
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
SETTINGS = {
    "TBFAST_SERIES__RETENTION_MS": str(30 * 24 * HOUR_MS),
    "TBFAST_SERIES__SEAL_INTERVAL_MS": "1000",
}
EXACT_MS = 5_000
SLACK_MS = 5_000
ROWS = 20


def stamped(client: Client, node: Node, first: int) -> list[int]:
    """Sends ROWS values without times; the times that they were given, in order of sending."""
    for n in range(first, first + ROWS):
        client.publish_acknowledged(b'{"n":%d}' % n)
        # One row for each millisecond: a later one of the same would replace it.
        sent_ms = time.time_ns() // 1_000_000
        wait_until(lambda sent_ms=sent_ms: time.time_ns() // 1_000_000 > sent_ms)
    with node.api() as api:
        text = api.history(api.find("d8"), RangeQuery(keys=("n",), limit=10_000))
    times = {point["value"]: point["ts"] for point in json.loads(text)["n"]}
    return [times[n] for n in range(first, first + ROWS) if n in times]


def near(ms: int, ahead_ms: int) -> bool:
    return abs(ms - ahead_ms - time.time_ns() // 1_000_000) < EXACT_MS


def test_the_clock_is_set_under_load(tmp_path: Path) -> None:
    clock = ClockShim(tmp_path / "clock")
    with running_node(tmp_path / "data", env={**SETTINGS, **clock.env}) as node:
        tokens = node.add_devices(10)
        pids = [node.controller_pid(), node.worker_pid(0), node.worker_pid(1)]
        with (
            connected(node.mqtt_port, tokens[8]) as client,
            connected(node.mqtt_port, tokens[9]) as idle,
            running_load(node.mqtt_port, tokens[:8]) as load,
        ):
            load.wait_acked(1000)
            before = stamped(client, node, 0)
            assert before == sorted(before)
            assert near(before[-1], 0)

            # A small step back: time stands still until the clock has caught up.
            clock.set_ahead(-SLACK_MS + 1500)
            small = stamped(client, node, 100)
            assert small == sorted(small)
            assert small[0] >= before[-1]
            assert node.metric("tbfast_clock_steps_total") == 0

            for number, ahead_ms in enumerate((-HOUR_MS, 10 * YEAR_MS, -HOUR_MS, 0), 2):
                clock.set_ahead(ahead_ms)
                load.wait_acked(1000)
                times = stamped(client, node, number * 100)
                assert times == sorted(times)
                assert all(near(ts, ahead_ms) for ts in times)
                # Each worker that has devices tells it with its next heartbeat.
                wait_until(lambda: node.metric("tbfast_clock_steps_total") > number - 2)  # noqa: B023
                idle.ping()
                sealed = node.metric("tbfast_sealed_points_total")
                wait_until(lambda: node.metric("tbfast_sealed_points_total") > sealed)  # noqa: B023
            assert load.progress.connects == 8
            record = load.finish()
        assert audit(node, record) == load.acked  # every window is still there
        assert pids == [node.controller_pid(), node.worker_pid(0), node.worker_pid(1)]
        wait_until(lambda: "the system clock was set" in node.log.read_text(), what="a log line")
        events = {line["event"] for line in node.log_lines()}
        assert not {e for e in events if e.startswith(("process ", "window dropped"))}
        assert node.stop() == 0
        audit_stopped(node, record)
        node.start()
        assert audit(node, record) == load.acked


def test_a_start_in_1970_costs_no_window_for_each_run(tmp_path: Path) -> None:
    """A machine without a battery, until it has asked for the time."""
    clock = ClockShim(tmp_path / "clock")
    clock.set_ahead(-50 * YEAR_MS)
    with running_node(tmp_path / "data", workers=1, env={**SETTINGS, **clock.env}) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client, node.api() as api:
            for n in range(4):
                if n == 1:
                    clock.set_ahead(0)
                client.publish_acknowledged(b'{"ts":%d,"values":{"n":%d}}' % (n, n))
                api.seal()
                # Ages are looked at once a second.
                signal.sigtimedwait([], 1.2)
        assert query(node, "d0", "n") == {n: n for n in range(4)}
        assert node.stop() == 0
    store = SeriesStore(tmp_path / "data" / "series")
    try:
        assert len(store.windows()) == 2
    finally:
        store.close()
