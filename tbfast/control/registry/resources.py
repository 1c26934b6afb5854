"""LwM2M object definitions in the registry (REST spec 12)."""

from collections.abc import AsyncIterator, Callable

import msgspec

from tbfast import limits
from tbfast.codec.ddf import parse_ddf
from tbfast.control.rules import InvalidEntity, checked, new_id
from tbfast.errors import Conflict, NotFound, PeerError
from tbfast.model.resource import RESOURCE_KEY_INDEX, Resource
from tbfast.store.registry import RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(Resource)


class Resources:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(self, store: RegistryStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def save(
        self, title: str, file_name: str, data: bytes, resource_id: str | None = None
    ) -> Resource:
        """Store an object definition; one of the same object and version is replaced."""
        if len(data) > limits.REGISTRY_RESOURCE_BYTES:
            raise InvalidEntity(f"the file is longer than {limits.REGISTRY_RESOURCE_BYTES} bytes")
        try:
            model = parse_ddf(data)
        except PeerError as error:
            raise InvalidEntity(str(error)) from error
        checked("resource title", title)
        checked("resource file name", file_name)
        key = f"{RESOURCE_KEY_INDEX}LWM2M_MODEL:{model.key}"
        holder = await self._store.find(key)
        present = await self._present(resource_id or (holder[1] if holder else None))
        if present is None and await self._store.count("resource") >= limits.REGISTRY_RESOURCES:
            raise InvalidEntity(f"there are {limits.REGISTRY_RESOURCES} resources already")
        made = Resource(
            id=present.id if present else new_id(),
            title=title,
            key=model.key,
            file_name=file_name,
            data=data,
            model=model,
            created_ms=present.created_ms if present else self._now_ms(),
            version=present.version + 1 if present else 1,
        )
        try:
            await self._store.commit(
                Write(
                    kind="resource",
                    id=made.id,
                    expected=made.version - 1,
                    value=msgspec.msgpack.encode(made),
                    unique=(key,),
                    change="resource",
                )
            )
        except Conflict as error:
            raise InvalidEntity(
                f"The LwM2M object {model.key} is being saved, or is another resource's!"
            ) from error
        return made

    async def get(self, resource_id: str) -> Resource:
        """A resource by id."""
        entity = await self._store.get("resource", resource_id)
        if entity is None:
            raise NotFound(f"Resource with id [{resource_id}] is not found")
        return _decoder.decode(entity.value)

    async def all(self) -> AsyncIterator[Resource]:
        """All resources, in id order."""
        async for entity in self._store.entities("resource"):
            yield _decoder.decode(entity.value)

    async def delete(self, resource_id: str) -> None:
        """Delete a resource."""
        found = await self.get(resource_id)
        await self._store.commit(
            Write(
                kind="resource",
                id=resource_id,
                expected=found.version,
                value=None,
                change="resource",
            )
        )

    async def _present(self, resource_id: str | None) -> Resource | None:
        return None if resource_id is None else await self.get(resource_id)
