"""`tbfast demo` as its users start it: it shows a working node and leaves nothing behind."""

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast.loadgen.processes import with_children
from tests.support.server import Server
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
FREE_PORTS = ("--host", "127.0.0.1", "--mqtt-port", "0", "--http-port", "0")
LINE = re.compile(
    r" +\d+ s  (?P<connected>\d+)/(?P<devices>\d+) devices  (?P<messages>\d+) messages/s  "
    r"(?P<points>\d+) points/s  ack p50 (?P<p50>[\d.]+ ms|-)  p99 ([\d.]+ ms|-)  "
    r"refused 0  reconnects 0  journal [\d.]+ MB\n"
)


def environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TBFAST_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


def command(data_dir: Path, *words: str) -> list[str]:
    where = ["--data-dir", str(data_dir)]
    return [sys.executable, "-m", "tbfast", "demo", *FREE_PORTS, *where, *words]


def query(data_dir: Path, device: str) -> list[str]:
    words = [sys.executable, "-m", "tbfast", "query", device, "--data-dir", str(data_dir)]
    done = subprocess.run(
        words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


class Demo:
    """A running demo; its log is what it and its server wrote to standard error."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    def first_report(self) -> re.Match[str]:
        """Reads until the fleet has been at work for a second."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := LINE.fullmatch(line):
                return found
        raise AssertionError(self.log())

    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def demo(home: Path, *words: str) -> Iterator[Demo]:
    """Runs until the block ends; a failing test leaves no server behind either."""
    log = home / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command(home / "data", *words), cwd=ROOT, env=environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        ) as process,
    ):  # fmt: skip
        try:
            yield Demo(process, log)
        finally:
            process.kill()  # its server goes with it


def gone(pids: set[int]) -> bool:
    return not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # whoever adopts them may take its time


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")  # short: the paths of Unix sockets are bounded


def test_ends_by_itself_and_has_stored_what_it_showed(home: Path) -> None:
    with demo(home, "--devices", "6", "--rate", "10", "--duration", "3") as running_demo:
        output, _ = running_demo.process.communicate(timeout=60)
        assert running_demo.process.returncode == 0, running_demo.log()
    assert "Traceback" not in running_demo.log()
    assert output.startswith("tbfast is serving MQTT on 127.0.0.1:")
    lines = output.splitlines(keepends=True)
    reports = [found for line in lines if (found := LINE.fullmatch(line))]
    assert len(reports) in (2, 3, 4)
    assert int(reports[-1]["connected"]) == int(reports[-1]["devices"]) == 6
    assert int(reports[-1]["points"]) > int(reports[-1]["messages"]) > 0
    assert reports[-1]["p50"] != "-"
    for device in ("demo-climate-000", "demo-machine-002", "demo-climate-005"):
        assert len(query(home / "data", device)) > 5, device
    # A second demo on the same data finds its devices.
    with demo(home, "--devices", "7", "--duration", "1") as again:
        output, _ = again.process.communicate(timeout=60)
        assert again.process.returncode == 0, again.log()
    assert "/7 devices" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_stops_everything_in_order(home: Path, number: int) -> None:
    with demo(home, "--devices", "3") as running_demo:
        running_demo.first_report()
        family = with_children([running_demo.process.pid])
        assert len(family) >= 5  # demo, fleet, supervisor, controller, worker
        running_demo.process.send_signal(number)
        running_demo.process.communicate(timeout=60)
        assert running_demo.process.returncode == 0, running_demo.log()
        assert gone(family)
    assert "Traceback" not in running_demo.log()
    assert re.search(r"supervisor: stopped$", running_demo.log(), re.MULTILINE)


def test_killed_it_takes_its_server_along(home: Path) -> None:
    with demo(home, "--devices", "3") as running_demo:
        running_demo.first_report()
        family = with_children([running_demo.process.pid])
        running_demo.process.kill()
        wait_until(lambda: gone(family), 30, "the processes of the demo end")
    assert re.search(r"supervisor: stopped$", running_demo.log(), re.MULTILINE)


def test_a_second_ctrl_c_does_not_wait(home: Path) -> None:
    with demo(home, "--devices", "3") as running_demo:
        running_demo.first_report()
        family = with_children([running_demo.process.pid])
        linked = re.search(r"worker linked .*pid=(\d+)", running_demo.log())
        assert linked is not None
        worker = int(linked[1])
        os.kill(worker, signal.SIGSTOP)  # it cannot stop in order
        running_demo.process.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping" in running_demo.log())
        running_demo.process.send_signal(signal.SIGINT)
        assert running_demo.process.wait(15) == 1
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: gone(family), 30, "the processes of the demo end")


def test_an_ended_reader_ends_it(home: Path) -> None:
    with demo(home, "--devices", "3") as running_demo:
        running_demo.first_report()
        family = with_children([running_demo.process.pid])
        assert running_demo.process.stdout is not None
        running_demo.process.stdout.close()
        assert running_demo.process.wait(60) == 0
        assert gone(family)
    assert "Traceback" not in running_demo.log()


def test_leaves_a_running_server_alone(own_server: Server) -> None:
    done = subprocess.run(
        command(own_server.data_dir), cwd=ROOT, env=environment(), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert "tbfast: the server did not start" in done.stderr
    listing = [sys.executable, "-m", "tbfast", "device", "list", "--json"]
    devices = subprocess.run(
        [*listing, "--data-dir", str(own_server.data_dir)], cwd=ROOT, env=environment(),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(devices.stdout) == []


def test_names_a_port_in_use(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = command(home / "data", "--mqtt-port", str(port))
        done = subprocess.run(
            words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--devices", "0"), ("--devices", "5001"), ("--rate", "0"), ("--rate", "nan"),
        ("--rate", "inf"), ("--duration", "0"), ("--duration", "-1"), ("--duration", "nan"),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be(home: Path, words: tuple[str, str]) -> None:
    done = subprocess.run(
        command(home / "data", *words), cwd=ROOT, env=environment(), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tbfast: {words[0]} must be ")
    assert not (home / "data").exists()


def test_live_view_on_a_terminal(home: Path) -> None:
    main, terminal = pty.openpty()
    screen = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # EIO: the last process has closed the terminal
            while data := os.read(main, 65536):
                screen.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with subprocess.Popen(
            command(home / "data", "--devices", "3", "--duration", "3"), cwd=ROOT,
            env={**environment(), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
            stdin=terminal, stdout=terminal, stderr=terminal,
        ) as process:  # fmt: skip
            os.close(terminal)
            assert process.wait(60) == 0, screen.decode()
        reader.join(20)
        assert not reader.is_alive()
    finally:
        os.close(main)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode())
    assert re.search(r"devices connected +│? *3 of 3", text), text
    assert re.search(r"ack p50 / p99 +│? *[\d.]+ ms / [\d.]+ ms", text), text
    assert "worker ready" in text  # the server's last log lines are part of the screen
    assert "mosquitto_pub -h 127.0.0.1 -p" in text
    assert screen.rindex(b"\x1b[?25h") > screen.rindex(b"\x1b[?25l")  # the cursor is back
