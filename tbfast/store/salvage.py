"""Everything that can still be read of a damaged database, and what cannot.

Works on a copy, in a scratch directory.  Damaged logs and lists are seen to when it is opened
(tbfast.store.reopen).  In blocks of tables, rows are copied from both ends up to the damage, and
from places in between where reading works.  A merged read shows nothing of any table there, so the
tables that are not damaged are then repaired into a database of their own, and read within the
gaps.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rocksdict import Rdict, RdictIter, WriteBatch

from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.reopen import BUFFER_BYTES, copy_files, open_copy, open_repaired

_BATCH_BYTES: Final = 1 << 20
_PROBES: Final = 512  # places tried within one gap
_TABLE: Final = re.compile(r"(\d+\.sst)\b")

Row = tuple[bytes, bytes]


class Gap(NamedTuple):
    """Keys between two (exclusive) that could not be read; None = before the first, after the last.

    instead: rows found there in other tables; what the damaged one had is newer or beside them.
    """

    family: str
    after: bytes | None
    before: bytes | None
    instead: int = 0


class Salvaged(NamedTuple):
    """What `salvage` found; notes are sentences about damage that has no keys.

    anything_lost: a log or a whole table cannot be read, which may have held rows of any family.
    """

    rows: int
    families: list[str]
    gaps: list[Gap]
    notes: list[str]
    anything_lost: bool


def salvage(path: Path, scratch: Path, to: Path, families: Sequence[str]) -> Salvaged:
    """Copies what is readable of the database at `path` to a new one at `to`, on disk on return.

    families: those it must have at the end; others that it has are copied as well.
    """
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(to, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        return _salvage(path, scratch, to, families)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _salvage(path: Path, scratch: Path, to: Path, families: Sequence[str]) -> Salvaged:
    notes: list[str] = []
    first = scratch / "first"
    db, present, complete = open_copy(path, first, notes)
    wanted = list(dict.fromkeys([*families, *present]))
    made = rocks.open_families(to, wanted, write_buffer_bytes=BUFFER_BYTES)
    copier = _Copier(made, to)
    damaged: set[str] = set()
    gaps: list[Gap] = []
    for name in present:
        family = db if name == "default" else db.get_column_family(name)
        bounds = _bounds(db)
        for after, before in _copy(family, copier.into(name), bounds, None, None, damaged):
            gaps.append(Gap(name, after, before))
        if family is not db:
            rocks.close(family, first)
    rocks.close(db, first)
    del db
    if damaged:
        notes += [f"table {table} has blocks that cannot be read" for table in sorted(damaged)]
        gaps = _fill(first, scratch / "second", copier, gaps, damaged)
    copier.finish()
    for name in wanted:
        if name != "default":
            rocks.close(made.get_column_family(name), to)
    rocks.close(made, to)
    return Salvaged(copier.rows, wanted, gaps, notes, not complete)


class _Copier:
    """Writes rows into a database in batches."""

    def __init__(self, db: Rdict, path: Path) -> None:
        self._db = db
        self._path = path
        self._batch = WriteBatch(raw_mode=True)
        self._bytes = 0
        self.rows = 0

    def into(self, family: str) -> Callable[[bytes, bytes], None]:
        handle = self._db.get_column_family_handle(family)

        def put(key: bytes, value: bytes) -> None:
            self._batch.put(key, value, handle)
            self.rows += 1
            self._bytes += len(key) + len(value)
            if self._bytes >= _BATCH_BYTES:
                self._write()

        return put

    def _write(self) -> None:
        with rocks.translated(self._path):
            self._db.write(self._batch)
        self._batch = WriteBatch(raw_mode=True)
        self._bytes = 0

    def finish(self) -> None:
        self._write()
        with rocks.translated(self._path):
            self._db.flush_wal(True)


def _bounds(db: Rdict) -> list[bytes]:
    """First and last keys of all tables: places where reading may work again."""
    found = set()
    for file in db.live_files():
        found |= {file["start_key"], file["end_key"]}
    return sorted(key for key in found if isinstance(key, bytes))


# --- copying ---------------------------------------------------------------------------------


def _copy(
    family: Rdict,
    put: Callable[[bytes, bytes], None],
    bounds: Sequence[bytes],
    low: bytes | None,
    high: bytes | None,
    damaged: set[str],
) -> list[tuple[bytes | None, bytes | None]]:
    """Copies the rows between two keys (exclusive, None = all); the gaps that are left."""
    end = _forward(family, put, low, high, damaged)
    if end is None:
        return []
    start = _backward(family, put, end.after, high, damaged)
    gaps: list[tuple[bytes | None, bytes | None]] = []
    todo = [(end.after, start)]
    probes = 0
    while todo:
        after, before = todo.pop(0)
        found = None
        for probe in _probes(bounds, after, before):
            if probes == _PROBES * (1 + len(gaps)):
                break
            probes += 1
            found = _readable(family, probe, after, before, damaged)
            if found is not None:
                break
        if found is None:
            gaps.append((after, before))
            continue
        # The row found is copied from both sides of it.
        ahead = _forward(family, put, found, before, damaged, inclusive=True)
        behind = _backward(family, put, after, found, damaged)
        todo.append((after, behind))
        if ahead is not None:
            todo.append((ahead.after, before))
    return gaps


class _Stop(NamedTuple):
    after: bytes | None  # the last key that was read


def _forward(
    family: Rdict,
    put: Callable[[bytes, bytes], None],
    low: bytes | None,
    high: bytes | None,
    damaged: set[str],
    *,
    inclusive: bool = False,
) -> _Stop | None:
    """Copies ascending from a key; where it had to stop, None at the end."""
    it = family.iter()
    it.seek(low or b"")
    last = low
    if it.valid() and it.key() == low and not inclusive:
        it.next()
    while it.valid() and (high is None or it.key() < high):
        last = it.key()
        put(last, it.value())
        it.next()
    return _Stop(last) if _broken(it, damaged) else None


def _backward(
    family: Rdict,
    put: Callable[[bytes, bytes], None],
    low: bytes | None,
    high: bytes | None,
    damaged: set[str],
) -> bytes | None:
    """Copies descending to a key; the lowest key read, `high` if there was none."""
    it = family.iter()
    if high is None:
        it.seek_to_last()
    else:
        it.seek_for_prev(high)
        if it.valid() and it.key() == high:
            it.prev()
    last = high
    while it.valid() and (low is None or it.key() > low):
        last = it.key()
        put(last, it.value())
        it.prev()
    _broken(it, damaged)
    return last


def _readable(
    family: Rdict, probe: bytes, after: bytes | None, before: bytes | None, damaged: set[str]
) -> bytes | None:
    """The first key at or behind a place, if it can be read and lies between two."""
    it = family.iter()
    it.seek(probe)
    if it.valid():
        key: bytes = it.key()
        inside = (after is None or key > after) and (before is None or key < before)
        return key if inside else None
    _broken(it, damaged)
    return None


def _broken(it: RdictIter, damaged: set[str]) -> bool:
    try:
        with rocks.translated(Path("a copy")):
            it.status()
    except StoreError as error:
        damaged.update(_TABLE.findall(str(error)))
        return True
    return False


def _probes(bounds: Sequence[bytes], after: bytes | None, before: bytes | None) -> Iterator[bytes]:
    """Places between two keys: ends of tables, then halves of halves."""
    low, high = after or b"", before or b"\xff" * 24
    yield from (key for key in bounds if low < key < high)
    size = max(len(low), len(high)) + 2
    first = int.from_bytes(low.ljust(size, b"\0"), "big")
    last = int.from_bytes(high.ljust(size, b"\0"), "big")
    parts = 2
    while parts <= 64 and (last - first) // parts:
        for part in range(1, parts, 2):
            yield (first + (last - first) * part // parts).to_bytes(size, "big")
        parts *= 2


def _fill(
    first: Path, second: Path, copier: _Copier, gaps: list[Gap], damaged: set[str]
) -> list[Gap]:
    """Copies into the gaps what tables without damage hold there."""
    copy_files(first, second, frozenset(damaged))
    db, present, _ = open_repaired(second)
    filled = []
    for gap in gaps:
        rows = copier.rows
        if gap.family in present:
            family = db if gap.family == "default" else db.get_column_family(gap.family)
            _copy(family, copier.into(gap.family), (), gap.after, gap.before, set())
            if family is not db:
                rocks.close(family, second)
        filled.append(gap._replace(instead=copier.rows - rows))
    rocks.close(db, second)
    return filled
