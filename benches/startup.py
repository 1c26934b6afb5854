"""How long a node needs to be complete again: a long journal, and many series.

    python -m benches.startup [--journal-bytes 1000000000] [--series 1000000]

Journal: devices fill it while the controller is away, then all is killed and started; counted is
the time until the tail has caught up, with devices publishing on.  Series: a store with one point
of each is sealed, and the node is started again.
"""

import argparse
import contextlib
import http.client
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from tbfast.cli.output import bar
from tests.support.ledger import running_load
from tests.support.mqtt_client import Client
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

KEYS = 1_000  # of a message: one device has so many series
TEXT_BYTES = 60  # random: a journal's tables are compressed
BODY_KEYS = 600
ROOM = 3  # times the size of what is measured: journal, chunks, and what joins write beside them
SERIES_BYTES = 400  # on disk while they are sealed, generously
PATIENCE_S = 600.0


class Report(msgspec.Struct):
    """Seconds and bytes."""

    journal_bytes: int = 0
    accepting_s: float = 0.0  # start to the first CONNACK with that journal
    replay_s: float = 0.0
    replay_cpu_s: float = 0.0  # of the controller, its start included
    slowest_gap_s: float = 0.0  # between two reports of acknowledgements while it replayed
    series: int = 0
    ready_s: float = 0.0
    controller_rss: int = 0


def post(connection: http.client.HTTPConnection, token: str, body: bytes) -> None:
    connection.request("POST", f"/api/v1/{token}/telemetry", body)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, answer.status


def filled(node: Node, tokens: list[str], nbytes: int) -> None:
    """Messages of about 45 KB, round and round the devices."""
    rng = random.Random(1)
    count = max(len(tokens), nbytes // (BODY_KEYS * (TEXT_BYTES + 3)))
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=60)
    with contextlib.closing(connection), bar("messages", "") as show:
        for n in range(count):
            text = rng.randbytes(BODY_KEYS * TEXT_BYTES // 2).hex().encode()
            values = b",".join(
                b'"k%d":"%b"' % (k, text[k * TEXT_BYTES : (k + 1) * TEXT_BYTES])
                for k in range(BODY_KEYS)
            )
            post(connection, tokens[n % len(tokens)], b'{"ts":%d,"values":{%b}}' % (n, values))
            show(n + 1, count)


def replay(path: Path, nbytes: int, report: Report) -> None:
    with running_node(path / "data", workers=1) as node:
        tokens = node.add_devices(16)
        filled(node, tokens[:8], 0)  # the worker knows them now
        with node.controller_away():
            filled(node, tokens[:8], nbytes)
            held = node.metric('tbfast_journal_bytes{worker="0"}')
            node.kill_all()
        begun = time.monotonic()
        node.spawn()
        accepting_s = first_connack(node, tokens[8], begun)
        node.wait_ready(PATIENCE_S)
        with running_load(node.mqtt_port, tokens[8:], window=4, rate=20) as load:
            load.wait_connected(8)
            last, gap, seen = time.monotonic(), 0.0, load.acked

            def caught_up() -> bool:
                nonlocal last, gap, seen
                if load.acked > seen:
                    now = time.monotonic()
                    gap, last, seen = max(gap, now - last), now, load.acked
                return node.metric("tbfast_tail_lag_seconds") < 1

            wait_until(caught_up, PATIENCE_S, "caught up")
        fields = Path(f"/proc/{node.controller_pid()}/stat").read_text().rsplit(")")[1].split()
        report.replay_cpu_s = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
        report.journal_bytes = int(held)
        report.accepting_s = round(accepting_s, 2)
        report.replay_s = round(time.monotonic() - begun, 2)
        report.slowest_gap_s = round(gap, 2)


def first_connack(node: Node, token: str, begun: float) -> float:
    """Seconds from the start until a device is let in."""

    def let_in() -> bool:
        try:
            with contextlib.closing(Client(node.mqtt_port, timeout_s=0.2)) as client:
                return client.connect(token) == 0
        except OSError:  # refused, or not answered yet
            return False

    wait_until(let_in, PATIENCE_S, "a device is let in")
    return time.monotonic() - begun


def many_series(path: Path, count: int, report: Report) -> None:
    with running_node(path / "data", workers=1) as node:
        tokens = node.add_devices(max(count // KEYS, 1))
        connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=60)
        body = b'{"ts":1,"values":{%s}}' % b",".join(b'"k%d":%d' % (n, n) for n in range(KEYS))
        with contextlib.closing(connection), bar("devices", "") as show:
            for n, token in enumerate(tokens):
                post(connection, token, body)
                show(n + 1, len(tokens))
        assert node.stop(120) == 0
        begun = time.monotonic()
        node.start(PATIENCE_S)
        report.series = count
        report.ready_s = round(time.monotonic() - begun, 2)
        pages = int(Path(f"/proc/{node.controller_pid()}/statm").read_text().split()[1])
        report.controller_rss = pages * os.sysconf("SC_PAGESIZE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--journal-bytes", type=int, default=1_000_000_000)
    parser.add_argument("--series", type=int, default=1_000_000)
    args = parser.parse_args()
    report = Report()
    needed = ROOM * max(args.journal_bytes, args.series * SERIES_BYTES)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        parser.error(f"{tempfile.gettempdir()} has {free} bytes left, {needed} are needed")
    with tempfile.TemporaryDirectory(prefix="tbfast-") as home:
        for name, size, measure in (
            ("journal", args.journal_bytes, replay),
            ("series", args.series, many_series),
        ):
            if size:
                (Path(home) / name).mkdir()
                measure(Path(home) / name, size, report)
    print(msgspec.json.format(msgspec.json.encode(report), indent=1).decode())
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    sys.exit(main())
