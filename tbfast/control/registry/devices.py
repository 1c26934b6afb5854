"""Devices and their credentials in the registry (REST spec 3, 4).

A device and its credentials are one stored entity (`DeviceRecord`), so that creating, deleting and
changing either is a single compare-and-set. The entity holds an index key for each thing it points
at (profile, customer, packages): who points at something is known without reading devices.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec

from tbfast import limits
from tbfast.control import credentials as secrets
from tbfast.control.credentials import CredentialsDraft
from tbfast.control.registry.naming import FAIL, Naming, free_names
from tbfast.control.registry.packages import Packages
from tbfast.control.registry.profiles import Profiles
from tbfast.control.registry.references import References
from tbfast.control.rules import (
    InvalidEntity,
    UniqueConflict,
    check_version,
    checked,
    checked_info,
    checked_json,
    checked_label,
    encodable,
    new_id,
)
from tbfast.errors import Conflict, LocalError, NotFound
from tbfast.model.device import (
    CREDENTIALS_INDEX,
    DEVICE_OF_INDEX,
    NAME_INDEX,
    ChangeKind,
    Credentials,
    CredentialsType,
    Device,
    DeviceRecord,
)
from tbfast.model.device_data import filled
from tbfast.model.package import PackageType
from tbfast.model.profile import DeviceProfile
from tbfast.store.registry import Entity, RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(DeviceRecord)


class DeviceDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may set; a profile by id, else by name, else the default.

    An update takes all of it, except that the profile stays where neither names one.
    """

    name: str
    label: str | None = None
    type: str | None = None
    profile_id: str | None = None
    customer_id: str | None = None
    additional_info: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    firmware_id: str | None = None
    software_id: str | None = None


class Devices:
    """The part of `Registry` that is about devices."""

    def __init__(
        self,
        store: RegistryStore,
        *,
        now_ms: Callable[[], int],
        new_token: Callable[[], str],
    ) -> None:
        self.store = store
        self.references = References()
        self.packages = Packages(store, self.references, now_ms)
        self.profiles = Profiles(store, self.references, self._package_fits, now_ms)
        self._now_ms = now_ms
        self._new_token = new_token

    # Reads

    async def record(self, device_id: str) -> DeviceRecord:
        """A device with its credentials."""
        return (await self._stored(device_id))[1]

    async def device(self, device_id: str) -> Device:
        """A device by id."""
        return (await self.record(device_id)).device

    async def device_by_name(self, name: str) -> Device | None:
        """A device by its exact name."""
        owner = await self.store.find(NAME_INDEX + name) if encodable(name) else None
        if owner is None:
            return None
        device = await self._or_none(owner[1])
        return device if device is not None and device.name == name else None

    async def device_by_number(self, number: int) -> Device | None:
        """A device by its node-local number."""
        device_id = await self.store.id_of_number(number)
        return None if device_id is None else await self._or_none(device_id)

    def has_number(self, number: int) -> bool:
        """Whether a device with this number exists."""
        return self.store.has_number(number)

    def device_ids_of(self, owner_id: str, after: str = "", limit: int | None = None) -> list[str]:
        """Ids of the devices that point at a profile, customer or package, in order."""
        return self.store.keys(f"{DEVICE_OF_INDEX}{owner_id}:", after, limit)

    async def all_devices(self) -> AsyncIterator[Device]:
        """Every device, in id order; the loop runs on meanwhile."""
        async for entity in self.store.entities("device"):
            yield self._record(entity).device

    async def devices_of(self, owner_id: str) -> AsyncIterator[Device]:
        """Devices that point at a profile, customer or package, in id order."""
        after = ""
        while ids := self.device_ids_of(owner_id, after, limits.REST_SCAN_ROWS):
            for device_id in ids:
                entity = self.store.peek("device", device_id)
                if entity is not None:
                    yield self._record(entity).device
            after = ids[-1]
            await asyncio.sleep(0)

    async def lookup_credentials(
        self, credentials_id: str
    ) -> tuple[Device, Credentials, DeviceProfile] | None:
        """Whom these credentials let in; None for nobody."""
        if not credentials_id or not encodable(credentials_id):
            return None
        owner = await self.store.find(CREDENTIALS_INDEX + credentials_id)
        if owner is None:
            return None
        try:
            record = await self.record(owner[1])
        except NotFound:  # deleted while its last change was being synced
            return None
        if record.credentials.credentials_id != credentials_id:
            return None
        return record.device, record.credentials, await self.profiles.get(record.device.profile_id)

    # Writes

    async def create_device(
        self,
        name: str,
        token: str | None = None,
        *,
        label: str | None = None,
        type: str | None = None,
        additional_info: dict[str, Any] | None = None,
    ) -> DeviceRecord:
        """Create a device with an access token, a random one unless given."""
        draft = DeviceDraft(name=name, label=label, type=type, additional_info=additional_info)
        return await self.add_device(
            draft, CredentialsDraft("ACCESS_TOKEN", token) if token else None
        )

    async def add_device(
        self,
        draft: DeviceDraft,
        secret: CredentialsDraft | None = None,
        naming: Naming = FAIL,
    ) -> DeviceRecord:
        """Create a device with these credentials, else with a random access token."""
        secret = secret or CredentialsDraft("ACCESS_TOKEN", self._new_token())
        profile = await self.profiles.for_device(draft.profile_id, draft.type)
        now, device_id = self._now_ms(), new_id()
        blank = Device(id=device_id, name="", profile_id=profile.id, created_ms=now, version=0)
        device = _drawn(draft, blank, profile)
        made = secrets.replaced(
            Credentials(
                id=new_id(),
                device_id=device_id,
                created_ms=now,
                credentials_id="",
                version=0,
            ),
            secret,
        )
        return await self._save_named(DeviceRecord(device, made), 0, naming)

    async def change_device(
        self,
        device_id: str,
        draft: DeviceDraft,
        *,
        version: int | None = None,
        secret: CredentialsDraft | None = None,
        naming: Naming = FAIL,
    ) -> DeviceRecord:
        """Overwrite what a caller may set; ``version`` not None must be the present one."""
        entity, record = await self._stored(device_id)
        check_version(version, record.device.version)
        profile_id = draft.profile_id
        if profile_id is None and not draft.type:
            profile_id = record.device.profile_id
        profile = await self.profiles.for_device(profile_id, draft.type)
        made = (
            record.credentials if secret is None else secrets.replaced(record.credentials, secret)
        )
        saved = DeviceRecord(_drawn(draft, record.device, profile), made)
        change: ChangeKind = "device" if secret is None else "credentials"
        return await self._save_named(saved, entity.version, naming, change)

    async def assign_device(
        self, device_id: str, customer_id: str | None, *, version: int | None = None
    ) -> Device:
        """Give a device to a customer, or to none; ``version`` as in `change_device`."""
        entity, record = await self._stored(device_id)
        check_version(version, record.device.version)
        if record.device.customer_id == customer_id:
            return record.device
        device = msgspec.structs.replace(
            record.device, customer_id=customer_id, version=record.device.version + 1
        )
        saved = await self._save(DeviceRecord(device, record.credentials), entity.version, "device")
        return saved.device

    async def update_credentials(
        self,
        device_id: str,
        credentials_id: str,
        *,
        type: CredentialsType = "ACCESS_TOKEN",
        value: str | None = None,
        version: int | None = None,
    ) -> Credentials:
        """Give a device other credentials; the old ones are refused from now on."""
        secret = CredentialsDraft(type, credentials_id, value)
        entity, record = await self._stored(device_id)
        check_version(version, record.credentials.version)
        made = secrets.replaced(record.credentials, secret)
        await self._save(DeviceRecord(record.device, made), entity.version, "credentials")
        return made

    async def delete_device(self, device_id: str) -> None:
        """Delete a device with its credentials; its number is never used again."""
        entity, _record = await self._stored(device_id)
        await self.store.commit(
            Write(kind="device", id=device_id, expected=entity.version, value=None, change="device")
        )

    async def _save_named(
        self,
        record: DeviceRecord,
        expected: int,
        naming: Naming,
        change: ChangeKind = "device",
    ) -> DeviceRecord:
        """Save under the wanted name, or under the first free one the policy allows."""
        name = record.device.name
        for candidate in free_names(name, naming, lambda n: self._free(n, record.device.id)):
            device = msgspec.structs.replace(record.device, name=checked("device name", candidate))
            try:
                return await self._save(DeviceRecord(device, record.credentials), expected, change)
            except UniqueConflict:
                if self._free(candidate, record.device.id) or naming.policy == "FAIL":
                    raise
        raise UniqueConflict(f"There is no free name that begins with {name!r}!")

    def _free(self, name: str, device_id: str) -> bool:
        owner = self.store.holder(NAME_INDEX + name)
        return owner is None or owner[1] == device_id

    async def _save(self, record: DeviceRecord, expected: int, change: ChangeKind) -> DeviceRecord:
        device = record.device
        points_at = [device.profile_id, device.customer_id, device.firmware_id, device.software_id]
        with self.references.held(*points_at):
            if device.customer_id is not None and not self._has("customer", device.customer_id):
                raise InvalidEntity("Can't assign device to non-existent customer!")
            if not self._has("device_profile", device.profile_id):
                raise NotFound(f"Device profile with id [{device.profile_id}] is not found")
            await self._package_fits(device.firmware_id, "FIRMWARE", device.profile_id)
            await self._package_fits(device.software_id, "SOFTWARE", device.profile_id)
            number = await self._commit(record, [id for id in points_at if id], expected, change)
        return self._named(record, number)

    async def _package_fits(
        self, package_id: str | None, type: PackageType, profile_id: str
    ) -> None:
        if package_id is not None:
            await self.packages.check(package_id, type, profile_id)

    def _has(self, kind: Any, id: str) -> bool:
        return self.store.peek(kind, id) is not None

    async def _commit(
        self, record: DeviceRecord, points_at: Iterable[str], expected: int, change: ChangeKind
    ) -> int:
        """Number of the device, once it is on disk."""
        device_id = record.device.id
        name_key = NAME_INDEX + record.device.name
        credentials_key = CREDENTIALS_INDEX + record.credentials.credentials_id
        try:
            saved = await self.store.commit(
                Write(
                    kind="device",
                    id=device_id,
                    expected=expected,
                    value=msgspec.msgpack.encode(record),
                    unique=(
                        name_key,
                        credentials_key,
                        *(f"{DEVICE_OF_INDEX}{owner}:{device_id}" for owner in points_at),
                    ),
                    change=change,
                )
            )
            return saved.number
        except Conflict as error:
            for key, message in (
                (name_key, "Device with such name already exists!"),
                (credentials_key, "Device credentials are already assigned to another device!"),
            ):
                owner = await self.store.find(key)
                if owner is not None and owner[1] != device_id:
                    raise UniqueConflict(message) from error
            raise

    async def _or_none(self, device_id: str) -> Device | None:
        try:
            return await self.device(device_id)
        except NotFound:  # deleted while its last change was being synced
            return None

    async def _stored(self, device_id: str) -> tuple[Entity, DeviceRecord]:
        entity = await self.store.get("device", device_id)
        if entity is None:
            raise NotFound(f"Device with id [{device_id}] is not found")
        return entity, self._record(entity)

    def _record(self, entity: Entity) -> DeviceRecord:
        return self._named(_decoder.decode(entity.value), entity.number)

    def _named(self, record: DeviceRecord, number: int) -> DeviceRecord:
        device = msgspec.structs.replace(
            record.device,
            number=number,
            # None: both were deleted since the entity was read.
            type=self.profiles.name_of(record.device.profile_id) or record.device.type,
        )
        return DeviceRecord(device, record.credentials)


def _drawn(draft: DeviceDraft, present: Device, profile: DeviceProfile) -> Device:
    """``present`` with everything the draft says, checked; the next version."""
    try:
        data = filled(draft.data, profile.transport_type)
    except LocalError as error:
        raise InvalidEntity(str(error)) from error
    checked_json("deviceData", data or {}, limits.REGISTRY_INFO_BYTES, limits.REGISTRY_INFO_DEPTH)
    return msgspec.structs.replace(
        present,
        name=checked("device name", draft.name),
        label=checked_label(draft.label),
        profile_id=profile.id,
        type=profile.name,
        customer_id=draft.customer_id,
        additional_info=checked_info(draft.additional_info),
        data=data,
        firmware_id=draft.firmware_id,
        software_id=draft.software_id,
        version=present.version + 1,
    )
