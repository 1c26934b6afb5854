"""Rows of tests/vectors/mqtt_packets.json as packets; also writes fuzz seeds from them.

python -m tests.support.mqtt_vectors ext/fuzz/corpus/mqtt
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from tbfast.model import mqtt

PATH = Path(__file__).parent.parent / "vectors" / "mqtt_packets.json"
BINARY = {"payload", "password", "correlation_data", "authentication_data"}


class Vector(msgspec.Struct):
    """``error``: malformed, too_large, unsupported, or more (incomplete)."""

    name: str
    clause: str
    version: int
    data: bytes
    packet: mqtt.Packet | None
    error: str | None


def _bytes_of(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: bytes.fromhex(v) if k in BINARY else _bytes_of(v) for k, v in value.items()}
    return value


def load() -> list[Vector]:
    """Every row; JSON holds bytes as hex."""
    vectors = []
    for row in json.loads(PATH.read_text()):
        packet = None
        if "packet" in row:
            fields = _bytes_of(row["packet"])
            cls = getattr(mqtt, fields.pop("type"))
            packet = msgspec.convert(fields, cls, builtin_types=(bytes,))
        vectors.append(
            Vector(
                row["name"],
                row["clause"],
                row["version"],
                bytes.fromhex(row["hex"]),
                packet,
                row.get("error"),
            )
        )
    return vectors


def write_seeds(folder: Path) -> int:
    """One stream of accepted packets per type and version; the first byte chooses the version."""
    folder.mkdir(parents=True, exist_ok=True)
    streams: dict[str, bytes] = {}
    for vector in load():
        if vector.packet is not None and len(vector.data) < 256:
            seed = f"{type(vector.packet).__name__.lower()}-{vector.version}"
            streams[seed] = streams.get(seed, bytes([vector.version])) + vector.data
    for seed, data in streams.items():
        (folder / seed).write_bytes(data)
    return len(streams)


if __name__ == "__main__":
    print(write_seeds(Path(sys.argv[1])))
