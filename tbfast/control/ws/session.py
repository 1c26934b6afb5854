"""One WebSocket connection: who it is, its subscriptions, its bounded way out (REST spec 14).

Commands are carried out one after the other; a long read delays only its own connection.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from starlette.websockets import WebSocket, WebSocketDisconnect

from tbfast import limits
from tbfast.control.queries import EntityQueries
from tbfast.control.rest.callers import Caller, Gate, Scheme
from tbfast.control.rest.errors import TOKEN_EXPIRED, RestError
from tbfast.control.services import Services
from tbfast.control.ws import entities, updates
from tbfast.control.ws import messages as msg
from tbfast.control.ws.counts import CountSubscription
from tbfast.control.ws.entities import EntitySubscription
from tbfast.control.ws.history import Histories, History, Points
from tbfast.control.ws.watches import EARLY_BYTES, Watch, Watches
from tbfast.errors import NotFound, PeerError, TbfastError
from tbfast.model.device import Change, Device
from tbfast.obs.log import get_logger
from tbfast.store.attributes import SCOPES, Scope

log = get_logger("tbfast.websocket")

AUTH_TIMEOUT_S: Final = 10.0
NOT_THERE: Final = "Device with requested id wasn't found!"
CLOSE_S: Final = 1.0
NORMAL: Final = 1000  # close codes of RFC 6455 7.4.1
NO_POLICY: Final = 1008
BAD_DATA: Final = 1007
NOT_TEXT: Final = 1003
INTERNAL: Final = 1011

# Changes after which somebody who was let in may have to go: logouts are of the kind "node".
_ACCOUNT_KINDS: Final = frozenset({"user", "api_key", "node", "customer"})


class _Refused(Exception):
    """The connection ends with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Session:
    """One connection, from accept to close."""

    def __init__(
        self,
        websocket: WebSocket,
        services: Services,
        histories: Histories,
        watches: Watches,
        gate: Gate,
    ) -> None:
        self._websocket = websocket
        self._services = services
        self._histories = histories
        self._watches = watches
        self._gate = gate
        self._caller: Caller | None = None
        self._shown: tuple[Scheme, str] | None = None  # what let the caller in
        self._stops: dict[int, Callable[[], None]] = {}  # by cmdId
        self._watched: dict[int, str] = {}  # cmdId to id of the device
        self._doubtful = asyncio.Event()
        self._dubious: set[str] | None = set()  # ids of devices that may be hidden; None: any
        self._entities: dict[int, EntitySubscription] = {}  # by cmdId; each is in _stops too
        self._counts: dict[int, CountSubscription] = {}  # likewise
        self._out: deque[bytes] = deque()
        self._out_bytes = 0
        self._wake = asyncio.Event()
        self._taken = asyncio.Event()  # the socket took a message
        self._too_slow = asyncio.Event()

    async def run(self) -> None:
        """Serves it until either side ends it."""
        await self._websocket.accept()
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._receive_all(),
                self._send_all(),
                self._until_too_slow(),
                self._until_revoked(),
            )
        ]
        code, reason = NORMAL, ""
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        except _Refused as refusal:
            code, reason = refusal.code, str(refusal)
        except WebSocketDisconnect:
            return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._unsubscribe(0, everything=True)
        # A client that reads nothing is cut off by the protocol a little later.
        with contextlib.suppress(TimeoutError, RuntimeError, WebSocketDisconnect):
            async with asyncio.timeout(CLOSE_S):
                await self._websocket.close(code, reason)

    # --- in ------------------------------------------------------------------------------

    async def _receive_all(self) -> None:
        try:
            async with asyncio.timeout(AUTH_TIMEOUT_S):
                self._caller, commands = await self._authenticated()
        except TimeoutError as error:
            raise _Refused(NO_POLICY, "Auth timeout") from error
        while True:
            for command in commands:
                await self._carry_out(self._caller, command)
            commands = (await self._message()).commands

    async def _authenticated(self) -> tuple[Caller, list[msg.Command]]:
        """The caller by query parameter, header or first message, and what came with it."""
        token = self._websocket.query_params.get("token")
        if token:
            return await self._by_secret("Bearer", token, INTERNAL), []
        self._shown = self._gate.shown(self._websocket)
        if self._shown is not None:
            # One that is not valid is as none: the first message tells.
            with contextlib.suppress(RestError):
                return await self._gate.by_secret(*self._shown), []
        message = await self._message()
        auth = message.auth
        if auth is None:
            raise _Refused(NO_POLICY, "Auth cmd is missing")
        if auth.api_key:
            caller = await self._by_secret("ApiKey", auth.api_key, BAD_DATA)
        else:
            caller = await self._by_secret("Bearer", auth.token or "", BAD_DATA)
        return caller, message.commands

    async def _by_secret(self, scheme: Scheme, secret: str, expired: int) -> Caller:
        self._shown = scheme, secret  # before it is looked at: a change meanwhile must be seen
        try:
            return await self._gate.by_secret(scheme, secret)
        except RestError as error:
            old = error.error_code == TOKEN_EXPIRED and not await self._gate.revoked(scheme, secret)
            code = expired if old else BAD_DATA
            raise _Refused(code, str(error)) from error

    async def _message(self) -> msg.Incoming:
        """The next message; one that is none is answered and skipped."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(received.get("code", 1000))
            text = received.get("text")
            if text is None:
                raise _Refused(NOT_TEXT, "only text is understood")
            try:
                return msg.parse(text)
            except PeerError as error:
                self.send(updates.failure(0, updates.BAD_REQUEST, str(error)))

    # --- out -----------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Queues a message; at the bound the connection is closed, for its client is too slow."""
        full = len(self._out) >= limits.WS_QUEUE_MESSAGES
        if full or self._out_bytes + len(text) > limits.WS_QUEUE_BYTES:
            self._too_slow.set()
        else:
            self._out.append(text)
            self._out_bytes += len(text)
            self._wake.set()

    async def _answer(self, text: bytes) -> None:
        """Queues what a command asked for as soon as there is room: readers may take their time.

        PeerError for what never has room.
        """
        most = limits.WS_QUEUE_BYTES
        if len(text) > most:
            raise PeerError(
                f"the answer has {len(text)} bytes, more than {most}; ask for fewer keys or points",
                code=updates.BAD_REQUEST,
            )
        while self._out and self._out_bytes + len(text) > most:
            self._taken.clear()
            await self._taken.wait()
        self.send(text)

    async def _send_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._out:
                text = self._out[0]  # counts until the socket has taken it
                await self._websocket.send_text(text.decode())
                self._out.popleft()
                self._out_bytes -= len(text)
                self._taken.set()

    async def _until_too_slow(self) -> None:
        await self._too_slow.wait()
        log.limited("slow", logging.WARNING, "a client that reads too slowly was closed")
        raise _Refused(NO_POLICY, "the client reads too slowly")

    # --- what was allowed and may be no longer --------------------------------------------

    def changed(self, change: Change) -> None:
        """Something in the registry is different now."""
        if change.kind in ("device", "credentials") and self._concerned(change.id):
            if self._dubious is not None:
                self._dubious.add(change.id)
                if len(self._dubious) > limits.WS_ENTITIES:
                    self._dubious = None
            self._doubtful.set()
        elif change.kind in _ACCOUNT_KINDS:
            self._doubtful.set()
        for count in self._counts.values():
            count.changed(change)

    def _concerned(self, device_id: str) -> bool:
        return device_id in self._watched.values() or any(
            held.concerns(device_id) for held in self._entities.values()
        )

    async def _until_revoked(self) -> None:
        while True:
            await self._doubtful.wait()
            self._doubtful.clear()
            if self._shown is not None and await self._gate.revoked(*self._shown):
                raise _Refused(NO_POLICY, "Session is over")
            if self._caller is not None:
                await self._drop_hidden(self._caller)
            await asyncio.sleep(limits.WS_CHECK_MS / 1000)  # many changes at once are one look

    async def _drop_hidden(self, caller: Caller) -> None:
        """Ends what is told of devices that are gone, or that the caller does not see any more."""
        dubious, self._dubious = self._dubious, set()
        for cmd_id, device_id in list(self._watched.items()):
            if dubious is not None and device_id not in dubious:
                continue
            if await self._sees(caller, device_id):
                continue
            if self._watched.get(cmd_id) == device_id:
                self._unsubscribe(cmd_id)
                self.send(updates.failure(cmd_id, updates.UNAUTHORIZED, NOT_THERE))
        for cmd_id, held in list(self._entities.items()):
            try:
                await held.drop_hidden(dubious)
            except TbfastError as error:
                self._failed(msg.WatchEntities(cmd_id=cmd_id), error)

    async def _sees(self, caller: Caller, device_id: str) -> bool:
        try:
            return caller.sees(await self._services.registry.device(device_id))
        except NotFound:
            return False

    # --- commands ------------------------------------------------------------------------

    async def _carry_out(self, caller: Caller, command: msg.Command) -> None:
        try:
            match command:
                case msg.WatchSeries() | msg.WatchAttributes() if command.unsubscribe:
                    self._unsubscribe(command.cmd_id, everything=not command.entity_id)
                case msg.Unsubscribe():
                    self._unsubscribe(command.cmd_id)
                case msg.WatchSeries() | msg.WatchAttributes():
                    await self._watch(await self._device(caller, command), command)
                case msg.ReadHistory():
                    device = await self._device(caller, command)
                    _, text = await self._history(device, command, command.end_ts)
                    await self._answer(text)
                case msg.WatchEntities():
                    await self._watch_entities(caller, command)
                case msg.CountEntities():
                    await self._count_entities(caller, command)
                case _:
                    raise PeerError("commands of this type are not served", code=2)
        except TbfastError as error:
            self._failed(command, error)

    def _failed(self, command: msg.Command, error: TbfastError) -> None:
        code, message = error.code or updates.BAD_REQUEST, str(error)
        if not isinstance(error, PeerError):
            log.limited("command", logging.ERROR, "a command failed", error=message)
            code = updates.INTERNAL
        match command:
            case msg.WatchEntities():
                self.send(entities.failure(command.cmd_id, code, message, "ENTITY_DATA"))
            case msg.CountEntities():
                self.send(entities.failure(command.cmd_id, code, message, "COUNT_DATA"))
            case _:
                self.send(updates.failure(command.cmd_id, code, message))

    async def _device(
        self, caller: Caller, command: "msg.WatchSeries | msg.WatchAttributes | msg.ReadHistory"
    ) -> Device:
        if not command.entity_id:
            raise PeerError("entityId is missing", code=updates.BAD_REQUEST)
        if command.entity_type not in (None, "DEVICE"):
            raise PeerError("only devices can be watched", code=updates.BAD_REQUEST)
        try:
            device = await self._services.registry.device(command.entity_id.lower())
        except NotFound:
            device = None
        if device is None or not caller.sees(device):
            raise PeerError(NOT_THERE, code=updates.UNAUTHORIZED)
        return device

    def _make_room(self, cmd_id: int) -> None:
        """A new subscription takes the place of one with its number."""
        self._unsubscribe(cmd_id)
        if len(self._stops) >= limits.WS_SUBSCRIPTIONS:
            raise _Refused(NO_POLICY, "Max subscriptions limit reached")

    def _start(
        self, device: Device, command: msg.WatchSeries | msg.WatchAttributes, room: int = 0
    ) -> Watch:
        self._make_room(command.cmd_id)
        cmd_id = command.cmd_id
        self._watched[cmd_id] = device.id
        return Watch(
            command.names, lambda values: self.send(updates.update(cmd_id, values.items())), room
        )

    def _unsubscribe(self, cmd_id: int, *, everything: bool = False) -> None:
        for known in list(self._stops) if everything else [cmd_id]:
            self._watched.pop(known, None)
            self._entities.pop(known, None)
            self._counts.pop(known, None)
            if (stop := self._stops.pop(known, None)) is not None:
                stop()

    async def _watch(self, device: Device, command: msg.WatchSeries | msg.WatchAttributes) -> None:
        try:
            match command:
                case msg.WatchSeries():
                    await self._watch_series(device, command)
                case msg.WatchAttributes():
                    await self._watch_attributes(device, command)
        except TbfastError:
            self._unsubscribe(command.cmd_id)
            raise

    async def _watch_series(self, device: Device, command: msg.WatchSeries) -> None:
        watch = self._start(device, command, EARLY_BYTES if command.time_window > 0 else 0)
        self._stops[command.cmd_id] = self._watches.watch_series(device.number, watch)
        if command.time_window > 0:
            end_ms = command.start_ts + command.time_window
            newest, text = await self._history(device, command, end_ms)
        else:
            latest = await self._services.series.latest(device.number, command.names)
            newest = updates.points_of(latest)
            text = updates.update(command.cmd_id, newest.items())
        await self._begin(command.cmd_id, watch, newest, text)

    async def _history(
        self, device: Device, command: msg.WatchSeries | msg.ReadHistory, end_ms: int
    ) -> tuple[Points, bytes]:
        """The newest point of each key, and the answer with all of them."""
        wanted = History(
            command.names, command.start_ts, end_ms, 0, command.interval, command.limit, command.agg
        )

        def made(found: Points) -> tuple[Points, bytes]:
            newest = {key: [max(points)] for key, points in found.items()}
            return newest, updates.update(command.cmd_id, found.items())

        return await self._histories.read(device.number, wanted, made)

    async def _watch_entities(self, caller: Caller, command: msg.WatchEntities) -> None:
        held = self._entities.get(command.cmd_id)
        if held is None:
            self._make_room(command.cmd_id)
            held = EntitySubscription(
                command.cmd_id,
                caller,
                self._services,
                self._histories,
                self._watches,
                self.send,
                self._answer,
            )
            self._entities[command.cmd_id] = held
            self._stops[command.cmd_id] = held.stop
        await held.carry_out(command)

    async def _count_entities(self, caller: Caller, command: msg.CountEntities) -> None:
        self._make_room(command.cmd_id)
        counted = CountSubscription(
            command.cmd_id,
            caller,
            EntityQueries(
                self._services.registry, self._services.series, self._services.attributes
            ),
            self.send,
            lambda error: self._failed(command, error),
        )
        self._counts[command.cmd_id] = counted
        self._stops[command.cmd_id] = counted.stop
        await counted.carry_out(command)

    async def _watch_attributes(self, device: Device, command: msg.WatchAttributes) -> None:
        scope = command.scope or None
        if scope is not None and scope not in SCOPES:
            raise PeerError(f"Invalid scope: {scope[:32]}", code=updates.BAD_REQUEST)
        wanted: Scope | None = scope
        watch = self._start(device, command)
        self._stops[command.cmd_id] = self._watches.watch_attributes(device.number, wanted, watch)
        scopes = SCOPES if wanted is None else (wanted,)
        found = await self._services.attributes.read(device.number, scopes, command.names)
        values = {a.name: [(a.ts_ms, a.text)] for a in found}
        text = updates.update(command.cmd_id, values.items())
        await self._begin(command.cmd_id, watch, values, text)

    async def _begin(self, cmd_id: int, watch: Watch, values: Points, text: bytes) -> None:
        """Tells the first values, unless the device went while they were read."""
        if cmd_id in self._stops:
            await self._answer(text)
        if cmd_id in self._stops:
            watch.begin(values)
