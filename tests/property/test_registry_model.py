"""The registry against plain dictionaries, through reopenings."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tbfast.control.registry import CustomerDraft, DeviceDraft, DeviceQuery, ProfileDraft, Registry
from tbfast.control.rules import InvalidEntity
from tbfast.errors import Conflict
from tbfast.model.device import Change
from tbfast.model.relation import Relation

NAMES = st.sampled_from(["a", "b", "c", "ä", "name:x"])
TOKENS = st.sampled_from(["t", "u", "v", "credentials:t"])


class RegistryModel(RuleBasedStateMachine):
    """``devices``: id to (name, token, number), as they must be."""

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.devices: dict[str, tuple[str, str, int]] = {}
        self.points: dict[str, tuple[str, str | None]] = {}  # device to profile, customer
        self.profiles: dict[str, tuple[str, str]] = {}  # id to name, transport
        self.customers: dict[str, str] = {}
        self.relations: set[tuple[str, str]] = set()
        self.default = ""
        self.numbers_used = 0
        self.published: list[Change] = []
        self._open()
        default = self.runner.run(self.registry.profiles.default())
        self.default = default.id
        self.profiles[default.id] = (default.name, "DEFAULT")

    def _open(self) -> None:
        self.registry = self.runner.run(Registry.open(self.directory / "registry"))
        self.registry.subscribe(self.published.append)

    def _run(self, work):
        async def then_publish():
            try:
                return await work
            finally:
                await asyncio.sleep(0)

        return self.runner.run(then_publish())

    def _free(self, name: str, token: str, but: str = "") -> bool:
        others = [d for id, d in self.devices.items() if id != but]
        return all(name != other[0] and token != other[1] for other in others)

    def _expect(self, possible: bool, work):
        try:
            result = self._run(work)
        except (Conflict, InvalidEntity):
            assert not possible
            return None
        assert possible
        return result

    @rule(name=NAMES, token=TOKENS)
    def create(self, name: str, token: str) -> None:
        made = self._expect(self._free(name, token), self.registry.create_device(name, token))
        if made is not None:
            self.numbers_used += 1
            assert made.device.number == self.numbers_used
            self.devices[made.device.id] = (name, token, self.numbers_used)
            self.points[made.device.id] = (self.default, None)

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        _, token, number = self.devices[id]
        possible = self._free(name, token, but=id)
        work = self.registry.change_device(id, DeviceDraft(name=name))
        if self._expect(possible, work) is not None:
            self.devices[id] = (name, token, number)
            self.points[id] = (self.points[id][0], None)

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), token=TOKENS)
    def change_token(self, data: st.DataObject, token: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        name, _, number = self.devices[id]
        possible = self._free(name, token, but=id)
        if self._expect(possible, self.registry.update_credentials(id, token)) is not None:
            self.devices[id] = (name, token, number)

    @precondition(lambda self: self.devices)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        self._run(self.registry.delete_device(id))
        del self.devices[id], self.points[id]
        self.relations = {pair for pair in self.relations if id not in pair}

    @rule(names=st.lists(NAMES, min_size=2, max_size=6), token=TOKENS)
    def race(self, names: list[str], token: str) -> None:
        async def all_at_once():
            return await asyncio.gather(
                *(self.registry.create_device(name, token) for name in names),
                return_exceptions=True,
            )

        results = self._run(all_at_once())
        made = [r for r in results if not isinstance(r, BaseException)]
        assert len(made) == (1 if any(self._free(name, token) for name in names) else 0)
        for record in made:
            self.numbers_used += 1
            assert record.device.number == self.numbers_used
            self.devices[record.device.id] = (record.device.name, token, self.numbers_used)
            self.points[record.device.id] = (self.default, None)

    # Profiles and customers: to what devices point, and what follows when one goes.

    @rule(name=NAMES)
    def create_profile(self, name: str) -> None:
        possible = name not in {known for known, _ in self.profiles.values()}
        work = self.registry.profiles.save(ProfileDraft(name=name))
        if (made := self._expect(possible, work)) is not None:
            self.profiles[made.id] = (name, "DEFAULT")

    @precondition(lambda self: self.profiles)
    @rule(data=st.data(), name=NAMES, transport=st.sampled_from(["DEFAULT", "MQTT"]))
    def edit_profile(self, data: st.DataObject, name: str, transport: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.profiles)))
        used = any(profile == id for profile, _ in self.points.values())
        others = {known for other, (known, _) in self.profiles.items() if other != id}
        possible = name not in others and (not used or transport == self.profiles[id][1])
        draft = ProfileDraft(name=name, transport_type=transport)
        if self._expect(possible, self.registry.profiles.save(draft, id)) is not None:
            self.profiles[id] = (name, transport)

    @precondition(lambda self: self.profiles)
    @rule(data=st.data())
    def delete_profile(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.profiles)))
        possible = all(profile != id for profile, _ in self.points.values()) and id != self.default
        self._expect(possible, self.registry.delete_profile(id))
        if possible:
            del self.profiles[id]

    @precondition(lambda self: self.profiles)
    @rule(data=st.data())
    def make_default(self, data: st.DataObject) -> None:
        self.default = data.draw(st.sampled_from(sorted(self.profiles)))
        self._run(self.registry.profiles.set_default(self.default))

    @precondition(lambda self: self.devices and self.profiles)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        profile = data.draw(st.sampled_from(sorted(self.profiles)))
        draft = DeviceDraft(name=self.devices[id][0], profile_id=profile)
        self._run(self.registry.change_device(id, draft))
        self.points[id] = (profile, None)

    @rule(title=NAMES)
    def create_customer(self, title: str) -> None:
        possible = title not in self.customers.values()
        work = self.registry.customers.save(CustomerDraft(title=title))
        if (made := self._expect(possible, work)) is not None:
            self.customers[made.id] = title

    @precondition(lambda self: self.devices and self.customers)
    @rule(data=st.data())
    def assign(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        customer = data.draw(st.sampled_from(sorted(self.customers)))
        self._run(self.registry.assign_device(id, customer))
        self.points[id] = (self.points[id][0], customer)

    @precondition(lambda self: self.customers)
    @rule(data=st.data())
    def delete_customer(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.customers)))
        self._run(self.registry.delete_customer(id))
        del self.customers[id]
        for device, (profile, customer) in self.points.items():
            if customer == id:
                self.points[device] = (profile, None)

    @precondition(lambda self: len(self.devices) > 1)
    @rule(data=st.data())
    def relate(self, data: st.DataObject) -> None:
        ids = st.sampled_from(sorted(self.devices))
        origin, target = data.draw(ids), data.draw(ids)
        relation = Relation(
            from_type="DEVICE", from_id=origin, to_type="DEVICE", to_id=target, type="Created",
            version=0,
        )  # fmt: skip
        self._run(self.registry.relations.save(relation))
        self.relations.add((origin, target))

    @rule()
    def reopen(self) -> None:
        self.runner.run(self.registry.close())
        self._open()

    @invariant()
    def agrees(self) -> None:
        self.runner.run(self._compare())

    async def _compare(self) -> None:
        page = await self.registry.page(DeviceQuery(page_size=100))
        assert page.ids == sorted(self.devices)
        for id, (name, token, number) in self.devices.items():
            device = await self.registry.device(id)
            assert (device.name, device.number) == (name, number)
            assert (device.profile_id, device.customer_id) == self.points[id]
            assert device.type == self.profiles[device.profile_id][0]
            assert await self.registry.device_by_name(name) == device
            assert await self.registry.device_by_number(number) == device
            found = await self.registry.lookup_credentials(token)
            assert found is not None
            assert found[0] == device
        profiles = await self.registry.profiles.all()
        assert {p.id: (p.name, p.transport_type) for p in profiles} == self.profiles
        assert [p.id for p in profiles if p.default] == [self.default]
        assert {c.id: c.title for c in await self.registry.customers.all()} == self.customers
        for owner in [*self.profiles, *self.customers]:
            mine = sorted(id for id, ends in self.points.items() if owner in ends)
            assert self.registry.device_ids_of(owner) == mine
        for id in self.devices:
            found = await self.registry.relations.of_origin("DEVICE", id, group="COMMON")
            assert {(r.from_id, r.to_id) for r in found} == {
                pair for pair in self.relations if pair[0] == id
            }
        assert await self.registry.store.count("relation") == len(self.relations)
        live = {number for _, _, number in self.devices.values()}
        for number in set(range(1, self.numbers_used + 1)) - live:
            assert await self.registry.device_by_number(number) is None
        taken = {token for _, token, _ in self.devices.values()}
        for token in {"t", "u", "v", "credentials:t"} - taken:
            assert await self.registry.lookup_credentials(token) is None
        # Revision 1 is the default profile, made before anyone could subscribe.
        assert [c.revision for c in self.published] == list(range(2, self.registry.revision + 1))
        assert await self.registry.changes_since(1) == self.published

    def teardown(self) -> None:
        if hasattr(self, "registry"):
            self.runner.run(self.registry.close())
            self.runner.close()
            shutil.rmtree(self.directory)


RegistryModel.TestCase.settings = settings(
    settings(), max_examples=max(1, settings().max_examples // 10), stateful_step_count=20
)
test_registry_model = RegistryModel.TestCase
