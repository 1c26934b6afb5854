"""Telemetry that people save in a device's name (REST spec 7): rows like those of the device."""

import json
import re
import select
import urllib.request

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire


def path(server: Server, device: str, scope: str = "ANY") -> str:
    return f"/api/plugins/telemetry/DEVICE/{server.device_id(device)}/timeseries/{scope}"


def test_every_form_of_telemetry(server: Server, token: str) -> None:
    where = path(server, token)
    assert server.rest("POST", where, {"ts": 5, "values": {"a": 1, "b": "2.50"}}) == (200, None)
    body = [{"ts": 6, "values": {"a": 2}}, {"ts": 7, "values": {"a": True, "c": {"x": [1]}}}]
    assert server.rest("POST", where + "/3600", body) == (200, None)
    assert server.rest("POST", path(server, token, "LATEST_TELEMETRY"), {"now": 1}) == (200, None)
    assert server.values(token, "a") == [1, 2, True]
    assert server.values(token, "b") == [2.5]
    assert server.values(token, "c") == [{"x": [1]}]
    assert server.values(token, "now") == [1]


@pytest.mark.parametrize("body", [[], {}, 7, "x", {"ts": 1, "values": {}}, {"ts": "x" * 9}])
def test_nothing_to_save(server: Server, token: str, body: object) -> None:
    status, answer = server.rest("POST", path(server, token), body)
    if body == {"ts": "x" * 9}:  # without values it is a key like any other
        assert (status, server.values(token, "ts")) == (200, ["x" * 9])
        return
    assert (status, answer["errorCode"]) == (400, 31)
    assert server.query(token) == {}


def test_the_time_to_live_is_a_number(server: Server, token: str) -> None:
    assert server.rest("POST", path(server, token) + "/3600", {"a": 1}) == (200, None)
    assert server.rest("POST", path(server, token) + "/soon", {"a": 2})[0] == 400
    assert server.values(token, "a") == [1]


def test_no_such_device(server: Server) -> None:
    unknown = "/api/plugins/telemetry/DEVICE/784f394c-42b6-11ec-81d3-0242ac130003/timeseries/ANY"
    assert server.rest("POST", unknown, {"a": 1})[0] == 404


def test_it_is_seen_live(server: Server, token: str) -> None:
    with server.tail(token) as tail:
        assert tail.stdout is not None
        try:
            for ts in range(1, 100):  # the subscription begins at some moment
                server.rest("POST", path(server, token), {"ts": ts, "values": {"a": ts}})
                if select.select([tail.stdout], [], [], 0.2)[0]:
                    break
            assert json.loads(tail.stdout.readline())["key"] == "a"
        finally:
            tail.kill()


def test_it_survives_kills_and_sealing() -> None:
    """Of the controller, whose own journal holds the rows, before and after a run."""
    often = {"TBFAST_SERIES__SEAL_INTERVAL_MS": "1000"}
    with Server(env=often) as server:
        server.add_device("d")
        where = path(server, "d")
        for ts in range(1, 31):
            assert server.rest("POST", where, {"ts": ts, "values": {"n": ts}}) == (200, None)
            if ts % 10 == 0:
                controller = server.kill9("controller")
                wait_until(lambda was=controller: _back(server, was), what="the controller is back")
            if ts == 15:
                wait_until(lambda: _sealed(server) > 0, what="a run is recorded")
        assert server.values("d", "n") == list(range(1, 31))
        assert server.stop() == 0
        stored = json.loads(server.cli("query", "d", "--keys", "n", "--json", "--start", "0"))
        assert sorted(point["value"] for point in stored["n"]) == list(range(1, 31))
        server.start()
        # A device's row of the same time that comes later wins.
        with Wire(server.mqtt_port) as wire:
            wire.open("d").publish('{"ts":30,"values":{"n":300}}')
        assert server.rest("POST", where, {"ts": 31, "values": {"n": 31}}) == (200, None)
        assert server.values("d", "n")[-2:] == [300, 31]


def _back(server: Server, was: int) -> bool:
    try:
        return server.pids()["controller"] != was
    except OSError:
        return False


def _sealed(server: Server) -> int:
    url = f"http://127.0.0.1:{server.http_port}/metrics"
    with urllib.request.urlopen(url) as page:
        (line,) = re.findall(r"^tbfast_sealed_points_total (\d+)", page.read().decode(), re.M)
    return int(line)
