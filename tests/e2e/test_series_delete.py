"""Deleting stored telemetry over REST and on the command line (REST spec 7)."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cli import Cli, put
from tests.e2e.test_rest import Api
from tests.support.rest_server import RunningApp, running_app


@pytest.fixture
def app(tmp_path: Path) -> Iterator[RunningApp]:
    with running_app(tmp_path / "data") as app:
        put(app, "d", {key: {ts: str(ts) for ts in (1, 2, 3)} for key in ("a", "b", "x,y")})
        yield app


@pytest.fixture
def api(app: RunningApp) -> Iterator[Api]:
    api = Api(app)
    yield api
    api.connection.close()


@pytest.fixture
def path(api: Api) -> str:
    device = api("GET", "/api/tenant/devices", deviceName="d")[1]["id"]["id"]
    return f"/api/plugins/telemetry/DEVICE/{device}/timeseries/delete"


def left(app: RunningApp) -> dict[str, list[int]]:
    (stored,) = app.series.points.values()
    return {key: sorted(points) for key, points in stored.items() if points}


def test_a_range_of_keys(api: Api, path: str) -> None:
    assert api("DELETE", path, key=["a", "x,y"], startTs=2, endTs=3) == (200, None)
    assert left(api.app) == {"a": [1, 3], "b": [1, 2, 3], "x,y": [1, 3]}
    assert api.app.series.deleted == [(True, False)]


def test_all_data_of_keys(api: Api, path: str) -> None:
    how = {"deleteAllDataForKeys": "true", "deleteLatest": "false"}
    assert api("DELETE", path, keys="a,b", rewriteLatestIfDeleted="true", **how) == (200, None)
    assert left(api.app) == {"x,y": [1, 2, 3]}
    assert api.app.series.deleted == [(False, True)]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"keys": ",", "deleteAllDataForKeys": "true"},
        {"keys": "a"},
        {"keys": "a", "startTs": 1},
        {"keys": "a", "endTs": 1},
        {"keys": "a", "startTs": "x", "endTs": 1},
        {"keys": "a", "deleteAllDataForKeys": "yes"},
        {"keys": "a", "deleteAllDataForKeys": "true", "deleteLatest": "1"},
    ],
)
def test_refused(api: Api, path: str, query: dict[str, object]) -> None:
    assert api.error("DELETE", path, **query)[:2] == (400, 31)
    assert len(left(api.app)["a"]) == 3


def test_an_unknown_device(api: Api, path: str) -> None:
    unknown = f"/api/plugins/telemetry/DEVICE/{uuid.UUID(int=1)}/timeseries/delete"
    assert api.error("DELETE", unknown, keys="a", deleteAllDataForKeys="true")[:2] == (404, 32)


# --- command line ----------------------------------------------------------------------------


def test_command(app: RunningApp, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    words = ("series", "delete", "d", "--keys", "a,none", "--start", "2", "--end", "4", "--yes")
    assert cli.ok(*words, "--json") == '{"device":"d","keys":["a"]}\n'
    assert left(app) == {"a": [1], "b": [1, 2, 3], "x,y": [1, 2, 3]}
    assert cli.ok("series", "delete", "d", "--yes") == "deleted points of 3 keys of d\n"
    assert left(app) == {}
    assert cli.ok("series", "delete", "d", "--yes") == "deleted points of 0 keys of d\n"


def test_command_refused(app: RunningApp, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    assert "--start and --end" in cli.fails(2, "series", "delete", "d", "--start", "1")
    assert "--keys names no key" in cli.fails(2, "series", "delete", "d", "--keys", ",")
    assert "add --yes" in cli.fails(2, "series", "delete", "d")
    cli.fails(3, "series", "delete", "none", "--yes")
    assert len(left(app)) == 3


def test_command_without_a_server(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    cli.ok("device", "add", "d")
    assert "tbfast serve" in cli.fails(4, "series", "delete", "d", "--yes")
