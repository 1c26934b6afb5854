"""Answers of a WebSocket that are long: told or refused, but no reason to cut a client off."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, unix_connect

from tests.support.long_series import KEY, START_MS, points_of, store_series
from tests.support.server import Server

POINTS = 6
BLOB = "x" * 800_000  # six are more than an answer may have


@pytest.fixture
def history(server: Server, token: str) -> dict[str, Any]:
    """A command that reads points of 800 kB each."""
    device = server.device_id(token)
    path = f"/api/plugins/telemetry/DEVICE/{device}/timeseries/ANY"
    for ts in range(1, POINTS + 1):
        body = {"ts": ts, "values": {"blob": BLOB}}
        assert server.rest("POST", path, body) == (200, None)
    return {
        "entityType": "DEVICE", "entityId": device, "keys": "blob", "startTs": 1, "endTs": 100,
    }  # fmt: skip


@pytest.fixture
def peer(server: Server) -> Iterator[ClientConnection]:
    """Reads a message only when it is asked for."""
    socket = str(server.data_dir / "tbfast.sock")
    with unix_connect(socket, "ws://localhost/api/ws", max_size=None, max_queue=1) as peer:
        yield peer


def received(peer: ClientConnection) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(peer.recv(10))
    return answer


def test_an_answer_that_is_too_long_is_an_error(
    peer: ClientConnection, history: dict[str, Any]
) -> None:
    peer.send(json.dumps({"historyCmds": [{"cmdId": 1, **history}]}))
    answer = received(peer)
    assert (answer["subscriptionId"], answer["errorCode"], answer["data"]) == (1, 2, None)
    assert "fewer" in answer["errorMsg"]
    window = {"startTs": 1, "timeWindow": 100}
    peer.send(json.dumps({"tsSubCmds": [{"cmdId": 2, **history, **window}]}))
    assert received(peer)["errorCode"] == 2
    peer.send(json.dumps({"historyCmds": [{"cmdId": 3, **history, "limit": 1}]}))
    assert received(peer)["data"] == {"blob": [[POINTS, BLOB]]}


def test_answers_wait_for_a_client_that_takes_its_time(
    peer: ClientConnection, history: dict[str, Any]
) -> None:
    commands = [{"cmdId": n, **history, "limit": 2} for n in range(8)]
    peer.send(json.dumps({"historyCmds": commands}))
    time.sleep(1)  # nothing is read: most of the thirteen megabytes have nowhere to go
    for n in range(8):
        answer = received(peer)
        assert (answer["subscriptionId"], answer["errorCode"]) == (n, 0)
        assert [ts for ts, _ in answer["data"]["blob"]] == [POINTS, POINTS - 1]


def test_the_devices_of_an_answer_share_its_room(server: Server, peer: ClientConnection) -> None:
    names = [f"blobs {n}" for n in range(3)]
    try:
        for name in names:
            server.add_device(name)
            for ts in range(1, POINTS + 1):
                path = f"/api/plugins/telemetry/DEVICE/{server.device_id(name)}/timeseries/ANY"
                body = {"ts": ts, "values": {"blob": BLOB}}
                assert server.rest("POST", path, body) == (200, None)
        query = {
            "entityFilter": {
                "type": "entityName", "entityType": "DEVICE", "entityNameFilter": "blobs ",
            },
            "pageLink": {"pageSize": 10, "page": 0},
        }  # fmt: skip
        history = {"keys": ["blob"], "startTs": 1, "endTs": 100}

        def asked(limit: int) -> dict[str, Any]:
            command = {"cmdId": 1, "query": query, "historyCmd": {**history, "limit": limit}}
            peer.send(json.dumps({"entityDataCmds": [command]}))
            return received(peer)

        page = asked(1)["data"]["data"]
        assert [one["timeseries"]["blob"][0]["ts"] for one in page] == [POINTS] * 3
        refused = asked(POINTS)
        assert refused["errorCode"] == 2
        assert "fewer devices" in refused["errorMsg"]
    finally:
        for name in names:
            server.remove_device(name)


def test_an_answer_that_will_be_too_long_is_not_made() -> None:
    """A few hundred thousand points are found to be too many before each is an object."""
    points = 400_000
    with Server() as server:
        server.add_device("long")
        device = server.device_id("long")
        assert server.stop() == 0
        store_series(server.data_dir, device, points, points_per_run=40_000, join=False)
        server.start()
        command = {
            "cmdId": 1, "entityType": "DEVICE", "entityId": device, "keys": KEY,
            "startTs": START_MS, "endTs": START_MS + 2_000 * points, "limit": points,
        }  # fmt: skip
        controller = Path(f"/proc/{server.pids()['controller']}")
        socket = str(server.data_dir / "tbfast.sock")
        with unix_connect(socket, "ws://localhost/api/ws", max_size=None) as peer:
            peer.send(json.dumps({"historyCmds": [{**command, "limit": 20_000}]}))
            found = received(peer)["data"][KEY]
            assert [ts for ts, _ in found] == [ts for ts, _ in points_of(points)][:-20_001:-1]
            (controller / "clear_refs").write_text("5")  # the peak is the present now
            before = peak_bytes(controller)
            peer.send(json.dumps({"historyCmds": [command]}))
            refused = received(peer)
            assert (refused["errorCode"], refused["data"]) == (2, None)
            assert "fewer" in refused["errorMsg"]
        assert peak_bytes(controller) - before < 64 << 20


def peak_bytes(process: Path) -> int:
    """Most memory it has had."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", (process / "status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) << 10
