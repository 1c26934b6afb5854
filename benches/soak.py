"""Sustained ingest with reads beside it: acknowledgements, memory, and bytes written.

    python -m benches.soak [--seconds 600] [--share 0.6] [--rate MESSAGES_PER_S]

First the peak of a closed loop, then `share` of it open loop for the whole time, in slices of ten
seconds; every slice is a sample of memory and of the bytes the disk was given.  Both under the
same conditions: devices send rounds of `BURST`, somebody reads, heads are sealed and chunks joined.
(Single messages cost the generator 7 us each: it could not keep half a million a second.)  A device
sends less than a message a millisecond, so that its own time does not run ahead of ours.

The load generator is on the same processors.  Latency counts from the time a message was due; what
of it is the generator's own is in `lag`, what is the server's is in `commit` (message read to
durable, by the server's own histogram: the upper end of its bucket).  Prints one line a slice and a
summary in JSON.  `waited`: time in which threads could have run and had no processor; `others`:
processors that went to neither server nor generator, so how quiet the machine was.
"""

import argparse
import contextlib
import os
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

import msgspec

from tbfast.cli import bench, client
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Result
from tbfast.loadgen.run import run as run_load
from tbfast.model.ranges import RangeQuery
from tests.support.server import Server

CONNECTIONS = 2_000
BURST = 32  # messages a device sends at once
DEPTH = 8 * BURST  # in flight in the open loop: a short stall does not close the window
PEAK_S = 20.0
SLICE_S = 10.0
READ_PAUSE_S = 0.2
READ_MS = 60_000  # of a device's time, looked at by one read
SETTLED = 36  # slices until the block cache is full and heads and joins have all been there
COMMIT = "tbfast_commit_seconds"


class Sample(msgspec.Struct):
    """One slice; milliseconds, bytes."""

    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_p999_ms: float
    commit_p999_ms: float
    generator_cores: float
    server_cores: float
    waited: dict[str, float]  # by process: threads that wait for a processor, on average
    others: float  # processors
    rss: int
    resident: dict[str, int]  # by process, the most of the slice
    received: int
    written: int


class Summary(msgspec.Struct):
    """Slopes: bytes an hour, by least squares, of all and by process; once it has `SETTLED`."""

    peak_rate: float
    asked_rate: float
    rate: float
    seconds: float
    median_p50_ms: float
    median_p99_ms: float
    median_p999_ms: float
    worst_p999_ms: float
    median_lag_p999_ms: float
    worst_lag_p999_ms: float
    median_commit_p999_ms: float
    worst_commit_p999_ms: float
    generator_cores: float
    server_cores: float
    waited: dict[str, float]
    others: float
    most_resident: dict[str, int]
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
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Reader":
        self._work = self._thread.submit(self._run)
        return self

    def __exit__(self, *exit: object) -> None:
        self._stop.set()
        self._work.result()

    def _run(self) -> None:
        assert self._target is not None
        views = [self._target.find(f"bench-{n}") for n in range(8)]
        while not self._stop.wait(READ_PAUSE_S):
            begun = time.monotonic()
            view = views[len(self.times) % len(views)]
            now_ms = time.time_ns() // 1_000_000
            self._target.history(view, RangeQuery(start_ms=now_ms - READ_MS, limit=1000))
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


def commit_quantile_ms(before: dict[str, float], after: dict[str, float], share: float) -> float:
    """Of the server's own histogram between two looks: the upper end of the bucket."""
    counts = {
        float(name.split('le="')[1].split('"')[0]): value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith(COMMIT + "_bucket")
    }
    wanted = share * max(counts.values())
    return 1000 * min(le for le, count in counts.items() if count >= wanted)


def forget_most_resident(processes: dict[str, int]) -> None:
    """What `most_resident` says counts from here on."""
    for pid in processes.values():
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def most_resident(processes: dict[str, int]) -> dict[str, int]:
    """The most resident memory there was, by process, in bytes."""
    most = {}
    for name, pid in processes.items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        most[name] = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM:"))
    return most


class Time(NamedTuple):
    """Seconds so far."""

    wall: float
    busy: float  # processors, of everybody
    ours: float  # of this process and the server's
    waited: dict[str, float]  # for a processor, by process


def spent(processes: dict[str, int]) -> Time:
    """What the scheduler has counted."""
    ticks = [int(x) for x in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # but idle and iowait
    ours, waited = 0.0, {}
    for name, pid in {**processes, "generator": os.getpid()}.items():
        ran, queued = scheduled(pid)
        ours += ran
        waited[name] = queued
    return Time(time.monotonic(), busy, ours, waited)


def scheduled(pid: int) -> tuple[float, float]:
    """Seconds that all threads of a process ran, and waited for a processor."""
    ran = queued = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = (task / "schedstat").read_text().split()
            ran, queued = ran + int(fields[0]), queued + int(fields[1])
    return ran / 1e9, queued / 1e9


def load(server: Server, pid: int, seconds: float, rate: float | None) -> Result:
    plan = Plan(
        port=server.mqtt_port, pids=(pid,), tokens=tuple(f"bench-{i}" for i in range(CONNECTIONS)),
        connections=CONNECTIONS, rate=rate, duration_s=seconds, warmup_s=0.5,
        depth=BURST if rate is None else DEPTH, burst=1 if rate is None else BURST,
    )  # fmt: skip
    return run_load(plan)


def sample(server: Server, processes: dict[str, int], rate: float) -> Sample:
    pids, pid = list(processes.values()), processes["supervisor"]
    before, wrote = metrics(server.http_port), written_bytes(pids)
    forget_most_resident(processes)
    began = spent(processes)
    result = load(server, pid, SLICE_S, rate)
    ended = spent(processes)
    seconds = ended.wall - began.wall
    after = metrics(server.http_port)
    received = 'tbfast_received_bytes_total{protocol="mqtt"}'
    assert result.latency is not None and result.lag is not None and result.server is not None
    return Sample(
        rate=result.rate,
        p50_ms=round(result.latency.p50 / 1000, 1),
        p99_ms=round(result.latency.p99 / 1000, 1),
        p999_ms=round(result.latency.p999 / 1000, 1),
        lag_p999_ms=round(result.lag.p999 / 1000, 1),
        commit_p999_ms=commit_quantile_ms(before, after, 0.999),
        generator_cores=result.generator_cores,
        server_cores=result.server.cpu_cores,
        waited={
            name: round((queued - began.waited[name]) / seconds, 2)
            for name, queued in ended.waited.items()
        },
        others=round((ended.busy - began.busy - ended.ours + began.ours) / seconds, 2),
        rss=result.server.pss or result.server.rss,
        resident=most_resident(processes),
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
        reader = stack.enter_context(Reader(server.data_dir))
        peak = load(server, processes["supervisor"], PEAK_S, None).rate
        rate = args.rate or peak * args.share
        samples: list[Sample] = []
        while len(samples) * SLICE_S < args.seconds:
            samples.append(sample(server, processes, rate))
            print(msgspec.json.encode(samples[-1]).decode(), file=sys.stderr, flush=True)
    summary = summed_up(peak, rate, samples, reader.times)
    print(msgspec.json.format(msgspec.json.encode(summary), indent=1).decode())
    return 0


def summed_up(peak: float, rate: float, samples: list[Sample], reads: list[float]) -> Summary:
    """Of the whole run; reads: seconds each."""
    settled = samples[SETTLED:] or samples
    latency = [s.p999_ms for s in samples]
    lag = [s.lag_p999_ms for s in samples]
    commit = [s.commit_p999_ms for s in samples]
    return Summary(
        peak_rate=round(peak),
        asked_rate=round(rate),
        rate=round(mean(s.rate for s in samples)),
        seconds=len(samples) * SLICE_S,
        median_p50_ms=median(s.p50_ms for s in samples),
        median_p99_ms=median(s.p99_ms for s in samples),
        median_p999_ms=median(latency),
        worst_p999_ms=max(latency),
        median_lag_p999_ms=median(lag),
        worst_lag_p999_ms=max(lag),
        median_commit_p999_ms=median(commit),
        worst_commit_p999_ms=max(commit),
        generator_cores=round(mean(s.generator_cores for s in samples), 2),
        server_cores=round(mean(s.server_cores for s in samples), 2),
        waited={
            name: round(mean(s.waited[name] for s in samples), 2) for name in samples[0].waited
        },
        others=round(mean(s.others for s in samples), 2),
        most_resident={
            name: max(s.resident[name] for s in samples) for name in samples[0].resident
        },
        rss_slope=round(slope([s.rss for s in settled])),
        resident_slopes={
            name: round(slope([s.resident[name] for s in settled])) for name in samples[0].resident
        },
        write_amplification=round(
            sum(s.written for s in samples) / sum(s.received for s in samples), 2
        ),
        reads=len(reads),
        worst_read_ms=round(1000 * max(reads, default=0.0), 1),
    )


if __name__ == "__main__":
    sys.exit(main())
