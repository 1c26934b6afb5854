"""mosquitto_pub, mosquitto_sub and mosquitto_rr as users paste them."""

import subprocess

import pytest

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
