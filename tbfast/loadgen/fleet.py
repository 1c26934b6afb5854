"""A small simulated fleet over real MQTT sockets; reports once a second on standard output.

Run as a process of its own: ``python -m tbfast.loadgen.fleet HOST PORT RATE TOKEN...``.  Each
report is one JSON line of `Report`.  Devices alternate between MQTT 3.1.1 and 5, every fourth
publishes with QoS 0, the others with QoS 1; a lost or refused connection is made again.
"""

import asyncio
import contextlib
import math
import os
import random
import resource
import sys
import time

import msgspec

from tbfast.codec import mqtt as codec
from tbfast.errors import PeerError
from tbfast.loadgen.things import KINDS, kind_of, payload
from tbfast.model import mqtt as m

TOPIC = "v1/devices/me/telemetry"
MAX_PACKET_BYTES = 1 << 20
WINDOW = 64  # unacknowledged messages per device; beyond it the device waits
KEEP_ALIVE_S = 60
RETRY_S = 1.0
REPORT_S = 1.0
REFUSED = 0x80  # reason codes from here on (MQTT 5 2.4)


class Report(msgspec.Struct):
    """What the fleet did in the last second; times in milliseconds, None without a sample.

    ``connected``, ``devices`` and ``reconnects`` count from the start.
    """

    connected: int
    devices: int
    messages: int
    points: int
    acknowledged: int
    refused: int
    ack_p50_ms: float | None
    ack_p99_ms: float | None
    reconnects: int


class Counters:
    """Counts since the last report, shared by all devices of this process."""

    def __init__(self) -> None:
        self.connected = 0
        self.reconnects = 0
        self.reset()

    def reset(self) -> None:
        """Starts the next second."""
        self.messages = 0
        self.points = 0
        self.refused = 0
        self.latencies: list[float] = []

    def report(self, devices: int) -> Report:
        """Closes the second."""
        latencies = sorted(self.latencies)
        report = Report(
            connected=self.connected,
            devices=devices,
            messages=self.messages,
            points=self.points,
            acknowledged=len(latencies),
            refused=self.refused,
            ack_p50_ms=_rank_ms(latencies, 0.5),
            ack_p99_ms=_rank_ms(latencies, 0.99),
            reconnects=self.reconnects,
        )
        self.reset()
        return report


def _rank_ms(ascending_s: list[float], share: float) -> float | None:
    """Nearest rank: the smallest time that ``share`` of the samples do not exceed."""
    if not ascending_s:
        return None
    return round(ascending_s[math.ceil(len(ascending_s) * share) - 1] * 1000, 3)


class FleetDevice:
    """One device: connects, measures at its rate, publishes, waits for answers."""

    def __init__(self, number: int, token: str, rate: float, counters: Counters) -> None:
        self._rng = random.Random(token)
        self._read = KINDS[kind_of(number)](self._rng)
        self._token = token
        self._period_s = 1 / rate
        self._version = 5 if number % 2 else 4
        self._qos = 0 if number % 4 == 3 else 1
        self._counters = counters
        self._sent: dict[int, float] = {}

    async def run(self, host: str, port: int) -> None:
        """For ever; a connection that is lost, refused or breaks the protocol is made again."""
        while True:
            with contextlib.suppress(OSError, PeerError):
                await self._session(host, port)
            self._counters.reconnects += 1
            await asyncio.sleep(RETRY_S * (1 + self._rng.random()))

    async def _session(self, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        decoder = codec.Decoder(max_remaining=MAX_PACKET_BYTES, version=self._version)
        # Publishing alone keeps the session alive, also at a rate below one in KEEP_ALIVE_S.
        keep_alive = min(0xFFFF, max(KEEP_ALIVE_S, math.ceil(2 * self._period_s)))
        hello = m.Connect(self._version, "", username=self._token, keep_alive=keep_alive)
        writer.write(codec.encode(hello, self._version))
        accepted = False
        publishing: asyncio.Task[None] | None = None
        try:
            while data := await reader.read(65536):
                for packet in decoder.feed(data):
                    if isinstance(packet, m.Connack):
                        if packet.reason_code:
                            raise ConnectionError("refused")
                        accepted = True
                        self._counters.connected += 1
                        publishing = asyncio.create_task(self._publish(writer))
                    elif isinstance(packet, m.Puback):
                        self._answered(packet)
        finally:
            self._counters.connected -= accepted
            if publishing is not None:
                publishing.cancel()
            self._sent.clear()
            writer.close()

    def _answered(self, packet: m.Puback) -> None:
        sent = self._sent.pop(packet.packet_id, None)
        if sent is None:
            return
        if packet.reason_code >= REFUSED:
            self._counters.refused += 1
        else:
            self._counters.latencies.append(time.perf_counter() - sent)

    async def _publish(self, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._rng.random() * self._period_s)
        packet_id = 0
        while True:
            if len(self._sent) < WINDOW:
                readings = self._read()
                packet_id = packet_id % 65535 + 1
                packet = m.Publish(
                    TOPIC,
                    payload(readings),
                    qos=self._qos,
                    packet_id=packet_id if self._qos else None,
                )
                if self._qos:
                    self._sent[packet_id] = time.perf_counter()
                writer.write(codec.encode(packet, self._version))
                self._counters.messages += 1
                self._counters.points += len(readings)
                with contextlib.suppress(OSError):  # the session sees the loss as well, and ends
                    await writer.drain()
            await asyncio.sleep(self._period_s * self._rng.uniform(0.9, 1.1))


async def run_fleet(host: str, port: int, rate: float, tokens: list[str]) -> None:
    """Runs the devices and prints reports until cancelled or the reader of the reports is gone."""
    counters = Counters()
    devices = [FleetDevice(n, token, rate, counters) for n, token in enumerate(tokens)]
    tasks = [asyncio.create_task(device.run(host, port)) for device in devices]
    out = sys.stdout.buffer
    try:
        while True:
            await asyncio.sleep(REPORT_S)
            out.write(msgspec.json.encode(counters.report(len(devices))) + b"\n")
            out.flush()
    except BrokenPipeError:
        # What could not be written is still buffered: at exit Python would fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    finally:
        for task in tasks:
            task.cancel()


def main(argv: list[str]) -> int:
    """Arguments: host, port, messages per second and device, tokens."""
    host, port, rate, *tokens = argv
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run_fleet(host, int(port), float(rate), tokens))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
