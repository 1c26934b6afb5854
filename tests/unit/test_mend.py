"""Journals and registries made whole from the rows that were saved of them."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rocksdict import Rdict

from tbfast import limits
from tbfast._ext.ingest import Ingest
from tbfast._ext.series import rows, split_definitions
from tbfast.errors import Conflict
from tbfast.store import mend, rocks
from tbfast.store import registry as registries
from tbfast.store.journal import Journal, Position, block_key, mark_path
from tbfast.store.known import of_journal, remember_epoch
from tbfast.store.registry import RegistryStore, Write

BLOCKS = 5


@contextmanager
def hurt(path: Path, family: str = "default") -> Iterator[Rdict]:
    db = rocks.open_families(path, Rdict.list_cf(str(path)), write_buffer_bytes=1 << 20)
    found = db if family == "default" else db.get_column_family(family)
    try:
        yield found
    finally:
        if found is not db:
            rocks.close(found, path)
        rocks.close(db, path)


# --- journals --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of BLOCKS blocks, each with a key of its own; marked."""
    path = tmp_path / "data" / "journal" / "0"
    journal = Journal(path, 0, of_journal(path))
    ingest = Ingest()
    for seq in range(1, BLOCKS + 1):
        ingest.at(1_000_000 + seq, seq)
        ingest.append_json(1, b'{"ts":%d,"values":{"shared":1,"k%d":%d}}' % (seq, seq, seq))
        ingest.note(0, 0, 0)
        journal.append(ingest.take(0, journal.epoch, seq, seq, journal.written_keys + 1))
    journal.sync()
    journal.mark(journal.written)
    journal.close()
    return path


def mended(path: Path, *, definitions_lost: bool = False) -> list[str]:
    lost = mend.mend_journal(path, path, definitions_lost=definitions_lost)
    mark_path(path).unlink()  # as `recover` does
    return lost


def values(path: Path) -> list[tuple[str, bytes]]:
    """(key, JSON text) of all rows, by the definitions that are stored."""
    journal = Journal(path, 0)
    names: dict[int, dict[int, bytes]] = {}
    for known in journal.definitions():
        names.setdefault(known.epoch, {}).update(
            enumerate(split_definitions(known.defs), known.first)
        )
    found = []
    for position, block in journal.read(Position(0, 0), journal.written, 1 << 20):
        found += [(row[3], row[5]) for row in rows(block, names.get(position.epoch, {}))]
    journal.close()
    return found


EVERY = [
    pair for seq in range(1, BLOCKS + 1) for pair in (("shared", b"1"), (f"k{seq}", b"%d" % seq))
]


def test_a_whole_journal_stays_as_it_is(path: Path) -> None:
    assert mended(path) == []
    assert values(path) == EVERY


def test_definitions_are_read_back_from_blocks(path: Path) -> None:
    with hurt(path, "meta") as meta:
        for key in [key for key, _ in meta.items() if key[:1] == b"k"]:
            meta.delete(key)
    assert mended(path, definitions_lost=True) == []
    assert values(path) == EVERY


def test_points_whose_definition_is_nowhere_are_told(path: Path) -> None:
    with hurt(path) as blocks:
        blocks.delete(block_key(Position(1, 1)))
    with hurt(path, "meta") as meta:
        for key in [key for key, _ in meta.items() if key[:1] == b"k"]:
            meta.delete(key)
    lost = mended(path, definitions_lost=True)  # "shared" was defined in the first block
    assert [text.split(":")[0] for text in lost] == [
        f"block of epoch 1, sequence {seq}" for seq in range(2, BLOCKS + 1)
    ] + ["acknowledged blocks after epoch 0, sequence 0 up to epoch 1, sequence 5"]
    assert values(path) == []


@pytest.mark.parametrize("harm", ["cut", "elsewhere"])
def test_a_block_that_cannot_be_read_is_told(path: Path, harm: str) -> None:
    with hurt(path) as blocks:
        key = block_key(Position(1, 2))
        blocks[key] = blocks[key][:-1] if harm == "cut" else blocks[block_key(Position(1, 3))]
    (lost,) = mended(path)
    assert lost.startswith("block of epoch 1, sequence 2: ")
    assert values(path) == EVERY[:2] + EVERY[4:]


def test_acknowledged_blocks_that_are_missing_are_told(path: Path) -> None:
    with hurt(path) as blocks:
        for seq in (4, 5):
            blocks.delete(block_key(Position(1, seq)))
    assert mended(path) == [
        "acknowledged blocks after epoch 1, sequence 3 up to epoch 1, sequence 5"
    ]
    assert values(path) == EVERY[:6]


def test_the_next_epoch_is_one_that_never_was(path: Path) -> None:
    with hurt(path, "meta") as meta:
        for key in [key for key, _ in meta.items()]:
            meta.delete(key)
    remember_epoch(of_journal(path), 40)
    assert mended(path, definitions_lost=True) == []
    journal = Journal(path, 0, of_journal(path))
    assert journal.epoch > 40
    journal.close()


def test_an_old_epoch_is_raised_to_the_one_that_had_begun(path: Path) -> None:
    remember_epoch(of_journal(path), 40)
    assert mended(path) == []
    journal = Journal(path, 0, of_journal(path))
    assert journal.epoch == 41
    journal.close()


# --- registry --------------------------------------------------------------------------------


def write(id: str, *unique: str, expected: int = 0) -> Write:
    return Write(
        kind="device", id=id, expected=expected, value=b"v", unique=unique, change="device"
    )


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Devices a, b and c, numbers 1 to 3, with a name and a token each."""
    path = tmp_path / "registry"

    async def fill() -> None:
        store = RegistryStore(path)
        for id in "abc":
            await store.commit(write(id, f"name:{id}", f"credentials:{id}"))
        await store.close()

    asyncio.run(fill())
    return path


def look(path: Path) -> tuple[dict[str, int], dict[str, str | None], int, str]:
    """Numbers by device, devices by token, the next number, the tenant."""

    async def read() -> tuple[dict[str, int], dict[str, str | None], int, str]:
        store = RegistryStore(path)
        numbers = {}
        for number in range(1, 4):
            if (id := await store.id_of_number(number)) is not None:
                numbers[id] = number
        owners = {}
        for token in "abc":
            owner = await store.find(f"credentials:{token}")
            owners[token] = owner and owner[1]
        made = await store.commit(write("new", "name:new"))
        tenant = store.tenant_id
        await store.close()
        assert made.number is not None
        return numbers, owners, made.number, tenant

    return asyncio.run(read())


NUMBERS = {"a": 1, "b": 2, "c": 3}
OWNERS = {"a": "a", "b": "b", "c": "c"}


def test_indexes_are_made_anew(registry: Path) -> None:
    for family in ("unique", "number"):
        with hurt(registry, family) as index:
            for key in [key for key, _ in index.items()]:
                index.delete(key)
    assert mend.mend_registry(registry) == []
    numbers, owners, newest, _ = look(registry)
    assert (numbers, owners, newest) == (NUMBERS, OWNERS, 4)


@pytest.mark.parametrize("value", [None, b"", b"\x02\x90", b"\x01\xc1"])
def test_a_lost_device_is_named_by_its_keys(registry: Path, value: bytes | None) -> None:
    with hurt(registry, "device") as devices:
        devices.delete(b"b") if value is None else devices.put(b"b", value)
    lost = mend.mend_registry(registry)
    told = [] if value is None else ["device b"]
    assert lost == [*told, "device b, which had 'credentials:b'", "device b, which had 'name:b'"]
    numbers, owners, newest, _ = look(registry)
    assert owners == {**OWNERS, "b": None}
    assert (numbers["a"], numbers["c"]) == (1, 3)
    assert newest == 4


def test_numbers_of_lost_devices_are_not_given_again(registry: Path) -> None:
    with hurt(registry, "device") as devices:
        devices.delete(b"c")
    with hurt(registry, "meta") as meta:
        meta.delete(registries.STATE_KEY)
    lost = mend.mend_registry(registry)
    assert "the id of this installation's tenant and the newest device number" in lost
    assert look(registry)[2] > 3


def test_followers_of_the_change_log_begin_anew(registry: Path) -> None:
    before = look(registry)[3]
    assert mend.mend_registry(registry) == []

    async def check() -> None:
        store = RegistryStore(registry)
        assert store.revision > 4 + limits.REGISTRY_CHANGES
        assert store.tenant_id == before
        assert await store.count("device") == 4
        with pytest.raises(Conflict):
            await store.commit(write("other", "name:a"))
        await store.close()

    asyncio.run(check())
