"""A device that takes calls of the server over MQTT and answers them."""

import contextlib
from collections.abc import Iterator

from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.wire import Wire

CALLS = "v1/devices/me/rpc/request/"
ANSWERS = "v1/devices/me/rpc/response/"
WAIT_S = 20.0


class Device:
    """A device that takes calls one packet at a time."""

    def __init__(self, server: Server, token: str, version: int = 4, qos: int = 1) -> None:
        self._calls: list[m.Packet] = []  # those that came before something else
        self.wire = Wire(server.mqtt_port, version=version, timeout_s=WAIT_S).open(token)
        self.subscribe(qos)

    def subscribe(self, qos: int = 1) -> None:
        self.wire.send(m.Subscribe(1, (m.Subscription(CALLS + "+", qos),)))
        self._wait_for(m.Suback)

    def _wait_for(self, kind: type[m.Packet]) -> None:
        while not isinstance(packet := self.wire.receive(), kind):
            self._calls.append(packet)

    def call(self) -> m.Publish:
        """The next call, not acknowledged."""
        packet = self._calls.pop(0) if self._calls else self.wire.receive()
        assert isinstance(packet, m.Publish), packet
        assert packet.topic.startswith(CALLS)
        return packet

    def acknowledge(self, packet: m.Publish) -> None:
        self.wire.send(m.Puback(packet.packet_id))

    def answer(self, packet: m.Publish, body: bytes) -> None:
        """Returns when the answer is acknowledged."""
        topic = ANSWERS + packet.topic.removeprefix(CALLS)
        self.wire.send(m.Publish(topic, body, 1, packet_id=7))
        self._wait_for(m.Puback)


@contextlib.contextmanager
def device(server: Server, token: str, version: int = 4, qos: int = 1) -> Iterator[Device]:
    one = Device(server, token, version, qos)
    with contextlib.closing(one.wire):
        yield one
