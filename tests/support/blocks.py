"""Slow, obvious writer of journal blocks (ext/c/tbf_block.h), and a plain model of reads."""

import base64
import json
import struct
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from tests.support.rows import HEADER, crc32c

INT64, DOUBLE, FALSE, TRUE, STRING, JSON, BYTES, DECIMAL = range(8)


class Point(NamedTuple):
    """key: number of the epoch, or a name that travels inline.  DECIMAL: (mantissa, scale)."""

    key: int | str
    type: int
    value: Any = None
    dead: bool = False


class Record(NamedTuple):
    device: int
    ts: int
    points: Sequence[Point]
    kind: int = 0


class Block(NamedTuple):
    """names: key definitions in it, numbered from `first_key` on."""

    journal: int
    epoch: int
    seq: int
    commit_ms: int
    first_key: int
    names: Sequence[str]
    records: Sequence[Record]


def varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def zigzag(n: int) -> bytes:
    n = (n + 2**63) % 2**64 - 2**63
    return varint((n << 1 ^ n >> 63) % 2**64)


def blob(data: bytes) -> bytes:
    return varint(len(data)) + data


def _value(point: Point) -> bytes:
    match point.type:
        case 0:
            return zigzag(point.value)
        case 1:
            return struct.pack("<d", point.value)
        case 2 | 3:
            return b""
        case 4 | 5:
            return blob(point.value.encode())
        case 6:
            return blob(point.value)
    mantissa, scale = point.value
    return bytes([scale]) + zigzag(mantissa)


def _point(point: Point) -> bytes:
    inline = isinstance(point.key, str)
    number = 0 if inline else point.key
    tag = varint(number << 4 | point.dead << 3 | point.type)
    return tag + (blob(point.key.encode()) if inline else b"") + _value(point)


def rows_of(records: Iterable[Record], base_ms: int) -> bytes:
    return b"".join(
        varint(r.device << 2 | r.kind)
        + zigzag(r.ts - base_ms)
        + blob(b"".join(map(_point, r.points)))
        for r in records
    )


def write_block(block: Block, base_ms: int | None = None) -> bytes:
    """The bytes of a block; base_ms: what its times are relative to, the commit time if None."""
    base = block.commit_ms if base_ms is None else base_ms
    rows = rows_of(block.records, base)
    live = sum(not point.dead for record in block.records for point in record.points)
    times = [record.ts for record in block.records]
    return frame(
        block,
        base,
        (min(times), max(times)) if times else (0, 0),
        live,
        b"".join(blob(name.encode()) for name in block.names),
        rows,
    )


def frame(
    block: Block, base_ms: int, span: tuple[int, int], live: int, defs: bytes, rows: bytes
) -> bytes:
    """Header and checksum around any content, sound or not."""
    head = HEADER.pack(
        b"TBJB", 1, 0, 80, block.journal, block.epoch, block.seq, block.commit_ms, base_ms,
        *span, len(defs), len(rows), len(block.records), live, block.first_key, 0,
    )[:-4]  # fmt: skip
    return head + struct.pack("<I", crc32c(head + defs + rows)) + defs + rows


def json_value(point: Point) -> Any:
    """What a reader's JSON says, parsed with decimals kept."""
    match point.type:
        case 0 | 4:
            return point.value
        case 1:
            return Decimal(repr(point.value))
        case 2 | 3:
            return point.type == TRUE
        case 5:
            return parsed(point.value)
        case 6:
            return base64.b64encode(point.value).decode()
    mantissa, scale = point.value
    return Decimal(mantissa).scaleb(-scale)


def parsed(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


class Series:
    """The model: of points with one time the one that was committed last wins."""

    def __init__(self, blocks: Iterable[Block]) -> None:
        self.names: dict[tuple[int, int], dict[int, str]] = {}
        self.points: dict[tuple[int, int, str], dict[int, Any]] = {}
        ordered = sorted(blocks, key=lambda b: (b.commit_ms, b.journal, b.epoch, b.seq))
        for block in ordered:
            known = self.names.setdefault((block.journal, block.epoch), {})
            known.update(enumerate(block.names, block.first_key))
        for block in ordered:
            known = self.names[block.journal, block.epoch]
            for record in block.records:
                for point in record.points:
                    if not point.dead:
                        name = point.key if isinstance(point.key, str) else known[point.key]
                        series = self.points.setdefault((record.device, record.kind, name), {})
                        series[record.ts] = json_value(point)

    def range(
        self,
        device: int,
        keys: Sequence[str] | None,
        start_ms: int | None,
        end_ms: int | None,
        limit: int,
        ascending: bool,
        kind: int = 0,
    ) -> dict[str, list[dict[str, Any]]]:
        found = {}
        for (owner, of_kind, name), series in self.points.items():
            if owner != device or of_kind != kind or (keys is not None and name not in keys):
                continue
            low = -(2**63) if start_ms is None else start_ms
            times = sorted(t for t in series if low <= t and (end_ms is None or t < end_ms))
            chosen = times[:limit] if ascending else times[::-1][:limit]
            if chosen:
                found[name] = [{"ts": t, "value": series[t]} for t in chosen]
        return found
