"""JSON as ThingsBoard's clients write and read it (REST spec 1.1, 3, 4, 5)."""

from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from tbfast.model.customer import Customer
from tbfast.model.device import Credentials, CredentialsType, Device
from tbfast.model.device_data import DEFAULT_DATA
from tbfast.model.profile import DeviceProfile, ProvisionType
from tbfast.model.transport import TransportType

T = TypeVar("T")

NULL_UUID: Final = "13814000-1dd2-11b2-8080-808080808080"
EntityType = Literal[
    "DEVICE",
    "DEVICE_PROFILE",
    "TENANT",
    "TENANT_PROFILE",
    "CUSTOMER",
    "USER",
    "OTA_PACKAGE",
    "TB_RESOURCE",
    "RPC",
    "RULE_CHAIN",
    "DASHBOARD",
    "ASSET",
    "API_KEY",
    "EDGE",
]


class EntityId(msgspec.Struct, frozen=True, rename="camel"):
    """Reference to an entity."""

    entity_type: EntityType
    id: str


class EntityName(msgspec.Struct, frozen=True):
    """An entity and what it is called."""

    id: EntityId
    name: str


class Reference(msgspec.Struct, frozen=True):
    """A reference in a request; its type follows from the member that holds it."""

    id: str


class DeviceInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/device; other members are ignored."""

    name: str
    id: Reference | None = None
    type: str | None = None
    label: str | None = None
    customer_id: Reference | None = None
    device_profile_id: Reference | None = None
    device_data: dict[str, Any] | None = None
    firmware_id: Reference | None = None
    software_id: Reference | None = None
    additional_info: dict[str, Any] | None = None
    version: int | None = None


class SecretInput(msgspec.Struct, frozen=True, rename="camel"):
    """Credentials of a device that is being saved."""

    credentials_type: CredentialsType = "ACCESS_TOKEN"
    credentials_id: str | None = None
    credentials_value: str | None = None


class CredentialsInput(SecretInput, frozen=True, rename="camel", kw_only=True):
    """Body of POST /api/device/credentials."""

    device_id: Reference
    version: int | None = None


class DeviceWithCredentials(msgspec.Struct, frozen=True):
    """Body of POST /api/device-with-credentials."""

    device: DeviceInput
    credentials: SecretInput


class DeviceBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A device (REST spec 3)."""

    id: EntityId
    created_time: int
    additional_info: dict[str, Any] | None
    tenant_id: EntityId
    customer_id: EntityId
    name: str
    type: str
    label: str | None
    device_profile_id: EntityId
    device_data: dict[str, Any]
    firmware_id: EntityId | None
    software_id: EntityId | None
    external_id: None = None
    version: int


class DeviceInfoBody(DeviceBody, frozen=True, rename="camel", kw_only=True):
    """Info form of a device (REST spec 3)."""

    customer_title: str | None
    customer_is_public: bool
    device_profile_name: str
    active: bool


class DeviceType(msgspec.Struct, frozen=True, rename="camel"):
    """A type that devices have (REST spec 3)."""

    tenant_id: EntityId
    entity_type: str
    type: str


class CredentialsBody(msgspec.Struct, frozen=True, rename="camel"):
    """Device credentials (REST spec 4); their id carries no entity type."""

    id: Reference
    created_time: int
    device_id: EntityId
    credentials_type: CredentialsType
    credentials_id: str
    credentials_value: str | None
    version: int


class ProfileInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/deviceProfile; other members are ignored."""

    name: str
    id: Reference | None = None
    description: str | None = None
    image: str | None = None
    type: Literal["DEFAULT"] | None = None
    transport_type: TransportType | None = None
    provision_type: ProvisionType | None = None
    default_rule_chain_id: Reference | None = None
    default_dashboard_id: Reference | None = None
    default_queue_name: str | None = None
    profile_data: dict[str, Any] | None = None
    provision_device_key: str | None = None
    firmware_id: Reference | None = None
    software_id: Reference | None = None
    default_edge_rule_chain_id: Reference | None = None
    version: int | None = None


class ProfileBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A device profile (REST spec 5)."""

    id: EntityId
    created_time: int
    tenant_id: EntityId
    name: str
    description: str | None
    image: str | None
    type: str = "DEFAULT"
    transport_type: TransportType
    provision_type: ProvisionType
    default_rule_chain_id: EntityId | None
    default_dashboard_id: EntityId | None
    default_queue_name: str | None
    profile_data: dict[str, Any]
    provision_device_key: str | None
    firmware_id: EntityId | None
    software_id: EntityId | None
    default_edge_rule_chain_id: EntityId | None
    external_id: None = None
    version: int
    default: bool


class ProfileInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Info form of a device profile (REST spec 5)."""

    id: EntityId
    tenant_id: EntityId
    name: str
    image: str | None
    default_dashboard_id: EntityId | None
    type: str = "DEFAULT"
    transport_type: TransportType


class Page(msgspec.Struct, Generic[T], frozen=True, rename="camel"):
    """One page of a list (REST spec 1.2)."""

    data: list[T]
    total_pages: int
    total_elements: int
    has_next: bool


class PageTail(msgspec.Struct, frozen=True, rename="camel"):
    """What follows ``data`` in a page (REST spec 1.2)."""

    total_pages: int
    total_elements: int
    has_next: bool


def page_tail(page: int, page_size: int, total: int) -> PageTail:
    """Totals of a page; one past the end has no next."""
    pages = -(-total // page_size)
    return PageTail(pages, total, page + 1 < pages)


def reference(entity_type: EntityType, id: str | None) -> EntityId | None:
    """A reference, or nothing."""
    return None if id is None else EntityId(entity_type, id)


def device_body(device: Device, tenant_id: str) -> DeviceBody:
    """A device as clients read it."""
    return DeviceBody(
        id=EntityId("DEVICE", device.id),
        created_time=device.created_ms,
        additional_info=device.additional_info,
        tenant_id=EntityId("TENANT", tenant_id),
        customer_id=EntityId("CUSTOMER", device.customer_id or NULL_UUID),
        name=device.name,
        type=device.type,
        label=device.label,
        device_profile_id=EntityId("DEVICE_PROFILE", device.profile_id),
        device_data=device.data or DEFAULT_DATA,
        firmware_id=reference("OTA_PACKAGE", device.firmware_id),
        software_id=reference("OTA_PACKAGE", device.software_id),
        version=device.version,
    )


def device_info(
    device: Device, tenant_id: str, customer: Customer | None, active: bool
) -> DeviceInfoBody:
    """Info form of a device."""
    return DeviceInfoBody(
        **msgspec.structs.asdict(device_body(device, tenant_id)),
        customer_title=None if customer is None else customer.title,
        customer_is_public=customer is not None and customer.is_public,
        device_profile_name=device.type,
        active=active,
    )


def credentials_body(credentials: Credentials) -> CredentialsBody:
    """Credentials as clients read them."""
    return CredentialsBody(
        id=Reference(credentials.id),
        created_time=credentials.created_ms,
        device_id=EntityId("DEVICE", credentials.device_id),
        credentials_type=credentials.type,
        credentials_id=credentials.credentials_id,
        credentials_value=credentials.value,
        version=credentials.version,
    )


def profile_body(profile: DeviceProfile, tenant_id: str) -> ProfileBody:
    """A profile as clients read it."""
    return ProfileBody(
        id=EntityId("DEVICE_PROFILE", profile.id),
        created_time=profile.created_ms,
        tenant_id=EntityId("TENANT", tenant_id),
        name=profile.name,
        description=profile.description,
        image=profile.image,
        transport_type=profile.transport_type,
        provision_type=profile.provision_type,
        default_rule_chain_id=reference("RULE_CHAIN", profile.rule_chain_id),
        default_dashboard_id=reference("DASHBOARD", profile.dashboard_id),
        default_queue_name=profile.queue_name,
        profile_data=profile.data,
        provision_device_key=profile.provision_key,
        firmware_id=reference("OTA_PACKAGE", profile.firmware_id),
        software_id=reference("OTA_PACKAGE", profile.software_id),
        default_edge_rule_chain_id=reference("RULE_CHAIN", profile.edge_rule_chain_id),
        version=profile.version,
        default=profile.default,
    )


def profile_info(profile: DeviceProfile, tenant_id: str) -> ProfileInfo:
    """Info form of a profile."""
    return ProfileInfo(
        id=EntityId("DEVICE_PROFILE", profile.id),
        tenant_id=EntityId("TENANT", tenant_id),
        name=profile.name,
        image=profile.image,
        default_dashboard_id=reference("DASHBOARD", profile.dashboard_id),
        transport_type=profile.transport_type,
    )
