"""tbfast export: what is stored comes out, once, in order, from running and stopped servers."""

import argparse
import csv
import io
import json
import os
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tbfast.cli import export
from tbfast.cli.devices import DeviceView
from tbfast.cli.main import main
from tbfast.cli.target import Target
from tbfast.model.ranges import RangeQuery
from tbfast.store import series_reader
from tbfast.store.layout import Layout
from tbfast.store.series_reader import OfflineSeries
from tests.support.server import Server

VALUES = {
    "n": 9007199254740993,
    "d": 21.50,
    "b": True,
    "s": 'a "quoted", line\nä',
    "j": {"x": [1, None]},
}


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    """Two devices of one profile and one of another; a part is sealed."""
    with Server() as server:
        for name in ("a", "b"):
            server.cli("device", "add", name, "--token", name, "--type", "meter")
        server.cli("device", "add", "other", "--token", "other")
        send(server, "a", [{"ts": ts, "values": {"n": ts}} for ts in range(1, 8)])
        server.cli("store", "seal")
        send(server, "a", [{"ts": ts, "values": {"n": ts}} for ts in range(8, 12)])
        send(server, "b", [{"ts": -5, "values": VALUES}])
        send(server, "other", [{"ts": 3, "values": {"n": 1}}])
        yield server


def send(server: Server, token: str, rows: object) -> None:
    url = f"http://127.0.0.1:{server.http_port}/api/v1/{token}/telemetry"
    with urllib.request.urlopen(url, json.dumps(rows).encode(), timeout=10):
        pass


def rows_of(text: str) -> list[tuple[str, str, int, object]]:
    lines = list(csv.reader(io.StringIO(text)))
    assert lines[0] == ["device", "key", "ts", "value"]
    return [(device, key, int(ts), json.loads(value)) for device, key, ts, value in lines[1:]]


EXPECTED_A = [("a", "n", ts, ts) for ts in range(1, 12)]
EXPECTED_B = [("b", key, -5, VALUES[key]) for key in sorted(VALUES)]


def test_csv_and_json_lines(node: Server, tmp_path: Path) -> None:
    file = tmp_path / "all.csv"
    told = node.cli("export", "--all", "--output", str(file))
    assert told == f"{file}: 17 points of 3 devices\n"
    assert rows_of(file.read_text()) == [*EXPECTED_A, *EXPECTED_B, ("other", "n", 3, 1)]
    file = tmp_path / "meters.jsonl"
    done = json.loads(node.cli("export", "--profile", "meter", "--output", str(file), "--json"))
    assert done == {"path": str(file), "devices": 2, "rows": 16}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = [(r["device"], r["key"], r["ts"], r["value"]) for r in lines]
    assert found == [*EXPECTED_A, *EXPECTED_B]
    text = node.cli(
        "export", "--device", "a", "--start", "3", "--end", "10", "--keys", "n,m", "--output", "-"
    )
    assert rows_of(text) == EXPECTED_A[2:9]
    assert not list(tmp_path.glob("*.partial"))


def test_pages_meet_without_a_gap(
    node: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    words = ["export", "--device", "a", "--output", str(file), "--data-dir", str(node.data_dir)]
    for first, page in ((1, 3), (3, 3), (10, 1), (11, 1), (12, 1)):
        monkeypatch.setattr(export, "FIRST_POINTS", first)
        monkeypatch.setattr(export, "PAGE_POINTS", page)
        assert main(words) == 0
        assert rows_of(file.read_text()) == EXPECTED_A


def test_parquet(node: Server, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "all.parquet"
    node.cli("export", "--all", "--output", str(file))
    table = parquet.read_table(file)
    rows = table.to_pylist()
    assert len(rows) == 17
    assert parquet.ParquetFile(file).num_row_groups == 1  # not one a series
    by_key = {row["key"]: row for row in rows if row["device"] == "b"}
    assert by_key["n"]["long"] == VALUES["n"]
    assert by_key["d"]["double"] == VALUES["d"]
    assert by_key["b"]["bool"] is True
    assert by_key["s"]["text"] == VALUES["s"]
    assert json.loads(by_key["j"]["text"]) == VALUES["j"]
    assert table.schema.field("ts").type.unit == "ms"
    assert [r["long"] for r in rows if r["device"] == "a"] == list(range(1, 12))


def test_parquet_without_pyarrow_says_what_to_do(node: Server, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    file = tmp_path / "x.parquet"
    done = subprocess.run(
        [sys.executable, "-m", "tbfast", "export", "--all", "--output", str(file)],
        env={**node._env, "PYTHONPATH": str(tmp_path)},
        cwd=Path(export.__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'tbfast[parquet]'" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "pyarrow.py"] or not file.exists()


def test_what_cannot_be_exported(node: Server, tmp_path: Path) -> None:
    out = str(tmp_path / "x.csv")
    node.cli("export", "--device", "none", "--output", out, code=3)
    node.cli("export", "--output", out, code=2)
    node.cli("export", "--all", "--device", "a", "--output", out, code=2)
    node.cli("export", "--all", "--keys", ",", "--output", out, code=2)
    node.cli("export", "--profile", "metre", "--output", out, code=3)
    for name in (str(tmp_path / "no" / "x.csv"), str(tmp_path), ".", "/", "/dev/full"):
        node.cli("export", "--all", "--output", name, code=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [
    ["--start", "9223372036854775808"], ["--end", "-9223372036854775809"],
    ["--start", "5", "--end", "4"],
])  # fmt: skip
def test_times_that_cannot_be(node: Server, tmp_path: Path, words: list[str]) -> None:
    """Wrong usage, not an empty answer: nothing else checks them for a stopped server."""
    out = str(tmp_path / "x.csv")
    for command in (
        ["query", "a"],
        ["export", "--all", "--output", out],
        ["series", "delete", "a"],
    ):
        node.cli(*command, *words, code=2)
    node.cli("query", "a", "--limit", "9223372036854775808", code=2)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_is_written_and_a_link_is_followed(node: Server, tmp_path: Path) -> None:
    """Neither is replaced by a file; as root that would be /dev/null for everybody."""
    pipe, link, behind = tmp_path / "pipe", tmp_path / "link.csv", tmp_path / "file"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True) as cat:
        assert "11 points" in node.cli("export", "--device", "a", "--output", str(pipe))
        assert rows_of(cat.communicate(timeout=10)[0]) == EXPECTED_A
    assert pipe.is_fifo()
    behind.write_text("old")
    link.symlink_to(behind)
    node.cli("export", "--device", "a", "--output", str(link))
    assert link.is_symlink() and rows_of(behind.read_text()) == EXPECTED_A
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "link.csv", "file"}


@pytest.mark.parametrize("words", [["query", "a"], ["query", "a", "--json"],
                                   ["export", "--all", "--output", "-"]])  # fmt: skip
def test_standard_output_that_is_full(node: Server, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tbfast", *words], env=node._env, check=False,
            cwd=Path(export.__file__).parents[2], stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.stderr == "tbfast: cannot write the output: No space left on device\n"
    assert done.returncode == 1


def test_a_device_that_is_removed_meanwhile(
    node: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    node.add_device("gone")
    listed = export._devices

    def removed(where: Target, args: argparse.Namespace) -> list[DeviceView]:
        found = listed(where, args)
        node.remove_device("gone")
        return found

    monkeypatch.setattr(export, "_devices", removed)
    file = tmp_path / "x.csv"
    words = ["export", "--all", "--output", str(file), "--data-dir", str(node.data_dir)]
    assert main(words) == 0
    assert len(rows_of(file.read_text())) == 17
    told = capsys.readouterr()
    assert told.out == f"{file}: 17 points of 3 devices\n"
    assert told.err == "gone was removed meanwhile: not all of it is there\n"


def test_a_stopped_server_gives_the_same(
    node: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, stopped = tmp_path / "running.csv", tmp_path / "stopped.csv"
    node.cli("export", "--all", "--output", str(running))
    assert node.stop() == 0
    node.cli("export", "--all", "--output", str(stopped))
    assert stopped.read_bytes() == running.read_bytes()
    opened: list[Path] = []
    monkeypatch.setattr(
        series_reader,
        "open_offline",
        lambda path: opened.append(path) or OfflineSeries(Layout(path)),
    )
    words = ["export", "--all", "--output", str(stopped), "--data-dir", str(node.data_dir)]
    assert main(words) == 0
    node.cli("query", "a", "--end", "9223372036854775808", code=2)
    assert opened == [node.data_dir]  # not for each device: that takes longer than reading it
    # Longer answers than allowed become shorter pages.
    monkeypatch.setattr(export, "RangeQuery", partial(RangeQuery, max_bytes=80))
    words = ["export", "--device", "a", "--output", str(stopped), "--data-dir", str(node.data_dir)]
    assert main(words) == 0
    assert rows_of(stopped.read_text()) == EXPECTED_A
    monkeypatch.setattr(export, "RangeQuery", partial(RangeQuery, max_bytes=20))
    assert main(words) == 1
    node.start()


def test_sealing_many_devices_changes_nothing(own_server: Server, tmp_path: Path) -> None:
    """Their chunks fill several steps of a run."""
    names = [f"d{n:03}" for n in range(250)]
    for name in names:
        own_server.add_device(name)
        texts = [random.Random(f"{name} {ts}").randbytes(40).hex() for ts in range(7)]
        rows = [{"ts": ts, "values": {"n": ts, "s": text}} for ts, text in enumerate(texts)]
        send(own_server, name, rows)
    before, after = tmp_path / "before.csv", tmp_path / "after.csv"
    own_server.cli("export", "--all", "--output", str(before))
    assert len(rows_of(before.read_text())) == 2 * 7 * len(names)
    assert json.loads(own_server.cli("store", "seal", "--json"))["points"] == 2 * 7 * len(names)
    own_server.cli("export", "--all", "--output", str(after))
    assert after.read_bytes() == before.read_bytes()
    assert own_server.stop() == 0
    assert own_server.cli("doctor", "--deep") == "nothing found\n"
