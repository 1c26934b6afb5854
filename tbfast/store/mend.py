"""Makes a store whole again from the rows that were saved of a damaged one (tbfast.store.salvage).

What follows from other rows is made anew: indexes, counters, key definitions.  What does not is
named: each function returns sentences about what is lost.  The series store: mend_series.
"""

import struct
import uuid
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from rocksdict import Rdict

from tbfast import limits
from tbfast._ext.series import block_info, rows, split_definitions
from tbfast.errors import StoreError
from tbfast.store import journal as journals
from tbfast.store import known, rocks
from tbfast.store import registry as registries
from tbfast.store.journal import KEY, Position

BUFFER_BYTES: Final = 8 << 20
_U64: Final = struct.Struct(">Q")
_EPOCHS_AHEAD: Final = 1 << 20  # when the newest is lost: above every one there can have been
_NUMBERS_AHEAD: Final = 10_000


# --- journals --------------------------------------------------------------------------------


def mend_journal(to: Path, path: Path, *, definitions_lost: bool) -> list[str]:
    """The journal at `to`, saved of the one at `path`; removes its high-water mark."""
    db = rocks.open_families(to, ("default", "meta"), write_buffer_bytes=BUFFER_BYTES)
    try:
        meta = db.get_column_family("meta")
        lost, newest = _mend_blocks(db, meta, to, definitions_lost)
        _mend_epoch(meta, path, newest)
        with rocks.translated(to):
            db.flush_wal(True)
        trimmed = meta.get(b"t")
        rocks.close(meta, to)
    finally:
        rocks.close(db, to)
    reached = max(newest, Position(*KEY.unpack(trimmed)) if trimmed else newest)
    marked = journals.read_mark(path)
    if marked is not None and marked > reached:
        lost.append(
            f"acknowledged blocks after epoch {reached.epoch}, sequence {reached.seq} up to epoch "
            f"{marked.epoch}, sequence {marked.seq}"
        )
    return lost


def _mend_blocks(
    db: Rdict, meta: Rdict, path: Path, definitions_lost: bool
) -> tuple[list[str], Position]:
    names: dict[int, dict[int, bytes]] = {}
    for defined in journals.read_definitions(meta, path):
        names.setdefault(defined.epoch, {}).update(
            enumerate(split_definitions(defined.defs), defined.first)
        )
    lost: list[str] = []
    newest = Position(0, 0)
    for key, block in rocks.pairs(db, path):
        position = Position(*KEY.unpack(key))
        try:
            info = block_info(block)
            if (info["epoch"], info["seq"]) != position:
                raise StoreError("it belongs elsewhere")
            # Records of no device: cheap.  With lost definitions every point is looked at.
            rows(
                block,
                names.setdefault(position.epoch, {}),
                None if definitions_lost else frozenset(),
            )
        except StoreError as error:
            lost.append(f"block of epoch {position.epoch}, sequence {position.seq}: {error}")
            with rocks.translated(path):
                db.delete(key)
            continue
        newest = position
        if definitions_lost and info["defs_bytes"]:
            start = journals.BLOCK_DEFS_OFFSET
            with rocks.translated(path):
                meta.put(
                    b"k" + struct.pack(">II", position.epoch, info["first_key"]),
                    bytes(block[start : start + info["defs_bytes"]]),
                )
    return lost, newest


def _mend_epoch(meta: Rdict, path: Path, newest: Position) -> None:
    with rocks.translated(path):
        if meta.get(b"f") is None:
            meta.put(b"f", struct.pack("<I", journals.FORMAT_VERSION))
        stored = meta.get(b"e")
        begun = known.read_epoch(known.of_journal(path))
        if stored is None:
            epoch = max(newest.epoch, journals.retired_epoch(path), begun) + _EPOCHS_AHEAD
            meta.put(b"e", struct.pack("<I", epoch))
        elif journals.read_epoch(meta) < begun:
            meta.put(b"e", struct.pack("<I", begun))


# --- registry --------------------------------------------------------------------------------


def mend_registry(to: Path) -> list[str]:
    """Indexes and counters from the entities that are left; the change log begins anew."""
    families = registries.FAMILIES
    db = rocks.open_families(to, families, write_buffer_bytes=BUFFER_BYTES)
    try:
        handles = {name: db.get_column_family(name) for name in families}
        lost = _mend_entities(handles, to)
        with rocks.translated(to):
            db.flush_wal(True)
        for handle in handles.values():
            rocks.close(handle, to)
        handles.clear()
    finally:
        rocks.close(db, to)
    return lost


def _mend_entities(handles: dict[str, Rdict], path: Path) -> list[str]:
    lost: list[str] = []
    present: dict[str, set[str]] = {}
    owned: dict[bytes, tuple[str, str]] = {}
    counts: dict[str, int] = {}
    newest = 0
    for kind in get_args(registries.Kind):
        present[kind] = set()
        for key, raw in rocks.pairs(handles[kind], path):
            entity = _decoded(raw, registries.Entity)
            if entity is None:
                lost.append(f"{kind} {key.decode(errors='replace')}")
                _delete(handles[kind], path, key)
                continue
            present[kind].add(entity.id)
            owned |= {unique.encode(): (kind, entity.id) for unique in entity.unique}
            if entity.number:
                newest = max(newest, entity.number)
                _put(handles["number"], path, _U64.pack(entity.number), key)
        if present[kind]:
            counts[kind] = len(present[kind])
    for key, raw in rocks.pairs(handles["unique"], path):
        owner = _decoded(raw, tuple[str, str])
        if key not in owned:
            who = f"{owner[0]} {owner[1]}" if owner else "an entity"
            lost.append(f"{who}, which had {key.decode(errors='replace')!r}")
            _delete(handles["unique"], path, key)
    for key, pair in owned.items():
        _put(handles["unique"], path, key, _encoded(pair))
    # Numbers of lost devices stay: their rows are kept, and no other device gets them.
    for key, _ in rocks.pairs(handles["number"], path):
        newest = max(newest, _U64.unpack(key)[0])
    _mend_state(handles, path, counts, newest, lost)
    return lost


def _mend_state(
    handles: dict[str, Rdict], path: Path, counts: dict[str, int], newest: int, lost: list[str]
) -> None:
    revision = 0
    for key, _ in rocks.pairs(handles["change"], path):
        revision = max(revision, _U64.unpack(key)[0])
        _delete(handles["change"], path, key)
    raw = handles["meta"].get(registries.STATE_KEY)
    state = None if raw is None else _decoded(raw, registries.State)
    if state is None:
        lost.append("the id of this installation's tenant and the newest device number")
        state = registries.State(tenant_id=str(uuid.uuid1()), next_number=newest + _NUMBERS_AHEAD)
    state = msgspec.structs.replace(
        state,
        # So far on that nobody takes up the log where it was.
        revision=max(state.revision, revision) + limits.REGISTRY_CHANGES + 1,
        next_number=max(state.next_number, newest + 1),
        counts=counts,
    )
    _put(handles["meta"], path, registries.STATE_KEY, _encoded(state))
    _put(handles["meta"], path, registries.FORMAT_KEY, b"%d" % registries.STORE_FORMAT)


def _decoded(raw: bytes, type_: Any) -> Any:
    if raw[:1] != registries.VALUE_FORMAT:
        return None
    try:
        return msgspec.msgpack.decode(memoryview(raw)[1:], type=type_)
    except msgspec.DecodeError:
        return None


def _encoded(value: Any) -> bytes:
    return registries.VALUE_FORMAT + msgspec.msgpack.encode(value)


def _put(family: Rdict, path: Path, key: bytes, value: bytes) -> None:
    with rocks.translated(path):
        family.put(key, value)


def _delete(family: Rdict, path: Path, key: bytes) -> None:
    with rocks.translated(path):
        family.delete(key)
