"""Devices that customers make their own (MQTT spec 6.1, REST spec 6)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tbfast.control.attributes import AttributeService
from tbfast.control.claims import ALLOWED, DATA, Claims
from tbfast.control.registry import CustomerDraft, Registry
from tbfast.control.sessions import Sessions
from tbfast.model.device import Device
from tbfast.model.operations import Claim
from tbfast.store.attributes import AttributeStore

HOUR_MS = 3_600_000


class Place:
    """A registry with one device and two customers, and a clock that stands still."""

    def __init__(self, registry: Registry, attributes: AttributeService, by_default: bool) -> None:
        self.now_ms = 1_000_000
        self.registry = registry
        self.attributes = attributes
        self.claims = Claims(
            registry, attributes, lambda: self.now_ms, by_default=by_default, default_ms=HOUR_MS
        )
        self.device_id = ""
        self.customers: list[str] = []

    async def prepare(self) -> None:
        self.device_id = (await self.registry.create_device("d")).device.id
        for title in ("A", "B"):
            customer = await self.registry.customers.save(CustomerDraft(title=title))
            self.customers.append(customer.id)

    async def device(self) -> Device:
        return await self.registry.device(self.device_id)

    async def tell(self, secret: str = "", duration_ms: int = 0) -> None:
        await self.claims.told((await self.device()).number, Claim(secret, duration_ms))

    async def claim(self, customer: int, secret: str = "") -> str:
        return await self.claims.claim(await self.device(), self.customers[customer], secret)

    async def server_attributes(self) -> dict[str, bytes]:
        device = await self.device()
        found = await self.attributes.read(device.number, ("SERVER_SCOPE",), None)
        return {a.name: a.text for a in found}


def run(path: Path, work: Callable[[Place], Awaitable[None]], *, by_default: bool = True) -> None:
    async def main() -> None:
        registry = await Registry.open(path / "registry")
        store = AttributeStore(path / "attributes")
        place = Place(registry, AttributeService(store, Sessions(), lambda: 5), by_default)
        try:
            if not await registry.device_by_name("d"):
                await place.prepare()
            await work(place)
        finally:
            store.close()
            await registry.close()

    asyncio.run(main())


def test_the_secret_makes_it_theirs(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        assert await place.claim(0, "s") == "FAILURE"  # nothing was told
        await place.tell("s", HOUR_MS)
        await place.tell("another")  # the first one counts
        assert await place.claim(0, "s") == "SUCCESS"
        assert (await place.device()).customer_id == place.customers[0]
        assert await place.claim(1, "s") == "CLAIMED"
        await place.tell("s")  # it has an owner: ignored
        await place.claims.release(await place.device())
        assert (await place.device()).customer_id is None
        assert await place.claim(1, "s") == "FAILURE"

    run(tmp_path, work)


def test_a_wrong_or_late_secret_uses_it_up(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        await place.tell("s", HOUR_MS)
        assert await place.claim(0, "wrong") == "FAILURE"
        assert await place.claim(0, "s") == "FAILURE"
        await place.tell("s")
        place.now_ms += HOUR_MS  # the default life
        assert await place.claim(0, "s") == "FAILURE"
        await place.tell()  # after it expired another may be told; no secret is an empty one
        assert await place.claim(0) == "SUCCESS"

    run(tmp_path, work)


def test_what_an_administrator_set_counts_where_the_device_told_nothing(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        number = (await place.device()).number
        for text in (b"7", b'{"secretKey":5}', b'"no JSON"'):
            await place.attributes.save(number, "SERVER_SCOPE", {DATA: text})
            assert await place.claim(0, "s") == "FAILURE"
        data = b'{"secretKey":"s","expirationTime":%d}' % (place.now_ms + 1)
        await place.attributes.save(number, "SERVER_SCOPE", {DATA: data, ALLOWED: b"true"})
        assert await place.claim(0, "s") == "SUCCESS"
        assert await place.server_attributes() == {}

    run(tmp_path, work)


def test_leave_is_needed_where_claiming_is_not_allowed(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        await place.tell("s")
        assert await place.claim(0, "s") == "FAILURE"
        number = (await place.device()).number
        await place.attributes.save(number, "SERVER_SCOPE", {ALLOWED: b"true"})
        await place.tell("s")
        assert await place.claim(0, "s") == "SUCCESS"
        assert await place.server_attributes() == {}
        await place.claims.release(await place.device())
        assert await place.server_attributes() == {ALLOWED: b"true"}

    run(tmp_path, work, by_default=False)


def test_two_customers_at_once(tmp_path: Path) -> None:
    async def work(place: Place) -> None:
        await place.tell("s")
        outcomes = await asyncio.gather(place.claim(0, "s"), place.claim(1, "s"))
        assert sorted(outcomes) == ["CLAIMED", "SUCCESS"]
        owner = (await place.device()).customer_id
        assert owner == place.customers[outcomes.index("SUCCESS")]

    run(tmp_path, work)


def test_it_outlives_the_process(tmp_path: Path) -> None:
    async def before(place: Place) -> None:
        await place.tell("s", HOUR_MS)

    async def after(place: Place) -> None:
        device = await place.registry.device_by_name("d")
        customers = await place.registry.customers.all()
        assert device is not None
        assert await place.claims.claim(device, customers[0].id, "s") == "SUCCESS"

    run(tmp_path, before)
    run(tmp_path, after)
