"""From socket bytes to committed rows in one process, against the obvious way in Python.

The baseline parses each PUBLISH with struct, its payload with orjson, and writes one RocksDB key
per point in one WriteBatch per read, as a straightforward server would.
"""

import itertools
import struct

import orjson
import pytest
from rocksdict import Options, Rdict, WriteBatch

from tbfast._ext.ingest import Ingest
from tbfast.codec import mqtt
from tbfast.model.mqtt import Publish
from tbfast.store.journal import Journal

pytestmark = pytest.mark.bench

MESSAGES = 32  # PUBLISHes in one read
PAYLOAD = b'{"temperature":21.5,"humidity":60,"ok":true}'


def read_of(messages: int) -> bytes:
    """One socket read of QoS 1 telemetry."""
    return b"".join(
        mqtt.encode(Publish("v1/devices/me/telemetry", PAYLOAD, qos=1, packet_id=i + 1), 4)
        for i in range(messages)
    )


def plain_python(db: Rdict, data: bytes, seq: int) -> bytes:
    """The named baseline: rows as keys, dicts on the way."""
    batch = WriteBatch(raw_mode=True)
    acks = []
    at = 0
    while at < len(data):
        remaining, shift, head = 0, 0, at + 1
        while True:
            byte = data[head]
            remaining |= (byte & 0x7F) << shift
            shift += 7
            head += 1
            if byte < 0x80:
                break
        (topic_n,) = struct.unpack_from(">H", data, head)
        topic = data[head + 2 : head + 2 + topic_n].decode()
        assert topic == "v1/devices/me/telemetry"
        (packet_id,) = struct.unpack_from(">H", data, head + 2 + topic_n)
        for name, value in orjson.loads(data[head + 4 + topic_n : head + remaining]).items():
            key = b"d1/" + name.encode() + struct.pack(">Q", seq)
            batch.put(key, orjson.dumps(value))
        acks.append(struct.pack(">BBH", 0x40, 2, packet_id))
        at = head + remaining
        seq += 1
    db.write(batch)
    return b"".join(acks)


@pytest.mark.parametrize("messages", [1, MESSAGES])
def test_bench_baseline_python(benchmark, tmp_path, messages):
    db = Rdict(str(tmp_path / "db"), Options(raw_mode=True))
    data = read_of(messages)
    seq = itertools.count(0, messages)
    benchmark(lambda: plain_python(db, data, next(seq)))
    benchmark.extra_info["messages"] = messages
    db.close()


@pytest.mark.parametrize("messages", [1, MESSAGES])
def test_bench_tbfast(benchmark, tmp_path, messages):
    journal = Journal(tmp_path / "0", 0)
    ingest = Ingest()
    ingest.at(1_700_000_000_000, 0)
    ingest.open(0, 1, 4)
    data = read_of(messages)
    seq = itertools.count(1)

    def commit() -> None:
        used, _ = ingest.walk(0, data)
        assert used == len(data)
        group = ingest.take(0, journal.epoch, next(seq), 0, journal.written_keys + 1)
        journal.append(group)
        ingest.recycle(group)

    benchmark(commit)
    benchmark.extra_info["messages"] = messages
    journal.close()
