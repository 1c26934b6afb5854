"""`tbfast ota` on a running server, as its users run it."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.e2e.test_cli import Cli
from tests.support.rest_server import UPLOAD_BYTES, RunningApp, running_app

DATA = bytes(range(256)) * 2_000


@pytest.fixture
def app(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        yield app


@pytest.fixture
def cli(app: RunningApp, tmp_path: Path) -> Cli:
    (tmp_path / "fw.bin").write_bytes(DATA)
    (tmp_path / "big.bin").write_bytes(bytes(UPLOAD_BYTES))
    return Cli(tmp_path / "data")


def upload(cli: Cli, title: str, version: str = "1", *words: str) -> str:
    file = str(cli.data_dir.parent / "fw.bin")
    found = cli.ok("ota", "upload", file, "--title", title, "--version", version, *words)
    return found.strip()


def test_the_life_of_a_package(cli: Cli, app: RunningApp) -> None:
    package = upload(cli, "fw", "1", "--checksum", hashlib.sha256(DATA).hexdigest())
    (shown,) = json.loads(cli.ok("ota", "list", "--json"))
    assert shown == {
        "id": package, "type": "FIRMWARE", "title": "fw", "version": "1",
        "createdTime": shown["createdTime"], "size": len(DATA), "checksumAlgorithm": "SHA256",
        "checksum": hashlib.sha256(DATA).hexdigest(),
    }  # fmt: skip
    assert (app.layout.packages / package).read_bytes() == DATA
    assert cli.ok("ota", "list").split("\t")[:4] == ["fw", "1", "firmware", package]
    assert cli.ok("ota", "delete", "fw") == "deleted fw 1\n"
    assert cli.ok("ota", "list") == ""
    assert list(app.layout.packages.iterdir()) == []


def test_giving_and_taking(cli: Cli, app: RunningApp) -> None:
    for name in ("a", "b", "c"):
        cli.ok("device", "add", name)
    first, second = upload(cli, "fw", "1"), upload(cli, "fw", "2")
    software = upload(cli, "sw", "1", "--software")
    cli.ok("ota", "assign", "fw@1", "--profile", "default")
    cli.ok("ota", "assign", second, "--device", "a", "--device", "b")
    cli.ok("ota", "assign", "sw", "--device", "b")
    device = app.call(app.registry.device_by_name("b"))
    assert (device.firmware_id, device.software_id) == (second, software)
    app.series.put(device.number, "fw_state", 5, '"FAILED"')
    app.series.put(device.number, "fw_error", 5, '"too old"')
    app.series.put(device.number, "current_fw_title", 5, '"fw"')
    app.series.put(device.number, "current_fw_version", 5, "1")
    rows = [line.split("\t") for line in cli.ok("ota", "status", "fw@2").splitlines()]
    assert sorted(rows) == [["a", "", "", ""], ["b", "FAILED", "fw 1", "too old"]]
    (other,) = json.loads(cli.ok("ota", "status", first, "--json"))
    assert (other["name"], other["state"], other["currentVersion"]) == ("c", None, None)
    assert "referenced by the devices" in cli.fails(1, "ota", "delete", "fw@2")
    assert "referenced by the device profile" in cli.fails(1, "ota", "delete", "fw@1")
    cli.ok("ota", "unassign", "--device", "a", "--device", "b")
    cli.ok("ota", "unassign", "--device", "b", "--software")
    cli.ok("ota", "unassign", "--profile", "default")
    for package in ("fw@1", second, "sw"):
        cli.ok("ota", "delete", package)


def test_a_package_elsewhere(cli: Cli) -> None:
    words = ("ota", "upload", "--title", "far", "--version", "1", "--package-url", "https://h/f")
    shown = json.loads(cli.ok(*words, "--json"))
    assert shown["url"] == "https://h/f" and "size" not in shown


def test_refusals(cli: Cli) -> None:
    where = cli.data_dir.parent
    upload_words = ("ota", "upload", "--title", "fw", "--version", "1")
    assert "name either a FILE" in cli.fails(2, *upload_words)
    assert "cannot read" in cli.fails(2, *upload_words, str(where / "none"))
    wrong = (*upload_words, str(where / "fw.bin"), "--checksum", "00")
    assert "Wrong otaPackage file!" in cli.fails(1, *wrong)
    assert f"longer than {UPLOAD_BYTES}" in cli.fails(1, *upload_words, str(where / "big.bin"))
    assert cli.ok("ota", "list") == "", "nothing stays of an upload that failed"
    assert "no device profile" in cli.fails(3, *upload_words, str(where / "fw.bin"),
                                           "--profile", "none")  # fmt: skip
    assert "no package" in cli.fails(3, "ota", "status", "none")
    upload(cli, "fw", "1")
    upload(cli, "fw", "2")
    assert "may be any of" in cli.fails(2, "ota", "status", "fw")
    assert "either --device or --profile" in cli.fails(2, "ota", "assign", "fw@1")
    assert "already exists" in cli.fails(1, *upload_words, str(where / "fw.bin"))


def test_without_a_server(tmp_path: Path) -> None:
    assert "no server runs" in Cli(tmp_path).fails(4, "ota", "list")
