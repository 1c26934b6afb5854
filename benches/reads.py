"""Reads of long series over REST: how long they take, and what ingest beside them notices.

    python -m benches.reads [--rounds N] [--seconds S] [--rate R] [--days-only]

A day (86 400 points) is read from sealed and from joined chunks, through a worker.  Then devices
publish at QoS 1 and a steady rate while another process does nothing but read a month (2.6 million
points), in buckets or raw up to the limit; the baseline is the same load without the reader, in
turns in the same run: each figure is the median of the rounds.
"""

import argparse
import contextlib
import http.client
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import msgspec

from tbfast.loadgen import processes
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Latency
from tbfast.loadgen.run import run
from tests.support.long_series import KEY, START_MS, store_series
from tests.support.rest_client import Person
from tests.support.server import Server

DAY = 86_400
MONTH = 30 * DAY
DEVICES = 50
_SPAWN = multiprocessing.get_context("spawn")


def path_of(device_id: str, points: int, **query: Any) -> str:
    """Of the history of a series."""
    wanted = {"keys": KEY, "startTs": START_MS, "endTs": START_MS + points * 1000, **query}
    words = "&".join(f"{name}={value}" for name, value in wanted.items())
    return f"/api/plugins/telemetry/DEVICE/{device_id}/values/timeseries?{words}"


def get(connection: http.client.HTTPConnection, path: str, token: str) -> bytes:
    """The body of a 200."""
    connection.request("GET", path, headers={"X-Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body[:200]
    return body


def read_again_and_again(
    port: int, path: str, token: str, begun: Event, stop: Event, reads: Any
) -> None:
    """Of a process of its own, which gives way: it stands for another machine."""
    os.nice(10)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as peer:
        while not stop.is_set():
            get(peer, path, token)
            reads.value += 1
            begun.set()


@contextlib.contextmanager
def reader(port: int, path: str, token: str) -> Iterator[Any]:
    """Reads in the meantime; the value counts them."""
    begun, stop, reads = _SPAWN.Event(), _SPAWN.Event(), _SPAWN.Value("i", 0)
    process = _SPAWN.Process(
        target=read_again_and_again, args=(port, path, token, begun, stop, reads)
    )
    process.start()
    try:
        assert begun.wait(60), "no read has ended"
        reads.value = 0
        yield reads
    finally:
        stop.set()
        process.join()


def timed_reads(server: Server, path: str, token: str, times: int) -> dict[str, Any]:
    """Milliseconds from the request to the last byte, and of CPU of the whole server."""
    pids = tuple(server.pids().values())
    walls, spent = [], []
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    ) as peer:
        for _ in range(times):
            before = processes.cpu_ns(pids)
            begun = time.perf_counter()
            body = get(peer, path, token)
            walls.append((time.perf_counter() - begun) * 1e3)
            spent.append(processes.spent_ns(before, processes.cpu_ns(pids)) / 1e6)
    return {
        "bytes": len(body),
        "points": body.count(b'"ts"'),
        "wall_ms": {"best": round(min(walls), 1), "median": round(statistics.median(walls), 1)},
        "cpu_ms": {"best": round(min(spent), 1), "median": round(statistics.median(spent), 1)},
    }


def load(server: Server, rate: float, seconds: float) -> Latency:
    """Acknowledgement latencies of a steady load, microseconds."""
    plan = Plan(
        port=server.mqtt_port,
        connections=DEVICES,
        depth=64,
        rate=rate,
        duration_s=seconds,
        tokens=tuple(f"load-{n}" for n in range(DEVICES)),
        own_ts=True,
    )
    result = run(plan, lambda phase, share, messages: None)
    assert result.latency is not None
    assert result.unacknowledged == result.lost == result.refused == 0, result
    return result.latency


def beside_reads(
    server: Server, reads: dict[str, str], token: str, rate: float, seconds: float, rounds: int
) -> dict[str, Any]:
    """Latencies alone and beside each kind of read, in turns."""
    seen: dict[str, list[Latency]] = {"alone": [], **{name: [] for name in reads}}
    counts = dict.fromkeys(reads, 0)
    for _ in range(rounds):
        seen["alone"].append(load(server, rate, seconds))
        for name, path in reads.items():
            with reader(server.http_port, path, token) as count:
                seen[name].append(load(server, rate, seconds))
                counts[name] += count.value
    middle = {
        name: {
            field: statistics.median(getattr(latency, field) for latency in found)
            for field in ("p50", "p99", "max")
        }
        for name, found in seen.items()
    }
    return {
        name: {
            "reads": counts.get(name, 0),
            "latency_us": found,
            "of_alone": {f: round(found[f] / middle["alone"][f], 2) for f in found},
            "worst_us": max(latency.max for latency in seen[name]),
        }
        for name, found in middle.items()
    }


def main() -> int:
    """Prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=30, help="a day is read")
    parser.add_argument("--days-only", action="store_true")
    args = parser.parse_args()
    with Server(workers=1) as server:
        for name in ("sealed", "joined", "month"):
            server.add_device(name)
        for number in range(DEVICES):
            server.add_device(f"load-{number}")
        ids = {name: server.device_id(name) for name in ("sealed", "joined", "month")}
        password = server.first_password()
        assert server.stop() == 0
        data_dir: Path = server.data_dir
        store_series(data_dir, ids["joined"], DAY)
        if not args.days_only:
            store_series(data_dir, ids["month"], MONTH, points_per_run=3_600)
        store_series(data_dir, ids["sealed"], DAY, join=False)
        server.start()
        person = Person(server.http_port).login("admin@tbfast.local", password)
        token = person.tokens["token"]
        person.close()
        found: dict[str, Any] = {}
        for name in ("sealed", "joined"):
            path = path_of(ids[name], DAY, limit=100_000)
            found[f"a day, {name}"] = timed_reads(server, path, token, args.times)
        if not args.days_only:
            month = {
                "a month in buckets": path_of(
                    ids["month"], MONTH, agg="AVG", interval=2 * 3_600_000
                ),
                "a month, a million raw": path_of(ids["month"], MONTH, limit=1_000_000),
            }
            for name, path in month.items():
                found[name] = timed_reads(server, path, token, 5)
            found[f"acknowledgements at {args.rate:.0f} messages/s"] = beside_reads(
                server, month, token, args.rate, args.seconds, args.rounds
            )
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
