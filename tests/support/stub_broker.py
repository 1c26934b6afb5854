"""An MQTT server that does what a test of the load generator asks for, in a thread of its own."""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tbfast.codec import mqtt
from tbfast.model.mqtt import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Properties,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
)


@dataclass
class Behaviour:
    """What is unusual about the server."""

    connack: int = 0  # return code for every CONNECT
    receive_maximum: int | None = None
    puback: int = 0  # reason code of every acknowledgement (MQTT 5)
    dribble: bool = False  # every answer in pieces of one byte
    hold_after: int | None = None  # after so many messages nothing is read for hold_s, once
    hold_s: float = 0.0
    drop_every: int | None = None  # this message of a connection is taken, then it is cut


@dataclass
class StubBroker:
    """What arrived; read it when the generator has ended."""

    behaviour: Behaviour
    port: int = 0
    published: list[tuple[str, bytes]] = field(default_factory=list)  # user name, payload
    acknowledged: list[tuple[str, bytes]] = field(default_factory=list)
    connects: list[Connect] = field(default_factory=list)
    disconnects: int = 0
    most_in_flight: int = 0
    held: bool = False
    failures: list[str] = field(default_factory=list)
    stop: Callable[[], object] = lambda: None
    _serving: set[asyncio.Task[None]] = field(default_factory=set)
    _resumed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        # asyncio leaves it off for a socket it did not make: 40 ms for every second answer.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(self, writer)
        with contextlib.suppress(ConnectionError):
            while not connection.cut and (data := await reader.read(65536)):
                await self._resumed.wait()
                await connection.feed(data)
        self.disconnects += connection.disconnected
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self._serving.discard(task)

    def message(self, user: str, payload: bytes) -> None:
        self.published.append((user, payload))
        if len(self.published) == self.behaviour.hold_after and not self.held:
            self.held = True
            self._resumed.clear()
            asyncio.get_running_loop().call_later(self.behaviour.hold_s, self._resumed.set)

    async def main(self, sock: socket.socket, started: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.failures.append(str(context)))
        stop = asyncio.Event()
        self.stop = lambda: loop.call_soon_threadsafe(stop.set)
        self._resumed.set()
        server = await asyncio.start_server(self.serve, sock=sock)
        started.set()
        await stop.wait()
        server.close()
        if self._serving:  # the generator is gone: each sees the end of its stream
            await asyncio.wait(self._serving, timeout=10)


class _Connection:
    def __init__(self, broker: StubBroker, writer: asyncio.StreamWriter) -> None:
        self._broker = broker
        self._writer = writer
        self._decoder = mqtt.Decoder(max_remaining=1 << 20)
        self._user = ""
        self._messages = 0
        self._qos2: dict[int, bytes] = {}
        self.cut = False
        self.disconnected = False

    async def feed(self, data: bytes) -> None:
        packets = self._decoder.feed(data)
        in_flight = Counter(type(packet) for packet in packets)[Publish]
        self._broker.most_in_flight = max(self._broker.most_in_flight, in_flight)
        for packet in packets:
            self._on(packet)
            if self.cut:
                break
        if self._broker.behaviour.dribble:
            await self._writer.drain()

    def _on(self, packet: Packet) -> None:
        behaviour = self._broker.behaviour
        if isinstance(packet, Connect):
            self._user = packet.username or ""
            self._broker.connects.append(packet)
            maximum = behaviour.receive_maximum
            properties = Properties(receive_maximum=maximum) if maximum else None
            self._send(Connack(False, behaviour.connack, properties))
        elif isinstance(packet, Publish):
            self._publish(packet)
        elif isinstance(packet, Pubrel):
            self._taken(self._qos2.pop(packet.packet_id))
            self._send(Pubcomp(packet.packet_id))
        elif isinstance(packet, Disconnect):
            self.disconnected = True
        else:
            raise AssertionError(f"unexpected {packet}")

    def _publish(self, packet: Publish) -> None:
        behaviour = self._broker.behaviour
        payload = bytes(packet.payload)
        self._broker.message(self._user, payload)
        self._messages += 1
        if behaviour.drop_every is not None and self._messages == behaviour.drop_every:
            self.cut = True
        elif packet.qos == 1:
            assert packet.packet_id is not None
            if behaviour.puback < 0x80:
                self._taken(payload)
            self._send(Puback(packet.packet_id, behaviour.puback))
        elif packet.qos == 2:
            assert packet.packet_id is not None
            assert packet.packet_id not in self._qos2
            self._qos2[packet.packet_id] = payload
            self._send(Pubrec(packet.packet_id))

    def _taken(self, payload: bytes) -> None:
        self._broker.acknowledged.append((self._user, payload))

    def _send(self, packet: Packet) -> None:
        data = mqtt.encode(packet, self._decoder.version)
        if not self._broker.behaviour.dribble:
            self._writer.write(data)
            return
        for i in range(len(data)):
            self._writer.write(data[i : i + 1])


@contextlib.contextmanager
def stub_broker(**unusual: object) -> Iterator[StubBroker]:
    """A server on a free port of 127.0.0.1; what it raises fails the test at the end."""
    broker = StubBroker(Behaviour(**unusual))  # type: ignore[arg-type]
    sock = socket.create_server(("127.0.0.1", 0), backlog=256)
    broker.port = sock.getsockname()[1]
    started = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(broker.main(sock, started)))
    thread.start()
    assert started.wait(10)
    try:
        yield broker
    finally:
        broker.stop()
        thread.join()
    assert broker.failures == []
