"""A real tbfast node in a process group of its own, for tests that hurt it."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import msgspec

from tbfast.cli import client
from tbfast.cli.devices import new_device
from tbfast.cli.exits import Unreachable
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
READY_S = 20.0
HOST = "127.0.0.1"


class Worker(msgspec.Struct, rename="camel"):
    index: int
    pid: int
    state: str
    connections: int
    journal_bytes: int


class Status(msgspec.Struct, rename="camel"):
    pid: int
    supervisor_pid: int
    workers: list[Worker]


class Node:
    """Starts with `start`; every restart uses the ports of the first.

    wrapper: command that runs tbfast (strace, prlimit).
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        workers: int = 2,
        durability: str = "disk",
        env: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
        stdout: int | None = None,
        stderr: int | None = None,
        log: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.workers = workers
        self.mqtt_port = 0
        self.http_port = 0
        self.log = log or data_dir.parent / f"{data_dir.name}.log"
        self._durability = durability
        self.env = {"TBFAST_LOG__FORMAT": "json", **(env or {})}
        self.wrapper = wrapper
        self._stdout = stdout
        self._stderr = stderr
        self.process: subprocess.Popen[bytes] | None = None

    # --- life ------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        return [
            *self.wrapper,
            sys.executable, "-m", "tbfast", "serve",
            "--data-dir", str(self.data_dir),
            "--workers", str(self.workers),
            "--durability", self._durability,
            "--host", HOST,
            "--mqtt-port", str(self.mqtt_port),
            "--http-port", str(self.http_port),
        ]  # fmt: skip

    def spawn(self) -> None:
        """Starts without waiting."""
        with contextlib.suppress(OSError):
            (self.data_dir / "run" / "node.json").unlink()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.env},
                stdin=subprocess.DEVNULL,
                stdout=self._stdout if self._stdout is not None else log,
                stderr=self._stderr if self._stderr is not None else log,
                start_new_session=True,
            )

    def start(self, timeout_s: float = READY_S) -> None:
        """Starts; returns when every worker serves and the controller answers."""
        self.spawn()
        wait_until(self._announced, timeout_s, f"node.json; log: {self.log}")
        self.wait_ready(timeout_s)

    def _announced(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.tail_of_log()
        with contextlib.suppress(FileNotFoundError):
            info = msgspec.json.decode((self.data_dir / "run" / "node.json").read_bytes())
            self.mqtt_port, self.http_port = info["mqtt_port"], info["http_port"]
            return True
        return False

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        wait_until(self.ready, timeout_s, f"ready; log ends: {self.tail_of_log()}")

    def ready(self) -> bool:
        """Whether every worker serves and the controller answers."""
        status = self.status()
        return status is not None and all(w.state == "serving" for w in status.workers)

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def kill_all(self) -> None:
        """kill -9 of every process at once; returns when they are gone."""
        assert self.process is not None
        group = self.process.pid
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(group, signal.SIGKILL)
        self.process.wait()
        self.process = None
        wait_until(lambda: not _group_lives(group), what="killed processes are gone")

    # --- looking inside --------------------------------------------------------------------------

    @contextlib.contextmanager
    def api(self) -> Iterator[client.Server]:
        server = client.connect(self.data_dir)
        assert server is not None, "nobody listens on the API socket"
        with contextlib.closing(server):
            yield server

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page on the HTTP port."""
        connection = HTTPConnection(HOST, self.http_port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def metric(self, name: str) -> float:
        """One sample of /metrics, by its name with labels."""
        samples = dict(
            line.rsplit(" ", 1)
            for line in self.page("/metrics")[1].splitlines()
            if not line.startswith("#")
        )
        return float(samples[name])

    def status(self) -> Status | None:
        """None when the controller does not answer."""
        try:
            server = client.connect(self.data_dir)
            if server is None:
                return None
            with contextlib.closing(server):
                return server.get("/api/node", Status)
        except Unreachable:
            return None

    @property
    def supervisor_pid(self) -> int:
        """Under a wrapper that stays, its child."""
        assert self.process is not None
        pid = self.process.pid
        while b"tbfast" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2:4]:
            pid = _children(pid)[0]
        return pid

    def worker_pid(self, number: int) -> int:
        """0 when it is not there; known by the lock file it holds."""
        return self._holder(f"/journal/{number}/LOCK")

    def controller_pid(self) -> int:
        return self._holder("/registry/LOCK")

    @contextlib.contextmanager
    def controller_away(self) -> Iterator[None]:
        """Kills it and takes the lock of its store before it is back: it cannot start again."""
        with open(self.data_dir / "registry" / "LOCK", "r+b") as lock:

            def taken() -> bool:
                try:
                    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    if pid := self.controller_pid():
                        os.kill(pid, signal.SIGKILL)
                    return False
                return True

            wait_until(taken, what="the registry's lock")
            yield

    def _holder(self, suffix: str) -> int:
        assert self.process is not None
        for pid in _children(self.supervisor_pid):
            with contextlib.suppress(OSError):
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"/proc/{pid}/fd/{fd}").endswith(suffix):
                            return pid
        return 0

    def worker_of(self, sock: socket.socket) -> int:
        """Number of the worker that a connection of ours has reached."""
        ports = f":{sock.getpeername()[1]:04X} 0100007F:{sock.getsockname()[1]:04X} "

        def found() -> int | None:
            for number in range(self.workers):
                pid = self.worker_pid(number)
                for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines():
                    if ports in line and f"socket:[{line.split()[9]}]" in _open_files(pid):
                        return number
            return None

        wait_until(lambda: found() is not None, what="the connection is accepted")
        number = found()
        assert number is not None
        return number

    def kill_worker(self, number: int, signal_number: int = signal.SIGKILL) -> int:
        """Sends the signal; returns the pid it went to."""
        wait_until(lambda: self.worker_pid(number), what=f"worker {number} runs")
        pid = self.worker_pid(number)
        os.kill(pid, signal_number)
        return pid

    def wait_replaced(self, number: int, pid: int, timeout_s: float) -> float:
        """Seconds until another process than `pid` serves as that worker."""
        begun = time.monotonic()

        def replaced() -> bool:
            status = self.status()
            if status is None:
                return False
            worker = status.workers[number]
            return worker.state == "serving" and worker.pid != pid

        wait_until(replaced, timeout_s, f"worker {number} is replaced")
        return time.monotonic() - begun

    def rss_bytes(self) -> int:
        """Resident memory of the largest process."""
        pids = [self.supervisor_pid, *_children(self.supervisor_pid)]
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return max(pages) * os.sysconf("SC_PAGESIZE")

    def log_lines(self) -> list[dict[str, Any]]:
        """Log records so far (format json)."""
        lines = self.log.read_bytes().split(b"\n")[:-1]
        return [msgspec.json.decode(line) for line in lines if line[:1] == b"{"]

    def tail_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    # --- devices and data ------------------------------------------------------------------------

    def add_devices(self, count: int) -> list[str]:
        """Creates devices d0.. with tokens t0..; returns the tokens."""
        with self.api() as api:
            for number in range(count):
                api.create(new_device(f"d{number}", f"token-{number}"))
        return [f"token-{number}" for number in range(count)]

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tbfast", *words, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _open_files(pid: int) -> set[str]:
    files = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            files.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return files


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def running_node(data_dir: Path, **arguments: Any) -> Iterator[Node]:
    """A started node; killed at the end if the test has not stopped it."""
    node = Node(data_dir, **arguments)
    try:
        node.start()
        yield node
    finally:
        if node.process is not None:
            node.kill_all()


def refusal(node: Node) -> str:
    """A start that fails says why in one line and exits with 1; that line."""
    node.spawn()
    assert node.process is not None
    code = node.process.wait(READY_S)
    node.process = None
    text = node.log.read_text()
    assert code == 1, text
    assert "Traceback" not in text
    message = text.splitlines()[-1]
    assert message.startswith("tbfast: ")
    return message
