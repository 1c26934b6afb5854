"""Peers that vanish, flood, stop reading or come back all the time (promises 14, 16, 17, 18)."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m
from tests.support.certificates import TlsServer
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import Wire, connect

NAMESPACE = "tbfast-peers"
ROOT = Path(__file__).parents[2]

# Connects, subscribes to attributes, says so, and then lives until its input ends.
_DEVICE = """
import sys
from tbfast.model import mqtt as m
from tests.support import wire
import socket
host, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
real = socket.socket.connect
socket.socket.connect = lambda self, address: real(self, (host, address[1]))
with wire.Wire(port).open(token) as device:
    device.send(m.Subscribe(1, (m.Subscription("v1/devices/me/attributes"),)))
    assert isinstance(device.receive(), m.Suback)
    print("subscribed", flush=True)
    sys.stdin.read()
"""


def gauge(server: Server, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def sessions(server: Server) -> float:
    return gauge(server, 'tbfast_sessions{protocol="mqtt"}')


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def far_network() -> Iterator[str]:
    """A network namespace behind a cable; the address of this side."""
    if shutil.which("ip") is None:
        pytest.skip("needs the ip command")
    try:
        _ip("netns", "add", NAMESPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    try:
        _ip(
            "link", "add", "tbf-near", "type", "veth", "peer", "name", "tbf-far", "netns", NAMESPACE
        )
        _ip("address", "add", "198.18.7.1/30", "dev", "tbf-near")
        _ip("-n", NAMESPACE, "address", "add", "198.18.7.2/30", "dev", "tbf-far")
        _ip("link", "set", "tbf-near", "up")
        _ip("-n", NAMESPACE, "link", "set", "tbf-far", "up")
        yield "198.18.7.1"
    finally:
        subprocess.run(["ip", "link", "delete", "tbf-near"], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False, capture_output=True)


def pull_the_plug() -> None:
    _ip("-n", NAMESPACE, "link", "set", "tbf-far", "down")


@contextlib.contextmanager
def far_device(server: Server, address: str, token: str) -> Iterator[None]:
    with subprocess.Popen(
        ["ip", "netns", "exec", NAMESPACE, sys.executable, "-c", _DEVICE, address,
         str(server.mqtt_port), token],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "subscribed\n"
        yield
        process.kill()


def test_14_half_open_sessions_go_when_there_is_something_to_send(far_network: str) -> None:
    with Server(flags=("--host", "0.0.0.0")) as server:
        name = server.add_device("far")
        with far_device(server, far_network, name):
            assert sessions(server) == 1
            pull_the_plug()
            started = time.monotonic()
            server.save_attributes(name, "SHARED_SCOPE", {"a": 1})
            wait_until(lambda: sessions(server) == 0, 2 * limits.TCP_TIMEOUT_MS / 1000)
            assert time.monotonic() - started > 5  # a short loss of the network is survived


def test_14_a_device_that_returns_by_another_path_takes_over_at_once(far_network: str) -> None:
    with Server(flags=("--host", "0.0.0.0")) as server:
        name = server.add_device("roams")
        with far_device(server, far_network, name):
            pull_the_plug()
            with Wire(server.mqtt_port).open(name) as wire:
                wire.publish('{"ts":1,"values":{"n":1}}')
                wait_until(lambda: gauge(server, 'tbfast_connections{protocol="mqtt"}') == 1, 10)
                wire.ping()


# --- 16 --------------------------------------------------------------------------------------


async def _storm(port: int, tokens: list[str], tls: ssl.SSLContext | None) -> None:
    """All connect at once and subscribe; those that meet a closed door try again."""

    async def device(token: str) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
                )
            except OSError:
                await asyncio.sleep(0.05)
                continue
            with contextlib.closing(writer):
                writer.write(codec.encode(connect(token), 4))
                writer.write(codec.encode(m.Subscribe(1, (m.Subscription("v2/a"),)), 4))
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    assert await reader.readexactly(4 + 5) == b"\x20\2\0\0\x90\3\0\1\0"
                    return

    await asyncio.gather(*(device(token) for token in tokens))


@pytest.mark.parametrize("count", [500])
def test_16_a_fleet_comes_back_after_kill_9_with_and_without_tls(
    tmp_path: Path, count: int
) -> None:
    with TlsServer(tmp_path) as server:
        tokens = [server.add_device(f"storm-{number}") for number in range(count)]
        context = server.context()
        for port, tls in ((server.mqtt_port, None), (server.mqtt_tls_port, context)):
            with Wire(server.mqtt_port).open(tokens[0]) as early:
                server.kill9("worker-0")
                early.expect_close()
            asyncio.run(asyncio.wait_for(_storm(port, tokens, tls), 120))
            wait_until(lambda: sessions(server) == 0, 30)
        assert gauge(server, "tbfast_refused_total") == 0


# --- 17 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_17_a_slow_consumer_is_disconnected_and_nobody_else_notices(
    tmp_path: Path, secure: bool
) -> None:
    with TlsServer(tmp_path) as server:
        slow, other = server.add_device("slow"), server.add_device("other")
        port = server.mqtt_tls_port if secure else server.mqtt_port
        tls = server.context() if secure else None
        with (
            Wire(port, tls=tls, buffer_bytes=4096).open(slow) as wire,
            Wire(server.mqtt_port).open(other) as good,
        ):
            wire.send(m.Subscribe(1, (m.Subscription("v1/devices/me/attributes"),)))
            assert isinstance(wire.receive(), m.Suback)
            number = 0

            def push() -> bool:
                nonlocal number
                number += 1
                server.save_attributes(slow, "SHARED_SCOPE", {"a": f"{number}" + "x" * 50_000})
                good.publish(f'{{"ts":{number},"values":{{"n":{number}}}}}')
                return sessions(server) == 1

            wait_until(push, 60, "the session that does not read has gone")
            good.ping()
        assert server.values(other, "n") == list(range(1, number + 1))
        assert "does not read its answers" in server.log()


# --- 18 --------------------------------------------------------------------------------------


def test_18_a_flapping_device_is_let_in_late_and_said_once() -> None:
    with Server(workers=2) as server:
        flapping, calm = server.add_device("flapping"), server.add_device("calm")

        def attempt() -> bool:
            started = time.monotonic()
            with Wire(server.mqtt_port).open(flapping):
                return time.monotonic() - started > 0.9

        for _ in range(limits.FLAPPING_BURST):
            assert not attempt()
        wait_until(attempt, 20, "an answer that is late")
        assert attempt()
        started = time.monotonic()
        with Wire(server.mqtt_port).open(calm) as wire:
            wire.ping()
        assert time.monotonic() - started < 0.9
        assert server.log().count("connects again and again") == 1
        assert gauge(server, "tbfast_connects_delayed_total") >= 2
        # Revoked while it waits: it is not let in. Each waits longer than the one before, whichever
        # workers they come to.
        with contextlib.ExitStack() as stack:
            several = [stack.enter_context(Wire(server.mqtt_port)) for _ in range(4)]
            for late in several:
                late.send(connect(flapping))
            server.remove_device(flapping)
            assert m.Connack(False, 5) in [late.receive() for late in several]
