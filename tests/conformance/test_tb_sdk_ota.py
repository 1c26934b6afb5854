"""ThingsBoard's Python SDKs update themselves, unmodified (clients spec 4, 8)."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.test_tb_sdk import SDK
from tests.support.packages import add_package, assign
from tests.support.server import ROOT, Server
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not SDK.is_dir(), reason="the SDK is not installed: make interop"),
]

DEVICE = ROOT / "tests" / "support" / "sdk_ota.py"


@pytest.mark.parametrize(
    ("kind", "size", "chunk_size", "algorithm"),
    [
        ("mqtt", 30_000, 4_096, "SHA256"),
        ("mqtt", 300_000, 0, "MD5"),
        ("mqtt", 1_000, 4_096, "CRC32"),
        ("http", 30_000, 4_096, "SHA512"),
        ("http", 300_000, 0, "SHA384"),
    ],
)
def test_a_device_updates_itself(
    own_server: Server, tmp_path: Path, kind: str, size: int, chunk_size: int, algorithm: str
) -> None:
    server, device = own_server, f"{kind}-{size}"
    data = random.Random(size).randbytes(size)
    server.add_device(device)
    package = add_package(server, device, "2.0", data, algorithm=algorithm)
    assign(server, device, package)
    told = f"INITIATED {package}"
    wait_until(
        lambda: server.attributes(device, "SERVER_SCOPE").get("fw_package") == told,
        what="the device is told",
    )
    port = server.mqtt_port if kind == "mqtt" else server.http_port
    done = subprocess.run(
        [sys.executable, str(DEVICE), kind, str(port), device, str(chunk_size)],
        env={"PYTHONPATH": str(SDK)}, cwd=tmp_path, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(size), hashlib.sha256(data).hexdigest()]
    # States before it may share its millisecond (MQTT), or are overwritten in the SDK before its
    # thread sends them (HTTP).
    states = server.values(device, "fw_state")
    assert {"mqtt": "VERIFIED", "http": "UPDATING"}[kind] in states, states
