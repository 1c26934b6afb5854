"""tbfast doctor: findings, repairs and exit codes."""

import contextlib
import json
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from tbfast.store.journal import Journal, mark_path
from tbfast.store.known import known_journal
from tbfast.store.layout import Layout
from tbfast.store.series_files import SeriesFiles
from tbfast.store.windows import Window, decoded
from tests.e2e.test_backup import acknowledged, ok
from tests.support.node import Node, running_node


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


def test_a_store_that_is_missing(node: Node) -> None:
    shutil.rmtree(Layout(node.data_dir).attributes)
    [found] = doctor(node, 2)
    assert found["text"] == "is missing, and was there"


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
