"""Listening sockets: who holds them, and what connections get from their settings.

A copy in another process would go on being dealt connections after its owner is parked, and nobody
would ever accept them.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import pytest

from tbfast.cli import exits
from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.wire import Wire, connect


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
        try:
            name = os.readlink(entry)
        except FileNotFoundError:
            continue  # closed since it was listed
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


def _timers(port: int) -> list[str]:
    """Which timer runs for each accepted connection; "02" is that of keep-alive probes."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [r[5][:2] for r in rows if r[3] == "01" and int(r[1].rpartition(":")[2], 16) == port]


@pytest.mark.parametrize("wanted", [True, False])
def test_tcp_looks_after_silent_connections_where_it_shall(wanted: bool) -> None:
    with Server(env={"NETTY_SO_KEEPALIVE": str(wanted).lower()}) as server:
        with Wire(server.mqtt_port).open(server.add_device("silent")):
            assert (_timers(server.mqtt_port) == ["02"]) == wanted


def test_the_size_of_a_sessions_queue() -> None:
    with Server(env={"MQTT_MSG_QUEUE_SIZE_PER_DEVICE_LIMIT": "3"}) as server:
        name = server.add_device("queued")
        with Wire(server.mqtt_port, version=5).open(name) as wire:
            body = b'{"method":"getSessionLimits"}'
            wire.send(m.Publish("v1/devices/me/rpc/request/1", body))
            answer = wire.receive()
            assert isinstance(answer, m.Publish)
            assert json.loads(bytes(answer.payload))["maxInflightMessages"] == 3
        with server.paused("controller"), Wire(server.mqtt_port, version=5) as wire:
            wire.send(connect("unknown", 5), *[m.Pingreq()] * 4)
            (last,) = wire.expect_close()
            assert isinstance(last, m.Disconnect)
            assert last.reason_code == m.ReasonCode.QUOTA_EXCEEDED


def _listening(pids: Iterable[int]) -> set[int]:
    """TCP ports that sockets of these processes listen on."""
    held = set[str]().union(*map(_sockets, pids))
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in held:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_mqtt_can_be_switched_off() -> None:
    with Server() as server:
        assert _listening(server.pids().values()) == {server.mqtt_port, server.http_port}
    with Server(env={"MQTT_ENABLED": "false", "MQTT_SSL_ENABLED": "true"}) as server:
        assert server.mqtt_port == server.mqtt_tls_port == 0
        assert _listening(server.pids().values()) == {server.http_port}  # and none for MQTT
        token = server.add_device("over-http")
        posted = urllib.request.Request(
            f"http://127.0.0.1:{server.http_port}/api/v1/{token}/telemetry",
            json.dumps({"ts": 1_764_000_000_000, "values": {"t": 1}}).encode(),
        )
        with urllib.request.urlopen(posted, timeout=10) as answer:
            assert answer.status == 200
        assert server.values("over-http", "t") == [1]
        server.cli("bench", "--duration", "1", code=exits.UNREACHABLE)


def test_how_long_the_controller_is_waited_for() -> None:
    with Server(env={"TB_QUEUE_TRANSPORT_MAX_REQUEST_TIMEOUT": "600"}) as server:
        name = server.add_device("waits")
        with Wire(server.mqtt_port, version=5).open(name) as wire:
            url = f"http://127.0.0.1:{server.http_port}/api/v1/{name}/attributes"
            urllib.request.urlopen(url).close()  # its token is known from here on
            with server.paused("controller"):
                began = time.monotonic()
                wire.send(m.Publish("v1/devices/me/claim", b"{}", 1, packet_id=1))
                answer = wire.receive()
                assert isinstance(answer, m.Puback)
                assert answer.reason_code == m.ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
                with Wire(server.mqtt_port) as stranger:
                    assert stranger.connect("unknown").reason_code == 3
                with pytest.raises(urllib.error.HTTPError, match="408"):
                    urllib.request.urlopen(url)
                assert 1.7 < time.monotonic() - began < 4.5  # three times 0.6 s, no default
