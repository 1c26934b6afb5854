"""The one tenant profile in the registry, and its rate limits in force (REST spec 13.3)."""

import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from tbfast import limits
from tbfast.control.rules import InvalidEntity, checked, checked_json
from tbfast.errors import Conflict, NotFound, PeerError
from tbfast.model.device import Change
from tbfast.model.rates import RateLimits, rate_limits
from tbfast.model.tenant_profile import CONFIGURATION, TenantProfile
from tbfast.store.registry import Entity, RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(TenantProfile)


class TenantProfiles:
    """All methods belong to one event loop; writes return when they are on disk and in force."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self.id = str(uuid.uuid5(uuid.UUID(store.tenant_id), "tenant profile"))
        self._current = TenantProfile(id=self.id)
        self._limits = RateLimits()
        self._put: Callable[[RateLimits], None] = _ignored
        store.subscribe(self._changed)

    async def start(self) -> None:
        """Reads what was saved."""
        self._follow(await self._store.get("tenant_profile", self.id))

    def _changed(self, change: Change) -> None:
        if change.kind == "tenant_profile":  # also one whose caller has gone away meanwhile
            self._follow(self._store.peek("tenant_profile", self.id))

    def _follow(self, entity: Entity | None) -> None:
        if entity is not None:
            self._current = _decoder.decode(entity.value)
            self._limits = rate_limits(self._current.data["configuration"])
            self._put(self._limits)

    def enforce(self, put: Callable[[RateLimits], None]) -> None:
        """Hands the limits to `put`, now and whenever they change."""
        self._put = put
        put(self._limits)

    def get(self, profile_id: str | None = None) -> TenantProfile:
        """The profile; NotFound for another id than its own."""
        if profile_id not in (None, self.id):
            raise NotFound(f"Tenant profile with id [{profile_id}] is not found")
        return self._current

    async def save(
        self,
        profile_id: str | None,
        *,
        name: str,
        description: str | None,
        isolated: bool,
        data: dict[str, Any] | None,
        version: int | None,
    ) -> TenantProfile:
        """Saves it; the limits hold for the next message.

        InvalidEntity for limits that cannot be read, Conflict for a version that is not the
        current one.
        """
        current = self.get(profile_id)
        if version is not None and version != current.version:
            raise Conflict("The tenant profile was changed by someone else; read it again")
        checked("tenant profile name", name)
        saved = TenantProfile(
            id=self.id,
            name=name,
            description=description,
            isolated=isolated,
            data=_completed(data),
            version=current.version + 1,
        )
        await self._store.commit(
            Write(
                kind="tenant_profile",
                id=self.id,
                expected=current.version,
                value=msgspec.msgpack.encode(saved),
                change="tenant_profile",
            )
        )
        self._follow(self._store.peek("tenant_profile", self.id))
        return saved


def _completed(data: dict[str, Any] | None) -> dict[str, Any]:
    """profileData with the members that were left out; its limits can be read."""
    given = checked_json(
        "profileData", data or {}, limits.REGISTRY_PROFILE_BYTES, limits.REGISTRY_PROFILE_DEPTH
    )
    configuration = given.get("configuration") or {}
    if not isinstance(configuration, dict):
        raise InvalidEntity("profileData.configuration should be an object")
    configuration = CONFIGURATION | configuration
    if configuration["type"] != "DEFAULT":
        raise InvalidEntity("profileData.configuration.type should be DEFAULT")
    try:
        rate_limits(configuration)
    except PeerError as error:
        raise InvalidEntity(f"profileData.configuration.{error}") from error
    return {**given, "configuration": configuration}


def _ignored(_limits: RateLimits) -> None:
    """Nobody enforces them."""
