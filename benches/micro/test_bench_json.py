"""Telemetry JSON to rows: nanoseconds a message, against orjson and rows packed in Python.

    python -m pytest benches/micro/test_bench_json.py --benchmark-enable -s

The baseline makes the same points of the same payloads with less care: no exact decimals, no number
in strings, no check of names, nothing undone on refusal.  Ours includes the call from Python; the
hot path of a worker calls the scanner from C and saves about 60 ns a message.
"""

import struct
from collections.abc import Callable, Iterator

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tbfast._ext.batch import Batch
from tbfast._ext.tbjson import append_telemetry

pytestmark = pytest.mark.bench

MESSAGES = 1_000
NOW_MS = 1_700_000_000_000
READING = b'{"ts":1451649600512,"values":{"temperature":21.5,"humidity":60}}'
PAYLOADS = {
    "flat3": b'{"temperature":21.5,"humidity":60,"ok":true}',
    "ts+10": (
        b'{"ts":1451649600512,"values":{"temperature":21.5,"humidity":60,"pressure":1013.25,'
        b'"battery":3.71,"rssi":-71,"door":false,"mode":"auto","count":123456,"fw":"1.2.3","err":0}}'
    ),
    "array of 10": b"[" + b",".join([READING] * 10) + b"]",
    "nested": (
        b'{"gps":{"lat":52.520008,"lon":13.404954,"sat":[1,4,7,12],"fix":{"type":"3d","hdop":0.9}},'
        b'"state":"moving"}'
    ),
    "spaced": b'{"temperature": 21.5, "humidity": 60, "gps": {"lat": 52.52, "lon": 13.40}}',
    "lenient": b"{temperature:21.5,humidity:60,ok:true}",
}
STRICT = [name for name in PAYLOADS if name != "lenient"]

baseline_ns: dict[str, float] = {}


def report(benchmark: BenchmarkFixture, name: str) -> None:
    """Adds ns a message, MB/s, and the ratio to the baseline, which runs first."""
    if benchmark.stats is None:  # --benchmark-disable: the code ran once as a test
        return
    ns = benchmark.stats["min"] / MESSAGES * 1e9
    info = benchmark.extra_info
    info["ns_per_message"] = round(ns, 1)
    info["mb_per_s"] = round(len(PAYLOADS[name]) / ns * 1e3)
    if "baseline" in benchmark.name:
        baseline_ns[name] = ns
    elif name in baseline_ns:
        info["baseline_ratio"] = round(baseline_ns[name] / ns, 1)
    print(f"\n{benchmark.name}: {info}")


class PythonRows:
    """The baseline."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.rows = bytearray()
        self.double = struct.Struct("<QIqBd").pack
        self.long = struct.Struct("<QIqBq").pack
        self.head = struct.Struct("<QIqBI").pack

    def append(self, device: int, payload: bytes, now_ms: int) -> None:
        for ts, values in self.records(orjson.loads(payload), now_ms):
            for key, value in values.items():
                self.point(device, self.keys.setdefault(key, len(self.keys)), ts, value)

    def records(self, document: object, now_ms: int) -> Iterator[tuple[int, dict[str, object]]]:
        for element in document if isinstance(document, list) else [document]:
            if "ts" in element and "values" in element:
                yield element["ts"], element["values"]
            else:
                yield now_ms, element

    def point(self, device: int, key: int, ts: int, value: object) -> None:
        if isinstance(value, bool):
            self.rows += self.long(device, key, ts, 2, value)
        elif isinstance(value, int):
            self.rows += self.long(device, key, ts, 0, value)
        elif isinstance(value, float):
            self.rows += self.double(device, key, ts, 1, value)
        elif value is not None:
            data = value.encode() if isinstance(value, str) else orjson.dumps(value)
            self.rows += self.head(device, key, ts, 4, len(data)) + data


def messages(append: Callable[[int, bytes, int], object], payload: bytes) -> None:
    for _ in range(MESSAGES):
        append(7, payload, NOW_MS)


@pytest.mark.parametrize("name", STRICT)
def test_bench_baseline(benchmark: BenchmarkFixture, name: str) -> None:
    def run() -> None:
        messages(PythonRows().append, PAYLOADS[name])

    benchmark(run)
    report(benchmark, name)


@pytest.mark.parametrize("name", PAYLOADS)
def test_bench_scanner(benchmark: BenchmarkFixture, name: str) -> None:
    batch = Batch()

    def run() -> None:
        batch.clear(NOW_MS)
        payload = PAYLOADS[name]
        for _ in range(MESSAGES):
            append_telemetry(batch, 7, payload, NOW_MS)

    benchmark(run)
    report(benchmark, name)
    assert batch.records == MESSAGES * (10 if name == "array of 10" else 1)
