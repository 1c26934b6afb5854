"""Whether the records of a series store agree with each other and with the chunks they tell of."""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rocksdict import Rdict

from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tbfast.store import rocks
from tbfast.store.windows import Segment, State, Window, decoded, from_format_1

NAME_COPY: Final = b"k"  # of the default family: number of a key -> its name, as in "keys"
SEGMENT: Final = re.compile(r"[wj]\d+")  # family of chunks
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_TAIL_RECORDS: Final = 10_000  # taken back into one tail, which holds their values in memory

Held = dict[str, dict[int, int] | None]  # points in each family's chunks, by run; None = damaged


def records_damage(db: Rdict, path: Path, families: Sequence[str], held: Held | None) -> list[str]:
    """Sentences about records that say what is not so; held None: chunks were not read."""
    try:
        windows, state = _read(db, path)
        begun = db.get(b"n")
    except StoreError as error:
        return [str(error)]
    found = []
    seen: set[str] = set()
    for window in windows:
        for segment in window.segments:
            about = f"window {window.number}, {segment.name}"
            if segment.name in seen:
                found.append(f"{about}: another window names it too")
            seen.add(segment.name)
            if segment.name not in families:
                found.append(f"{about}: chunks of {words(segment)} are missing")
                continue
            found += [f"{about}: {text}" for text in _wrong(segment, state)]
            runs = held.get(segment.name, {}) if held is not None else None
            if runs is not None:
                found += [f"{about}: {text}" for text in _missing(segment, runs)]
        if window.number > state.window:
            found.append(f"window {window.number}: newer than the newest that was opened")
    if (begun is None and state.run) or (begun is not None and _U32.unpack(begun)[0] <= state.run):
        found.append(f"run {state.run} is recorded, but its number may be given again")
    if "keys" in families:
        named = _names(db, path)
        found += named
        if not named and held is not None:
            found += latest_damage(db, path, families)
    return found


def latest_damage(db: Rdict, path: Path, families: Sequence[str]) -> list[str]:
    """Stored latest values, and numbers of keys, that a start could not take back."""
    found = []
    try:
        tail = _tail(db, path)
    except StoreError as error:
        return [] if error.__cause__ else [str(error)]  # reading the family told of the cause
    for family in sorted({"latest", "changes"}.intersection(families)):
        records = db.get_column_family(family)
        try:
            for count, (key, packed) in enumerate(rocks.pairs(records, path), 1):
                if count % _TAIL_RECORDS == 0:
                    tail = _tail(db, path)
                number = _U64.unpack(key)[0]
                try:
                    if family == "latest":
                        tail.restore_latest(number, packed)
                    else:
                        tail.restore_changes(packed)
                except StoreError as error:
                    found.append(f"{family} {number}: {error}")
        except StoreError:
            continue  # the same
        finally:
            rocks.close(records, path)
    return found


def _tail(db: Rdict, path: Path) -> Tail:
    """One that knows the store's keys and nothing else."""
    tail = Tail()
    family = db.get_column_family("keys")
    try:
        for number, name in rocks.pairs(family, path):
            tail.restore_key(_U32.unpack(number)[0], name)
    finally:
        rocks.close(family, path)
    return tail


def _names(db: Rdict, path: Path) -> list[str]:
    """Names of keys that are not what their copies say; builds before them wrote no copies."""
    family = db.get_column_family("keys")
    try:
        names = dict(rocks.pairs(family, path))
        copies = [
            (key[1:], name)
            for key, name in rocks.pairs(db, path, NAME_COPY)
            if key[:1] == NAME_COPY and names.get(key[1:]) != name
        ]
    except StoreError:
        return []  # reading the family told of it
    finally:
        rocks.close(family, path)
    return [f"key {_U32.unpack(n)[0]}: its name is not its copy, {copy!r}" for n, copy in copies]


def _read(db: Rdict, path: Path) -> tuple[list[Window], State]:
    records = {
        prefix: [raw for key, raw in rocks.pairs(db, path, prefix) if key[:1] == prefix]
        for prefix in (b"r", b"w", b"c")
    }
    if db.get(b"f") == _U32.pack(1):
        state, windows = from_format_1(records[b"r"], records[b"w"])
        return windows, state
    windows = [decoded(raw, Window) for raw in records[b"w"]]
    states = [decoded(raw, State) for raw in records[b"c"]]
    if not states and windows:
        raise StoreError("the record of the newest run is missing")
    return windows, states[0] if states else State(0, 0, {})


def _wrong(segment: Segment, state: State) -> Iterator[str]:
    numbers = [run.number for run in segment.runs]
    whole = numbers[:1] == [segment.first_run] and numbers[-1:] == [segment.last_run]
    if segment.level == 0 and (not whole or numbers != sorted(set(numbers))):
        yield f"its runs are not those of {words(segment)}"
    if segment.last_run > state.run:
        yield f"run {segment.last_run} is newer than the newest that was recorded"


def _missing(segment: Segment, runs: dict[int, int]) -> Iterator[str]:
    """What a read of all chunks did not meet."""
    for run in segment.runs:
        if runs.get(run.number, 0) != run.points:
            yield f"run {run.number} has {runs.get(run.number, 0)} of {run.points} points"
    if segment.level and sum(runs.values()) != segment.points:
        yield f"{words(segment)}: {sum(runs.values())} of {segment.points} points are there"
    strange = [n for n in runs if not segment.first_run <= n <= segment.last_run]
    if segment.level and strange:
        yield f"chunks of run {min(strange)}, which it was not joined from"


def words(segment: Segment) -> str:
    """Its runs."""
    first, last = segment.first_run, segment.last_run
    return f"run {first}" if first == last else f"runs {first} to {last}"
