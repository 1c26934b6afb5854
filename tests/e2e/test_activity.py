"""Whether a device is there: its server attributes, on a real node (MQTT spec 8.5)."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire

SOON = {
    "TBFAST_STATE__DEFAULT_INACTIVITY_TIMEOUT_IN_SEC": "4",
    "TBFAST_STATE__DEFAULT_STATE_CHECK_INTERVAL_IN_SEC": "1",
}
SLACK_MS = 1_000  # clocks are compared through two processes


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with Server(env=SOON) as server:
        yield server


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def state(server: Server, device: str) -> dict[str, Any]:
    return server.attributes(device, "SERVER_SCOPE")


def test_a_life(node: Server) -> None:
    node.add_device("life")
    assert state(node, "life") == {}
    began = now_ms()
    with Wire(node.mqtt_port) as wire:
        wire.open("life")
        wait_until(lambda: state(node, "life").get("active"), what="it is active")
        first = state(node, "life")
        assert began - SLACK_MS <= first["lastConnectTime"] <= now_ms() + SLACK_MS
        assert began - SLACK_MS <= first["lastActivityTime"] <= now_ms() + SLACK_MS
        assert "lastDisconnectTime" not in first and "inactivityAlarmTime" not in first
        pinged = now_ms()
        wire.send(m.Pingreq())
        wire.expect(m.Pingresp())
        wait_until(
            lambda: state(node, "life")["lastActivityTime"] >= pinged - SLACK_MS,
            what="a PINGREQ counts",
        )
        published = now_ms()
        wire.publish('{"a":1}')
        wait_until(
            lambda: state(node, "life")["lastActivityTime"] >= published, what="a row counts"
        )
    wait_until(lambda: "lastDisconnectTime" in state(node, "life"), what="the session ended")
    assert state(node, "life")["active"] is True  # until it times out
    wait_until(lambda: state(node, "life")["active"] is False, what="it is inactive")
    last = state(node, "life")
    assert last["inactivityAlarmTime"] >= last["lastActivityTime"] + 4_000
    url = f"http://127.0.0.1:{node.http_port}/api/v1/life/telemetry"
    with urlopen(Request(url, b'{"a":2}', {"Content-Type": "application/json"})) as answer:
        assert answer.status == 200
    wait_until(lambda: state(node, "life")["active"] is True, what="it is back, over HTTP")
    assert state(node, "life")["lastConnectTime"] == first["lastConnectTime"]


def test_a_timeout_of_its_own(node: Server) -> None:
    for name in ("patient", "hasty"):
        node.add_device(name)
    node.save_attributes("patient", "SERVER_SCOPE", {"inactivityTimeout": 3_600_000})
    with Wire(node.mqtt_port) as one, Wire(node.mqtt_port) as two:
        one.open("patient").publish('{"a":1}')
        two.open("hasty").publish('{"a":1}')
    wait_until(lambda: state(node, "hasty").get("active") is False, what="the usual timeout")
    assert state(node, "patient")["active"] is True
    node.save_attributes("patient", "SERVER_SCOPE", {"inactivityTimeout": 1_000})
    wait_until(lambda: state(node, "patient")["active"] is False, what="the new timeout holds")


def test_a_takeover_is_a_connect_but_no_disconnect(node: Server) -> None:
    node.add_device("twice")
    with Wire(node.mqtt_port) as one, Wire(node.mqtt_port) as two:
        one.open("twice")
        wait_until(lambda: "lastConnectTime" in state(node, "twice"), what="the first is known")
        before = state(node, "twice")["lastConnectTime"]
        wait_until(lambda: now_ms() > before + 2 * SLACK_MS, what="some time has passed")
        two.open("twice")
        wait_until(lambda: state(node, "twice")["lastConnectTime"] > before, what="the second")
        assert "lastDisconnectTime" not in state(node, "twice")


def test_the_controller_dies(node: Server) -> None:
    """What was told stays; sessions that outlive it are not new ones; the silent go silent."""
    for name in ("stays", "goes"):
        node.add_device(name)
    with Wire(node.mqtt_port) as stays:
        stays.open("stays").publish('{"ts":1,"values":{"a":1}}')
        with Wire(node.mqtt_port) as goes:
            goes.open("goes").publish('{"ts":1,"values":{"a":1}}')
        wait_until(lambda: state(node, "goes").get("lastDisconnectTime"), what="it is told")
        before = state(node, "stays"), state(node, "goes")
        assert before[0]["active"] is True and before[1]["active"] is True
        was = node.kill9("controller")
        wait_until(lambda: _controller(node) not in (0, was), what="it is back")
        after = state(node, "stays"), state(node, "goes")
        assert after[0]["lastConnectTime"] == before[0]["lastConnectTime"]
        assert after[1]["lastConnectTime"] == before[1]["lastConnectTime"]
        assert after[1]["lastDisconnectTime"] == before[1]["lastDisconnectTime"]
        for older, newer in zip(before, after, strict=True):
            assert newer["lastActivityTime"] >= older["lastActivityTime"]
        wait_until(lambda: state(node, "goes")["active"] is False, what="the silent one is noticed")


def _controller(node: Server) -> int:
    try:
        return node.pids()["controller"]
    except OSError:
        return 0
