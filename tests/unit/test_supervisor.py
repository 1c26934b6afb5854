"""Pieces of the supervisor that a whole node shows only by accident."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tbfast import supervisor
from tbfast._ext import metrics as words
from tbfast.config import Config
from tbfast.errors import LocalError
from tbfast.obs.metrics import NodeMetrics
from tbfast.supervisor import Supervisor

_START_AND_TERMINATE = """
import os, signal, sys, time
from tbfast.config import Config
from tbfast.obs.metrics import NodeMetrics
from tbfast.supervisor import Supervisor, _Child

node = Supervisor(Config())
node._metrics = NodeMetrics(["child"])
node._signals()
for _ in range(20):
    child = _Child("child", lambda: time.sleep(20) or 0)
    node._start(child)
    os.kill(child.pid, signal.SIGTERM)
    started = time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    assert code == -signal.SIGTERM and time.monotonic() - started < 10, code
print("all ended")
"""


def test_a_child_told_to_stop_while_it_is_born_stops():
    done = subprocess.run(
        [sys.executable, "-c", _START_AND_TERMINATE],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stdout == "all ended\n", done.stderr


def _config(mqtt_port: int, http_port: int) -> Config:
    config = Config()
    replace = msgspec.structs.replace
    return replace(
        config,
        workers=2,
        mqtt=replace(config.mqtt, bind_address="127.0.0.1", bind_port=mqtt_port),
        http=replace(config.http, bind_address="127.0.0.1", bind_port=http_port),
    )


def test_a_second_node_does_not_join_the_ports_of_the_first():
    bound = Supervisor(_config(0, 0))._bind()
    try:
        port = bound[0].mqtt.getsockname()[1]
        assert bound[1].mqtt.getsockname()[1] == port
        with pytest.raises(LocalError, match="--mqtt-port"):
            Supervisor(_config(port, 0))._bind()
    finally:
        for sockets in bound:
            sockets.mqtt.close()
            sockets.http.close()


@pytest.mark.parametrize(
    ("age_s", "beat_age_s", "killed"),
    [
        (10, None, False),
        (299, None, False),
        (301, None, True),
        (61, 1, False),
        (61, 6, True),
        (61, -20, False),  # it said that the next one comes late
    ],
)
def test_patience_with_a_child(monkeypatch, age_s, beat_age_s, killed):
    """A child that opens a large store has no heartbeat yet; one that had one is held to it."""
    kills: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append(number))
    node = Supervisor(Config())
    node._metrics = NodeMetrics(["child"])
    child = supervisor._Child("child", lambda: 0)
    child.pid = 1 << 22
    child.started = time.monotonic() - age_s
    node._children.append(child)
    if beat_age_s is not None:
        beat_ms = int((time.monotonic() - beat_age_s) * 1000)
        node._metrics.slot("child").put(words.HEALTH_HEARTBEAT_MS, beat_ms)
    node._watch()
    assert kills == ([signal.SIGKILL] if killed else [])
