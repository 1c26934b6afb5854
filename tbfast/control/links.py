"""The controller's end of the links: blocks into the tail, questions of workers answered."""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from tbfast import limits
from tbfast._ext.series import split_definitions
from tbfast.control.chain import ChainProvisioning
from tbfast.control.merge import POLL_S, Merge, wall_clock_ms
from tbfast.control.operations import DeviceOperations
from tbfast.control.registry import Registry
from tbfast.control.sessions import Sessions
from tbfast.control.tail import TailService
from tbfast.errors import TbfastError
from tbfast.link import messages as msg
from tbfast.link.channel import Channel
from tbfast.model.auth import StoredCredentials
from tbfast.model.device import Change, Device
from tbfast.model.operations import ReadAttributes
from tbfast.model.rates import DEVICE, GATEWAY_DEVICE
from tbfast.model.transport import DEFAULT_MQTT
from tbfast.obs.log import get_logger

log = get_logger("tbfast.links")

CREDIT_STEP_BYTES = limits.LINK_CREDIT_BYTES // 8  # credit goes back in steps of this size
POSITION_TIMEOUT_S = 1.0  # a read waits this long for a worker to say where it is


class _Worker:
    """One connected worker."""

    def __init__(
        self, channel: Channel, hello: msg.Hello, merge: Merge, full: Callable[[], bool]
    ) -> None:
        self.channel = channel
        self.journal_id = hello.journal_id
        self.owed_bytes = 0
        self.source = merge.link(hello.journal_id, self._consumed)
        self.welcomed = False
        self.asked_where: dict[int, int] = {}  # request not answered yet -> wall ms of it
        self._full = full
        self.profiles: set[str] = set()  # of which it was told; the others are all defaults
        self.asked: dict[int, asyncio.Task[None]] = {}  # operations under way, by request

    def send(self, message: msg.Message) -> None:
        """Dropped when the link is down: Hello rebuilds that state."""
        self.channel.send(message)

    def _consumed(self, nbytes: int) -> None:
        """A block was applied; with enough of them, credit goes back unless sealing lags."""
        self.owed_bytes += nbytes
        if self.owed_bytes >= CREDIT_STEP_BYTES and not self._full():
            self.give_credit()

    def give_credit(self) -> None:
        """Lets as many bytes come as were consumed."""
        self.channel.send(msg.Credit(self.owed_bytes))
        self.owed_bytes = 0


class LinkServer:
    """Accepts the workers of this node on a Unix socket (mode 0600)."""

    def __init__(
        self,
        registry: Registry,
        tail: TailService,
        sessions: Sessions,
        operations: DeviceOperations,
        sealed: Callable[[], dict[int, tuple[int, int]]] = dict,
        merge: Merge | None = None,
    ) -> None:
        self._registry = registry
        self._chains = ChainProvisioning(registry)
        self._tail = tail
        self._sessions = sessions
        self._operations = operations
        self._sealed = sealed  # journal positions that recorded runs cover
        self._channels: set[Channel] = set()
        self._workers: dict[Channel, _Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._merge = merge or Merge(tail.apply)
        self._pace: asyncio.Task[None] | None = None
        self._positions: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._readers: list[asyncio.Future[None]] = []  # wait for the next round of questions
        self._asking_all = False
        self._request = 0
        self._changes = 0  # told to the workers
        self._server: asyncio.AbstractServer | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self.on_active: Callable[[list[tuple[int, int]]], None] = _ignored

    async def listen(self, path: Path) -> None:
        """Starts accepting."""
        path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        old = os.umask(0o177)
        try:
            self._server = await loop.create_unix_server(lambda: Channel(self), str(path))
        finally:
            os.umask(old)
        self._unsubscribe = self._registry.subscribe(self._changed)
        self._pace = self._spawn(self._keep_pace())

    async def close(self) -> None:
        """Ends every link."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._pace is not None:
            self._pace.cancel()
        if self._server is not None:
            self._server.close()
        for channel in list(self._channels):
            channel.close()

    # --- Peer --------------------------------------------------------------------------------

    def channel_opened(self, channel: Channel) -> None:
        self._channels.add(channel)

    def channel_closed(self, channel: Channel) -> None:
        self._channels.discard(channel)
        worker = self._workers.pop(channel, None)
        if worker is None:
            return
        for task in worker.asked.values():
            task.cancel()
        self._sessions.worker_gone(worker)
        self._merge.unlink(worker.source)

    def block(self, channel: Channel, block: bytes) -> None:
        self._merge.push(self._workers[channel].source, block)

    def message(self, channel: Channel, message: msg.Message) -> None:
        match message:
            case msg.Hello():
                worker = _Worker(channel, message, self._merge, lambda: self._tail.full)
                self._workers[channel] = worker
                # At once: the worker tells of sessions that open and close from here on.
                for session in message.sessions:
                    self._sessions.opened(worker, session)
                self._spawn(self._welcome(channel, message))
            case msg.KeyTable(epoch, first, defs):
                # Sent right behind Hello, before any block of it can be asked for.
                self._tail.define(self._journal_of(channel), epoch, first, split_definitions(defs))
            case msg.Lookup():
                self._spawn(self._lookup(channel, message))
            case msg.SessionOpened(session):
                self._sessions.opened(self._workers[channel], session)
            case msg.SessionClosed(device, slot, generation):
                self._sessions.closed(self._workers[channel], device, slot, generation)
            case msg.Listen():
                self._sessions.listens(self._workers[channel], message)
            case msg.Active(devices):
                self.on_active(devices)
            case msg.Delivered(push, state):
                self._sessions.delivered(push, state)
            case msg.Ask():
                self._asked(self._workers[channel], message)
            case msg.Drop(request):
                if (task := self._workers[channel].asked.get(request)) is not None:
                    task.cancel()
            case msg.Position():
                self._told(self._workers[channel], message)
            case _:
                log.error("unexpected link message", type=type(message).__name__)

    def run_recorded(self, cursors: dict[int, tuple[int, int]]) -> None:
        """Rows up to these positions are sealed: journals may forget them."""
        for worker in self._workers.values():
            position = cursors.get(worker.journal_id)
            if position is not None:
                worker.channel.send(msg.Trim(*position))
            if worker.owed_bytes >= CREDIT_STEP_BYTES:
                worker.give_credit()

    # --- handshake ---------------------------------------------------------------------------

    def _journal_of(self, channel: Channel) -> int:
        return self._workers[channel].journal_id

    async def _welcome(self, channel: Channel, hello: msg.Hello) -> None:
        worker = self._workers.get(channel)
        if worker is None:
            return  # gone again
        changes = await self._registry.changes_since(hello.revision) if hello.revision else []
        cursor = worker.source.received = self._tail.cursor(worker.journal_id)
        channel.send(
            msg.Welcome(
                *cursor,
                limits.LINK_CREDIT_BYTES,
                self._registry.revision,
                changes is None,
            )
        )
        sealed = self._sealed().get(worker.journal_id)
        if sealed is not None:
            channel.send(msg.Trim(*sealed))
        for change in changes or ():
            self._tell_change(worker, change)
        log.info("worker linked", journal=worker.journal_id, pid=hello.pid, after=cursor)
        worker.welcomed = True
        self._ask_where(worker)

    # --- registry ----------------------------------------------------------------------------

    async def _lookup(self, channel: Channel, lookup: msg.Lookup) -> None:
        if lookup.chain:
            await self._chains.provision(lookup.chain)
        while True:
            changes = self._changes
            found = [await self._credentials(i) for i in lookup.ids]
            # What a worker has been told to forget must not reach it again from before the change.
            if changes == self._changes:
                break
        worker = self._workers.get(channel)
        if worker is None:
            return  # gone
        for profile in {c.profile for c in found if c is not None} - worker.profiles:
            if self._registry.profiles.mqtt(profile) is not DEFAULT_MQTT:
                self._tell_profile(worker, profile)
        channel.send(msg.Found(lookup.request, found))

    async def _credentials(self, credentials_id: str) -> StoredCredentials | None:
        known = await self._registry.lookup_credentials(credentials_id)
        if known is None:
            return None
        device, credentials, profile = known
        return StoredCredentials(
            credentials_id=credentials.credentials_id,
            type=credentials.type,
            device=device.number,
            device_name=device.name,
            transport=profile.transport_type,
            value="" if credentials.type == "X509_CERTIFICATE" else credentials.value or "",
            profile=profile.id,
            scope=GATEWAY_DEVICE if _is_gateway(device) else DEVICE,
        )

    def _changed(self, change: Change) -> None:
        self._changes += 1
        for worker in self._workers.values():
            self._tell_change(worker, change)

    def _tell_change(self, worker: _Worker, change: Change) -> None:
        if change.kind == "device_profile":
            # First: who has seen the change's revision never asks for it again.
            self._tell_profile(worker, change.id)
        worker.send(_changed_message(change))

    def _tell_profile(self, worker: _Worker, profile: str) -> None:
        settings = self._registry.profiles.mqtt(profile)
        worker.send(msg.Profile(profile, settings))
        if settings is None:
            worker.profiles.discard(profile)
        else:
            worker.profiles.add(profile)

    # --- operations --------------------------------------------------------------------------

    def _asked(self, worker: _Worker, ask: msg.Ask) -> None:
        task = self._spawn(self._carry_out(worker, ask))
        worker.asked[ask.request] = task
        task.add_done_callback(lambda _: worker.asked.pop(ask.request, None))

    async def _carry_out(self, worker: _Worker, ask: msg.Ask) -> None:
        position = (ask.epoch, ask.seq)
        if self._tail.cursor(worker.journal_id) < position:
            # The device reads what it wrote; a group that was refused never comes.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POSITION_TIMEOUT_S):
                    await self._tail.reached(worker.journal_id, position)
        if isinstance(ask.operation, ReadAttributes) and len(self._workers) > 1:
            await self._rows_of_all()  # it may have written through another worker
        worker.send(
            msg.Answer(ask.request, await self._operations.carry_out(ask.device, ask.operation))
        )

    # --- reads -------------------------------------------------------------------------------

    async def caught_up(self) -> set[int]:
        """Journals of which the tail has applied everything acknowledged before this call.

        Waits at most POSITION_TIMEOUT_S for those of workers that are replaying or do not answer.
        """
        workers = list(self._workers.values())
        reached = await asyncio.gather(*map(self._wait_for, workers))
        return {w.journal_id for w, done in zip(workers, reached, strict=True) if done}

    async def _rows_of_all(self) -> None:
        """As `caught_up`; calls that come while workers are being asked share the next round."""
        came: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.append(came)
        if not self._asking_all:
            self._asking_all = True
            self._spawn(self._ask_all())
        await came

    async def _ask_all(self) -> None:
        try:
            while self._readers:
                readers, self._readers = self._readers, []
                try:
                    await self.caught_up()
                finally:
                    for came in readers:
                        if not came.done():
                            came.set_result(None)
        finally:
            self._asking_all = False

    async def _wait_for(self, worker: _Worker) -> bool:
        answer: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
        request = self._ask_where(worker)
        self._positions[request] = answer
        try:
            async with asyncio.timeout(POSITION_TIMEOUT_S):
                position = await answer
                await self._tail.reached(worker.journal_id, position)
        except TimeoutError:
            return False
        finally:
            self._positions.pop(request, None)
        return True

    # --- keeping journals in step ------------------------------------------------------------

    async def _keep_pace(self) -> None:
        """Asks idle workers how far they have come; blocks of the others may wait for that."""
        while True:
            await asyncio.sleep(POLL_S)
            quiet = self._merge.quiet()
            for worker in self._workers.values():
                if worker.welcomed and worker.source in quiet and not worker.asked_where:
                    self._ask_where(worker)
            try:
                self._merge.release()
            except MemoryError as error:  # the block stays where it is
                log.limited("merge", logging.ERROR, "a block waits for memory", error=str(error))

    def _ask_where(self, worker: _Worker) -> int:
        self._request += 1
        worker.asked_where[self._request] = wall_clock_ms()
        worker.channel.send(msg.WhereNow(self._request))
        return self._request

    def _told(self, worker: _Worker, answer: msg.Position) -> None:
        position = answer.epoch, answer.seq
        asked_ms = worker.asked_where.pop(answer.request, None)
        if asked_ms is not None:
            self._merge.came(worker.source, position, asked_ms)
        waiting = self._positions.pop(answer.request, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(position)

    # --- tasks -------------------------------------------------------------------------------

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            level = logging.ERROR
            log.limited("link_task", level, "answering a worker failed", error=str(error))
            if not isinstance(error, TbfastError):
                raise error


def _ignored(devices: list[tuple[int, int]]) -> None:
    """Nobody wants to know."""


def _is_gateway(device: Device) -> bool:
    return (device.additional_info or {}).get("gateway") is True


def _changed_message(change: Change) -> msg.Changed:
    removed = change.kind == "device" and change.op == "deleted"
    closes = change.kind == "credentials" or removed
    return msg.Changed(
        change.revision,
        change.stale_credentials(),
        [change.number] if closes and change.number else [],
        "the device was removed" if removed else "the credentials changed",
        removed,
    )
