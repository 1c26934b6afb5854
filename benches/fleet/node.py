"""A tbfast node for a bench: a process of its own with devices bench-0 and on."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tbfast.cli import bench, client
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
_START_S = 30
_STOP_S = 30


class Node(NamedTuple):
    """A running node; ``pid`` is the supervisor's, the other processes are its children."""

    pid: int
    port: int
    data_dir: Path


@contextlib.contextmanager
def tbfast(durability: str, workers: int, devices: int) -> Iterator[Node]:
    """A node on free ports with a store of its own, deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="tbfast-bench-") as directory:
        data_dir = Path(directory) / "data"
        log = Path(directory) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    sys.executable, "-m", "tbfast", "serve", "--data-dir", str(data_dir),
                    "--host", "127.0.0.1", "--mqtt-port", "0", "--http-port", "0",
                    "--durability", durability, "--workers", str(workers),
                ],
                cwd=ROOT, stderr=file, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            yield _provisioned(process, data_dir, log, devices)
        finally:
            process.terminate()
            process.wait(_STOP_S)


def _provisioned(process: subprocess.Popen[bytes], data_dir: Path, log: Path, devices: int) -> Node:
    found: list[client.Server] = []

    def answers() -> bool:
        assert process.poll() is None, f"tbfast ended:\n{log.read_text()}"
        server = client.connect(data_dir)
        found.extend([server] if server else [])
        return bool(server)

    wait_until(answers, _START_S, "tbfast answers")
    with contextlib.closing(found[0]) as server:
        bench.provision(server, devices, lambda phase, share, messages: None)
        wait_until(lambda: server.node().mqtt_port, _START_S, "tbfast listens")
        node = server.node()
    return Node(node.supervisor_pid, node.mqtt_port, data_dir)
