"""Starts, watches and restarts the processes of a node; imports everything, runs nothing itself.

The supervisor binds every listening socket once and keeps it open: connections that arrive while a
worker restarts wait in its queue.  Children are forked from this image (shared memory, fast
restart) and die with it.  A child that crashes is restarted with back-off; one that crashes
`PARK_CRASHES` times in `PARK_WINDOW_S` is parked: its listeners close, the node is not ready, the
rest serves on.
"""

import ctypes
import gc
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from tbfast import __version__, limits
from tbfast._ext import metrics as words
from tbfast.config import Config
from tbfast.control import main as control
from tbfast.errors import LocalError, StoreError
from tbfast.net.tls import ServerTls, ticket_secret
from tbfast.obs.log import get_logger, setup, shutdown_logging
from tbfast.obs.metrics import NodeMetrics
from tbfast.store.known import check_stores
from tbfast.store.layout import Layout
from tbfast.store.space import Space
from tbfast.worker import main as worker

log = get_logger("tbfast.supervisor")

BACKLOG = 4096  # connections waiting in one worker's queue
BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 30.0
PARK_CRASHES = 5
PARK_WINDOW_S = 60.0
STUCK_S = 5.0  # heartbeats missed for so long: killed and restarted
FORK_RETRY_S = 1.0  # after the system had no process for us
START_S = limits.DISK_PATIENCE_MS / 1000  # the same before the first: a store is opened
TICK_S = 0.25
LATE_S = 1.0  # not looked for so long: the machine, or all of us, stood still
STOP_S = 25.0  # then what is left is killed
_PR_SET_PDEATHSIG = 1
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)


class _Child:
    """One supervised process."""

    def __init__(
        self, name: str, body: Callable[[], int], listeners: tuple[socket.socket, ...] = ()
    ) -> None:
        self.name = name
        self.body = body
        self.listeners = listeners
        self.pid = 0
        self.started = 0.0
        self.killed = False
        self.restart_at = 0.0
        self.crashes: deque[float] = deque(maxlen=PARK_CRASHES)
        self.parked = False


class Supervisor:
    """One node: `run` returns its exit code."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._layout = Layout(Path(config.data_dir))
        self._workers = config.worker_count(os.cpu_count() or 1)
        self._children: list[_Child] = []
        self._stopping = self._reloading = False
        self._tls: ServerTls | None = None
        self._https: ServerTls | None = None
        self._metrics: NodeMetrics | None = None
        self._looked, self._resumed = time.monotonic(), 0.0

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT; 0 after a graceful stop."""
        config = self._config
        setup(config.log.level, config.log.format, "supervisor")
        _raise_descriptor_limit()
        self._layout.prepare()
        lock = self._layout.acquire()
        check_stores(self._layout)
        space = Space(self._layout, config.disk.reserve_bytes)
        space.settle()  # stores need room to open
        for stale in (self._layout.api, self._layout.front, self._layout.link):
            stale.unlink(missing_ok=True)
        self._tls, self._https = _server_tls(config)
        sockets = self._bind()
        names = ["supervisor", "controller", *(f"worker-{n}" for n in range(self._workers))]
        metrics = self._metrics = NodeMetrics(names)
        slot = metrics.slot("supervisor")
        slot.begin(os.getpid())
        setup(config.log.level, config.log.format, "supervisor", slot=slot)
        first = sockets[0]
        mqtt_port = 0 if first.mqtt is None else _port(first.mqtt)
        self._tls_port = None if first.mqtt_tls is None else _port(first.mqtt_tls)
        self._https_port = None if first.https is None else _port(first.https)
        run = control.NodeRun(
            os.getpid(), self._workers, mqtt_port, _port(first.http), self._https_port or 0
        )
        shared = self._shared = worker.Shared.made(config)
        self._children.append(
            _Child("controller", lambda: control.main(config, run, metrics, shared.rates))
        )
        for number, socks in enumerate(sockets):
            self._children.append(self._worker(number, socks, metrics))
        wake = self._signals()
        gc.freeze()  # children share these objects; the collector must not touch their pages
        for child in self._children:
            self._start(child)
        self._announce(run)
        log.info(
            "serving",
            mqtt=run.mqtt_port,
            mqtt_tls=self._tls_port,
            http=run.http_port,
            https=self._https_port,
            workers=self._workers,
            durability=config.durability,
            data_dir=str(self._layout.root),
        )
        if config.durability == "process":
            log.warning(
                "durability is 'process': acknowledged data survives a crash of tbfast, "
                "but the last second may be lost in a power cut"
            )
        with selectors.DefaultSelector() as selector:
            selector.register(wake, selectors.EVENT_READ)
            while not self._stopping:
                if selector.select(TICK_S):
                    wake.recv(4096)
                self._reap()
                self._watch()
                if self._reloading:
                    self._reload()
        code = self._stop(space)
        os.close(lock)
        return code

    # --- sockets -----------------------------------------------------------------------------

    def _bind(self) -> list[worker.WorkerSockets]:
        """One listening socket per worker and protocol, all in one reuse-port group each."""
        mqtt, http = self._config.mqtt, self._config.http
        places = {"http": (http.bind_address, http.bind_port, "--http-port")}
        if mqtt.enabled:
            places["mqtt"] = (mqtt.bind_address, mqtt.bind_port, "--mqtt-port")
        if mqtt.enabled and mqtt.ssl.enabled:
            places["mqtt_tls"] = (mqtt.ssl.bind_address, mqtt.ssl.bind_port, "mqtt.ssl.bind_port")
        if self._https is not None:
            places["https"] = (http.tls_bind_address, http.tls_bind_port, "http.tls_bind_port")
        # Members of a reuse-port group share a port silently: another node must not be joined.
        for address, port, setting in places.values():
            _listener(address, port, setting, shared=False).close()
        bound = []
        for _ in range(self._workers):
            sockets: dict[str, socket.socket] = {}
            for name, (address, port, setting) in places.items():
                sockets[name] = _listener(address, port, setting)
                places[name] = (address, _port(sockets[name]), setting)
                if name.startswith("mqtt"):  # connections inherit it
                    alive = mqtt.so_keep_alive
                    sockets[name].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, alive)
            bound.append(worker.WorkerSockets(**sockets))
        return bound

    def _announce(self, run: control.NodeRun) -> None:
        """Writes where this run listens, for tools that started it on free ports."""
        info = {
            "version": __version__,
            "pid": run.supervisor_pid,
            "mqtt_port": run.mqtt_port,
            "http_port": run.http_port,
        }
        if self._tls_port is not None:
            info["mqtt_tls_port"] = self._tls_port
        if self._https_port is not None:
            info["https_port"] = self._https_port
        path = self._layout.run / "node.json"
        partial = path.with_suffix(".new")
        try:
            partial.write_bytes(msgspec.json.encode(info) + b"\n")
            partial.replace(path)
        except OSError as error:  # a full disk does not keep a server from serving reads
            log.error("cannot write where this run listens", path=str(path), error=str(error))

    # --- children ----------------------------------------------------------------------------

    def _worker(self, number: int, socks: worker.WorkerSockets, metrics: NodeMetrics) -> _Child:
        return _Child(
            f"worker-{number}",
            lambda: worker.main(
                number, self._config, socks, metrics, self._shared, self._tls, self._https
            ),
            socks.all,
        )

    def _start(self, child: _Child) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        # A signal to the child must not meet our handlers, which it inherits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(child, parent)
        except OSError as error:  # no memory, or too many processes: the others serve on
            log.error(
                "cannot start a process; trying again",
                child=child.name, error=str(error), in_s=FORK_RETRY_S,
            )  # fmt: skip
            child.restart_at = time.monotonic() + FORK_RETRY_S
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        child.pid = pid
        child.started = time.monotonic()
        child.killed = False
        child.restart_at = 0.0

    def _become(self, child: _Child, parent: int) -> None:
        """Runs in the forked process and never returns."""
        code = 1
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in _HANDLED:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a reload is for those who listen to it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
            # A listener that outlives its owner here would still be dealt connections.
            for other in self._children:
                if other is not child:
                    for sock in other.listeners:
                        sock.close()
            assert self._metrics is not None
            slot = self._metrics.slot(child.name)
            setup(self._config.log.level, self._config.log.format, child.name, slot=slot)
            code = child.body()
        except BaseException as error:  # the last line of this process: whatever it is, say it
            log.error("process failed", error=repr(error), exc_info=True)
        finally:
            shutdown_logging()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = next((c for c in self._children if c.pid == pid), None)
            if child is not None:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        child.pid = 0
        assert self._metrics is not None
        slot = self._metrics.slot(child.name)
        slot.end()
        if self._stopping:
            return
        now = time.monotonic()
        child.crashes.append(now)
        if len(child.crashes) == PARK_CRASHES and now - child.crashes[0] < PARK_WINDOW_S:
            child.parked = True
            for sock in child.listeners:
                sock.close()
            log.error(
                "process keeps failing and is parked; the node is not ready. "
                "See its log lines above, then restart tbfast",
                child=child.name,
                exit_code=code,
            )
            return
        recent = sum(now - t < PARK_WINDOW_S for t in child.crashes)
        delay = min(BACKOFF_FIRST_S * 2 ** (recent - 1), BACKOFF_LAST_S)
        child.restart_at = now + delay
        slot.add(words.RESTARTS)
        log.error("process ended; restarting", child=child.name, exit_code=code, in_s=delay)

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self._looked > LATE_S:  # their heartbeats may be as late as this look
            self._resumed = now
        self._looked = now
        for child in self._children:
            if child.pid == 0:
                if not child.parked and child.restart_at and child.restart_at <= now:
                    self._start(child)
                continue
            assert self._metrics is not None
            beat_ms = self._metrics.slot(child.name).get(words.HEALTH_HEARTBEAT_MS)
            deadline = beat_ms / 1000 + STUCK_S if beat_ms else child.started + START_S
            deadline = max(deadline, self._resumed + STUCK_S)
            if deadline < now and not child.killed:
                log.error("process is stuck; killing it", child=child.name, pid=child.pid)
                os.kill(child.pid, signal.SIGKILL)
                child.killed = True

    def _reload(self) -> None:
        """SIGHUP: workers load their certificates again."""
        self._reloading = False
        for child in self._children[1:]:
            if child.pid:
                os.kill(child.pid, signal.SIGHUP)

    # --- stopping ----------------------------------------------------------------------------

    def _signals(self) -> socket.socket:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self._wake_writer = writer

        def stop(number: int, frame: object) -> None:
            self._stopping = True

        def reload(number: int, frame: object) -> None:
            self._reloading = True

        signal.signal(signal.SIGHUP, reload)
        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        return reader

    def _stop(self, space: Space) -> int:
        """Workers finish and acknowledge first, then the controller goes."""
        log.info("stopping")
        deadline = time.monotonic() + STOP_S
        for group in (self._children[1:], self._children[:1]):
            for child in group:
                if child.pid:
                    os.kill(child.pid, signal.SIGTERM)
            while any(c.pid for c in group) and time.monotonic() < deadline:
                self._reap()
                time.sleep(0.01)
        left = [c for c in self._children if c.pid]
        for child in left:
            log.error("process did not stop in time; killed", child=child.name)
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)  # the next start must find the data directory free
        for nobodys in (self._layout.api, self._layout.front, self._layout.link):
            try:
                nobodys.unlink(missing_ok=True)
            except OSError as error:  # the next start removes it
                log.error("a socket stays", path=str(nobodys), error=error.strerror)
        try:
            space.keep()
        except StoreError as error:
            log.error("no space is reserved for the next start", error=str(error))
        log.info("stopped")
        shutdown_logging()
        return 1 if left else 0


def _server_tls(config: Config) -> tuple[ServerTls | None, ServerTls | None]:
    """What MQTT and HTTP over TLS are served with; TlsError if it cannot be used."""
    mqtt, http, tickets = config.mqtt.ssl, config.http.ssl, ticket_secret()
    over_tls = config.mqtt.enabled and mqtt.enabled
    for setting, credentials, on in (
        ("mqtt.ssl", mqtt.credentials, over_tls),
        ("http.ssl", http.credentials, config.http.tls_bind_port >= 0),
    ):
        if on and credentials.type != "PEM":
            raise LocalError(
                f"{setting}.credentials.type = KEYSTORE is not served: convert the key store with "
                "`openssl pkcs12 -in FILE -nodes -out server.pem` and use PEM"
            )
    of_mqtt = of_http = None
    if over_tls:
        pem = mqtt.credentials.pem
        of_mqtt = ServerTls(pem.cert_file, pem.key_file, pem.key_password, tickets)
    if config.http.tls_bind_port >= 0:
        own = http.credentials.pem
        of_http = ServerTls(
            own.cert_file, own.key_file, own.key_password, tickets,
            setting="http.ssl", clients=False, alpn=("http/1.1",),
        )  # fmt: skip
    return of_mqtt, of_http


def _listener(address: str, port: int, flag: str, *, shared: bool = True) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    sock.setblocking(False)
    try:
        sock.bind((address, port))
        if shared:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise LocalError(
            f"cannot listen on {address}:{port}: {error.strerror}; "
            f"stop what uses it or choose another with {flag}"
        ) from error
    return sock


def _raise_descriptor_limit() -> None:
    """The soft limit is often 1024 for the sake of select(), which nothing here uses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def serve(config: Config) -> int:
    """Runs a node in this process until it is told to stop; returns its exit code."""
    return Supervisor(config).run()
