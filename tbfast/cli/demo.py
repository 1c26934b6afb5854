"""Run the server together with a simulated fleet and watch it work.

A real server with its embedded store, a few dozen devices that talk to it over MQTT, and a live
view. Lines to paste for a device of your own are printed at the start. Ctrl-C stops everything.
"""

import argparse
import contextlib
import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec

from tbfast import config
from tbfast.cli import client, exits
from tbfast.cli.devices import new_device
from tbfast.errors import LocalError, NotFound, TbfastError
from tbfast.loadgen.fleet import Report
from tbfast.loadgen.things import kind_of

READY_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 30.0
VIEW_PERIOD_S = 0.5
MAX_DEVICES = 5_000  # one process and one screen; load is the business of `tbfast bench`
MAX_RATE = 1_000.0
OWN_DEVICE = "my-device"
OWN_TOKEN = "MY_TOKEN"
_PR_SET_PDEATHSIG = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The server's flags, and the fleet's."""
    config.add_config_flags(parser)
    parser.add_argument("--devices", type=int, default=40, metavar="N", help="fleet size (40)")
    parser.add_argument(
        "--rate", type=float, default=5.0, metavar="R", help="messages per second and device (5)"
    )
    parser.add_argument(
        "--duration", type=float, metavar="S", help="stop by itself after S seconds"
    )


def run(args: argparse.Namespace) -> int:
    """0 when the server has run and stopped cleanly."""
    _check(args)
    settings = config.load(args).config
    if not settings.mqtt.enabled:
        raise LocalError("the demo's devices speak MQTT: set mqtt.enabled = true")
    data_dir = Path(settings.data_dir)
    server = subprocess.Popen(
        [sys.executable, "-m", "tbfast", "serve", "--demo", *_serve_flags(args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if sys.stdout.isatty() else None,
        start_new_session=True,  # Ctrl-C is for the demo, which stops the server in order
        preexec_fn=functools.partial(_end_with_parent, os.getpid()),
    )
    log_tail: deque[str] = deque(maxlen=5)
    if server.stderr is not None:
        _keep_tail(server.stderr, log_tail)
    fleet: subprocess.Popen[bytes] | None = None
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: told to stop, terminal closed
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    try:
        mqtt_port = _wait_ready(server, data_dir, log_tail)
        own_token, *tokens = _create_devices(data_dir, args.devices)
        _print_lines(mqtt_port, own_token, settings, data_dir)
        fleet = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tbfast.loadgen.fleet",
                _reachable(settings.mqtt.bind_address),
                str(mqtt_port),
                str(args.rate),
                *tokens,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        _watch(server, fleet, data_dir, args.duration, log_tail)
    except KeyboardInterrupt:
        print("\nstopping", file=sys.stderr)
    finally:
        code = _stop(server, fleet)
    return exits.DONE if code == 0 else exits.FAILED


def _check(args: argparse.Namespace) -> None:
    if not 1 <= args.devices <= MAX_DEVICES:
        raise exits.UsageError(f"--devices must be from 1 to {MAX_DEVICES}")
    if not 0 < args.rate <= MAX_RATE:
        raise exits.UsageError(f"--rate must be above 0 and at most {MAX_RATE:.0f}")
    if args.duration is not None and not args.duration > 0:
        raise exits.UsageError("--duration must be above 0")


def _end_with_parent(parent: int) -> None:
    """In the server's process: a demo that is killed takes its server along, in order."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _serve_flags(args: argparse.Namespace) -> list[str]:
    """The configuration flags with a value as they were given, for the server's own command."""
    flags = ["--config", args.config] if args.config else []
    for setting in config.SETTINGS.values():
        given = getattr(args, setting.path, None)
        if setting.flag is not None and given is not None and given is not True:
            flags += [setting.flag, str(given)]
    return flags


def _reachable(address: str) -> str:
    """An address clients on this machine can connect to."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)


def _keep_tail(stream: IO[bytes], lines: deque[str]) -> None:
    def read() -> None:
        for raw in stream:
            lines.append(raw.decode("utf-8", "replace").rstrip())

    threading.Thread(target=read, daemon=True).start()


class _Worker(msgspec.Struct, rename="camel"):
    state: str
    connections: int
    journal_bytes: int


class _Node(msgspec.Struct, rename="camel"):
    supervisor_pid: int
    mqtt_port: int
    workers: list[_Worker]


def _node(data_dir: Path) -> _Node | None:
    """State of the node; None while nobody answers."""
    with contextlib.suppress(TbfastError, OSError):
        server = client.connect(data_dir)
        if server is not None:
            with contextlib.closing(server):
                return server.get("/api/node", _Node)
    return None


def _wait_ready(server: subprocess.Popen[bytes], data_dir: Path, log_tail: deque[str]) -> int:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise TbfastError("the server did not start\n" + "\n".join(log_tail))
        node = _node(data_dir)
        # Another server of this directory may answer until ours has found out and ended.
        ours = node is not None and node.supervisor_pid == server.pid
        if node is not None and ours and all(w.state == "serving" for w in node.workers):
            return node.mqtt_port
        time.sleep(0.05)
    raise TbfastError(f"the server was not ready after {READY_TIMEOUT_S:.0f} s")


def _create_devices(data_dir: Path, count: int) -> list[str]:
    """Tokens of the user's own device and of the fleet, creating what does not exist yet."""
    server = client.connect(data_dir)
    if server is None:
        raise TbfastError("the server has gone away")
    with contextlib.closing(server):
        own = _token(server, OWN_DEVICE, OWN_TOKEN, "for your own experiments")
        return [own] + [
            _token(server, f"demo-{kind_of(n)}-{n:03d}", f"demo-token-{n:03d}", None)
            for n in range(count)
        ]


def _token(server: client.Server, name: str, token: str, label: str | None) -> str:
    """Token of the device: the wanted one if it is made now, else the one it has."""
    try:
        device = server.with_credentials(server.find(name))
    except NotFound:
        device = server.create(new_device(name, token, label))
    if device.token is None:
        raise TbfastError(f"device {name!r} has no access token; remove it and try again")
    return device.token


def _print_lines(mqtt_port: int, token: str, settings: config.Config, data_dir: Path) -> None:
    host = _reachable(settings.mqtt.bind_address)
    where = "" if settings.data_dir == config.Config().data_dir else f" --data-dir {data_dir}"
    print(
        f"tbfast is serving MQTT on {host}:{mqtt_port}. A device of your own:\n\n"
        f"  mosquitto_pub -h {host} -p {mqtt_port} -u {token} -q 1 "
        f'-t v1/devices/me/telemetry -m "{{temperature:25}}"\n'
        f"  tbfast query {OWN_DEVICE}{where}\n"
        f"  tbfast tail{where}\n"
        f"  tbfast device add another{where}\n",
        flush=True,
    )


def _reports(fleet: subprocess.Popen[bytes]) -> Iterator[Report]:
    assert fleet.stdout is not None
    for line in fleet.stdout:
        yield msgspec.json.decode(line, type=Report)


def _watch(
    server: subprocess.Popen[bytes],
    fleet: subprocess.Popen[bytes],
    data_dir: Path,
    duration_s: float | None,
    log_tail: deque[str],
) -> None:
    """Shows every report until the end of the demo."""
    started = time.monotonic()
    with _screen() as show:
        for report in _reports(fleet):
            if server.poll() is not None:
                raise TbfastError("the server has ended\n" + "\n".join(log_tail))
            show(report, _node(data_dir), time.monotonic() - started, list(log_tail))
            if duration_s is not None and time.monotonic() - started >= duration_s:
                return
    raise TbfastError("the fleet has ended")


@contextlib.contextmanager
def _screen() -> Iterator[Any]:
    """A function that shows a report: a live table on a terminal, else one line each."""
    if not sys.stdout.isatty():
        yield _show_line
        return
    from rich.live import Live

    with Live(refresh_per_second=4, transient=False) as live:

        def show(report: Report, node: _Node | None, uptime_s: float, log: list[str]) -> None:
            live.update(_table(report, node, uptime_s, log))

        yield show


def _journal_bytes(node: _Node | None) -> int:
    return sum(w.journal_bytes for w in node.workers) if node is not None else 0


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value} ms"


def _show_line(report: Report, node: _Node | None, uptime_s: float, log: list[str]) -> None:
    print(
        f"{uptime_s:6.0f} s  {report.connected}/{report.devices} devices  "
        f"{report.messages} messages/s  {report.points} points/s  "
        f"ack p50 {_ms(report.ack_p50_ms)}  p99 {_ms(report.ack_p99_ms)}  "
        f"refused {report.refused}  reconnects {report.reconnects}  "
        f"journal {_journal_bytes(node) / 1e6:.1f} MB",
        flush=True,
    )


def _table(report: Report, node: _Node | None, uptime_s: float, log: list[str]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"tbfast demo, {uptime_s:.0f} s", show_header=False, min_width=48)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row("devices connected", f"{report.connected} of {report.devices}")
    table.add_row("messages per second", f"{report.messages:,}")
    table.add_row("points per second", f"{report.points:,}")
    table.add_row("acknowledged (QoS 1)", f"{report.acknowledged:,}")
    table.add_row("refused", f"{report.refused:,}")
    table.add_row("ack p50 / p99", f"{_ms(report.ack_p50_ms)} / {_ms(report.ack_p99_ms)}")
    table.add_row("reconnects", f"{report.reconnects:,}")
    table.add_row("journal", f"{_journal_bytes(node) / 1e6:.1f} MB")
    table.add_row("controller", "answering" if node is not None else "away")
    return Group(table, *(Text(line, style="dim", no_wrap=True) for line in log))


def _stop(server: subprocess.Popen[bytes], fleet: subprocess.Popen[bytes] | None) -> int:
    """Ends the fleet, then the server: in order, or at once on a second Ctrl-C.  Its exit code."""
    try:
        if fleet is not None:
            fleet.kill()
            fleet.wait()
        if server.poll() is None:
            server.send_signal(signal.SIGTERM)
        return server.wait(STOP_TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        server.kill()
        return server.wait()
