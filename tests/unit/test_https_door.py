"""Handshakes of HTTPS that come to nothing do not keep others out."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import uvloop

from tbfast.net.http import HttpPort
from tbfast.net.https import HttpsDoor
from tbfast.net.tls import ServerTls
from tbfast.obs.metrics import NodeMetrics
from tests.support.certificates import Certificate


def served(where: tuple[str, int], context: ssl.SSLContext) -> bytes:
    """What one request is answered with."""
    bare = socket.create_connection(where, timeout=20)
    with context.wrap_socket(bare, server_hostname="localhost") as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        return peer.recv(4096)


def silent(where: tuple[str, int]) -> socket.socket:
    return socket.create_connection(where, timeout=20)


def test_the_oldest_of_too_many_goes(tmp_path: Path) -> None:
    certificate = Certificate("localhost")
    files = certificate.save(tmp_path, "server")
    tls = ServerTls(*map(str, files), "", b"t" * 32, setting="http.ssl", clients=False)
    context = ssl.create_default_context(cadata=certificate.pem)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        port = HttpPort(NodeMetrics(["worker"]))
        door = HttpsDoor(port, tls, most=2)
        with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as peers:
            listener.setblocking(False)
            where = listener.getsockname()
            door.listen(loop, listener)
            first = peers.enter_context(await asyncio.to_thread(silent, where))
            second = peers.enter_context(await asyncio.to_thread(silent, where))
            answer = await asyncio.to_thread(served, where, context)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert await asyncio.to_thread(first.recv, 1) == b""
            for _ in range(20):  # each makes room again
                assert (await asyncio.to_thread(served, where, context)).startswith(b"HTTP")
            second.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert second.recv(1) != b"", "nobody needed its place"
            door.close()
            port.close()
            second.settimeout(20)
            assert await asyncio.to_thread(second.recv, 1) == b""
            await asyncio.sleep(0)

    uvloop.run(run())
