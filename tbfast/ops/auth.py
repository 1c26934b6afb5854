"""Who a device is: certificate, token or basic credentials, in ThingsBoard's order."""

import hashlib
from collections.abc import Callable
from typing import Literal

import msgspec

from tbfast.model.auth import Presented, StoredCredentials


class BasicSecret(msgspec.Struct, frozen=True, rename="camel"):
    """Stored MQTT_BASIC value; an empty member is not compared."""

    client_id: str | None = None
    user_name: str | None = None
    password: str | None = None


Lookup = Callable[[str], StoredCredentials | None]


def sha3(text: str) -> str:
    """Credentials id of a composite: FIPS-202 SHA3-256 of UTF-8, lower-case hex."""
    return hashlib.sha3_256(text.encode()).hexdigest()


def candidate_ids(client: Presented) -> list[str]:
    """Credentials ids to look up, in order."""
    if client.certificate is not None:
        return [client.certificate.credentials_id]
    if not client.user_name:
        return [sha3(client.client_id)]
    composite = f"{client.client_id}|{client.user_name}" if client.client_id else client.user_name
    return [sha3(composite), client.user_name]


def _check_basic(stored: StoredCredentials, client: Presented) -> Literal["ok", "mismatch", "bad"]:
    secret = msgspec.json.decode(stored.value, type=BasicSecret)
    if secret.client_id and secret.client_id != client.client_id:
        return "mismatch"
    if secret.user_name and secret.user_name != client.user_name:
        return "mismatch"
    if secret.password and secret.password.encode() != (client.password or b""):
        return "bad"
    return "ok"


def identify(client: Presented, lookup: Lookup) -> StoredCredentials | None:
    """The credentials that accept this client, or None (MQTT spec 1.4, steps 1 to 3; 1.5)."""
    ids = candidate_ids(client)
    if client.certificate is not None:
        found = lookup(ids[0])
        return found if found is not None and found.type == "X509_CERTIFICATE" else None
    composite = lookup(ids[0])
    if composite is not None and composite.type == "MQTT_BASIC":
        verdict = _check_basic(composite, client)
        if verdict == "ok":
            return composite
        if verdict == "bad":
            return None
    if len(ids) == 1:
        return None
    plain = lookup(ids[1])
    if plain is None or plain.type == "ACCESS_TOKEN":
        return plain
    if plain.type == "MQTT_BASIC" and _check_basic(plain, client) == "ok":
        return plain
    return None
