"""Relations in the registry: races, and what a crash leaves."""

import asyncio
from pathlib import Path

from tbfast.control.registry import Registry
from tbfast.control.registry.devices import Devices
from tbfast.model.relation import Relation
from tests.support.registry import with_registry


def between(origin: str, target: str) -> Relation:
    return Relation(
        from_type="DEVICE",
        from_id=origin,
        to_type="DEVICE",
        to_id=target,
        type="Created",
        version=0,
    )


def test_what_a_crash_leaves_is_invisible_and_swept(tmp_path: Path) -> None:
    async def crash(registry: Registry) -> str:
        gateway = (await registry.create_device("g")).device.id
        for name in ("a", "b"):
            child = (await registry.create_device(name)).device.id
            await registry.relations.save(between(gateway, child))
        await Devices.delete_device(registry, child)  # all that was done before the crash
        return gateway

    gateway = with_registry(tmp_path, crash)

    async def after(registry: Registry) -> None:
        found = await registry.relations.of_origin("DEVICE", gateway, group="COMMON")
        assert len(found) == 1
        assert await registry.store.count("relation") == 2
        assert await registry.relations.sweep() == 1
        assert await registry.store.count("relation") == 1
        assert await registry.relations.sweep() == 0

    with_registry(tmp_path, after)


def test_racing_writers_make_one_relation(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        gateway = (await registry.create_device("g")).device.id
        child = (await registry.create_device("c")).device.id
        saved = await asyncio.gather(
            *(registry.relations.save(between(gateway, child)) for _ in range(10))
        )
        assert sorted(r.version for r in saved) == list(range(1, 11))
        assert await registry.store.count("relation") == 1

    with_registry(tmp_path, work)


def test_many_relations_of_one_origin(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        gateway = (await registry.create_device("g")).device.id
        children = await asyncio.gather(*(registry.create_device(f"c{i}") for i in range(600)))
        await asyncio.gather(
            *(registry.relations.save(between(gateway, c.device.id)) for c in children)
        )
        found = await registry.relations.of_origin("DEVICE", gateway, group="COMMON")
        assert {r.to_id for r in found} == {c.device.id for c in children}
        await registry.delete_device(gateway)
        assert await registry.store.count("relation") == 0
        assert registry.store.keys("relation-to:") == []

    with_registry(tmp_path, work)
