"""Devices, their credentials, and the changes made to the registry (REST spec 3, 4)."""

from typing import Annotated, Any, Literal

import msgspec

CredentialsType = Literal["ACCESS_TOKEN", "MQTT_BASIC", "X509_CERTIFICATE", "LWM2M_CREDENTIALS"]
ChangeKind = Literal[
    "device",
    "credentials",
    "device_profile",
    "tenant_profile",
    "customer",
    "user",
    "api_key",
    "relation",
    "resource",
    "ota_package",
    "rpc",
    "claim",
    "node",
]
ChangeOp = Literal["created", "updated", "deleted"]

NAME_INDEX = "name:"
CREDENTIALS_INDEX = "credentials:"
DEVICE_OF_INDEX = "device-of:"  # + id of a profile, customer or package : id of a device

DEFAULT_PROFILE_NAME = "default"


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the registry knows it.

    ``number`` is the node-local row key: at least 1, never reused, never sent to another node
    (0 only while the registry has not assigned it yet). ``version`` grows by one per save.
    ``type`` is the name of the profile. ``data`` is ``deviceData`` of REST spec 3, None when both
    of its parts are DEFAULT. ``firmware_id``, ``software_id``: the device's own packages.
    """

    id: str
    number: Annotated[int, msgspec.Meta(ge=0)] = 0
    name: str
    profile_id: str
    type: str = DEFAULT_PROFILE_NAME
    label: str | None = None
    additional_info: dict[str, Any] | None = None
    customer_id: str | None = None
    data: dict[str, Any] | None = None
    firmware_id: str | None = None
    software_id: str | None = None
    created_ms: int
    version: int = 1


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What a device shows to be let in; ``credentials_id`` is unique in the registry."""

    id: str
    device_id: str
    created_ms: int
    type: CredentialsType = "ACCESS_TOKEN"
    credentials_id: str
    value: str | None = None
    version: int = 1


class DeviceRecord(msgspec.Struct, frozen=True):
    """A device with its credentials: stored, changed and deleted as one entity."""

    device: Device
    credentials: Credentials


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the change log; revisions start at 1 and have no holes.

    ``number`` is the device number, 0 for other kinds. ``reserved``, ``kept`` and ``released`` are
    the unique index keys the change took, left in place and gave up.
    """

    revision: int
    kind: ChangeKind
    op: ChangeOp
    id: str
    number: int = 0
    reserved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    released: tuple[str, ...] = ()

    def stale_credentials(self) -> list[str]:
        """Credentials ids of which nothing learned earlier holds: new ones, revoked ones, and
        those whose device, or whose password under the same id, has changed."""
        return _without_prefix((*self.reserved, *self.kept, *self.released))


def _without_prefix(keys: tuple[str, ...]) -> list[str]:
    size = len(CREDENTIALS_INDEX)
    return [key[size:] for key in keys if key.startswith(CREDENTIALS_INDEX)]
