"""Rules of devices, credentials and profiles (REST spec 3, 4, 5)."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.control.registry import DeviceDraft, DeviceQuery, Registry
from tbfast.control.rules import InvalidEntity, UniqueConflict
from tbfast.errors import Conflict, NotFound


@pytest.fixture
def run(tmp_path: Path):
    with asyncio.Runner() as runner:

        def run(work):
            async def body():
                registry = await Registry.open(tmp_path / "registry")
                try:
                    return await work(registry)
                finally:
                    await registry.close()

            return runner.run(body())

        yield run


def test_first_opening_makes_the_default_profile_once(run) -> None:
    async def profile(registry: Registry):
        assert len(await registry.profiles.all()) == 1
        return await registry.profiles.default(), registry.tenant_id

    first, second = run(profile), run(profile)
    assert first == second
    assert first[0].default
    assert first[0].name == "default"


def test_create_and_find(run) -> None:
    async def work(registry: Registry) -> None:
        record = await registry.create_device(
            "pump", "T1", label="Room 4", additional_info={"gateway": True, "n": [1, 2.5, None]}
        )
        device = record.device
        assert device.number == 1
        assert device.type == "default"
        assert await registry.device(device.id) == device
        assert await registry.device_by_name("pump") == device
        assert await registry.device_by_name("Pump") is None
        assert await registry.device_by_number(1) == device
        assert await registry.device_by_number(2) is None
        assert await registry.device_by_number(0) is None
        found = await registry.lookup_credentials("T1")
        assert found is not None
        assert found == (device, record.credentials, await registry.profiles.default())
        for nobody in ("", "T2", "\ud800"):
            assert await registry.lookup_credentials(nobody) is None

    run(work)


def test_random_tokens(run) -> None:
    async def work(registry: Registry) -> None:
        tokens = {
            (await registry.create_device(f"d{i}", None)).credentials.credentials_id
            for i in range(20)
        }
        assert len(tokens) == 20
        assert all(len(token) == 20 and token.isalnum() and token.isascii() for token in tokens)

    run(work)


def test_taken_names_and_tokens(run) -> None:
    async def work(registry: Registry) -> None:
        first = (await registry.create_device("a", "T")).device
        await registry.create_device("b", "U")
        with pytest.raises(UniqueConflict, match="Device with such name already exists!"):
            await registry.create_device("a")
        with pytest.raises(UniqueConflict, match="already assigned to another device"):
            await registry.create_device("c", "T")
        with pytest.raises(UniqueConflict, match="already assigned"):
            await registry.update_credentials(first.id, "U")
        with pytest.raises(UniqueConflict, match="such name"):
            await registry.change_device(first.id, DeviceDraft(name="b"))

    run(work)


def test_racing_creators(run) -> None:
    async def work(registry: Registry) -> None:
        results = await asyncio.gather(
            *(registry.create_device(f"d{i}", "same") for i in range(10)),
            *(registry.create_device("same") for _ in range(10)),
            return_exceptions=True,
        )
        wins = [r for r in results if not isinstance(r, BaseException)]
        assert len(wins) == 2
        assert all(isinstance(r, UniqueConflict) for r in results if isinstance(r, Exception))

    run(work)


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\x00", "a\x7f", "\ud800", "x" * (limits.REGISTRY_NAME_CHARS + 1)]
)
def test_names_that_cannot_be(run, name: str) -> None:
    async def work(registry: Registry) -> None:
        with pytest.raises(InvalidEntity):
            await registry.create_device(name)
        if name:
            with pytest.raises(InvalidEntity):
                await registry.create_device("ok", name)
            with pytest.raises(InvalidEntity):
                await registry.create_device("ok", label=name)
        assert (await registry.page(DeviceQuery())).total == 0

    run(work)


def nested(depth: int) -> dict[str, object]:
    info: dict[str, object] = {}
    for _ in range(depth - 1):
        info = {"a": [1], "b": info}
    return info


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"a": "x" * limits.REGISTRY_INFO_BYTES}, "longer"),
        ({"a": 1 << 64}, "64 bits"),
        (nested(limits.REGISTRY_INFO_DEPTH + 1), "deeper"),
        (nested(900), "deeper"),
    ],
)
def test_additional_info_is_bounded(run, info: dict[str, object], words: str) -> None:
    async def work(registry: Registry) -> None:
        with pytest.raises(InvalidEntity, match=words):
            await registry.create_device("a", additional_info=info)
        kept = nested(limits.REGISTRY_INFO_DEPTH)
        made = await registry.create_device("a", additional_info=kept)
        assert made.device.additional_info == kept

    run(work)


def test_update_and_versions(run) -> None:
    async def work(registry: Registry) -> None:
        device = (await registry.create_device("a", "T")).device
        changed = await registry.change_device(
            device.id, DeviceDraft(name="b", label="L"), version=1
        )
        assert (changed.device.version, changed.device.number) == (2, device.number)
        assert changed.credentials.version == 1
        assert await registry.device_by_name("a") is None
        with pytest.raises(Conflict, match="version 1 is stale"):
            await registry.change_device(device.id, DeviceDraft(name="c"), version=1)
        with pytest.raises(NotFound, match="is not found"):
            await registry.change_device("nobody", DeviceDraft(name="c"))

    run(work)


def test_new_token_refuses_the_old_one(run) -> None:
    async def work(registry: Registry) -> None:
        changes = []
        registry.subscribe(changes.append)
        device = (await registry.create_device("a", "old")).device
        made = await registry.update_credentials(device.id, "new", version=1)
        assert (made.credentials_id, made.version) == ("new", 2)
        assert await registry.lookup_credentials("old") is None
        with pytest.raises(Conflict, match="stale"):
            await registry.update_credentials(device.id, "newer", version=1)
        await asyncio.sleep(0)
        assert changes[-1].kind == "credentials"
        assert "old" in changes[-1].stale_credentials()
        assert await registry.changes_since(registry.revision - 1) == [changes[-1]]

    run(work)


def test_deleting_a_device_deletes_its_credentials(run) -> None:
    async def work(registry: Registry) -> None:
        device = (await registry.create_device("a", "T")).device
        await registry.delete_device(device.id)
        assert await registry.lookup_credentials("T") is None
        assert await registry.device_by_name("a") is None
        with pytest.raises(NotFound):
            await registry.delete_device(device.id)
        again = (await registry.create_device("a", "T")).device
        assert again.number == device.number + 1

    run(work)


@pytest.mark.parametrize(
    ("value", "id_of"),
    [
        ('{"clientId":"c","userName":"","password":""}', "c"),
        ('{"userName":"u","password":"p"}', None),
        ('{"clientId":"c","userName":"u","password":"p"}', "c|u"),
    ],
)
def test_mqtt_basic(run, value: str, id_of: str | None) -> None:
    async def work(registry: Registry) -> None:
        device = (await registry.create_device("a", "T")).device
        made = await registry.update_credentials(device.id, "", type="MQTT_BASIC", value=value)
        expected = "u" if id_of is None else hashlib.sha3_256(id_of.encode()).hexdigest()
        assert made.credentials_id == expected
        found = await registry.lookup_credentials(expected)
        assert found is not None
        assert found[1].value == value
        assert await registry.lookup_credentials("T") is None

    run(work)


@pytest.mark.parametrize(
    "value",
    [None, "", "[]", "{}", '{"clientId":"c","password":"p"}', '{"userName":5}', "\ud800"],
)
def test_mqtt_basic_that_nobody_could_present(run, value: str | None) -> None:
    async def work(registry: Registry) -> None:
        device = (await registry.create_device("a", "T")).device
        with pytest.raises(InvalidEntity):
            await registry.update_credentials(device.id, "", type="MQTT_BASIC", value=value)
        assert await registry.lookup_credentials("T") is not None

    run(work)


def test_certificate_is_stored_bare(run) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----\n"

    async def work(registry: Registry) -> None:
        device = (await registry.create_device("a", "T")).device
        made = await registry.update_credentials(device.id, "", type="X509_CERTIFICATE", value=pem)
        assert made.value == "AAAABBBB"
        assert len(made.credentials_id) == 64
        with pytest.raises(InvalidEntity):
            await registry.update_credentials(device.id, "", type="X509_CERTIFICATE", value=" ")

    run(work)


def test_a_new_type_makes_a_profile(run) -> None:
    async def work(registry: Registry) -> None:
        results = await asyncio.gather(
            *(registry.create_device(f"d{i}", type="meter") for i in range(5))
        )
        assert len({r.device.profile_id for r in results}) == 1
        assert {r.device.type for r in results} == {"meter"}
        assert len(await registry.profiles.all()) == 2
        with pytest.raises(NotFound, match="profile"):
            await registry.add_device(DeviceDraft(name="x", profile_id="nope"))

    run(work)


def test_pages(run) -> None:
    async def work(registry: Registry) -> None:
        devices = [
            (await registry.create_device(f"d{i % 7}-{i}", label=f"Hall {i // 10}")).device
            for i in range(600)
        ]
        by_id = sorted(device.id for device in devices)
        page = await registry.page(DeviceQuery(page=2, page_size=100))
        assert (page.ids, page.total) == (by_id[200:300], 600)
        page = await registry.page(DeviceQuery(page=6, page_size=100))
        assert (page.ids, page.total) == ([], 600)
        page = await registry.page(DeviceQuery(page_size=2**31 - 1, descending=True))
        assert page.ids == by_id[::-1]
        by_name = [d.id for d in sorted(devices, key=lambda d: (d.name, d.id))]
        for size in (7, 1000):
            page = await registry.page(
                DeviceQuery(page=0, page_size=size, sort_property="name", text_search="D3-")
            )
            names = [(await registry.device(i)).name for i in page.ids]
            assert names == sorted(d.name for d in devices if d.name.startswith("d3-"))[:size]
        page = await registry.page(DeviceQuery(page=3, page_size=10, sort_property="name"))
        assert page.ids == by_name[30:40]
        page = await registry.page(DeviceQuery(text_search="hall 59"))
        assert page.total == 10
        page = await registry.page(
            DeviceQuery(sort_property="createdTime", descending=True, page_size=5)
        )
        newest = sorted(devices, key=lambda d: (d.created_ms, d.id), reverse=True)
        assert page.ids == [d.id for d in newest[:5]]

    run(work)
