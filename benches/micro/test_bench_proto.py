"""Protobuf telemetry to rows of the open batch, against our JSON and against Google's decoder.

`baseline`: Google's library (upb) parses, Python packs the same rows.  `json`: the same values as
JSON through our scanner.  Payloads are those of ThingsBoard's documentation and a flat one.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benches.micro.test_bench_json import MESSAGES, NOW_MS, PythonRows
from tbfast._ext.batch import Batch
from tbfast._ext.proto import append
from tbfast._ext.tbjson import append_telemetry
from tbfast.codec import proto_table
from tbfast.codec.proto_schema import parse
from tests.support.oracle_proto import message_class
from tests.support.proto_profiles import TELEMETRY, made

pytestmark = pytest.mark.bench

FLAT = """syntax = "proto3";
enum Mode { OFF = 0; AUTO = 1; }
message Reading {
  double temperature = 1; float humidity = 2; int32 rssi = 3; sint64 count = 4; bool door = 5;
  Mode mode = 6; string fw = 7; double pressure = 8; uint32 err = 9; fixed32 serial = 10;
}
"""
SCHEMAS = {
    "default": (TELEMETRY, {"temperature": 21.5, "humidity": 60.25, "inner_object": {"key4": 7}}),
    "flat10": (
        FLAT,
        {
            "temperature": 21.53, "humidity": 60.25, "rssi": -71, "count": 123456, "door": True,
            "mode": 1, "fw": "1.2.3", "pressure": 1013.25, "err": 0, "serial": 77,
        },
    ),
    "noise": (FLAT, {"temperature": 1 / 3, "pressure": 1013.0 / 7}),
}  # fmt: skip
PAYLOADS = {name: made(text, **members) for name, (text, members) in SCHEMAS.items()}
TABLES = {name: proto_table.telemetry(text).table for name, (text, _) in SCHEMAS.items()}

baseline_ns: dict[str, float] = {}


def report(benchmark: BenchmarkFixture, name: str) -> None:
    """Adds ns a message, and the ratio to the baseline, which runs first."""
    if benchmark.stats is None:  # --benchmark-disable: the code ran once as a test
        return
    ns = benchmark.stats["min"] / MESSAGES * 1e9
    benchmark.extra_info["ns_per_message"] = round(ns, 1)
    benchmark.extra_info["bytes"] = len(PAYLOADS[name])
    if "baseline" in benchmark.name:
        baseline_ns[name] = ns
    elif name in baseline_ns:
        benchmark.extra_info["baseline_ratio"] = round(baseline_ns[name] / ns, 1)
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def google(rows: PythonRows, cls: Any) -> Callable[[bytes], None]:
    fields = cls.DESCRIPTOR.fields

    def append_one(payload: bytes) -> None:
        message = cls.FromString(payload)
        for field in fields:
            if not field.has_presence or message.HasField(field.name):
                value = getattr(message, field.name)
                if field.message_type is not None:
                    value = {f.json_name: v for f, v in value.ListFields()}
                key = rows.keys.setdefault(field.json_name, len(rows.keys))
                rows.point(7, key, NOW_MS, value)

    return append_one


@pytest.mark.parametrize("name", SCHEMAS)
def test_bench_baseline(benchmark: BenchmarkFixture, name: str) -> None:
    cls = message_class(parse(SCHEMAS[name][0]))

    def run() -> None:
        one = google(PythonRows(), cls)
        for _ in range(MESSAGES):
            one(PAYLOADS[name])

    benchmark(run)
    report(benchmark, name)


def scanned(benchmark: BenchmarkFixture, name: str, one: Callable[[Batch], object]) -> None:
    batch = Batch()

    def run() -> None:
        batch.clear(NOW_MS)
        for _ in range(MESSAGES):
            one(batch)

    benchmark(run)
    report(benchmark, name)
    assert batch.records == MESSAGES


@pytest.mark.parametrize("name", SCHEMAS)
def test_bench_proto(benchmark: BenchmarkFixture, name: str) -> None:
    payload, table = PAYLOADS[name], TABLES[name]
    scanned(benchmark, name, lambda batch: append(batch, table, 7, payload, NOW_MS))


@pytest.mark.parametrize("name", SCHEMAS)
def test_bench_json(benchmark: BenchmarkFixture, name: str) -> None:
    text = TABLES[name].print(PAYLOADS[name])
    assert json.loads(text)
    scanned(benchmark, name, lambda batch: append_telemetry(batch, 7, text, NOW_MS))
