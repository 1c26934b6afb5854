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
from typing import Any

import uvicorn
import uvloop
from starlette.types import ASGIApp

from tbfast import __version__, allocator
from tbfast._ext import metrics as words
from tbfast._ext.rate import Rates
from tbfast.config import Config
from tbfast.control.accounts import ADMIN_EMAIL, Accounts
from tbfast.control.activity import Activity
from tbfast.control.attributes import AttributeService
from tbfast.control.backups import Backups, remove_snapshot
from tbfast.control.claims import Claims
from tbfast.control.deletes import DeleteService
from tbfast.control.device_calls import DeviceCalls
from tbfast.control.disk import DiskWatch
from tbfast.control.former import FormerJournals
from tbfast.control.heart import Heart
from tbfast.control.links import LinkServer
from tbfast.control.merge import Merge
from tbfast.control.operations import DeviceOperations
from tbfast.control.package_finder import PackageFinder
from tbfast.control.packages import PackageService
from tbfast.control.provisioning import Provisioning
from tbfast.control.registry import Registry, wall_clock_ms
from tbfast.control.rest import build_app
from tbfast.control.rest.front import build_front
from tbfast.control.retention import RetentionClasses
from tbfast.control.rpc import RpcService
from tbfast.control.sealer import SealService
from tbfast.control.series import NodeSeries
from tbfast.control.services import NodeInfo, Services, WorkerInfo
from tbfast.control.sessions import Sessions
from tbfast.control.tail import Cursor, TailService
from tbfast.control.updates import Updates
from tbfast.control.webhook import Webhook
from tbfast.control.writer import TelemetryWriter
from tbfast.control.ws.protocol import SETTINGS
from tbfast.control.ws.watches import Watches
from tbfast.errors import StoreError, StoreFull
from tbfast.obs.log import get_logger
from tbfast.obs.metrics import NodeMetrics
from tbfast.obs.sink import say_now
from tbfast.store.attributes import AttributeStore
from tbfast.store.known import known_journal, remember_stores
from tbfast.store.layout import NODE_JOURNAL, Layout
from tbfast.store.packages import PackageFiles
from tbfast.store.series import SeriesStore
from tbfast.store.space import Space

log = get_logger("tbfast.controller")

HEARTBEAT_S = 0.5
SWITCH_INTERVAL_S = 0.0005  # reads run in a thread; the loop gets the GIL back soon
EXIT_STORE = 70
KEEP_ALIVE_S = 90  # longer than a worker's clients may be idle: it closes first
STOP_S = 5.0  # longest wait for requests that are being answered


class NodeRun:
    """What the supervisor knows about this run of the node."""

    def __init__(
        self, supervisor_pid: int, workers: int, mqtt_port: int, http_port: int, https_port: int
    ) -> None:
        self.supervisor_pid = supervisor_pid
        self.workers = workers
        self.mqtt_port = mqtt_port
        self.http_port = http_port
        self.https_port = https_port  # 0 = none
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
            https_port=run.https_port,
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


def _server(app: ASGIApp) -> _ApiServer:
    return _ApiServer(
        uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(STOP_S),
            **SETTINGS,
        )
    )


def _wall_offset_ms() -> int:
    """What to add to a time of the monotonic clock that all processes share."""
    return wall_clock_ms() - int(asyncio.get_running_loop().time() * 1000)


def _unix_socket(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)  # only the owner may connect
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)
    sock.listen(128)
    sock.setblocking(False)
    return sock


class _Controller:
    """Everything the controller process runs."""

    def __init__(self, config: Config, run: NodeRun, metrics: NodeMetrics, rates: Rates) -> None:
        self._config = config
        self._run = run
        self._metrics = metrics
        self._rates = rates
        self._slot = metrics.slot("controller")
        self._heart = Heart(self._slot)
        self._layout = Layout(Path(config.data_dir))
        self._space = Space(self._layout, config.disk.reserve_bytes)
        self._disk = DiskWatch(
            self._layout,
            self._space,
            self._slot,
            budget_bytes=config.disk.budget_bytes,
            give_up=lambda: self._backups.give_up(),
        )
        self._stop = asyncio.Event()
        self._broken = False

    async def run(self) -> int:
        """Serves until told to stop; 0, or EXIT_STORE if a store cannot be opened or has failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        beat = loop.create_task(self._heart.run())
        beat.add_done_callback(self._task_ended)
        try:
            if not await self._open_with_room():
                return 0
        except StoreError as error:
            log.error("cannot open a store", error=str(error))
            return EXIT_STORE
        self._former.start()
        await self._links.listen(self._layout.link)
        sealing = loop.create_task(self._sealer.run())
        sealing.add_done_callback(self._task_ended)
        state = loop.create_task(self._activity.run())
        state.add_done_callback(self._task_ended)
        updating = loop.create_task(self._updates.run())
        updating.add_done_callback(self._task_ended)
        sweeping = loop.create_task(self._deletes.sweep(self._registry.has_number))
        old_calls = loop.create_task(self._rpc.sweep())
        tidying = loop.create_task(self._registry.relations.sweep())
        for task in (sweeping, old_calls, tidying):
            task.add_done_callback(_tidied)
        watching = loop.create_task(self._disk.run(self._sealer))
        watching.add_done_callback(self._task_ended)
        services = self._services()
        http, networks = self._config.http, self._config.admin.allowed_networks()
        servers = {
            self._layout.api: _server(build_app(services)),
            self._layout.front: _server(
                build_front(
                    services,
                    networks,
                    origins=http.origins(),
                    compress=http.compression.enabled,
                )
            ),
        }
        serving = [
            loop.create_task(server.serve(sockets=[_unix_socket(path)]))
            for path, server in servers.items()
        ]
        self._slot.put(words.HEALTH_LISTENING, 1)
        log.info("controller ready", devices_revision=self._registry.revision)
        await self._serve()
        self._slot.put(words.HEALTH_LISTENING, 0)
        self._backups.give_up("the server stops")
        for server in servers.values():
            server.should_exit = True
        await asyncio.gather(*serving)
        updating.cancel()
        await asyncio.wait([updating])
        if self._broken:
            sealing.cancel()
            watching.cancel()
            state.cancel()
            return EXIT_STORE
        await self._links.close()
        await self._former.stop()
        await self._writer.finish()
        state.cancel()
        await self._activity.finish()
        sweeping.cancel()
        tidying.cancel()
        old_calls.cancel()
        await self._rpc.close()
        await self._deletes.close()
        watching.cancel()
        await asyncio.wait([watching])  # not in the middle of a drop
        await self._sealer.finish()
        self._sealer.close()
        self._writer.close()
        self._series.close()
        self._store.close()
        self._attribute_store.close()
        self._packages.close()
        self._accounts.close()
        await self._registry.close()
        beat.cancel()
        return 0

    async def _open_with_room(self) -> bool:
        """Opens the stores once the disk has room for it; False when told to stop before."""
        while not self._stop.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._space.settle)
                # What was opened before is closed again: the next attempt takes its locks.
                async with contextlib.AsyncExitStack() as opened:
                    await self._open(opened)
                    opened.pop_all()
                return True
            except StoreFull as error:
                log.limited("store", logging.ERROR, "waiting for disk space", error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), HEARTBEAT_S)
        return False

    async def _open(self, opened: contextlib.AsyncExitStack) -> None:
        """Opens the stores and brings the tail to where the last recorded run left it.

        opened: is given what closes each of them.
        """
        settings = self._config.series
        with self._heart.waits():
            self._registry = await Registry.open(self._layout.registry)
        opened.push_async_callback(self._registry.close)
        self._registry.tenant_profiles.enforce(self._rates.put)  # before any worker is linked
        self._accounts = await Accounts.open(
            self._registry.store,
            now_ms=wall_clock_ms,
            demo=self._config.admin.demo_accounts,
        )
        opened.callback(self._accounts.close)
        self._tell(await self._accounts.first_accounts())
        self._packages = PackageService(
            self._registry,
            PackageFiles(self._layout.packages),
            self._space,
            max_bytes=self._config.ota.max_upload_bytes,
        )
        opened.callback(self._packages.close)
        if left := await self._packages.open():
            log.info("files of unfinished uploads were removed", files=left)
        with self._heart.waits():
            self._store = SeriesStore(
                self._layout.series, join_runs=settings.join_runs, waits=self._heart.waits
            )
        opened.callback(self._store.close)
        self._retention = RetentionClasses(self._registry, settings)
        await self._retention.load()
        sessions = Sessions()
        with self._heart.waits():
            self._attribute_store = AttributeStore(self._layout.attributes)
        opened.callback(self._attribute_store.close)
        self._attributes = AttributeService(self._attribute_store, sessions, wall_clock_ms)
        self._rpc = RpcService(
            sessions,
            self._registry,
            self._config.actors.rpc,
            wall_clock_ms,
            kept_ms=self._config.rpc.kept_ms,
        )
        opened.push_async_callback(self._rpc.close)
        await self._rpc.restore()
        self._device_calls = DeviceCalls(
            self._registry, self._webhook(), timeout_ms=self._config.client_side_rpc.timeout
        )
        self._tail = TailService(
            self._slot,
            head_bytes=settings.head_bytes,
            registered=self._registry.has_number,
            on_attributes=self._attributes.applied,
        )
        merge = Merge(self._tail.apply, range(self._run.workers))
        self._claims = Claims(
            self._registry,
            self._attributes,
            wall_clock_ms,
            by_default=self._config.security.claim.allow_claiming_by_default,
            default_ms=self._config.security.claim.duration,
        )
        finder = PackageFinder(self._registry)
        operations = DeviceOperations(
            self._attributes,
            self._rpc,
            self._device_calls,
            sessions,
            self._claims,
            Provisioning(self._registry, self._attributes),
            finder,
            wall_clock_ms,
        )
        self._links = LinkServer(
            self._registry,
            self._tail,
            sessions,
            operations,
            self._store.cursors,
            merge,
        )
        self._sealer = SealService(
            self._tail,
            self._store,
            self._slot,
            settings,
            before_record=self._attributes.settle,
            class_of=self._retention.of,
            disk_bytes=self._config.disk.budget_bytes or self._space.look().size,
            on_run=self._run_recorded,
            on_broken=self._fail,
        )
        opened.callback(self._sealer.close)
        in_thread = asyncio.get_running_loop().run_in_executor  # the heart beats meanwhile
        await in_thread(None, self._sealer.restore)
        with self._heart.waits():
            self._writer = await in_thread(None, self._open_writer)
        opened.callback(self._writer.close)
        await in_thread(None, remember_stores, self._layout)
        workers = self._run.workers
        former = [
            number
            for number in self._layout.journal_numbers()
            if number >= workers  # the controller's own is among them
        ]
        self._former = FormerJournals(
            self._layout, self._tail, merge, former, on_own=self._writer.replayed
        )
        self._series = NodeSeries(
            self._tail, self._links, self._store, self._layout, workers, self._former.left
        )
        self._attributes.caught_up = self._series.missing
        self._deletes = DeleteService(self._tail, self._store, self._sealer, self._series)
        self._backups = Backups(
            self._layout,
            self._tail,
            self._sealer,
            self._series,
            self._attribute_store,
            self._attributes,
            self._registry,
            self._heart.waits,
        )
        await in_thread(None, remove_snapshot, self._layout)
        pace = self._config.queue.core.ota
        self._updates = Updates(
            self._registry,
            finder,
            self._attributes,
            self._writer,
            wall_clock_ms,
            pack_size=pace.pack_size,
            pack_interval_s=pace.pack_interval_ms / 1000,
        )
        state = self._config.state
        self._activity = Activity(
            self._attributes,
            self._tail,
            self._registry.has_number,
            wall_clock_ms,
            timeout_ms=state.default_inactivity_timeout_in_sec * 1000,
            check_ms=state.default_state_check_interval_in_sec * 1000,
            report_ms=self._config.sessions.report_timeout,
            strategy=self._config.activity.reporting_strategy,
        )
        sessions.on_opened = self._connected
        sessions.on_closed = self._activity.disconnected
        self._links.on_active = self._active
        operations.on_asked = self._activity.touched
        self._registry.subscribe(self._activity.registry_changed)
        self._registry.subscribe(self._claims.registry_changed)
        self._registry.subscribe(self._rpc.registry_changed)
        self._registry.subscribe(self._updates.registry_changed)
        self._watches = Watches()
        self._tail.listen(self._watches)
        self._attributes.subscribe(self._watches.attributes_changed)
        self._deletes.subscribe(self._watches.deleted)
        self._registry.subscribe(self._deletes.registry_changed)
        self._registry.subscribe(self._attributes.registry_changed)

    def _webhook(self) -> Webhook | None:
        settings = self._config.rpc
        if not settings.webhook_url:
            return None
        return Webhook(settings.webhook_url, timeout_ms=settings.webhook_timeout_ms)

    def _open_writer(self) -> TelemetryWriter:
        return TelemetryWriter(
            self._layout.journal(NODE_JOURNAL),
            known_journal(self._layout, NODE_JOURNAL),
            self._tail,
            self._space,
            on_broken=self._fail,
            type_cast=self._config.json.type_cast_enabled,
            max_string=self._config.json.max_string_value_length,
        )

    def _connected(self, device: int, monotonic_ms: int) -> None:
        self._activity.connected(device, monotonic_ms + _wall_offset_ms())

    def _active(self, devices: list[tuple[int, int]]) -> None:
        offset_ms = _wall_offset_ms()
        for device, monotonic_ms in devices:
            self._activity.touched(device, monotonic_ms + offset_ms)

    def _run_recorded(self, cursors: dict[int, Cursor]) -> None:
        self._links.run_recorded(cursors)
        self._writer.run_recorded(cursors)

    def _fail(self, error: StoreError) -> None:
        """A failed sync: nothing can be promised by this process any more."""
        log.error("the disk failed; the controller restarts", error=str(error))
        self._broken = True
        self._stop.set()

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the controller ended", error=str(error))
            self._broken = True
            self._stop.set()

    def _services(self) -> Services:
        return Services(
            registry=self._registry,
            series=self._series,
            writer=self._writer,
            attributes=self._attributes,
            rpc=self._rpc,
            device_calls=self._device_calls,
            live=self._tail,
            node=_Status(self._config, self._run, self._metrics),
            deletes=self._deletes,
            upkeep=self._backups,
            watches=self._watches,
            accounts=self._accounts,
            claims=self._claims,
            packages=self._packages,
        )

    def _tell(self, password: str | None) -> None:
        """Says the first administrator's password, once, to whoever started the server."""
        if password is None:
            return
        try:
            say_now(
                f"First start: the administrator is {ADMIN_EMAIL}, the password {password}\n"
                f"It is not shown again; 'tbfast user password {ADMIN_EMAIL}' gives a new one.\n"
            )
        except OSError as error:
            log.error(
                "the first administrator's password could not be printed; "
                "'tbfast user password' gives a new one",
                error=str(error),
            )

    async def _serve(self) -> None:
        """Watches registry, attributes and the tail until it is time to stop."""
        while not self._stop.is_set():
            failed = self._registry.failed or self._attribute_store.failed
            if failed is not None:
                self._fail(StoreError(str(failed)))
            await self._writer.reclaim(pressed=self._space.full)
            self._tail.settle()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), HEARTBEAT_S)


def _tidied(task: "asyncio.Task[Any]") -> None:
    """Nobody waits for such work, and the next start does what is left of it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("tidying up ended early; the next start goes on", error=str(error))


def main(config: Config, run: NodeRun, metrics: NodeMetrics, rates: Rates) -> int:
    """Body of the forked controller process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    allocator.settle()
    metrics.slot("controller").begin(os.getpid())
    return uvloop.run(_Controller(config, run, metrics, rates).run())
