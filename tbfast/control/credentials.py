"""Credentials as they are stored: type, id and value by the table of REST spec 4."""

import hashlib
import re
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.lwm2m_credentials import lwm2m_id
from tbfast.control.rules import InvalidEntity, checked
from tbfast.model.device import Credentials, CredentialsType

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


class _Basic(msgspec.Struct, rename="camel"):
    client_id: str | None = None
    user_name: str | None = None
    password: str | None = None


class CredentialsDraft(msgspec.Struct, frozen=True):
    """What a caller may set; ``id`` counts for ACCESS_TOKEN, the rest follows from ``value``."""

    type: CredentialsType = "ACCESS_TOKEN"
    id: str = ""
    value: str | None = None


def replaced(present: Credentials, draft: CredentialsDraft) -> Credentials:
    """``present`` with a new secret and the next version; the id is computed where it must be.

    Raises InvalidEntity for a value that no device could present.
    """
    value = draft.value
    if value is not None and len(value) > limits.REGISTRY_CREDENTIALS_CHARS:
        raise InvalidEntity(
            f"credentialsValue is longer than {limits.REGISTRY_CREDENTIALS_CHARS} characters"
        )
    match draft.type:
        case "ACCESS_TOKEN":
            new_id, value = checked("access token", draft.id), None
        case "MQTT_BASIC":
            new_id = _basic_id(value)
        case "X509_CERTIFICATE":
            value = bare_chain(value)[0]
            new_id = sha3(value)
        case "LWM2M_CREDENTIALS":
            value, new_id = lwm2m_id(value, certificate_id=lambda text: sha3(bare_chain(text)[0]))
    return msgspec.structs.replace(
        present, type=draft.type, credentials_id=new_id, value=value, version=present.version + 1
    )


def _basic_id(value: str | None) -> str:
    try:
        basic = msgspec.json.decode(value or "", type=_Basic)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
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
    return sha3(f"{client_id}|{user_name}" if user_name else client_id)


def bare_chain(text: str | None) -> list[str]:
    """Certificates without header, footer and line ends; at least one, or InvalidEntity.

    Text without a header is one certificate.
    """
    given = text or ""
    bodies = _PEM.findall(given) if "-----" in given else [given]
    bare = ["".join(body.split()) for body in bodies]
    if not bare or not all(body and body.isascii() and "-" not in body for body in bare):
        raise InvalidEntity("The certificate should be PEM text, or its base64 body!")
    return bare


def sha3(text: str) -> str:
    """Id of a secret: lower-case hex SHA3-256 (MQTT spec 1.4)."""
    return hashlib.sha3_256(text.encode()).hexdigest()
