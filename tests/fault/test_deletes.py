"""kill -9 right behind the answer to a delete: what was deleted is not there afterwards."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.test_sealing import metric
from tests.support.mqtt_client import connected
from tests.support.server import Server
from tests.support.waiting import wait_until

SEALING = {"TBFAST_SERIES__SEAL_INTERVAL_MS": "1000"}


@pytest.fixture(params=["journal", "sealed"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """With three messages of a device d, at times 1, 2 and 3."""
    env = SEALING if request.param == "sealed" else {}
    with Server(env=env) as server:
        server.add_device("d")
        publish(server, 1, 2, 3)
        if request.param == "sealed":
            wait_until(lambda: metric(server, "tbfast_series_points") == 6)
        yield server


def publish(server: Server, *times: int) -> None:
    with connected(server.mqtt_port, "d") as device:
        for ts in times:
            text = f'{{"ts":{ts},"values":{{"a":{ts},"b":{ts}}}}}'
            device.publish_acknowledged(text.encode())


def replaced(server: Server, process: str) -> None:
    """Kills a process and waits for the next one."""
    old = server.kill9(process)

    def back() -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return server.pids()[process] != old
        return False

    wait_until(back, 30.0, f"another {process}")


def times(server: Server, key: str) -> list[int]:
    return [point["ts"] for point in server.query("d").get(key, [])]


def test_killed_controller(server: Server) -> None:
    server.cli("series", "delete", "d", "--keys", "a", "--start", "2", "--end", "3", "--yes")
    replaced(server, "controller")
    assert (times(server, "a"), times(server, "b")) == ([3, 1], [3, 2, 1])
    publish(server, 2)
    replaced(server, "controller")
    assert times(server, "a") == [3, 2, 1]
    server.cli("series", "delete", "d", "--yes")
    replaced(server, "controller")
    assert server.query("d") == {}


def test_killed_node(server: Server) -> None:
    server.cli("series", "delete", "d", "--keys", "a", "--yes")
    processes = server.pids()
    os.kill(processes["supervisor"], signal.SIGKILL)
    server.wait()
    wait_until(lambda: not any(map(alive, processes.values())), what="all processes are gone")
    offline = json.loads(server.cli("query", "d", "--json"))
    assert {key: len(points) for key, points in offline.items()} == {"b": 3}
    server.start()
    assert (times(server, "a"), times(server, "b")) == ([], [3, 2, 1])


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_removed_device_and_one_of_its_name(server: Server) -> None:
    server.remove_device("d")
    replaced(server, "controller")
    server.add_device("d")
    assert server.query("d") == {}
    publish(server, 7)
    assert (times(server, "a"), times(server, "b")) == ([7], [7])
