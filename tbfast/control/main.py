"""The life of the controller process, from fork to exit."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import uvicorn
import uvloop

from tbfast import __version__
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.config import Config
from tbfast.control.links import LinkServer
from tbfast.control.registry import Registry
from tbfast.control.rest import build_app
from tbfast.control.series import NodeSeries
from tbfast.control.services import NodeInfo, Services, WorkerInfo
from tbfast.control.tail import TailService
from tbfast.errors import StoreError, StoreFull
from tbfast.obs.log import get_logger
from tbfast.obs.metrics import NodeMetrics
from tbfast.store.layout import Layout
from tbfast.store.series_reader import JournalReader

log = get_logger("tbfast.controller")

HEARTBEAT_S = 0.5
SWITCH_INTERVAL_S = 0.0005  # reads run in a thread; the loop gets the GIL back soon
EXIT_STORE = 70
STOP_S = 5.0  # longest wait for requests that are being answered


class NodeRun:
    """What the supervisor knows about this run of the node."""

    def __init__(self, supervisor_pid: int, workers: int, mqtt_port: int, http_port: int) -> None:
        self.supervisor_pid = supervisor_pid
        self.workers = workers
        self.mqtt_port = mqtt_port
        self.http_port = http_port
        self.started_ms = time.time_ns() // 1_000_000


class _Status:
    """NodeStatus from the shared metrics."""

    def __init__(self, config: Config, run: NodeRun, metrics: NodeMetrics) -> None:
        self._config = config
        self._run = run
        self._metrics = metrics

    async def status(self) -> NodeInfo:
        run = self._run
        return NodeInfo(
            version=__version__,
            pid=os.getpid(),
            supervisor_pid=run.supervisor_pid,
            uptime_ms=time.time_ns() // 1_000_000 - run.started_ms,
            durability=self._config.durability,
            mqtt_port=run.mqtt_port,
            http_port=run.http_port,
            workers=[self._worker(number) for number in range(run.workers)],
        )

    def _worker(self, number: int) -> WorkerInfo:
        slot = self._metrics.slot(f"worker-{number}")
        listening = slot.get(words.HEALTH_LISTENING) and slot.get(words.HEALTH_JOURNAL_OPEN)
        pid = slot.get(words.HEALTH_PID)
        return WorkerInfo(
            index=number,
            pid=pid,
            state="serving" if listening else "starting" if pid else "down",
            connections=slot.get(words.CONNECTIONS_MQTT),
            journal_bytes=slot.get(words.JOURNAL_BYTES),
        )


class _ApiServer(uvicorn.Server):
    """uvicorn without its own signal handling: the controller stops it."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)  # only the owner may connect: this socket needs no login
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)
    sock.listen(128)
    sock.setblocking(False)
    return sock


async def _run(config: Config, run: NodeRun, metrics: NodeMetrics) -> int:
    loop = asyncio.get_running_loop()
    slot = metrics.slot("controller")
    layout = Layout(Path(config.data_dir))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    beat = loop.create_task(_heartbeat(slot))
    try:
        registry = await _open_registry(layout.registry, stop)
    except StoreError as error:
        log.error("cannot open the registry", error=str(error))
        return EXIT_STORE
    if registry is None:
        return 0
    tail = TailService(slot)
    links = LinkServer(registry, tail)
    journals = JournalReader(layout, follow=True)
    # Journals of workers that a smaller --workers no longer starts: nobody sends their blocks.
    for journal in (n for n in layout.journal_numbers() if n >= run.workers):
        try:
            await journals.replay([journal], tail.apply)
        except StoreError as error:
            log.error(
                "the journal of a former worker cannot be read: its rows are missing",
                journal=journal,
                error=str(error),
            )
    await links.listen(layout.link)
    services = Services(
        registry=registry,
        series=NodeSeries(tail, links, journals, run.workers),
        live=tail,
        node=_Status(config, run, metrics),
    )
    api = _ApiServer(
        uvicorn.Config(
            build_app(services),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=int(STOP_S),
        )
    )
    sock = _unix_socket(layout.api)
    serving = loop.create_task(api.serve(sockets=[sock]))
    slot.put(words.HEALTH_LISTENING, 1)
    log.info("controller ready", devices_revision=registry.revision)
    code = 0
    while not stop.is_set():
        if registry.failed:  # a failed sync: nothing may be answered from here on
            log.error("the registry's disk failed; the controller restarts")
            code = EXIT_STORE
            break
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), HEARTBEAT_S)
    slot.put(words.HEALTH_LISTENING, 0)
    api.should_exit = True
    await serving
    await links.close()
    await journals.close()
    if code == 0:
        await registry.close()
    beat.cancel()
    return code


async def _heartbeat(slot: Slot) -> None:
    while True:
        slot.put(words.HEALTH_HEARTBEAT_MS, int(asyncio.get_running_loop().time() * 1000))
        await asyncio.sleep(HEARTBEAT_S)


async def _open_registry(path: Path, stop: asyncio.Event) -> Registry | None:
    """The registry, once the disk has room for it; None when told to stop before."""
    while not stop.is_set():
        try:
            return await Registry.open(path)
        except StoreFull as error:
            log.limited("store", logging.ERROR, "waiting for disk space", error=str(error))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), HEARTBEAT_S)
    return None


def main(config: Config, run: NodeRun, metrics: NodeMetrics) -> int:
    """Body of the forked controller process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    metrics.slot("controller").begin(os.getpid())
    return uvloop.run(_run(config, run, metrics))
