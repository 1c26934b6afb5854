"""kill -9 in the middle of writes: what was answered is there, and the indexes agree."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tbfast.control.registry import Registry
from tbfast.model.device import CREDENTIALS_INDEX, DEVICE_OF_INDEX, NAME_INDEX
from tbfast.store.registry import RegistryStore

ROOT = Path(__file__).parents[2]
WRITER = ROOT / "tests/support/registry_writer.py"
ROUNDS = 4
SEED = int(os.environ.get("TBFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)


def write_until(path: Path, seed: int, lines: int) -> list[list[str]]:
    """Answered writes of a writer killed after so many lines (and what it got out meanwhile)."""
    command = [sys.executable, str(WRITER), str(path), str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        seen = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        seen += writer.stdout.readlines()
    assert writer.returncode == -9
    return [line.split() for line in seen if line.endswith("\n")]


def ledger(lines: list[list[str]]) -> tuple[dict[str, list[str]], set[str], set[str]]:
    """Devices answered (id to name, token, number), ids deleted, ids with a write under way."""
    devices: dict[str, list[str]] = {}
    deleted: set[str] = set()
    unsure: set[str] = set()
    for action, id, *rest in lines:
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
    entities = await store.scan("device", "", 1_000_000)
    profiles = await store.scan("device_profile", "", 1_000_000)
    keys = [key.decode() for key in store._families["unique"].keys()]  # noqa: SIM118
    assert sorted(keys) == sorted(k for e in entities + profiles for k in e.unique)
    for entity in entities:
        record = await registry.record(entity.id)
        assert set(entity.unique) == {
            NAME_INDEX + record.device.name,
            CREDENTIALS_INDEX + record.credentials.credentials_id,
            f"{DEVICE_OF_INDEX}{record.device.profile_id}:{entity.id}",
        }
        assert await store.id_of_number(entity.number) == entity.id
    assert len(list(store._families["number"].keys())) == len(entities)
    assert await store.count("device") == len(entities)
    changes = await store.changes_since(0)
    assert changes is not None
    assert [c.revision for c in changes] == list(range(1, store.revision + 1))
    await store.close()
