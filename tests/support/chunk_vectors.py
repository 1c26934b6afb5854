"""Golden chunks (tests/vectors/chunks.json): the format as it is on disks out there.

A vector's columns are [key, type, times, values] or, for MIXED, type null and [type, value] pairs.
DOUBLE values are 16 hex digits of their bits, BYTES hex, DECIMAL [mantissa, scale].
"""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.chunk_columns import Column

PATH = Path(__file__).parents[1] / "vectors" / "chunks.json"


class ChunkVector(NamedTuple):
    name: str
    columns: list[Column]
    data: bytes


def _value(name: str, value: Any) -> Any:
    if name == "DOUBLE":
        return struct.unpack(">d", bytes.fromhex(value))[0]
    if name == "BYTES":
        return bytes.fromhex(value)
    return tuple(value) if name == "DECIMAL" else value


def load() -> list[ChunkVector]:
    vectors = []
    for row in json.loads(PATH.read_text()):
        columns = []
        for key, name, stamps, values in row["columns"]:
            pairs = values if name is None else [(name, v) for v in values]
            points = [(ts, t, _value(t, v)) for ts, (t, v) in zip(stamps, pairs, strict=True)]
            columns.append((key, points))
        vectors.append(ChunkVector(row["name"], columns, bytes.fromhex(row["hex"])))
    return vectors
