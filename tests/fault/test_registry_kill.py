"""kill -9 in the middle of writes: what was answered is there, and the indexes agree."""

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from tbfast.control.registry import Registry
from tbfast.model.device import CREDENTIALS_INDEX, DEVICE_OF_INDEX, NAME_INDEX
from tbfast.store.registry import Kind, RegistryStore

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "tests/support/registry_writer.py"
MIXED = ROOT / "tests/support/registry_mixed_writer.py"
ROUNDS = 4
SEED = int(os.environ.get("TBFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)


def write_until(path: Path, seed: int, lines: int, program: Path = WRITER) -> list[str]:
    """Lines of a writer killed after so many of them (and what it got out meanwhile)."""
    command = [sys.executable, str(program), str(path), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        seen = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        seen += writer.stdout.readlines()
    assert writer.returncode == -9
    return [line for line in seen if line.endswith("\n")]


def ledger(lines: list[str]) -> tuple[dict[str, list[str]], set[str], set[str]]:
    """Devices answered (id to name, token, number), ids deleted, ids with a write under way."""
    devices: dict[str, list[str]] = {}
    deleted: set[str] = set()
    unsure: set[str] = set()
    for action, id, *rest in map(str.split, lines):
        if action.endswith("?"):
            unsure.add(id)
            continue
        unsure.discard(id)
        if action == "+":
            devices[id] = rest
        elif action == "-":
            deleted.add(id)
            del devices[id]
        else:
            devices[id][1] = rest[0]
    return devices, deleted, unsure


@pytest.mark.parametrize("round", range(ROUNDS))
def test_killed_writer(tmp_path: Path, round: int) -> None:
    seed = SEED + round
    print(f"TBFAST_TEST_SEED={seed}")
    lines = write_until(tmp_path / "r", seed, random.Random(seed).randrange(1, 300))
    asyncio.run(check(tmp_path / "r", *ledger(lines)))
    asyncio.run(check_indexes(tmp_path / "r"))


async def check(
    path: Path, devices: dict[str, list[str]], deleted: set[str], unsure: set[str]
) -> None:
    registry = await Registry.open(path)
    for id, (name, token, number) in devices.items():
        if id in unsure:
            continue
        device = await registry.device(id)
        assert (device.name, device.number) == (name, int(number))
        assert await registry.device_by_name(name) == device
        found = await registry.lookup_credentials(token)
        assert found is not None
        assert found[0] == device
    page_ids = {e.id for e in await registry.store.scan("device", "", 1_000_000)}
    assert not deleted & page_ids
    made = await registry.create_device("after", "after")
    highest = max((int(number) for _, _, number in devices.values()), default=0)
    assert made.device.number > highest
    await registry.close()


async def check_indexes(path: Path) -> None:
    """Every index key points at an entity that claims it, and the other way round."""
    store = RegistryStore(path)
    registry = Registry(store)
    await registry.profiles.start()
    every = {kind: await store.scan(kind, "", 1_000_000) for kind in get_args(Kind)}
    keys = [key.decode() for key in store._families["unique"].keys()]  # noqa: SIM118
    assert sorted(keys) == sorted(k for found in every.values() for e in found for k in e.unique)
    for entity in every["device"]:
        record = await registry.record(entity.id)
        owners = [record.device.profile_id, record.device.customer_id]
        assert set(entity.unique) == {
            NAME_INDEX + record.device.name,
            CREDENTIALS_INDEX + record.credentials.credentials_id,
            *(f"{DEVICE_OF_INDEX}{owner}:{entity.id}" for owner in owners if owner),
        }
        assert await store.id_of_number(entity.number) == entity.id
        assert await registry.profiles.get(record.device.profile_id)
        if record.device.customer_id is not None:
            assert await registry.customers.get(record.device.customer_id)
    assert len(list(store._families["number"].keys())) == len(every["device"])
    for kind, found in every.items():
        assert await store.count(kind) == len(found), kind
    changes = await store.changes_since(0)
    assert changes is not None
    assert [c.revision for c in changes] == list(range(1, store.revision + 1))
    await store.close()


@pytest.mark.parametrize("round", range(ROUNDS))
def test_killed_amid_writes_of_every_kind(tmp_path: Path, round: int) -> None:
    seed = SEED + round
    print(f"TBFAST_TEST_SEED={seed}")
    lines = write_until(tmp_path / "r", seed, random.Random(seed).randrange(100, 1_500), MIXED)
    asyncio.run(check_mixed(tmp_path / "r", *answered(lines)))
    asyncio.run(check_indexes(tmp_path / "r"))


def answered(lines: list[str]) -> tuple[dict[tuple[Kind, str], Any], set[tuple[Kind, str]]]:
    """The last answered state of each entity, and entities with a write under way."""
    states: dict[tuple[Kind, str], Any] = {}
    unsure: set[tuple[Kind, str]] = set()
    for said in map(json.loads, lines):
        entity = (said["kind"], said["id"])
        if "state" in said:
            states[entity] = said["state"]
            unsure.discard(entity)
        else:
            unsure.add(entity)
    return states, unsure


async def check_mixed(
    path: Path, states: dict[tuple[Kind, str], Any], unsure: set[tuple[Kind, str]]
) -> None:
    registry = await Registry.open(path)
    gone = {id for (_kind, id), state in states.items() if state is None}
    gone |= {id for kind, id in unsure if kind == "device"}  # perhaps, with its relations
    for (kind, id), state in states.items():
        if (kind, id) in unsure or (kind == "relation" and gone & set(state)):
            continue
        entity = await registry.store.get(kind, id)
        assert (entity is None) == (state is None), (kind, id)
        match kind:
            case "device" if state is not None:
                device = await registry.device(id)
                assert [device.name, device.profile_id, device.customer_id] == state
                assert await registry.device_by_name(state[0]) == device
            case "customer" if state is not None:
                assert await registry.customers.by_title(state) is not None
            case "device_profile":
                profile = await registry.profiles.get(id)
                assert [profile.name, profile.provision_key] == state
            case "relation":
                found = await registry.relations.of_target("DEVICE", state[1], group="COMMON")
                assert state[0] in [relation.from_id for relation in found]
    await registry.relations.sweep()
    left = await registry.store.scan("relation", "", 1_000_000)
    devices = {entity.id for entity in await registry.store.scan("device", "", 1_000_000)}
    assert all(set(entity.id.split(":")[:2]) <= devices for entity in left)
    assert (await registry.profiles.default()).name == "default"
    await registry.close()
