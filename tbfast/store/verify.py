"""Reads whole stores and says what is damaged, without changing anything."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rocksdict import AccessType, Cache, Rdict

from tbfast._ext.chunk import describe
from tbfast._ext.series import block_info
from tbfast.errors import LocalError, StoreError
from tbfast.store import known, rocks
from tbfast.store.journal import KEY, Position, read_epoch, read_mark, retired_epoch
from tbfast.store.layout import Layout
from tbfast.store.pages import expanded
from tbfast.store.series_files import CHUNK_KEY
from tbfast.store.tombstones import decode
from tbfast.store.verify_records import SEGMENT, Held, records_damage

SHARDS: Final = ("registry", "series", "attributes")
_BUFFER_BYTES: Final = 1 << 20

Step = Callable[[int], None]  # bytes read since the last call


def shards(layout: Layout) -> list[str]:
    """Names of the stores in a data directory: registry, series, attributes, journal/N."""
    found = [name for name in SHARDS if (layout.root / name).is_dir()]
    return found + [f"journal/{number}" for number in layout.journal_numbers()]


def shard_path(layout: Layout, shard: str) -> Path:
    """Where a store is; LocalError for a name that is none."""
    head, _, number = shard.partition("/")
    if shard in SHARDS or (head == "journal" and number.isdecimal() and number.isascii()):
        return layout.root / shard
    raise LocalError(f"{shard!r} is no store: name {', '.join(SHARDS)} or journal/N")


def damage(path: Path, shard: str, *, deep: bool, step: Step = lambda nbytes: None) -> list[str]:
    """Sentences about what cannot be read; deep: of every row, else of the files' frames only."""
    try:
        db, families = open_read_only(path)
    except StoreError as error:
        return [str(error.__cause__ or error)]
    try:
        found: list[str] = []
        held: Held = {}
        if shard.startswith("journal/"):
            found = _unsynced_loss(db, path)
        if deep:
            for name in families:
                found += _rows_damage(db, path, shard, name, step, held)
        if shard == "series":
            found += records_damage(db, path, families, held if deep else None)
    finally:
        rocks.close(db, path)
    return found


def open_read_only(path: Path) -> tuple[Rdict, list[str]]:
    """A database and the names of its families, for looking only; StoreError if it is damaged."""
    made = rocks.options(write_buffer_bytes=_BUFFER_BYTES, cache=Cache(_BUFFER_BYTES))
    made.create_if_missing(False)
    with rocks.translated(path):
        families = Rdict.list_cf(str(path))
        db = Rdict(str(path), made, dict.fromkeys(families, made), AccessType.read_only(False))
    return db, families


def _unsynced_loss(db: Rdict, path: Path) -> list[str]:
    with rocks.translated(path):
        it = db.iter()
        it.seek_to_last()
        last = Position(*KEY.unpack(it.key())) if it.valid() else Position(0, 0)
        meta = db.get_column_family("meta")
        trimmed = meta.get(b"t")
    begun = known.read_epoch(known.of_journal(path))
    newest = max(read_epoch(meta), retired_epoch(path))
    if newest < begun:
        return [f"it ends with epoch {newest}, but epoch {begun} had begun: it is an old copy"]
    marked = read_mark(path)
    if marked is None or marked.epoch <= retired_epoch(path):
        return []
    if trimmed:
        last = max(last, Position(*KEY.unpack(trimmed)))
    if last >= marked:
        return []
    return [
        f"acknowledged blocks after epoch {last.epoch}, sequence {last.seq} up to epoch "
        f"{marked.epoch}, sequence {marked.seq} are missing"
    ]


def _rows_damage(
    db: Rdict, path: Path, shard: str, family: str, step: Step, held: Held
) -> list[str]:
    found = []
    runs: dict[int, int] = {}
    try:
        for key, value in _rows(db, path, family):
            step(len(key) + len(value))
            try:
                if shard == "series" and SEGMENT.fullmatch(family):
                    found += _chunks_damage(key, value, runs)
                elif shard == "series" and family == "deleted":
                    decode(value)
                elif shard.startswith("journal/") and family == "default":
                    info = block_info(value)
                    if (info["epoch"], info["seq"]) != KEY.unpack(key):
                        raise StoreError("a block that belongs elsewhere")
            except StoreError as error:
                found.append(f"{where(shard, family, key)}: {error}")
    except StoreError as error:
        found.append(f"{family}: {error.__cause__ or error}")
    held[family] = None if found else runs
    return found


def _chunks_damage(key: bytes, value: bytes, runs: dict[int, int]) -> list[str]:
    """Of a chunk or of all in a page; adds their points to `runs`."""
    found = []
    for at, chunk in expanded(key, value):
        try:
            points = sum(column[2] for column in describe(chunk))
        except StoreError as error:
            found.append(f"{_where_chunk(at)}: {error}")
            continue
        run = CHUNK_KEY.unpack(at)[2]
        runs[run] = runs.get(run, 0) + points
    return found


def _rows(db: Rdict, path: Path, family: str) -> Iterator[tuple[bytes, bytes]]:
    yield from rocks.pairs(db if family == "default" else db.get_column_family(family), path)


def where(shard: str, family: str, key: bytes) -> str:
    """A key in words."""
    if shard.startswith("journal/") and family == "default" and len(key) == KEY.size:
        epoch, seq = KEY.unpack(key)
        return f"block of epoch {epoch}, sequence {seq}"
    if shard == "series" and SEGMENT.fullmatch(family) and len(key) == CHUNK_KEY.size:
        return _where_chunk(key)
    if family == "attribute" and len(key) > 9:
        name = key[9:].decode("utf-8", "backslashreplace")
        return f"attribute {name!r} of device {int.from_bytes(key[:8], 'big')}"
    text = key.decode("utf-8", "backslashreplace")
    return f"{family} {text if text.isprintable() else key.hex()}"


def _where_chunk(key: bytes) -> str:
    device, number, run = CHUNK_KEY.unpack(key)
    return f"chunk of device {device}, key {number}, run {run}"
