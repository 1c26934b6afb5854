"""HTTP over TLS on real sockets (HTTP spec 1)."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.certificates import Certificate
from tests.support.rest_client import Person
from tests.support.server import ROOT, Server
from tests.support.waiting import wait_until

TENANT = {"username": "tenant@thingsboard.org", "password": "tenant"}


class Secure:
    """A node with HTTPS, and what its clients trust."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.use(Certificate("localhost"))
        self.server = Server(
            env={
                "TBFAST_HTTP__TLS_BIND_PORT": "0",
                "SSL_PEM_CERT": str(directory / "server.pem"),
                "SSL_PEM_KEY": str(directory / "server_key.pem"),
            },
            flags=("--demo",),
        )

    def use(self, certificate: Certificate) -> None:
        self.certificate = certificate
        certificate.save(self.directory, "server")

    def context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.certificate.pem)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    def connection(self) -> contextlib.closing[http.client.HTTPSConnection]:
        port = self.server.https_port
        return contextlib.closing(
            http.client.HTTPSConnection("localhost", port, timeout=20, context=self.context())
        )

    def refused(self) -> int:
        """Handshakes that came to nothing."""
        with self.connection() as peer:
            peer.request("GET", "/metrics")
            text = peer.getresponse().read().decode()
        found = re.search(r'^tbfast_refused_total{protocol="http",reason="tls"} (\d+)$', text, re.M)
        assert found is not None
        return int(found[1])

    def status(self) -> int:
        """Of a request on a connection of its own."""
        with self.connection() as peer:
            peer.request("GET", "/healthz")
            return peer.getresponse().status


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    made = Secure(tmp_path_factory.mktemp("certificates"))
    with made.server:
        yield made


def test_devices_and_people_share_a_connection(secure: Secure) -> None:
    secure.server.add_device("d")
    with secure.connection() as peer:
        for n in range(3):
            peer.request("POST", "/api/v1/d/telemetry", json.dumps({"ts": n, "values": {"n": n}}))
            answer = peer.getresponse()
            assert (answer.status, answer.read()) == (200, b"")
            peer.request("POST", "/api/auth/login", json.dumps(TENANT))
            answer = peer.getresponse()
            assert answer.status == 200
            assert json.loads(answer.read()).keys() == {"token", "refreshToken"}
        assert isinstance(peer.sock, ssl.SSLSocket)
        assert peer.sock.selected_alpn_protocol() == "http/1.1"
        assert peer.sock.version() in ("TLSv1.2", "TLSv1.3")
    assert secure.server.values("d", "n") == [0, 1, 2]


def test_large_bodies_both_ways_and_a_close(secure: Secure) -> None:
    """Nothing of the answer is lost when the connection ends with it."""
    secure.server.add_device("large")
    values = {f"k{n}": "x" * 50_000 for n in range(20)}
    with secure.connection() as peer:
        peer.request("POST", "/api/v1/large/attributes", json.dumps(values))
        assert peer.getresponse().read() == b""
        peer.request("GET", "/api/v1/large/attributes", headers={"Connection": "close"})
        answer = peer.getresponse()
        assert json.loads(answer.read()) == {"client": values}
        assert peer.sock is None  # closed by its answer


def test_a_request_in_the_last_flight_of_the_handshake(secure: Secure) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = secure.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("localhost", secure.server.https_port), timeout=20) as peer:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                peer.sendall(outgoing.read())
                incoming.write(peer.recv(65_536))
        tls.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        peer.sendall(outgoing.read())
        while True:
            try:
                assert tls.read(65_536).startswith(b"HTTP/1.1 200 ")
                break
            except ssl.SSLWantReadError:
                incoming.write(peer.recv(65_536))


def test_a_websocket(secure: Secure) -> None:
    with contextlib.closing(Person(secure.server.http_port)) as person:
        token = person.ok("POST", "/api/auth/login", TENANT)["token"]
    url = f"wss://localhost:{secure.server.https_port}/api/ws?token={token}"
    context = ssl.create_default_context(cadata=secure.certificate.pem)
    with connect(url, ssl=context) as client:
        query = {"entityFilter": {"type": "entityType", "entityType": "DEVICE"}}
        client.send(json.dumps({"entityCountCmds": [{"cmdId": 1, "query": query}]}))
        assert json.loads(client.recv(20))["cmdUpdateType"] == "COUNT_DATA"


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 99])
def test_what_is_no_tls_is_closed(secure: Secure, junk: bytes) -> None:
    refused = secure.refused()
    with socket.create_connection(("localhost", secure.server.https_port), timeout=20) as peer:
        peer.sendall(junk)
        with contextlib.suppress(ConnectionResetError):
            while received := peer.recv(4096):
                assert not received.startswith(b"HTTP")
    wait_until(lambda: secure.refused() == refused + 1, what="it is counted")


def test_another_certificate_without_a_restart(secure: Secure) -> None:
    with secure.connection() as old:
        old.request("GET", "/healthz")
        assert old.getresponse().read()
        former = secure.certificate
        secure.use(Certificate("localhost"))
        os.kill(secure.server.pids()["supervisor"], signal.SIGHUP)

        def renewed() -> bool:
            with contextlib.suppress(ssl.SSLCertVerificationError):
                return secure.status() == 200
            return False

        wait_until(renewed, what="the new certificate is shown")
        (secure.directory / "server.pem").write_text("no certificate")
        os.kill(secure.server.pids()["supervisor"], signal.SIGHUP)
        wait_until(
            lambda: "http.ssl" in secure.server.log() or "unusable" in secure.server.log(),
            what="the mistake is told",
        )
        assert secure.status() == 200
        old.request("GET", "/healthz")
        assert old.getresponse().status == 200
    assert former is not secure.certificate
    secure.use(secure.certificate)


def test_a_node_stops_with_open_connections(tmp_path: Path) -> None:
    made = Secure(tmp_path)
    with made.server, made.connection() as peer:
        peer.request("GET", "/healthz")
        assert peer.getresponse().read()
        half = socket.create_connection(("localhost", made.server.https_port))
        with half:
            assert made.server.stop() == 0


def test_a_certificate_that_is_missing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tbfast", "serve", "--data-dir", str(tmp_path / "data")],
        env={
            **os.environ, "TBFAST_HTTP__TLS_BIND_PORT": "0",
            "SSL_PEM_CERT": str(tmp_path / "none.pem"),
        },
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "none.pem: set http.ssl.credentials.pem.cert_file" in done.stderr


def test_devices_may_be_kept_out_of_http() -> None:
    with (
        Server(env={"HTTP_ENABLED": "false"}, flags=("--demo",)) as node,
        contextlib.closing(Person(node.http_port)) as person,
    ):
        node.add_device("d")
        assert person.refusal("POST", "/api/v1/d/telemetry", {"n": 1}) == (404, 32)
        assert person.refusal("GET", "/api/v1/d/firmware?title=a&version=b") == (404, 32)
        assert person("POST", "/api/auth/login", TENANT)[0] == 200
