"""RocksDB's log files: blocks of 32 KiB with records, each with a CRC32C and a length.

RocksDB drops the rest of a block behind a record it cannot trust.  Here only that record goes: the
next one is looked for by its checksum.

    record := masked CRC32C (4) of type and data, length (2), type (1), data; little-endian
    type   := 1 whole, 2 first, 3 middle or 4 last part; a block's end too short for a head is 0
"""

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from tbfast._ext.crc import crc32c

BLOCK_BYTES: Final = 32_768
_HEAD: Final = struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_MASK: Final = 0xA282EAD8


class Damage(NamedTuple):
    """Bytes of a log that belong to no readable record."""

    offset: int
    length: int


def read_log(data: bytes) -> tuple[list[bytes], list[Damage]]:
    """Records that can be read, in order, and the places where there is something else."""
    view = memoryview(data)
    records: list[bytes] = []
    damages: list[Damage] = []
    parts: list[bytes] | None = None
    at = 0
    while at < len(data):
        end = min(at - at % BLOCK_BYTES + BLOCK_BYTES, len(data))
        if end - at < _HEAD.size or not any(view[at : at + _HEAD.size]):
            at = end  # space that was allocated ahead, or the end of a block
            continue
        size = _record_bytes(view, at, end)
        if size == 0:
            following = next(
                (n for n in range(at + 1, end - _HEAD.size + 1) if _record_bytes(view, n, end)), end
            )
            damages.append(Damage(at, following - at))
            parts = None
            at = following
            continue
        part, kind = bytes(view[at + _HEAD.size : at + size]), view[at + 6]
        if kind == _WHOLE:
            records.append(part)
        elif kind == _FIRST:
            parts = [part]
        elif parts is not None:
            parts.append(part)
            if kind == _LAST:
                records.append(b"".join(parts))
                parts = None
        at += size
    return records, damages


def _record_bytes(view: memoryview, at: int, end: int) -> int:
    """Length of the record at a place, 0 if there is none."""
    crc, length, kind = _HEAD.unpack_from(view, at)
    stop = at + _HEAD.size + length
    if not _WHOLE <= kind <= _LAST or stop > end:
        return 0
    return _HEAD.size + length if crc == _masked(view[at + 6 : stop]) else 0


def _masked(data: memoryview | bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFF_FFFF


def write_log(records: Iterable[bytes]) -> bytes:
    """A log of these records."""
    out = bytearray()
    for record in records:
        at = 0
        while True:
            left = BLOCK_BYTES - len(out) % BLOCK_BYTES
            if left < _HEAD.size:
                out += bytes(left)
                continue
            part = record[at : at + left - _HEAD.size]
            first, last = at == 0, at + len(part) == len(record)
            kind = (_WHOLE if last else _FIRST) if first else _LAST if last else _MIDDLE
            typed = bytes([kind]) + part
            out += struct.pack("<IH", _masked(typed), len(part)) + typed
            at += len(part)
            if last:
                break
    return bytes(out)
