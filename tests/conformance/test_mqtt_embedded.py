"""Microcontrollers' clients, their packets replayed byte for byte (clients spec 9 and 10).

They read as those do: so many bytes as the next packet must have, in the order it must come in.
"""

import json
import socket
import threading
from typing import Any, Self

import pytest

from tests.support.mqtt_raw import frame, text
from tests.support.provisioning import provisioning_profile
from tests.support.server import Server
from tests.support.waiting import wait_until

V1 = "v1/devices/me/"
WAIT_S = 10.0


class Board:
    """A socket that knows only bytes; a context manager."""

    def __init__(self, server: Server, connect: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.mqtt_port), WAIT_S)
        self.write(connect)
        self.expect("20 02 00 00")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def write(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < count:
            piece = self.sock.recv(count - len(data))
            assert piece, "the server closed the connection"
            data += piece
        return data

    def expect(self, packet: str) -> None:
        """The next packet, in hexadecimal."""
        wanted = bytes.fromhex(packet)
        assert self.read(len(wanted)).hex(" ") == wanted.hex(" ")

    def message(self) -> tuple[str, Any]:
        """The next packet, which must be a PUBLISH: topic and JSON; answered if it is QoS 1."""
        first = self.read(1)[0]
        assert first in (0x30, 0x32), f"no PUBLISH but {first:#x}"  # never RETAIN, never DUP
        size = shift = 0
        while True:
            byte = self.read(1)[0]
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        body = self.read(size)
        end = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:end].decode()
        if first == 0x32:
            self.write(b"\x40\x02" + body[end : end + 2])
            end += 2
        return topic, json.loads(body[end:])


def publish(topic: str, payload: str, packet_id: int | None = None) -> bytes:
    """QoS 0, or QoS 1 with an identifier."""
    if packet_id is None:
        return frame(0x30, text(topic) + payload.encode())
    return frame(0x32, text(topic) + packet_id.to_bytes(2, "big") + payload.encode())


def subscribe(topic: str, packet_id: int, qos: int) -> bytes:
    return frame(0x82, packet_id.to_bytes(2, "big") + text(topic) + bytes([qos]))


@pytest.fixture
def provisioning(server: Server, token: str) -> dict[str, str]:
    """Key and secret of a profile whose devices register themselves."""
    return provisioning_profile(server, f"key-{token}")


class Caller(threading.Thread):
    """A two-way call of a device, under way."""

    def __init__(self, server: Server, device: str, params: Any) -> None:
        super().__init__()
        self.answer: tuple[int, Any] | None = None
        self._ask = lambda: server.call(device, "twoway", "setGpio", params)
        self.start()

    def run(self) -> None:
        self.answer = self._ask()


# --- MicroPython: umqtt -----------------------------------------------------------------------


def umqtt_connect(client_id: str, user: str | None, keep_alive: int) -> bytes:
    flags = 0x02 if user is None else 0xC2
    head = b"\x00\x04MQTT\x04" + bytes([flags]) + keep_alive.to_bytes(2, "big")
    login = b"" if user is None else text(user) + text("pswd")
    return frame(0x10, head + text(client_id) + login)


def test_micropython(server: Server, token: str) -> None:
    """Each QoS 1 PUBLISH blocks for its PUBACK; a request then for one packet, the answer."""
    server.save_attributes(token, "SHARED_SCOPE", {"limit": 7})
    with Board(server, umqtt_connect("a4cf12ff", token, 120)) as board:
        filters = ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+")
        for packet_id, filter in enumerate(filters, 1):
            board.write(subscribe(V1 + filter, packet_id, 1))
            board.expect(f"90 03 00 {packet_id:02x} 01")
        board.write(publish(V1 + "telemetry", '{"ts": 1, "values": {"t": 21.5}}'))
        board.write(publish(V1 + "attributes", '{"chip": "esp32"}'))

        request = '{"clientKeys": "chip", "sharedKeys": "limit"}'
        board.write(publish(V1 + "attributes/request/1", request, 5))
        board.expect("40 02 00 05")
        assert board.message() == (
            V1 + "attributes/response/1",
            {"client": {"chip": "esp32"}, "shared": {"limit": 7}},
        )
        board.write(publish(V1 + "rpc/request/2", '{"method": "getCurrentTime", "params": {}}', 6))
        board.expect("40 02 00 06")
        topic, now_ms = board.message()
        assert topic == V1 + "rpc/response/2" and now_ms > 1_700_000_000_000

        board.write(publish(V1 + "claim", '{"secretKey": "s", "durationMs": 30000}', 7))
        board.expect("40 02 00 07")

        caller = Caller(server, token, {"pin": 2})
        assert board.message() == (
            V1 + "rpc/request/0", {"method": "setGpio", "params": {"pin": 2}},
        )  # fmt: skip
        board.write(publish(V1 + "rpc/response/0", '{"pin": "on"}'))
        caller.join(WAIT_S)
        assert caller.answer == (200, {"pin": "on"})
        board.write(bytes.fromhex("c0 00"))
        board.expect("d0 00")
        board.write(bytes.fromhex("e0 00"))
    assert server.values(token, "t") == [21.5]
    assert server.attributes(token, "CLIENT_SCOPE") == {"chip": "esp32"}


def test_micropython_registers(server: Server, token: str, provisioning: dict[str, str]) -> None:
    """No user name; behind the SUBACK exactly one packet is read."""
    with Board(server, umqtt_connect("provision", None, 10)) as board:
        board.write(subscribe("/provision/response", 1, 0))
        board.expect("90 03 00 01 00")
        wanted = json.dumps({**provisioning, "deviceName": f"micro-{token}"})
        board.write(publish("/provision/request", wanted))
        topic, answer = board.message()
        assert topic == "/provision/response"
    assert (answer["status"], answer["credentialsType"]) == ("SUCCESS", "ACCESS_TOKEN")
    with Board(server, umqtt_connect("a4cf12ff", answer["credentialsValue"], 120)) as board:
        board.write(publish("v2/t", '{"ts": 1, "values": {"a": 1}}', 1))
        board.expect("40 02 00 01")
    assert server.values(f"micro-{token}", "a") == [1]


# --- Arduino: PubSubClient --------------------------------------------------------------------

RECEIVE_BYTES = 64  # a payload that does not fit is lost


def pubsub_connect(client_id: str, user: str) -> bytes:
    return frame(0x10, b"\x00\x04MQTT\x04\x82\x00\x0f" + text(client_id) + text(user))


def small(message: tuple[str, Any]) -> tuple[str, Any]:
    """The message, if its payload fits the board's buffer and its eight JSON elements."""
    payload = json.dumps(message[1], separators=(",", ":"))
    assert len(payload) <= RECEIVE_BYTES
    assert sum(payload.count(c) for c in ",{[") <= 8
    return message


def test_arduino(server: Server, token: str) -> None:
    """QoS 0 only; key lists end in a comma; client id is the token."""
    server.save_attributes(token, "SHARED_SCOPE", {"limit": 7, "mode": "eco"})
    with Board(server, pubsub_connect(token, token)) as board:
        board.write(publish(V1 + "telemetry", '{"temperature":42.2}'))
        board.write(publish(V1 + "attributes", '{"chip":"esp8266"}'))

        board.write(subscribe(V1 + "attributes/response/+", 2, 0))
        board.expect("90 03 00 02 00")
        board.write(publish(V1 + "attributes/request/1", '{"sharedKeys":"limit,mode,"}'))
        assert small(board.message()) == (
            V1 + "attributes/response/1", {"shared": {"limit": 7, "mode": "eco"}},
        )  # fmt: skip
        board.write(publish(V1 + "attributes/request/2", '{"clientKeys":"chip,"}'))
        assert small(board.message()) == (
            V1 + "attributes/response/2", {"client": {"chip": "esp8266"}},
        )  # fmt: skip
        board.write(frame(0xA2, b"\x00\x03" + text(V1 + "attributes/response/+")))
        board.expect("b0 02 00 03")

        board.write(subscribe(V1 + "attributes", 4, 0))
        board.expect("90 03 00 04 00")
        server.save_attributes(token, "SHARED_SCOPE", {"limit": 8})
        assert board.message() == (V1 + "attributes", {"limit": 8})

        board.write(subscribe(V1 + "rpc/request/+", 5, 0))
        board.expect("90 03 00 05 00")
        caller = Caller(server, token, None)
        assert small(board.message()) == (
            V1 + "rpc/request/0", {"method": "setGpio", "params": None},
        )  # fmt: skip
        board.write(publish(V1 + "rpc/response/0", '{"ok":true}'))
        caller.join(WAIT_S)
        assert caller.answer == (200, {"ok": True})

        board.write(subscribe(V1 + "rpc/response/+", 6, 0))
        board.expect("90 03 00 06 00")
        request = '{"method":"getCurrentTime","params":"{}"}'
        board.write(publish(V1 + "rpc/request/3", request))
        topic, now_ms = small(board.message())
        assert topic == V1 + "rpc/response/3" and now_ms > 1_700_000_000_000

        # Refused as upstream: the chunks come all the same.
        board.write(subscribe("v2/fw/response/+", 7, 0))
        board.expect("90 03 00 07 80")
        board.write(publish(V1 + "claim", '{"durationMs":10000}'))
        board.write(bytes.fromhex("c0 00"))
        board.expect("d0 00")
    wait_until(lambda: server.values(token, "temperature") == [42.2], WAIT_S, "stored")


def test_arduino_registers(server: Server, token: str, provisioning: dict[str, str]) -> None:
    with Board(server, pubsub_connect("provision", "provision")) as board:
        board.write(subscribe("/provision/response", 2, 0))
        board.expect("90 03 00 02 00")
        own = {
            "deviceName": f"arduino-{token}", "credentialsType": "MQTT_BASIC",
            "username": f"user-{token}", "password": "p", "clientId": f"id-{token}",
        }  # fmt: skip
        board.write(publish("/provision/request", json.dumps({**provisioning, **own})))
        assert board.message() == (
            "/provision/response",
            {
                "status": "SUCCESS",
                "credentialsType": "MQTT_BASIC",
                "credentialsValue": {
                    "clientId": own["clientId"],
                    "userName": own["username"],
                    "password": "p",
                },
            },
        )
        board.write(frame(0xA2, b"\x00\x03" + text("/provision/response")))
        board.expect("b0 02 00 03")
    login = text(own["clientId"]) + text(own["username"]) + text("p")
    with Board(server, frame(0x10, b"\x00\x04MQTT\x04\xc2\x00\x0f" + login)) as board:
        board.write(publish("v2/t", '{"ts":1,"values":{"a":1}}', 1))
        board.expect("40 02 00 01")
    assert server.values(f"arduino-{token}", "a") == [1]
