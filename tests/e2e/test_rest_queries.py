"""Entity queries, keys of devices, ready commands over REST (REST spec 3, 5, 11)."""

import json
import shlex
import uuid
from pathlib import Path

import pytest

from tbfast import limits
from tests.support.api import Api
from tests.support.rest_server import running_app

NOBODY = str(uuid.UUID(int=1))
FIND, COUNT = "/api/entitiesQuery/find", "/api/entitiesQuery/count"
ALL = {"type": "entityType", "entityType": "DEVICE"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory):
    """Devices d0 ... d5; dN has t = N * 1.5 (not d5), shared n = "N", server on = N is even."""
    with running_app(tmp_path_factory.mktemp("queries") / "data") as app:
        api = Api(app)
        for n in range(6):
            body = {"name": f"d{n}", "label": f"Hall {n % 2}", "type": "a" if n < 4 else "b"}
            device = api.done("POST", "/api/device", body)["id"]["id"]
            if n < 5:
                app.series.put(api.number(device), "t", 1000 + n, json.dumps(n * 1.5))
            path = f"/api/plugins/telemetry/DEVICE/{device}"
            api.done("POST", path + "/SHARED_SCOPE", {"n": f"N{n}"})
            api.done("POST", path + "/SERVER_SCOPE", {"on": n % 2 == 0})
        yield api
        api.connection.close()


def key(type_: str, name: str) -> dict[str, str]:
    return {"type": type_, "key": name}


T, NAME = key("TIME_SERIES", "t"), key("ENTITY_FIELD", "name")
ON, SHARED = key("SERVER_ATTRIBUTE", "on"), key("SHARED_ATTRIBUTE", "n")


def condition(what: dict[str, str], kind: str, operation: str, value: object, **more: object):
    predicate = {
        "type": kind, "operation": operation,
        "value": {"defaultValue": value, "userValue": None, "dynamicValue": None}, **more,
    }  # fmt: skip
    return {"key": what, "valueType": kind, "predicate": predicate}


def names(api: Api, filter_: object = ALL, *conditions: object, **link: object) -> list[str]:
    operation = link.pop("operation", "AND")
    query = {
        "entityFilter": filter_,
        "entityFields": [NAME],
        "keyFilters": list(conditions),
        "keyFiltersOperation": operation,
        "pageLink": {
            "pageSize": 100, "page": 0,
            "sortOrder": {"key": NAME, "direction": "ASC"}, "dynamic": False, **link,
        },
    }  # fmt: skip
    page = api.done("POST", FIND, query)
    found = [row["latest"]["ENTITY_FIELD"]["name"]["value"] for row in page["data"]]
    if not link:
        assert api.done("POST", COUNT, query) == page["totalElements"] == len(found)
    return found


def id_of(api: Api, name: str) -> str:
    return api.done("GET", "/api/tenant/device", deviceName=name)["id"]["id"]


def test_shape(api: Api) -> None:
    device = id_of(api, "d3")
    query = {
        "entityFilter": {"type": "entityList", "entityType": "DEVICE", "entityList": [device]},
        "entityFields": [NAME, key("ENTITY_FIELD", "label"), key("ENTITY_FIELD", "colour")],
        "latestValues": [T, ON, key("ATTRIBUTE", "n"), key("CLIENT_ATTRIBUTE", "n")],
        "pageLink": {"pageSize": 10, "page": 0, "textSearch": None, "dynamic": False},
    }
    page = api.done("POST", FIND, query)
    latest = page["data"][0]["latest"]
    stamps = [latest["SERVER_ATTRIBUTE"]["on"].pop("ts"), latest["ATTRIBUTE"]["n"].pop("ts")]
    assert all(ts > 1_600_000_000_000 for ts in stamps)
    assert page == {
        "data": [
            {
                "entityId": {"entityType": "DEVICE", "id": device},
                "latest": {
                    "ENTITY_FIELD": {
                        "name": {"ts": 0, "value": "d3"},
                        "label": {"ts": 0, "value": "Hall 1"},
                        "colour": {"ts": 0, "value": ""},
                    },
                    "TIME_SERIES": {"t": {"ts": 1003, "value": "4.5"}},
                    "SERVER_ATTRIBUTE": {"on": {"value": "false"}},
                    "ATTRIBUTE": {"n": {"value": "N3"}},
                    "CLIENT_ATTRIBUTE": {"n": {"ts": 0, "value": ""}},
                },
                "timeseries": {},
                "aggLatest": {},
            }
        ],
        "totalPages": 1, "totalElements": 1, "hasNext": False,
    }  # fmt: skip


def test_entity_filters(api: Api) -> None:
    first, last = id_of(api, "d0"), id_of(api, "d5")
    single = {"type": "singleEntity", "singleEntity": {"entityType": "DEVICE", "id": first}}
    listed = {"type": "entityList", "entityType": "DEVICE", "entityList": [last, first, NOBODY]}
    named = {"type": "entityName", "entityType": "DEVICE", "entityNameFilter": "D"}
    assert names(api, single) == ["d0"]
    assert names(api, listed) == ["d0", "d5"]
    assert len(names(api, named)) == 6
    assert names(api, {**named, "entityNameFilter": "%4"}) == ["d4"]
    assert names(api, {**named, "entityNameFilter": "x"}) == []
    assert len(names(api)) == 6
    assert names(api, {"type": "deviceType", "deviceTypes": ["b", "b"]}) == ["d4", "d5"]
    typed = {"type": "deviceType", "deviceType": "a", "deviceNameFilter": "d2"}
    assert names(api, typed) == ["d2"]
    assert names(api, {"type": "deviceType", "deviceTypes": ["none"]}) == []


def test_conditions(api: Api) -> None:
    assert names(api, ALL, condition(T, "NUMERIC", "GREATER", 3)) == ["d3", "d4"]
    assert names(api, ALL, condition(T, "NUMERIC", "LESS_OR_EQUAL", 1.5)) == ["d0", "d1"]
    assert names(api, ALL, condition(T, "NUMERIC", "NOT_EQUAL", 0)) == ["d1", "d2", "d3", "d4"]
    assert names(api, ALL, condition(ON, "BOOLEAN", "EQUAL", True)) == ["d0", "d2", "d4"]
    assert names(api, ALL, condition(ON, "BOOLEAN", "NOT_EQUAL", True)) == ["d1", "d3", "d5"]
    assert names(api, ALL, condition(SHARED, "STRING", "ENDS_WITH", "4")) == ["d4"]
    case = condition(SHARED, "STRING", "EQUAL", "n4", ignoreCase=True)
    assert names(api, ALL, case) == ["d4"]
    assert names(api, ALL, condition(SHARED, "STRING", "EQUAL", "n4")) == []
    assert names(api, ALL, condition(NAME, "STRING", "IN", "d1, d5,x")) == ["d1", "d5"]
    assert len(names(api, ALL, condition(NAME, "STRING", "NOT_IN", "d1"))) == 5
    assert len(names(api, ALL, condition(NAME, "STRING", "STARTS_WITH", "d"))) == 6
    assert len(names(api, ALL, condition(NAME, "STRING", "CONTAINS", "5"))) == 1
    assert len(names(api, ALL, condition(NAME, "STRING", "NOT_CONTAINS", "5"))) == 5
    both = (condition(T, "NUMERIC", "GREATER", 3), condition(ON, "BOOLEAN", "EQUAL", True))
    assert names(api, ALL, *both) == ["d4"]
    assert names(api, ALL, *both, operation="OR") == ["d0", "d2", "d3", "d4"]
    inner = [condition(T, "NUMERIC", op, value)["predicate"] for op, value in
             (("GREATER", 1), ("LESS", 5))]  # fmt: skip
    between = {"key": T, "predicate": {"type": "COMPLEX", "operation": "AND", "predicates": inner}}
    assert names(api, ALL, between) == ["d1", "d2", "d3"]
    users = condition(T, "NUMERIC", "GREATER", 0)
    users["predicate"]["value"]["userValue"] = 4.5
    assert names(api, ALL, users) == ["d4"]


def test_pages_and_order(api: Api) -> None:
    by_value = {"key": T, "direction": "DESC"}
    assert names(api, sortOrder=by_value) == ["d4", "d3", "d2", "d1", "d0", "d5"]
    assert names(api, sortOrder=by_value, pageSize=2, page=1) == ["d2", "d1"]
    assert names(api, sortOrder=by_value, pageSize=2, page=9) == []
    assert names(api, textSearch="HALL 1") == ["d1", "d3", "d5"]
    assert len(names(api, sortOrder=None, pageSize=2**31 - 1)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"entityFilter": {"type": "relationsQuery"}},
        {"entityFilter": {"type": "entityType", "entityType": "ASSET"}},
        {"entityFilter": {"type": "deviceType"}},
        {"pageLink": {"pageSize": 0, "page": 0}},
        {"pageLink": {"pageSize": 1, "page": -1}},
        {"pageLink": None},
        {"keyFilters": [condition(T, "NUMERIC", "LIKE", 5)]},
        {"keyFilters": [condition(T, "NUMERIC", "EQUAL", "5")]},
        {"keyFilters": [condition(T, "STRING", "EQUAL", 5)]},
        {"keyFilters": [condition(T, "BOOLEAN", "EQUAL", 1)]},
        {"keyFilters": [condition(key("CONSTANT", "x"), "STRING", "EQUAL", "x")]},
    ],
)
def test_queries_that_cannot_be_answered(api: Api, change: dict[str, object]) -> None:
    query = {"entityFilter": ALL, "pageLink": {"pageSize": 1, "page": 0}, **change}
    assert api.error("POST", FIND, query)[:2] == (400, 31)


def test_deep_predicates_are_refused(api: Api) -> None:
    inner = '{"type":"COMPLEX","operation":"AND","predicates":[' * 5000 + "]}" * 5000
    head = f'{{"entityFilter":{json.dumps(ALL)},"keyFilters":[{{"key":{json.dumps(T)}'
    text = f'{head},"predicate":{inner}}}]}}'
    response, _body = api.raw("POST", COUNT, text.encode())
    assert response.status == 400


def test_work_is_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REST_QUERY_DEVICES", 3)
    query = {"entityFilter": ALL, "keyFilters": [condition(T, "NUMERIC", "GREATER", 3)]}
    status, code, message = api.error("POST", COUNT, query)
    assert (status, code) == (400, 31)
    assert "narrow its entityFilter" in message
    query["entityFilter"] = {"type": "deviceType", "deviceTypes": ["b"]}
    assert api.done("POST", COUNT, query) == 1
    assert api.done("POST", COUNT, {"entityFilter": ALL}) == 6


def test_keys(api: Api) -> None:
    path = FIND + "/keys"
    query = {"entityFilter": ALL}
    assert api.done("POST", path, query, timeseries=True, attributes=True) == {
        "entityTypes": ["DEVICE"], "timeseries": ["t"], "attribute": ["n", "on"],
    }  # fmt: skip
    shared = api.done("POST", path, query, attributes=True, scope="SHARED_SCOPE")
    assert (shared["timeseries"], shared["attribute"]) == ([], ["n"])
    assert api.error("POST", path, query, scope="MOON_SCOPE")[:2] == (400, 31)
    base = "/api/deviceProfile/devices/keys"
    assert api.done("GET", base + "/timeseries") == ["t"]
    assert api.done("GET", base + "/attributes") == ["n", "on"]
    default = api.done("GET", "/api/deviceProfileInfo/default")["id"]["id"]
    assert api.done("GET", base + "/timeseries", deviceProfileId=default) == []
    used = api.done("GET", f"/api/device/{id_of(api, 'd0')}")["deviceProfileId"]["id"]
    assert api.done("GET", base + "/attributes", deviceProfileId=used) == ["n", "on"]
    assert api.error("GET", base + "/attributes", deviceProfileId=NOBODY)[:2] == (404, 32)


def test_ready_commands(tmp_path: Path) -> None:
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        token = "to'ken$(rm -rf)"
        device = api.device("d", accessToken=token)
        path = f"/api/device-connectivity/{device}"
        found = api.done("GET", path)
        assert found.keys() == {"http", "mqtt"}
        curl = shlex.split(found["http"]["http"])
        assert curl[4] == "http://localhost:8080/api/v1/to%27ken%24%28rm%20-rf%29/telemetry"
        words = shlex.split(found["mqtt"]["mqtt"])
        assert words[words.index("-u") + 1] == token
        assert words[words.index("-p") + 1] == "1883"
        assert found["mqtt"]["docker"]["mqtt"].endswith(found["mqtt"]["mqtt"])
        secret = api.done("GET", f"/api/device/{device}/credentials")
        basic = {"clientId": "c", "userName": "", "password": ""}
        api.done("POST", "/api/device/credentials", {
            **secret, "credentialsType": "MQTT_BASIC", "credentialsValue": json.dumps(basic),
        })  # fmt: skip
        found = api.done("GET", path)
        assert found.keys() == {"mqtt"}
        assert "-i c" in found["mqtt"]["mqtt"]
        api.connection.close()
