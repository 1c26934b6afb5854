"""The registry against two plain dictionaries, through reopenings."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tbfast.control.registry import DeviceDraft, DeviceQuery, Registry
from tbfast.errors import Conflict
from tbfast.model.device import Change

NAMES = st.sampled_from(["a", "b", "c", "ä", "name:x"])
TOKENS = st.sampled_from(["t", "u", "v", "credentials:t"])


class RegistryModel(RuleBasedStateMachine):
    """``devices``: id to (name, token, number), as they must be."""

    @initialize()
    def open(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.devices: dict[str, tuple[str, str, int]] = {}
        self.numbers_used = 0
        self.published: list[Change] = []
        self._open()

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
        except Conflict:
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

    @precondition(lambda self: self.devices)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data: st.DataObject, name: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.devices)))
        _, token, number = self.devices[id]
        possible = self._free(name, token, but=id)
        work = self.registry.change_device(id, DeviceDraft(name=name))
        if self._expect(possible, work) is not None:
            self.devices[id] = (name, token, number)

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
        del self.devices[id]

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
            assert await self.registry.device_by_name(name) == device
            assert await self.registry.device_by_number(number) == device
            found = await self.registry.lookup_credentials(token)
            assert found is not None
            assert found[0] == device
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
