"""RocksDB's list of tables and families, a log of edits: which family has which number.

Rows in RocksDB's logs name their family by number only.  When the list is made anew from the
tables, a family that has none is not in it, and its rows in the logs would go with it.

    edit  := (tag, value)*, all numbers as varint
    value := number | length and text; nothing for the drop of a family
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tbfast.store.wal import read_log, write_log

_COMPARATOR, _LOG_NUMBER = 1, 2
_FAMILY, _FAMILY_ADD, _FAMILY_DROP = 200, 201, 202
_NUMBERS: Final = frozenset((2, 3, 4, 9, 10, _FAMILY, 203, 300))
_TEXTS: Final = frozenset((_COMPARATOR, _FAMILY_ADD))
_IGNORABLE: Final = 1 << 13  # tags from here on have a text whatever they mean
_NAMES: Final = re.compile(r'^\[CFOptions "(.*)"\]$', re.MULTILINE)

Families = dict[int, str]  # number -> name


def families(path: Path) -> Families:
    """Those that the lists in a database's directory still tell of; damaged edits are left out."""
    found: Families = {0: "default"}
    for manifest in sorted(path.glob("MANIFEST-*")):
        for edit in read_log(manifest.read_bytes())[0]:
            _apply(edit, found)
    return found


def _apply(edit: bytes, found: Families) -> None:
    number, name, dropped = 0, None, False
    at = 0
    while at < len(edit):
        tag, at = _varint(edit, at)
        if tag in _NUMBERS:
            value, at = _varint(edit, at)
            if tag == _FAMILY:
                number = value
        elif tag in _TEXTS or tag >= _IGNORABLE:
            size, at = _varint(edit, at)
            if tag == _FAMILY_ADD:
                name = edit[at : at + size].decode(errors="replace")
            at += size
        elif tag == _FAMILY_DROP:
            dropped = True
        else:
            return  # of tables: such an edit neither adds nor drops a family
    if dropped:
        found.pop(number, None)
    elif name is not None:
        found[number] = name


def completed(found: Mapping[int, str], path: Path) -> tuple[Families, list[str]]:
    """With the numbers of families whose edit is lost, and the names of which none is known.

    The newest file of options names them in the order of their numbers, which RocksDB gives one
    after the other: those missing between two that are as far apart there are certain.
    """
    names = _names(path)
    numbers = {name: number for number, name in found.items()}
    unknown = []
    before = 0
    for at, name in enumerate(names):
        if name in numbers:
            before = numbers[name]
            continue
        following = next((n for n in range(at, len(names)) if names[n] in numbers), None)
        apart = numbers[names[following]] - before if following is not None else None
        if apart is None or (following is not None and apart == following - at + 1):
            before += 1
            numbers[name] = before
        else:
            unknown.append(name)
    return {number: name for name, number in numbers.items()}, unknown


def _names(path: Path) -> Sequence[str]:
    files = sorted(path.glob("OPTIONS-*"), key=lambda file: int(file.name.split("-")[1]))
    return _NAMES.findall(files[-1].read_text(errors="replace")) if files else []


def add_families(manifest: Path, added: Iterable[tuple[int, str]]) -> None:
    """Appends families to a list that RocksDB has closed."""
    edits, _ = read_log(manifest.read_bytes())
    for number, name in added:
        edits.append(
            _text(_COMPARATOR, b"leveldb.BytewiseComparator")
            + _written(_LOG_NUMBER)
            + _written(0)
            + _written(_FAMILY)
            + _written(number)
            + _text(_FAMILY_ADD, name.encode())
        )
    manifest.write_bytes(write_log(edits))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


def _written(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _text(tag: int, text: bytes) -> bytes:
    return _written(tag) + _written(len(text)) + text
