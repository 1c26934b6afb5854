"""Writes of every kind to a registry, as fast as it can; prints what was answered.

Arguments: directory, seed. Lines: {"kind", "id", "state"}: begun without a state, answered with
one; a state of null is a deleted entity.
"""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

from tbfast.control.registry import CustomerDraft, DeviceDraft, ProfileDraft, Registry
from tbfast.model.relation import Relation


def say(kind: str, id: str, **state: Any) -> None:
    print(json.dumps({"kind": kind, "id": id, **state}), flush=True)


class Writer:
    """One writer with entities of its own: one write of it is under way at a time."""

    def __init__(self, registry: Registry, seed: int, index: int) -> None:
        self.registry = registry
        self.choose = random.Random(seed)
        self.index = index
        self.count = 0
        self.devices: list[str] = []
        self.profiles: list[str] = []
        self.customers: list[str] = []

    def name(self) -> str:
        self.count += 1
        return f"{self.index}-{self.count}"

    async def run(self) -> None:
        await self.new_profile()
        await self.new_customer()
        while True:
            await self.choose.choice(self.actions)(self)

    async def new_profile(self) -> None:
        made = await self.registry.profiles.save(
            ProfileDraft(name=self.name(), provision_key=self.name())
        )
        self.profiles.append(made.id)
        say("device_profile", made.id, state=[made.name, made.provision_key])

    async def edit_profile(self) -> None:
        id = self.choose.choice(self.profiles)
        say("device_profile", id)
        made = await self.registry.profiles.save(ProfileDraft(name=self.name()), id)
        say("device_profile", id, state=[made.name, None])

    async def new_customer(self) -> None:
        made = await self.registry.customers.save(CustomerDraft(title=self.name()))
        self.customers.append(made.id)
        say("customer", made.id, state=made.title)

    async def delete_customer(self) -> None:
        if len(self.customers) < 2:
            return
        id = self.customers.pop()
        mine = [d for d in self.devices if (await self.registry.device(d)).customer_id == id]
        for entity in mine:
            say("device", entity)
        say("customer", id)
        await self.registry.delete_customer(id)
        say("customer", id, state=None)
        for entity in mine:
            await self.tell_device(entity)

    async def new_device(self) -> None:
        draft = DeviceDraft(
            name=self.name(),
            profile_id=self.choose.choice(self.profiles),
            customer_id=self.choose.choice([None, *self.customers]),
        )
        made = await self.registry.add_device(draft)
        self.devices.append(made.device.id)
        await self.tell_device(made.device.id)

    async def assign(self) -> None:
        if self.devices:
            id = self.choose.choice(self.devices)
            say("device", id)
            await self.registry.assign_device(id, self.choose.choice(self.customers))
            await self.tell_device(id)

    async def delete_device(self) -> None:
        if len(self.devices) > 3:
            id = self.devices.pop()
            say("device", id)
            await self.registry.delete_device(id)
            say("device", id, state=None)

    async def relate(self) -> None:
        if len(self.devices) > 1:
            origin, target = self.choose.sample(self.devices, 2)
            relation = Relation(
                from_type="DEVICE", from_id=origin, to_type="DEVICE", to_id=target, type="Created",
                version=0,
            )  # fmt: skip
            say("relation", relation.id)
            await self.registry.relations.save(relation)
            say("relation", relation.id, state=[origin, target])

    async def tell_device(self, id: str) -> None:
        device = await self.registry.device(id)
        say("device", id, state=[device.name, device.profile_id, device.customer_id])

    actions = (
        new_profile, edit_profile, new_customer, delete_customer, delete_device,
        new_device, new_device, new_device, assign, assign, relate, relate,
    )  # fmt: skip


async def main(path: Path, seed: int) -> None:
    registry = await Registry.open(path)
    print("open", flush=True)
    await asyncio.gather(*(Writer(registry, seed * 100 + i, i).run() for i in range(8)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
