"""Devices that remember every acknowledgement they saw, in a process of their own.

``python -m tests.support.ledger HOST PORT HTTP_PORT WINDOW RATE TOKEN...``: each device publishes
QoS 1 messages {"ts": BASE_MS + n, "values": {"n": n, "text": ..}} with n counting up, at most
WINDOW of them unacknowledged and RATE a second (0 = as fast as it goes), reconnects when the
connection ends and then first sends again what was not acknowledged, with the same times.  With an
HTTP_PORT other than 0 every third device posts them there instead, pipelined up to that window.

Standard output: a JSON line of `Progress` ten times a second; standard input: its end stops new
messages.  Once all is acknowledged (or DRAIN_S later) the last line is the `Record`.
"""

import abc
import asyncio
import collections
import contextlib
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.waiting import wait_until

BASE_MS = 1_700_000_000_000
TOPIC = "v1/devices/me/telemetry"
REPORT_S = 0.1
DRAIN_S = 20.0
RETRY_S = 0.05
QUIET_S = 8.0  # nothing heard for so long while waiting: the connection is dead
ROOT = Path(__file__).parents[2]


class Progress(msgspec.Struct):
    acked: int
    connected: int
    connects: int
    refused: int  # PUBACK or DISCONNECT with an error code, status other than 200


class Device(msgspec.Struct):
    """sent: messages 0..sent-1 were handed to the socket; acked: ranges [first, last]."""

    sent: int
    acked: list[tuple[int, int]]
    disconnect_codes: list[int]


class Record(msgspec.Struct):
    devices: dict[str, Device]


def payload(n: int) -> bytes:
    return b'{"ts":%d,"values":{"n":%d,"text":"message %d"}}' % (BASE_MS + n, n, n)


class LedgerDevice(abc.ABC):
    """What is common to the protocols: numbering, the window, and what was acknowledged."""

    def __init__(self, number: int, token: str, window: int, rate: float) -> None:
        self.number = number
        self.token = token
        self.window = window
        self.period_s = 1 / rate if rate else 0.0
        self.next = 0
        self.unacked: collections.deque[int] = collections.deque()
        self.acked: set[int] = set()
        self.codes: list[int] = []
        self.connected = False
        self.connects = 0
        self.refused = 0
        self.stopping = False
        self._changed = asyncio.Event()

    def stop(self) -> None:
        self.stopping = True
        self._changed.set()

    @property
    def done(self) -> bool:
        return self.stopping and not self.unacked

    async def run(self, host: str, port: int) -> None:
        while not self.done:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._session(host, port)
            self.connected = False
            await asyncio.sleep(RETRY_S)

    @abc.abstractmethod
    async def _session(self, host: str, port: int) -> None:
        """One connection, from its beginning to its end."""

    def _acknowledged(self, n: int) -> None:
        self.acked.add(n)
        self.unacked.remove(n)
        self._changed.set()

    async def _messages(self) -> AsyncIterator[tuple[int, bool]]:
        """(number, whether it was sent before): first again what was not acknowledged."""
        for n in list(self.unacked):
            yield n, True
            await self._pause()
        while not self.stopping:
            if len(self.unacked) >= self.window:
                self._changed.clear()
                await self._changed.wait()
                continue
            n = self.next
            self.next += 1
            self.unacked.append(n)
            yield n, False
            await self._pause()

    async def _pause(self) -> None:
        if self.period_s:
            await asyncio.sleep(self.period_s)

    def record(self) -> Device:
        ranges: list[tuple[int, int]] = []
        for n in sorted(self.acked):
            if ranges and ranges[-1][1] == n - 1:
                ranges[-1] = (ranges[-1][0], n)
            else:
                ranges.append((n, n))
        return Device(self.next, ranges, self.codes[:100])


class MqttDevice(LedgerDevice):
    """QoS 1, MQTT 5 and 3.1.1 in turn."""

    async def _session(self, host: str, port: int) -> None:
        async with asyncio.timeout(QUIET_S):
            reader, writer = await asyncio.open_connection(host, port)
        publishing = None
        try:
            version = 5 if self.number % 2 else 4
            decoder = codec.Decoder(max_remaining=1 << 20, version=version)
            hello = m.Connect(version, f"c-{self.token}", username=self.token)
            writer.write(codec.encode(hello, version))
            flying: dict[int, int] = {}
            while not self.done:
                async with asyncio.timeout(QUIET_S):
                    data = await reader.read(65536)
                if not data:
                    return
                for packet in decoder.feed(data):
                    match packet:
                        case m.Connack(_, 0):
                            self.connected = True
                            self.connects += 1
                            publishing = asyncio.create_task(self._publish(writer, version, flying))
                        case m.Puback(packet_id, code) if code < 0x80:
                            self._acknowledged(flying.pop(packet_id))
                        case m.Puback() | m.Disconnect():
                            self.refused += 1
                            self.codes.append(packet.reason_code)
                        case _:
                            return
        finally:
            if publishing is not None:
                publishing.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await publishing
            writer.close()

    async def _publish(
        self, writer: asyncio.StreamWriter, version: int, flying: dict[int, int]
    ) -> None:
        packet_id = 0
        async for n, again in self._messages():
            packet_id = packet_id % 65535 + 1
            flying[packet_id] = n
            message = m.Publish(TOPIC, payload(n), qos=1, dup=again, packet_id=packet_id)
            writer.write(codec.encode(message, version))
            await writer.drain()


class HttpDevice(LedgerDevice):
    """POST after POST on one connection; 200 is the acknowledgement."""

    async def _session(self, host: str, port: int) -> None:
        async with asyncio.timeout(QUIET_S):
            reader, writer = await asyncio.open_connection(host, port)
        flying: collections.deque[int] = collections.deque()
        posting = asyncio.create_task(self._post(writer, flying))
        try:
            self.connected = True
            self.connects += 1
            while not self.done:
                async with asyncio.timeout(QUIET_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    status, length = _status(head)
                    await reader.readexactly(length)
                if status != 200:
                    self.refused += 1
                    self.codes.append(status)
                    return
                self._acknowledged(flying.popleft())
        finally:
            posting.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await posting
            writer.close()

    async def _post(self, writer: asyncio.StreamWriter, flying: collections.deque[int]) -> None:
        async for n, _ in self._messages():
            body = payload(n)
            flying.append(n)
            writer.write(
                b"POST /api/v1/%b/telemetry HTTP/1.1\r\nHost: node\r\nContent-Length: %d\r\n\r\n%b"
                % (self.token.encode(), len(body), body)
            )
            await writer.drain()


def _status(head: bytes) -> tuple[int, int]:
    """Status and length of the body."""
    lines = head.lower().split(b"\r\n")
    lengths = [line.split(b":")[1] for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split()[1]), int(lengths[0]) if lengths else 0


async def run_load(
    host: str, port: int, http_port: int, window: int, rate: float, tokens: list[str]
) -> None:
    devices: list[LedgerDevice] = []
    tasks = []
    for number, token in enumerate(tokens):
        http = http_port and number % 3 == 2
        device = (HttpDevice if http else MqttDevice)(number, token, window, rate)
        devices.append(device)
        tasks.append(asyncio.create_task(device.run(host, http_port if http else port)))
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.buffer.read)
    out = sys.stdout.buffer
    deadline = 0.0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(REPORT_S)
        progress = Progress(
            sum(len(d.acked) for d in devices),
            sum(d.connected for d in devices),
            sum(d.connects for d in devices),
            sum(d.refused for d in devices),
        )
        out.write(msgspec.json.encode(progress) + b"\n")
        out.flush()
        if ended.done() and not deadline:
            deadline = loop.time() + DRAIN_S
            for device in devices:
                device.stop()
        if deadline and loop.time() > deadline:
            break
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    record = Record({d.token: d.record() for d in devices})
    out.write(msgspec.json.encode(record) + b"\n")


class Load:
    """The load process, seen from a test."""

    def __init__(
        self,
        port: int,
        tokens: Sequence[str],
        *,
        http_port: int = 0,
        window: int = 16,
        rate: float = 0.0,
    ) -> None:
        words = [sys.executable, "-m", "tests.support.ledger", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*words, str(port), str(http_port), str(window), str(rate), *tokens],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.progress = Progress(0, 0, 0, 0)
        self._reports = 0
        self._record: Record | None = None
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(b'{"devices"'):
                self._record = msgspec.json.decode(line, type=Record)
            else:
                self.progress = msgspec.json.decode(line, type=Progress)
                self._reports += 1

    @property
    def acked(self) -> int:
        return self.progress.acked

    def wait_acked(self, more: int, timeout_s: float = 20.0) -> None:
        """Returns when so many more messages than now have been acknowledged."""
        seen = self._reports
        wait_until(lambda: self._reports > seen + 1, what="a report that began after now")
        wanted = self.acked + more
        wait_until(lambda: self.acked >= wanted, timeout_s, f"{wanted} acknowledgements")

    def wait_connected(self, count: int, timeout_s: float = 20.0) -> None:
        wait_until(lambda: self.progress.connected == count, timeout_s, f"{count} connected")

    def finish(self, timeout_s: float = DRAIN_S + 20) -> Record:
        """Lets the devices finish; what they saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout_s)
        self._reader.join(5)
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert self._record is not None, "the load process died"
        return self._record

    def kill(self) -> None:
        """For the end of a failed test."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join(5)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


@contextlib.contextmanager
def running_load(port: int, tokens: Sequence[str], **arguments: float):
    load = Load(port, tokens, **arguments)  # type: ignore[arg-type]
    try:
        yield load
    finally:
        load.kill()


if __name__ == "__main__":
    host, *numbers = sys.argv[1:6]
    mqtt_port, http_port, window = map(int, numbers[:3])
    asyncio.run(run_load(host, mqtt_port, http_port, window, float(numbers[3]), sys.argv[6:]))
