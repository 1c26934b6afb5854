"""Upgrade and downgrade: data of an older build is taken over, a newer format is left alone.

``vectors/data_format_N.tar.xz`` is what the last build with series format N left: a node of two
workers, stopped twice and then killed, without files that tell nothing (LOG, LOCK, OPTIONS).  Each
of three devices had sent `SENT` messages as in `values` and saved the client attribute fw, last 2.
"""

import json
import os
import struct
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import Options, Rdict

from tbfast.cli.devices import new_device
from tbfast.model.ranges import RangeQuery
from tbfast.store import rocks
from tests.support.audit import audit
from tests.support.ledger import running_load
from tests.support.mqtt_client import connected
from tests.support.node import ROOT, Node, refusal, running_node
from tests.support.waiting import wait_until

VECTORS = Path(__file__).parents[1] / "vectors"
SENT = 120
FIRST_MS = 1_700_000_000_000
DEVICES = ("d0", "d1", "d2")


def values(n: int) -> dict[str, object]:
    even = n % 2 == 0
    return {"n": n, "x": n + 0.25, "ok": even, "text": f"message {n}", "more": {"n": n}}


@pytest.fixture(params=[1, 2, 3])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    """The node of an older build, not started."""
    with tarfile.open(VECTORS / f"data_format_{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return Node(tmp_path / "data", env={"TBFAST_SERIES__JOIN_RUNS": "2"})


@pytest.fixture
def node(old: Node) -> Iterator[Node]:
    """Ended after the test, however that ends."""
    yield old
    if old.process is not None:
        old.kill_all()


def stored(node: Node, name: str) -> dict[int, dict[str, object]]:
    """Values by time."""
    with node.api() as api:
        found = json.loads(api.history(api.find(name), RangeQuery(limit=100_000)))
    rows: dict[int, dict[str, object]] = {}
    for key, points in found.items():
        for point in points:
            rows.setdefault(point["ts"] - FIRST_MS, {})[key] = point["value"]
    return rows


def firmware(node: Node, token: str) -> object:
    url = f"http://127.0.0.1:{node.http_port}/api/v1/{token}/attributes"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.loads(answer.read())["client"]["fw"]


def complete(node: Node, more: int = 0) -> bool:
    wanted = {n: values(n) for n in range(SENT + more)}
    return all(stored(node, name) == wanted for name in DEVICES)


def test_data_of_an_older_build(node: Node) -> None:
    node.start()
    assert complete(node)
    assert [firmware(node, f"token-{n}") for n in range(3)] == [2] * 3
    for number in range(len(DEVICES)):
        with connected(node.mqtt_port, f"token-{number}") as client:
            row = {"ts": FIRST_MS + SENT, "values": values(SENT)}
            client.publish_acknowledged(json.dumps(row).encode())
    assert complete(node, 1)
    assert node.stop() == 0  # sealed, and joined with chunks of the old build
    node.start()
    assert complete(node, 1)
    assert not [line for line in node.log_lines() if line["level"] == "error"]


def test_an_upgrade_that_is_killed_is_taken_up_again(node: Node) -> None:
    for _ in range(3):
        node.spawn()
        wait_until(lambda: (node.data_dir / "run" / "node.json").exists())
        node.kill_all()
    node.start()
    assert complete(node)


def test_restart_under_load_after_an_upgrade(node: Node) -> None:
    node.start()
    tokens = []
    with node.api() as api:
        for number in range(3, 11):
            api.create(new_device(f"d{number}", f"token-{number}"))
            tokens.append(f"token-{number}")
    with running_load(node.mqtt_port, tokens) as load:
        load.wait_acked(500)
        assert node.stop(40) == 0
        node.start()
        load.wait_connected(len(tokens))
        record = load.finish()
    assert record.devices.keys() == set(tokens)
    for token, device in record.devices.items():
        acked = {n for first, last in device.acked for n in range(first, last + 1)}
        assert acked and acked <= stored(node, token.replace("token-", "d")).keys()


# --- a newer format --------------------------------------------------------------------------


def put(path: Path, family: str, key: bytes, value: bytes) -> None:
    """Replaces one value of a closed store."""
    db = rocks.open_families(path, Rdict.list_cf(str(path)), write_buffer_bytes=1 << 20)
    found = db if family == "default" else db.get_column_family(family)
    assert found.get(key) is not None
    found.put(key, value)
    db.flush_wal(True)
    if found is not db:
        rocks.close(found, path)
    rocks.close(db, path)


# What says the format in each store: ours, and that of a build to come.
SHARDS = {
    "registry": ("meta", b"format", b"1", b"99"),
    "attributes": ("meta", b"format", b"1", b"99"),
    "series": ("default", b"f", struct.pack(">I", 3), struct.pack(">I", 99)),
    "journal/0": ("meta", b"f", struct.pack("<I", 1), struct.pack("<I", 99)),
    "journal/65535": ("meta", b"f", struct.pack("<I", 1), struct.pack("<I", 99)),
}


@pytest.mark.parametrize("shard", SHARDS)
def test_a_newer_format_is_refused_and_left_as_it_is(tmp_path: Path, shard: str) -> None:
    """The downgrade says what to do; the newer build finds everything when it is back."""
    family, key, own, newer = SHARDS[shard]
    with running_node(tmp_path / "data", workers=1) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client:
            for n in range(10):
                row = {"ts": FIRST_MS + n, "values": values(n)}
                client.publish_acknowledged(json.dumps(row).encode())
        assert node.stop() == 0
        path = node.data_dir / shard
        put(path, family, key, newer)
        node.spawn()
        wait_until(lambda: _refusals(node), 20, "refused")
        (said,) = {str(line["error"]) for line in _refusals(node)}
        assert str(path) in said and "format 99" in said
        assert "version" in said  # what to do about it
        assert not node.ready()
        node.kill_all()
        put(path, family, key, own)
        node.start()
        assert stored(node, "d0") == {n: values(n) for n in range(10)}


def test_a_kind_of_record_that_a_newer_build_added(tmp_path: Path) -> None:
    """Nothing of the store is opened, and it is said why; without it all is as before."""
    with running_node(tmp_path / "data", workers=1) as node:
        (token,) = node.add_devices(1)
        send(node, token, 0, 10)
        assert node.stop() == 0
        path = node.data_dir / "registry"
        families = Rdict.list_cf(str(path))
        db = rocks.open_families(path, families, write_buffer_bytes=1 << 20)
        db.create_column_family("of_tomorrow", Options(raw_mode=True))
        rocks.close(db, path)
        node.spawn()
        wait_until(lambda: _refusals(node), 20, "refused")
        (said,) = {str(line["error"]) for line in _refusals(node)}
        assert str(path) in said and "of_tomorrow" in said and "version" in said
        assert not node.ready()
        node.kill_all()
        db = rocks.open_families(path, [*families, "of_tomorrow"], write_buffer_bytes=1 << 20)
        db.drop_column_family("of_tomorrow")
        rocks.close(db, path)
        node.start()
        assert stored(node, "d0") == {n: values(n) for n in range(10)}


# --- two builds on one data directory ---------------------------------------------------------

# A build to come: this one, whose stores have another format.  Every process of it is one.
NEXT = """
from tbfast.store import attributes, journal, registry, series

journal.FORMAT_VERSION = series.FORMAT_VERSION = 99
registry.STORE_FORMAT = attributes.STORE_FORMAT = 99
"""


@pytest.fixture
def next_build(tmp_path: Path) -> dict[str, str]:
    """The environment that makes a node one of the next build."""
    directory = tmp_path / "next build"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(NEXT)
    return {"PYTHONPATH": f"{directory}{os.pathsep}{ROOT}"}


def send(node: Node, token: str, first: int, last: int) -> None:
    with connected(node.mqtt_port, token) as client:
        for n in range(first, last):
            row = {"ts": FIRST_MS + n, "values": values(n)}
            client.publish_acknowledged(json.dumps(row).encode())


def test_an_upgrade_under_load(tmp_path: Path, next_build: dict[str, str]) -> None:
    """The next build is turned away while this one runs; then one stops and the other starts.

    Devices come back by themselves, and nothing acknowledged is missing.
    """
    with running_node(tmp_path / "data") as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens, http_port=node.http_port, rate=200) as load:
            load.wait_acked(500)
            pids = [node.controller_pid(), node.worker_pid(0), node.worker_pid(1)]
            said = refusal(Node(node.data_dir, env=next_build, log=tmp_path / "next"))
            assert said.startswith("tbfast: another tbfast uses the data directory")
            assert str(node.data_dir) in said and "--data-dir" in said
            load.wait_acked(500)
            assert pids == [node.controller_pid(), node.worker_pid(0), node.worker_pid(1)]
            assert load.progress.connects == len(tokens)
            assert node.stop(40) == 0
            node.env |= next_build
            node.start()
            load.wait_connected(len(tokens))
            load.wait_acked(500)
            record = load.finish()
        audit(node, record)


def test_an_older_build_beside_and_after_a_newer_one(
    tmp_path: Path, next_build: dict[str, str]
) -> None:
    """It names what it cannot read, serves nothing of it, and leaves all to the newer one."""
    with running_node(tmp_path / "data", workers=1, env=next_build) as newer:
        (token,) = newer.add_devices(1)
        send(newer, token, 0, 10)
        older = Node(newer.data_dir, workers=1, log=tmp_path / "older")
        assert "another tbfast uses the data directory" in refusal(older)
        send(newer, token, 10, 20)
        assert newer.stop() == 0
        older.spawn()
        try:
            wait_until(lambda: len(_refusals(older)) > 1, 20, "refused")
            assert "format 99" in str(_refusals(older)[0]["error"])
            assert not older.ready()
        finally:
            older.kill_all()
        newer.start()
        send(newer, token, 20, 30)
        assert stored(newer, "d0") == {n: values(n) for n in range(30)}


def _refusals(node: Node) -> list[dict[str, object]]:
    return [line for line in node.log_lines() if "newer tbfast" in str(line.get("error"))]
