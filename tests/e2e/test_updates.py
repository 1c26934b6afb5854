"""Devices are told of the package they get, by telemetry and shared attributes (MQTT spec 6.3)."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tbfast.model import mqtt as m
from tests.support.packages import add_package, assign, assign_profile
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire

UPDATES = "v1/devices/me/attributes"
SHA = hashlib.sha256(b"bytes").hexdigest()
# What a withdrawn update takes along.
WITHDRAWN = {
    "fw_title", "fw_version", "fw_ts", "fw_state", "fw_size", "fw_checksum",
    "fw_checksum_algorithm", "fw_url", "fw_tag",
}  # fmt: skip
SLOW = {"TB_QUEUE_CORE_OTA_PACK_SIZE": "1", "TB_QUEUE_CORE_OTA_PACK_INTERVAL_MS": "86400000"}


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with Server() as server:
        yield server


def states(server: Server, device: str, key: str = "fw_state") -> list[Any]:
    return server.values(device, key)


def shared(server: Server, device: str) -> dict[str, Any]:
    return server.attributes(device, "SHARED_SCOPE")


def told(server: Server, device: str, kind: str = "fw") -> str:
    return server.attributes(device, "SERVER_SCOPE").get(f"{kind}_package", "")


def listening(server: Server, device: str) -> Wire:
    wire = Wire(server.mqtt_port).open(device)
    wire.send(m.Subscribe(1, (m.Subscription(UPDATES, 0),)))
    assert isinstance(wire.receive(), m.Suback)
    return wire


def pushed(wire: Wire) -> dict[str, Any]:
    packet = wire.receive()
    assert isinstance(packet, m.Publish) and packet.topic == UPDATES, packet
    found: dict[str, Any] = json.loads(packet.payload)
    return found


def test_a_device_gets_and_loses_a_package_of_its_own(node: Server) -> None:
    node.add_device("own")
    package = add_package(node, "own", "1.5", tag="own 1.5")
    with listening(node, "own") as wire:
        assign(node, "own", package)
        assert pushed(wire) == {"deleted": ["fw_url"]}
        wanted = {
            "fw_title": "own", "fw_version": "1.5", "fw_tag": "own 1.5", "fw_size": 5,
            "fw_checksum_algorithm": "SHA256", "fw_checksum": SHA,
        }  # fmt: skip
        assert pushed(wire) == wanted
        wait_until(lambda: told(node, "own") == f"INITIATED {package}", what="it was told")
        assert shared(node, "own") == wanted
        assert states(node, "own")[-1] == "INITIATED"
        assert states(node, "own", "target_fw_title") == ["own"]
        assert states(node, "own", "target_fw_version") == ["1.5"], "no number"
        assert states(node, "own", "target_fw_tag") == ["own 1.5"]
        (ts,) = node.query("own", "target_fw_ts")["target_fw_ts"]
        assert ts["value"] == ts["ts"]
        assign(node, "own", None)
        gone = pushed(wire)
        assert gone.keys() == {"deleted"} and set(gone["deleted"]) == WITHDRAWN
        wait_until(lambda: not told(node, "own"), what="it is forgotten")
        assert shared(node, "own") == {}


def test_a_package_without_a_tag_and_software(node: Server) -> None:
    node.add_device("tagless")
    package = add_package(node, "tagless", type="SOFTWARE")
    with listening(node, "tagless") as wire:
        assign(node, "tagless", package, "softwareId")
        assert pushed(wire) == {"deleted": ["sw_tag", "sw_url"]}
        assert pushed(wire) == {
            "sw_title": "tagless", "sw_version": "1.0", "sw_size": 5,
            "sw_checksum_algorithm": "SHA256", "sw_checksum": SHA,
        }  # fmt: skip
    wait_until(lambda: told(node, "tagless", "sw").startswith("INITIATED"), what="it was told")
    assert states(node, "tagless", "sw_state")[-1] == "INITIATED"
    assert states(node, "tagless") == []


def test_a_package_at_a_url(node: Server) -> None:
    node.add_device("far")
    package = add_package(node, "far", data=None, url="https://h/fw", dataSize=9)
    with listening(node, "far") as wire:
        assign(node, "far", package)
        assert pushed(wire) == {"deleted": ["fw_tag", "fw_checksum_algorithm", "fw_checksum"]}
        assert pushed(wire) == {
            "fw_title": "far", "fw_version": "1.0", "fw_size": 9, "fw_url": "https://h/fw",
        }  # fmt: skip


def test_the_package_of_a_profile_is_for_devices_without_their_own(node: Server) -> None:
    assert node.rest("POST", "/api/deviceProfile", {"name": "meter"})[0] == 200
    for name in ("m1", "m2", "m3"):
        body = {"name": name, "type": "meter"}
        assert node.rest("POST", f"/api/device?accessToken={name}", body)[0] == 200
    own = add_package(node, "own", "meter", profile="meter")
    common = add_package(node, "common", profile="meter")
    assign(node, "m1", own)
    wait_until(lambda: told(node, "m1") == f"INITIATED {own}", what="its own")
    assign_profile(node, "meter", common)
    wait_until(
        lambda: [told(node, name) for name in ("m2", "m3")] == [f"INITIATED {common}"] * 2,
        what="the profile's",
    )
    assert shared(node, "m1")["fw_title"] == "own"
    assign(node, "m1", None)
    wait_until(lambda: told(node, "m1") == f"INITIATED {common}", what="now the profile's")
    assert shared(node, "m1")["fw_title"] == "common"
    body = {"name": "m4", "type": "meter"}
    assert node.rest("POST", "/api/device?accessToken=m4", body)[0] == 200
    wait_until(lambda: told(node, "m4") == f"INITIATED {common}", what="a new device")
    assign_profile(node, "meter", None)
    names = ("m1", "m2", "m3", "m4")
    wait_until(lambda: not any(told(node, name) for name in names), what="nobody has one")
    assert [shared(node, name) for name in names] == [{}] * 4


def test_attributes_of_devices_without_packages_are_left_alone(node: Server) -> None:
    """People run updates of their own with the same names."""
    node.add_device("custom")
    node.save_attributes("custom", "SHARED_SCOPE", {"fw_title": "mine"})
    node.add_device("sentinel")
    package = add_package(node, "sentinel")
    assign(node, "sentinel", package)
    wait_until(lambda: told(node, "sentinel").startswith("INITIATED"), what="a later change")
    assert shared(node, "custom") == {"fw_title": "mine"}


def test_so_many_in_an_interval_and_the_rest_after_a_restart() -> None:
    with Server(env=SLOW) as server:
        names = [f"d{n}" for n in range(4)]
        for name in names:
            server.add_device(name)
        package = add_package(server, "fw")
        assign_profile(server, "default", package)

        def count(word: str) -> int:
            return sum(told(server, name) == f"{word} {package}" for name in names)

        wait_until(lambda: (count("QUEUED"), count("INITIATED")) == (3, 1), what="one was told")
        for wanted in (2, 3):  # a restart begins a new interval
            server.crash_controller()
            wait_until(lambda n=wanted: count("INITIATED") == n, what="one more was told")
            assert count("QUEUED") == 4 - wanted
        last = next(name for name in names if told(server, name).startswith("QUEUED"))
        assert shared(server, last) == {}
        queued = states(server, last, "target_fw_ts")
        assert len(queued) == 1, "queued once, whatever was killed"
        assign_profile(server, "default", None)
        wait_until(lambda: not any(told(server, name) for name in names), what="all withdrawn")
        for name in names:
            assert shared(server, name) == {}
        server.stop()
        server.start()
        assert not any(told(server, name) for name in names)
