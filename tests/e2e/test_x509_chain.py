"""Devices that register themselves by a certificate chain (MQTT spec 1.5)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, TlsServer
from tests.support.wire import Wire


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with TlsServer(tmp_path_factory.mktemp("certificates")) as running:
        yield running


def connect(server: TlsServer, certificate: Certificate, directory: Path) -> int:
    """Code of the CONNACK."""
    context = server.context(certificate, directory)
    with Wire(server.mqtt_tls_port, version=5, tls=context) as wire:
        code = wire.connect(None).reason_code
        if code == 0:
            wire.publish('{"ts":1,"values":{"n":1}}')
        return code


def test_unknown_devices_are_created_and_come_again(tls_server: TlsServer, tmp_path: Path) -> None:
    root = Certificate("root", authority=True)
    middle = Certificate("middle", issuer=root, authority=True)
    own = Certificate("meter.example", issuer=middle)
    assert connect(tls_server, own, tmp_path) == 0x87
    tls_server.add_chain_profile("by middle", middle)
    assert connect(tls_server, own, tmp_path) == 0  # the refusal of before is not remembered
    assert connect(tls_server, own, tmp_path) == 0
    assert tls_server.values("meter", "n") == [1]
    status, device = tls_server.rest("GET", f"/api/device/{tls_server.device_id('meter')}")
    assert (status, device["type"]) == (200, "by middle")

    renewed = Certificate("meter.example", issuer=middle)
    assert connect(tls_server, renewed, tmp_path) == 0
    assert connect(tls_server, Certificate("no name", issuer=middle), tmp_path) == 0x87


def test_the_root_of_a_chain_counts_and_only_known_devices_get_in(
    tls_server: TlsServer, tmp_path: Path
) -> None:
    root = Certificate("other root", authority=True)
    profile = tls_server.add_chain_profile("by root", root, creates=False)
    middle = Certificate("other middle", issuer=root, authority=True)
    own = Certificate("pump.example", issuer=middle)
    assert connect(tls_server, own, tmp_path) == 0x87
    status, device = tls_server.rest(
        "POST", "/api/device", {"name": "pump", "deviceProfileId": profile["id"]}
    )
    assert status == 200, device
    assert connect(tls_server, own, tmp_path) == 0x87  # its credentials are a token
    path = f"/api/device/{device['id']['id']}/credentials"
    credentials = tls_server.rest("GET", path)[1] | {
        "credentialsType": "X509_CERTIFICATE",
        "credentialsId": "",
        "credentialsValue": Certificate("former").pem,
    }
    assert tls_server.rest("POST", "/api/device/credentials", credentials)[0] == 200
    assert connect(tls_server, own, tmp_path) == 0


def test_a_device_of_another_profile_keeps_its_name(tls_server: TlsServer, tmp_path: Path) -> None:
    authority = Certificate("third root", authority=True)
    tls_server.add_chain_profile("third", authority)
    taken = Certificate("taken")
    tls_server.add_x509_device("taken", taken)
    assert connect(tls_server, Certificate("taken.example", issuer=authority), tmp_path) == 0x87
    assert connect(tls_server, taken, tmp_path) == 0


def test_a_device_cannot_vouch_for_another(tls_server: TlsServer, tmp_path: Path) -> None:
    authority = Certificate("fourth root", authority=True)
    tls_server.add_chain_profile("fourth", authority)
    device = Certificate("honest.example", issuer=authority)
    forged = Certificate("victim.example", issuer=device)
    assert connect(tls_server, forged, tmp_path) == 0x87
    assert connect(tls_server, device, tmp_path) == 0
