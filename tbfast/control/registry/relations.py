"""Relations in the registry (REST spec 10).

A deleted entity is gone at once, its relations a moment later: reads leave out relations of which
an end does not exist, and what a crash leaves behind is removed by `sweep`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.registry.references import References
from tbfast.control.rules import check_version, checked, checked_info
from tbfast.errors import Conflict, NotFound
from tbfast.model.relation import RELATION_TO_INDEX, Relation, RelationGroup
from tbfast.store.registry import Entity, Kind, RegistryStore, Write

_KINDS: Final[dict[str, Kind]] = {
    "DEVICE": "device",
    "DEVICE_PROFILE": "device_profile",
    "CUSTOMER": "customer",
    "USER": "user",
    "OTA_PACKAGE": "ota_package",
    "TB_RESOURCE": "resource",
}

_decoder = msgspec.msgpack.Decoder(Relation)


class Relations:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(self, store: RegistryStore, references: References) -> None:
        self._store = store
        self._references = references

    async def save(self, relation: Relation) -> Relation:
        """Create or overwrite; ``relation.version`` 0 does not care, else it is the present one."""
        checked("relation type", relation.type)
        checked_info(relation.additional_info)
        with self._references.held(relation.from_id, relation.to_id):
            for type_, id in (
                (relation.from_type, relation.from_id),
                (relation.to_type, relation.to_id),
            ):
                if not self._exists(type_, id):
                    raise NotFound(f"{type_} with id [{id}] is not found")
            while True:
                entity = await self._store.get("relation", relation.id)
                if relation.version:
                    check_version(relation.version, 0 if entity is None else entity.version)
                expected = 0 if entity is None else entity.version
                saved = msgspec.structs.replace(relation, version=expected + 1)
                try:
                    await self._commit(saved, expected)
                except Conflict:
                    if relation.version:
                        raise
                    continue  # another caller was faster; the last one wins
                return saved

    async def get(self, wanted: Relation) -> Relation:
        """The stored relation with these ends, group and type."""
        entity = await self._store.get("relation", wanted.id)
        found = [] if entity is None else self._alive([entity])
        if not found:
            raise NotFound("Requested item wasn't found!")
        return found[0]

    async def delete(self, wanted: Relation) -> None:
        """Delete the relation with these ends, group and type."""
        await self.get(wanted)
        await self._remove([wanted.id])

    async def of_origin(
        self, type_: str, id: str, *, group: RelationGroup, type: str | None = None
    ) -> list[Relation]:
        """Relations that begin at an entity."""
        found = [r for r in self._alive(await self._from(id)) if r.from_type == type_]
        return [r for r in found if r.group == group and type in (None, r.type)]

    async def of_target(
        self, type_: str, id: str, *, group: RelationGroup, type: str | None = None
    ) -> list[Relation]:
        """Relations that lead to an entity."""
        entities = [self._store.peek("relation", rid) for rid in self._ids_to(id)]
        found = self._alive(e for e in entities if e is not None)
        return [
            r for r in found if r.to_type == type_ and r.group == group and type in (None, r.type)
        ]

    async def forget(self, id: str) -> None:
        """Delete the relations of an entity that exists no more."""
        await self._remove([e.id for e in await self._from(id)] + self._ids_to(id))

    async def sweep(self) -> int:
        """Remove what a crash left of deleted entities; how many relations that were."""
        dead = [
            entity.id
            async for entity in self._store.entities("relation")
            if not self._alive([entity])
        ]
        await self._remove(dead)
        return len(dead)

    async def _from(self, id: str) -> list[Entity]:
        prefix = f"{id}:"
        found: list[Entity] = []
        after = prefix
        while rows := await self._store.scan("relation", after, limits.REST_SCAN_ROWS):
            mine = [row for row in rows if row.id.startswith(prefix)]
            found += mine
            if len(mine) < limits.REST_SCAN_ROWS:
                break
            after = mine[-1].id
        return found

    def _ids_to(self, id: str) -> list[str]:
        return self._store.keys(f"{RELATION_TO_INDEX}{id}:")

    def _alive(self, entities: Iterable[Entity]) -> list[Relation]:
        found = [_decoder.decode(entity.value) for entity in entities]
        return [
            r
            for r in found
            if self._exists(r.from_type, r.from_id) and self._exists(r.to_type, r.to_id)
        ]

    def _exists(self, type_: str, id: str) -> bool:
        if type_ == "TENANT":
            return id == self._store.tenant_id
        kind = _KINDS.get(type_)
        return kind is not None and self._store.peek(kind, id) is not None

    async def _commit(self, relation: Relation, expected: int) -> None:
        await self._store.commit(
            Write(
                kind="relation",
                id=relation.id,
                expected=expected,
                value=msgspec.msgpack.encode(relation),
                unique=(f"{RELATION_TO_INDEX}{relation.to_id}:{relation.id}",),
                change="relation",
            )
        )

    async def _remove(self, ids: Iterable[str]) -> None:
        for id in dict.fromkeys(ids):
            while (entity := await self._store.get("relation", id)) is not None:
                try:
                    await self._store.commit(
                        Write(
                            kind="relation",
                            id=id,
                            expected=entity.version,
                            value=None,
                            change="relation",
                        )
                    )
                except Conflict:
                    continue  # it was overwritten meanwhile
