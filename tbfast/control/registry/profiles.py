"""Device profiles in the registry (REST spec 5).

One profile is the default: the one that the entity ``node/default-profile`` names, or, as long as
nobody has chosen another, the one called "default". Devices name profiles by id only, so that a
new name or new settings are one write.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.authorities import is_well_known
from tbfast.control.registry.profile_rules import ProfileDraft, authority_of, drawn
from tbfast.control.registry.references import References
from tbfast.control.rules import (
    InvalidEntity,
    UniqueConflict,
    check_version,
    checked,
    encodable,
    new_id,
)
from tbfast.errors import Conflict, NotFound
from tbfast.model.device import DEFAULT_PROFILE_NAME, DEVICE_OF_INDEX
from tbfast.model.package import PROFILE_OF_INDEX, PackageType
from tbfast.model.profile import PROFILE_NAME_INDEX, PROVISION_KEY_INDEX, DeviceProfile
from tbfast.model.transport import DEFAULT_MQTT, MqttProfile, mqtt_profile
from tbfast.store.registry import Entity, RegistryStore, Write

_DEFAULT_ID: Final = "default-profile"  # of the kind "node"

_decoder = msgspec.msgpack.Decoder(DeviceProfile)


class Profiles:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(
        self,
        store: RegistryStore,
        references: References,
        check_package: Callable[[str | None, PackageType, str], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        self._store = store
        self._references = references
        self._check_package = check_package
        self._now_ms = now_ms
        self._names: dict[str, str] = {}  # by id, of all profiles
        self._decoded: dict[str, tuple[int, DeviceProfile]] = {}  # by id, with the stored version
        self._mqtt: dict[str, tuple[int, MqttProfile]] = {}  # likewise

    async def start(self) -> None:
        """To be called first; the first opening makes the default profile."""
        self._names = {profile.id: profile.name for profile in await self.all()}
        if self._default_id() is None:
            await self._create(ProfileDraft(name=DEFAULT_PROFILE_NAME))

    # Reads

    async def get(self, profile_id: str) -> DeviceProfile:
        """A profile by id."""
        return (await self._stored(profile_id))[1]

    async def by_name(self, name: str) -> DeviceProfile | None:
        """A profile by its exact name."""
        return await self._owner(PROFILE_NAME_INDEX + name)

    async def by_provision_key(self, key: str) -> DeviceProfile | None:
        """The profile whose devices provision themselves with this key."""
        return await self._owner(PROVISION_KEY_INDEX + key) if key else None

    async def default(self) -> DeviceProfile:
        """The profile of devices that name none."""
        profile_id = self._default_id()
        if profile_id is None:
            raise NotFound("there is no default device profile")
        return await self.get(profile_id)

    async def all(self) -> list[DeviceProfile]:
        """All profiles, in id order."""
        return [self._profile(entity) async for entity in self._store.entities("device_profile")]

    def name_of(self, profile_id: str) -> str | None:
        """The present name of a profile; None where there is none."""
        return self._names.get(profile_id)

    def mqtt(self, profile_id: str) -> MqttProfile | None:
        """What sessions of its devices go by, as last written; None where there is no profile."""
        entity = self._store.peek("device_profile", profile_id)
        if entity is None:
            self._mqtt.pop(profile_id, None)
            return None
        known = self._mqtt.get(profile_id)
        if known is None or known[0] != entity.version:
            profile = self._profile(entity)
            parsed = mqtt_profile(
                profile.transport_type, profile.data.get("transportConfiguration") or {}
            )
            known = (entity.version, DEFAULT_MQTT if parsed == DEFAULT_MQTT else parsed)
            self._mqtt[profile_id] = known
            if len(self._mqtt) > limits.REGISTRY_PROFILE_CACHE:
                del self._mqtt[next(iter(self._mqtt))]
        return known[1]

    def in_use(self, profile_id: str) -> bool:
        """Whether a device has this profile."""
        return bool(self._store.keys(f"{DEVICE_OF_INDEX}{profile_id}:", limit=1))

    # Writes

    async def save(
        self, draft: ProfileDraft, profile_id: str | None = None, version: int | None = None
    ) -> DeviceProfile:
        """Create a profile, or overwrite the one with this id and, unless None, this version."""
        if profile_id is None:
            return await self._create(draft)
        with self._references.held(profile_id):
            entity, present = await self._stored(profile_id)
            if draft.transport_type == present.transport_type:
                return await self._update(draft, entity, present, version)
        with self._references.alone(profile_id):
            if self.in_use(profile_id):
                raise InvalidEntity(
                    "Can't change device profile transport type because devices referenced it!"
                )
            entity, present = await self._stored(profile_id)
            return await self._update(draft, entity, present, version)

    async def set_default(self, profile_id: str) -> DeviceProfile:
        """Make this profile the default; the former one loses the flag in the same write."""
        with self._references.held(profile_id):
            await self.get(profile_id)
            await self._point(profile_id)
            return await self.get(profile_id)

    async def delete(self, profile_id: str) -> None:
        """Delete a profile that is not the default and that no device has."""
        await self.get(profile_id)
        with self._references.alone(profile_id):
            entity, present = await self._stored(profile_id)
            if present.default:
                raise InvalidEntity("Deletion of Default Device Profile is prohibited!")
            if self.in_use(profile_id):
                raise InvalidEntity(
                    "The device profile referenced by the devices cannot be deleted!"
                )
            await self._store.commit(
                Write(
                    kind="device_profile",
                    id=profile_id,
                    expected=entity.version,
                    value=None,
                    change="device_profile",
                )
            )
            self._names.pop(profile_id, None)
            self._decoded.pop(profile_id, None)
            self._mqtt.pop(profile_id, None)

    async def for_device(self, profile_id: str | None, type: str | None) -> DeviceProfile:
        """REST spec 3, rule 1: by id, else by type (made when new), else the default."""
        if profile_id is not None:
            return await self.get(profile_id)
        if not type:
            return await self.default()
        name = checked("device type", type)
        found = await self.by_name(name)
        if found is not None:
            return found
        default = await self.default()
        copy = ProfileDraft(
            name=name,
            description=default.description,
            image=default.image,
            transport_type=default.transport_type,
            rule_chain_id=default.rule_chain_id,
            edge_rule_chain_id=default.edge_rule_chain_id,
            dashboard_id=default.dashboard_id,
            queue_name=default.queue_name,
            data={k: v for k, v in default.data.items() if k != "provisionConfiguration"},
        )
        try:
            return await self._create(copy)
        except Conflict:  # another caller made it first
            made = await self.by_name(name)
            if made is None:
                raise
            return made

    async def _create(self, draft: ProfileDraft) -> DeviceProfile:
        blank = DeviceProfile(id=new_id(), name="", created_ms=self._now_ms(), version=0)
        return await self._commit(await _checked(draft, blank), expected=0)

    async def _update(
        self, draft: ProfileDraft, entity: Entity, present: DeviceProfile, version: int | None
    ) -> DeviceProfile:
        check_version(version, present.version)
        made = await _checked(draft, present)
        if present.default and made.name != present.name:
            await self._point(present.id)  # its old name may be all that makes it the default
        return await self._commit(made, expected=entity.version)

    async def _commit(self, profile: DeviceProfile, *, expected: int) -> DeviceProfile:
        with self._references.held(profile.firmware_id, profile.software_id):
            await self._check_package(profile.firmware_id, "FIRMWARE", profile.id)
            await self._check_package(profile.software_id, "SOFTWARE", profile.id)
            return await self._put(profile, expected)

    async def _put(self, profile: DeviceProfile, expected: int) -> DeviceProfile:
        name_key = PROFILE_NAME_INDEX + profile.name
        unique = [name_key]
        if profile.provision_key is not None:
            unique.append(PROVISION_KEY_INDEX + profile.provision_key)
        unique += [
            f"{PROFILE_OF_INDEX}{package}:{profile.id}"
            for package in (profile.firmware_id, profile.software_id)
            if package is not None
        ]
        stored = msgspec.structs.replace(profile, default=False)
        try:
            await self._store.commit(
                Write(
                    kind="device_profile",
                    id=profile.id,
                    expected=expected,
                    value=msgspec.msgpack.encode(stored),
                    unique=tuple(unique),
                    change="device_profile",
                )
            )
        except Conflict as error:
            for key in unique:
                owner = await self._store.find(key)
                if owner is not None and owner[1] != profile.id:
                    what = "name" if key == name_key else "provision device key"
                    raise UniqueConflict(
                        f"Device profile with such {what} already exists!"
                    ) from error
            raise
        self._names[profile.id] = profile.name
        return await self.get(profile.id)

    # The default

    def _default_id(self) -> str | None:
        chosen = self._store.peek("node", _DEFAULT_ID)
        if chosen is not None:
            return msgspec.msgpack.decode(chosen.value, type=str)
        owner = self._store.holder(PROFILE_NAME_INDEX + DEFAULT_PROFILE_NAME)
        return None if owner is None else owner[1]

    async def _point(self, profile_id: str) -> None:
        chosen = await self._store.get("node", _DEFAULT_ID)
        await self._store.commit(
            Write(
                kind="node",
                id=_DEFAULT_ID,
                expected=0 if chosen is None else chosen.version,
                value=msgspec.msgpack.encode(profile_id),
                change="node",
            )
        )

    async def _owner(self, key: str) -> DeviceProfile | None:
        owner = self._store.holder(key) if encodable(key) else None
        return None if owner is None else await self.get(owner[1])

    async def _stored(self, profile_id: str) -> tuple[Entity, DeviceProfile]:
        entity = await self._store.get("device_profile", profile_id)
        if entity is None:
            raise NotFound(f"Device profile with id [{profile_id}] is not found")
        return entity, self._profile(entity)

    def _profile(self, entity: Entity) -> DeviceProfile:
        known = self._decoded.get(entity.id)
        if known is None or known[0] != entity.version:
            known = (entity.version, _decoder.decode(entity.value))
            self._decoded[entity.id] = known
            if len(self._decoded) > limits.REGISTRY_PROFILE_CACHE:
                del self._decoded[next(iter(self._decoded))]
        profile = known[1]
        if entity.id != self._default_id():
            return profile
        return msgspec.structs.replace(profile, default=True)


async def _checked(draft: ProfileDraft, present: DeviceProfile) -> DeviceProfile:
    """As `drawn`; an authority that is no secret of the tenant's is refused (MQTT spec 1.5)."""
    made = drawn(draft, present)
    authority = authority_of(made)
    if authority is not None and await asyncio.to_thread(is_well_known, authority):
        raise InvalidEntity("Device profile certificate cannot be well known root CA!")
    return made
