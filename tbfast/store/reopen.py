"""Opens a copy of a damaged database, whatever is wrong with its logs and its lists.

Table files are hard links, they are never changed.

* A log is written anew without the records that cannot be read (tbfast.store.wal).
* CURRENT is made to name the list of tables that is there.
* MANIFEST, or the frame of a table: RocksDB's repair makes the list anew from the tables it can
  read and drops the others whole.  Families without a table are then added, or what the logs hold
  of them would be dropped as well (tbfast.store.manifest).
"""

import os
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from rocksdict import Cache, DBRecoveryMode, Options, Rdict

from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.manifest import add_families, completed, families
from tbfast.store.wal import read_log, write_log

BUFFER_BYTES: Final = 8 << 20
_CONFIG: Final = '{"raw_mode":true,"prefix_extractors":{}}'  # rocksdict's, of every store


class Opened(NamedTuple):
    """complete: no log, table or family of it is left out."""

    db: Rdict
    families: list[str]
    complete: bool


def open_copy(path: Path, copy: Path, notes: list[str]) -> Opened:
    """A copy of the database, opened somehow."""
    named = _copy_database(path, copy)
    try:
        db, present = _open(copy)
    except StoreError:
        _copy_database(path, copy)
    else:
        notes += named
        return Opened(db, present, True)
    damaged = _clean_logs(copy)
    notes += named + damaged
    try:
        db, present = _open(copy)
    except StoreError as error:
        notes.append(f"its list of tables was made anew ({error.__cause__})")
        _copy_database(path, copy)
        _clean_logs(copy)
        db, present, left_out = open_repaired(copy)
        notes += left_out
        damaged += left_out
    return Opened(db, present, not damaged)


def _copy_database(path: Path, copy: Path) -> list[str]:
    """Copies it; CURRENT of the copy names a list of tables, and a sentence if it did not."""
    copy_files(path, copy)
    with rocks.translated(path):
        lists = sorted(file.name for file in copy.glob("MANIFEST-*"))
        current = copy / "CURRENT"
        named = current.read_bytes() if current.exists() else b""
        if not lists or named in [f"{name}\n".encode() for name in lists]:
            return []
        current.write_text(f"{lists[-1]}\n")
    return ["the file CURRENT was made anew"]


def _clean_logs(path: Path) -> list[str]:
    """Rewrites logs without what cannot be read of them; sentences about that."""
    notes = []
    with rocks.translated(path):
        for log in sorted(path.glob("*.log")):
            records, damages = read_log(log.read_bytes())
            if damages:
                log.write_bytes(write_log(records))
            notes += [
                f"log {log.name} cannot be read at {damage.offset}, {damage.length} bytes"
                for damage in damages
            ]
    return notes


def _options(mode: DBRecoveryMode | None = None) -> Options:
    cache = Cache.new_hyper_clock_cache(BUFFER_BYTES, 4_096)
    made = rocks.options(write_buffer_bytes=BUFFER_BYTES, cache=cache)
    if mode is not None:
        made.set_wal_recovery_mode(mode)
    return made


def _open(path: Path, mode: DBRecoveryMode | None = None) -> tuple[Rdict, list[str]]:
    made = _options(mode)
    with rocks.translated(path):
        names = Rdict.list_cf(str(path))
        return Rdict(str(path), made, column_families=dict.fromkeys(names, made)), names


def copy_files(path: Path, copy: Path, but: frozenset[str] = frozenset()) -> None:
    """Another directory with its files, tables as links; but: those to leave out."""
    shutil.rmtree(copy, ignore_errors=True)
    with rocks.translated(path):
        copy.mkdir(mode=0o700)
        for file in path.iterdir():
            if not file.is_file() or file.name in but or file.name.startswith("LO"):
                continue  # LOCK and LOG
            if file.suffix == ".sst":
                os.link(file, copy / file.name)
            else:
                shutil.copyfile(file, copy / file.name)


def open_repaired(path: Path) -> tuple[Rdict, list[str], list[str]]:
    """The database, its list of tables made anew: its families, sentences about what it lacks."""
    left_out = _repair(path)
    return *_open(path, DBRecoveryMode.skip_any_corrupted_record()), left_out


def _repair(path: Path) -> list[str]:
    """Sentences about tables and families that are left out."""
    with rocks.translated(path):
        found = families(path)
        for file in (path / "CURRENT", *path.glob("MANIFEST*")):
            file.unlink(missing_ok=True)
        (path / "rocksdict-config.json").write_text(_CONFIG)
        # The repair drops what logs hold of families without a table; opening reads them all.
        aside = path / "logs"
        aside.mkdir()
        for log in path.glob("*.log"):
            log.rename(aside / log.name)
        Rdict.repair(str(path), _options())
        made = families(path)
        known, unknown = completed({**found, **made}, path)
        added = [(number, name) for number, name in known.items() if number not in made]
        add_families(path / (path / "CURRENT").read_text().strip(), added)
        for log in aside.iterdir():
            log.rename(path / log.name)
    tables = sorted(file.name for file in path.glob("lost/*.sst"))
    return [
        *(f"table {name} cannot be read at all" for name in tables),
        *(f"what logs hold of {name!r} cannot be told from the rest" for name in unknown),
    ]
