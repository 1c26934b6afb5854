"""Answers of a WebSocket that are long: told or refused, but no reason to cut a client off."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, unix_connect

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
