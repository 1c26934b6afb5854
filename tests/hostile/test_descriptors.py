"""A worker with few file descriptors under more connections than it can take (promises 10)."""

import os
import socket
from pathlib import Path

from tbfast import limits
from tests.support.node import Node
from tests.support.waiting import wait_until
from tests.support.wire import Wire

NOFILE = 200


def _open(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_descriptors_stay_reserved_and_devices_get_in(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", workers=1, wrapper=["prlimit", f"--nofile={NOFILE}:{NOFILE}"])
    flood: list[socket.socket] = []
    try:
        node.start()
        (token,) = node.add_devices(1)
        with Wire(node.mqtt_port) as canary:
            canary.open(token)
            pid = node.worker_pid(0)
            quiet = _open(pid)
            address = ("127.0.0.1", node.mqtt_port)
            flood.extend(socket.create_connection(address, timeout=10) for _ in range(NOFILE))
            wait_until(lambda: _open(pid) > quiet + 10, what="the flood arrives")
            for value in range(20):
                canary.publish(f'{{"v":{value}}}')
                assert _open(pid) <= NOFILE - limits.RESERVED_DESCRIPTORS + 2
            with Wire(node.mqtt_port) as late:
                late.open(token)  # takes over; nobody had to wait for the flood to time out
                late.publish('{"v":20}')
        for sock in flood:
            sock.close()
        wait_until(lambda: _open(pid) <= quiet, what="descriptors return")
        assert node.worker_pid(0) == pid
        assert node.stop() == 0
    finally:
        for sock in flood:
            sock.close()
        if node.process is not None:
            node.kill_all()
