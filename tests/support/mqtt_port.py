"""The real MQTT port, commit path and journal of a worker on the test's own loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tbfast._ext.ingest import Group, Ingest
from tbfast._ext.metrics import Slot
from tbfast.codec import mqtt as codec
from tbfast.engine.mqtt.settings import Settings
from tbfast.model import mqtt as m
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.net.mqtt import MqttPort
from tbfast.net.strangers import Strangers
from tbfast.store.journal import Journal, Position
from tbfast.worker.commit import Committer
from tbfast.worker.operations import Operations
from tests.support.packages import no_packages

TELEMETRY = "v1/devices/me/telemetry"


class Directory:
    """Every user name is a device; answers come at once, or when `answer` is called."""

    def __init__(self) -> None:
        self.cold = False
        self.waiting: list[Callable[[], None]] = []
        self.numbers: dict[str, int] = {}

    def find(
        self,
        client: Presented,
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
    ) -> None:
        token = client.user_name or ""
        number = self.numbers.setdefault(token, len(self.numbers) + 1)
        found = StoredCredentials(
            token, "ACCESS_TOKEN", number, f"device {number}", profile=f"profile of {token}"
        )
        if self.cold:
            self.waiting.append(lambda: done(found))
        else:
            done(found)

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for done in waiting:
            done()

    def session_opened(self, device: int, slot: int, generation: int, at_ms: int) -> None:
        """Nobody else needs to know."""

    def session_closed(self, device: int, slot: int, generation: int) -> None:
        """The same."""


class CountingMetrics:
    """What the commit path reports."""

    def __init__(self) -> None:
        self.groups: list[tuple[int, int]] = []  # messages, bytes of the block

    def committed(self, group: Group, seconds: float) -> None:
        self.groups.append((group.messages, len(group.value or b"")))

    def refused(self, group: Group) -> None:
        """Seen by the sessions."""

    def pressed(self) -> None:
        """Seen by the port."""


class Client:
    """One device connection that speaks whole packets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._pending = b""
        self.version = 4

    def send(self, *packets: m.Packet) -> None:
        self.writer.write(b"".join(codec.encode(p, self.version) for p in packets))

    async def receive(self) -> m.Packet:
        """The next packet; IncompleteReadError when the peer has closed."""
        while not (length := codec.frame_length(self._pending, 1 << 20) if self._pending else 0):
            more = await self.reader.read(65536)
            if not more:
                raise asyncio.IncompleteReadError(self._pending, None)
            self._pending += more
        packet, self._pending = self._pending[:length], self._pending[length:]
        return codec.decode(packet, self.version)

    async def closed(self) -> bool:
        """Waits for the end of the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass
        return True


class Port:
    """Everything together."""

    def __init__(
        self,
        path: Path,
        *,
        max_connections: int = 1000,
        max_strangers: int = 1000,
        max_stranger_bytes: int = 1 << 20,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.journal = Journal(path / "0", 0)
        self.ingest = Ingest()
        self.directory = Directory()
        self.operations = Operations(loop, lambda: Position(0, 0), no_packages(loop))
        self.metrics = CountingMetrics()
        self.slot = Slot()
        self.port = MqttPort(
            loop, self.ingest, self.slot, self.directory, Settings(),
            operations=self.operations,
            max_connections=max_connections,
            strangers=Strangers(max_strangers, max_stranger_bytes),
        )  # fmt: skip
        self.committer = Committer(
            loop, self.ingest, self.journal, self.port, self.metrics, disk=True,
            on_durable=lambda group, previous: None, on_broken=lambda error: None,
        )  # fmt: skip
        self.port.commits = self.committer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port.reactor.listen(self.listener.fileno())
        self._clients: list[Client] = []

    async def connect(self, source: str = "127.0.0.1") -> Client:
        address = self.listener.getsockname()
        client = Client(*await asyncio.open_connection(*address, local_addr=(source, 0)))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            client.writer.close()
            with contextlib.suppress(ConnectionError):
                await client.writer.wait_closed()
        self.port.close()
        self.committer.close()
        self.listener.close()
        self.journal.close()


@contextlib.asynccontextmanager
async def running_port(path: Path, **options: int) -> AsyncIterator[Port]:
    """A port that serves while the block runs, for at most 20 s."""
    port = Port(path, **options)
    try:
        async with asyncio.timeout(20):
            yield port
    finally:
        await port.close()


def connect_packet(token: str, version: int = 4) -> m.Connect:
    return m.Connect(protocol_version=version, client_id="c", username=token, keep_alive=60)


def publish(payload: bytes, packet_id: int, qos: int = 1) -> m.Publish:
    return m.Publish(topic=TELEMETRY, payload=payload, qos=qos, packet_id=packet_id)
