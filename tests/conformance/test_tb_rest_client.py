"""ThingsBoard's Python REST client, unmodified, and its load generator's calls (REST spec 15)."""

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.rest_client import Person, people
from tests.support.server import ROOT, Server
from tests.support.wire import Wire

pytestmark = pytest.mark.interop

SDK = ROOT / "build" / "sdk"  # `make interop` puts it there
PEOPLE = ROOT / "tests" / "support" / "sdk_people.py"
TENANT = ("tenant@thingsboard.org", "tenant")


@pytest.mark.skipif(not SDK.is_dir(), reason="the client is not installed: make interop")
def test_an_administrators_scripts() -> None:
    with Server(flags=("--demo",)) as server:
        done = subprocess.run(
            [sys.executable, str(PEOPLE), str(server.http_port), str(server.mqtt_port)],
            env={"PYTHONPATH": str(SDK)}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("latest").keys() == {"t", "on"}
    assert found == {
        "refreshed": True,
        "user": [TENANT[0], "TENANT_ADMIN"],
        "profiles": ["default", "sdk profile"],
        "device": ["sdk device", "sdk profile", "sdk customer"],
        "by name": True,
        "page": 1,
        "credentials": ["ACCESS_TOKEN", "sdk-token"],
        "keys": ["on", "t"],
        "history": {"t": [[2000, "2.5"], [1000, "1"]]},
        "strict": {"t": [[2000, 2.5], [1000, 1]]},
        "deleted": ["on"],
        "attributes": [["limit", 7]],
        "two-way": {"got": {"pin": 7}},
        "relations": [True],
        "query": [True],
        "gone": 404,
        "no relations": 0,
    }


def profile(name: str) -> dict[str, object]:
    """As the load generator makes it; nothing looks at the alarms."""
    alarms = [{"id": f"{name} alarm", "alarmType": "High", "createRules": {"CRITICAL": {}}}]
    return {
        "name": name, "type": "DEFAULT", "transportType": "MQTT", "provisionType": "DISABLED",
        "profileData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "MQTT"},
            "alarms": alarms,
        },
    }  # fmt: skip


def create(person: Person, names: list[str]) -> list[str]:
    """Ids of devices: looked for first, then made with the name as the token."""
    made = []
    for name in names:
        assert person.refusal("GET", "/api/tenant/devices", deviceName=name) == (404, 32)
        body = {"name": name, "type": "SMART_METER", "additionalInfo": {"gateway": name[0] == "G"}}
        made.append(person.ok("POST", "/api/device", body, accessToken=name)["id"]["id"])
    return made


def test_the_load_generators_calls() -> None:
    with Server(flags=("--demo",)) as server, people(server.http_port) as person:
        admin = person().login(*TENANT)
        everything = {"pageSize": 1000, "page": 0}
        assert admin.ok("GET", "/api/deviceProfiles", **everything)["totalElements"] == 1
        for name in ("SMART_METER", "SMART_TRACKER", "INDUSTRIAL_PLC"):
            wanted = profile(name)
            saved = admin.ok("POST", "/api/deviceProfile", wanted)
            alarms = saved["profileData"]["alarms"]
            assert alarms == wanted["profileData"]["alarms"]  # type: ignore[index]
        assert admin.ok("GET", "/api/deviceProfiles", **everything)["totalElements"] == 4

        names = [f"DW{n:08}" for n in range(100)] + [f"GW{n:08}" for n in range(20)]
        clients = [person().use(admin.tokens) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            shares = [names[first::4] for first in range(4)]
            ids = list(itertools.chain(*pool.map(create, clients, shares)))
        found = admin.ok("GET", "/api/tenant/devices", **everything)
        assert sorted(device["name"] for device in found["data"]) == names

        with Wire(server.mqtt_port) as wire:
            wire.open("DW00000099").publish('{"t1":73}')
        again = admin.ok("GET", "/api/tenant/devices", deviceName="DW00000099")
        path = f"/api/plugins/telemetry/DEVICE/{again['id']['id']}/values/timeseries"
        assert admin.ok("GET", path, keys="t1")["t1"][0]["value"] == "73"
        for device in ids:
            assert admin("DELETE", f"/api/device/{device}") == (200, None)
        assert admin.ok("GET", "/api/tenant/devices", **everything)["totalElements"] == 0
