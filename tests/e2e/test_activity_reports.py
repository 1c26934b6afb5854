"""How soon a device's activity shows: ThingsBoard's settings for it, on real nodes (MQTT spec 8.5).

Devices here speak HTTP: a connect would be told at once, whatever the strategy.
"""

import time
from urllib.request import Request, urlopen

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire

NEVER_MS = "3600000"


def node(strategy: str, report_ms: str = NEVER_MS) -> Server:
    return Server(
        env={
            "TB_TRANSPORT_SESSIONS_REPORT_TIMEOUT": report_ms,
            "TB_TRANSPORT_ACTIVITY_REPORTING_STRATEGY": strategy,
        }
    )


def post(
    server: Server,
    token: str,
    path: str = "telemetry",
    body: bytes = b'{"ts":1,"values":{"a":1}}',
) -> int:
    """The time before it was sent, epoch ms."""
    began = time.time_ns() // 1_000_000
    url = f"http://127.0.0.1:{server.http_port}/api/v1/{token}/{path}"
    with urlopen(Request(url, body, {"Content-Type": "application/json"})) as answer:
        assert answer.status == 200
    return began


def last_ms(server: Server, device: str) -> int:
    return int(server.attributes(device, "SERVER_SCOPE").get("lastActivityTime", 0))


def shows(server: Server, device: str, since_ms: int) -> None:
    wait_until(lambda: last_ms(server, device) >= since_ms, what=f"activity of {device} shows")


@pytest.mark.parametrize(("strategy", "again"), [("ALL", True), ("FIRST", False)])
def test_the_first_shows_at_once_and_later_ones_by_strategy(strategy: str, again: bool) -> None:
    with node(strategy) as server:
        for name in ("one", "two"):
            server.add_device(name)
        shows(server, "one", post(server, "one"))
        assert server.attributes("one", "SERVER_SCOPE")["active"] is True
        first = last_ms(server, "one")
        second = post(server, "one")
        shows(server, "two", post(server, "two"))  # so the look has seen both
        if again:
            shows(server, "one", second)
        else:
            assert last_ms(server, "one") == first


def test_first_and_last() -> None:
    with node("FIRST_AND_LAST", "4000") as server:
        server.add_device("one")
        shows(server, "one", post(server, "one"))
        shows(server, "one", post(server, "one"))  # when the period has ended, at the latest


def test_the_last_shows_at_the_end_of_the_period() -> None:
    with node("LAST") as server:
        for name in ("one", "two"):
            server.add_device(name)
        post(server, "one")
        with Wire(server.mqtt_port).open("two"):
            shows(server, "two", 1)
        assert last_ms(server, "one") == 0
        assert server.stop() == 0
        server.start()
        shows(server, "one", 1)  # nothing is forgotten


def test_messages_without_values_are_activity() -> None:
    """Heartbeats of devices, and of sensors that have failed: no row tells of them."""
    with node("ALL") as server:
        for name in ("mqtt", "http", "attributes"):
            server.add_device(name)
        with Wire(server.mqtt_port).open("mqtt") as wire:
            shows(server, "mqtt", 1)
            for payload in ("{}", "[]", '{"temperature":null}'):
                later = last_ms(server, "mqtt") + 1
                wait_until(lambda since=later: time.time_ns() // 1_000_000 > since)
                wire.publish(payload)
                shows(server, "mqtt", later)
        for name, path in (("http", "telemetry"), ("attributes", "attributes")):
            shows(server, name, post(server, name, path, b"{}"))
        assert server.query("mqtt") == server.query("http") == {}
