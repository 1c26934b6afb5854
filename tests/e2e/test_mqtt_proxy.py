"""MQTT behind a proxy that says who connects (MQTT spec 9), and blocked addresses (8.4)."""

import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast.model import mqtt as m
from tests.support.certificates import Certificate, TlsServer
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Closed, Wire, connect

V2 = b"\r\n\r\n\0\r\nQUIT\n"


def text_header(source: str) -> bytes:
    return f"PROXY TCP4 {source} 127.0.0.1 40000 1883\r\n".encode()


def binary_header(source: str) -> bytes:
    address = bytes(int(part) for part in source.split("."))
    return V2 + b"\x21\x11\x00\x13" + address + b"\x7f\0\0\1\x9c\x40\x07\x5b" + b"\4\0\4....x"[:7]


HEADERS = pytest.mark.parametrize("header", [text_header, binary_header], ids=["v1", "v2"])


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    env = {
        "MQTT_PROXY_PROTOCOL_ENABLED": "true",
        "TB_TRANSPORT_IP_RATE_LIMITS_ENABLED": "true",
        "TB_TRANSPORT_MAX_WRONG_CREDENTIALS_PER_IP": "3",
        "TB_TRANSPORT_IP_BLOCK_TIMEOUT": "2000",
    }
    with TlsServer(tmp_path_factory.mktemp("certificates"), env=env) as running:
        yield running


@pytest.fixture(params=["plain", "tls"])
def way(request: pytest.FixtureRequest, proxied: TlsServer) -> tuple[int, ssl.SSLContext | None]:
    """A port and how to speak to it."""
    if request.param == "tls":
        return proxied.mqtt_tls_port, proxied.context()
    return proxied.mqtt_port, None


Way = tuple[int, ssl.SSLContext | None]


@HEADERS
def test_a_header_before_everything_else(proxied: TlsServer, way: Way, header) -> None:
    name = proxied.add_device(f"{header.__name__}-{way[1] is None}")
    port, tls = way
    with Wire(port, tls=tls, preamble=header("192.0.2.7")).open(name) as wire:
        wire.publish('{"ts":1,"values":{"n":1}}')
    assert proxied.values(name, "n") == [1]


@HEADERS
def test_a_header_glued_to_packets_and_one_in_single_bytes(proxied: TlsServer, header) -> None:
    name = proxied.add_device(f"glued-{header.__name__}")
    packets = (
        connect(name),
        m.Publish(TELEMETRY, b'{"ts":1,"values":{"n":1}}', 1, packet_id=1),
    )
    with Wire(proxied.mqtt_port) as wire:
        wire.send(header("192.0.2.8"), *packets)
        wire.expect(m.Connack(False, 0), m.Puback(1))
    with Wire(proxied.mqtt_port) as wire:
        for byte in header("192.0.2.8"):
            wire.send(bytes([byte]))
        wire.send(*packets)
        wire.expect(m.Connack(False, 0), m.Puback(1))


def test_a_header_glued_to_the_hello_of_tls(proxied: TlsServer) -> None:
    name = proxied.add_device("glued-hello")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = proxied.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with Wire(proxied.mqtt_tls_port) as wire:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        wire.send(binary_header("192.0.2.9") + outgoing.read())
        while tls.version() is None or outgoing.pending:
            incoming.write(wire.sock.recv(65_536))
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            break
        tls.write(wire.bytes_of(connect(name)))
        wire.send(outgoing.read())
        answer = b""
        while not answer:
            incoming.write(wire.sock.recv(65_536))
            try:
                answer = tls.read(100)
            except ssl.SSLWantReadError:
                continue
        assert answer == wire.bytes_of(m.Connack(False, 0))


@pytest.mark.parametrize(
    "raw",
    [
        b"PROXY UNKNOWN\r\n",
        V2 + b"\x20\0\0\0",
        V2 + b"\x21\x11\xff\xff",
        b"PROXY TCP4 1.2.3 4.5.6.7 1 2\r\n",
        b"\x16\x03\x01\x02\x00",
        bytes(20),
    ],
    ids=["unknown", "local", "too long", "malformed", "tls", "zeroes"],
)
def test_no_header_or_none_with_an_address(proxied: TlsServer, raw: bytes) -> None:
    for port in (proxied.mqtt_port, proxied.mqtt_tls_port):
        with Wire(port, preamble=raw) as wire:
            assert wire.expect_close() == []


def test_headers_that_do_not_end(proxied: TlsServer) -> None:
    """Hostile-input N8: they get ten seconds from accept, dripping or not, and disturb nobody."""
    name = proxied.add_device("undisturbed")
    announced = V2 + b"\x21\x11\x00\xd8"
    started = time.monotonic()
    half = [
        Wire(port, preamble=header)
        for port in (proxied.mqtt_port, proxied.mqtt_tls_port)
        for header in [announced + bytes(100), b"PROXY TCP4 1.2.3.4"] * 50
    ]
    with Wire(proxied.mqtt_port, preamble=text_header("192.0.2.7")).open(name) as wire:
        for second in range(1, 9):
            for one in half[::50]:
                one.send(b"1")
            wire.publish(f'{{"ts":{second},"values":{{"n":{second}}}}}')
            wait_until(lambda at=started + second: time.monotonic() >= at)
        for one in half:
            assert one.expect_close(started + 14 - time.monotonic()) == []
            one.close()
        wire.ping()
    assert proxied.values(name, "n") == list(range(1, 9))


def test_mqtt_without_a_header(proxied: TlsServer) -> None:
    name = proxied.add_device("direct")
    with Wire(proxied.mqtt_port) as wire:
        wire.send(connect(name))
        assert wire.expect_close() == []


def attempt(port: int, token: str, tls: ssl.SSLContext | None, preamble: bytes) -> int | None:
    """Code of the CONNACK; None = closed without a byte."""
    try:
        with Wire(port, version=5, tls=tls, preamble=preamble) as wire:
            return wire.connect(token).reason_code
    except (Closed, OSError):
        return None


def test_the_address_in_the_header_is_blocked_and_no_other(proxied: TlsServer, way: Way) -> None:
    port, tls = way
    good = proxied.add_device(f"good-{port}")
    bad, other = text_header("198.51.100.1"), text_header("198.51.100.2")
    for _ in range(2):
        assert attempt(port, "wrong", tls, bad) == 0x86
    assert attempt(port, good, tls, bad) == 0  # forgets the two
    for _ in range(3):
        assert attempt(port, "wrong", tls, bad) == 0x86
    assert attempt(port, good, tls, bad) is None
    assert attempt(port, good, tls, other) == 0
    assert "198.51.100.1:40000" in proxied.log()
    wait_until(lambda: attempt(port, good, tls, bad) == 0, 10, "the block ends")


def test_a_blocked_peer_is_closed_right_after_accept() -> None:
    env = {
        "TB_TRANSPORT_IP_RATE_LIMITS_ENABLED": "true",
        "TB_TRANSPORT_MAX_WRONG_CREDENTIALS_PER_IP": "2",
    }
    with Server(env=env) as server:
        name, gone = server.add_device("good"), server.add_device("gone")
        with Wire(server.mqtt_port, source="127.0.0.2").open(name) as stays:
            with Wire(server.mqtt_port, version=5, source="127.0.0.2").open(gone) as wire:
                server.remove_device(gone)  # counts as one failure
                assert wire.expect_close() != []
            with Wire(server.mqtt_port, source="127.0.0.2") as wire:
                assert wire.connect("wrong").reason_code == 5
            with Wire(server.mqtt_port, source="127.0.0.2") as wire:
                assert wire.expect_close() == []
            with Wire(server.mqtt_port, source="127.0.0.3").open(name):
                stays.expect_close()  # taken over: it was there all the time


@pytest.mark.parametrize("way", ["token", "certificate"])
def test_workers_count_an_address_together(tmp_path: Path, way: str) -> None:
    env = {"TB_TRANSPORT_IP_RATE_LIMITS_ENABLED": "true"}
    with TlsServer(tmp_path, env=env, workers=2) as server:
        good = server.add_device("good")
        port, tls = server.mqtt_port, None
        if way == "certificate":
            tls = server.context(Certificate("unknown"), tmp_path)
            port = server.mqtt_tls_port

        def attempts(count: int) -> list[int | None]:
            return [attempt(port, "wrong", tls, b"") for _ in range(count)]

        refused = 0x87 if way == "certificate" else 0x86
        assert attempts(9) == [refused] * 9
        assert attempt(server.mqtt_port, good, None, b"") == 0  # forgets the nine everywhere
        assert attempts(40) == [refused] * 10 + [None] * 30
        assert attempt(server.mqtt_port, good, None, b"") is None
        was = server.kill9("worker-0")
        wait_until(lambda: server.pids()["worker-0"] not in (0, was), 20, "another worker")
        with Wire(server.mqtt_port, source="127.0.0.2").open(good):
            assert attempts(20) == [None] * 20
        assert server.log().count("the address is blocked") == 1
