"""Sustained ingest with reads beside it: acknowledgements, memory, and bytes written.

    python -m benches.soak [--seconds 600] [--share 0.6] [--rate MESSAGES_PER_S]

First the peak of a closed loop, then `share` of it open loop for the whole time, in slices of ten
seconds; every slice is a sample of memory and of the bytes the disk was given.  Prints one line a
slice and a summary in JSON.
"""

import argparse
import contextlib
import os
import sys
import threading
import time
import urllib.request
from pathlib import Path

import msgspec

from tbfast.cli import bench, client
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Result
from tbfast.loadgen.run import run as run_load
from tbfast.model.ranges import RangeQuery
from tests.support.server import Server

CONNECTIONS = 200
PEAK_S = 3.0
SLICE_S = 10.0
READ_PAUSE_S = 0.2


class Sample(msgspec.Struct):
    """One slice; milliseconds, bytes."""

    rate: float
    p99_ms: float
    p999_ms: float
    rss: int
    resident: dict[str, int]  # by process
    received: int
    written: int


class Summary(msgspec.Struct):
    """Slopes: bytes an hour, by least squares without the first slice; of all and by process."""

    peak_rate: float
    rate: float
    seconds: float
    worst_p999_ms: float
    median_p999_ms: float
    rss_slope: float
    resident_slopes: dict[str, float]
    write_amplification: float
    reads: int
    worst_read_ms: float


class Reader:
    """Somebody who looks at the last minutes of one device after the other."""

    def __init__(self, data_dir: Path) -> None:
        self._target = client.connect(data_dir)
        self._stop = threading.Event()
        self.times: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *exit: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        assert self._target is not None
        views = [self._target.find(f"bench-{n}") for n in range(8)]
        while not self._stop.wait(READ_PAUSE_S):
            begun = time.monotonic()
            view = views[len(self.times) % len(views)]
            self._target.history(view, RangeQuery(limit=1000))
            self.times.append(time.monotonic() - begun)


def metrics(port: int) -> dict[str, float]:
    """Samples of /metrics by name with labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {n: float(v) for n, v in (x.rsplit(" ", 1) for x in lines if x[:1] != "#")}


def written_bytes(pids: list[int]) -> int:
    """Bytes that the processes gave to the disk."""
    total = 0
    for pid in pids:
        fields = dict(x.split(": ") for x in Path(f"/proc/{pid}/io").read_text().splitlines())
        total += int(fields["write_bytes"])
    return total


def resident_bytes(processes: dict[str, int]) -> dict[str, int]:
    """Resident memory by process."""
    page = os.sysconf("SC_PAGESIZE")
    return {
        name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page
        for name, pid in processes.items()
    }


def load(server: Server, pid: int, seconds: float, rate: float | None) -> Result:
    tokens = tuple(f"bench-{i}" for i in range(CONNECTIONS))
    plan = Plan(
        port=server.mqtt_port, pids=(pid,), tokens=tokens, connections=CONNECTIONS, depth=64,
        rate=rate, duration_s=seconds, warmup_s=0.5,
    )  # fmt: skip
    return run_load(plan)


def sample(server: Server, processes: dict[str, int], rate: float) -> Sample:
    pids, pid = list(processes.values()), processes["supervisor"]
    before, wrote = metrics(server.http_port), written_bytes(pids)
    result = load(server, pid, SLICE_S, rate)
    after = metrics(server.http_port)
    received = 'tbfast_received_bytes_total{protocol="mqtt"}'
    assert result.latency is not None and result.server is not None
    return Sample(
        rate=result.rate,
        p99_ms=result.latency.p99 / 1000,
        p999_ms=result.latency.p999 / 1000,
        rss=result.server.pss or result.server.rss,
        resident=resident_bytes(processes),
        received=int(after[received] - before[received]),
        written=written_bytes(pids) - wrote,
    )


def slope(values: list[int]) -> float:
    """Bytes an hour."""
    n = len(values)
    if n < 2:
        return 0.0
    mean = (n - 1) / 2
    spread = sum((x - mean) ** 2 for x in range(n))
    up = sum((x - mean) * y for x, y in enumerate(values)) / spread
    return up * 3600 / SLICE_S


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--share", type=float, default=0.6, help="of the peak")
    parser.add_argument("--rate", type=float, help="messages a second instead of a share")
    args = parser.parse_args()
    with Server() as server, contextlib.ExitStack() as stack:
        target = client.connect(server.data_dir)
        assert target is not None
        with contextlib.closing(target):
            bench.provision(target, CONNECTIONS, lambda phase, share, messages: None)
        processes = server.pids()
        peak = load(server, processes["supervisor"], PEAK_S, None).rate
        rate = args.rate or peak * args.share
        reader = stack.enter_context(Reader(server.data_dir))
        samples: list[Sample] = []
        while len(samples) * SLICE_S < args.seconds:
            samples.append(sample(server, processes, rate))
            print(msgspec.json.encode(samples[-1]).decode(), file=sys.stderr, flush=True)
    late = sorted(s.p999_ms for s in samples)
    summary = Summary(
        peak_rate=round(peak),
        rate=round(sum(s.rate for s in samples) / len(samples)),
        seconds=len(samples) * SLICE_S,
        worst_p999_ms=late[-1],
        median_p999_ms=late[len(late) // 2],
        rss_slope=round(slope([s.rss for s in samples[1:]])),
        resident_slopes={
            name: round(slope([s.resident[name] for s in samples[1:]])) for name in processes
        },
        write_amplification=round(
            sum(s.written for s in samples) / sum(s.received for s in samples), 2
        ),
        reads=len(reader.times),
        worst_read_ms=round(1000 * max(reader.times, default=0.0), 1),
    )
    print(msgspec.json.format(msgspec.json.encode(summary), indent=1).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
