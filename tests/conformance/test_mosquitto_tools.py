"""mosquitto_pub, mosquitto_sub and mosquitto_rr as users paste them."""

import subprocess
from pathlib import Path

import pytest

from tests.support.certificates import Certificate, TlsServer
from tests.support.server import Server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.interop

TELEMETRY = "v1/devices/me/telemetry"
VERSIONS = pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])


def command(tool: str, server: Server, token: str, *words: str) -> list[str]:
    place = ["-h", "127.0.0.1", "-p", str(server.mqtt_port), "-u", token]
    return [f"mosquitto_{tool}", *place, *words]


def run(words: list[str], payload: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, input=payload, capture_output=True, text=True, timeout=30, check=False
    )


@VERSIONS
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_pub(server: Server, token: str, version: str, qos: str) -> None:
    """The line that ThingsBoard's own connectivity check prints, with its unquoted JSON."""
    words = ["-d", "-q", qos, "-V", version, "-t", TELEMETRY, "-m", "{temperature:25}"]
    done = run(command("pub", server, token, *words))
    assert done.returncode == 0, done.stdout + done.stderr
    if qos == "2":
        assert "received PUBREC" in done.stdout
        assert "received PUBCOMP" in done.stdout
    wait_until(lambda: server.values(token, "temperature") == [25])


@VERSIONS
def test_pub_from_a_pipe(server: Server, token: str, version: str) -> None:
    lines = "".join(f'{{"ts":{n},"values":{{"n":{n}}}}}\n' for n in range(1, 501))
    done = run(command("pub", server, token, "-l", "-q", "1", "-V", version, "-t", "v2/t"), lines)
    assert done.returncode == 0, done.stderr
    assert server.values(token, "n") == list(range(1, 501))


@VERSIONS
def test_pub_with_a_wrong_token(server: Server, version: str) -> None:
    done = run(command("pub", server, "nobody", "-V", version, "-t", TELEMETRY, "-m", "{a:1}"))
    assert done.returncode != 0
    expected = "Bad user name or password" if version == "mqttv5" else "not authorised"
    assert expected.lower() in (done.stdout + done.stderr).lower()


def test_pub_to_an_unknown_topic_is_told_on_mqtt_5(server: Server, token: str) -> None:
    words = ["-d", "-q", "1", "-V", "mqttv5", "-t", "elsewhere", "-m", "{a:1}"]
    done = run(command("pub", server, token, *words))
    assert "RC:144" in done.stdout


def test_sub(server: Server, token: str) -> None:
    """Allowed filters are granted; the wait ends by the client's own clock."""
    words = ["-d", "-q", "1", "-W", "1", "-t", "v1/devices/me/attributes"]
    done = run(command("sub", server, token, *words))
    assert "Subscribed (mid: 1): 1" in done.stdout
    refused = run(command("sub", server, token, "-d", "-W", "1", "-t", "#"))
    assert "128" in refused.stdout + refused.stderr


def test_rr(server: Server, token: str) -> None:
    """A request with response topic and correlation data: properties that are ignored."""
    words = ["-d", "-V", "mqttv5", "-q", "1", "-W", "1", "-t", TELEMETRY, "-m", "{rr:1}"]
    done = run(command("rr", server, token, *words, "-e", "v1/devices/me/attributes"))
    assert "received PUBACK" in done.stdout, done.stdout + done.stderr
    assert server.values(token, "rr") == [1]


# --- over TLS --------------------------------------------------------------------------------


def secure(tool: str, server: TlsServer, ca: Path, *words: object) -> list[str]:
    place = ["-h", "localhost", "-p", str(server.mqtt_tls_port), "--cafile", str(ca)]
    return [f"mosquitto_{tool}", *place, *map(str, words)]


@pytest.fixture
def own(tls_server: TlsServer, tmp_path: Path) -> tuple[str, list[object]]:
    """A device with a certificate: its name, and the options that present it."""
    certificate = Certificate("mosquitto")
    name = tls_server.add_x509_device(f"mosquitto-{tmp_path.name}", certificate)
    chain, key = certificate.save(tmp_path)
    return name, ["--cert", chain, "--key", key]


@VERSIONS
@pytest.mark.parametrize("tls_version", ["tlsv1.2", "tlsv1.3"])
def test_pub_over_tls(
    tls_server: TlsServer, ca: Path, own: tuple[str, list[object]], version: str, tls_version: str
) -> None:
    token = tls_server.add_device(f"mosquitto-{version}-{tls_version}")
    name, certificate = own
    message = ["-q", "1", "-V", version, "--tls-version", tls_version, "-t", TELEMETRY,
               "-m", "{ts:1,values:{n:1}}"]  # fmt: skip
    for device, credentials in ((token, ["-u", token]), (name, certificate)):
        done = run(secure("pub", tls_server, ca, *credentials, *message))
        assert done.returncode == 0, done.stderr
        assert tls_server.values(device, "n") == [1]


def test_pub_with_a_certificate_nobody_knows(
    tls_server: TlsServer, ca: Path, tmp_path: Path
) -> None:
    chain, key = Certificate("nobody").save(tmp_path)
    words = ["--cert", chain, "--key", key, "-q", "1", "-t", TELEMETRY, "-m", "{n:1}"]
    done = run(secure("pub", tls_server, ca, *words))
    assert done.returncode != 0
    assert "not authorised" in (done.stdout + done.stderr).lower()


@VERSIONS
def test_sub_with_a_certificate(
    tls_server: TlsServer, ca: Path, own: tuple[str, list[object]], version: str
) -> None:
    """Changed attributes, heard by a shell's means."""
    name, certificate = own
    words = ["-d", "-V", version, "-q", "1", "-C", "1", "-W", "20", "-F", "%t %p"]
    subscriber = subprocess.Popen(
        secure("sub", tls_server, ca, *certificate, *words, "-t", "v1/devices/me/attributes"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip

    def told() -> bool:
        tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 7})
        return subscriber.poll() is not None

    wait_until(told, 20, "it has subscribed and heard one message")
    heard, _ = subscriber.communicate(timeout=30)
    assert subscriber.returncode == 0
    assert 'v1/devices/me/attributes {"limit":7}' in heard


@VERSIONS
def test_rr_with_a_certificate(
    tls_server: TlsServer, ca: Path, own: tuple[str, list[object]], version: str
) -> None:
    """A request and its answer, which comes whatever is subscribed."""
    name, certificate = own
    tls_server.save_attributes(name, "SHARED_SCOPE", {"limit": 7})
    words = ["-V", version, "-q", "1", "-W", "20", "-e", "v2/fw/error"]
    ask = ["-t", "v1/devices/me/attributes/request/1", "-m", "{sharedKeys:limit}"]
    done = run(secure("rr", tls_server, ca, *certificate, *words, *ask))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip() == '{"shared":{"limit":7}}'
