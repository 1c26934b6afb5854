"""tbfast doctor: findings, repairs and exit codes."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tbfast.store.backup import STORES
from tbfast.store.journal import Journal, mark_path
from tbfast.store.known import known_journal
from tbfast.store.layout import Layout
from tbfast.store.series_files import SeriesFiles
from tbfast.store.windows import Window, decoded
from tests.e2e.test_backup import acknowledged, ok
from tests.support.node import Node, running_node
from tests.support.packages import add_package
from tests.support.server import Server
from tests.support.waiting import wait_until


def doctor(node: Node, code: int, *words: str) -> list[dict[str, Any]]:
    done = node.cli("doctor", "--json", *words)
    assert done.returncode == code, done
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a node that was stopped; sealed rows and a second epoch."""
    root = tmp_path_factory.mktemp("doctor") / "data"
    with running_node(root, workers=1) as node:
        acknowledged(node, ["d0"], 100)
        found = doctor(node, 0)
        assert found == []
        assert "stop it" in ok(node, "doctor", "--deep")
        assert node.stop() == 0
        node.start()
        acknowledged(node, ["d1"], 100)
        assert node.stop() == 0
    return root


@pytest.fixture
def node(template: Path, tmp_path: Path) -> Node:
    ignored = shutil.ignore_patterns("*.sock", "reserve")
    shutil.copytree(template, tmp_path / "data", ignore=ignored)
    return Node(tmp_path / "data", workers=1)


def test_a_healthy_directory(node: Node) -> None:
    assert doctor(node, 0) == []
    assert ok(node, "doctor", "--deep") == "nothing found\n"
    assert "no data directory" in Node(node.data_dir / "none").cli("doctor").stderr


def test_damage_is_found_by_reading_everything(node: Node) -> None:
    table = max(Layout(node.data_dir).series.glob("*.sst"), key=lambda p: p.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 1
    table.write_bytes(data)
    [found] = doctor(node, 2, "--deep")
    assert (found["level"], found["about"]) == ("error", str(table.parent))
    assert table.name in found["text"] and "tbfast store recover" in found["fix"]


def test_leftovers_and_permissions_are_repaired(node: Node) -> None:
    layout = Layout(node.data_dir)
    node.data_dir.chmod(0o755)
    layout.snapshot.mkdir()
    (layout.root / "series.scratch").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(layout.api))
    levels = sorted(f["level"] for f in doctor(node, 1))
    assert levels == ["note", "warning", "warning", "warning"]
    assert all(f["repaired"] for f in doctor(node, 0, "--repair"))
    assert doctor(node, 0) == []
    assert node.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_journal_that_would_begin_too_low(node: Node) -> None:
    layout = Layout(node.data_dir)
    path = layout.journal(0)
    shutil.rmtree(path)
    mark_path(path).unlink()
    known_journal(layout, 0).unlink()
    [found] = doctor(node, 2)
    assert "new rows would be taken for old ones" in found["text"]
    assert doctor(node, 0, "--repair")[0]["repaired"]
    journal = Journal(path, 0)
    journal.close()
    assert journal.epoch > 2
    assert doctor(node, 0) == []


def test_a_journal_that_is_missing(node: Node) -> None:
    path = Layout(node.data_dir).journal(0)
    shutil.rmtree(path)
    mark_path(path).unlink()
    [found] = doctor(node, 2)
    assert "epochs up to 2 were in it" in found["text"]
    assert "tbfast store recover --shard journal/0" in found["fix"]
    assert "lost: blocks up to epoch 2" in ok(node, "store", "recover", "--shard", "journal/0")
    assert doctor(node, 0) == []


def test_a_series_store_of_an_earlier_day(node: Node) -> None:
    """What was sealed since is nowhere: its journal has let go of it."""
    series = Layout(node.data_dir).series
    shutil.copytree(series, node.data_dir.parent / "earlier")
    node.start()
    try:
        acknowledged(node, ["later"], 100)
        ok(node, "store", "seal")
        acknowledged(node, ["last"], 100)  # the trim is written with what comes next
        assert node.stop() == 0
        assert doctor(node, 0) == []
        shutil.rmtree(series)
        shutil.copytree(node.data_dir.parent / "earlier", series)
        [found] = doctor(node, 2)
        assert (found["about"], found["level"]) == (str(series), "error")
        assert "is an old copy" in found["text"] and "put the newer one back" in found["fix"]
        assert "old copy" not in node.log.read_text()
        node.start()
        wait_until(lambda: "the series store is an old copy" in node.log.read_text(), what="said")
    finally:
        node.kill_all()


def test_a_store_that_is_missing(node: Node) -> None:
    shutil.rmtree(Layout(node.data_dir).attributes)
    [found] = doctor(node, 2)
    assert found["text"] == "is missing, and was there"


def _tools(target: Path) -> list[list[str]]:
    """Commands that open the stores of a stopped server."""
    return [
        ["query", "d0"], ["export", "--all", "--output", str(target / "x.csv")],
        ["backup", str(target / "b")], ["device", "list"],
    ]  # fmt: skip


@pytest.mark.parametrize("store", ["registry", "series", "attributes", "journal/0"])
def test_no_command_puts_an_empty_store_in_place_of_a_missing_one(
    node: Node, tmp_path: Path, store: str
) -> None:
    path = node.data_dir / store
    shutil.rmtree(path)
    out = tmp_path / "out"
    out.mkdir()
    for words in [*_tools(out), ["device", "add", "new"]]:
        done = node.cli(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert f"{path} is missing" in done.stderr
    assert not path.exists() and list(out.iterdir()) == []


def test_a_store_without_its_first_file_is_damaged_and_not_replaced(
    node: Node, tmp_path: Path
) -> None:
    path = Layout(node.data_dir).series
    (path / "CURRENT").unlink()
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    for words in [*_tools(tmp_path), ["serve", "--mqtt-port", "0", "--http-port", "0"]]:
        done = node.cli(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert f"{path} is damaged" in done.stderr and "tbfast store recover" in done.stderr
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
    assert "CURRENT was made anew" in ok(node, "store", "recover")
    assert len(ok(node, "query", "d0", "--limit", "10").splitlines()) >= 10


@pytest.mark.parametrize("content", [[], ["notes.txt"]], ids=["empty", "another"])
def test_a_directory_of_something_else(tmp_path: Path, content: list[str]) -> None:
    """As when a path has a typo, or the disk is not mounted."""
    wrong, out = Node(tmp_path / "wrong"), tmp_path / "out"
    wrong.data_dir.mkdir()
    out.mkdir()
    for name in content:
        (wrong.data_dir / name).write_text("x")
    for words in [*_tools(out), ["doctor"], ["doctor", "--deep"], ["store", "recover"]]:
        done = wrong.cli(*words)
        assert (done.returncode, done.stdout) == (3, ""), words
        assert f"{wrong.data_dir} is no data directory of tbfast" in done.stderr
    assert [p.name for p in wrong.data_dir.iterdir()] == content
    assert list(out.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_stores_of_another_user_get_no_files_of_this_one(node: Node, tmp_path: Path) -> None:
    """Else a server that is not root's would not start any more."""
    for path in (node.data_dir, *node.data_dir.rglob("*")):
        os.chown(path, 12_345, -1)
    for words in [*_tools(tmp_path), ["device", "add", "new"], ["store", "recover"]]:
        done = node.cli(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "belongs to user 12345" in done.stderr and "sudo -u '#12345'" in done.stderr
    doctor(node, 2, "--deep")
    stores = [p for name in STORES for p in (node.data_dir / name).rglob("*")]
    assert {p.stat().st_uid for p in stores} == {12_345}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_no_damage(node: Node) -> None:
    table = next(Layout(node.data_dir).series.glob("*.sst"))
    os.chown(table, 12_345, -1)
    [found] = doctor(node, 2)
    assert found["about"] == str(table) and "belongs to another user" in found["text"]
    assert "chown -R 0" in found["fix"] and "recover" not in found["fix"]
    subprocess.run(found["fix"], shell=True, check=True)
    assert doctor(node, 0) == []


def test_records_that_do_not_fit_the_chunks(node: Node) -> None:
    path = Layout(node.data_dir).series
    with opened(path) as files:
        [raw] = files.records(b"w")
        window = decoded(raw, Window)
        first = window.segments[0]
        assert first.level == 0
        family = files.chunks[first.name]
        key = next(iter(family.keys()))
        family.delete(key)
    assert doctor(node, 0) == []
    [found] = doctor(node, 2, "--deep")
    assert re.search(r"run 1 has \d+ of \d+ points", found["text"]), found
    assert "tbfast store recover" in found["fix"]
    lost = ok(node, "store", "recover")
    assert re.search(r"lost: (chunks|\d+ of \d+ points) of run 1\n", lost), lost
    with opened(path) as files:
        files.drop(first.name)
    kept, found = doctor(node, 2)
    assert kept["level"] == "note"
    assert "are missing" in found["text"]


def test_files_of_packages(own_server: Server) -> None:
    """Nobody may download one: a missing or damaged file would be found by a device only."""
    whole = add_package(own_server, "fw", "1.0", b"firmware" * 1_000)
    crc = add_package(own_server, "fw", "1.1", b"other" * 1_000, algorithm="CRC32")
    add_package(own_server, "fw", "1.2", None, url="http://127.0.0.1/fw", isURL=True)
    assert own_server.stop() == 0
    stopped = Node(own_server.data_dir)
    assert doctor(stopped, 0, "--deep") == []
    files = own_server.data_dir / "packages"
    (files / crc).write_bytes(b"wrong" * 1_000)
    assert doctor(stopped, 0) == []
    [found] = doctor(stopped, 1, "--deep")
    assert (found["level"], found["about"]) == ("warning", str(files / crc))
    assert "another checksum" in found["text"] and "package fw 1.1" in found["text"]
    (files / crc).write_bytes(b"short")
    (files / whole).unlink()
    found_texts = {f["about"]: f["text"] for f in doctor(stopped, 1)}
    assert "has 5 of 5000 bytes" in found_texts[str(files / crc)]
    assert "is missing; it is the file of the package fw 1.0" in found_texts[str(files / whole)]


def opened(path: Path) -> contextlib.closing[SeriesFiles]:
    return contextlib.closing(SeriesFiles(path))


def test_an_interrupted_restore(node: Node) -> None:
    Layout(node.data_dir).unfinished.write_text("a restore from /b did not finish; run it again\n")
    [found] = doctor(node, 2)
    assert "did not finish" in found["text"]


def test_a_directory_in_use_by_something_that_does_not_answer(node: Node) -> None:
    lock = Layout(node.data_dir).acquire()
    try:
        done = node.cli("doctor")
        assert (done.returncode, done.stdout) == (4, "")
    finally:
        os.close(lock)
