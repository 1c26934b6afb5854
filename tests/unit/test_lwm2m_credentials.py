"""LWM2M_CREDENTIALS as they may be stored (REST spec 4, LwM2M spec 8.3)."""

import base64
import hashlib
import json
from typing import Any

import pytest

from tbfast.control.credentials import CredentialsDraft, replaced
from tbfast.control.rules import InvalidEntity
from tbfast.model.device import Credentials

DER = base64.b64encode(b"\x30\x02\x05\x00").decode()
LONG_DER = base64.b64encode(b"\x30\x81\x80" + bytes(128)).decode()
OPEN = {"securityMode": "NO_SEC"}


def value(client: dict[str, Any], server: dict[str, Any] = OPEN, **bootstrap: Any) -> str:
    return json.dumps(
        {
            "client": {"endpoint": "ep", **client},
            "bootstrap": {"bootstrapServer": OPEN, "lwm2mServer": server, **bootstrap},
        }
    )


def saved(text: str | None) -> Credentials:
    present = Credentials(id="c", device_id="d", created_ms=0, credentials_id="old")
    return replaced(present, CredentialsDraft("LWM2M_CREDENTIALS", "ignored", text))


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ({"securityConfigClientMode": "NO_SEC"}, "ep"),
        ({"securityConfigClientMode": "PSK", "identity": "id1", "key": "aB" * 16}, "id1"),
        ({"securityConfigClientMode": "PSK", "identity": "id1", "key": "0" * 128}, "id1"),
        ({"securityConfigClientMode": "RPK", "key": DER}, "ep"),
        ({"securityConfigClientMode": "X509", "cert": None}, "ep"),
        ({"securityConfigClientMode": "X509", "cert": ""}, "ep"),
        (
            {"securityConfigClientMode": "X509", "cert": LONG_DER},
            hashlib.sha3_256(LONG_DER.encode()).hexdigest(),
        ),
    ],
)
def test_ids(client: dict[str, Any], expected: str) -> None:
    text = value(client)
    made = saved(text)
    assert (made.credentials_id, made.value, made.version) == (expected, text, 2)


def test_a_certificate_has_one_id_however_it_is_written() -> None:
    pem = (
        f"-----BEGIN CERTIFICATE-----\n{LONG_DER[:64]}\n{LONG_DER[64:]}\n-----END CERTIFICATE-----"
    )
    both = [
        saved(value({"securityConfigClientMode": "X509", "cert": cert})).credentials_id
        for cert in (pem, LONG_DER)
    ]
    assert both[0] == both[1]


NO_SEC = {"securityConfigClientMode": "NO_SEC"}
PSK = {"securityConfigClientMode": "PSK", "identity": "i", "key": "00" * 16}


@pytest.mark.parametrize(
    "text",
    [
        None, "", "[]", "{}", "\ud800", json.dumps({"client": {**NO_SEC, "endpoint": "e"}}),
        value({**NO_SEC, "endpoint": " "}), value({**NO_SEC, "endpoint": "a\n"}),
        value({"securityConfigClientMode": "OPEN"}),
        value({**PSK, "identity": ""}), value({**PSK, "identity": "NO_SEC"}),
        value({**PSK, "key": "00" * 15}), value({**PSK, "key": "00" * 80}),
        value({**PSK, "key": "x" * 32}), value({**PSK, "key": None}),
        value({"securityConfigClientMode": "RPK", "key": "??"}),
        value({"securityConfigClientMode": "RPK", "key": DER[:-2]}),
        value({"securityConfigClientMode": "X509", "cert": base64.b64encode(b"text").decode()}),
        value(NO_SEC, {"securityMode": "PSK", "clientPublicKeyOrId": "i"}),
        value(NO_SEC, {"securityMode": "RPK", "clientPublicKeyOrId": DER}),
        value(NO_SEC, bootstrapServer={"securityMode": "PSK", "clientSecretKey": "00" * 16}),
        value(NO_SEC, bootstrapServer=None), value({**NO_SEC, "endpoint": "x" * 70_000}),
    ],
)  # fmt: skip
def test_what_no_client_could_use(text: str | None) -> None:
    with pytest.raises(InvalidEntity):
        saved(text)


def test_servers_with_their_own_secrets() -> None:
    psk = {"securityMode": "PSK", "clientPublicKeyOrId": "i", "clientSecretKey": "00" * 16}
    rpk = {"securityMode": "RPK", "clientPublicKeyOrId": DER, "clientSecretKey": LONG_DER}
    assert saved(value(NO_SEC, psk, bootstrapServer=rpk)).credentials_id == "ep"
