"""What web pages of other sites and browsers get from a node: CORS, gzip, links that lead back."""

import contextlib
import gzip
import http.client
import json
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.certificates import Certificate
from tests.support.packages import add_package
from tests.support.rest_client import Person
from tests.support.server import Server

TENANT = ("tenant@thingsboard.org", "tenant")
POINTS = 5_000
FIRST_MS = 1_764_000_000_000


class Site:
    """A node with HTTPS, gzip and a list of origins, and somebody who is logged in."""

    def __init__(self, directory: Path) -> None:
        self.certificate = Certificate("localhost")
        self.certificate.save(directory, "server")
        self.server = Server(
            env={
                "TBFAST_HTTP__ALLOWED_ORIGINS": "https://ui.example, https://*.example.org",
                "HTTP_COMPRESSION_ENABLED": "true",
                "TBFAST_HTTP__TLS_BIND_PORT": "0",
                "SSL_PEM_CERT": str(directory / "server.pem"),
                "SSL_PEM_KEY": str(directory / "server_key.pem"),
            },
            flags=("--demo",),
        )

    @contextlib.contextmanager
    def person(self, *, tls: bool = False) -> Iterator[Person]:
        person = Person(self.server.http_port)
        if tls:
            context = ssl.create_default_context(cadata=self.certificate.pem)
            person.connection = http.client.HTTPSConnection(
                "localhost", self.server.https_port, timeout=20, context=context
            )
        with contextlib.closing(person):
            yield person.login(*TENANT)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("certificates"))
    with made.server:
        made.server.add_device("d")
        yield made


# --- CORS ------------------------------------------------------------------------------------


def paths() -> list[str]:
    return ["/api/v1/d/attributes", "/api/auth/user"]


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("origin", ["https://ui.example", "https://a.example.org"])
def test_pages_of_allowed_origins_may_ask(site: Site, path: str, origin: str) -> None:
    with site.person() as person:
        response, _ = person.raw("GET", path, Origin=origin)
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == origin
        assert response.headers["vary"] is not None and "Origin" in response.headers["vary"]
        asked = {"Access-Control-Request-Method": "GET"}
        response, _ = person.raw("OPTIONS", path, Origin=origin, **asked)
        assert response.status == 200
        assert response.headers["access-control-allow-origin"] == origin
        assert "GET" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://ui.example", "https://ui.example.evil",
        "https://example.org", "https://evil/.example.org", "null",
    ],
)  # fmt: skip
def test_pages_of_other_origins_may_not(site: Site, path: str, origin: str) -> None:
    with site.person() as person:
        response, _ = person.raw("GET", path, Origin=origin)
        assert response.status == 200  # the browser keeps it from the page
        assert "access-control-allow-origin" not in response.headers
        asked = {"Access-Control-Request-Method": "GET"}
        response, _ = person.raw("OPTIONS", path, Origin=origin, **asked)
        assert "access-control-allow-origin" not in response.headers


# --- gzip ------------------------------------------------------------------------------------


def series_path(site: Site, person: Person) -> str:
    rows = [{"ts": FIRST_MS + n, "values": {"t": n}} for n in range(POINTS)]
    person.ok("POST", "/api/v1/d/telemetry", rows)
    device = site.server.device_id("d")
    return (
        f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
        f"?keys=t&startTs={FIRST_MS}&endTs={FIRST_MS + POINTS}&limit={POINTS}"
    )


def test_large_answers_are_compressed_for_those_who_take_it(site: Site) -> None:
    with site.person() as person:
        path = series_path(site, person)
        response, plain = person.raw("GET", path)
        assert "content-encoding" not in response.headers
        assert len(json.loads(plain)["t"]) == POINTS
        for _ in range(2):  # the second one on a connection that has served one
            response, packed = person.raw("GET", path, **{"Accept-Encoding": "gzip, deflate"})
            assert response.headers["content-encoding"] == "gzip"
            assert response.headers["content-type"] == "application/json"
            assert "Accept-Encoding" in response.headers["vary"]
            assert len(packed) < len(plain) / 4
            assert gzip.decompress(packed) == plain
        response, _ = person.raw("GET", path)
        assert "content-encoding" not in response.headers


def test_small_answers_and_downloads_are_not_compressed(site: Site) -> None:
    data = b"very regular " * 1_000
    package = add_package(site.server, "regular", data=data)
    takes = {"Accept-Encoding": "gzip"}
    with site.person() as person:
        for path, least in (
            ("/api/auth/user", 2),
            (f"/api/otaPackage/{package}/download", len(data)),
        ):
            response, text = person.raw("GET", path, **takes)
            assert response.status == 200
            assert "content-encoding" not in response.headers
            assert len(text) >= least
    assert text == data


# --- links -----------------------------------------------------------------------------------


def test_links_lead_back_the_way_the_request_came(site: Site) -> None:
    with site.person() as plain, site.person(tls=True) as secure:
        sent = {"email": "new@example.org", "authority": "TENANT_ADMIN"}
        made = plain.ok("POST", "/api/user", sent, sendActivationMail="false")["id"]["id"]
        path = f"/api/user/{made}/activationLink"

        def link(person: Person, **headers: str) -> tuple[str, str]:
            response, text = person.raw("GET", path, **headers)
            assert response.status == 200
            found = urlsplit(text.decode())
            return found.scheme, found.netloc

        assert link(plain) == ("http", f"127.0.0.1:{site.server.http_port}")
        assert link(secure) == ("https", f"localhost:{site.server.https_port}")
        assert link(secure, Host="iot.example") == ("https", "iot.example")
        assert link(plain, **{"x-tbfast-peer": "1.2.3.4;proto=https"})[0] == "http"


def test_ready_commands_name_https(site: Site) -> None:
    with site.person() as person:
        device = site.server.device_id("d")
        found = person.ok("GET", f"/api/device-connectivity/{device}")["http"]
    urls = {scheme: urlsplit(shlex.split(line)[4]) for scheme, line in found.items()}
    assert {scheme: (url.scheme, url.port) for scheme, url in urls.items()} == {
        "http": ("http", site.server.http_port),
        "https": ("https", site.server.https_port),
    }
