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


class ClientCertificate(msgspec.Struct, frozen=True):
    """A certificate whose key the client has proved to hold.

    chain: DER, its own first, each signed by the next; the period is in epoch milliseconds.
    """

    credentials_id: str
    not_before_ms: int
    not_after_ms: int
    chain: tuple[bytes, ...] = ()

    def valid_at(self, wall_ms: int) -> bool:
        """Whether that moment is in the validity period."""
        return self.not_before_ms <= wall_ms <= self.not_after_ms


class Presented(msgspec.Struct, frozen=True):
    """What a CONNECT presents; None = the flag was not set.

    With a certificate nothing else is looked at (MQTT spec 1.3).
    """

    client_id: str
    user_name: str | None
    password: bytes | None
    certificate: ClientCertificate | None = None
