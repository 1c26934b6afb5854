"""The fleet of a storm: devices in processes of their own, each with half of them."""

import asyncio
import multiprocessing
import resource
import ssl
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import uvloop

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m

PROCESSES: Final = 2
SOURCES: Final = 8  # addresses the devices come from: one has 28,000 ports at most
ANSWER: Final = b"\x20\2\0\0\x90\3\0\1\0"
RETRY_S: Final = 0.05
REPORT_S: Final = 0.2
SPARE_DESCRIPTORS: Final = 64


class Came(NamedTuple):
    """How a fleet got in: seconds from the start for each device, and attempts that failed."""

    seconds: list[float]
    tried_again: int


class _Device(asyncio.Protocol):
    """Says CONNECT and SUBSCRIBE and waits for both answers."""

    def __init__(self, token: str, inside: "asyncio.Future[None]") -> None:
        self._hello = codec.encode(m.Connect(4, token, username=token), 4) + codec.encode(
            m.Subscribe(1, (m.Subscription("v1/devices/me/attributes"),)), 4
        )
        self._inside = inside
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._hello)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._answer += data
        if len(self._answer) >= len(ANSWER) and not self._inside.done():
            assert self._answer == ANSWER, self._answer
            self._inside.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._inside.done():
            self._inside.set_exception(ConnectionError("closed before its answers"))


class _Part:
    """The devices of one process."""

    def __init__(self, port: int, tokens: list[str], tls: ssl.SSLContext | None) -> None:
        self._port = port
        self._tokens = tokens
        self._tls = tls
        self._transports: list[Any] = []
        self.came = Came([], 0)

    async def connect(self) -> None:
        """All at once; returns when every one is in."""
        started = time.monotonic()
        await asyncio.gather(
            *(self._device(number, token, started) for number, token in enumerate(self._tokens))
        )

    async def _device(self, number: int, token: str, started: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            inside: asyncio.Future[None] = loop.create_future()
            try:
                transport, _ = await loop.create_connection(
                    lambda inside=inside: _Device(token, inside),
                    "127.0.0.1", self._port, ssl=self._tls,
                    server_hostname="localhost" if self._tls else None,
                    local_addr=(f"127.0.0.{2 + number % SOURCES}", 0),
                )  # fmt: skip
                await inside
            except OSError:
                self.came = self.came._replace(tried_again=self.came.tried_again + 1)
                await asyncio.sleep(RETRY_S)
            else:
                self._transports.append(transport)
                self.came.seconds.append(time.monotonic() - started)
                return

    def lost(self) -> int:
        """Connections that have ended since."""
        return sum(transport.is_closing() for transport in self._transports)

    def close(self) -> None:
        for transport in self._transports:
            transport.abort()


async def _body(port: int, tokens: list[str], certificate: str, pipe: Connection) -> None:
    tls = ssl.create_default_context(cadata=certificate) if certificate else None
    part = _Part(port, tokens, tls)
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    storm = asyncio.create_task(part.connect())
    while not storm.done():
        pipe.send(len(part.came.seconds))
        await asyncio.wait((storm,), timeout=REPORT_S)
    await storm
    pipe.send(part.came)
    await asyncio.to_thread(pipe.recv)
    pipe.send(part.lost())
    part.close()


def _process(port: int, tokens: list[str], certificate: str, pipe: Connection) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(_body(port, tokens, certificate, pipe))


class Fleet:
    """Processes that wait for the word; a context manager.

    certificate: of the server, as PEM; "" = without TLS.
    """

    def __init__(self, port: int, tokens: list[str], certificate: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_process, args=(port, tokens[number::PROCESSES], certificate, theirs)
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            assert pipe.recv() == "ready"

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.join()

    def storm(self, progress: Callable[[int], None]) -> Came:
        """Everybody connects now; progress(devices inside)."""
        for pipe in self._pipes:
            pipe.send("go")
        inside = dict.fromkeys(range(PROCESSES), 0)
        parts: list[Came] = []
        while len(parts) < PROCESSES:
            for number, pipe in enumerate(self._pipes):
                if pipe.poll(REPORT_S / PROCESSES):
                    said = pipe.recv()
                    if isinstance(said, Came):
                        parts.append(said)
                    else:
                        inside[number] = said
            progress(sum(inside.values()))
        seconds = sorted(second for part in parts for second in part.seconds)
        return Came(seconds, sum(part.tried_again for part in parts))

    def end(self) -> int:
        """Everybody leaves; how many had been disconnected by then."""
        for pipe in self._pipes:
            pipe.send("end")
        return sum(pipe.recv() for pipe in self._pipes)


def check_descriptors(devices: int) -> None:
    """SystemExit: so many devices do not fit into what processes may open here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The worker keeps a quarter of its descriptors for HTTP.
    wanted = max(devices // PROCESSES, devices * 4 // 3) + 4 * SPARE_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(
            f"{devices:,} devices need {wanted:,} file descriptors, {hard:,} are allowed here: "
            f"raise the hard limit (ulimit -Hn {wanted}) or take fewer devices"
        )
