"""Devices as commands show and change them, and their form over REST."""

from typing import Any

import msgspec

from tbfast.model.device import CredentialsType


class DeviceView(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A device as the command line shows it; what lets it in only where that was asked for.

    ``token`` is that of ACCESS_TOKEN, ``credentials_id`` and ``credentials_value`` of other types.
    """

    id: str
    name: str
    type: str
    label: str | None
    created_time: int
    additional_info: dict[str, Any] | None = None
    credentials_type: CredentialsType | None = None
    token: str | None = None
    credentials_id: str | None = None
    credentials_value: str | None = None

    def let_in_by(self, type: CredentialsType, id: str, value: str | None) -> "DeviceView":
        """The same with what lets it in."""
        if type == "ACCESS_TOKEN":
            return msgspec.structs.replace(self, credentials_type=type, token=id)
        return msgspec.structs.replace(
            self, credentials_type=type, credentials_id=id, credentials_value=value
        )


class Secret(msgspec.Struct, frozen=True):
    """What is to let a device in, as REST takes it."""

    type: CredentialsType = "ACCESS_TOKEN"
    id: str = ""
    value: str | None = None


class DeviceChanges(msgspec.Struct, frozen=True, kw_only=True):
    """What to set; None stays as it is, or is the default of a new device.

    ``label``: "" takes it away. ``info``: members of additionalInfo, null takes one away.
    """

    name: str | None = None
    label: str | None = None
    profile: str | None = None
    info: dict[str, Any] | None = None
    secret: Secret | None = None

    def merged_info(self, present: dict[str, Any] | None) -> dict[str, Any] | None:
        """additionalInfo with the changes in it."""
        if self.info is None:
            return present
        merged = (present or {}) | self.info
        return {key: value for key, value in merged.items() if value is not None} or None


def new_device(name: str, token: str | None = None, label: str | None = None) -> DeviceChanges:
    """A device whose access token is its name unless another is given."""
    return DeviceChanges(name=name, label=label, secret=Secret(id=token or name))


class Reference(msgspec.Struct):
    """The id of something."""

    id: str


class DeviceBody(msgspec.Struct, rename="camel"):
    """What the server says of a device, as far as commands show it."""

    id: Reference
    name: str
    type: str
    label: str | None
    created_time: int
    additional_info: dict[str, Any] | None

    def view(self) -> DeviceView:
        """For people."""
        fields = {**msgspec.structs.asdict(self), "id": self.id.id}
        return DeviceView(**fields)


class DevicePage(msgspec.Struct, rename="camel"):
    """One page of a list."""

    data: list[DeviceBody]
    has_next: bool


class CredentialsBody(msgspec.Struct, rename="camel"):
    """What lets a device in."""

    credentials_type: CredentialsType
    credentials_id: str
    credentials_value: str | None


def changed_body(present: dict[str, Any], changes: DeviceChanges) -> dict[str, Any]:
    """A device as REST takes it: the present one with the changes, or {} and a new one."""
    body = present | {"additionalInfo": changes.merged_info(present.get("additionalInfo"))}
    if changes.name is not None:
        body["name"] = changes.name
    if changes.label is not None:
        body["label"] = changes.label or None
    if changes.profile is not None:
        body["type"] = changes.profile
        body.pop("deviceProfileId", None)  # it would win over the name
    return body


def secret_body(secret: Secret) -> dict[str, Any]:
    """Credentials as REST takes them together with a device."""
    return {
        "credentialsType": secret.type,
        "credentialsId": secret.id or None,
        "credentialsValue": secret.value,
    }
