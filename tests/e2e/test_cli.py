"""The command line as its users run it: output and exit codes, with and without a server."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tbfast._ext.ingest import Ingest
from tbfast.store.journal import Journal
from tbfast.store.layout import Layout
from tests.support.certificates import Certificate
from tests.support.rest_server import RunningApp, running_app

ROOT = Path(__file__).parents[2]


class Cli:
    """Runs commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "tbfast.cli.main", *words]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words, "--data-dir", str(self.data_dir)),
            env={**self.environment, **env}, cwd=ROOT, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def ok(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, code: int, *words: str) -> str:
        done = self.run(*words)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.startswith("tbfast: "), done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def app(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        yield app


@pytest.fixture(params=["server", "store"])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Cli:
    if request.param == "server":
        request.getfixturevalue("app")
    return Cli(tmp_path / "data")


def test_life_of_a_device(cli: Cli) -> None:
    assert cli.ok("device", "add", "pump 1", "--token", "T1") == "T1\n"
    token = cli.ok("device", "add", "pump 2", "--label", "Halle ä", "--type", "meter").strip()
    assert len(token) == 20
    made = json.loads(cli.ok("device", "add", "third", "--json"))
    assert made.keys() == {
        "id", "name", "type", "label", "createdTime", "credentialsType", "token",
    }  # fmt: skip
    rows = [line.split("\t") for line in cli.ok("device", "list").splitlines()]
    assert [row[0] for row in rows] == ["pump 1", "pump 2", "third"]
    assert rows[1][2:4] == ["meter", "Halle ä"]
    found = json.loads(cli.ok("device", "list", "--search", "halle", "--json"))
    assert [device["name"] for device in found] == ["pump 2"]
    assert "token" not in found[0]
    assert json.loads(cli.ok("device", "show", made["id"], "--json")) == made
    assert json.loads(cli.ok("device", "show", made["id"].upper(), "--json")) == made
    assert "token\tT1\n" in cli.ok("device", "show", "pump 1")
    assert cli.ok("device", "remove", "pump 1") == "removed pump 1\n"
    assert json.loads(cli.ok("device", "remove", "third", "--json"))["id"] == made["id"]
    cli.fails(3, "device", "show", "pump 1")
    assert len(cli.ok("device", "list").splitlines()) == 1


def test_everything_a_device_has(cli: Cli) -> None:
    words = ("--label", "Halle 1", "--profile", "meter", "--gateway", "--info", '{"floor":2}')
    made = json.loads(cli.ok("device", "add", "g", "--token", "T", *words, "--json"))
    assert (made["label"], made["type"], made["token"]) == ("Halle 1", "meter", "T")
    assert made["additionalInfo"] == {"floor": 2, "gateway": True}
    assert json.loads(cli.ok("device", "get", "g", "--json")) == made

    changed = json.loads(cli.ok("device", "update", "g", "--label", "Halle 2", "--json"))
    assert changed == made | {"label": "Halle 2"}
    words = ("--name", "h", "--no-gateway", "--label", "", "--info", '{"floor":null,"room":"x"}')
    changed = json.loads(cli.ok("device", "update", "g", *words, "--json"))
    assert changed == made | {
        "name": "h", "label": None, "additionalInfo": {"gateway": False, "room": "x"},
    }  # fmt: skip
    cli.fails(3, "device", "show", "g")
    words = ("--profile", "pump", "--token", "U")
    assert "token\tU\n" in cli.ok("device", "update", made["id"], *words)
    assert json.loads(cli.ok("device", "show", "h", "--json")) == changed | {
        "type": "pump", "token": "U",
    }  # fmt: skip
    assert cli.ok("device", "delete", "h") == "removed h\n"


def test_credentials_of_every_type(cli: Cli, tmp_path: Path) -> None:
    basic = '{"clientId":"c","userName":"u","password":"p"}'
    words = ("--credentials", "MQTT_BASIC", "--value", basic)
    made = json.loads(cli.ok("device", "add", "a", *words, "--json"))
    assert (made["credentialsType"], made["credentialsValue"]) == ("MQTT_BASIC", basic)
    assert len(made["credentialsId"]) == 64
    assert "token" not in made
    assert json.loads(cli.ok("device", "show", "a", "--json")) == made

    certificate = Certificate("device").pem
    file = tmp_path / "device.pem"
    file.write_text(certificate)
    words = ("--credentials", "X509_CERTIFICATE", "--value", f"@{file}")
    changed = json.loads(cli.ok("device", "update", "a", *words, "--json"))
    assert changed["credentialsType"] == "X509_CERTIFICATE"
    assert "".join(certificate.splitlines()[1:-1]) == changed["credentialsValue"]

    file.write_text(
        '{"client":{"securityConfigClientMode":"NO_SEC","endpoint":"ep"},"bootstrap":'
        '{"bootstrapServer":{"securityMode":"NO_SEC"},"lwm2mServer":{"securityMode":"NO_SEC"}}}'
    )
    words = ("--credentials", "LWM2M_CREDENTIALS", "--value", f"@{file}")
    assert cli.ok("device", "add", "b", *words) == "ep\n"
    cli.ok("device", "update", "b", "--credentials", "ACCESS_TOKEN", "--token", "T")
    assert json.loads(cli.ok("device", "show", "b", "--json"))["token"] == "T"


def test_changes_that_cannot_be(cli: Cli) -> None:
    cli.ok("device", "add", "a", "--token", "T")
    cli.ok("device", "add", "b", "--token", "U")
    assert "already exists" in cli.fails(1, "device", "update", "a", "--name", "b")
    assert "already assigned" in cli.fails(1, "device", "update", "a", "--token", "U")
    assert "user name" in cli.fails(
        1, "device", "update", "a", "--credentials", "MQTT_BASIC", "--value", "{}"
    )
    assert "nothing to change" in cli.fails(2, "device", "update", "a")
    cli.fails(3, "device", "update", "x", "--label", "l")
    for words in (
        ("--value", "x"),
        ("--credentials", "ACCESS_TOKEN"),
        ("--credentials", "MQTT_BASIC"),
        ("--credentials", "MQTT_BASIC", "--value", "{}", "--token", "x"),
    ):
        assert "--credentials" in cli.fails(2, "device", "add", "c", *words)
    assert "no JSON object" in cli.run("device", "add", "c", "--info", "[1]").stderr
    assert "cannot read" in cli.run("device", "add", "c", "--info", "@/nowhere").stderr
    assert len(cli.ok("device", "list").splitlines()) == 2


def test_exit_codes(cli: Cli) -> None:
    cli.ok("device", "add", "a", "--token", "T")
    assert "already exists" in cli.fails(1, "device", "add", "a")
    assert "already assigned" in cli.fails(1, "device", "add", "b", "--token", "T")
    assert "control characters" in cli.fails(1, "device", "add", "b\n")
    assert "no device with the name or id 'x/y?z'" in cli.fails(3, "device", "show", "x/y?z")
    cli.fails(3, "device", "remove", "x")
    cli.fails(3, "query", "x")
    cli.fails(2, "query", "a", "--limit", "0")
    cli.fails(2, "query", "a", "--keys", ",")
    assert cli.run("query", "a", "--start", "x").returncode == 2
    assert cli.run("device", "list", TBFAST_WORKER="1").returncode == 2


def test_a_missing_data_directory(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "none")
    for words in (("device", "list"), ("query", "a"), ("device", "remove", "a")):
        assert "--data-dir" in cli.fails(3, *words)
    assert "tbfast serve" in cli.fails(4, "tail")
    assert not (tmp_path / "none").exists()
    done = cli.run("device", "add", "a", "--token", "T")
    assert (done.returncode, done.stdout) == (0, "T\n")
    assert "creating the data directory" in done.stderr


def test_data_directory_from_the_environment(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    cli.ok("device", "add", "a")
    done = subprocess.run(
        cli.command("device", "list"),
        env={**cli.environment, "TBFAST_DATA_DIR": str(cli.data_dir)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("a\t")


def test_what_was_added_offline_is_there_when_a_server_starts(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    cli.ok("device", "add", "a", "--token", "T")
    with running_app(tmp_path / "data") as app:
        assert app.call(app.registry.lookup_credentials("T")) is not None
        cli.ok("device", "add", "b")
    assert len(cli.ok("device", "list").splitlines()) == 2


def test_a_store_in_use_without_a_socket(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.prepare()
    lock = layout.acquire()
    try:
        cli = Cli(tmp_path / "data")
        for words in (("device", "list"), ("device", "add", "a"), ("query", "a")):
            assert "in use by a process that does not answer" in cli.fails(4, *words)
    finally:
        os.close(lock)


def test_a_socket_nobody_listens_on(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.prepare()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(layout.api))
    cli = Cli(tmp_path / "data")
    assert cli.ok("device", "add", "a", "--token", "T") == "T\n"


def test_a_server_that_hangs_up(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.prepare()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(layout.api))
        listener.listen()
        cli = Cli(tmp_path / "data")
        command = cli.command("device", "list", "--data-dir", str(cli.data_dir))
        with subprocess.Popen(command, env=cli.environment, stderr=subprocess.PIPE) as process:
            listener.accept()[0].close()
            assert process.wait(30) == 4
            assert process.stderr is not None
            assert b"stopped answering" in process.stderr.read()


def put(app: RunningApp, name: str, points: dict[str, dict[int, str]]) -> None:
    device = app.call(app.registry.create_device(name)).device
    for key, values in points.items():
        for ts, value in values.items():
            app.series.put(device.number, key, ts, value)


def test_query(app: RunningApp, tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    values = {ts: str(ts / 2) for ts in range(150)}
    put(app, "a", {"t": values, "on": {7: "true"}, "s": {8: '"x\\u001b"'}, "j,k": {9: "[1]"}})
    shown = json.loads(cli.ok("query", "a", "--json"))
    assert shown.keys() == {"t", "on", "s", "j,k"}
    assert [point["ts"] for point in shown["t"]] == list(range(149, 49, -1))
    assert shown["on"] == [{"ts": 7, "value": True}]
    words = ("query", "a", "--keys", "t,on", "--start", "10", "--end", "12", "--json")
    assert cli.ok(*words) == '{"t":[{"ts":11,"value":5.5},{"ts":10,"value":5.0}]}\n'
    assert len(json.loads(cli.ok("query", "a", "--limit", "3", "--json"))["t"]) == 3
    assert json.loads(cli.ok("query", "a", "--keys", "none", "--json")) == {}
    assert cli.ok("query", "a", "--start", "9", "--end", "9", "--json") == "{}\n"
    assert cli.ok("query", "a", "--keys", "on") == "on\t1970-01-01 00:00:00.007\ttrue\n"
    assert "\x1b" not in cli.ok("query", "a", "--keys", "s")


def journal_of_a_stopped_server(layout: Layout, number: int, payloads: list[str]) -> None:
    """One commit group per payload, as a worker writes them."""
    journal = Journal(layout.journal(0), 0)
    ingest = Ingest()
    for seq, payload in enumerate(payloads, 1):
        ingest.at(1_000_000, 0)
        ingest.append_json(number, payload.encode())
        group = ingest.take(0, journal.epoch, seq, 1_000_000, journal.written_keys + 1)
        journal.append(group)
        ingest.recycle(group)
    journal.close()


def test_query_without_a_server(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "data")
    cli.ok("device", "add", "other")
    cli.ok("device", "add", "a")
    layout = Layout(tmp_path / "data")
    points = [f'{{"ts":{ts},"values":{{"t":{ts}.5,"s":"x{ts}"}}}}' for ts in range(1, 150)]
    journal_of_a_stopped_server(layout, 2, points)
    words = ("query", "a", "--keys", "t", "--start", "10", "--end", "12", "--json")
    assert cli.ok(*words) == '{"t":[{"ts":11,"value":11.5},{"ts":10,"value":10.5}]}\n'
    shown = json.loads(cli.ok("query", "a", "--json"))
    assert shown.keys() == {"t", "s"}
    assert [point["ts"] for point in shown["s"]] == list(range(149, 49, -1))
    assert cli.ok("query", "other", "--json") == "{}\n"


class Tail:
    """A running ``tbfast tail``."""

    def __init__(self, cli: Cli, *words: str) -> None:
        command = cli.command("tail", *words, "--data-dir", str(cli.data_dir))
        self.process = subprocess.Popen(
            command,
            env=cli.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # or a second line would hide from select
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 30)
        assert ready
        return self.process.stdout.readline().decode()

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors.decode()


def publish(app: RunningApp, number: int, line: bytes) -> None:
    async def run() -> None:
        app.feed.publish(number, line)

    app.call(run())


@pytest.fixture
def two_devices(app: RunningApp) -> RunningApp:
    for name in ("a", "b\u202e"):
        app.call(app.registry.create_device(name))
    return app


def test_tail_until_interrupted(two_devices: RunningApp, tmp_path: Path) -> None:
    tail = Tail(Cli(tmp_path / "data"))
    two_devices.call(two_devices.feed.subscribers(1))
    publish(two_devices, 1, b'{"device":1,"ts":0,"key":"t\\n","value":1.50}\n')
    publish(two_devices, 2, '{"device":2,"ts":1,"key":"k","value":"\x9b"}\n'.encode())
    assert tail.line() == "1970-01-01 00:00:00.000 a t\\n=1.50\n"
    assert tail.line() == '1970-01-01 00:00:00.001 b\\u202e k="\\x9b"\n'
    tail.process.send_signal(signal.SIGINT)
    assert tail.ended() == (0, "")
    two_devices.call(two_devices.feed.subscribers(0))


def test_tail_of_one_device_as_json(two_devices: RunningApp, tmp_path: Path) -> None:
    tail = Tail(Cli(tmp_path / "data"), "a", "--json")
    two_devices.call(two_devices.feed.subscribers(1))
    publish(two_devices, 2, b'{"device":2,"ts":0,"key":"k","value":2}\n')
    publish(two_devices, 1, b'{"device":1,"ts":0,"key":"k","value":1}\n')
    shown = json.loads(tail.line())
    assert (shown["device"], shown["value"]) == ("a", 1)
    two_devices.loop.call_soon_threadsafe(two_devices.feed.end)
    code, errors = tail.ended()
    assert code == 1
    assert "the server ended the stream" in errors


def test_tail_into_a_closed_pipe(two_devices: RunningApp, tmp_path: Path) -> None:
    tail = Tail(Cli(tmp_path / "data"))
    two_devices.call(two_devices.feed.subscribers(1))
    assert tail.process.stdout is not None
    tail.process.stdout.close()
    publish(two_devices, 1, b'{"device":1,"ts":0,"key":"k","value":1}\n')
    assert tail.process.stderr is not None
    assert tail.process.wait(30) == 0
    assert tail.process.stderr.read() == b""
    tail.process.stderr.close()


def test_tail_of_an_unknown_device(two_devices: RunningApp, tmp_path: Path) -> None:
    Cli(tmp_path / "data").fails(3, "tail", "nobody")
