"""Rules of device profiles (REST spec 5)."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.control.registry import DeviceDraft, Naming, ProfileDraft, Registry
from tbfast.control.rules import InvalidEntity, UniqueConflict
from tbfast.errors import Conflict, NotFound
from tbfast.model.profile import Provision, provision_of
from tbfast.model.transport import DEFAULT_MQTT
from tests.support.registry import with_registry

MQTT = {"type": "MQTT", "deviceTelemetryTopic": "/t"}
PEM = """-----BEGIN CERTIFICATE-----
AAAA
BBBB
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
CCCC
-----END CERTIFICATE-----
"""


def test_missing_parts_are_filled_and_the_rest_is_kept(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        alarms = [{"id": "x", "createRules": {"CRITICAL": {"big": 1 << 62, "f": 1.50}}}]
        data = {"transportConfiguration": {**MQTT, "other": [1, None]}, "alarms": alarms}
        made = await registry.profiles.save(
            ProfileDraft(name="meter", transport_type="MQTT", data=data, description="d")
        )
        assert made.data == {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {**MQTT, "other": [1, None]},
            "provisionConfiguration": {"type": "DISABLED", "provisionDeviceSecret": None},
            "alarms": alarms,
        }
        assert (made.version, made.default, made.description) == (1, False, "d")
        assert await registry.profiles.get(made.id) == made
        assert await registry.profiles.by_name("meter") == made

    with_registry(tmp_path, work)


@pytest.mark.parametrize(
    ("draft", "words"),
    [
        (ProfileDraft(name=" "), "profile name"),
        (ProfileDraft(name="a", data={"configuration": 5}), "should be an object"),
        (ProfileDraft(name="a", data={"transportConfiguration": {"type": "MQTT"}}), "'DEFAULT'"),
        (
            ProfileDraft(name="a", data={"provisionConfiguration": {"type": "X"}}),
            "Invalid enum value",
        ),
        (
            ProfileDraft(
                name="a",
                provision_type="DISABLED",
                data={"provisionConfiguration": {"type": "ALLOW_CREATE_NEW_DEVICES"}},
            ),
            "'DISABLED'",
        ),
        (
            ProfileDraft(
                name="a",
                transport_type="MQTT",
                data={"transportConfiguration": {"deviceTelemetryTopic": 5}},
            ),
            "deviceTelemetryTopic",
        ),
        (ProfileDraft(name="a", image="x" * limits.REGISTRY_PROFILE_BYTES), "longer"),
        (ProfileDraft(name="a", description="\ud800"), "Unicode"),
        (ProfileDraft(name="a", provision_key="a\n"), "control"),
        (ProfileDraft(name="a", firmware_id="f"), "Can't assign non-existent firmware!"),
    ],
)
def test_refusals(tmp_path: Path, draft: ProfileDraft, words: str) -> None:
    async def work(registry: Registry) -> None:
        before = registry.revision
        with pytest.raises(InvalidEntity, match=words):
            await registry.profiles.save(draft)
        assert registry.revision == before

    with_registry(tmp_path, work)


def test_names_and_provision_keys_are_unique(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        save = registry.profiles.save
        first = await save(ProfileDraft(name="a", provision_key="K"))
        with pytest.raises(UniqueConflict, match="such name"):
            await save(ProfileDraft(name="a"))
        with pytest.raises(UniqueConflict, match="such provision device key"):
            await save(ProfileDraft(name="b", provision_key="K"))
        assert (await registry.profiles.by_provision_key("K")) == first
        assert await registry.profiles.by_provision_key("") is None
        await save(ProfileDraft(name="a", provision_key="L"), first.id)
        assert await registry.profiles.by_provision_key("K") is None
        await save(ProfileDraft(name="b", provision_key="K"))
        with pytest.raises(Conflict, match="stale"):
            await save(ProfileDraft(name="c"), first.id, version=1)

    with_registry(tmp_path, work)


def test_the_default_flag_has_one_profile(tmp_path: Path) -> None:
    async def first(registry: Registry) -> str:
        former = await registry.profiles.default()
        other = await registry.profiles.save(ProfileDraft(name="other"))
        with pytest.raises(InvalidEntity, match="Default Device Profile"):
            await registry.profiles.delete(former.id)
        assert (await registry.profiles.set_default(other.id)).default
        assert [p.id for p in await registry.profiles.all() if p.default] == [other.id]
        assert (await registry.create_device("d")).device.profile_id == other.id
        await registry.profiles.delete(former.id)
        with pytest.raises(NotFound):
            await registry.profiles.set_default(former.id)
        return other.id

    async def again(registry: Registry) -> str:
        assert len(await registry.profiles.all()) == 1
        return (await registry.profiles.default()).id

    assert with_registry(tmp_path, first) == with_registry(tmp_path, again)


def test_the_default_profile_keeps_the_flag_under_another_name(tmp_path: Path) -> None:
    async def rename(registry: Registry) -> None:
        default = await registry.profiles.default()
        renamed = await registry.profiles.save(ProfileDraft(name="mine"), default.id)
        assert renamed.default
        assert (await registry.create_device("d", type="default")).device.type == "default"
        assert (await registry.create_device("e")).device.type == "mine"

    async def again(registry: Registry) -> None:
        assert (await registry.profiles.default()).name == "mine"

    with_registry(tmp_path, rename)
    with_registry(tmp_path, again)


def test_devices_follow_the_name_and_hold_the_transport(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        device = (await registry.create_device("d", "T", type="meter")).device
        renamed = await registry.profiles.save(ProfileDraft(name="gauge"), device.profile_id)
        assert (await registry.device(device.id)).type == "gauge"
        mqtt = ProfileDraft(name="gauge", transport_type="MQTT")
        with pytest.raises(InvalidEntity, match="transport type"):
            await registry.profiles.save(mqtt, renamed.id)
        with pytest.raises(InvalidEntity, match="cannot be deleted"):
            await registry.profiles.delete(renamed.id)
        await registry.delete_device(device.id)
        assert (await registry.profiles.save(mqtt, renamed.id)).transport_type == "MQTT"
        await registry.profiles.delete(renamed.id)
        assert registry.profiles.mqtt(renamed.id) is None

    with_registry(tmp_path, work)


def test_a_profile_is_not_deleted_under_a_device_that_is_being_made(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        for round in range(20):
            profile = await registry.profiles.save(ProfileDraft(name=f"p{round}"))
            draft = DeviceDraft(name=f"d{round}", profile_id=profile.id)
            made, deleted = await asyncio.gather(
                registry.add_device(draft),
                registry.profiles.delete(profile.id),
                return_exceptions=True,
            )
            assert isinstance(made, Exception) != isinstance(deleted, Exception)
            if not isinstance(made, Exception):
                assert (await registry.profiles.get(profile.id)).name == made.device.type

    with_registry(tmp_path, work)


def test_a_type_makes_a_copy_of_the_default(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        default = await registry.profiles.default()
        draft = ProfileDraft(
            name="default",
            transport_type="MQTT",
            provision_type="ALLOW_CREATE_NEW_DEVICES",
            provision_key="K",
            data={"transportConfiguration": MQTT},
        )
        await registry.profiles.save(draft, default.id)
        device = (await registry.create_device("d", type="meter")).device
        copy = await registry.profiles.get(device.profile_id)
        assert (copy.name, copy.transport_type, copy.default) == ("meter", "MQTT", False)
        assert copy.data["transportConfiguration"] == MQTT
        assert (copy.provision_type, copy.provision_key) == ("DISABLED", None)
        assert registry.profiles.mqtt(copy.id).telemetry_topic == "/t"
        assert registry.profiles.mqtt("nobody") is None

    with_registry(tmp_path, work)


def test_provisioning_settings(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        made = await registry.profiles.save(
            ProfileDraft(
                name="a",
                provision_key="K",
                data={
                    "provisionConfiguration": {
                        "type": "ALLOW_CREATE_NEW_DEVICES",
                        "provisionDeviceSecret": "S",
                    }
                },
            )
        )
        assert made.provision_type == "ALLOW_CREATE_NEW_DEVICES"
        assert provision_of(made) == Provision(
            type="ALLOW_CREATE_NEW_DEVICES", key="K", secret="S", creates_devices=True
        )
        assert registry.profiles.mqtt(made.id) is DEFAULT_MQTT
        chain = {
            "type": "X509_CERTIFICATE_CHAIN",
            "provisionDeviceSecret": PEM,
            "certificateRegExPattern": "([^@]+)",
            "allowCreateNewDevicesByX509Certificate": True,
        }
        by_chain = await registry.profiles.save(
            ProfileDraft(name="b", provision_key="?", data={"provisionConfiguration": chain})
        )
        assert by_chain.provision_key == hashlib.sha3_256(b"AAAABBBB").hexdigest()
        settings = provision_of(by_chain)
        assert (settings.certificate_pattern, settings.creates_devices) == ("([^@]+)", True)
        for wrong in (
            {"provisionDeviceSecret": ""},
            {"certificateRegExPattern": "("},
            {"certificateRegExPattern": "no group"},
            {"certificateRegExPattern": 5},
        ):
            data = {"provisionConfiguration": {**chain, **wrong}}
            with pytest.raises(InvalidEntity):
                await registry.profiles.save(ProfileDraft(name="c", data=data))

    with_registry(tmp_path, work)


def test_a_taken_name_is_made_unique(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        numbered = Naming("UNIQUIFY", "-", "INCREMENTAL")
        made = [
            (await registry.add_device(DeviceDraft(name="d"), naming=numbered)).device.name
            for _ in range(3)
        ]
        assert made == ["d", "d-1", "d-2"]
        both = await asyncio.gather(
            *(registry.add_device(DeviceDraft(name="r"), naming=numbered) for _ in range(5))
        )
        assert {r.device.name for r in both} == {"r", "r-1", "r-2", "r-3", "r-4"}
        random = await registry.add_device(DeviceDraft(name="d"), naming=Naming("UNIQUIFY"))
        name = random.device.name
        assert name.startswith("d_")
        assert len(name) == 8
        kept = await registry.change_device(
            random.device.id, DeviceDraft(name=name), naming=numbered
        )
        assert kept.device.name == name

    with_registry(tmp_path, work)


def test_device_data(tmp_path: Path) -> None:
    async def work(registry: Registry) -> None:
        snmp = await registry.profiles.save(ProfileDraft(name="snmp", transport_type="SNMP"))
        given = {"transportConfiguration": {"type": "SNMP", "host": "h", "port": 1161}}
        draft = DeviceDraft(name="d", profile_id=snmp.id, data=given)
        device = (await registry.add_device(draft)).device
        transport = device.data["transportConfiguration"]
        assert (transport["host"], transport["port"], transport["community"]) == (
            "h", 1161, "public",
        )  # fmt: skip
        for wrong in ({"port": 70000}, {"port": "x"}, {"protocolVersion": "V9"}):
            data = {"transportConfiguration": {"type": "SNMP", **wrong}}
            with pytest.raises(InvalidEntity, match="deviceData"):
                await registry.add_device(DeviceDraft(name="x", profile_id=snmp.id, data=data))
        other = DeviceDraft(name="d", type="default", data=given)
        moved = (await registry.change_device(device.id, other)).device
        assert moved.data is None
        with pytest.raises(InvalidEntity, match="non-existent customer"):
            await registry.add_device(DeviceDraft(name="x", customer_id="nobody"))

    with_registry(tmp_path, work)
