"""The supervisor kills what hangs, and nothing that only waits; it lives on when it cannot fork."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast import supervisor
from tests.support.audit import audit, query
from tests.support.faulty_disk import FaultShim
from tests.support.ledger import running_load
from tests.support.mqtt_client import connected
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

PAYLOAD = b'{"ts":1,"values":{"n":1}}'
GROUPS = Path("/sys/fs/cgroup/pids")


def pids(node: Node) -> list[int]:
    return [node.controller_pid(), *(node.worker_pid(n) for n in range(node.workers))]


def test_nobody_is_killed_when_all_stood_still(tmp_path: Path) -> None:
    """A machine or a container that was paused: heartbeats are late, and so is the supervisor."""
    with running_node(tmp_path / "data") as node:
        tokens = node.add_devices(1)
        before = pids(node)
        with connected(node.mqtt_port, tokens[0]) as session:
            session.publish_acknowledged(PAYLOAD)
            assert node.process is not None
            os.killpg(node.process.pid, signal.SIGSTOP)
            signal.sigtimedwait([], supervisor.STUCK_S + 1.5)
            os.killpg(node.process.pid, signal.SIGCONT)
            session.publish_acknowledged(b'{"ts":2,"values":{"n":2}}')
            signal.sigtimedwait([], 3 * supervisor.TICK_S)
            session.ping()
        assert pids(node) == before
        # Who hangs alone is found as ever.
        stuck = node.kill_worker(1, signal.SIGSTOP)
        assert node.wait_replaced(1, stuck, 8) < 6.5


def test_a_controller_that_opens_a_slow_store_is_not_killed(tmp_path: Path) -> None:
    shim = FaultShim(tmp_path / "shim", "/series")
    with running_node(tmp_path / "data", workers=1, env=shim.env) as node:
        before = node.controller_pid()
        shim.delay_syncs(1200)  # six of them
        os.kill(before, signal.SIGKILL)
        begun = time.monotonic()
        wait_until(lambda: (s := node.status()) and s.pid != before, 30, "a controller")
        assert time.monotonic() - begun > supervisor.STUCK_S
        shim.delay_syncs(0)
        assert "is stuck" not in node.log.read_text()


@pytest.mark.fault_long
def test_a_controller_on_a_slow_disk_is_not_killed(tmp_path: Path) -> None:
    """RocksDB makes and drops windows with the GIL held, for several syncs each."""
    shim = FaultShim(tmp_path / "shim", "/series")
    env = {"TBFAST_SERIES__SEAL_INTERVAL_MS": "1000", "TBFAST_SERIES__RETENTION_MS": "64000"}
    with running_node(tmp_path / "data", workers=1, env=shim.env | env) as node:
        tokens = node.add_devices(3)
        before = pids(node)
        with running_load(node.mqtt_port, tokens, rate=50) as load:
            wait_until(lambda: node.metric("tbfast_sealed_points_total"), what="a window")
            shim.delay_syncs(2500)
            options = _options(node)
            wait_until(lambda: _options(node) != options, 120, "another window")
            load.wait_acked(50)
            shim.delay_syncs(0)
            record = load.finish()
        assert pids(node) == before
        audit(node, record)


def _options(node: Node) -> set[str]:
    """Names of a file that is written anew with each family of the series store."""
    return {path.name for path in (node.data_dir / "series").glob("OPTIONS-??????")}


@pytest.fixture
def group() -> Iterator[Path]:
    """A pids cgroup (version 1) of the test's own."""
    path = GROUPS / f"tbfast-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no pids cgroup can be made here: {error}")
    yield path
    wait_until(lambda: not (path / "cgroup.procs").read_text(), what="the group is empty")
    path.rmdir()


@pytest.mark.skipif(not GROUPS.is_dir(), reason="needs cgroup 1")
def test_no_process_to_be_had(tmp_path: Path, group: Path) -> None:
    wrapper = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    with running_node(tmp_path / "data", workers=2, wrapper=wrapper) as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(300)
            (group / "pids.max").write_text("1")
            pid = node.kill_worker(0)
            wait_until(lambda: "cannot start a process" in node.log.read_text(), what="a log line")
            assert node.worker_pid(0) == 0
            load.wait_acked(300)  # those of the other one
            (group / "pids.max").write_text("max")
            node.wait_replaced(0, pid, 5)
            load.wait_connected(8)
            record = load.finish()
        audit(node, record)
        assert node.stop() == 0
        assert query(node, "d0", "n")
