"""Backups of running and stopped nodes, and nodes that go on from them."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tbfast.cli import client
from tbfast.cli.devices import new_device
from tbfast.errors import LocalError
from tbfast.store.backup import check_free
from tbfast.store.layout import Layout
from tests.support.audit import audit, audit_stopped
from tests.support.ledger import Record, running_load
from tests.support.node import Node, running_node
from tests.support.packages import add_package
from tests.support.server import Server
from tests.support.waiting import wait_until


def ok(node: Node, *words: str) -> str:
    done = node.cli(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(node: Node, code: int, *words: str) -> str:
    done = node.cli(*words)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("tbfast: ") and "Traceback" not in done.stderr
    return done.stderr


def attributes(node: Node, token: str, values: dict[str, Any] | None = None) -> Any:
    """Saves client attributes as a device, or reads them."""
    url = f"http://127.0.0.1:{node.http_port}/api/v1/{token}/attributes"
    data = None if values is None else json.dumps(values).encode()
    with urllib.request.urlopen(url, data, timeout=10) as answer:
        text = answer.read()
    return json.loads(text)["client"] if values is None else None


def acknowledged(node: Node, names: list[str], more: int = 500) -> Record:
    """New devices of these names send, with the same tokens; what they saw."""
    with node.api() as api:
        for name in names:
            api.create(new_device(name))
    with running_load(node.mqtt_port, names) as load:
        load.wait_acked(more)
        return load.finish()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_node_goes_on_from_a_backup_under_load(tmp_path: Path, durability: str) -> None:
    with running_node(tmp_path / "data", durability=durability) as node:
        before = acknowledged(node, ["d0", "d1"])
        attributes(node, "d0", {"fw": 1})
        with node.api() as api:
            api.create(new_device("busy"))
        with running_load(node.mqtt_port, ["busy"]) as load:
            load.wait_acked(200)
            made = json.loads(ok(node, "backup", str(tmp_path / "backup"), "--json"))
            load.wait_acked(200)
            load.finish()
        assert made["files"] > 10 and made["bytes"] > 1000
        ok(Node(tmp_path / "new"), "restore", str(tmp_path / "backup"))
    with running_node(tmp_path / "new", durability=durability) as new:
        audit(new, before)
        assert attributes(new, "d0") == {"fw": 1}
        after = acknowledged(new, ["d2", "d3"])
        attributes(new, "d0", {"fw": 2})
        both = Record({**before.devices, **after.devices})
        audit(new, both)
        new.kill_all()  # what came after the restore is only in journals: it must be replayed
        new.start()
        audit(new, both)
        assert attributes(new, "d0") == {"fw": 2}
        assert new.stop() == 0
        audit_stopped(new, both)
        new.start()
        audit(new, both)


def test_a_backup_of_what_a_killed_node_left(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        record = acknowledged(node, ["d0", "d1"])
        node.kill_all()
        ok(node, "backup", str(tmp_path / "b.tar"))
        shutil.rmtree(node.data_dir)
        ok(node, "restore", str(tmp_path / "b.tar"))
        audit_stopped(node, record)
        node.start()
        audit(node, record)


def test_one_backup_at_a_time_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    with Server() as server:
        api = client.connect(server.data_dir)
        assert api is not None
        with contextlib.closing(api), api.snapshot() as text:
            made = msgspec.json.decode(text)
            assert Path(made["root"]).is_dir()
            assert {f["path"].split("/")[0] for f in made["files"]} >= {"series", "registry"}
            assert "another backup" in _stderr(server, "backup", str(tmp_path / "b"))
        wait_until(lambda: not Path(made["root"]).exists(), what="the snapshot is gone")
        server.cli("backup", str(tmp_path / "b"))


def _stderr(server: Server, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tbfast", *words, "--data-dir", str(server.data_dir)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> tuple[Node, Path]:
    """A stopped node and its backup."""
    home = tmp_path_factory.mktemp("backup")
    with running_node(home / "data", workers=1) as node:
        acknowledged(node, ["d0"], 50)
        ok(node, "backup", str(home / "b"))
        ok(node, "backup", str(home / "b.tar"))
        assert node.stop() == 0
    return node, home


def test_what_is_in_the_way_is_not_touched(backup: tuple[Node, Path], tmp_path: Path) -> None:
    node, home = backup
    assert "is not empty" in fails(node, 1, "restore", str(home / "b"))
    assert "already" in fails(node, 1, "backup", str(home / "b"))
    assert "already" in fails(node, 1, "backup", str(home / "b.tar"))
    assert "does not exist" in fails(node, 1, "backup", str(tmp_path / "no" / "b"))
    assert "there is no backup" in fails(node, 3, "restore", str(tmp_path / "none"))
    empty = Node(tmp_path / "none")
    assert "no data directory" in fails(empty, 3, "backup", str(tmp_path / "b"))
    lock = Layout(node.data_dir).acquire()
    try:
        assert "in use" in fails(node, 4, "backup", str(tmp_path / "b"))
    finally:
        os.close(lock)


def test_the_directory_one_is_in_is_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is empty: it has no name that a backup could take."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LocalError, match="already"):
        check_free(Path("."))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _without_manifest(b: Path) -> None:
    (b / "manifest.json").unlink()


def _flipped(b: Path) -> None:
    _flip(max((b / "series").glob("*.sst")))


def _manifest_flipped(b: Path) -> None:
    _flip(b / "manifest.json")


def _one_missing(b: Path) -> None:
    (b / "registry" / "CURRENT").unlink()


def _one_more(b: Path) -> None:
    (b / "registry" / "000999.sst").write_bytes(b"x")


def _foreign(b: Path) -> None:
    (b / "passwd").write_bytes(b"x")


DAMAGES = {
    _without_manifest: "it has no manifest.json",
    _flipped: ".sst is damaged",
    _manifest_flipped: "manifest.json is damaged",
    _one_missing: "registry/CURRENT is missing",
    _one_more: "does not belong",
    _foreign: "nothing that a backup holds",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_backup_is_not_restored(
    backup: tuple[Node, Path], tmp_path: Path, damage: Any
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(backup[1] / "b", bad)
    damage(bad)
    new = Node(tmp_path / "data")
    assert DAMAGES[damage] in fails(new, 1, "restore", str(bad))
    assert {p.name for p in new.data_dir.iterdir()} <= {"lock", "run"}
    ok(new, "restore", str(backup[1] / "b"))  # the directory counts as empty


def test_a_damaged_archive_is_not_restored(backup: tuple[Node, Path], tmp_path: Path) -> None:
    whole = (backup[1] / "b.tar").read_bytes()
    bad = tmp_path / "bad.tar"
    new = Node(tmp_path / "data")
    for size in (0, 100, 512, len(whole) // 3, len(whole) // 2 + 7):
        bad.write_bytes(whole[:size])
        fails(new, 1, "restore", str(bad))
    middle = whole.index(b"series/") + 700  # in the content of the first file
    bad.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert "is damaged" in fails(new, 1, "restore", str(bad))


def test_a_newer_backup_is_left_to_the_newer_version(
    backup: tuple[Node, Path], tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(backup[1] / "b", newer)
    text = b'{"format":99,"all":"different"}'
    seal = hashlib.sha256(text).hexdigest().encode()
    (newer / "manifest.json").write_bytes(b'{"sha256":"%b","manifest":%b}' % (seal, text))
    new = Node(tmp_path / "data")
    assert "written by a newer tbfast (format 99" in fails(new, 1, "restore", str(newer))


def test_sealing_on_request(own_server: Server) -> None:
    own_server.add_device("a")
    url = f"http://127.0.0.1:{own_server.http_port}/api/v1/a/telemetry"
    rows = b'[{"ts":1,"values":{"n":1,"t":"x"}},{"ts":2,"values":{"n":2,"b":true}}]'
    with urllib.request.urlopen(url, rows, timeout=10):
        pass
    sealed = json.loads(own_server.cli("store", "seal", "--json"))
    assert (sealed["runs"], sealed["points"]) == (1, 4)
    assert {kind: n["points"] for kind, n in sealed["kinds"].items()} == {
        "INT64": 2,
        "STRING": 1,
        "BOOL": 1,
    }
    assert sealed["bytes"] > sum(n["bytes"] for n in sealed["kinds"].values())
    assert own_server.values("a", "n") == [1, 2]
    again = own_server.cli("store", "seal").splitlines()
    assert again[-1].split("\t") == ["all", "0", "0", "0.00"]
    assert own_server.stop() == 0
    own_server.cli("store", "seal", code=4)


def test_packages_are_in_it(own_server: Server, tmp_path: Path) -> None:
    package = add_package(own_server, "fw", data=b"firmware" * 1_000)
    own_server.cli("backup", str(tmp_path / "backup"))
    restored = tmp_path / "restored"
    own_server.cli("restore", str(tmp_path / "backup"), "--data-dir", str(restored))
    assert (restored / "packages" / package).read_bytes() == b"firmware" * 1_000
    with running_node(restored) as node, node.api() as api:
        (found,) = api.get("/api/otaPackages?pageSize=10&page=0", _Packages).data
    assert (found.title, found.has_data) == ("fw", True)


class _Package(msgspec.Struct, rename="camel"):
    title: str
    has_data: bool


class _Packages(msgspec.Struct):
    data: list[_Package]
