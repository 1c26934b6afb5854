"""Entity subscriptions over a WebSocket, on a real node (REST spec 14.5)."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.test_websocket import GENERAL, PLUGIN, Ws
from tests.support.server import Server
from tests.support.wire import Wire

ONE = {"pageSize": 1, "page": 0}
DEVICES = {"type": "entityType", "entityType": "DEVICE"}

_numbers = itertools.count(1)


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
def pair(server: Server) -> list[str]:
    number = next(_numbers)
    return [server.add_device(f"entity-{number}-{letter}") for letter in "ab"]


def query(server: Server, names: list[str], **more: Any) -> dict[str, Any]:
    return {
        "entityFilter": {
            "type": "entityList",
            "entityType": "DEVICE",
            "entityList": [server.device_id(name) for name in names],
        },
        "entityFields": [{"type": "ENTITY_FIELD", "key": "name"}],
        "pageLink": {"pageSize": 10, "page": 0},
        **more,
    }


def latest(*keys: str, type_: str = "TIME_SERIES") -> dict[str, Any]:
    return {"keys": [{"type": type_, "key": key} for key in keys]}


def test_values_and_their_changes(ws: Callable[..., Ws], server: Server, pair: list[str]) -> None:
    """What ThingsBoard's monitoring service asks for."""
    with Wire(server.mqtt_port) as a, Wire(server.mqtt_port) as b:
        a.open(pair[0]).publish('{"ts":1000,"values":{"testData":42.5,"other":1}}')
        b.open(pair[1])
        client = ws()
        client.send(
            entityDataCmds=[
                {"cmdId": 1, "query": query(server, pair), "latestCmd": latest("testData")}
            ]
        )
        answer = client.receive()
        assert (answer["cmdId"], answer["errorCode"], answer["update"]) == (1, 0, None)
        assert answer["cmdUpdateType"] == "ENTITY_DATA"
        page = answer["data"]
        assert (page["totalElements"], page["hasNext"]) == (2, False)
        by_name = {
            one["latest"]["ENTITY_FIELD"]["name"]["value"]: one["latest"]["TIME_SERIES"]
            for one in page["data"]
        }
        assert by_name == {
            pair[0]: {"testData": {"ts": 1000, "value": "42.5"}},
            pair[1]: {"testData": {"ts": 0, "value": ""}},
        }
        b.publish('{"ts":2000,"values":{"testData":true,"other":2}}')
        update = client.receive()
        assert (update["cmdId"], update["data"]) == (1, None)
        (one,) = update["update"]
        assert one["entityId"]["id"] == server.device_id(pair[1])
        assert one["latest"] == {"TIME_SERIES": {"testData": {"ts": 2000, "value": "true"}}}
        a.publish('{"ts":500,"values":{"testData":1}}')  # older than what was shown
        client.send(entityDataUnsubscribeCmds=[{"cmdId": 1}])
        client.send(entityCountCmds=[{"cmdId": 2, "query": query(server, pair)}])
        assert client.receive() == {
            "cmdId": 2, "count": 2, "cmdUpdateType": "COUNT_DATA", "errorCode": 0, "errorMsg": None,
        }  # fmt: skip
        a.publish('{"ts":3000,"values":{"testData":7}}')
        client.quiet()


def test_the_query_first_and_the_values_later(
    ws: Callable[..., Ws], server: Server, pair: list[str]
) -> None:
    with Wire(server.mqtt_port) as a:
        a.open(pair[0])
        for ts in (1000, 2000, 3000):
            a.publish(json.dumps({"ts": ts, "values": {"t": ts}}))
        client = ws(GENERAL)
        client.send(cmds=[{"type": "ENTITY_DATA", "cmdId": 5, "query": query(server, [pair[0]])}])
        assert client.receive()["data"]["totalElements"] == 1
        flow = {"keys": ["t"], "startTs": 1500, "timeWindow": 3_600_000, "limit": 10, "agg": "NONE"}
        client.send(cmds=[{"type": "ENTITY_DATA", "cmdId": 5, "tsCmd": flow}])
        answer = client.receive()
        assert answer["data"] is None
        (one,) = answer["update"]
        assert one["timeseries"] == {
            "t": [{"ts": 3000, "value": "3000"}, {"ts": 2000, "value": "2000"}]
        }
        a.publish('{"ts":4000,"values":{"t":4}}')
        (one,) = client.receive()["update"]
        assert one["timeseries"] == {"t": [{"ts": 4000, "value": "4"}]}
        past = {"keys": ["t"], "startTs": 0, "endTs": 4000, "interval": 4000, "agg": "COUNT"}
        client.send(cmds=[{"type": "ENTITY_DATA", "cmdId": 5, "historyCmd": past}])
        (one,) = client.receive()["update"]
        assert one["timeseries"] == {"t": [{"ts": 2000, "value": "3"}]}


def test_a_command_takes_the_place_of_the_one_before(
    ws: Callable[..., Ws], server: Server, pair: list[str]
) -> None:
    """Asked again for the same, a client is told once of each change (as ThingsBoard)."""
    flow = {"keys": ["t"], "startTs": 0, "timeWindow": 3_600_000, "limit": 10, "agg": "NONE"}
    with Wire(server.mqtt_port) as a:
        a.open(pair[0])
        client = ws()
        client.send(entityDataCmds=[{"cmdId": 1, "query": query(server, [pair[0]])}])
        assert client.receive()["data"]["totalElements"] == 1
        for again in ({"latestCmd": latest("t", "u")}, {"latestCmd": latest("t"), "tsCmd": flow}):
            for _ in range(3):
                client.send(entityDataCmds=[{"cmdId": 1, **again}])
                assert len(client.receive()["update"]) == 1
        a.publish('{"ts":1000,"values":{"t":1,"u":1}}')
        told = [client.receive()["update"][0] for _ in range(2)]
        point = {"ts": 1000, "value": "1"}
        assert {"TIME_SERIES": {"t": point}} in [one["latest"] for one in told]
        assert {"t": [point]} in [one["timeseries"] for one in told]
        client.quiet()


def test_attributes_of_every_scope(ws: Callable[..., Ws], server: Server, pair: list[str]) -> None:
    server.save_attributes(pair[0], "SHARED_SCOPE", {"limit": 5})
    client = ws()
    command = {
        "cmdId": 1,
        "query": query(server, pair),
        "latestCmd": latest("limit", type_="SHARED_ATTRIBUTE"),
    }
    client.send(entityDataCmds=[command])
    values = {
        one["entityId"]["id"]: one["latest"]["SHARED_ATTRIBUTE"]["limit"]["value"]
        for one in client.receive()["data"]["data"]
    }
    ids = [server.device_id(name) for name in pair]
    assert values == {ids[0]: "5", ids[1]: ""}
    server.save_attributes(pair[1], "SERVER_SCOPE", {"limit": 1})  # another scope
    server.save_attributes(pair[1], "SHARED_SCOPE", {"limit": 6, "more": 1})
    (one,) = client.receive()["update"]
    assert one["entityId"]["id"] == ids[1]
    assert one["latest"]["SHARED_ATTRIBUTE"]["limit"]["value"] == "6"


def test_a_count_follows(ws: Callable[..., Ws], server: Server, pair: list[str]) -> None:
    """Told of each change of the registry; nothing is polled for it."""
    name = pair[0][:-1]
    wanted = {
        "entityFilter": {"type": "entityName", "entityType": "DEVICE", "entityNameFilter": name}
    }
    client = ws()
    client.send(entityCountCmds=[{"cmdId": 1, "query": wanted}])
    assert client.receive()["count"] == 2
    server.add_device(name + "c")
    assert client.receive()["count"] == 3
    server.remove_device(name + "c")
    assert client.receive()["count"] == 2
    client.send(entityCountUnsubscribeCmds=[{"cmdId": 1}])
    server.add_device(name + "d")
    client.quiet()


def test_a_count_by_values_follows(ws: Callable[..., Ws], server: Server, pair: list[str]) -> None:
    """Looked at every ten seconds, for values change without the registry."""
    condition = {
        "key": {"type": "SERVER_ATTRIBUTE", "key": "on"},
        "valueType": "BOOLEAN",
        "predicate": {"type": "BOOLEAN", "operation": "EQUAL", "value": {"defaultValue": True}},
    }
    client = ws()
    wanted = {**query(server, pair), "keyFilters": [condition]}
    client.send(entityCountCmds=[{"cmdId": 1, "query": wanted}])
    assert client.receive()["count"] == 0
    server.save_attributes(pair[0], "SERVER_SCOPE", {"on": True})
    assert client.receive(30)["count"] == 1


@pytest.mark.parametrize(
    "command",
    [
        {"query": {"entityFilter": {"type": "apiUsageState"}, "pageLink": ONE}},
        {"query": {"entityFilter": DEVICES, "pageLink": {"pageSize": 100_000, "page": 0}}},
        {"query": 7},
        {"latestCmd": latest("a")},
        {"tsCmd": {"keys": 5}},
    ],
)  # fmt: skip
def test_what_cannot_be_had(ws: Callable[..., Ws], command: dict[str, Any]) -> None:
    client = ws()
    client.send(entityDataCmds=[{"cmdId": 3, **command}])
    answer = client.receive()
    assert (answer["cmdId"], answer["errorCode"]) == (3, 2)
    assert answer["errorMsg"] and answer["data"] is None
