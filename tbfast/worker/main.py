"""The life of one worker process, from fork to exit."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import uvloop

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.ingest import Group, Ingest
from tbfast._ext.metrics import Slot
from tbfast._ext.rate import Rates
from tbfast.config import Config
from tbfast.engine.mqtt.settings import Settings
from tbfast.errors import StoreError, StoreFull
from tbfast.link import channel as link
from tbfast.model.activity import look_ms
from tbfast.net.blocks import AddressBlocks
from tbfast.net.flapping import Flapping
from tbfast.net.http import HttpPort
from tbfast.net.http_device import DeviceApi
from tbfast.net.http_device import Settings as DeviceSettings
from tbfast.net.http_exchange import Origins
from tbfast.net.http_packages import PackageApi
from tbfast.net.https import HttpsDoor
from tbfast.net.mqtt import MqttPort
from tbfast.net.proxy import Proxy
from tbfast.net.tls import ServerTls, TlsError
from tbfast.obs.log import get_logger
from tbfast.obs.metrics import NodeMetrics
from tbfast.store.journal import Journal
from tbfast.store.known import known_journal
from tbfast.store.layout import Layout
from tbfast.store.packages import PackageFiles
from tbfast.store.space import Space
from tbfast.worker.answers import Answers
from tbfast.worker.commit import Committer
from tbfast.worker.directory import Directory
from tbfast.worker.feed import BlockFeed
from tbfast.worker.memory import Budget, MemoryWatch
from tbfast.worker.operations import Operations
from tbfast.worker.packages import PackageReader

log = get_logger("tbfast.worker")

HEARTBEAT_S = 0.5
DRAIN_S = 20.0  # longest graceful stop (Kubernetes grants 30 s)
EXIT_STORE = 70  # the journal could not be opened or has failed: reopen under supervision


class WorkerSockets:
    """Listening sockets of one worker, bound by the supervisor and kept open over restarts."""

    def __init__(
        self,
        http: socket.socket,
        mqtt: socket.socket | None = None,
        mqtt_tls: socket.socket | None = None,
        https: socket.socket | None = None,
    ) -> None:
        self.http = http
        self.mqtt = mqtt
        self.mqtt_tls = mqtt_tls
        self.https = https

    @property
    def all(self) -> tuple[socket.socket, ...]:
        """Every one of them."""
        possible = (self.http, self.mqtt, self.mqtt_tls, self.https)
        return tuple(s for s in possible if s is not None)


class Shared(NamedTuple):
    """What all workers of a node see and change; made before they are forked."""

    rates: Rates
    blocks: AddressBlocks | None
    flapping: Flapping

    @classmethod
    def made(cls, config: Config) -> Self:
        """With nothing in it."""
        limit = config.rate_limits
        blocks = None
        if limit.ip_limits_enabled:
            blocks = AddressBlocks(limit.max_wrong_credentials_per_ip, limit.ip_block_timeout)
        return cls(Rates(), blocks, Flapping())


class _CommitMetrics:
    """Counters of the commit path, in the worker's metrics slot."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def committed(self, group: Group, seconds: float) -> None:
        slot = self._slot
        http = len(group.waiters)
        slot.add(words.MESSAGES_MQTT, group.messages - http)
        slot.add(words.MESSAGES_HTTP, http)
        slot.add(words.POINTS, group.points)
        if group.value is not None:
            slot.add(words.COMMITS)
            slot.add(words.WRITTEN_BYTES, len(group.value))
            slot.observe_seconds(words.COMMIT, max(0.0, seconds))
        if group.dropped_records:
            slot.add(words.RECORDS_DROPPED_KEY, group.dropped_records)
            log.limited(
                "key", logging.WARNING,
                "records with a key that storage refuses were acknowledged and dropped",
                records=group.dropped_records,
            )  # fmt: skip
        if group.bad_utf8:
            slot.add(words.BAD_UTF8, group.bad_utf8)

    def refused(self, group: Group) -> None:
        http = len(group.waiters)
        self._slot.add(words.REFUSED_MQTT + words.REASON_STORE, group.messages - http)
        self._slot.add(words.REFUSED_HTTP + words.REASON_STORE, http)

    def pressed(self) -> None:
        self._slot.add(words.BACKPRESSURE)


class Worker:
    """Wires one worker together; `run` returns its exit code."""

    def __init__(
        self,
        number: int,
        config: Config,
        sockets: WorkerSockets,
        metrics: NodeMetrics,
        shared: Shared,
        tls: ServerTls | None = None,
        https: ServerTls | None = None,
    ) -> None:
        self._number = number
        self._shared = shared
        self._tls = tls
        self._https = https
        self._config = config
        self._sockets = sockets
        self._node = metrics
        self._slot = metrics.slot(f"worker-{number}")
        self._controller = metrics.slot("controller")
        self._layout = Layout(Path(config.data_dir))
        self._space = Space(self._layout, config.disk.reserve_bytes)
        self._clock_steps = 0
        self._exit_code = 0
        self._reclaiming: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Serves until told to stop; 0, or EXIT_STORE if the journal failed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            journal = await self._open_journal()
        except StoreError as error:
            log.error("cannot open the journal", error=str(error))
            return EXIT_STORE
        if journal is None:
            return 0
        config = self._config
        ingest = Ingest(
            max_remaining=config.mqtt.max_payload_size,
            type_cast=config.json.type_cast_enabled,
            max_string=config.json.max_string_value_length,
            rates=self._shared.rates,
        )
        feed = BlockFeed(loop, journal)
        operations = Operations(
            loop,
            lambda: committer.accepted,
            PackageReader(loop, PackageFiles(self._layout.packages)),
            builtin=config.rpc.builtin,
            timeout_s=config.queue.transport_api.max_requests_timeout / 1000,
        )
        directory = Directory(
            loop,
            self._number,
            journal,
            feed,
            operations,
            timeout_s=config.queue.transport_api.max_requests_timeout / 1000,
        )
        mqtt_connections, http_connections = _connection_limits()
        port = MqttPort(
            loop,
            ingest,
            self._slot,
            directory,
            _session_settings(config),
            operations=operations,
            call_timeout_ms=config.client_side_rpc.timeout,
            max_connections=mqtt_connections,
            blocks=self._shared.blocks,
            flapping=self._shared.flapping,
            proxied=config.mqtt.proxy_enabled,
            certificates_expire=not config.mqtt.ssl.skip_validity_check_for_client_cert,
        )
        origins = Origins(config.http.origins())
        devices = DeviceApi(
            loop, ingest, self._slot, directory, operations, _device_api_settings(config, origins)
        )
        committer = Committer(
            loop,
            ingest,
            journal,
            Answers(port, devices),
            _CommitMetrics(self._slot),
            disk=config.durability == "disk",
            on_durable=feed.committed,
            on_broken=self._broken,
            max_journal_bytes=config.journal.max_bytes,
            busy_ms=config.journal.busy_after_ms,
            space=self._space,
        )
        directory.sessions = operations.sessions = port
        directory.polls = devices
        port.commits = devices.commits = committer
        proxy = Proxy(
            loop,
            str(self._layout.front),
            self._slot,
            max_upload=config.ota.max_upload_bytes,
            max_connections=_proxy_limit(config.worker_count(os.cpu_count() or 1)),
            origins=origins,
        )
        shaking = 0 if self._https is None else min(limits.TLS_HANDSHAKES, http_connections // 4)
        of_devices = (PackageApi(devices, operations), devices) if config.http.enabled else ()
        http = HttpPort(
            self._node,
            self._slot,
            [*of_devices, proxy],
            fast=devices if config.http.enabled else None,
            max_connections=max(http_connections - shaking, 1),
        )
        self._load_certificates()  # they may have changed since the node started
        await http.listen(loop, self._sockets.http)
        door = self._open_https(loop, http, shaking)
        link_task = loop.create_task(
            link.connect(str(self._layout.link), directory, stopping=self._stop.is_set)
        )
        if self._sockets.mqtt is not None:
            port.reactor.listen(self._sockets.mqtt.fileno())
        if self._tls is not None:
            assert self._sockets.mqtt_tls is not None
            port.reactor.listen(self._sockets.mqtt_tls.fileno(), self._tls.wrap_bio)
        if self._tls is not None or self._https is not None:
            loop.add_signal_handler(signal.SIGHUP, partial(self._load_certificates, force=True))
        self._slot.put(words.HEALTH_JOURNAL_OPEN, 1)
        self._slot.put(words.HEALTH_LISTENING, 1)
        memory = MemoryWatch(Budget(), self._slot, [port], committer.narrow)
        watch = loop.create_task(memory.run())
        beat = loop.create_task(self._heartbeat(ingest, journal, committer, directory, operations))
        log.info("worker ready", worker=self._number, epoch=journal.epoch)
        await self._stop.wait()
        self._slot.put(words.HEALTH_LISTENING, 0)
        if self._exit_code == 0:
            devices.stop()
            if door is not None:
                door.close()
            http.stop()
            proxy.stop()
            await self._drain(port, http, committer)
        port.close()
        if door is not None:
            door.close()
        http.close()
        proxy.close()
        beat.cancel()
        watch.cancel()
        await link_task
        if self._reclaiming is not None:
            await self._reclaiming  # the store must not be closed under it
        committer.close()
        if committer.can_sync:
            journal.close()
        return self._exit_code

    async def _open_journal(self) -> Journal | None:
        """The journal, once the disk has room for it; None when told to stop before."""
        while not self._stop.is_set():
            try:
                return Journal(
                    self._layout.journal(self._number),
                    self._number,
                    known_journal(self._layout, self._number),
                )
            except StoreFull as error:
                log.limited("store", logging.ERROR, "waiting for disk space", error=str(error))
            # Opening it may take long then: the next heartbeat is not asked for sooner.
            ahead_ms = limits.DISK_PATIENCE_MS
            self._slot.put(words.HEALTH_HEARTBEAT_MS, _monotonic_ms() + ahead_ms)
            self._slot.put(words.DISK_FULL, 1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), HEARTBEAT_S)
        return None

    async def _drain(self, port: MqttPort, http: HttpPort, committer: Committer) -> None:
        """Finishes and acknowledges what was received."""
        port.shut_all()
        deadline = asyncio.get_running_loop().time() + DRAIN_S
        # Connections that linger as well: closing them early resets those that still send, and a
        # reset can destroy the last answers on their way.
        while (
            port.draining or port.reactor.connections or http.open or not committer.idle
        ) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)

    async def _heartbeat(
        self,
        ingest: Ingest,
        journal: Journal,
        committer: Committer,
        directory: Directory,
        operations: Operations,
    ) -> None:
        settings = self._config.ssl
        interval_ms = settings.certificate_reload_check_interval_seconds * 1000
        looked_ms = _monotonic_ms()
        every_ms = look_ms(
            self._config.activity.reporting_strategy, self._config.sessions.report_timeout
        )
        report_s = asyncio.get_running_loop().time() + every_ms / 1000
        while True:
            self._slot.put(words.HEALTH_HEARTBEAT_MS, _monotonic_ms())
            if settings.certificate_reload_enabled and _monotonic_ms() - looked_ms >= interval_ms:
                looked_ms = _monotonic_ms()
                self._load_certificates()
            self._slot.put(words.JOURNAL_BYTES, committer.journal_bytes)
            self._look_at_disk()
            committer.look()
            self._slot.put(words.DISK_STALLED, committer.stalled)
            self._look_at_clock(ingest)
            self._slot.put(words.UNSYNCED_BYTES, committer.inflight_bytes)
            self._slot.put(words.UNSYNCED_WINDOW_NS, committer.unsynced_window_ns)
            directory.expire()
            operations.expire()
            if (now_s := asyncio.get_running_loop().time()) >= report_s:
                report_s = max(report_s + every_ms / 1000, now_s)
                directory.report_activity()
            pressed = self._space.full or bool(self._controller.get(words.DISK_ALARM))
            if journal.reclaimable(pressed=pressed) and (
                self._reclaiming is None or self._reclaiming.done()
            ):
                self._reclaiming = asyncio.create_task(self._reclaim(journal))
            await asyncio.sleep(HEARTBEAT_S)

    def _look_at_clock(self, ingest: Ingest) -> None:
        steps = ingest.clock_steps - self._clock_steps
        if steps:
            self._clock_steps += steps
            self._slot.add(words.CLOCK_STEPS, steps)
            log.warning(
                "the system clock was set: rows without a time follow it",
                step_s=ingest.clock_step_ms / 1000,
            )

    def _open_https(
        self, loop: asyncio.AbstractEventLoop, http: HttpPort, most: int
    ) -> HttpsDoor | None:
        if self._https is None:
            return None
        assert self._sockets.https is not None
        door = HttpsDoor(http, self._https, max(most, 1))
        door.listen(loop, self._sockets.https)
        return door

    def _load_certificates(self, *, force: bool = False) -> None:
        """For new connections, if the files have changed; broken ones change nothing."""
        for tls in (self._tls, self._https):
            try:
                if tls is not None and tls.refresh(force=force):
                    log.info("certificate loaded")
            except TlsError as error:
                log.error("the certificate in use stays: the new one is unusable", error=str(error))

    def _look_at_disk(self) -> None:
        try:
            self._space.look()
        except StoreError as error:  # the journal will say whether it can be written
            log.limited("disk", logging.ERROR, "disk not measured", error=str(error))
        if self._space.full != bool(self._slot.get(words.DISK_FULL)):
            self._slot.put(words.DISK_FULL, self._space.full)
            if self._space.full:
                log.error("the disk is full: telemetry is refused")
            else:
                log.info("the disk has room: telemetry is accepted")

    async def _reclaim(self, journal: Journal) -> None:
        try:
            await asyncio.to_thread(journal.reclaim)
        except StoreError as error:  # trimmed files stay a little longer
            log.limited("reclaim", logging.WARNING, "no space was freed", error=str(error))

    def _broken(self, error: StoreError) -> None:
        """A sync failed: nothing more can be promised by this process."""
        log.error("the journal failed; this worker restarts", error=str(error))
        self._exit_code = EXIT_STORE
        self._stop.set()


def _monotonic_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


def _connection_limits() -> tuple[int, int]:
    """Connections of the MQTT and the HTTP port that leave RESERVED_DESCRIPTORS free.

    Raises this process's soft limit to its hard one: the usual 1 024 is for programs that select().
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    room = max(hard - len(os.listdir("/proc/self/fd")) - limits.RESERVED_DESCRIPTORS, 2)
    http = min(limits.HTTP_CONNECTIONS, max(room // 4, 1))
    return room - http, http


def _proxy_limit(workers: int) -> int:
    """This worker's share of the connections the controller has descriptors for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return limits.PROXY_CONNECTIONS
    kept = max(limits.CONTROLLER_DESCRIPTORS, hard // 2)
    room = hard - kept - workers  # each worker has a link to it
    return min(limits.PROXY_CONNECTIONS, max(room // workers, 1))


def _device_api_settings(config: Config, origins: Origins) -> DeviceSettings:
    return DeviceSettings(
        max_payload_size=config.http.max_payload_size,
        request_timeout_ms=config.http.request_timeout,
        max_request_timeout_ms=config.http.max_request_timeout,
        answer_timeout_ms=config.queue.transport_api.max_requests_timeout,
        origins=origins,
    )


def _session_settings(config: Config) -> Settings:
    return Settings(
        max_remaining=config.mqtt.max_payload_size,
        close_timeout_ms=config.mqtt.disconnect_timeout,
        connect_timeout_ms=limits.MQTT_CONNECT_TIMEOUT_MS,
        idle_timeout_ms=config.sessions.inactivity_timeout,
        keep_alive_factor=config.mqtt.keep_alive_factor,
        ack_timeout_ms=config.mqtt.timeout,
        queue_limit=config.mqtt.msg_queue_size_per_device_limit,
    )


def main(
    number: int,
    config: Config,
    sockets: WorkerSockets,
    metrics: NodeMetrics,
    shared: Shared,
    tls: ServerTls | None = None,
    https: ServerTls | None = None,
) -> int:
    """Body of a forked worker process."""
    metrics.slot(f"worker-{number}").begin(os.getpid())
    return uvloop.run(Worker(number, config, sockets, metrics, shared, tls, https).run())
