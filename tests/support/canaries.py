"""Well-behaved devices beside an attack, and what the attacked processes weigh meanwhile."""

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import Self

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Wire, connect

PERIOD_S = 0.5
WARM_UP_BYTES = 96 << 20  # fills and flushes the store's write buffer (32 MiB) more than once
SAMPLE_S = 0.05
SLOWEST_S = 1.0  # bound of the p99 of an acknowledgement (hostile-input spec I2)
RSS_GROWTH_BYTES = 64 << 20  # I3
RSS_BACK = 1.10  # I3
BACK_S = 60.0  # I3, I4
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SANITIZED = os.environ.get("TBFAST_SANITIZE") == "1"  # that build weighs what it likes


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def descriptors(pid: int) -> int:
    """Open descriptors of a process, its store's files aside: tables come and go with the data."""
    count = 0
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += not os.readlink(entry.path).endswith((".sst", ".log", ".sst (deleted)"))
    return count


def cpu_s(pid: int) -> float:
    """Processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Canary:
    def __init__(self, server: Server, name: str) -> None:
        self.name = server.add_device(name)
        self.sock = socket.create_connection(("127.0.0.1", server.mqtt_port), 10)
        self.decoder = codec.Decoder(max_remaining=1_000, version=4)
        self.sock.sendall(codec.encode(connect(self.name), 4))
        assert self.decoder.feed(self.sock.recv(100)) == [m.Connack(False, 0)]
        self.sock.setblocking(False)
        self.sent: dict[int, float] = {}  # when, by packet identifier, still unanswered
        self.next_id = 0
        self.next_at = 0.0
        self.acknowledged: list[int] = []
        self.fresh_since = 0.0  # when the newest answered message was sent


def _warm_up(server: Server) -> None:
    """Fills what ordinary telemetry fills, so that the quiet weight is that of a used server."""
    with Wire(server.mqtt_port) as wire:
        wire.open(server.add_device("warm-up"))
        record = b'{"ts":1,"values":{"text":"%s"}}' % (b"x" * 60_000)
        packet = codec.encode(m.Publish(TELEMETRY, record, 1, packet_id=1), 4)
        for _ in range(WARM_UP_BYTES // len(packet) // 16):
            wire.send(packet * 16)
            wire.expect(*[m.Puback(1)] * 16)


class Canaries(threading.Thread):
    """Twenty devices on their own connections, QoS 1 twice a second; a context manager.

    `check` raises if any was disturbed since the last check.
    """

    def __init__(self, server: Server, count: int = 20) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._worker = server.pids()["worker-0"]
        self._birds = [_Canary(server, f"canary-{number}") for number in range(count)]
        self._lock = threading.Lock()
        self._waits: list[float] = []
        self._failure: str | None = None
        self._over = threading.Event()
        self._peak = 0

    def __enter__(self) -> Self:
        _warm_up(self._server)
        self.start()
        self._fly()
        self.pids = self._server.pids()
        self.quiet_rss = rss_bytes(self._worker)
        self.quiet_descriptors = descriptors(self._worker)
        self._peak = self.quiet_rss
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        for bird in self._birds:
            bird.sock.close()

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for bird in self._birds:
                selector.register(bird.sock, selectors.EVENT_READ, bird)
            start = time.monotonic()
            for number, bird in enumerate(self._birds):
                bird.next_at = start + PERIOD_S * number / len(self._birds)
            while not self._over.is_set() and self._failure is None:
                for key, _ in selector.select(SAMPLE_S / 2):
                    self._read(key.data)
                now = time.monotonic()
                for bird in self._birds:
                    if bird.next_at <= now:
                        self._publish(bird, now)
                self._peak = max(self._peak, rss_bytes(self._worker))

    def _publish(self, bird: _Canary, now: float) -> None:
        bird.next_at = max(bird.next_at + PERIOD_S, now)
        bird.next_id += 1
        record = json.dumps({"ts": bird.next_id, "values": {"n": bird.next_id}}).encode()
        packet = m.Publish(TELEMETRY, record, 1, packet_id=bird.next_id)
        bird.sent[bird.next_id] = now
        try:
            bird.sock.sendall(codec.encode(packet, 4))
        except OSError as error:
            self._failure = f"{bird.name} cannot send: {error}"

    def _read(self, bird: _Canary) -> None:
        try:
            data = bird.sock.recv(65_536)
        except OSError as error:
            self._failure = f"{bird.name} lost its connection: {error}"
            return
        if not data:
            self._failure = f"{bird.name} was disconnected"
            return
        now = time.monotonic()
        for packet in bird.decoder.feed(data):
            if not isinstance(packet, m.Puback) or packet.packet_id not in bird.sent:
                self._failure = f"{bird.name} got {packet}"
                return
            bird.fresh_since = bird.sent.pop(packet.packet_id)
            bird.acknowledged.append(packet.packet_id)
            with self._lock:
                self._waits.append(now - bird.fresh_since)

    def _fly(self) -> None:
        """Waits until each has had an answer to something it sent after now."""
        begun = time.monotonic()
        wait_until(
            lambda: self._failure or all(b.fresh_since > begun for b in self._birds),
            20.0,
            "an answer to every canary",
        )
        assert self._failure is None, self._failure

    def p99_s(self) -> float:
        """Of the acknowledgements since the last call, each canary's next one included."""
        self._fly()
        with self._lock:
            waits, self._waits = sorted(self._waits), []
        return waits[len(waits) * 99 // 100]

    def check(self) -> None:
        """The invariants I1 to I4 of the hostile-input spec."""
        slowest = self.p99_s()
        assert slowest <= SLOWEST_S, f"p99 of an acknowledgement was {slowest:.3f} s"
        assert self._server.pids() == self.pids, "a process was restarted"
        wait_until(
            lambda: descriptors(self._worker) <= self.quiet_descriptors,
            BACK_S,
            "descriptors of the worker are closed",
        )
        if SANITIZED:
            return
        growth, self._peak = self._peak - self.quiet_rss, 0
        assert growth <= RSS_GROWTH_BYTES, f"the worker grew by {growth >> 20} MiB"
        wait_until(
            lambda: rss_bytes(self._worker) <= self.quiet_rss * RSS_BACK,
            BACK_S,
            f"memory of the worker is back at {self.quiet_rss >> 20} MiB",
        )

    def check_rows(self) -> None:
        """Every acknowledged row is stored."""
        for bird in self._birds:
            acknowledged = set(bird.acknowledged)
            lost = acknowledged - set(self._server.values(bird.name, "n"))
            assert not lost, f"{bird.name}: acknowledged and lost: {sorted(lost)[:10]}"
