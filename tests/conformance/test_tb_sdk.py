"""ThingsBoard's Python SDK, and the client of its CircuitPython SDK, unmodified (clients spec)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificate, TlsServer
from tests.support.provisioning import provisioning_profile
from tests.support.server import ROOT

SDK = ROOT / "build" / "sdk"  # `make interop` puts it there
SUPPORT = ROOT / "tests" / "support"
V1 = "v1/devices/me/"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not SDK.is_dir(), reason="the SDK is not installed: make interop"),
]


class Program:
    """A program on the SDK, under way; it says when it is ready."""

    def __init__(self, script: str, *words: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SUPPORT / script), *map(str, words)],
            env={"PYTHONPATH": str(SDK)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ready(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "ready\n":
                return
        self.result()
        raise AssertionError("it ended before it was ready")

    def result(self) -> Any:
        """What it prints last, once it has ended well."""
        out, errors = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, errors
        return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("way", ["plain", "tls", "certificate"])
def test_device(tls_server: TlsServer, ca: Path, tmp_path: Path, way: str) -> None:
    files: list[Path] = []
    name = tls_server.add_device(f"sdk-{way}")
    token = name
    if way != "plain":
        files.append(ca)
    if way == "certificate":
        own = Certificate("sdk")
        name, token = tls_server.add_x509_device("sdk-x509", own), "-"
        files += own.save(tmp_path)
    tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 7})
    port = tls_server.mqtt_tls_port if files else tls_server.mqtt_port
    program = Program("sdk_device.py", port, token, *files)
    program.ready()
    params = {"pin": 3, "on": True}
    assert tls_server.call(name, "twoway", "set", params) == (200, {"echo": params})
    tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 8})
    assert program.result() == [True] * 10
    assert tls_server.values(name, "temperature") == [21.5]
    assert tls_server.values(name, "n") == [1, 2, 3]
    assert tls_server.attributes(name, "CLIENT_SCOPE") == {"fw": "v1"}


def test_a_device_registers_itself(tls_server: TlsServer) -> None:
    secrets = provisioning_profile(tls_server, "sdk-key")
    credentials = Program(
        "sdk_registers.py", tls_server.mqtt_port, *secrets.values(), "sdk-registered"
    ).result()
    assert (credentials["status"], credentials["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    assert tls_server.values("sdk-registered", "n") == [1]
    basic = Program(
        "sdk_registers.py", tls_server.mqtt_port, *secrets.values(), "sdk-basic", "sdk-user"
    ).result()
    assert basic == {
        "status": "SUCCESS",
        "credentialsType": "MQTT_BASIC",
        "credentialsValue": {"clientId": "", "userName": "sdk-user", "password": ""},
    }
    assert tls_server.values("sdk-basic", "n") == [1]
    path = f"/api/device/{tls_server.device_id('sdk-registered')}"
    assert tls_server.rest("GET", path)[1]["additionalInfo"] == {"gateway": True}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_two_circuitpython_devices_of_one_client_id(
    tls_server: TlsServer, ca: Path, tls: bool
) -> None:
    names = [tls_server.add_device(f"circuitpython-{n}-{tls}") for n in (1, 2)]
    port = tls_server.mqtt_tls_port if tls else tls_server.mqtt_port
    files = [ca] if tls else []
    for name in names:
        tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 7})
    programs = [Program("circuitpython_device.py", port, name, *files) for name in names]
    for name, program in zip(names, programs, strict=True):
        program.ready()
        assert tls_server.call(name, "twoway", "set", [1]) == (200, {"done": True})
        tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 8})
    for name, program in zip(names, programs, strict=True):
        heard = program.result()
        assert heard.pop(V1 + "rpc/response/2") > 1_700_000_000_000
        assert heard == {
            V1 + "attributes/response/1": {"client": {"board": "pico"}, "shared": {"limit": 7}},
            V1 + "attributes": {"limit": 8},
            V1 + "rpc/request/0": {"method": "set", "params": [1]},
        }
        assert tls_server.values(name, "t") == [21.5]
