"""The REST application over a real Unix socket (REST spec 1, 3, 4, 5, 7)."""

import contextlib
import json
import uuid
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tbfast import limits
from tests.support.api import Api, Connection
from tests.support.rest_server import NODE, running_app


@pytest.fixture
def api(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory):
    """One application for tests that only get refusals."""
    with running_app(tmp_path_factory.mktemp("shared") / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


def test_device_shape(api: Api) -> None:
    sent = {
        "name": "A4B72CCDFF33",
        "label": "Room 234",
        "additionalInfo": {"gateway": False},
        "somethingElse": 1,
        "deviceData": {"configuration": {"type": "DEFAULT"}},
    }
    status, made = api("POST", "/api/device", sent, accessToken="T1", entityGroupId="x")
    assert status == 200
    uuid.UUID(made["id"]["id"])
    uuid.UUID(made["tenantId"]["id"])
    assert made["createdTime"] > 1_600_000_000_000
    profile = api("GET", "/api/deviceProfileInfo/default")[1]
    assert made == {
        "id": {"entityType": "DEVICE", "id": made["id"]["id"]},
        "createdTime": made["createdTime"],
        "additionalInfo": {"gateway": False},
        "tenantId": {"entityType": "TENANT", "id": made["tenantId"]["id"]},
        "customerId": {
            "entityType": "CUSTOMER",
            "id": "13814000-1dd2-11b2-8080-808080808080",
        },
        "name": "A4B72CCDFF33",
        "type": "default",
        "label": "Room 234",
        "deviceProfileId": profile["id"],
        "deviceData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
        },
        "firmwareId": None,
        "softwareId": None,
        "externalId": None,
        "version": 1,
    }
    for path, query in (
        (f"/api/device/{made['id']['id']}", {}),
        (f"/api/device/{made['id']['id'].upper()}", {}),
        ("/api/tenant/devices", {"deviceName": "A4B72CCDFF33"}),
        ("/api/tenant/device", {"deviceName": "A4B72CCDFF33"}),
    ):
        assert api("GET", path, **query) == (200, made)


def test_credentials(api: Api) -> None:
    device = api.device("a", accessToken="T1")
    status, secret = api("GET", f"/api/device/{device}/credentials")
    assert status == 200
    assert secret == {
        "id": {"id": secret["id"]["id"]},
        "createdTime": secret["createdTime"],
        "deviceId": {"entityType": "DEVICE", "id": device},
        "credentialsType": "ACCESS_TOKEN",
        "credentialsId": "T1",
        "credentialsValue": None,
        "version": 1,
    }
    status, saved = api("POST", "/api/device/credentials", {**secret, "credentialsId": "T2"})
    assert (status, saved["credentialsId"], saved["version"]) == (200, "T2", 2)
    assert api.error("POST", "/api/device/credentials", secret)[:2] == (409, 35)
    assert saved == api("GET", f"/api/device/{device}/credentials")[1]
    bad = {**saved, "credentialsType": "LWM2M_CREDENTIALS"}
    assert api.error("POST", "/api/device/credentials", bad)[:2] == (400, 31)
    api.device("b", accessToken="taken")
    bad = {**saved, "credentialsId": "taken"}
    assert api.error("POST", "/api/device/credentials", bad)[:2] == (400, 31)


def test_an_empty_access_token_is_none(api: Api) -> None:
    device = api.device("a", accessToken="")
    token = api("GET", f"/api/device/{device}/credentials")[1]["credentialsId"]
    assert len(token) == 20


def test_update_and_delete(api: Api) -> None:
    _, made = api("POST", "/api/device", {"name": "a"})
    status, changed = api("POST", "/api/device", {**made, "name": "b", "label": "L"})
    assert (status, changed["name"], changed["version"]) == (200, "b", 2)
    assert api.error("POST", "/api/device", made)[:2] == (409, 35)
    path = f"/api/device/{made['id']['id']}"
    response, text = api.raw("DELETE", path)
    assert (response.status, text) == (200, b"")
    for method in ("GET", "DELETE"):
        assert api.error(method, path) == (
            404, 32, f"Device with id [{made['id']['id']}] is not found",
        )  # fmt: skip
    unknown = {"name": "c", "id": {"entityType": "DEVICE", "id": str(uuid.uuid1())}}
    assert api.error("POST", "/api/device", unknown)[:2] == (404, 32)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/nothing", (404, 32)),
        ("GET", "/", (404, 32)),
        ("PUT", "/api/device", (405, 31)),
        ("GET", "/api/device/not-a-uuid", (400, 31)),
        ("GET", "/api/tenant/dashboards?pageSize=1&page=0", (404, 32)),
        ("POST", "/api/devices", (404, 32)),
        ("POST", "/api/device/bulk_import", (404, 32)),
        ("GET", "/api/user/settings", (404, 32)),
        ("GET", "/api/tenant/devices?deviceName=none", (404, 32)),
        ("GET", "/api/tenant/device", (400, 31)),
        ("GET", "/api/tenant/customers", (400, 31)),
        ("GET", "/api/devices", (400, 31)),
        ("GET", "/api/deviceProfileInfos/list", (400, 31)),
        ("GET", "/api/tenant/devices", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=1&page=0&sortProperty=active", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=10", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=0&page=0", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=1&page=-1", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=1&page=" + "9" * 5000, (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=1&page=0&sortProperty=x", (400, 31)),
        ("GET", "/api/tenant/devices?pageSize=1&page=0&sortOrder=UP", (400, 31)),
        ("GET", f"/api/plugins/telemetry/DEVICE/{uuid.UUID(int=1)}/keys/timeseries", (404, 32)),
        ("GET", f"/api/plugins/telemetry/ASSET/{uuid.UUID(int=1)}/keys/timeseries", (404, 32)),
        ("GET", "/api/tail?device=nobody", (404, 32)),
    ],
)
def test_errors(shared: Api, method: str, path: str, expected: tuple[int, int]) -> None:
    assert shared.error(method, path)[:2] == expected


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"name":5}', b'{"label":"x"}', b'{"name":""}', b"\xff",
        b'{"name":"\xff"}', b'{"name":"a","additionalInfo":[]}', b'{"name":"a","id":{"id":"x"}}',
        b'{"name":"a","deviceProfileId":{"id":"x"}}', b'{"name":"\\ud800"}',
        b'{"name":"a","additionalInfo":{"a":1e999}}',
        b'{"name":"a","additionalInfo":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    ],
)  # fmt: skip
def test_bad_bodies(shared: Api, body: bytes) -> None:
    before = shared.app.registry.revision
    response, text = shared.raw("POST", "/api/device", body)
    assert (response.status, json.loads(text)["errorCode"]) == (400, 31)
    assert shared.app.registry.revision == before


def test_a_body_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REST_BODY_BYTES", 100)
    with running_app(tmp_path / "data") as app:
        for body in (b'{"name":"' + b"x" * 100 + b'"}', iter([b'{"name":"', b"x" * 100])):
            with contextlib.closing(Connection(app.layout.api)) as connection:
                connection.request("POST", "/api/device", body)
                response = connection.getresponse()
                assert response.status == 413
                assert json.loads(response.read())["errorCode"] == 31


def test_pages(api: Api) -> None:
    ids = sorted(api.device(f"d{i:03}") for i in range(300))
    seen: list[str] = []
    for page in range(4):
        status, body = api("GET", "/api/tenant/devices", pageSize=100, page=page)
        assert status == 200
        seen += [device["id"]["id"] for device in body["data"]]
        assert (body["totalPages"], body["totalElements"]) == (3, 300)
        assert body["hasNext"] is (page < 2)
    assert seen == ids
    status, body = api("GET", "/api/tenant/devices", pageSize=2**31 - 1, page=0)
    assert len(body["data"]) == 300
    status, body = api(
        "GET", "/api/tenant/devices", pageSize=2, page=0, textSearch="D29",
        sortProperty="name", sortOrder="DESC",
    )  # fmt: skip
    assert [device["name"] for device in body["data"]] == ["d299", "d298"]
    assert body["totalElements"] == 10


def test_profile_infos(api: Api) -> None:
    api("POST", "/api/device", {"name": "m", "type": "meter"})
    status, body = api("GET", "/api/deviceProfileInfos", pageSize=10, page=0)
    assert status == 200
    assert {profile["name"] for profile in body["data"]} == {"default", "meter"}
    assert body["totalElements"] == 2
    first = body["data"][0]
    assert first.keys() == {
        "id", "tenantId", "name", "image", "defaultDashboardId", "type", "transportType",
    }  # fmt: skip
    assert api("GET", "/api/deviceProfileInfos", pageSize=1, page=1)[1]["hasNext"] is False


VALUES = ("42.5", "73", "true", '"te\\"xt"', '{"a":"b"}', "[1]", '"42"', "1e300")
STRINGS = ["42.5", "73", "true", 'te"xt', '{"a":"b"}', "[1]", "42", "1e300"]


@pytest.fixture
def telemetry(api: Api):
    device = api.device("a")
    number = api.number(device)
    for ts, value in enumerate(VALUES):
        api.app.series.put(number, "mixed", 1000 + ts, value)
    api.app.series.put(number, "a,b", 5, "1")
    return f"/api/plugins/telemetry/DEVICE/{device}"


def test_series_keys(api: Api, telemetry: str) -> None:
    assert api("GET", telemetry + "/keys/timeseries") == (200, ["a,b", "mixed"])


def test_latest(api: Api, telemetry: str) -> None:
    path = telemetry + "/values/timeseries"
    assert api("GET", path) == (
        200, {"a,b": [{"ts": 5, "value": "1"}], "mixed": [{"ts": 1007, "value": "1e300"}]},
    )  # fmt: skip
    status, body = api("GET", path, keys="mixed,none", useStrictDataTypes="true")
    assert body["mixed"] == [{"ts": 1007, "value": 1e300}]
    assert body["none"][0]["value"] is None
    assert body["none"][0]["ts"] > 1_600_000_000_000
    assert api("GET", path, keys="none")[1]["none"][0]["value"] is None
    assert api("GET", path, key="a,b")[1] == {"a,b": [{"ts": 5, "value": "1"}]}
    # ThingsBoard: one end alone is no range.
    assert api("GET", path, startTs=1)[1].keys() == {"a,b", "mixed"}
    assert status == 200


def test_history(api: Api, telemetry: str) -> None:
    path = telemetry + "/values/timeseries"
    status, body = api("GET", path, keys="mixed,none", startTs=0, endTs=5000)
    assert status == 200
    assert [point["value"] for point in body["mixed"]] == STRINGS[::-1]
    assert body.keys() == {"mixed"}
    strict = api("GET", path, keys="mixed", startTs=0, endTs=5000, useStrictDataTypes="true")[1]
    assert [point["value"] for point in strict["mixed"]] == [json.loads(v) for v in VALUES[::-1]]
    inner = api("GET", path, keys="mixed", startTs=1001, endTs=1003, orderBy="ASC")[1]
    assert [point["ts"] for point in inner["mixed"]] == [1001, 1002]
    limited = api("GET", path, startTs=0, endTs=5000, limit=2)[1]
    assert [point["ts"] for point in limited["mixed"]] == [1007, 1006]
    assert api("GET", path, startTs=10, endTs=10)[1] == {}
    both = api("GET", path, key=["a,b", "mixed"], startTs=0, endTs=6)[1]
    assert both.keys() == {"a,b"}


def test_history_path_takes_open_ends(api: Api, telemetry: str) -> None:
    path = telemetry + "/values/timeseries/history"
    assert len(api("GET", path, keys="mixed")[1]["mixed"]) == 8
    assert len(api("GET", path, keys="mixed", startTs=1006)[1]["mixed"]) == 2
    assert len(api("GET", path, keys="mixed", endTs=1006)[1]["mixed"]) == 6
    assert len(api("GET", path, keys="mixed", agg="AVG", interval=0)[1]["mixed"]) == 8


def test_long_history_as_strings(api: Api) -> None:
    device = api.device("a")
    number = api.number(device)
    for ts in range(5000):
        api.app.series.put(number, "k", ts, str(ts))
    path = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
    body = api("GET", path, keys="k", startTs=0, endTs=9999, limit=5000, orderBy="ASC")[1]
    assert body["k"] == [{"ts": ts, "value": str(ts)} for ts in range(5000)]


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0}, {"limit": "x"}, {"orderBy": "UP"}, {"useStrictDataTypes": "perhaps"},
        {"agg": "MEDIAN"}, {"agg": "AVG", "interval": 1000, "endTs": 10**7}, {"startTs": "x"},
        {"agg": "AVG", "intervalType": "DECADE"}, {"endTs": 1 << 63},
    ],
)  # fmt: skip
def test_bad_history(shared: Api, query: dict[str, object]) -> None:
    device = shared.device(f"for {query}")
    path = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
    assert shared.error("GET", path, **{"startTs": 0, "endTs": 9, **query})[:2] == (400, 31)


def test_node(api: Api) -> None:
    status, body = api("GET", "/api/node")
    assert status == 200
    assert (body["version"], body["supervisorPid"]) == (NODE.version, NODE.supervisor_pid)
    assert body["workers"][0] == {
        "index": 0, "pid": 11, "state": "serving", "connections": 2, "journalBytes": 77,
    }  # fmt: skip


def tail(api: Api, **query: object):
    connection = Connection(api.app.layout.api)
    connection.request("GET", "/api/tail?" + urlencode(query))
    response = connection.getresponse()
    assert response.getheader("content-type") == "application/x-ndjson"
    return connection, response


def row(number: int, value: str) -> bytes:
    return b'{"device":%d,"ts":5,"key":"k","value":%s}\n' % (number, value.encode())


def publish(api: Api, number: int, lines: bytes) -> None:
    async def run() -> None:
        api.app.feed.publish(number, lines)

    api.app.call(run())


def test_tail_names_devices(api: Api) -> None:
    first, second = api.device("a"), api.device("b")
    connection, response = tail(api)
    api.app.call(api.app.feed.subscribers(1))
    publish(api, 1, row(1, '{"x":1.50}') + row(2, "true"))
    lines = [json.loads(response.readline()) for _ in range(2)]
    assert lines == [
        {"device": "a", "id": first, "ts": 5, "key": "k", "value": {"x": 1.5}},
        {"device": "b", "id": second, "ts": 5, "key": "k", "value": True},
    ]
    api("POST", "/api/device", {"name": "renamed", "id": {"id": first}})
    api("DELETE", f"/api/device/{second}")
    publish(api, 1, row(2, "1"))
    publish(api, 1, row(1, "2"))
    assert json.loads(response.readline())["device"] == "renamed"
    api.app.loop.call_soon_threadsafe(api.app.feed.end)
    assert response.readline() == b""
    connection.close()


def test_tail_that_reads_too_slowly_ends_cleanly(api: Api) -> None:
    connection, response = tail(api)
    api.app.call(api.app.feed.subscribers(1))
    api.app.loop.call_soon_threadsafe(api.app.feed.too_slow)
    assert response.read() == b""
    api.app.call(api.app.feed.subscribers(0))
    connection.close()


def test_tail_of_one_device_by_name_or_id(api: Api) -> None:
    api.device("a")
    second = api.device("b")
    for text in ("b", second):
        connection, response = tail(api, device=text)
        api.app.call(api.app.feed.subscribers(1))
        publish(api, 1, row(1, "1"))
        publish(api, 2, row(2, "2"))
        assert json.loads(response.readline())["value"] == 2
        connection.close()
        response.close()
        api.app.call(api.app.feed.subscribers(0))
