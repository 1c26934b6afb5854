"""The HTTP port on a real socket, its loop in a thread of this process."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from tbfast._ext import metrics as words
from tbfast.net.http import Handler, HttpPort
from tbfast.net.proxy import Proxy
from tbfast.obs.metrics import NodeMetrics


class RunningPort:
    """Address, counters and the loop's complaints of a served port."""

    def __init__(self, node: NodeMetrics) -> None:
        self.node = node
        self.slot = node.slot("worker-0")
        self.address = ("127.0.0.1", 0)
        self.complaints: list[str] = []

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """A connected client socket."""
        return socket.create_connection(self.address, timeout)

    def exchange(self, data: bytes, *, shut: bool = False) -> bytes:
        """Sends bytes and reads until the server closes; a reset counts as a close."""
        with self.connect() as sock:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
                if shut:
                    sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

    @property
    def connections(self) -> int:
        """Connections the port counts as open."""
        return self.slot.get(words.CONNECTIONS_HTTP)


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the close."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65_536):
            received += data
    return received


@contextlib.contextmanager
def serve(handlers: Sequence[Handler] = (), front: Path | None = None) -> Iterator[RunningPort]:
    """Serves until the block ends; an exception that reached the loop fails the test.

    front: the Unix socket that requests of no handler are passed on to.
    """
    node = NodeMetrics(["controller", "worker-0"])
    running = RunningPort(node)
    started = threading.Event()
    loop = uvloop.new_event_loop()
    loop.set_exception_handler(lambda _, context: running.complaints.append(str(context)))
    stop = asyncio.Event()

    async def body() -> None:
        proxies = [] if front is None else [Proxy(loop, str(front), running.slot)]
        port = HttpPort(node, running.slot, [*handlers, *proxies])
        sock = socket.create_server(("127.0.0.1", 0))
        running.address = sock.getsockname()[:2]
        await port.listen(loop, sock)
        started.set()
        await stop.wait()
        port.close()
        for proxy in proxies:
            proxy.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(body(),), daemon=True)
    thread.start()
    try:
        assert started.wait(10)
        yield running
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()
    assert running.complaints == []
