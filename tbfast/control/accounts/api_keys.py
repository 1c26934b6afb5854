"""API keys: secrets for programs, shown once and kept as a hash (REST spec 2)."""

import hashlib
import secrets
import uuid
from collections.abc import Callable
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.rules import InvalidEntity, checked
from tbfast.errors import NotFound
from tbfast.model.account import API_KEY_INDEX, ApiKey
from tbfast.store.registry import Entity, RegistryStore, Write

PREFIX: Final = "tb_"
_SECRET_BYTES: Final = 32

_decoder: Final = msgspec.msgpack.Decoder(ApiKey)


def _digest(value: str) -> str:
    """A key is random bits, so a plain hash of it cannot be turned back."""
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


class ApiKeys:
    """Keys are compare-and-set entities; a key whose user is gone lets nobody in."""

    def __init__(self, store: RegistryStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def create(
        self, user_id: str, description: str, *, enabled: bool, expires_ms: int
    ) -> tuple[ApiKey, str]:
        """A key of a user, and its value: the only time it is known."""
        if len(await self.of_user(user_id)) >= limits.API_KEYS_PER_USER:
            raise InvalidEntity(f"A user has at most {limits.API_KEYS_PER_USER} API keys")
        if await self._store.count("api_key") >= limits.API_KEYS:
            raise InvalidEntity(f"There are at most {limits.API_KEYS} API keys")
        value = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        key = ApiKey(
            id=str(uuid.uuid1()),
            user_id=user_id,
            description=checked("API key description", description),
            digest=_digest(value),
            enabled=enabled,
            expires_ms=expires_ms,
            created_ms=self._now_ms(),
        )
        await self._save(key, expected=0)
        return key, value

    async def change(
        self, key_id: str, *, description: str | None = None, enabled: bool | None = None
    ) -> ApiKey:
        """Describe a key differently, or turn it on or off."""
        entity, key = await self._stored(key_id)
        if description is not None:
            key = msgspec.structs.replace(
                key, description=checked("API key description", description)
            )
        if enabled is not None:
            key = msgspec.structs.replace(key, enabled=enabled)
        await self._save(key, expected=entity.version)
        return key

    async def delete(self, key_id: str) -> None:
        """The key lets nobody in any more."""
        entity, _key = await self._stored(key_id)
        await self._store.commit(
            Write(kind="api_key", id=key_id, expected=entity.version, value=None, change="api_key")
        )

    async def get(self, key_id: str) -> ApiKey:
        """A key by id; NotFound."""
        return (await self._stored(key_id))[1]

    async def by_value(self, value: str) -> ApiKey | None:
        """The key with this value; None for nobody's."""
        digest = _digest(value)
        owner = await self._store.find(API_KEY_INDEX + digest)
        entity = None if owner is None else await self._store.get("api_key", owner[1])
        return None if entity is None else _decoder.decode(entity.value)

    async def of_user(self, user_id: str) -> list[ApiKey]:
        """Keys of a user, in id order."""
        return [key for key in await self.all() if key.user_id == user_id]

    async def all(self) -> list[ApiKey]:
        """Every key, in id order."""
        found: list[ApiKey] = []
        after = ""
        while rows := await self._store.scan("api_key", after, limits.REST_SCAN_ROWS):
            found += [_decoder.decode(row.value) for row in rows]
            after = rows[-1].id
        return found

    async def _stored(self, key_id: str) -> tuple[Entity, ApiKey]:
        entity = await self._store.get("api_key", key_id)
        if entity is None:
            raise NotFound(f"API key with id [{key_id}] is not found")
        return entity, _decoder.decode(entity.value)

    async def _save(self, key: ApiKey, *, expected: int) -> None:
        await self._store.commit(
            Write(
                kind="api_key",
                id=key.id,
                expected=expected,
                value=msgspec.msgpack.encode(key),
                unique=(API_KEY_INDEX + key.digest,),
                change="api_key",
            )
        )
