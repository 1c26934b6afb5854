"""Bytes and nanoseconds a point, and reads a second, against other stores in the same run.

    deploy/packages.sh victoria-metrics:victoria-metrics
    python -m benches.storage.compare [--devices 10] [--points 20000] [--reads 100]

tbfast and VictoriaMetrics are servers that get the same messages over HTTP and answer over HTTP;
their CPU is that of all their processes.  RocksDB with a key a point and Parquet with zstd run in
this process.  VictoriaMetrics holds numbers only, as floats.  Writes benches/results/storage.json.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benches.storage.series import KINDS, START_MS
from benches.storage.stores import (
    FIRST_MS,
    Devices,
    KeyPerPoint,
    Parquet,
    Store,
    Tbfast,
    VictoriaMetrics,
)

STORES: dict[str, Callable[[], Store]] = {
    "tbfast": Tbfast,
    "VictoriaMetrics": VictoriaMetrics,
    "key per point": KeyPerPoint,
    "Parquet + zstd": Parquet,
}
RESULT = Path(__file__).parents[1] / "results" / "storage.json"
HOUR_POINTS = 3_600
BUCKET_MS = 60_000


def measured(store: Store, devices: Devices, reads: int) -> dict[str, float]:
    """One kind of series in one store."""
    points = sum(len(values) for messages in devices.values() for _, values in messages)
    spent_s = store.fill(devices)
    figures = {"ns_per_point": spent_s / points * 1e9}
    figures["bytes_per_point"] = store.disk_bytes() / points
    device, messages = next(iter(devices.items()))
    key, end_ms = next(iter(messages[0][1])), START_MS + 1_000 * len(messages)
    hour = min(HOUR_POINTS, len(messages)) * 1_000
    found = store.read(device, key, FIRST_MS, end_ms, 0)
    assert found == len(messages), (found, len(messages))
    begun = time.perf_counter()
    for n in range(reads):
        start_ms = START_MS + (n * 977_000) % max(1, 1_000 * len(messages) - hour)
        assert store.read(device, key, start_ms, start_ms + hour, 0)
    figures["hours_read_per_s"] = reads / (time.perf_counter() - begun)
    numbers = type(messages[0][1][key]) in (int, float)
    if numbers and isinstance(store, Tbfast | VictoriaMetrics):
        begun = time.perf_counter()
        for _ in range(reads):
            assert store.read(device, key, START_MS, START_MS + 600 * BUCKET_MS, BUCKET_MS)
        figures["averages_per_s"] = reads / (time.perf_counter() - begun)
    return figures


def main() -> int:
    """The table, on standard output and as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=10)
    parser.add_argument("--points", type=int, default=20_000, help="messages of each device")
    parser.add_argument("--reads", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for kind, (messages, numeric) in KINDS.items():
        rng = random.Random(args.seed)
        devices = {f"device-{n}": list(messages(rng, args.points)) for n in range(args.devices)}
        results[kind] = {}
        for name, make in STORES.items():
            if name == "VictoriaMetrics" and not numeric:
                continue
            store = make()
            try:
                figures = results[kind][name] = measured(store, devices, args.reads)
            finally:
                store.close()
            shown = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
            print(f"{kind:18}{name:17}{shown}", flush=True)
    RESULT.write_text(json.dumps({"arguments": vars(args), "results": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
