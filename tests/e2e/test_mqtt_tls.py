"""MQTT over TLS as a device and an operator see it (MQTT spec 1.3, 1.5, 1.6 and 9)."""

import contextlib
import os
import signal
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbfast.model import mqtt as m
from tests.support.certificates import Certificate, TlsServer
from tests.support.server import Server
from tests.support.waiting import wait_until
from tests.support.wire import TELEMETRY, Closed, Wire, connect

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
TLS_VERSIONS = pytest.mark.parametrize(
    "tls_version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["tls1.2", "tls1.3"]
)
Context = Callable[..., ssl.SSLContext]


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    with TlsServer(tmp_path_factory.mktemp("certificates"), workers=2) as running:
        yield running


@pytest.fixture
def context(tls_server: TlsServer, tmp_path: Path) -> Context:
    """Makes a client's context: context(certificate)."""
    return lambda client=None: tls_server.context(client, tmp_path)


def metric(server: Server, name: str) -> float:
    """A metric's value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


# --- tokens ----------------------------------------------------------------------------------


@TLS_VERSIONS
@VERSIONS
def test_a_token_lets_in_over_tls_and_rows_are_stored(
    tls_server: TlsServer, context: Context, version: int, tls_version: ssl.TLSVersion
) -> None:
    name = tls_server.add_device(f"token-{version}-{tls_version.name}")
    tls = context()
    tls.minimum_version = tls.maximum_version = tls_version
    with Wire(tls_server.mqtt_tls_port, version=version, tls=tls).open(name) as wire:
        for ts in range(1, 4):
            wire.publish(f'{{"ts":{ts},"values":{{"n":{ts}}}}}', packet_id=ts)
        wire.ping()
    assert tls_server.values(name, "n") == [1, 2, 3]


@TLS_VERSIONS
@pytest.mark.parametrize("farewell", [False, True])
def test_who_sends_and_goes_without_waiting(
    tls_server: TlsServer, context: Context, tls_version: ssl.TLSVersion, farewell: bool
) -> None:
    """With TLS's own farewell and without; nobody knows the device before."""
    name = tls_server.add_device(f"goes-{farewell}-{tls_version.name}")
    tls = context()
    tls.minimum_version = tls.maximum_version = tls_version
    with Wire(tls_server.mqtt_tls_port, tls=tls) as wire:
        wire.send(connect(name), m.Publish(TELEMETRY, b'{"ts":1,"values":{"n":1}}', 0))
        if farewell:
            wire.sock.settimeout(0)
            with contextlib.suppress(ssl.SSLError):  # it is not answered, or CONNACK is
                wire.sock.unwrap()
        else:
            wire.sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: tls_server.values(name, "n") == [1], what="it is stored")


def test_many_packets_in_one_write_and_one_packet_in_many_records(
    tls_server: TlsServer, context: Context
) -> None:
    name = tls_server.add_device("records")
    with Wire(tls_server.mqtt_tls_port, tls=context()).open(name) as wire:
        packets = [
            m.Publish(TELEMETRY, b'{"ts":%d,"values":{"n":%d}}' % (ts, ts), 1, packet_id=ts)
            for ts in range(1, 1001)
        ]
        wire.send(*packets)  # several records of 16 KiB
        wire.expect(*[m.Puback(ts) for ts in range(1, 1001)])
        text = b"x" * 40_000
        big = wire.bytes_of(
            m.Publish(TELEMETRY, b'{"ts":1,"values":{"t":"%s"}}' % text, 1, packet_id=7)
        )
        for at in range(0, len(big), 997):
            wire.send(big[at : at + 997])
        wire.expect(m.Puback(7))
        for byte in wire.bytes_of(m.Pingreq()):
            wire.send(bytes([byte]))
        wire.expect(m.Pingresp())
    assert tls_server.values(name, "n") == list(range(1, 1001))
    assert tls_server.values(name, "t") == [text.decode()]


def test_connect_and_publish_right_behind_the_handshake(
    tls_server: TlsServer, context: Context
) -> None:
    name = tls_server.add_device("eager")
    with Wire(tls_server.mqtt_tls_port, tls=context()) as wire:
        wire.send(
            m.Connect(4, "c", username=name),
            m.Publish(TELEMETRY, b'{"ts":1,"values":{"n":1}}', 1, packet_id=1),
        )
        wire.expect(m.Connack(False, 0), m.Puback(1))


def test_a_wrong_token_over_tls(tls_server: TlsServer, context: Context) -> None:
    with Wire(tls_server.mqtt_tls_port, version=5, tls=context()) as wire:
        assert wire.connect("no such token").reason_code == 0x86
        assert wire.expect_close() == []


def test_pushes_reach_a_tls_session(tls_server: TlsServer, context: Context) -> None:
    name = tls_server.add_device("pushed")
    with Wire(tls_server.mqtt_tls_port, tls=context()).open(name) as wire:
        wire.send(m.Subscribe(1, (m.Subscription("v1/devices/me/attributes"),)))
        assert isinstance(wire.receive(), m.Suback)
        tls_server.save_attributes(name, "SHARED_SCOPE", {"a": "y" * 30_000})
        pushed = wire.receive()
        assert isinstance(pushed, m.Publish)
        assert len(pushed.payload) > 30_000


def test_a_session_over_tls_takes_over_one_without(tls_server: TlsServer, context: Context) -> None:
    name = tls_server.add_device("mover")
    with Wire(tls_server.mqtt_port, version=5).open(name) as plain:
        with Wire(tls_server.mqtt_tls_port, version=5, tls=context()).open(name):
            last = plain.expect_close()[-1]
            assert isinstance(last, m.Disconnect)
            assert last.reason_code == 0x8E


# --- certificates ----------------------------------------------------------------------------


@TLS_VERSIONS
def test_a_registered_certificate_lets_in_whatever_else_is_sent(
    tls_server: TlsServer, context: Context, tls_version: ssl.TLSVersion
) -> None:
    own = Certificate("device")
    name = tls_server.add_x509_device(f"x509-{tls_version.name}", own)
    other = tls_server.add_device(f"other-{tls_version.name}")
    tls = context(own)
    tls.minimum_version = tls.maximum_version = tls_version
    for user in (None, other, "no such token"):
        with Wire(tls_server.mqtt_tls_port, tls=tls).open(user) as wire:  # type: ignore[arg-type]
            wire.publish('{"ts":1,"values":{"who":1}}')
    assert tls_server.values(name, "who") == [1]
    assert tls_server.query(other) == {}


@VERSIONS
def test_unknown_certificates_pass_the_handshake_and_are_refused_in_connack(
    tls_server: TlsServer, context: Context, version: int
) -> None:
    token = tls_server.add_device(f"beside-{version}")
    with Wire(tls_server.mqtt_tls_port, version=version, tls=context(Certificate("who"))) as wire:
        assert wire.connect(token).reason_code == (0x87 if version == 5 else 5)
        assert wire.expect_close() == []


@pytest.mark.parametrize(("first", "last"), [(-10, -2), (2, 10)], ids=["expired", "not yet valid"])
def test_certificates_outside_their_period_are_refused_in_connack(
    tls_server: TlsServer, context: Context, first: int, last: int
) -> None:
    own = Certificate("device", first_day=first, last_day=last)
    tls_server.add_x509_device(f"period-{first}", own)
    with Wire(tls_server.mqtt_tls_port, version=5, tls=context(own)) as wire:
        answer = wire.connect(None)
        assert answer.reason_code == 0x87
        assert answer.properties is not None
        assert "validity" in (answer.properties.reason_string or "")


def test_a_chain_whose_links_hold_and_one_whose_do_not(
    tls_server: TlsServer, context: Context
) -> None:
    root = Certificate("root")
    middle = Certificate("middle", issuer=root)
    good = Certificate("good", issuer=middle)
    forged = Certificate("forged", issuer=middle, signed_with=Certificate("somebody"))
    for name, own in (("good-chain", good), ("forged-chain", forged)):
        tls_server.add_x509_device(name, own)
    with Wire(tls_server.mqtt_tls_port, tls=context(good)) as wire:
        assert wire.connect(None).reason_code == 0
    with Wire(tls_server.mqtt_tls_port, tls=context(forged)) as wire:
        assert wire.expect_close() == []


def test_a_revoked_certificate_ends_the_session_and_a_resumed_one_is_not_let_in(
    tls_server: TlsServer, context: Context
) -> None:
    own = Certificate("device")
    name = tls_server.add_x509_device("revoked", own)
    tls = context(own)
    with Wire(tls_server.mqtt_tls_port, version=5, tls=tls).open(None) as wire:  # type: ignore[arg-type]
        assert isinstance(wire.sock, ssl.SSLSocket)
        session = wire.sock.session
        tls_server.remove_device(name)
        last = wire.expect_close()[-1]
        assert isinstance(last, m.Disconnect)
        assert last.reason_code == 0x98
    with Wire(tls_server.mqtt_tls_port, version=5, tls=tls, session=session) as wire:
        assert wire.connect(None).reason_code == 0x87


# --- sessions, certificates of the server ----------------------------------------------------


@TLS_VERSIONS
def test_sessions_resume_on_every_worker(
    tls_server: TlsServer, context: Context, tls_version: ssl.TLSVersion
) -> None:
    name = tls_server.add_device(f"resumes-{tls_version.name}")
    tls = context()
    tls.minimum_version = tls.maximum_version = tls_version
    with Wire(tls_server.mqtt_tls_port, tls=tls).open(name) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        session = wire.sock.session
    before = metric(tls_server, 'tbfast_tls_handshakes_total{kind="resumed"}')
    for _ in range(8):
        with Wire(tls_server.mqtt_tls_port, tls=tls, session=session).open(name) as wire:
            assert isinstance(wire.sock, ssl.SSLSocket)
            assert wire.sock.session_reused
    wait_until(
        lambda: metric(tls_server, 'tbfast_tls_handshakes_total{kind="resumed"}') == before + 8
    )


def served(server: TlsServer) -> bytes | None:
    """DER of the certificate that a new connection meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Wire(server.mqtt_tls_port, tls=context) as wire:
        assert isinstance(wire.sock, ssl.SSLSocket)
        return wire.sock.getpeercert(True)


def test_certificates_reload_while_sessions_live_and_a_broken_file_changes_nothing(
    tmp_path: Path,
) -> None:
    env = {"TB_TRANSPORT_SSL_CERTIFICATE_RELOAD_CHECK_INTERVAL_SECONDS": "1"}
    with TlsServer(tmp_path, env=env) as server:
        name = server.add_device("stays")
        first = server.certificate
        assert served(server) == first.der
        with Wire(server.mqtt_tls_port, tls=server.context()).open(name) as wire:
            second = server.use(Certificate("localhost")).certificate
            wait_until(lambda: served(server) == second.der, 10, "the files are looked at")
            (tmp_path / "server.pem").write_text("no certificate")
            wait_until(lambda: "certificate in use stays" in server.log(), 10)
            assert served(server) == second.der
            server.use(first)
            wait_until(lambda: served(server) == first.der, 10)
            wire.ping()


def test_sighup_loads_certificates(tmp_path: Path) -> None:
    with TlsServer(tmp_path, env={"TBFAST_SSL__CERTIFICATE_RELOAD_ENABLED": "false"}) as server:
        second = server.use(Certificate("localhost")).certificate
        os.kill(server.pids()["supervisor"], signal.SIGHUP)
        wait_until(lambda: served(server) == second.der, 10)
        server.kill9("worker-0")
        wait_until(lambda: "restarting" in server.log(), 10)
        assert served(server) == second.der  # a new worker looks at the files, too
        assert server.stop() == 0


def test_an_encrypted_key_and_what_is_said_about_unusable_files(tmp_path: Path) -> None:
    env = {"MQTT_SSL_PEM_KEY_PASSWORD": "geheim"}
    with TlsServer(tmp_path, env=env) as server:
        key = server.certificate.key_pem("geheim")
        (tmp_path / "server_key.pem").write_text(key)
        server.stop()
        server.start()
        assert served(server) == server.certificate.der
        server.stop()
        assert "geheim" not in server.cli("config")
        assert "geheim" not in server.log()
        key_file = tmp_path / "server_key.pem"
        for text, words in (
            (Certificate("x").key_pem(), "not that of"),
            (Certificate("x").key_pem("other"), "password is wrong"),
            (None, "no usable certificate and key"),
        ):
            key_file.unlink() if text is None else key_file.write_text(text)
            with pytest.raises(AssertionError, match=words):
                server.start()
        (tmp_path / "server.pem").unlink()
        with pytest.raises(AssertionError, match="cannot read"):
            server.start()


def test_a_key_store_is_refused_loudly(tmp_path: Path) -> None:
    server = TlsServer(tmp_path, env={"MQTT_SSL_CREDENTIALS_TYPE": "KEYSTORE"})
    with pytest.raises(AssertionError, match="openssl pkcs12"), server:
        pass


def test_end_of_a_refused_connection_is_a_clean_one(
    tls_server: TlsServer, context: Context
) -> None:
    """The last packet is followed by close_notify, so that a client can tell it from a cut."""
    tls = context()
    with Wire(tls_server.mqtt_tls_port, version=5, tls=tls) as wire:
        assert wire.connect("nobody").reason_code == 0x86
        with pytest.raises(Closed, match="end of the stream"):
            wire.receive()
