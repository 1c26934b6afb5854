"""Who holds the listening sockets: a copy in another process would go on being dealt connections
after its owner is parked, and nobody would ever accept them."""

import os
from pathlib import Path

from tests.support.server import Server


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(fields[9])
    return inodes


def _sockets(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        name = os.readlink(entry)
        if name.startswith("socket:["):
            found.add(name[8:-1])
    return found


def test_each_worker_holds_its_own_listeners_only() -> None:
    with Server(workers=2) as server:
        pids = server.pids()
        for port in (server.mqtt_port, server.http_port):
            inodes = _listening_inodes(port)
            held = {name: _sockets(pid) & inodes for name, pid in pids.items()}
            assert len(inodes) == 2
            assert held["supervisor"] == inodes  # kept open over restarts of the workers
            assert held["controller"] == set()
            assert len(held["worker-0"]) == len(held["worker-1"]) == 1
            assert held["worker-0"] != held["worker-1"]
