"""The simulated fleet: what its devices measure, and how they talk to a server that counts."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tbfast.loadgen import fleet, things
from tests.support.stub_broker import StubBroker, stub_broker

ROOT = Path(__file__).parents[2]


class Fleet:
    """The fleet's own process and its reports."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def report(self) -> fleet.Report:
        """The next one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the fleet has ended"
        return msgspec.json.decode(line, type=fleet.Report)

    def until(self, condition: Callable[[fleet.Report], object]) -> fleet.Report:
        """The first report the condition holds for."""
        for _ in range(20):
            report = self.report()
            if condition(report):
                return report
        raise AssertionError(f"never so in 20 reports; the last: {report}")


@contextlib.contextmanager
def running(server: StubBroker | socket.socket, devices: int, rate: float) -> Iterator[Fleet]:
    """Devices with the tokens T0, T1, ...; a complaint of the process fails the test."""
    tokens = [f"T{n}" for n in range(devices)]
    port = server.port if isinstance(server, StubBroker) else server.getsockname()[1]
    words = ["-m", "tbfast.loadgen.fleet", "127.0.0.1", str(port), str(rate), *tokens]
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield Fleet(process)
        finally:
            process.terminate()
            _, complaints = process.communicate(timeout=20)
    assert complaints == b""


def test_devices_differ_in_version_and_qos() -> None:
    with stub_broker() as broker, running(broker, devices=10, rate=20) as fleet_:
        fleet_.until(lambda r: r.connected == 10)
        report = fleet_.report()
    assert (report.devices, report.connected, report.reconnects, report.refused) == (10, 10, 0, 0)
    assert 100 <= report.messages <= 260
    assert report.messages < report.points <= 4 * report.messages
    assert 0 < report.acknowledged <= report.messages
    assert report.ack_p50_ms is not None
    assert report.ack_p99_ms is not None
    assert 0 < report.ack_p50_ms <= report.ack_p99_ms < 1000
    versions = {c.username: c.protocol_version for c in broker.connects}
    assert versions == {f"T{n}": 5 if n % 2 else 4 for n in range(10)}
    assert {user for user, _ in broker.published} == {f"T{n}" for n in range(10)}
    assert {user for user, _ in broker.acknowledged} == {f"T{n}" for n in range(10) if n % 4 != 3}
    assert all(json.loads(payload) for _, payload in broker.published)


@pytest.mark.parametrize(("rate", "keep_alive"), [(5, 60), (0.02, 100), (1e-9, 65535)])
def test_a_slow_device_keeps_its_session(rate: float, keep_alive: int) -> None:
    with stub_broker() as broker, running(broker, devices=1, rate=rate) as fleet_:
        fleet_.until(lambda r: r.connected == 1)
    assert [c.keep_alive for c in broker.connects] == [keep_alive]


def test_refused_messages_are_not_acknowledged_ones() -> None:
    with stub_broker(puback=0x97) as broker, running(broker, devices=2, rate=20) as fleet_:
        report = fleet_.until(lambda r: r.refused)
    # MQTT 3.1.1 has no way to refuse a PUBLISH: only the MQTT 5 device sees it.
    assert report.connected == 2
    assert 0 < report.refused < report.messages
    assert 0 < report.acknowledged < report.messages


def test_a_refused_device_tries_again() -> None:
    with stub_broker(connack=5) as broker, running(broker, devices=1, rate=100) as fleet_:
        report = fleet_.until(lambda r: r.reconnects >= 2)
    assert (report.connected, report.messages) == (0, 0)
    assert len(broker.connects) >= 2
    assert broker.published == []


def test_a_lost_connection_is_made_again() -> None:
    with stub_broker(drop_every=4) as broker, running(broker, devices=2, rate=50) as fleet_:
        fleet_.until(lambda r: r.reconnects >= 4)
    assert len(broker.connects) >= 4
    assert len(broker.published) > 8


def test_a_server_that_stalls_stops_the_device() -> None:
    with stub_broker(hold_after=1, hold_s=5.0) as broker, running(broker, 1, 1000) as fleet_:
        sent = 0
        while report := fleet_.report():
            sent += report.messages
            if report.connected and sent and not report.messages:
                break
        assert broker.held
        assert fleet.WINDOW <= sent <= 2 * fleet.WINDOW
        fleet_.until(lambda r: r.acknowledged)  # and it goes on by itself


def test_ends_when_nobody_reads_its_reports() -> None:
    with stub_broker() as broker, running(broker, devices=1, rate=5) as fleet_:
        fleet_.report()
        assert fleet_.process.stdout is not None
        fleet_.process.stdout.close()
        assert fleet_.process.wait(20) == 0


def test_a_server_of_another_protocol_does_not_end_the_fleet() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, running(server, 1, 5) as fleet_:
        server.settimeout(20)
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                while connection.recv(4096):  # until the device hangs up
                    pass
        fleet_.until(lambda r: r.reconnects == 2)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1, 0.5, 1), (1, 0.99, 1), (2, 0.5, 1), (100, 0.99, 99), (101, 0.99, 100), (1000, 0.5, 500)],
)
def test_ranks(count: int, share: float, expected: int) -> None:
    ascending_s = [n / 1000 for n in range(1, count + 1)]
    assert fleet._rank_ms(ascending_s, share) == expected


def test_no_sample_no_rank() -> None:
    assert fleet._rank_ms([], 0.5) is None


# --- readings ---------------------------------------------------------------------------------


def series(kind: str, count: int = 2000) -> list[things.Readings]:
    read = things.KINDS[kind](random.Random(7))
    return [read() for _ in range(count)]


@pytest.mark.parametrize("kind", things.KINDS)
def test_readings_are_telemetry(kind: str) -> None:
    for readings in series(kind):
        assert json.loads(things.payload(readings)) == readings
    assert series(kind) == series(kind)  # by seed
    assert len({things.payload(r) for r in series(kind)}) > 5  # they change


def test_kinds_take_turns() -> None:
    assert [things.kind_of(n) for n in range(5)] == list(things.KINDS)
    assert things.kind_of(5) == things.kind_of(0)


def test_counters_only_grow() -> None:
    energy = [r["energy"] for r in series("meter")]
    assert energy == sorted(energy)  # type: ignore[type-var]
    assert energy[0] < energy[-1]  # type: ignore[operator]


def test_readings_stay_possible() -> None:
    assert all(5 <= r["humidity"] <= 95 for r in series("climate"))  # type: ignore[operator]
    battery = [r["battery"] for r in series("door")]
    assert battery == sorted(battery, reverse=True)  # type: ignore[type-var]
    assert {r["open"] for r in series("door")} == {True, False}
    assert {r["state"] for r in series("machine")} == {"idle", "running", "fault"}
    assert all(47 < r["latitude"] < 49.5 for r in series("tracker"))  # type: ignore[operator]
