"""Slow, obvious reader of journal blocks (ext/c/tbf_block.h, tbf_batch.h), and JSON text checks."""

import json
import re
import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

from tbfast._ext.batch import Batch

HEADER = struct.Struct("<4sBBHIIQqqqqIIIIII")
TYPES = ["INT64", "DOUBLE", "FALSE", "TRUE", "STRING", "JSON", "BYTES", "DECIMAL"]
KINDS = ["telemetry", "client_attr"]


class Row(NamedTuple):
    """One live point.  type is INT64, DOUBLE, DECIMAL, BOOL, STRING, JSON or BYTES."""

    device: int
    kind: str
    ts: int
    key: str
    type: str
    value: Any


class Block(NamedTuple):
    """What a block says; ``records`` holds each record's live points in order."""

    journal_id: int
    epoch: int
    seq: int
    commit_ms: int
    min_ts: int
    max_ts: int
    keys: list[str]
    records: list[list[Row]]


def crc32c(data: bytes) -> int:
    """Byte by byte, RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _shifted(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


_CRC32C = [_shifted(byte) for byte in range(256)]


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def take(self, n: int) -> bytes:
        assert self.at + n <= len(self.data), "cut short"
        self.at += n
        return self.data[self.at - n : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                assert value < 1 << 64
                return value

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def blob(self) -> bytes:
        return self.take(self.varint())


def _value(data: _Bytes, name: str) -> Any:
    match name:
        case "INT64":
            return data.zigzag()
        case "DOUBLE":
            return struct.unpack("<d", data.take(8))[0]
        case "FALSE" | "TRUE":
            return name == "TRUE"
        case "STRING" | "JSON":
            return data.blob().decode("utf-8")
        case "BYTES":
            return data.blob()
    scale = data.take(1)[0]
    return Decimal(data.zigzag()).scaleb(-scale)


def _points(data: _Bytes, keys: list[str]) -> Iterator[tuple[str, str, Any]]:
    seen: set[str] = set()
    while data:
        tag = data.varint()
        number, dead, name = tag >> 4, tag & 8, TYPES[tag & 7]
        key = keys[number - 1] if number else data.blob().decode("utf-8")
        value = _value(data, name)
        if not dead:
            assert key not in seen, "two live points of one key in a record"
            seen.add(key)
            yield key, "BOOL" if name in ("TRUE", "FALSE") else name, value


def read_block(block: bytes) -> Block:
    """Every field checked against every other; AssertionError if one disagrees."""
    head = HEADER.unpack_from(block)
    magic, version, flags, size, journal_id, epoch, seq, commit_ms, base_ms = head[:9]
    min_ts, max_ts, defs_n, rows_n, record_count, point_count, first_key, crc = head[9:]
    assert (magic, version, flags, size) == (b"TBJB", 1, 0, 80)
    assert first_key == 1, "this reader wants all keys defined in the block"
    assert len(block) == 80 + defs_n + rows_n
    assert crc32c(block[:76] + block[80:]) == crc
    defs, body = _Bytes(block[80 : 80 + defs_n]), _Bytes(block[80 + defs_n :])
    keys = []
    while defs:
        keys.append(defs.blob().decode("utf-8"))
    records = []
    while body:
        who = body.varint()
        # The difference of two times may exceed 64 bits: both writer and reader wrap.
        ts = (base_ms + body.zigzag() + 2**63) % 2**64 - 2**63
        points = _points(_Bytes(body.blob()), keys)
        records.append([Row(who >> 2, KINDS[who & 3], ts, *point) for point in points])
    assert all(records), "a record without live points"
    assert (len(records), sum(map(len, records))) == (record_count, point_count)
    times = [record[0].ts for record in records]
    if times:
        assert (min(times), max(times)) == (min_ts, max_ts)
    return Block(journal_id, epoch, seq, commit_ms, min_ts, max_ts, keys, records)


def read_batch(batch: Batch) -> Block:
    """The batch as it would be committed now, all its keys included."""
    return read_block(batch.to_block(1, 1, 1, 0, 1))


class Number(str):
    """A JSON number as written; unlike a string of the same text wherever repr is compared."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Number({self!s})"


def _no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is not JSON")


def parse_strict(text: str) -> Any:
    """Strict compact JSON as a tree: objects are lists of pairs, numbers keep their text.

    AssertionError or ValueError if the text is not strict, not compact, repeats a name or holds a
    null member.
    """
    tree = json.loads(
        text,
        object_pairs_hook=lambda pairs: ("object", pairs),
        parse_int=Number,
        parse_float=Number,
        parse_constant=_no_constant,
    )
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert not re.search(r"\s", bare), "white space between tokens"
    _check_members(tree)
    return tree


def _check_members(tree: Any) -> None:
    if isinstance(tree, tuple):
        names = [name for name, _ in tree[1]]
        assert len(names) == len(set(names)), "a name twice"
        assert all(value is not None for _, value in tree[1]), "a null member"
        for _, value in tree[1]:
            _check_members(value)
    elif isinstance(tree, list):
        for value in tree:
            _check_members(value)
