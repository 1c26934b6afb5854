"""A fleet that connects all at once, without and with TLS; then what it weighs while it idles.

    python -m benches.fleet.storm [--plain N] [--tls N]

Devices live in two processes of their own.  "In" = CONNACK and SUBACK received.  Printed and
written to benches/results/storm.json: seconds until the last was in, worker CPU per connection, and
the growth of the worker's memory per idle connection.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import ssl
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.canaries import cpu_s, rss_bytes
from tests.support.certificates import TlsServer

RESULT = Path(__file__).parents[1] / "results/storm.json"
PROCESSES = 2
ANSWER = b"\x20\2\0\0\x90\3\0\1\0"
RETRY_S = 0.05


class Device(asyncio.Protocol):
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


async def _device(port: int, token: str, tls: ssl.SSLContext | None) -> tuple[Any, int]:
    """The transport of an accepted session, and how often it was tried again."""
    loop, tries = asyncio.get_running_loop(), 0
    while True:
        inside: asyncio.Future[None] = loop.create_future()
        try:
            transport, _ = await loop.create_connection(
                lambda inside=inside: Device(token, inside),
                "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None,
            )  # fmt: skip
            await inside
        except OSError:
            tries += 1
            await asyncio.sleep(RETRY_S)
        else:
            return transport, tries


async def _fleet(port: int, tokens: list[str], certificate: str, pipe: Connection) -> None:
    tls = ssl.create_default_context(cadata=certificate) if certificate else None
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    done = await asyncio.gather(*(_device(port, token, tls) for token in tokens))
    pipe.send(sum(tries for _, tries in done))
    await asyncio.to_thread(pipe.recv)
    for transport, _ in done:
        transport.abort()


def _process(port: int, tokens: list[str], certificate: str, pipe: Connection) -> None:
    uvloop.run(_fleet(port, tokens, certificate, pipe))


def storm(server: TlsServer, tokens: list[str], *, tls: bool) -> dict[str, Any]:
    """One storm of these devices."""
    port = server.mqtt_tls_port if tls else server.mqtt_port
    certificate = server.certificate.pem if tls else ""
    worker = server.pids()["worker-0"]
    context = multiprocessing.get_context("spawn")
    pipes = []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        context.Process(
            target=_process, args=(port, tokens[number::PROCESSES], certificate, theirs)
        ).start()
        assert ours.recv() == "ready"
        pipes.append(ours)
    cpu, rss, started = cpu_s(worker), rss_bytes(worker), time.monotonic()
    for pipe in pipes:
        pipe.send("go")
    tries = sum(pipe.recv() for pipe in pipes)
    took = time.monotonic() - started
    result = {
        "connections": len(tokens),
        "tls": tls,
        "seconds": round(took, 2),
        "tried_again": tries,
        "worker_cpu_us_per_connection": round((cpu_s(worker) - cpu) / len(tokens) * 1e6),
        "rss_bytes_per_idle_connection": round((rss_bytes(worker) - rss) / len(tokens)),
    }
    for pipe in pipes:
        pipe.send("end")
    return result


def main() -> None:
    """Runs both and writes what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", type=int, default=10_000, help="devices without TLS")
    parser.add_argument("--tls", type=int, default=10_000, help="devices with TLS")
    args = parser.parse_args()
    results = []
    for count, tls in ((args.plain, False), (args.tls, True)):
        with tempfile.TemporaryDirectory() as directory, TlsServer(Path(directory)) as server:
            tokens = [server.add_device(f"storm-{number}") for number in range(count)]
            results.append(storm(server, tokens, tls=tls))
            print(json.dumps(results[-1]), flush=True)
    RESULT.write_text(json.dumps({"cores": os.cpu_count(), "storms": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
