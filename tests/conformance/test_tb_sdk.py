"""ThingsBoard's Python SDK, unmodified (clients spec 3)."""

import json
import subprocess
import sys

import pytest

from tests.support.server import ROOT, Server

pytestmark = pytest.mark.interop

SDK = ROOT / "build" / "sdk"  # `make interop` puts it there
DEVICE = ROOT / "tests" / "support" / "sdk_device.py"


@pytest.mark.skipif(not SDK.is_dir(), reason="the SDK is not installed: make interop")
def test_device_sends_and_asks(server: Server, token: str) -> None:
    server.save_attributes(token, "SHARED_SCOPE", {"limit": 7})
    done = subprocess.run(
        [sys.executable, str(DEVICE), str(server.mqtt_port), token],
        env={"PYTHONPATH": str(SDK)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True] * 7, done.stderr
    assert server.values(token, "temperature") == [21.5]
    assert server.values(token, "n") == [1, 2, 3]
