"""Disks that fail, are slow, full or lose power: an acknowledgement is never a lie."""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tbfast.cli.devices import new_device
from tbfast.model import mqtt as m
from tbfast.worker.commit import MARK_INTERVAL_S
from tests.support.audit import audit, query
from tests.support.faulty_disk import FaultShim, SmallDisk, small_disk
from tests.support.ledger import running_load
from tests.support.mqtt_client import Client, connected
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

SEED = int(os.environ.get("TBFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
ROUNDS = int(os.environ.get("TBFAST_TEST_FAULT_ROUNDS", "200"))
RESUME_S = 10.0  # 1 s, but a RocksDB that met ENOSPC looks for free space every 5 s
SERVER_UNAVAILABLE, SERVER_BUSY = 3, 0x89
SYNC_S = 1.0  # a sync may take so long on a busy machine
PAYLOAD = b'{"ts":1,"values":{"n":1}}'


@pytest.fixture
def shim(tmp_path: Path) -> FaultShim:
    return FaultShim(tmp_path / "shim")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 64) as disk:
        yield disk


def test_failed_sync_is_never_acknowledged(tmp_path: Path, shim: FaultShim) -> None:
    with running_node(tmp_path / "data", workers=1, env=shim.env) as node:
        (token,) = node.add_devices(1)
        pid = node.worker_pid(0)
        with connected(node.mqtt_port, token) as client:
            client.publish_acknowledged(PAYLOAD)
            shim.fail_syncs(1)
            client.publish(PAYLOAD)
            assert client.receive() is None
        assert shim.failures_left == 0
        node.wait_replaced(0, pid, 5)
        ended = [line for line in node.log_lines() if line["event"].startswith("process ended")]
        assert [(line["child"], line["exit_code"]) for line in ended] == [("worker-0", 70)]
        with connected(node.mqtt_port, token) as client:
            client.publish_acknowledged(PAYLOAD)


def test_what_a_failed_sync_is_answered(tmp_path: Path, shim: FaultShim) -> None:
    """Not a PUBACK, not 200: MQTT 5 and HTTP say what happened before they close."""
    with running_node(tmp_path / "data", workers=1, env=shim.env) as node:
        tokens = node.add_devices(2)
        pid = node.worker_pid(0)
        with connected(node.mqtt_port, tokens[0], 5) as client:
            client.publish_acknowledged(PAYLOAD)
            shim.fail_syncs(1)
            client.publish(b'{"ts":2,"values":{"n":2}}')
            assert client.expect(m.Disconnect).reason_code == 0x97
            assert client.receive() is None
        node.wait_replaced(0, pid, 5)
        pid = node.worker_pid(0)
        assert _posted(node, tokens[1]) == (200, None)
        shim.fail_syncs(1)
        assert _posted(node, tokens[1]) == (503, "1")
        node.wait_replaced(0, pid, 5)
        assert _posted(node, tokens[1]) == (200, None)
        assert query(node, "d0", "n")[1] == 1
        assert node.metric('tbfast_restarts_total{process="worker-0"}') == 2


def failing_syncs(tmp_path: Path, seed: int, rounds: int) -> None:
    print(f"TBFAST_TEST_SEED={seed}")
    rng = random.Random(seed)
    shim = FaultShim(tmp_path / "shim")
    with running_node(tmp_path / "data", workers=1, env=shim.env) as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens, http_port=node.http_port) as load:
            for _ in range(rounds):  # never so many that the worker is parked
                load.wait_acked(rng.randrange(50, 2000))
                pid = node.worker_pid(0)
                shim.fail_syncs(1)
                node.wait_replaced(0, pid, 5)
            record = load.finish()
        audit(node, record)


def power_cuts(tmp_path: Path, seed: int, rounds: int) -> None:
    print(f"TBFAST_TEST_SEED={seed}")
    rng = random.Random(seed)
    shim = FaultShim(tmp_path / "shim")
    with running_node(tmp_path / "data", env=shim.env) as node:
        tokens = node.add_devices(16)
        with running_load(node.mqtt_port, tokens, http_port=node.http_port) as load:
            for _ in range(rounds):
                load.wait_acked(rng.randrange(300, 3000))
                node.kill_all()
                shim.cut_power(node.data_dir)
                node.start()
            record = load.finish()
        audit(node, record)


def test_syncs_failing_at_random_moments_under_load(tmp_path: Path) -> None:
    failing_syncs(tmp_path, SEED, 3)


def test_power_cut_under_load(tmp_path: Path) -> None:
    power_cuts(tmp_path, SEED, 4)


def test_power_cut_in_process_mode_costs_the_stated_window(tmp_path: Path, shim: FaultShim) -> None:
    with running_node(tmp_path / "data", workers=1, durability="process", env=shim.env) as node:
        assert "may be lost in a power cut" in node.log.read_text()
        (token,) = node.add_devices(1)
        acked_s: list[float] = []
        with connected(node.mqtt_port, token) as client:
            ends = time.monotonic() + 3 * MARK_INTERVAL_S
            while time.monotonic() < ends:
                n = len(acked_s)
                client.publish_acknowledged(b'{"ts":%d,"values":{"n":%d}}' % (n, n))
                acked_s.append(time.monotonic())
            window_s = node.metric("tbfast_unsynced_window_seconds")
            assert window_s < MARK_INTERVAL_S + SYNC_S
        killed = time.monotonic()
        node.kill_all()
        assert shim.cut_power(node.data_dir) > 0
        node.start()
        kept = query(node, "d0", "n")
        assert kept == {n: n for n in range(len(kept))}  # and nothing in between
        assert len(kept) < len(acked_s), "a sync was in time for all: nothing was tried"
        lost_s = killed - acked_s[len(kept)]
        print(f"lost the last {lost_s:.2f} s")
        assert lost_s < MARK_INTERVAL_S + SYNC_S


@pytest.mark.fault_long
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("hurt", "at_once"), [(failing_syncs, 3), (power_cuts, 20)])
def test_disk_for_long(tmp_path: Path, hurt: Callable[..., None], at_once: int) -> None:
    for part in range(0, ROUNDS, at_once):
        (tmp_path / f"{part}").mkdir()
        hurt(tmp_path / f"{part}", SEED + part, at_once)


def test_slow_disk_delays_acknowledgements_only(tmp_path: Path, shim: FaultShim) -> None:
    with running_node(tmp_path / "data", workers=1, env=shim.env) as node:
        tokens = node.add_devices(25)
        with (
            connected(node.mqtt_port, tokens[24]) as client,
            running_load(node.mqtt_port, tokens[:24], window=2000) as load,
        ):
            load.wait_acked(1000)
            shim.delay_syncs(100)
            load.wait_acked(10_000)
            for _ in range(50):
                begun = time.monotonic()
                client.ping()
                assert time.monotonic() - begun < 0.5
            begun = time.monotonic()
            client.publish_acknowledged(PAYLOAD)
            assert 0.1 <= time.monotonic() - begun < 2
            assert node.rss_bytes() < 200 << 20
            shim.delay_syncs(0)
            record = load.finish()
        audit(node, record)


def test_newcomers_are_sent_away_while_the_disk_stalls(tmp_path: Path, shim: FaultShim) -> None:
    """Sessions hold, and what they sent is acknowledged when the disk is back."""
    env = shim.env | {"TBFAST_JOURNAL__BUSY_AFTER_MS": "1000"}
    with running_node(tmp_path / "data", workers=1, env=env) as node:
        tokens = node.add_devices(4)
        pid = node.worker_pid(0)
        with connected(node.mqtt_port, tokens[0]) as session:
            session.publish_acknowledged(PAYLOAD)
            shim.delay_syncs(600_000)
            session.publish(b'{"ts":2,"values":{"n":2}}')
            with connected(node.mqtt_port, tokens[1]) as in_time:  # it is not late yet
                wait_until(lambda: node.page("/readyz")[0] == 503, 10)
                said = "worker-0 refuses new connections: the disk is too slow\n"
                assert node.page("/readyz")[1] == said
                assert node.metric("tbfast_disk_stalled") == 1
                assert _code(node, tokens[2], 5) == SERVER_BUSY
                assert _code(node, tokens[2], 4) == SERVER_UNAVAILABLE
                assert _code(node, "nobody's", 5) == SERVER_BUSY  # not even looked up
                assert _posted(node, tokens[3]) == (503, "1")
                in_time.ping()
            session.ping()
            assert node.ready()
            shim.delay_syncs(0)
            session.expect(m.Puback)
            session.publish_acknowledged(b'{"ts":3,"values":{"n":3}}')
            wait_until(lambda: node.page("/readyz")[0] == 200, 5)
            assert _code(node, tokens[2], 5) == 0
            assert _posted(node, tokens[3]) == (200, None)
        assert node.metric("tbfast_disk_stalled") == 0
        assert node.worker_pid(0) == pid
        assert query(node, "d0", "n") == {1: 1, 2: 2, 3: 3}
        assert query(node, "d3", "n") == {1: 1}


def _code(node: Node, token: str, version: int) -> int:
    with contextlib.closing(Client(node.mqtt_port, version)) as client:
        return client.connect(token)


def _posted(node: Node, token: str) -> tuple[int, str | None]:
    """Status of a POST of telemetry, and when to come again."""
    connection = HTTPConnection("127.0.0.1", node.http_port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", f"/api/v1/{token}/telemetry", PAYLOAD)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers["Retry-After"]


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_full_disk(tmp_path: Path, disk: SmallDisk, durability: str) -> None:
    with running_node(
        disk.path / "data", workers=1, durability=durability, log=tmp_path / "log"
    ) as node:
        tokens = node.add_devices(10)
        pid = node.worker_pid(0)
        with (
            connected(node.mqtt_port, tokens[8]) as idle,
            running_load(node.mqtt_port, tokens[:8]) as load,
        ):
            load.wait_acked(500)
            assert node.page("/readyz") == (200, "ready\n")
            disk.fill()
            _refused(node, tokens[9], 5)
            _refused(node, tokens[9], 4)
            _refused_post(node, tokens[9])
            idle.ping()
            assert node.ready()
            wait_until(lambda: node.page("/readyz")[0] == 503, 5)
            assert node.page("/readyz")[1] == "worker-0 refuses telemetry: the disk is full\n"
            wait_until(lambda: not _reserve(node).exists(), 5)
            _administer(node)
            disk.resize(256)
            begun = time.monotonic()
            load.wait_acked(500, RESUME_S)
            print(f"resumed {time.monotonic() - begun:.2f} s after there was space")
            idle.publish_acknowledged(PAYLOAD)
            assert node.worker_pid(0) == pid
            wait_until(lambda: node.page("/readyz")[0] == 200, 5)
            wait_until(lambda: _reserve(node).exists(), 5)
            record = load.finish()
        audit(node, record)


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_stop_and_start_on_a_full_disk(tmp_path: Path, disk: SmallDisk, durability: str) -> None:
    with running_node(
        disk.path / "data", workers=1, durability=durability, log=tmp_path / "log"
    ) as node:
        tokens = node.add_devices(9)
        with running_load(node.mqtt_port, tokens[:8]) as load:
            load.wait_acked(500)
            disk.fill()
            _refused(node, tokens[8], 4)
            assert node.stop() == 0
            disk.fill()
            node.start()
            assert query(node, "d0", "n")
            _administer(node)
            _refused(node, tokens[8], 5)
            disk.resize(256)
            load.wait_acked(500)
            record = load.finish()
        audit(node, record)
        assert not [line for line in node.log_lines() if line["event"].startswith("process ")]


def test_start_with_room_for_some_stores_only(tmp_path: Path) -> None:
    """The controller waits for the rest, with those closed that it could open."""
    data = tmp_path / "data"
    data.mkdir()
    with (
        small_disk(data / "attributes", 16) as disk,
        running_node(data, workers=1, log=tmp_path / "log") as node,
    ):
        (token,) = node.add_devices(1)
        assert node.stop() == 0
        disk.fill()
        node.spawn()
        wait_until(lambda: node.log.read_text().count("waiting for disk space") > 2)
        disk.resize(32)
        node.wait_ready()
        with connected(node.mqtt_port, token) as client:
            client.publish_acknowledged(PAYLOAD)
        assert not [line for line in node.log_lines() if line["event"].startswith("process ")]


def _refused_post(node: Node, token: str) -> None:
    """The same over HTTP: 507, and when to try again."""
    connection = HTTPConnection("127.0.0.1", node.http_port, timeout=10)

    def refused() -> bool:
        connection.request("POST", f"/api/v1/{token}/telemetry", PAYLOAD)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 507:
            assert answer.headers["Retry-After"]
        return answer.status == 507

    with contextlib.closing(connection):
        wait_until(refused, 10, "the disk is full")


def _administer(node: Node) -> None:
    """Creating, reading and deleting go on, in the space of the reserve."""
    with node.api() as api:
        for number in range(20):
            api.create(new_device(f"extra-{number}", f"extra-token-{number}"))
        for number in range(20):
            api.remove(api.find(f"extra-{number}"))


def _reserve(node: Node) -> Path:
    return node.data_dir / "reserve"


def _refused(node: Node, token: str, version: int) -> None:
    """Publishes until the disk is full; then the session is closed without a PUBACK."""

    def closed() -> bool:
        with connected(node.mqtt_port, token, version) as client:
            client.publish(PAYLOAD)
            packet = client.receive()
            if isinstance(packet, m.Puback):
                return False
            if version == 5:
                assert isinstance(packet, m.Disconnect), packet
                assert packet.reason_code == 0x97
                packet = client.receive()
            assert packet is None
            return True

    wait_until(closed, 10, "the disk is full")
