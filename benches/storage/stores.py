"""The stores that are compared: each takes all messages of some devices, then answers reads."""

import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Protocol
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
from rocksdict import DBCompressionType, Options, Rdict, WriteBatch

from benches.storage.series import START_MS, Message, as_json
from tests.support.server import Server
from tests.support.waiting import wait_until

Devices = dict[str, list[Message]]

REQUEST_MESSAGES = 500
SETTLED_S = 8  # without a change
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Store(Protocol):
    """CPU seconds are of the store's own processes."""

    def fill(self, devices: Devices) -> float:
        """Stores everything durably; CPU seconds."""

    def disk_bytes(self) -> int:
        """Bytes held once everything is in its final form."""

    def read(self, device: str, key: str, start_ms: int, end_ms: int, bucket_ms: int) -> int:
        """Points of a range, or averages of buckets (0: none): how many came."""


def tree_bytes(root: Path) -> int:
    """Bytes of the files below a directory; those that go meanwhile do not count."""
    total = 0
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            total += found.st_size if S_ISREG(found.st_mode) else 0
    return total


def table_bytes(root: Path) -> int:
    """Bytes of RocksDB's tables: its logs do not grow with what is stored."""
    return sum(p.stat().st_size for p in root.glob("*.sst"))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its children so far."""
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rsplit(")", 1)[1].split()
            if int(stat.parent.name) == pid or int(fields[1]) == pid:
                total += (int(fields[11]) + int(fields[12])) * TICK_S
    return total


def chunks(messages: list[Message]) -> Iterator[list[Message]]:
    for start in range(0, len(messages), REQUEST_MESSAGES):
        yield messages[start : start + REQUEST_MESSAGES]


class Tbfast:
    """A node with one worker; messages come over its HTTP device API."""

    def __init__(self) -> None:
        self.server = Server()
        self.server.start()
        self._ids: dict[str, str] = {}

    def fill(self, devices: Devices) -> float:
        pid = self.server.node()["supervisorPid"]
        before = cpu_s(pid)
        connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port)
        for device, messages in devices.items():
            self.server.add_device(device)
            self._ids[device] = self.server.device_id(device)
            for some in chunks(messages):
                connection.request("POST", f"/api/v1/{device}/telemetry", as_json(some))
                answer = connection.getresponse()
                answer.read()
                assert answer.status == 200, answer.status
        spent = cpu_s(pid) - before
        connection.close()
        return spent

    def disk_bytes(self) -> int:
        assert self.server.stop() == 0  # a graceful stop seals the rest
        held = table_bytes(self.server.data_dir / "series")
        self.server.start()
        return held

    def read(self, device: str, key: str, start_ms: int, end_ms: int, bucket_ms: int) -> int:
        asked: dict[str, object] = {"keys": key, "startTs": start_ms, "endTs": end_ms}
        asked |= {"limit": 1_000_000, "useStrictDataTypes": "true"}
        asked |= {"agg": "AVG", "interval": bucket_ms} if bucket_ms else {}
        path = f"/api/plugins/telemetry/DEVICE/{self._ids[device]}/values/timeseries"
        status, found = self.server.rest("GET", f"{path}?{urlencode(asked)}")
        assert status == 200
        return len(found.get(key, ()))

    def close(self) -> None:
        self.server.stop()


class VictoriaMetrics:
    """Debian's single-node binary; messages come as InfluxDB lines."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="vm-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [
                "victoria-metrics", f"-storageDataPath={self._root}", "-retentionPeriod=100y",
                f"-httpListenAddr=127.0.0.1:{self._port}", "-dedup.minScrapeInterval=0",
                "-search.maxPointsPerTimeseries=2000000",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._ready, 20, "VictoriaMetrics is ready")

    def _ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self._get("/health") == b"OK"
        return False

    def _get(self, path: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status < 300, (answer.status, data[:200])
        return data

    def fill(self, devices: Devices) -> float:
        before = cpu_s(self._process.pid)
        for device, messages in devices.items():
            for some in chunks(messages):
                lines = (
                    f"m,device={device} "
                    + ",".join(f"{key}={_number(value)}" for key, value in values.items())
                    + f" {ts}"
                    for ts, values in some
                )
                self._get("/write?precision=ms", "\n".join(lines).encode())
        self._get("/internal/force_flush")
        return cpu_s(self._process.pid) - before

    def disk_bytes(self) -> int:
        """Once nothing moves any more: parts in memory are written every 5 s, and the merge runs
        in the background and says nothing."""
        self._get("/internal/force_merge")
        size, same_s = -1, 0
        while same_s < SETTLED_S:
            before, size = size, tree_bytes(self._root / "data")
            same_s = same_s + 1 if size == before else 0
            time.sleep(1)
        return size

    def read(self, device: str, key: str, start_ms: int, end_ms: int, bucket_ms: int) -> int:
        selector = f'm_{key}{{device="{device}"}}'
        if not bucket_ms:
            asked = {"match[]": selector, "start": start_ms / 1000, "end": end_ms / 1000}
            lines = self._get(f"/api/v1/export?{urlencode(asked)}").splitlines()
            return sum(len(json.loads(line)["values"]) for line in lines)
        step = bucket_ms // 1000
        asked = {
            "query": f"avg_over_time({selector}[{step}s])",
            "start": start_ms / 1000, "end": end_ms / 1000, "step": step, "nocache": 1,
        }  # fmt: skip
        found = json.loads(self._get(f"/api/v1/query_range?{urlencode(asked)}"))
        return sum(len(one["values"]) for one in found["data"]["result"])

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        shutil.rmtree(self._root, ignore_errors=True)


def _number(value: object) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


class KeyPerPoint:
    """RocksDB with one key a point, zstd, as a straightforward store would have it."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="rocks-"))
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(DBCompressionType.zstd())
        self._db = Rdict(str(self._root), options)

    def fill(self, devices: Devices) -> float:
        before = resource.getrusage(resource.RUSAGE_SELF)
        for number, messages in enumerate(devices.values()):
            for some in chunks(messages):
                batch = WriteBatch(raw_mode=True)
                for ts, values in some:
                    for key, value in values.items():
                        name = struct.pack(">Q", number) + key.encode() + struct.pack(">q", ts)
                        batch.put(name, json.dumps(value).encode())
                self._db.write(batch)
            self._db.flush_wal(True)
        after = resource.getrusage(resource.RUSAGE_SELF)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def disk_bytes(self) -> int:
        self._db.flush(True)
        self._db.compact_range(None, None)
        return table_bytes(self._root)

    def read(self, device: str, key: str, start_ms: int, end_ms: int, bucket_ms: int) -> int:
        prefix = struct.pack(">Q", 0) + key.encode()
        it = self._db.iter()
        it.seek(prefix + struct.pack(">q", start_ms))
        end, found = prefix + struct.pack(">q", end_ms), []
        while it.valid() and it.key() < end:
            found.append(json.loads(it.value()))
            it.next()
        return len(found)

    def close(self) -> None:
        self._db.close()
        shutil.rmtree(self._root, ignore_errors=True)


class Parquet:
    """One file a device, written at once by pyarrow with zstd: no server, no appending."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="parquet-"))

    def fill(self, devices: Devices) -> float:
        tables = {}
        for device, messages in devices.items():
            keys = list(messages[0][1])
            columns = {"ts": [ts for ts, _ in messages]}
            for key in keys:
                values = [values[key] for _, values in messages]
                if isinstance(values[0], dict):
                    values = [json.dumps(value) for value in values]
                columns[key] = values
            tables[device] = pa.table(columns)
        before = resource.getrusage(resource.RUSAGE_SELF)
        for device, table in tables.items():
            pq.write_table(table, self._root / f"{device}.parquet", compression="zstd")
        after = resource.getrusage(resource.RUSAGE_SELF)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def disk_bytes(self) -> int:
        return tree_bytes(self._root)

    def read(self, device: str, key: str, start_ms: int, end_ms: int, bucket_ms: int) -> int:
        wanted = [("ts", ">=", start_ms), ("ts", "<", end_ms)]
        path = self._root / f"{device}.parquet"
        return int(pq.read_table(path, columns=["ts", key], filters=wanted).num_rows)

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


FIRST_MS = START_MS - 1_000
