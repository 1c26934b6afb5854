"""HTTP against nginx: telemetry that is stored against a bare 200, and the reverse proxies.

    deploy/packages.sh wrk:wrk nginx:nginx && python -m benches.http.run [--quick]

Both servers run at the same time and are measured in turn by wrk over kept connections.  CPU is
that of a server's processes; its first process is tbfast's worker.
"""

import argparse
import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benches.baselines.nginx import nginx
from benches.baselines.nginx import version as nginx_version
from benches.http.wrk import cpu_s, load
from tests.support.server import Server
from tests.support.waiting import wait_until

RESULTS = Path(__file__).parents[1] / "results" / "http.json"
BODY = '{"temperature":21.5,"humidity":40,"ok":true}'
CONNECTIONS = (100, 500)


class Subject:
    """One server under load."""

    def __init__(self, name: str, port: int, pids: list[int], path: str) -> None:
        self.name = name
        self.port = port
        self.pids = pids
        self.path = path

    def measure(self, connections: int, seconds: float, method: str, body: str | None) -> Any:
        before = [cpu_s([pid]) for pid in self.pids]
        found: dict[str, Any] = dict(load(self.port, connections, seconds, method, self.path, body))
        assert found["errors"] == 0, f"{self.name}: {found}"
        spent = [cpu_s([pid]) - was for pid, was in zip(self.pids, before, strict=True)]
        found["cpu_us"] = 1e6 * sum(spent) / found["requests"]
        found["first_cpu_us"] = 1e6 * spent[0] / found["requests"]
        return found


@contextlib.contextmanager
def front(directory: Path) -> Iterator[Path]:
    """The stand-in for the controller, in a process of its own."""
    path = directory / "front.sock"
    process = subprocess.Popen([sys.executable, "-m", "benches.http.front", str(path)])
    try:
        wait_until(path.exists, what="the stand-in listens")
        yield path
    finally:
        process.terminate()
        process.wait(10)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Rounds by scenario and server."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(workers=1))
        token = server.add_device("bench")
        pids = server.pids()
        mine = [pids["worker-0"], *(p for name, p in pids.items() if name != "worker-0")]
        telemetry = f"/api/v1/{token}/telemetry"
        bare_pids, bare_port = stack.enter_context(nginx())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="tbfast-bench-"))
        path = stack.enter_context(front(Path(directory)))
        proxy_pids, proxy_port = stack.enter_context(nginx(path))
        os.symlink(path, server.data_dir / "front.new")
        os.replace(server.data_dir / "front.new", server.data_dir / "front.sock")
        scenarios = {
            "telemetry": ("POST", BODY, [
                Subject("tbfast", server.http_port, mine, telemetry),
                Subject("nginx", bare_port, bare_pids, telemetry),
            ]),
            "proxy": ("GET", None, [
                Subject("tbfast", server.http_port, mine, "/api/x"),
                Subject("nginx", proxy_port, proxy_pids, "/api/x"),
            ]),
        }  # fmt: skip
        rounds: dict[str, Any] = {}
        for _ in range(args.rounds):
            for name, (method, body, subjects) in scenarios.items():
                for connections in CONNECTIONS if name == "telemetry" else CONNECTIONS[:1]:
                    for subject in subjects:
                        found = subject.measure(connections, args.duration, method, body)
                        key = f"{name}, {connections} connections"
                        rounds.setdefault(key, {}).setdefault(subject.name, []).append(found)
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=3.0, metavar="S")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.duration = 1, 1.0
    load_before = os.getloadavg()[0]
    rounds = measure(args)
    ratios = {}
    for key, servers in rounds.items():
        print(key)
        for name, found in servers.items():
            middle = {k: statistics.median(one[k] for one in found) for k in found[0]}
            print(
                f"  {name:7} {middle['cpu_us']:6.2f} us CPU a request"
                f" ({middle['first_cpu_us']:.2f} in its first process),"
                f" {1e6 * middle['requests'] / middle['us']:.0f}/s,"
                f" p99 {middle['p99_us'] / 1000:.1f} ms,"
                f" {sum(one['errors'] for one in found)} errors"
            )
        ratios[key] = statistics.median(
            mine["cpu_us"] / peer["cpu_us"]
            for mine, peer in zip(servers["tbfast"], servers["nginx"], strict=True)
        )
        print(f"  ratio   {ratios[key]:6.2f}")
    report = {
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "nginx": nginx_version(),
            "load_before": load_before,
            "date": time.strftime("%Y-%m-%d"),
        },
        "ratio_of_cpu": ratios,
        "rounds": rounds,
    }
    args.out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
