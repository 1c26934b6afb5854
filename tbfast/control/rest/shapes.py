"""JSON as ThingsBoard's clients write and read it (REST spec 1.1, 3, 4, 5)."""

from typing import Any, Final, Literal

import msgspec

from tbfast.model.device import Credentials, CredentialsType, Device, DeviceProfile

NULL_UUID: Final = "13814000-1dd2-11b2-8080-808080808080"
EntityType = Literal["DEVICE", "DEVICE_PROFILE", "TENANT", "CUSTOMER", "USER", "API_KEY"]


class EntityId(msgspec.Struct, frozen=True, rename="camel"):
    """Reference to an entity."""

    entity_type: EntityType
    id: str


class Reference(msgspec.Struct, frozen=True):
    """A reference in a request; its type follows from the member that holds it."""

    id: str


class DeviceInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/device; other members are ignored."""

    name: str
    id: Reference | None = None
    type: str | None = None
    label: str | None = None
    device_profile_id: Reference | None = None
    additional_info: dict[str, Any] | None = None
    version: int | None = None


class CredentialsInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/device/credentials."""

    device_id: Reference
    credentials_type: CredentialsType = "ACCESS_TOKEN"
    credentials_id: str | None = None
    credentials_value: str | None = None
    version: int | None = None


class _Typed(msgspec.Struct, frozen=True):
    type: str = "DEFAULT"


class _DeviceData(msgspec.Struct, frozen=True, rename="camel"):
    configuration: _Typed = _Typed()
    transport_configuration: _Typed = _Typed()


class DeviceBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A device (REST spec 3)."""

    id: EntityId
    created_time: int
    additional_info: dict[str, Any] | None
    tenant_id: EntityId
    customer_id: EntityId = EntityId("CUSTOMER", NULL_UUID)
    name: str
    type: str
    label: str | None
    device_profile_id: EntityId
    device_data: _DeviceData = _DeviceData()
    firmware_id: None = None
    software_id: None = None
    external_id: None = None
    version: int


class CredentialsBody(msgspec.Struct, frozen=True, rename="camel"):
    """Device credentials (REST spec 4); their id carries no entity type."""

    id: Reference
    created_time: int
    device_id: EntityId
    credentials_type: CredentialsType
    credentials_id: str
    credentials_value: str | None
    version: int


class ProfileInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Info form of a device profile (REST spec 5)."""

    id: EntityId
    tenant_id: EntityId
    name: str
    image: None = None
    default_dashboard_id: None = None
    type: str = "DEFAULT"
    transport_type: str


class PageTail(msgspec.Struct, frozen=True, rename="camel"):
    """What follows ``data`` in a page (REST spec 1.2)."""

    total_pages: int
    total_elements: int
    has_next: bool


def page_tail(page: int, page_size: int, total: int) -> PageTail:
    """Totals of a page; one past the end has no next."""
    pages = -(-total // page_size)
    return PageTail(pages, total, page + 1 < pages)


def device_body(device: Device, tenant_id: str) -> DeviceBody:
    """A device as clients read it."""
    return DeviceBody(
        id=EntityId("DEVICE", device.id),
        created_time=device.created_ms,
        additional_info=device.additional_info,
        tenant_id=EntityId("TENANT", tenant_id),
        name=device.name,
        type=device.type,
        label=device.label,
        device_profile_id=EntityId("DEVICE_PROFILE", device.profile_id),
        version=device.version,
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


def profile_info(profile: DeviceProfile, tenant_id: str) -> ProfileInfo:
    """Info form of a profile."""
    return ProfileInfo(
        id=EntityId("DEVICE_PROFILE", profile.id),
        tenant_id=EntityId("TENANT", tenant_id),
        name=profile.name,
        transport_type=profile.transport_type,
    )
