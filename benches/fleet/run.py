"""Real sockets, the load generator in its own process: tbfast against mosquitto.

    python -m benches.fleet.run [--quick] [--plot FILE]

All servers run at the same time and are measured in turn, round after round, so that whatever
else the machine does meets all of them.  CPU is that of all processes of a server together; where
the generator takes the rest of the machine, messages/s says what both together can do and CPU per
message is the figure to compare.
"""

import argparse
import contextlib
import importlib.util
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from benches.baselines.mosquitto import Broker, mosquitto
from benches.baselines.mosquitto import version as mosquitto_version
from benches.fleet import summary
from benches.fleet.node import Node, tbfast
from benches.fleet.scenarios import IDLE, SCENARIOS, VARIANTS, Scenario, Variant
from tbfast import __version__
from tbfast.loadgen.plan import Plan
from tbfast.loadgen.result import Result
from tbfast.loadgen.run import run as run_load

RESULTS = Path(__file__).parents[1] / "results" / "fleet.json"


class Report(msgspec.Struct):
    """What is written to benches/results/fleet.json."""

    machine: dict[str, Any]
    options: dict[str, Any]
    rounds: dict[str, dict[str, list[Result]]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round of a second each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=3.0, metavar="S")
    parser.add_argument("--scenario", action="append", metavar="KEY", help="only these")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG or SVG by suffix")
    args = parser.parse_args()
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        parser.error("--plot needs matplotlib: pip install matplotlib")
    if args.quick:
        args.rounds, args.duration = 1, 1.0
    return args


def main() -> int:
    args = arguments()
    load_before = os.getloadavg()[0]
    wanted = [s for s in SCENARIOS if not args.scenario or s.key in args.scenario]
    rounds: summary.Rounds = measure_load(wanted, args) if wanted else {}
    if not args.scenario or IDLE.key in args.scenario:
        rounds[IDLE.key] = measure_idle()
    report = Report(
        machine={
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "tbfast": __version__,
            "mosquitto": mosquitto_version(),
            "load_before": load_before,
            "date": time.strftime("%Y-%m-%d"),
        },
        options={"rounds": args.rounds, "duration_s": args.duration},
        rounds=rounds,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    print(summary.markdown(rounds))
    if args.plot:
        from benches.fleet import plot

        plot.draw(rounds, args.plot)
    return 0


def measure_load(scenarios: list[Scenario], args: argparse.Namespace) -> summary.Rounds:
    """Every scenario against every server, in rounds."""
    rounds: summary.Rounds = {s.key: {v.key: [] for v in VARIANTS} for s in scenarios}
    devices = max(s.fields["connections"] for s in scenarios)
    with contextlib.ExitStack() as stack:
        servers = {v: stack.enter_context(_server(v, devices)) for v in VARIANTS}
        for number in range(args.rounds):
            for scenario in scenarios:
                for variant, server in servers.items():
                    _say(f"round {number + 1}: {scenario.key}, {variant.key}")
                    result = _measure(scenario, server, args.duration)
                    rounds[scenario.key][variant.key].append(result)
    return rounds


def measure_idle() -> dict[str, list[Result]]:
    """Memory of a fresh server before and after the connections."""
    found = {}
    for variant in VARIANTS[:3]:
        _say(f"{IDLE.key}, {variant.key}")
        with _server(variant, IDLE.fields["connections"]) as server:
            found[variant.key] = [_measure(IDLE, server, 2.0)]
    return found


def _server(variant: Variant, devices: int) -> contextlib.AbstractContextManager[Broker | Node]:
    if variant.durability is None:
        return mosquitto()
    return tbfast(variant.durability, variant.workers, devices)


def _measure(scenario: Scenario, server: Broker | Node, duration_s: float) -> Result:
    tokens = tuple(f"bench-{i}" for i in range(scenario.fields["connections"]))
    plan = Plan(
        port=server.port, pids=(server.pid,), tokens=tokens, duration_s=duration_s,
        warmup_s=min(1.0, duration_s / 2), **scenario.fields,
    )  # fmt: skip
    return run_load(plan)


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
