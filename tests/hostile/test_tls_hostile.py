"""Hostile TLS (hostile-input spec 3: N1, N2, N4, N5, N7, N9), canaries on plain MQTT beside it.

The fixture `field` checks after every test that canaries, processes, memory and descriptors are
what they were.
"""

import contextlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.model import mqtt as m
from tests.support.battlefield import Field, scaled
from tests.support.canaries import Canaries
from tests.support.certificates import Certificate, TlsServer, forged
from tests.support.waiting import wait_until
from tests.support.wire import Wire


@pytest.fixture(scope="module")
def tls_field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    place = tmp_path_factory.mktemp("certificates")
    with TlsServer(place) as server:
        _connect_with_certificate(server, place)
        with Canaries(server) as canaries:
            yield Field(server, canaries)
            canaries.check_rows()


def _connect_with_certificate(server: TlsServer, place: Path) -> None:
    """The first chain makes the process load what verifies it: 6 MiB that a used server has."""
    root = Certificate("root", authority=True)
    server.add_chain_profile("first-chain", root)
    context = server.context(Certificate("first-chain.example", issuer=root), place)
    with Wire(server.mqtt_tls_port, version=5, tls=context) as wire:
        assert wire.connect(None).reason_code == 0


@pytest.fixture
def field(tls_field: Field) -> Iterator[Field]:
    tls_field.begin()
    yield tls_field
    tls_field.canaries.check()


def secure(field: Field) -> TlsServer:
    assert isinstance(field.server, TlsServer)
    return field.server


class Handshake:
    """A client's handshake whose flights are sent by hand."""

    def __init__(self, field: Field, context: ssl.SSLContext | None = None) -> None:
        server = secure(field)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or server.context()).wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost"
        )
        self.wire = Wire(server.mqtt_tls_port)

    def step(self) -> bytes:
        """The next flight; empty = done or waiting for the server."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def hear(self) -> None:
        self.incoming.write(self.wire.sock.recv(65_536))


def closed(sock: socket.socket, within_s: float) -> bool:
    """Waits for the end of a connection, whatever comes before it."""
    deadline = time.monotonic() + within_s
    while True:
        sock.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            if not sock.recv(65_536):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True


@pytest.mark.parametrize(
    "raw",
    [
        b"\x10\x13\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01c\x00\x04toke",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x80\x2e\x01\x00\x02",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
        bytes(4096),
    ],
    ids=["mqtt", "http", "ssl2", "proxy", "zeroes"],
)
def test_n5_other_protocols_on_the_port_for_tls(field: Field, raw: bytes) -> None:
    for piece in (raw, raw[:1]):
        with Wire(secure(field).mqtt_tls_port, preamble=piece) as wire:
            assert wire.expect_close() == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
        b"\x16\x03\x01\x00\x00" * 100,
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x01\x40\x00" + bytes(16_384),
        b"\x16" * 1000,
    ],
    ids=["garbage", "record too long", "empty records", "hello of 16 MiB", "all 16"],
)
def test_garbage_instead_of_a_hello(field: Field, raw: bytes) -> None:
    with Wire(secure(field).mqtt_tls_port) as wire:
        with contextlib.suppress(ConnectionError):
            wire.send(raw)
        assert closed(wire.sock, limits.MQTT_CONNECT_TIMEOUT_MS / 1000 + 3)


def test_n1_n2_n4_handshakes_that_stall_at_each_flight(field: Field) -> None:
    """200 of each kind at once: they go at the ten-second deadline, dripped bytes or not."""
    started = time.monotonic()
    stalled, hellos = [], []
    for number in range(scaled(200)):
        shake = Handshake(field)
        hello = shake.step()
        match number % 4:
            case 0:
                pass  # nothing at all
            case 1:
                shake.wire.send(hello[:50])
            case 2:
                shake.wire.send(hello)  # the server's flight is never answered
            case 3:
                shake.wire.send(hello)
                shake.hear()
                shake.wire.send(shake.step()[:20])  # a part of Finished
        stalled.append(shake)
        hellos.append(hello)
    dripping = list(zip(stalled, hellos, strict=True))[1::4][:10]
    deadline = started + limits.MQTT_CONNECT_TIMEOUT_MS / 1000
    for second in range(1, 9):
        wait_until(lambda at=started + second: time.monotonic() >= at)
        for shake, hello in dripping:
            shake.wire.send(hello[49 + second : 50 + second])
    with Wire(secure(field).mqtt_tls_port, tls=secure(field).context()).open(field.mallory) as wire:
        wire.ping()  # who does it well gets in meanwhile
    for shake in stalled:
        assert closed(shake.wire.sock, deadline + 5 - time.monotonic())
        shake.wire.close()


def test_tls_is_up_and_no_connect_comes(field: Field) -> None:
    silent = [
        Wire(secure(field).mqtt_tls_port, tls=secure(field).context()) for _ in range(scaled(20))
    ]
    deadline = time.monotonic() + limits.MQTT_CONNECT_TIMEOUT_MS / 1000 + 3
    for wire in silent:
        assert closed(wire.sock, deadline - time.monotonic())
        wire.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_renegotiation_is_refused(field: Field) -> None:
    port = secure(field).mqtt_tls_port
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as client:  # fmt: skip
        said = client.communicate("R\n", timeout=20)[0]
    assert "RENEGOTIATING" in said
    assert "no renegotiation" in said


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_n7_records_cut_flipped_and_repeated(field: Field, version: ssl.TLSVersion) -> None:
    context = secure(field).context()
    context.minimum_version = context.maximum_version = version
    for number in range(scaled(30)):
        wire = Wire(secure(field).mqtt_tls_port, tls=context).open(field.mallory)
        assert isinstance(wire.sock, ssl.SSLSocket)
        raw = socket.socket(fileno=wire.sock.detach())
        record = bytes([0x17, 3, 3, 0, 60]) + bytes(60)
        match number % 3:
            case 0:
                raw.sendall(record[:30])  # FIN in the middle
            case 1:
                raw.sendall(record)  # its seal does not hold
                assert closed(raw, 3)
            case 2:
                raw.sendall(record * 50)
                assert closed(raw, 3)
        raw.close()
    assert field.rows() == {}


def test_n9_a_subject_that_is_no_text(field: Field, tmp_path: Path) -> None:
    """Its authority would register it under its name: it gets none, and no device.

    OpenSSL itself refuses what calls itself UTF-8 and is not; this one calls itself printable.
    """
    root = Certificate("root", authority=True)
    secure(field).add_chain_profile("n9", root)
    good = Certificate("AAAA.example", issuer=root)
    context = secure(field).context(good, tmp_path)
    with Wire(secure(field).mqtt_tls_port, version=5, tls=context) as wire:
        assert wire.connect(None).reason_code == 0  # the profile does register
    chain, key = good.save(tmp_path)
    bad = forged(good, b"\x0c\x0cAAAA", b"\x13\x0c\xff\xfe\xc3\x28", root)
    chain.write_text(ssl.DER_cert_to_PEM_cert(bad) + root.pem)
    context = secure(field).context()
    context.load_cert_chain(chain, key)
    for _ in range(scaled(10)):
        with Wire(secure(field).mqtt_tls_port, version=5, tls=context) as wire:
            assert wire.expect_close() == []
    listed = secure(field).rest("GET", "/api/tenant/devices?pageSize=1000&page=0&type=n9")[1]
    assert [device["name"] for device in listed["data"]] == ["AAAA"]


def test_a_chain_of_a_hundred_certificates(field: Field, tmp_path: Path) -> None:
    chain = Certificate("root")
    for number in range(99):
        chain = Certificate(f"link {number}", issuer=chain)
    context = secure(field).context(chain, tmp_path)
    for _ in range(scaled(10)):
        with socket.create_connection(("127.0.0.1", secure(field).mqtt_tls_port)) as raw:
            with contextlib.suppress(OSError):  # TLS 1.3: the client learns of it later
                tls = context.wrap_socket(raw, server_hostname="localhost")
                assert closed(tls, 3)
                tls.close()


def test_one_certificate_more_than_the_bound(field: Field, tmp_path: Path) -> None:
    chain = Certificate("root")
    for number in range(limits.TLS_CHAIN_CERTIFICATES - 1):
        chain = Certificate(f"link {number}", issuer=chain)
    secure(field).add_x509_device("longest chain", chain)
    context = secure(field).context(chain, tmp_path)
    with Wire(secure(field).mqtt_tls_port, tls=context) as wire:
        assert wire.connect(None).reason_code == 0
    longer = Certificate("one more", issuer=chain)
    secure(field).add_x509_device("too long", longer)
    context = secure(field).context(longer, tmp_path)
    with Wire(secure(field).mqtt_tls_port, tls=context) as wire:
        assert closed(wire.sock, 3)


def test_n6_a_tls_peer_that_never_reads(field: Field) -> None:
    wire = Wire(
        secure(field).mqtt_tls_port, tls=secure(field).context(), buffer_bytes=4096, timeout_s=30
    ).open(field.mallory)
    flood = wire.bytes_of(m.Pingreq()) * 30_000
    with pytest.raises(OSError, match=r".*"):
        while True:
            wire.send(flood)
    wire.close()
