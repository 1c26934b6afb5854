"""A blocking MQTT client for tests: one socket, one packet at a time."""

import contextlib
import socket
from collections.abc import Iterator
from typing import TypeVar

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m

TOPIC = "v1/devices/me/telemetry"
P = TypeVar("P")


class Client:
    """Connected TCP; nothing is sent before `connect` or `send`.  Times in seconds."""

    def __init__(self, port: int, version: int = 4, timeout_s: float = 10.0) -> None:
        self.version = version
        self.sock = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._decoder = codec.Decoder(max_remaining=1 << 20, version=version)
        self._packets: list[m.Packet] = []
        self._packet_id = 0

    def send(self, packet: m.Packet) -> None:
        self.sock.sendall(codec.encode(packet, self.version))

    def hello(self, token: str) -> None:
        """Sends CONNECT without waiting."""
        self.send(m.Connect(self.version, "", username=token))

    def connect(self, token: str) -> int:
        """CONNECT; the code of the CONNACK."""
        self.hello(token)
        return self.expect(m.Connack).reason_code

    def publish(self, payload: bytes, topic: str = TOPIC) -> int:
        """QoS 1 without waiting; the packet identifier."""
        self._packet_id = self._packet_id % 65535 + 1
        self.send(m.Publish(topic, payload, qos=1, packet_id=self._packet_id))
        return self._packet_id

    def publish_acknowledged(self, payload: bytes) -> None:
        wanted = self.publish(payload)
        got = self.expect(m.Puback)
        assert (got.packet_id, got.reason_code) == (wanted, 0)

    def ping(self) -> None:
        """PINGREQ, and waits for its answer."""
        self.send(m.Pingreq())
        self.expect(m.Pingresp)

    def receive(self) -> m.Packet | None:
        """The next packet; None at the end of the connection.  TimeoutError if neither comes."""
        while not self._packets:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self._packets += self._decoder.feed(data)
        return self._packets.pop(0)

    def expect(self, kind: type[P]) -> P:
        packet = self.receive()
        assert isinstance(packet, kind), packet
        return packet

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def connected(port: int, token: str, version: int = 4, timeout_s: float = 10.0) -> Iterator[Client]:
    """An accepted session."""
    client = Client(port, version, timeout_s)
    with contextlib.closing(client):
        assert client.connect(token) == 0
        yield client
