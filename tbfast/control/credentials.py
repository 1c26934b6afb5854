"""Credentials as they are stored: type, id and value by the table of REST spec 4."""

import hashlib

import msgspec

from tbfast.control.rules import InvalidEntity, checked
from tbfast.model.device import Credentials, CredentialsType


class _Basic(msgspec.Struct, rename="camel"):
    client_id: str | None = None
    user_name: str | None = None
    password: str | None = None


def replaced(
    present: Credentials, type: CredentialsType, credentials_id: str, value: str | None
) -> Credentials:
    """``present`` with a new secret and the next version; the id is computed where it must be.

    Raises InvalidEntity for a value that no device could present.
    """
    match type:
        case "ACCESS_TOKEN":
            new_id, value = checked("access token", credentials_id), None
        case "MQTT_BASIC":
            new_id = _basic_id(value)
        case "X509_CERTIFICATE":
            value = _bare_pem(value)
            new_id = _sha3(value)
    return msgspec.structs.replace(
        present, type=type, credentials_id=new_id, value=value, version=present.version + 1
    )


def _basic_id(value: str | None) -> str:
    try:
        basic = msgspec.json.decode(value or "", type=_Basic)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidEntity(f"credentialsValue of MQTT_BASIC is no JSON object: {error}") from error
    client_id, user_name = basic.client_id or "", basic.user_name or ""
    if not client_id and not user_name:
        raise InvalidEntity("Both mqtt client id and user name are empty!")
    if client_id:
        checked("mqtt client id", client_id)
    if user_name:
        checked("mqtt user name", user_name)
    elif basic.password:
        raise InvalidEntity("Password is set but the mqtt user name is empty!")
    if not client_id:
        return user_name
    return _sha3(f"{client_id}|{user_name}" if user_name else client_id)


def _bare_pem(value: str | None) -> str:
    """A certificate without header, footer and line ends."""
    lines = (value or "").split()
    bare = "".join(lines).replace("-----BEGINCERTIFICATE-----", "")
    bare = bare.replace("-----ENDCERTIFICATE-----", "")
    if not bare or not bare.isascii():
        raise InvalidEntity("credentialsValue of X509_CERTIFICATE should be a PEM certificate!")
    return bare


def _sha3(text: str) -> str:
    return hashlib.sha3_256(text.encode()).hexdigest()
