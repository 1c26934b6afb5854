"""Device profiles: what devices of one type have in common (REST spec 5)."""

from typing import Any, Literal

import msgspec

from tbfast.model.transport import TransportType

ProvisionType = Literal[
    "DISABLED",
    "ALLOW_CREATE_NEW_DEVICES",
    "CHECK_PRE_PROVISIONED_DEVICES",
    "X509_CERTIFICATE_CHAIN",
]

PROFILE_NAME_INDEX = "profile-name:"
PROVISION_KEY_INDEX = "provision-key:"


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A profile as the registry knows it.

    ``data`` is ``profileData`` of REST spec 5 as it was given, with the parts that were missing
    filled in. ``provision_key`` is unique in the registry. ``default``: devices that name no
    profile get this one; exactly one profile has it.
    """

    id: str
    name: str
    description: str | None = None
    image: str | None = None
    transport_type: TransportType = "DEFAULT"
    provision_type: ProvisionType = "DISABLED"
    provision_key: str | None = None
    rule_chain_id: str | None = None
    edge_rule_chain_id: str | None = None
    dashboard_id: str | None = None
    queue_name: str | None = None
    firmware_id: str | None = None
    software_id: str | None = None
    data: dict[str, Any] = {}
    default: bool = False
    created_ms: int
    version: int = 1


class Provision(msgspec.Struct, frozen=True, kw_only=True):
    """How devices of a profile register themselves (MQTT spec 1.5, 6.2).

    ``key`` and ``secret`` are what a device shows, for X509_CERTIFICATE_CHAIN the SHA3-256 of the
    first certificate and the chain without PEM lines; ``certificate_pattern``: its first group,
    searched in the leaf's common name, is the device's name; ``creates_devices``: unknown names
    are registered.
    """

    type: ProvisionType = "DISABLED"
    key: str | None = None
    secret: str | None = None
    certificate_pattern: str = ""
    creates_devices: bool = False


class _Configuration(msgspec.Struct, rename="camel"):
    provision_device_secret: str | None = None
    certificate_reg_ex_pattern: str | None = None
    allow_create_new_devices_by_x509_certificate: bool | None = msgspec.field(
        default=None, name="allowCreateNewDevicesByX509Certificate"
    )


def provision_of(profile: DeviceProfile) -> Provision:
    """The provisioning settings of a stored profile."""
    given = msgspec.convert(profile.data.get("provisionConfiguration") or {}, _Configuration)
    by_certificate = profile.provision_type == "X509_CERTIFICATE_CHAIN"
    return Provision(
        type=profile.provision_type,
        key=profile.provision_key,
        secret=given.provision_device_secret,
        certificate_pattern=given.certificate_reg_ex_pattern or "",
        creates_devices=bool(given.allow_create_new_devices_by_x509_certificate)
        if by_certificate
        else profile.provision_type == "ALLOW_CREATE_NEW_DEVICES",
    )
