"""What workers pass requests on to: a real ASGI server, or a peer that answers bytes by script."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

# --- the ASGI server -------------------------------------------------------------------------


async def _echo(request: Request) -> Response:
    """The body back, and what the application was told of the request."""
    body = await request.body()
    told = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in request.scope["headers"]]
    answer = {
        "method": request.method,
        "path": request.scope["path"],
        "query": request.scope["query_string"].decode(),
        "headers": dict(told),
        "names": [name for name, _ in told],
        "body": body.decode("latin-1"),
    }
    return JSONResponse(answer, headers={"x-kept": "yes"})


async def _count(request: Request) -> Response:
    """How many bytes came."""
    size = 0
    async for part in request.stream():
        size += len(part)
    return Response(str(size))


async def _big(request: Request) -> Response:
    """That many bytes, of no announced length."""

    async def parts() -> AsyncIterator[bytes]:
        left = int(request.path_params["size"])
        while left > 0:
            yield b"z" * min(left, 65_536)
            left -= 65_536

    return StreamingResponse(parts())


async def _plain(request: Request) -> Response:
    return Response(b"x" * int(request.path_params["size"]), media_type="text/plain")


async def _status(request: Request) -> Response:
    return Response(status_code=int(request.path_params["status"]))


async def _refuse(request: Request) -> Response:
    """Answers without reading the body."""
    return JSONResponse({"status": 401}, 401)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, listening: threading.Event) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening.set()


@contextlib.contextmanager
def asgi_front(path: Path) -> Iterator[None]:
    """Serves the application above on a Unix socket."""
    every = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    app = Starlette(
        routes=[
            Route("/api/echo{rest:path}", _echo, methods=every),
            Route("/api/count", _count, methods=every),
            Route("/api/otaPackage/{rest}", _count, methods=every),
            Route("/api/big/{size:int}", _big),
            Route("/api/plain/{size:int}", _plain),
            Route("/api/status/{status:int}", _status),
            Route("/api/refuse", _refuse, methods=every),
        ]
    )
    listening = threading.Event()
    config = uvicorn.Config(
        app, uds=str(path), ws="none", lifespan="off", log_config=None,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = _Server(config, listening)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        assert listening.wait(10)
        yield
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


# --- the scripted peer -----------------------------------------------------------------------


class Scripted:
    """Accepts connections and runs `script(peer)` for each, in a thread of its own."""

    def __init__(self, path: Path, script: Callable[["Peer"], None]) -> None:
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self.peers: list[Peer] = []
        self.failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(sock, len(self.peers))
            self.peers.append(peer)
            self._threads.append(threading.Thread(target=self._serve, args=(peer,)))
            self._threads[-1].start()

    def _serve(self, peer: "Peer") -> None:
        try:
            self._script(peer)
        except ConnectionError:
            peer.broken = True
        except BaseException as error:
            self.failures.append(error)
        finally:
            peer.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        for peer in self.peers:
            peer.shut()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()


class Peer:
    """One connection of a worker."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self._sock = sock
        self.number = number
        self.received = bytearray()
        self.log = bytearray()  # everything ever read
        self.broken = False
        self.ended = threading.Event()
        sock.settimeout(20)

    def read_until(self, mark: bytes) -> bytes:
        """What came since the last such call, once it ends with that."""
        while not self.received.endswith(mark):
            if not self.read():
                raise ConnectionError("ended early")
        found = bytes(self.received)
        self.received.clear()
        return found

    def read(self, size: int = 65_536) -> bytes:
        """One read; nothing at the end."""
        data = self._sock.recv(size)
        self.received += data
        self.log += data
        return data

    def read_all(self) -> bytearray:
        """Everything up to the end."""
        while self.read():
            pass
        return self.received

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()
        self.ended.set()


@contextlib.contextmanager
def scripted_front(path: Path, script: Callable[[Peer], None]) -> Iterator[Scripted]:
    """A peer that answers by script; a failed assertion in it fails the test."""
    front = Scripted(path, script)
    try:
        yield front
    finally:
        front.close()
    assert front.failures == []


def ok(body: bytes = b"", *headers: bytes) -> bytes:
    """An answer of known length."""
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers, b"", b""]
    return b"\r\n".join(lines) + body
