"""Devices that register themselves by the strategy of a profile (MQTT spec 6.2, REST spec 6)."""

import hmac
from typing import Final

import msgspec

from tbfast.control.attributes import AttributeService
from tbfast.control.credentials import CredentialsDraft
from tbfast.control.registry import DeviceDraft, Registry
from tbfast.control.rules import InvalidEntity, random_token
from tbfast.errors import Conflict
from tbfast.model.device import Credentials, CredentialsType, DeviceRecord
from tbfast.model.operations import Provision, Provisioned, Refusal
from tbfast.model.profile import provision_of
from tbfast.obs.log import get_logger

log = get_logger("tbfast.provisioning")

STATE: Final = "provisionState"
_DONE: Final = b'"provisioned"'
_NOT_FOUND: Final = Provisioned("NOT_FOUND")
_FAILURE: Final = Provisioned("FAILURE")


class Provisioning:
    """All methods belong to one event loop; what is answered is on disk."""

    def __init__(self, registry: Registry, attributes: AttributeService) -> None:
        self._registry = registry
        self._attributes = attributes
        self._busy: set[str] = set()  # ids of devices that are being marked

    async def provision(self, request: Provision) -> Provisioned | Refusal:
        """Refusal: the key is that of a profile whose devices come with certificates."""
        profile = await self._registry.profiles.by_provision_key(request.key)
        if profile is None:
            return _NOT_FOUND
        settings = provision_of(profile)
        if settings.type == "X509_CERTIFICATE_CHAIN":
            return Refusal("invalid", "devices of this profile register by their certificates")
        secret = (settings.secret or "").encode("utf-8", "surrogatepass")
        given = request.secret.encode("utf-8", "surrogatepass")
        known = bool(secret) and hmac.compare_digest(secret, given)
        if settings.type == "DISABLED" or not known:
            return _NOT_FOUND
        if settings.type == "ALLOW_CREATE_NEW_DEVICES":
            return await self._create(request, profile.id)
        return await self._release(request, profile.id)

    async def _create(self, request: Provision, profile_id: str) -> Provisioned:
        name = request.device_name
        if name and not name.strip():
            return _FAILURE
        draft = DeviceDraft(
            name=name.strip() if name else random_token(),
            profile_id=profile_id,
            additional_info={"gateway": True} if request.gateway else None,
        )
        try:
            record = await self._registry.add_device(draft, _credentials(request))
        except (InvalidEntity, Conflict) as error:
            log.info("a device was not registered", why=str(error))
            return _FAILURE
        await self._mark(record)
        return _success(record.credentials)

    async def _release(self, request: Provision, profile_id: str) -> Provisioned:
        """A device that was registered before takes its credentials, once."""
        device = await self._registry.device_by_name((request.device_name or "").strip())
        if device is None or device.profile_id != profile_id or device.id in self._busy:
            return _FAILURE
        if self._attributes.text_of(device.number, "SERVER_SCOPE", STATE) is not None:
            return _FAILURE
        self._busy.add(device.id)
        try:
            record = await self._registry.record(device.id)
            await self._mark(record)
        finally:
            self._busy.discard(device.id)
        return _success(record.credentials)

    async def _mark(self, record: DeviceRecord) -> None:
        await self._attributes.save(record.device.number, "SERVER_SCOPE", {STATE: _DONE})


class _Basic(msgspec.Struct, rename="camel"):
    client_id: str | None = ""
    user_name: str | None = ""
    password: str | None = ""


def _credentials(request: Provision) -> CredentialsDraft | None:
    """What the device asks to be known by; None = a random token."""
    wanted = request
    if not any(
        (wanted.token, wanted.certificate, wanted.user_name, wanted.password, wanted.client_id)
    ):
        return None
    type_: CredentialsType = wanted.credentials_type
    match type_:
        case "ACCESS_TOKEN":
            return CredentialsDraft(type_, wanted.token or "")
        case "MQTT_BASIC":
            basic = _Basic(wanted.client_id, wanted.user_name, wanted.password)
            return CredentialsDraft(type_, value=msgspec.json.encode(basic).decode())
        case "X509_CERTIFICATE" | "LWM2M_CREDENTIALS":
            return CredentialsDraft(type_, value=wanted.certificate or "")


def _success(credentials: Credentials) -> Provisioned:
    match credentials.type:
        case "ACCESS_TOKEN":
            value = msgspec.json.encode(credentials.credentials_id)
        case "MQTT_BASIC":
            stored = msgspec.json.decode(credentials.value or "{}", type=_Basic)
            filled = {k: v or "" for k, v in msgspec.to_builtins(stored).items()}
            value = msgspec.json.encode(filled)
        case "X509_CERTIFICATE":
            value = msgspec.json.encode(credentials.value or "")
        case "LWM2M_CREDENTIALS":
            value = b""
    return Provisioned("SUCCESS", credentials.type, value)
