"""A tbfast node for a bench: a process of its own with devices bench-0 and on."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from tbfast.cli import bench, client
from tests.support.server import Server


class Node(NamedTuple):
    """A running node; ``pid`` is the supervisor's, the other processes are its children."""

    pid: int
    port: int


@contextlib.contextmanager
def tbfast(durability: str, workers: int, devices: int) -> Iterator[Node]:
    """A node on free ports with a store of its own, deleted at the end."""
    with Server(durability=durability, workers=workers) as server:
        target = client.connect(server.data_dir)
        assert target is not None
        with contextlib.closing(target):
            bench.provision(target, devices, lambda phase, share, messages: None)
        yield Node(server.node()["supervisorPid"], server.mqtt_port)
