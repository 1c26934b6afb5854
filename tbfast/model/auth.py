"""What a client presents and what the registry knows about it."""

import msgspec

from tbfast.model.device import CredentialsType


class StoredCredentials(msgspec.Struct, frozen=True):
    """What the registry knows under a credentials id; `value` only for MQTT_BASIC."""

    credentials_id: str
    type: CredentialsType
    device: int
    device_name: str
    transport: str = "DEFAULT"
    value: str = ""


class Presented(msgspec.Struct, frozen=True):
    """What a CONNECT presents; None = the flag was not set."""

    client_id: str
    user_name: str | None
    password: bytes | None
