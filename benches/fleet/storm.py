"""A fleet that connects all at once, without and with TLS; then what it weighs while it idles.

    python -m benches.fleet.storm [--plain N] [--tls N]

Every device sends CONNECT and SUBSCRIBE; it is in when both are answered.  Twenty devices that were
in before publish all the while.  The node has one worker and has never heard of the fleet: nothing
is cached.  Every TLS handshake is a full one, whose other half costs this machine as much.
"""

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benches.fleet.storm_devices import Fleet, check_descriptors
from tbfast.cli import bench, client, output
from tests.support.canaries import Canaries, cpu_s, rss_bytes
from tests.support.certificates import TlsServer
from tests.support.waiting import wait_until

RESULT = Path(__file__).parents[1] / "results/storm.json"
SETTLE_S = 60.0
STILL_S = 2.0  # memory is settled when it has not changed for so long
STILL_BYTES = 1 << 20


class Storm(msgspec.Struct):
    """One storm; times in seconds, memory that of the worker."""

    connections: int
    tls: bool
    all_in_s: float
    p50_s: float
    p99_s: float
    tried_again: int
    lost_afterwards: int
    worker_cpu_us_per_connection: int
    ack_p99_s: float  # of the devices that were in before
    peak_rss_bytes: int
    bytes_per_idle_connection: int


def storm(server: TlsServer, count: int, *, tls: bool) -> Storm:
    """One storm of so many devices."""
    target = client.connect(server.data_dir)
    assert target is not None
    with contextlib.closing(target), output.bar("creating devices", "devices") as show:
        tokens = bench.provision(
            target, count, lambda _, share, __: show(round(share * count), count)
        )
    worker = server.pids()["worker-0"]
    port = server.mqtt_tls_port if tls else server.mqtt_port
    with (
        Canaries(server) as canaries,
        Fleet(port, tokens, server.certificate.pem if tls else "") as fleet,
    ):
        canaries.p99_s()  # what came before does not count
        cpu, rss = cpu_s(worker), rss_bytes(worker)
        with output.bar("devices in, TLS" if tls else "devices in", "devices") as show:
            came = fleet.storm(lambda inside: show(inside, count))
        cpu = cpu_s(worker) - cpu
        ack_p99_s = canaries.p99_s()
        peak = _peak_rss_bytes(worker)
        _settle(worker)
        each = (rss_bytes(worker) - rss) / count
        lost = fleet.end()
    return Storm(
        connections=count, tls=tls, all_in_s=came.seconds[-1],
        p50_s=came.seconds[count // 2], p99_s=came.seconds[count * 99 // 100],
        tried_again=came.tried_again, lost_afterwards=lost,
        worker_cpu_us_per_connection=round(cpu / count * 1e6), ack_p99_s=ack_p99_s,
        peak_rss_bytes=peak, bytes_per_idle_connection=round(each),
    )  # fmt: skip


def _peak_rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _settle(pid: int) -> None:
    """Waits until freed memory has gone back."""
    rss, since = rss_bytes(pid), time.monotonic()

    def still() -> bool:
        nonlocal rss, since
        now = rss_bytes(pid)
        if abs(now - rss) > STILL_BYTES:
            rss, since = now, time.monotonic()
        return time.monotonic() - since > STILL_S

    wait_until(still, SETTLE_S, "the worker's memory is settled")


def markdown(storms: list[Storm]) -> str:
    """The table."""
    lines = [
        "| connections | all in s | p50 s | p99 s | tried again | lost | CPU µs each "
        "| others' ack p99 ms | peak RSS MiB | KiB each, idle |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.connections:,} {'TLS' if one.tls else 'plain'} | {one.all_in_s:.1f} "
        f"| {one.p50_s:.1f} | {one.p99_s:.1f} | {one.tried_again:,} | {one.lost_afterwards} "
        f"| {one.worker_cpu_us_per_connection:,} | {one.ack_p99_s * 1000:.0f} "
        f"| {one.peak_rss_bytes / 2**20:.0f} | {one.bytes_per_idle_connection / 1024:.2f} |"
        for one in storms
    ]
    return "\n".join(lines)


def main() -> int:
    """Runs both, prints the table and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", type=int, default=10_000, metavar="N", help="without TLS")
    parser.add_argument("--tls", type=int, default=10_000, metavar="N", help="with TLS")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    check_descriptors(max(args.plain, args.tls))
    load_before = os.getloadavg()[0]
    storms = []
    for count, tls in ((args.plain, False), (args.tls, True)):
        if count:
            with tempfile.TemporaryDirectory() as path, TlsServer(Path(path)) as server:
                storms.append(storm(server, count, tls=tls))
    machine: dict[str, Any] = {
        "cores": os.cpu_count(), "kernel": platform.release(), "load_before": load_before,
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    report = {"machine": machine, "storms": msgspec.to_builtins(storms)}
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(storms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
