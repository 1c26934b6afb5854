"""The registry service: devices, credentials and profiles by the rules of REST spec 3, 4 and 5.

A device and its credentials are one stored entity (`DeviceRecord`), so that creating, deleting and
changing either is a single compare-and-set.
"""

import asyncio
import heapq
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from tbfast import limits
from tbfast.control import credentials
from tbfast.control.rules import (
    UniqueConflict,
    check_version,
    checked,
    checked_info,
    checked_label,
    encodable,
    random_token,
)
from tbfast.errors import Conflict, NotFound, TbfastError
from tbfast.model.device import (
    CREDENTIALS_INDEX,
    DEFAULT_PROFILE_NAME,
    NAME_INDEX,
    PROFILE_NAME_INDEX,
    Change,
    ChangeKind,
    Credentials,
    CredentialsType,
    Device,
    DeviceProfile,
    DeviceRecord,
)
from tbfast.store.registry import Entity, RegistryStore, Write

SortProperty = Literal["id", "name", "label", "type", "createdTime"]

_record_decoder = msgspec.msgpack.Decoder(DeviceRecord)
_profile_decoder = msgspec.msgpack.Decoder(DeviceProfile)


class DeviceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices to list, in which order (REST spec 1.2)."""

    page: int = 0
    page_size: int = 100
    text_search: str = ""
    type: str | None = None
    sort_property: SortProperty = "id"
    descending: bool = False


class DevicePage(msgspec.Struct, frozen=True):
    """Ids of one page, in order, and how many devices match altogether."""

    ids: list[str]
    total: int


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Registry:
    """All methods belong to one event loop; writes return when they are on disk.

    Raises Conflict for a taken name or token and for a stale version, InvalidEntity for a value
    we refuse, NotFound for an id that does not exist, StoreError when the disk fails.
    """

    def __init__(
        self,
        store: RegistryStore,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        new_token: Callable[[], str] = random_token,
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._new_token = new_token

    @classmethod
    async def open(cls, path: Path) -> "Registry":
        """Open the registry at ``path``; the first opening makes the default profile."""
        registry = cls(RegistryStore(path))
        try:
            if await registry.profile_by_name(DEFAULT_PROFILE_NAME) is None:
                await registry._create_profile(DEFAULT_PROFILE_NAME, default=True)
        except BaseException:
            await registry.close()
            raise
        return registry

    async def close(self) -> None:
        """Finish what was begun and release the store."""
        await self._store.close()

    @property
    def tenant_id(self) -> str:
        """UUID of the one tenant."""
        return self._store.tenant_id

    @property
    def failed(self) -> TbfastError | None:
        """Why nothing can be written until the registry is opened again; None if all is well."""
        return self._store.failed

    @property
    def revision(self) -> int:
        """Revision of the newest change."""
        return self._store.revision

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back once per durable change, in order; returns the way to stop."""
        return self._store.subscribe(callback)

    async def changes_since(self, revision: int) -> list[Change] | None:
        """Changes after ``revision``; None when the log does not reach back: start afresh."""
        return await self._store.changes_since(revision)

    # Devices

    async def create_device(
        self,
        name: str,
        token: str | None = None,
        *,
        label: str | None = None,
        type: str | None = None,
        profile_id: str | None = None,
        additional_info: dict[str, Any] | None = None,
    ) -> DeviceRecord:
        """Create a device with an access token, a random one unless given."""
        name = checked("device name", name)
        token = checked("access token", token) if token else self._new_token()
        profile = await self._profile_for(profile_id, type)
        now, device_id = self._now_ms(), str(uuid.uuid1())
        device = Device(
            id=device_id,
            name=name,
            profile_id=profile.id,
            type=profile.name,
            label=checked_label(label),
            additional_info=checked_info(additional_info),
            created_ms=now,
        )
        secret = Credentials(
            id=str(uuid.uuid1()), device_id=device_id, created_ms=now, credentials_id=token
        )
        await self._save_record(DeviceRecord(device, secret), expected=0, change="device")
        return await self.record(device_id)

    async def update_device(
        self,
        device_id: str,
        *,
        name: str,
        label: str | None,
        type: str | None = None,
        profile_id: str | None = None,
        additional_info: dict[str, Any] | None,
        version: int | None = None,
    ) -> DeviceRecord:
        """Overwrite what a caller may set; ``version`` not None must be the present one."""
        entity, record = await self._stored_record(device_id)
        check_version(version, record.device.version)
        if profile_id is None and type is None:
            profile_id = record.device.profile_id
        profile = await self._profile_for(profile_id, type)
        device = msgspec.structs.replace(
            record.device,
            name=checked("device name", name),
            label=checked_label(label),
            profile_id=profile.id,
            type=profile.name,
            additional_info=checked_info(additional_info),
            version=record.device.version + 1,
        )
        await self._save_record(
            DeviceRecord(device, record.credentials), expected=entity.version, change="device"
        )
        return await self.record(device_id)

    async def delete_device(self, device_id: str) -> None:
        """Delete a device with its credentials; its number is never used again."""
        entity, _record = await self._stored_record(device_id)
        await self._store.commit(
            Write(kind="device", id=device_id, expected=entity.version, value=None, change="device")
        )

    async def record(self, device_id: str) -> DeviceRecord:
        """A device with its credentials."""
        return (await self._stored_record(device_id))[1]

    async def device(self, device_id: str) -> Device:
        """A device by id."""
        return (await self.record(device_id)).device

    async def device_by_name(self, name: str) -> Device | None:
        """A device by its exact name."""
        owner = await self._store.find(NAME_INDEX + name) if encodable(name) else None
        if owner is None:
            return None
        device = await self._device_or_none(owner[1])
        return device if device is not None and device.name == name else None

    async def device_by_number(self, number: int) -> Device | None:
        """A device by its node-local number."""
        device_id = await self._store.id_of_number(number)
        return None if device_id is None else await self._device_or_none(device_id)

    def has_number(self, number: int) -> bool:
        """Whether a device with this number exists."""
        return self._store.has_number(number)

    def devices(self) -> AsyncIterator[Device]:
        """All devices, in id order; the loop runs on meanwhile."""
        return self._matching(DeviceQuery())

    async def page(self, query: DeviceQuery) -> DevicePage:
        """Ids of one page of devices; the loop runs on while a long list is searched."""
        first = query.page * query.page_size
        if query.sort_property == "id" and not query.descending:
            ids: list[str] = []
            total = 0
            async for device in self._matching(query):
                if first <= total < first + query.page_size:
                    ids.append(device.id)
                total += 1
            return DevicePage(ids, total)
        keys = [(_sort_key(query, device), device.id) async for device in self._matching(query)]
        pick = heapq.nlargest if query.descending else heapq.nsmallest
        top = pick(first + query.page_size, keys) if query.page_size < len(keys) else None
        if top is None:
            top = sorted(keys, reverse=query.descending)
        ordered = top[first : first + query.page_size]
        return DevicePage([device_id for _key, device_id in ordered], len(keys))

    # Credentials

    async def lookup_credentials(
        self, credentials_id: str
    ) -> tuple[Device, Credentials, DeviceProfile] | None:
        """Whom these credentials let in; None for nobody."""
        if not credentials_id or not encodable(credentials_id):
            return None
        owner = await self._store.find(CREDENTIALS_INDEX + credentials_id)
        if owner is None:
            return None
        try:
            record = await self.record(owner[1])
        except NotFound:  # deleted while its last change was being synced
            return None
        if record.credentials.credentials_id != credentials_id:
            return None
        return record.device, record.credentials, await self.profile(record.device.profile_id)

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
        entity, record = await self._stored_record(device_id)
        check_version(version, record.credentials.version)
        made = credentials.replaced(record.credentials, type, credentials_id, value)
        await self._save_record(
            DeviceRecord(record.device, made), expected=entity.version, change="credentials"
        )
        return made

    # Profiles

    async def profile(self, profile_id: str) -> DeviceProfile:
        """A profile by id."""
        entity = await self._store.get("device_profile", profile_id)
        if entity is None:
            raise NotFound(f"Device profile with id [{profile_id}] is not found")
        return _profile_decoder.decode(entity.value)

    async def profile_by_name(self, name: str) -> DeviceProfile | None:
        """A profile by its exact name."""
        owner = await self._store.find(PROFILE_NAME_INDEX + name)
        return None if owner is None else await self.profile(owner[1])

    async def default_profile(self) -> DeviceProfile:
        """The profile of devices that name none."""
        profile = await self.profile_by_name(DEFAULT_PROFILE_NAME)
        if profile is None:
            raise NotFound("there is no default device profile")
        return profile

    async def profiles(self) -> list[DeviceProfile]:
        """All profiles, in id order."""
        found: list[DeviceProfile] = []
        after = ""
        while rows := await self._store.scan("device_profile", after, limits.REST_SCAN_ROWS):
            found += [_profile_decoder.decode(row.value) for row in rows]
            after = rows[-1].id
            await asyncio.sleep(0)
        return found

    async def _profile_for(self, profile_id: str | None, type: str | None) -> DeviceProfile:
        """REST spec 3, rule 1: by id, else by type (made when new), else the default."""
        if profile_id is not None:
            return await self.profile(profile_id)
        if not type:
            return await self.default_profile()
        name = checked("device type", type)
        found = await self.profile_by_name(name)
        if found is not None:
            return found
        try:
            return await self._create_profile(name, default=False)
        except Conflict:  # another caller made it first
            made = await self.profile_by_name(name)
            if made is None:
                raise
            return made

    async def _create_profile(self, name: str, *, default: bool) -> DeviceProfile:
        profile = DeviceProfile(
            id=str(uuid.uuid1()), name=name, default=default, created_ms=self._now_ms()
        )
        await self._store.commit(
            Write(
                kind="device_profile",
                id=profile.id,
                expected=0,
                value=msgspec.msgpack.encode(profile),
                unique=(PROFILE_NAME_INDEX + name,),
                change="device_profile",
            )
        )
        return profile

    async def _device_or_none(self, device_id: str) -> Device | None:
        try:
            return await self.device(device_id)
        except NotFound:  # deleted while its last change was being synced
            return None

    async def _stored_record(self, device_id: str) -> tuple[Entity, DeviceRecord]:
        entity = await self._store.get("device", device_id)
        if entity is None:
            raise NotFound(f"Device with id [{device_id}] is not found")
        return entity, _record(entity)

    async def _save_record(
        self, record: DeviceRecord, *, expected: int, change: ChangeKind
    ) -> Change:
        name_key = NAME_INDEX + record.device.name
        credentials_key = CREDENTIALS_INDEX + record.credentials.credentials_id
        try:
            return await self._store.commit(
                Write(
                    kind="device",
                    id=record.device.id,
                    expected=expected,
                    value=msgspec.msgpack.encode(record),
                    unique=(name_key, credentials_key),
                    change=change,
                )
            )
        except Conflict as error:
            raise await self._explained(
                error, record.device.id, name_key, credentials_key
            ) from error

    async def _explained(
        self, error: Conflict, device_id: str, name_key: str, credentials_key: str
    ) -> Conflict:
        """The same refusal in ThingsBoard's words, where a unique key caused it."""
        for key, message in (
            (name_key, "Device with such name already exists!"),
            (credentials_key, "Device credentials are already assigned to another device!"),
        ):
            owner = await self._store.find(key)
            if owner is not None and owner[1] != device_id:
                return UniqueConflict(message)
        return error

    async def _matching(self, query: DeviceQuery) -> AsyncIterator[Device]:
        wanted = query.text_search.casefold()
        after = ""
        while rows := await self._store.scan("device", after, limits.REST_SCAN_ROWS):
            for row in rows:
                device = _record(row).device
                if query.type is not None and device.type != query.type:
                    continue
                if wanted in device.name.casefold() or wanted in (device.label or "").casefold():
                    yield device
            after = rows[-1].id
            await asyncio.sleep(0)


def _record(entity: Entity) -> DeviceRecord:
    record = _record_decoder.decode(entity.value)
    return DeviceRecord(
        msgspec.structs.replace(record.device, number=entity.number), record.credentials
    )


def _sort_key(query: DeviceQuery, device: Device) -> str | int:
    match query.sort_property:
        case "id":
            return device.id
        case "name":
            return device.name.casefold()
        case "label":
            return (device.label or "").casefold()
        case "type":
            return device.type.casefold()
        case "createdTime":
            return device.created_ms
