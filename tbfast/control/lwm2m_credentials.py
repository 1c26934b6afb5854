"""LWM2M_CREDENTIALS: what may be stored, and the id it is found by (LwM2M spec 8.3)."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tbfast.control.rules import InvalidEntity, checked

SecurityMode = Literal["NO_SEC", "PSK", "RPK", "X509"]

_PSK_KEY: Final = re.compile(r"(?:[0-9a-fA-F]{32}){1,4}")
_SEQUENCE: Final = 0x30  # first byte of every DER structure used here


class _Client(msgspec.Struct, rename="camel"):
    security_config_client_mode: SecurityMode
    endpoint: str
    identity: str | None = None
    key: str | None = None
    cert: str | None = None


class _Server(msgspec.Struct, rename="camel"):
    security_mode: SecurityMode
    client_public_key_or_id: str | None = None
    client_secret_key: str | None = None


class _Bootstrap(msgspec.Struct, rename="camel"):
    bootstrap_server: _Server
    lwm2m_server: _Server = msgspec.field(name="lwm2mServer")


class _Credentials(msgspec.Struct):
    client: _Client
    bootstrap: _Bootstrap


def lwm2m_id(value: str | None, *, certificate_id: Callable[[str], str]) -> tuple[str, str]:
    """The value as it is stored and the id devices are found by.

    Raises InvalidEntity for what no client could use; ``certificate_id`` makes the id of a
    certificate.
    """
    try:
        given = msgspec.json.decode(value or "", type=_Credentials)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidEntity(
            f"credentialsValue of LWM2M_CREDENTIALS is not as it should be: {error}"
        ) from error
    _check_server("Bootstrap server", given.bootstrap.bootstrap_server)
    _check_server("LwM2M server", given.bootstrap.lwm2m_server)
    assert value is not None
    return value, _client_id(given.client, certificate_id)


def _client_id(client: _Client, certificate_id: Callable[[str], str]) -> str:
    endpoint = checked("LwM2M client endpoint", client.endpoint)
    match client.security_config_client_mode:
        case "NO_SEC":
            return endpoint
        case "PSK":
            identity = checked("LwM2M client PSK identity", client.identity or "")
            if identity == "NO_SEC":
                raise InvalidEntity("The PSK ID of the LwM2M client must not be 'NO_SEC'!")
            _check_psk("LwM2M client", client.key)
            return identity
        case "RPK":
            check_der("LwM2M client RPK key", client.key)
            return endpoint
        case "X509":
            if not (client.cert or "").strip():
                return endpoint
            check_der("LwM2M client X509 certificate", client.cert)
            return certificate_id(client.cert or "")


def _check_server(name: str, server: _Server) -> None:
    """What the client will use towards that server."""
    match server.security_mode:
        case "NO_SEC":
            return
        case "PSK":
            checked(f"{name} client PSK identity", server.client_public_key_or_id or "")
            _check_psk(f"{name} client", server.client_secret_key)
        case "RPK" | "X509":
            check_der(f"{name} client public key or id", server.client_public_key_or_id)
            check_der(f"{name} client secret key", server.client_secret_key)


def _check_psk(name: str, key: str | None) -> None:
    if _PSK_KEY.fullmatch(key or "") is None:
        raise InvalidEntity(f"{name} PSK: Key must be HexDec format: 32, 64, 128 characters!")


def check_der(name: str, text: str | None) -> None:
    """Base64 of one whole DER structure (its parts are looked at when they are used)."""
    lines = [line for line in (text or "").split() if "-----" not in line]
    try:
        der = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidEntity(f"{name} must be base64 of DER!") from error
    if len(der) < 4 or der[0] != _SEQUENCE or _der_bytes(der) != len(der):
        raise InvalidEntity(f"{name} must be base64 of DER!")


def _der_bytes(der: bytes) -> int:
    """Length of the structure by its own header."""
    if der[1] < 0x80:
        return 2 + der[1]
    size = der[1] & 0x7F
    return 2 + size + int.from_bytes(der[2 : 2 + size])
