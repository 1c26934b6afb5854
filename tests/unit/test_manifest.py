"""Families of a database whose list is damaged: none is lost, none gets another's number."""

import random
import shutil
from pathlib import Path

import pytest
from rocksdict import Rdict, WriteBatch

from tbfast.store import rocks
from tbfast.store.manifest import Families, add_families, completed, families
from tbfast.store.salvage import salvage

NAMES = ("default", "a", "b", "c")
LATER = ("w1", "w2", "w3")


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Rows of a, b and c in the log only; w1 and w3 with tables, w2 dropped."""
    path = tmp_path / "db"
    db = rocks.open_families(path, NAMES, write_buffer_bytes=1 << 20)
    options = rocks.options(write_buffer_bytes=1 << 20, cache=rocks.Cache(1 << 20))
    for name in LATER:
        made = db.create_column_family(name, options)
        made.put(b"key", name.encode())
        made.flush(True)
        rocks.close(made, path)
    db.drop_column_family("w2")
    for name in NAMES[1:]:
        batch = WriteBatch(raw_mode=True)
        batch.put(b"key", name.encode(), db.get_column_family_handle(name))
        batch.put(b"gone", b"", db.get_column_family_handle(name))
        batch.delete(b"gone", db.get_column_family_handle(name))
        db.write(batch)
    db.flush_wal(True)
    copy = tmp_path / "copy"
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns("LOCK"))
    rocks.close(db, path)
    return copy


def manifest(path: Path) -> Path:
    (found,) = path.glob("MANIFEST-*")
    return found


def numbers(path: Path) -> dict[str, int]:
    return {name: number for number, name in families(path).items()}


def test_families_and_their_numbers(killed: Path) -> None:
    found = numbers(killed)
    assert found.keys() == {*NAMES, "w1", "w3"}
    assert [found["default"], found["w1"], found["w3"]] == [0, 4, 6]
    assert sorted(found[name] for name in NAMES) == [0, 1, 2, 3]


def test_numbers_follow_from_the_order_of_names(killed: Path) -> None:
    found = families(killed)
    ids = numbers(killed)
    for name in ("a", "b", "c", "w1"):
        left: Families = {number: other for number, other in found.items() if other != name}
        # w2, between w1 and w3, is gone: nothing says which of the two numbers w1 had.
        assert completed(left, killed) == ((left, ["w1"]) if name == "w1" else (found, []))
    tables = {ids["w1"]: "w1", ids["w3"]: "w3"}
    assert completed({0: "default", **tables}, killed) == (found, [])
    (killed / "OPTIONS-000001").write_text("[CFOptions")  # an older one does not count
    assert completed({0: "default", **tables}, killed) == (found, [])


def test_added_families_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "db"
    rocks.close(rocks.open_families(path, ("default",), write_buffer_bytes=1 << 20), path)
    add_families(path / (path / "CURRENT").read_text().strip(), [(7, "seven"), (300, "x" * 200)])
    assert families(path) == {0: "default", 7: "seven", 300: "x" * 200}
    assert sorted(Rdict.list_cf(str(path))) == ["default", "seven", "x" * 200]
    db = rocks.open_families(path, ("default", "seven", "x" * 200), write_buffer_bytes=1 << 20)
    rocks.close(db, path)


def stored(path: Path) -> dict[str, bytes]:
    names = Rdict.list_cf(str(path))
    db = rocks.open_families(path, names, write_buffer_bytes=1 << 20)
    found = {}
    for name in names:
        family = db if name == "default" else db.get_column_family(name)
        rows = dict(rocks.pairs(family, path))
        assert rows.keys() <= {b"key"}
        if rows:
            found[name] = rows[b"key"]
        if family is not db:
            rocks.close(family, path)
    rocks.close(db, path)
    return found


EVERY = {name: name.encode() for name in (*NAMES[1:], "w1", "w3")}


@pytest.mark.parametrize("what", ["a bit", "empty", "gone", "CURRENT", "no CURRENT"])
def test_rows_that_are_only_in_a_log_are_saved(killed: Path, tmp_path: Path, what: str) -> None:
    rng = random.Random(5)
    data = manifest(killed).read_bytes()
    for _ in range(20 if what == "a bit" else 1):
        case, to = tmp_path / "case", tmp_path / "to"
        shutil.rmtree(case, ignore_errors=True)
        shutil.copytree(killed, case)
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        match what:
            case "a bit":
                manifest(case).write_bytes(flipped)
            case "empty":
                manifest(case).write_bytes(b"")
            case "gone":
                manifest(case).unlink()
            case "CURRENT":
                (case / "CURRENT").write_text("MANIFEST-0000x5\n")
            case "no CURRENT":
                (case / "CURRENT").unlink()
        saved = salvage(case, tmp_path / "scratch", to, NAMES)
        assert saved.notes
        assert not saved.gaps and not saved.anything_lost
        assert stored(to) == EVERY
