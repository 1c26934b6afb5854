"""Subscriptions over a WebSocket, on a real node (REST spec 14)."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, unix_connect

from tests.support.server import Server
from tests.support.wire import Wire

PLUGIN = "/api/ws/plugins/telemetry"
GENERAL = "/api/ws"
HOUR = 3_600_000


class Ws:
    """A client; messages in and out are JSON."""

    def __init__(self, server: Server, path: str) -> None:
        self._stack = contextlib.ExitStack()
        self.connection: ClientConnection = self._stack.enter_context(
            unix_connect(str(server.data_dir / "tbfast.sock"), f"ws://localhost{path}")
        )

    def close(self) -> None:
        self._stack.close()

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self, timeout_s: float = 10.0) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.connection.recv(timeout_s))
        return answer

    def data(self) -> Any:
        answer = self.receive()
        assert answer["errorCode"] == 0, answer
        return answer["data"]

    def quiet(self) -> None:
        with pytest.raises(TimeoutError):
            self.connection.recv(0.3)


@pytest.fixture
def ws(server: Server) -> Iterator[Callable[[str], Ws]]:
    opened: list[Ws] = []

    def connect(path: str = PLUGIN) -> Ws:
        opened.append(Ws(server, path))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


@pytest.fixture
def device(server: Server, token: str) -> dict[str, Any]:
    return {"entityType": "DEVICE", "entityId": server.device_id(token)}


@pytest.fixture
def wire(server: Server, token: str) -> Iterator[Wire]:
    with Wire(server.mqtt_port) as wire:
        yield wire.open(token)


def test_latest_values_and_their_changes(
    ws: Callable[..., Ws], device: dict[str, Any], wire: Wire
) -> None:
    wire.publish('{"ts":1000,"values":{"t":41.5,"on":true}}')
    client = ws()
    client.send(tsSubCmds=[{"cmdId": 1, "scope": "LATEST_TELEMETRY", **device}])
    assert client.receive() == {
        "subscriptionId": 1,
        "errorCode": 0,
        "errorMsg": None,
        "data": {"t": [[1000, "41.5"]], "on": [[1000, "true"]]},
        "latestValues": {"t": 1000, "on": 1000},
    }
    # One message of the device is one update; a key that is new comes too.
    wire.publish('{"ts":2000,"values":{"t":42.0,"on":false,"n":73,"o":{"a":["b"]},"s":"x\\"y"}}')
    assert client.data() == {
        "t": [[2000, "42.0"]],
        "on": [[2000, "false"]],
        "n": [[2000, "73"]],
        "o": [[2000, '{"a":["b"]}']],
        "s": [[2000, 'x"y']],
    }
    wire.publish('{"ts":1500,"values":{"t":1}}')  # older than what was seen
    wire.publish('{"ts":2500,"values":{"t":2}}')
    assert client.data() == {"t": [[2500, "2"]]}


def test_an_update_follows_the_acknowledgement_at_once(
    ws: Callable[..., Ws], device: dict[str, Any], wire: Wire
) -> None:
    client = ws()
    client.send(tsSubCmds=[{"cmdId": 1, "keys": "t", **device}])
    assert client.data() == {}
    waits = []
    for ts in range(1, 21):
        wire.publish(json.dumps({"ts": ts, "values": {"t": ts}}))
        acknowledged = time.monotonic()
        assert client.data() == {"t": [[ts, str(ts)]]}
        waits.append(time.monotonic() - acknowledged)
    print(f"acknowledgement to update: median {sorted(waits)[10] * 1000:.1f} ms")


def test_some_keys_and_unsubscribing(
    ws: Callable[..., Ws], device: dict[str, Any], wire: Wire
) -> None:
    client = ws()
    client.send(
        tsSubCmds=[{"cmdId": 1, "keys": "a,b", **device}, {"cmdId": 2, "keys": "c", **device}]
    )
    assert [client.receive()["subscriptionId"] for _ in range(2)] == [1, 2]
    wire.publish('{"ts":1,"values":{"a":1,"c":3,"d":4}}')
    answers = {a["subscriptionId"]: a["data"] for a in (client.receive(), client.receive())}
    assert answers == {1: {"a": [[1, "1"]]}, 2: {"c": [[1, "3"]]}}
    client.send(tsSubCmds=[{"cmdId": 1, "unsubscribe": True, **device}])
    client.send(tsSubCmds=[{"cmdId": 8, "keys": "never", **device}])  # a command later
    assert client.receive()["subscriptionId"] == 8
    wire.publish('{"ts":2,"values":{"a":1,"c":4}}')
    assert client.receive()["subscriptionId"] == 2
    client.send(tsSubCmds=[{"cmdId": 0, "unsubscribe": True, "entityId": ""}])
    client.send(tsSubCmds=[{"cmdId": 9, "keys": "never", **device}])  # a command later
    assert client.receive()["subscriptionId"] == 9
    wire.publish('{"ts":3,"values":{"c":5}}')
    client.quiet()


def test_history_first(ws: Callable[..., Ws], device: dict[str, Any], wire: Wire) -> None:
    for ts in range(1000, 6000, 1000):
        wire.publish(json.dumps({"ts": ts, "values": {"t": ts}}))
    client = ws()
    window = {"startTs": 2000, "timeWindow": HOUR, "keys": "t"}
    client.send(tsSubCmds=[{"cmdId": 1, **window, **device}])
    assert client.data() == {"t": [[ts, str(ts)] for ts in (5000, 4000, 3000, 2000)]}
    wire.publish('{"ts":6000,"values":{"t":6}}')
    assert client.data() == {"t": [[6000, "6"]]}
    history = {"cmdId": 2, "keys": "t", "startTs": 1000, "endTs": 5000, **device}
    client.send(historyCmds=[{**history, "limit": 2}])
    assert client.data() == {"t": [[4000, "4000"], [3000, "3000"]]}
    client.send(historyCmds=[{**history, "interval": 2000, "agg": "SUM"}])
    assert client.data() == {"t": [[2000, "3000"], [4000, "7000"]]}


def test_the_general_form(ws: Callable[..., Ws], device: dict[str, Any], wire: Wire) -> None:
    client = ws(GENERAL)
    client.send(
        cmds=[
            {"type": "TIMESERIES", "cmdId": 1, "keys": "t", **device},
            {"type": "ATTRIBUTES", "cmdId": 2, "scope": "CLIENT_SCOPE", **device},
            {"type": "TIMESERIES_HISTORY", "cmdId": 3, "startTs": 0, "endTs": 9, **device},
            {"type": "ALARM_DATA", "cmdId": 4},
        ]
    )
    answers = [client.receive() for _ in range(4)]
    assert [(a["subscriptionId"], a["errorCode"]) for a in answers] == [
        (1, 0), (2, 0), (3, 0), (4, 2),
    ]  # fmt: skip
    wire.publish('{"ts":1,"values":{"t":1}}')
    assert client.receive()["subscriptionId"] == 1


def test_attributes(
    ws: Callable[..., Ws], server: Server, token: str, device: dict[str, Any], wire: Wire
) -> None:
    server.save_attributes(token, "SHARED_SCOPE", {"a": 1, "b": "x"})
    client = ws()
    client.send(
        attrSubCmds=[
            {"cmdId": 1, "scope": "SHARED_SCOPE", "keys": "a,c", **device},
            {"cmdId": 2, "keys": "a,b,c", **device},  # of every scope
        ]
    )
    first, everything = client.receive(), client.receive()
    assert {key: points[0][1] for key, points in first["data"].items()} == {"a": "1"}
    shared = {key: everything["data"][key][0][1] for key in ("a", "b")}
    assert shared == {"a": "1", "b": "x"}
    wire.publish('{"c":2.5}', topic="v1/devices/me/attributes")  # of another scope
    update = client.receive()
    assert (update["subscriptionId"], update["data"]["c"][0][1]) == (2, "2.5")
    server.delete_attributes(token, "SHARED_SCOPE", "a")
    gone = {a["subscriptionId"]: a["data"] for a in (client.receive(), client.receive())}
    assert gone == {1: {"a": [[0, ""]]}, 2: {"a": [[0, ""]]}}


def test_a_deleted_key(
    ws: Callable[..., Ws], server: Server, device: dict[str, Any], wire: Wire
) -> None:
    wire.publish('{"ts":5,"values":{"t":1,"u":2}}')
    client = ws()
    client.send(tsSubCmds=[{"cmdId": 1, **device}])
    assert client.data() == {"t": [[5, "1"]], "u": [[5, "2"]]}
    where = f"/api/plugins/telemetry/DEVICE/{device['entityId']}/timeseries/delete"
    assert server.rest("DELETE", where + "?keys=t&deleteAllDataForKeys=true") == (200, None)
    assert client.data() == {"t": [[0, ""]]}
    wire.publish('{"ts":4,"values":{"t":7}}')  # news, whatever its time: the key was gone
    assert client.data() == {"t": [[4, "7"]]}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"entityType": "DEVICE", "entityId": "784f394c-42b6-11ec-81d3-0242ac130003"}, 3),
        ({"entityType": "DEVICE", "entityId": "nonsense"}, 3),
        ({"entityType": "ASSET", "entityId": "784f394c-42b6-11ec-81d3-0242ac130003"}, 2),
        ({}, 2),
    ],
)
def test_what_cannot_be_watched(ws: Callable[..., Ws], command: dict[str, Any], code: int) -> None:
    client = ws()
    client.send(tsSubCmds=[{"cmdId": 7, **command}])
    answer = client.receive()
    assert (answer["subscriptionId"], answer["errorCode"]) == (7, code)
    assert answer["errorMsg"]


@pytest.mark.parametrize(
    "command",
    [
        {"scope": "NO_SCOPE"},
        {"scope": "x" * 1000},
    ],
)
def test_bad_scopes(ws: Callable[..., Ws], device: dict[str, Any], command: dict[str, Any]) -> None:
    client = ws()
    client.send(attrSubCmds=[{"cmdId": 7, **device, **command}])
    assert client.receive()["errorCode"] == 2


def test_bad_reads(ws: Callable[..., Ws], device: dict[str, Any]) -> None:
    client = ws()
    span = {"startTs": 0, "endTs": 10_000_000, "keys": "t", **device}
    for bad in ({"agg": "MEDIAN"}, {"limit": -1}, {"agg": "SUM", "interval": 1}):
        client.send(historyCmds=[{"cmdId": 1, **span, **bad}])
        assert client.receive()["errorCode"] == 2, bad


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", '{"tsSubCmds":[7]}', '{"cmds":{"a":1}}'])
def test_a_message_that_is_none(ws: Callable[..., Ws], device: dict[str, Any], text: str) -> None:
    client = ws()
    client.connection.send(text)
    assert client.receive()["errorCode"] == 2
    client.send(tsSubCmds=[{"cmdId": 1, **device}])  # the connection stays
    assert client.data() == {}


def test_frames_that_end_the_connection(ws: Callable[..., Ws]) -> None:
    for frame, code in ((b"binary", 1003), ("x" * 40_000, 1009)):
        client = ws()
        client.connection.send(frame)
        with pytest.raises(ConnectionClosed) as closed:
            client.connection.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == code


def test_too_many_subscriptions(ws: Callable[..., Ws], device: dict[str, Any]) -> None:
    client = ws()
    for start in range(0, 1_100, 100):
        with contextlib.suppress(ConnectionClosed):
            client.send(
                attrSubCmds=[{"cmdId": n, **device, "keys": "k"} for n in range(start, start + 100)]
            )
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            client.connection.recv(10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_a_slow_reader_is_cut_off(server: Server, token: str, device: dict[str, Any]) -> None:
    """It reads nothing while megabytes are due to it; another client notices nothing."""
    with (
        Wire(server.mqtt_port) as wire,
        contextlib.closing(Ws(server, PLUGIN)) as other,
        socket.socket(socket.AF_UNIX) as slow,
    ):
        wire.open(token)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow.settimeout(30)
        slow.connect(str(server.data_dir / "tbfast.sock"))
        slow.sendall(
            b"GET /api/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert b" 101 " in slow.recv(4_096)
        text = json.dumps({"tsSubCmds": [{"cmdId": 1, **device}]}).encode()
        slow.sendall(bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text)
        assert slow.recv(4_096)  # it is subscribed
        other.send(tsSubCmds=[{"cmdId": 1, "keys": "n", **device}])
        assert other.data() == {}
        blob = "x" * 50_000
        for ts in range(1, 200):
            wire.publish(json.dumps({"ts": ts, "values": {"n": ts, "blob": blob}}))
            assert other.data() == {"n": [[ts, str(ts)]]}
        received = 0
        with contextlib.suppress(ConnectionError):
            while more := slow.recv(1 << 20):
                received += len(more)
        assert received < 6 << 20  # of ten megabytes; the rest was never kept for it


@pytest.mark.parametrize("list_", ["tsSubCmds", "attrSubCmds"])
def test_a_device_that_goes_while_it_is_read(own_server: Server, list_: str) -> None:
    """The end of a subscription is the last that is told of it."""
    own_server.add_device("d")
    device_id = own_server.device_id("d")
    with contextlib.closing(Ws(own_server, PLUGIN)) as client:
        client.send(historyCmds=[{"cmdId": 1, "entityType": "DEVICE", "entityId": device_id}])
        assert client.data() == {}  # let in, and looking for changes
        with own_server.paused("worker-0"):  # a read waits for what it has acknowledged
            command = {"cmdId": 2, "entityType": "DEVICE", "entityId": device_id}
            client.send(**{list_: [command]})
            time.sleep(0.2)
            assert own_server.rest("DELETE", f"/api/device/{device_id}") == (200, None)
            assert client.receive()["errorCode"] == 3
        client.send(historyCmds=[{**command, "cmdId": 3}])
        assert client.receive()["subscriptionId"] == 3


def test_subscriptions_survive_sealing(own_server: Server) -> None:
    own_server.add_device("d")
    device = {"entityType": "DEVICE", "entityId": own_server.device_id("d")}
    client = Ws(own_server, PLUGIN)
    with contextlib.closing(client), Wire(own_server.mqtt_port) as wire:
        wire.open("d")
        client.send(tsSubCmds=[{"cmdId": 1, **device}])
        assert client.data() == {}
        for ts in range(1, 50):
            wire.publish(json.dumps({"ts": ts, "values": {"t": ts}}))
            assert client.data() == {"t": [[ts, str(ts)]]}
        assert own_server.stop() == 0
        with pytest.raises(ConnectionClosed):
            client.connection.recv(10)
