"""Measure an MQTT server with many simulated devices.

Against the running server of a data directory the devices bench-0, bench-1, ... are created as
needed. With --port any MQTT broker is measured; nothing is created there.

Closed loop (default): every connection keeps --depth messages in flight and sends the next ones
when all are acknowledged. Open loop (--rate): a clock decides, latency counts from the time a
message was due, so a stall of the server is charged to every message that waited for it.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tbfast.cli import client, exits, output, target
from tbfast.cli.devices import new_device
from tbfast.cli.exits import Unreachable, UsageError
from tbfast.errors import Conflict

if TYPE_CHECKING:
    from tbfast.loadgen.run import Progress

PREFIX: Final = "bench-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, how, and what to print."""
    target.add_target_flags(parser)
    where = parser.add_argument_group("server")
    where.add_argument("--host", dest="mqtt_host", default="127.0.0.1", metavar="ADDRESS")
    where.add_argument(
        "--port", dest="mqtt_port", type=int, metavar="PORT", help="of any MQTT broker"
    )
    where.add_argument(
        "--tokens", type=Path, metavar="FILE", help="user names, one a line, one per connection"
    )
    where.add_argument(
        "--pid", type=int, action="append", default=[], metavar="PID",
        help="measure this process and its children too (repeatable)",
    )  # fmt: skip
    load = parser.add_argument_group("load")
    load.add_argument("--connections", type=int, default=500, metavar="N", help="default: 500")
    load.add_argument(
        "--depth", type=int, metavar="N",
        help="messages in flight per connection (default: 1; with --rate at most 1024)",
    )  # fmt: skip
    load.add_argument(
        "--rate", type=float, metavar="N", help="open loop: messages/s over all connections"
    )
    load.add_argument(
        "--burst", type=int, default=1, metavar="N",
        help="messages a device sends at once with --rate; default: 1",
    )  # fmt: skip
    load.add_argument("--qos", type=int, choices=(0, 1, 2), default=1, help="default: 1")
    load.add_argument(
        "--mqtt", choices=("3.1.1", "5"), default="3.1.1", help="protocol version; default: 3.1.1"
    )
    load.add_argument("--duration", type=float, default=10.0, metavar="S", help="default: 10")
    load.add_argument(
        "--warmup", type=float, default=1.0, metavar="S", help="not measured; default: 1"
    )
    load.add_argument("--idle", action="store_true", help="connect and send nothing")
    load.add_argument(
        "--reconnect", action="store_true",
        help="connect again after a loss and send again what was not acknowledged",
    )  # fmt: skip
    message = parser.add_argument_group("messages")
    message.add_argument("--keys", type=int, default=3, metavar="N", help="default: 3")
    message.add_argument(
        "--server-time", action="store_true", help="send values without a ts of their own"
    )
    message.add_argument("--payload", metavar="TEXT", help="send this instead, unchanged")
    message.add_argument("--topic", metavar="TOPIC", help="default: v1/devices/me/telemetry")
    message.add_argument(
        "--ledger", type=Path, metavar="FILE",
        help="append a JSON line (token, ts, seq) per acknowledged message",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Done; failed when messages or connections were lost or refused."""
    import msgspec

    from tbfast.loadgen import plan as plans
    from tbfast.loadgen import report
    from tbfast.loadgen import run as runner

    fields = {
        "host": args.mqtt_host,
        "connections": args.connections,
        "depth": args.depth or (1 if args.rate is None else 1024),
        "rate": args.rate,
        "burst": args.burst,
        "qos": args.qos,
        "version": 5 if args.mqtt == "5" else 4,
        "idle": args.idle,
        "keys": args.keys,
        "own_ts": not args.server_time,
        "payload": None if args.payload is None else args.payload.encode(),
        "topic": args.topic or plans.TOPIC,
        "duration_s": args.duration,
        "warmup_s": args.warmup,
        "reconnect": args.reconnect,
        "ledger": args.ledger,
    }
    with _progress() as progress:
        try:
            plan = msgspec.convert({**fields, **_server(args, progress)}, plans.Plan)
        except (msgspec.ValidationError, plans.PlanError) as error:
            raise UsageError(str(error)) from error
        try:
            result = runner.run(plan, progress)
        except runner.ServerUnusable as error:
            raise Unreachable(str(error)) from error
    if args.json:
        output.json_line(result)
    else:
        output.line(report.title(plan))
        output.table(("", ""), report.rows(plan, result))
    return exits.FAILED if report.troubles(plan, result) else exits.DONE


def _server(args: argparse.Namespace, progress: "Progress") -> dict[str, object]:
    """The fields of a plan that depend on the server: port, tokens and processes."""
    tokens = _tokens(args.tokens) if args.tokens else []
    pids = list(args.pid)
    if args.mqtt_port is not None:
        return {"port": args.mqtt_port, "tokens": tokens, "pids": pids}
    directory = target.data_dir(args)
    server = client.connect(directory)
    if server is None:
        raise Unreachable(
            f"no server runs on {directory}; start one with: tbfast serve --data-dir {directory}"
        )
    with contextlib.closing(server):
        node = server.node()
        if not node.mqtt_port:
            raise Unreachable("the server does not serve MQTT: set mqtt.enabled = true")
        if not tokens:
            tokens = provision(server, args.connections, progress)
    return {"port": node.mqtt_port, "tokens": tokens, "pids": [node.supervisor_pid, *pids]}


def provision(server: client.Server, count: int, progress: "Progress") -> list[str]:
    """Creates the devices that are missing; their tokens are their names."""
    names = [f"{PREFIX}{i}" for i in range(count)]
    present = {device.name for device in server.devices(PREFIX)}
    missing = [name for name in names if name not in present]
    for i, name in enumerate(missing):
        progress("creating devices", i / len(missing), 0)
        # Somebody else may be creating the same devices.
        with contextlib.suppress(Conflict):
            server.create(new_device(name))
    return names


def _tokens(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the tokens in {path}: {error}") from error


@contextlib.contextmanager
def _progress() -> Iterator["Progress"]:
    """A bar on a terminal, else nothing; on standard error, results are on standard output."""
    if not sys.stderr.isatty():
        yield lambda phase, share, messages: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(),
        TextColumn("{task.fields[messages]:,} messages"), TimeElapsedColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        shown = bar.add_task("starting", total=1.0, messages=0)
        yield lambda phase, share, messages: bar.update(
            shown, description=phase, completed=share, messages=messages
        )
