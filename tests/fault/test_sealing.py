"""Rows that become series while processes die and the disk fills: each is read exactly once."""

import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast.model.ranges import RangeQuery
from tbfast.store.journal import Position
from tbfast.store.layout import Layout
from tbfast.store.series import SeriesStore
from tbfast.store.series_reader import JournalFile
from tests.fault.test_ledger import DEVICES, ROUNDS, SEED, Hurting
from tests.support.audit import audit, audit_stopped
from tests.support.faulty_disk import FaultShim, SmallDisk, small_disk
from tests.support.ledger import Device, Record, running_load
from tests.support.node import Node, running_node
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.writers import writers

OFTEN = {
    "TBFAST_SERIES__HEAD_BYTES": "1048576",
    "TBFAST_SERIES__SEAL_INTERVAL_MS": "1000",
    "TBFAST_SERIES__JOIN_RUNS": "2",
}
SECONDS = float(os.environ.get("TBFAST_TEST_SEALING_SECONDS", "12"))
HELD_BYTES = 1 << 20  # of a journal, when what is sealed is trimmed
SEALED_S = 15.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as disk:
        yield disk


def held_bytes(node: Node) -> int:
    """Bytes of blocks that a journal still has, of the fullest one."""
    held = []
    layout = Layout(node.data_dir)
    for number in layout.journal_numbers():
        journal = JournalFile(layout.journal(number))
        held.append(sum(len(block) for _, block in journal.blocks(Position(0, 0))))
        journal.close()
    return max(held)


def sealed_points(node: Node) -> int:
    """Of a stopped node."""
    store = SeriesStore(Layout(node.data_dir).series)
    try:
        return sum(window.points for window in store.windows())
    finally:
        store.close()


def segments(node: Node) -> list[int]:
    """Levels of the segments of a stopped node: 0 = not joined."""
    store = SeriesStore(Layout(node.data_dir).series)
    try:
        return [segment.level for window in store.windows() for segment in window.segments]
    finally:
        store.close()


def kills(tmp_path: Path, seed: int, *, rounds: int, seconds: float) -> None:
    print(f"TBFAST_TEST_SEED={seed}")
    deadline = time.monotonic() + seconds
    with running_node(tmp_path / "data", env=OFTEN) as node:
        tokens = node.add_devices(DEVICES)
        with running_load(node.mqtt_port, tokens, http_port=node.http_port) as load:
            hurting = Hurting(node, load, random.Random(seed))
            faults = []
            while len(faults) < rounds and time.monotonic() < deadline:
                faults.append(hurting.once())
            record = load.finish()
        print(" ".join(faults))
        assert audit(node, record) == load.acked
        wait_until(lambda: held_bytes(node) < HELD_BYTES, SEALED_S)
        assert node.stop() == 0
        audit_stopped(node, record)
        assert sealed_points(node) >= 2 * load.acked  # keys n and text; some again after a crash
        levels = segments(node)
        assert max(levels) > 0, "nothing was joined"
        node.start()
        assert audit(node, record) == load.acked


def test_kills_while_sealing_and_joining(tmp_path: Path) -> None:
    kills(tmp_path, SEED, rounds=1000, seconds=SECONDS)


@pytest.mark.fault_long
@pytest.mark.timeout(0)
def test_sealing_for_long(tmp_path: Path) -> None:
    for part in range(0, ROUNDS, 20):
        kills(tmp_path / f"{part}", SEED + part, rounds=20, seconds=600)


def test_power_cuts_while_sealing(tmp_path: Path) -> None:
    print(f"TBFAST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    shim = FaultShim(tmp_path / "shim")
    with running_node(tmp_path / "data", env={**OFTEN, **shim.env}) as node:
        tokens = node.add_devices(16)
        with running_load(node.mqtt_port, tokens) as load:
            for _ in range(3):
                load.wait_acked(rng.randrange(2000, 8000))
                node.kill_all()
                shim.cut_power(node.data_dir)
                node.start()
            record = load.finish()
        audit(node, record)
        assert node.stop() == 0
        audit_stopped(node, record)


def test_latest_and_keys_after_a_killed_controller(tmp_path: Path) -> None:
    """What is sealed is not replayed: the journals no longer have it."""
    with running_node(tmp_path / "data", env=OFTEN) as node:
        tokens = node.add_devices(16)  # so many that each worker has some
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(2000)
            record = load.finish()
        wait_until(lambda: metric(node, "tbfast_series_points") == 2 * load.acked, SEALED_S)
        pid = node.controller_pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: node.controller_pid() not in (0, pid), SEALED_S)
        node.wait_ready()
        assert audit(node, record) == load.acked
        wait_until(lambda: len(linked(node)) == 4, SEALED_S, "both workers linked twice")
        assert "(0, 0)" not in linked(node)[2:]
        assert metric(node, "tbfast_series_points") == 2 * load.acked


def linked(node: Node) -> list[str]:
    """Positions that the controller knew when workers linked to it."""
    return [line["after"] for line in node.log_lines() if line["event"] == "worker linked"]


def metric(node: Node | Server, name: str) -> float:
    """A metric without labels."""
    url = f"http://127.0.0.1:{node.http_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
    raise AssertionError(f"no metric {name}")


def both(one: Record, other: Record) -> Record:
    """What the devices of two loads saw together; they sent the same messages."""
    devices = {}
    for token, a in one.devices.items():
        b = other.devices[token]
        devices[token] = Device(max(a.sent, b.sent), [*a.acked, *b.acked], [])
    return Record(devices)


def test_a_former_workers_journal_is_sealed_and_removed(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        *tokens, other = node.add_devices(9)
        with writers(node) as each:  # all devices of the load may be with one worker
            for writer in each:
                writer.post(other, b'{"ts":1,"values":{"other":1}}')
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(1000)
            record = load.finish()
        node.kill_all()  # nothing is sealed
        journals = node.data_dir / "journal"
        node.workers = 1
        node.start()
        assert audit(node, record) == load.acked
        assert (journals / "1").is_dir()
        assert node.stop() == 0
        audit_stopped(node, record)
        node.start()
        wait_until(lambda: not (journals / "1").exists(), what="the empty journal is removed")
        assert audit(node, record) == load.acked
        assert node.stop() == 0
        # A journal of that number again: its rows are newer than all that were sealed.
        node.workers = 2
        node.start()
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(1000)
            record = both(record, load.finish())
        acked = audit(node, record)
        node.kill_all()
        node.start()
        assert audit(node, record) == acked


def test_full_disk_while_sealing(tmp_path: Path, disk: SmallDisk) -> None:
    with running_node(disk.path / "data", workers=1, env=OFTEN, log=tmp_path / "log") as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(2000)
            disk.fill()
            # Sealing waits too, unless it had just taken everything.
            wait_until(lambda: "journal refused a group" in node.log.read_text(), SEALED_S)
            assert node.ready()
            with node.api() as api:
                view = api.find("d0")
                assert b'"n":[{' in api.history(view, RangeQuery(limit=10))
            disk.resize(256)
            load.wait_acked(2000, SEALED_S)
            record = load.finish()
        assert audit(node, record) == load.acked
        wait_until(lambda: held_bytes(node) < HELD_BYTES, SEALED_S)
        assert node.stop() == 0
        audit_stopped(node, record)
        assert sealed_points(node) >= 2 * load.acked


def test_stop_on_a_full_disk_does_not_wait_for_room(tmp_path: Path, disk: SmallDisk) -> None:
    with running_node(disk.path / "data", workers=1, log=tmp_path / "log") as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(2000)
            record = load.finish()
        disk.fill()
        begun = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - begun < 10
        disk.resize(256)
        node.start()
        assert audit(node, record) == load.acked
