"""What a client presents and what the registry knows about it."""

import msgspec

from tbfast.model.device import CredentialsType
from tbfast.model.transport import DEFAULT_MQTT, MqttProfile


class StoredCredentials(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the registry knows under a credentials id; `value` as stored, of a certificate nothing.

    `mqtt`: what sessions of the profile go by; workers fill it in, it does not travel with this.
    """

    credentials_id: str
    type: CredentialsType
    device: int
    device_name: str
    transport: str = "DEFAULT"
    value: str = ""
    profile: str = ""
    mqtt: MqttProfile = DEFAULT_MQTT


class Presented(msgspec.Struct, frozen=True):
    """What a CONNECT presents; None = the flag was not set."""

    client_id: str
    user_name: str | None
    password: bytes | None
