"""A real server: `python -m tbfast serve` on free ports, in a directory of its own."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from tbfast.cli import client as api
from tbfast.cli.devices import new_device
from tbfast.errors import TbfastError
from tbfast.model.ranges import RangeQuery
from tests.support.waiting import wait_until

READY_S = 30.0
STOP_S = 30.0
ROOT = Path(__file__).parents[2]


class Server:
    """A node of its own; use as a context manager.

    env: settings as environment variables; flags: further words after `serve`.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        durability: str = "disk",
        env: dict[str, str] | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        # Short: the paths of Unix sockets are bounded.
        self._home = Path(tempfile.mkdtemp(prefix="tbfast-"))
        self.data_dir = self._home / "data"
        self.log_path = self._home / "log"
        self._words = [
            "serve", "--host", "127.0.0.1", "--mqtt-port", "0", "--http-port", "0",
            "--workers", str(workers), "--durability", durability, *flags,
        ]  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TBFAST_")}
        self._env = inherited | (env or {}) | {"TBFAST_DATA_DIR": str(self.data_dir)}
        self._process: subprocess.Popen[bytes] | None = None
        self.mqtt_port = self.http_port = self.mqtt_tls_port = self.https_port = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            print(f"--- log of the server\n{self.log()[-4000:]}")
        self._discard()

    def _discard(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()  # its children die with it
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    # --- its life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Starts it and waits until every worker serves."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tbfast", *self._words],
                env=self._env, cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip
        wait_until(self._ready, READY_S, "the server is ready")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended:\n{self.log()}"
        with contextlib.suppress(FileNotFoundError, TbfastError, OSError, ValueError):
            run = json.loads((self.data_dir / "run" / "node.json").read_text())
            if run["pid"] != self._process.pid:
                return False
            self.mqtt_port, self.http_port = run["mqtt_port"], run["http_port"]
            self.mqtt_tls_port = run.get("mqtt_tls_port", 0)
            self.https_port = run.get("https_port", 0)
            return all(worker["state"] == "serving" for worker in self.node()["workers"])
        return False

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.terminate()
        return self.wait()

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        assert self._process is not None
        return self._process.wait(STOP_S)

    def kill9(self, process: str) -> int:
        """SIGKILL to "supervisor", "controller" or "worker-N"; the process id it had."""
        pid = self.pids()[process]
        os.kill(pid, signal.SIGKILL)
        return pid

    def crash_controller(self) -> None:
        """SIGKILL to the controller; returns when another one answers."""
        was = self.kill9("controller")

        def back() -> bool:
            with contextlib.suppress(TbfastError, OSError, http.client.HTTPException):
                return self.node()["pid"] not in (0, was)
            return False

        wait_until(back, READY_S, "another controller answers")

    @contextlib.contextmanager
    def paused(self, process: str) -> Iterator[None]:
        """SIGSTOP for a moment; after five seconds it would count as stuck."""
        pid = self.pids()[process]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    # --- what it says about itself -----------------------------------------------------------

    def node(self) -> dict[str, Any]:
        """GET /api/node."""
        answer: dict[str, Any] = self.rest("GET", "/api/node")[1]
        return answer

    def rest(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One REST request on the command line's socket: status, and the answer's JSON."""
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        with contextlib.closing(connection):
            connection.sock.connect(str(self.data_dir / api.SOCKET_NAME))
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            text = response.read()
            return response.status, json.loads(text) if text else None

    def first_password(self) -> str:
        """Of the administrator that the first start makes."""
        found = re.search(r"the administrator is (\S+), the password (\S+)\n", self.log())
        assert found is not None, self.log()
        return found[2]

    # --- attributes and calls ----------------------------------------------------------------

    def device_id(self, name: str) -> str:
        """UUID of a device."""
        with self._target() as target:
            return target.find(name).id

    def _telemetry_path(self, device: str) -> str:
        return f"/api/plugins/telemetry/DEVICE/{self.device_id(device)}"

    def save_attributes(self, device: str, scope: str, values: dict[str, Any]) -> None:
        """Saves attributes over REST."""
        assert self.rest("POST", f"{self._telemetry_path(device)}/{scope}", values) == (200, None)

    def delete_attributes(self, device: str, scope: str, *keys: str) -> None:
        """Deletes attributes over REST."""
        path = f"{self._telemetry_path(device)}/{scope}?keys={','.join(keys)}"
        assert self.rest("DELETE", path) == (200, None)

    def attributes(self, device: str, scope: str) -> dict[str, Any]:
        """Attributes of a scope by name."""
        status, rows = self.rest("GET", f"{self._telemetry_path(device)}/values/attributes/{scope}")
        assert status == 200
        return {row["key"]: row["value"] for row in rows}

    def call(self, device: str, mode: str, method: str, params: Any) -> tuple[int, Any]:
        """Calls a method of a device over REST."""
        path = f"/api/rpc/{mode}/{self.device_id(device)}"
        return self.rest("POST", path, {"method": method, "params": params})

    def pids(self) -> dict[str, int]:
        """Process ids by process name."""
        node = self.node()
        found = {"supervisor": node["supervisorPid"], "controller": node["pid"]}
        return found | {f"worker-{w['index']}": w["pid"] for w in node["workers"]}

    def log(self) -> str:
        """Everything it wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # --- the command line --------------------------------------------------------------------

    def cli(self, *words: str, code: int = 0) -> str:
        """Runs `tbfast WORDS` on this server; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "tbfast", *words],
            env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def tail(self, *words: str) -> subprocess.Popen[str]:
        """`tbfast tail --json WORDS`, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "tbfast", "tail", "--json", *words],
            env=self._env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def add_device(self, name: str, token: str | None = None) -> str:
        """A new device; its token, which is its name unless given."""
        with self._target() as target:
            return str(target.create(new_device(name, token)).token)

    def remove_device(self, name: str) -> None:
        """Deletes a device."""
        with self._target() as target:
            target.remove(target.find(name))

    def query(
        self,
        device: str,
        *keys: str,
        start: int | None = None,
        end: int | None = None,
        limit: int = 100_000,
    ) -> dict[str, list[dict[str, Any]]]:
        """What `tbfast query --json` prints, by the same code in this process."""
        with self._target() as target:
            asked = RangeQuery(keys=keys or None, start_ms=start, end_ms=end, limit=limit)
            found = target.history(target.find(device), asked)
        answer: dict[str, list[dict[str, Any]]] = json.loads(found)
        return answer

    def values(self, device: str, key: str) -> list[Any]:
        """Every value of a key, oldest first."""
        return [point["value"] for point in reversed(self.query(device, key).get(key, []))]

    def _target(self) -> contextlib.closing[api.Server]:
        target = api.connect(self.data_dir)
        assert target is not None, "nobody listens on the server's socket"
        return contextlib.closing(target)
