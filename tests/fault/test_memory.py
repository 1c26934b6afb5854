"""A memory limit, and strangers that ask for twice the room: nobody is killed."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.audit import audit
from tests.support.ledger import running_load
from tests.support.mqtt_client import connected
from tests.support.node import running_node
from tests.support.waiting import wait_until

GROUPS = Path("/sys/fs/cgroup/memory")
ROOM_BYTES = 32 << 20  # above what a quiet node takes
PART_BYTES = 60_000


@pytest.fixture
def group() -> Iterator[Path]:
    """A memory cgroup (version 1) of the test's own."""
    line = next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in x)
    path = GROUPS / line.split(":")[2].lstrip("/") / f"tbfast-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield path
    wait_until(lambda: not (path / "cgroup.procs").read_text(), what="the group is empty")
    path.rmdir()


def stranger(port: int) -> socket.socket:
    """Nearly a whole CONNECT of the largest size: it is kept until the rest comes."""
    sock = socket.create_connection(("127.0.0.1", port), 10)
    with contextlib.suppress(OSError):  # turned away at once
        sock.sendall(b"\x10\x80\x80\x04" + bytes(PART_BYTES))
    return sock


def used_bytes(group: Path) -> int:
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    files = int(stat["total_inactive_file"]) + int(stat["total_active_file"])
    return int((group / "memory.usage_in_bytes").read_text()) - files


@pytest.mark.skipif(not (GROUPS / "memory.limit_in_bytes").exists(), reason="needs cgroup 1")
def test_twice_the_room_is_asked_for(tmp_path: Path, group: Path) -> None:
    wrapper = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    with running_node(tmp_path / "data", workers=1, wrapper=wrapper) as node:
        tokens = node.add_devices(9)
        pids = [node.controller_pid(), node.worker_pid(0)]
        with running_load(node.mqtt_port, tokens[:8], window=4, rate=50) as load:
            load.wait_acked(100)
            limit = used_bytes(group) + ROOM_BYTES
            (group / "memory.limit_in_bytes").write_text(str(limit))
            wait_until(lambda: node.metric("tbfast_memory_budget_bytes") > 0, what="a budget")
            with contextlib.ExitStack() as stack:
                sent = 0
                while sent < 2 * ROOM_BYTES:
                    stack.enter_context(contextlib.closing(stranger(node.mqtt_port)))
                    sent += PART_BYTES
                load.wait_acked(100)
                assert node.metric("tbfast_memory_shed_total") > 0
                assert "memory is scarce" in node.log.read_text()
                assert load.progress.connects == 8  # who was in stayed
            wait_until(lambda: node.metric("tbfast_memory_level") == 0, 30, "there is room again")
            with connected(node.mqtt_port, tokens[8]) as late:
                late.publish_acknowledged(b'{"ts":1,"values":{"n":1}}')
            record = load.finish()
        assert audit(node, record) == load.acked
        assert pids == [node.controller_pid(), node.worker_pid(0)]
        events = (group / "memory.oom_control").read_text().split()
        assert events[events.index("oom_kill") + 1] == "0"
