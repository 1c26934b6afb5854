"""A small blocking MQTT client: raw bytes or packets out, packets in, and a close to wait for."""

import socket
import ssl
import struct
import time
from typing import Any, Self

from tbfast.codec import mqtt as codec
from tbfast.model import mqtt as m

TELEMETRY = "v1/devices/me/telemetry"
CLOSE_S = 1.0  # the connection is gone so soon after a violation (hostile-input spec I7)
SLOW_S = 3.0  # what the machine of the tests may take longer


class Closed(AssertionError):
    """The server closed the connection."""


class Wire:
    """One connection; a context manager.

    timeout_s: longest wait for a packet.  buffer_bytes: our receive buffer, if not the default.
    tls, session: how to wrap it.  preamble: sent before anything else.  source: our address.
    """

    def __init__(
        self,
        port: int,
        *,
        version: int = 4,
        timeout_s: float = 10.0,
        buffer_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        preamble: bytes = b"",
        source: str = "127.0.0.1",
    ) -> None:
        self.version = version
        self.timeout_s = timeout_s
        self.sock = socket.socket()
        if buffer_bytes is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.settimeout(timeout_s)
        if source != "127.0.0.1":
            self.sock.bind((source, 0))
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(preamble)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost", session=session)
        self._decoder = codec.Decoder(max_remaining=2**28 - 1, version=version)
        self._packets: list[m.Packet] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """FIN, or RST if something is unread."""
        self.sock.close()

    def reset(self) -> None:
        """RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # --- out ---------------------------------------------------------------------------------

    def send(self, *what: m.Packet | bytes) -> None:
        """Everything in one write."""
        self.sock.sendall(b"".join(self.bytes_of(one) for one in what))

    def bytes_of(self, what: m.Packet | bytes) -> bytes:
        return what if isinstance(what, bytes) else codec.encode(what, self.version)

    def connect(self, token: str | None, **fields: Any) -> m.Connack:
        """CONNECT with a token as user name; the CONNACK, whatever it says."""
        self.send(connect(token, self.version, **fields))
        answer = self.receive()
        assert isinstance(answer, m.Connack), answer
        return answer

    def open(self, token: str, **fields: Any) -> Self:
        """An accepted session."""
        answer = self.connect(token, **fields)
        assert answer.reason_code == 0, answer
        return self

    def publish(self, payload: bytes | str, packet_id: int = 1, topic: str = TELEMETRY) -> None:
        """A QoS 1 PUBLISH and its plain PUBACK."""
        data = payload.encode() if isinstance(payload, str) else payload
        self.send(m.Publish(topic, data, 1, packet_id=packet_id))
        self.expect(m.Puback(packet_id))

    # --- in ----------------------------------------------------------------------------------

    def receive(self, timeout_s: float | None = None) -> m.Packet:
        """The next packet; Closed at the end of the connection."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while not self._packets:
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.sock.recv(65_536)
            except TimeoutError:
                raise AssertionError("no packet in time") from None
            except ConnectionError as error:
                raise Closed(str(error)) from None
            if not data:
                raise Closed("end of the stream")
            self._packets += self._decoder.feed(data)
        return self._packets.pop(0)

    def expect(self, *packets: m.Packet) -> None:
        """Exactly these packets are next."""
        for wanted in packets:
            got = self.receive()
            assert got == wanted, f"expected {wanted}, got {got}"

    def expect_close(self, within_s: float = CLOSE_S + SLOW_S) -> list[m.Packet]:
        """Packets up to the end of the connection, which comes in time."""
        deadline = time.monotonic() + within_s
        packets: list[m.Packet] = []
        while True:
            try:
                packets.append(self.receive(deadline - time.monotonic()))
            except Closed:
                return packets

    def ping(self) -> None:
        """The session is alive and has answered everything before."""
        self.send(m.Pingreq())
        self.expect(m.Pingresp())


def connect(token: str | None, version: int = 4, **fields: Any) -> m.Connect:
    """A CONNECT with a token as user name."""
    given: dict[str, Any] = {"client_id": "wire", "keep_alive": 60, "username": token}
    return m.Connect(protocol_version=version, **given | fields)
