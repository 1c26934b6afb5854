"""The MQTT listeners of one worker: drives a session engine per connection.

The reactor calls the handler methods; effects of the engines become calls on the directory and on
the reactor.  Everything here runs on the loop's thread.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Protocol

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.ingest import Group, Ingest
from tbfast._ext.metrics import Slot
from tbfast._ext.reactor import Reactor
from tbfast._ext.tls import TlsStream
from tbfast.codec import x509
from tbfast.engine.mqtt.effects import (
    Abort,
    Ask,
    Authenticate,
    Delivered,
    Finish,
    Listen,
    Refused,
    SessionOpened,
)
from tbfast.engine.mqtt.session import MqttSession
from tbfast.engine.mqtt.settings import Settings, State
from tbfast.errors import PeerError, RateLimited, StoreError
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.model.mqtt import ReasonCode
from tbfast.model.operations import CallServer, Delivery, Notice, Result
from tbfast.model.transport import MqttProfile
from tbfast.net import worker
from tbfast.net.blocks import AddressBlocks
from tbfast.net.flapping import Flapping
from tbfast.net.handshakes import Full, Handshakes
from tbfast.net.strangers import Strangers
from tbfast.net.worker import Commits
from tbfast.obs.log import get_logger

log = get_logger("tbfast.mqtt")

SWEEP_INTERVAL_S = 0.25
NOBODY = 0  # no device has this number; of clients that ask to be registered
_TAKEN_OVER = "a newer session took over"
CALL_MARGIN_S = 5.0  # a call of the server is waited for longer than by the controller


class Directory(Protocol):
    """Who devices are, and who should know about their sessions."""

    def find(
        self,
        client: Presented,
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
    ) -> None: ...
    def session_opened(self, device: int, slot: int, generation: int, at_ms: int) -> None: ...
    def session_closed(self, device: int, slot: int, generation: int) -> None: ...


class Operations(worker.Operations, Protocol):
    """And what sessions say to it."""

    def listen(
        self, device: int, slot: int, generation: int, attributes: bool, rpc: bool, pending: bool
    ) -> None: ...
    def delivered(self, push: int, state: Delivery) -> None: ...


class _Live:
    """An accepted session: what takeover needs to know."""

    __slots__ = ("at_ms", "credentials_id", "device", "generation", "slot")

    def __init__(
        self, device: int, slot: int, generation: int, at_ms: int, credentials_id: str
    ) -> None:
        self.device = device
        self.slot = slot
        self.generation = generation
        self.at_ms = at_ms
        self.credentials_id = credentials_id


class MqttPort:
    """Sessions of one worker's MQTT ports, plain and TLS.

    blocks: None = addresses are never blocked.  proxied: connections begin with the header of a
    proxy.  certificates_expire: whether the validity period of a client's certificate counts.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ingest: Ingest,
        metrics: Slot,
        directory: Directory,
        settings: Settings,
        *,
        operations: Operations,
        call_timeout_ms: int = limits.CALL_TIMEOUT_MS,
        max_connections: int = 1 << 20,
        strangers: Strangers | None = None,
        blocks: AddressBlocks | None = None,
        proxied: bool = False,
        certificates_expire: bool = True,
        flapping: Flapping | None = None,
    ) -> None:
        self._loop = loop
        self._ingest = ingest
        self._metrics = metrics
        self._directory = directory
        self._settings = settings
        self._operations = operations
        self._call_s = call_timeout_ms / 1000 + CALL_MARGIN_S
        self._asked: dict[int, set[int]] = {}  # slot -> its requests that wait for an answer
        self._engines: dict[int, MqttSession] = {}
        self._live: dict[int, _Live] = {}  # by device number
        self._strangers = Strangers() if strangers is None else strangers
        self._admitting = True
        self._handshakes = Handshakes()
        self._blocks = blocks
        self._flapping = Flapping() if flapping is None else flapping
        self._certificates_expire = certificates_expire
        self._resume_scheduled = self._shake_scheduled = False
        self.commits: Commits | None = None
        self.reactor = Reactor(
            ingest,
            self,
            metrics,
            words.ACK,
            max_remaining=settings.max_remaining,
            linger_ms=settings.close_timeout_ms,
            max_connections=max_connections,
        )
        self.reactor.screening = blocks is not None
        self.reactor.proxied = proxied
        loop.add_reader(self.reactor.fileno(), self.reactor.ready)
        self._sweep_timer = loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    # --- called by the reactor ---------------------------------------------------------------

    def opened(self, slot: int) -> None:
        engine = MqttSession(
            slot, self._ingest, self._settings, _random_client_id, self.reactor.mono_ms
        )
        self._engines[slot] = engine
        self.reactor.set_deadline(slot, engine.deadline())
        self._metrics.add(words.CONNECTIONS_MQTT)
        self._strangers.add(slot, self.reactor.address(slot))
        if not self._admitting:
            self._metrics.add(words.MEMORY_SHED)
            self._count("limit")
            self.reactor.abort(slot)
            return
        self._shed(self._strangers.to_close())

    def stranger_sent(self, slot: int, nbytes: int) -> None:
        self._strangers.received(slot, nbytes)
        while (heavy := self._strangers.to_close()) is not None:
            self._shed(heavy)

    def first_to_go(self) -> int | None:
        return self._strangers.first_to_go()

    def make_room(self) -> None:
        self._shed(self._strangers.first_to_go())

    def _shed(self, slot: int | None) -> None:
        """Closes a connection without an accepted CONNECT, because there are too many."""
        if slot is None:
            return
        self._count("limit")
        log.limited(
            "limit", logging.WARNING,
            "too many connections without an accepted CONNECT; the oldest of the address that "
            "has most of them is closed", peer=self.reactor.peer(slot),
        )  # fmt: skip
        self.reactor.abort(slot)

    # --- before the first packet; called by the reactor as well -------------------------------

    def admits(self, slot: int) -> bool:
        """Whether the peer's address may connect."""
        blocked = self._blocks is not None and self._blocks.blocked(
            self.reactor.address(slot), self.reactor.mono_ms
        )
        if blocked:
            self._count("limit")
            log.limited(
                "blocked", logging.INFO, "closed: wrong credentials came from there too often",
                peer=self.reactor.peer(slot),
            )  # fmt: skip
        return not blocked

    def introduced(self, slot: int) -> None:
        self._strangers.remove(slot)
        self._strangers.add(slot, self.reactor.address(slot))
        self._shed(self._strangers.to_close())

    def may_shake(self, slot: int) -> bool:
        address, now = self.reactor.address(slot), self.reactor.mono_ms
        try:
            self._shed(self._handshakes.in_the_way(address, now))
        except Full:
            return False
        self._handshakes.begins(slot, address, now)
        return True

    def waited(self, slot: int, ms: int) -> None:
        engine = self._engines[slot]
        engine.waited(ms)
        self.reactor.set_deadline(slot, engine.deadline())

    def shaken(self, slot: int, stream: TlsStream) -> None:
        self._handshakes.ended(slot)
        self._metrics.add(words.TLS_RESUMED if stream.resumed else words.TLS_FULL)
        try:
            if chain := stream.chain():
                self._engines[slot].certificate = x509.read_chain(chain)
        except PeerError as error:
            self.misled(slot, "auth", str(error))
            self._wrong_credentials(slot)
            self.reactor.finish(slot)

    def shake_later(self) -> None:
        if not self._shake_scheduled:
            self._shake_scheduled = True
            self._loop.call_soon(self._shake)

    def misled(self, slot: int, reason: str, detail: str) -> None:
        self._count(reason)
        log.limited(reason, logging.INFO, detail, peer=self.reactor.peer(slot))

    # --- packets ------------------------------------------------------------------------------

    def received(self, slot: int, view: memoryview) -> None:
        engine = self._engines[slot]
        engine.receive_packet(view, self.reactor.mono_ms)
        self._pump(slot, engine)

    def ended(self, slot: int) -> bool:
        engine = self._engines[slot]
        stays = engine.peer_ended(self.reactor.mono_ms)
        if stays:
            self.reactor.set_deadline(slot, engine.deadline())
        return stays

    def limited(self, slot: int) -> None:
        engine = self._engines[slot]
        engine.limited(self._ingest.limited(), self.reactor.mono_ms)
        self._pump(slot, engine)

    def timed_out(self, slot: int) -> None:
        engine = self._engines[slot]
        engine.timeout(self.reactor.mono_ms)
        self._pump(slot, engine)

    def drained(self, slot: int) -> None:
        if (engine := self._engines.get(slot)) is not None:
            engine.drained(self.reactor.mono_ms)
            self._pump(slot, engine)

    def refused(self, slot: int) -> None:
        if (engine := self._engines.get(slot)) is not None:
            engine.failed(self.reactor.mono_ms)
            self._pump(slot, engine)

    def fault(self, slot: int, error: Exception) -> None:
        log.limited(
            "fault", logging.ERROR, "serving a connection failed; it is closed",
            peer=self.reactor.peer(slot), error=repr(error), exc_info=error,
        )  # fmt: skip

    def closed(self, slot: int, reason: str) -> None:
        engine = self._engines.pop(slot)
        for request in self._asked.pop(slot, ()):
            self._operations.drop(request)
        self._strangers.remove(slot)
        self._handshakes.ended(slot)
        self._metrics.subtract(words.CONNECTIONS_MQTT)
        if reason == "slow_consumer":
            self._count("slow_consumer")
            log.limited(
                "slow_consumer", logging.WARNING, "peer does not read its answers; closed",
                device=engine.credentials.device_name if engine.credentials else None,
            )  # fmt: skip
        self._forget_session(engine)

    def group_full(self) -> None:
        assert self.commits is not None
        self.commits.commit()

    def turn_ended(self) -> None:
        assert self.commits is not None
        self.commits.turn_ended()

    def resume_later(self) -> None:
        if not self._resume_scheduled:
            self._resume_scheduled = True
            self._loop.call_soon(self._resume)

    def accept_paused(self) -> None:
        log.limited(
            "descriptors", logging.WARNING,
            "no file descriptor is left: new connections wait; raise the limit (ulimit -n)",
        )  # fmt: skip

    # --- called by the commit path -----------------------------------------------------------

    def complete(self, group: Group) -> None:
        """The group is durable: its answers go out."""
        self.reactor.complete(group)

    def fail(self, group: Group, error: StoreError) -> None:
        """The group was not stored."""
        self.reactor.fail(group)

    def press(self, on: bool) -> None:
        """Back-pressure on or off."""
        self.reactor.press(on)

    # --- scarce memory -----------------------------------------------------------------------

    def admit(self, on: bool) -> None:
        """Whether new connections are accepted; while not, they and all strangers are closed."""
        self._admitting = on
        while not on and (slot := self._strangers.first_to_go()) is not None:
            self._metrics.add(words.MEMORY_SHED)
            self._shed(slot)

    def drop_unread(self) -> int:
        """Closes connections whose answers are not read; how many."""
        return self.reactor.drop_unread()

    # --- engines -----------------------------------------------------------------------------

    def _pump(self, slot: int, engine: MqttSession) -> None:
        """Carries out what the engine wants; output goes first, closing last."""
        for effect in engine.effects():
            match effect:
                case Authenticate(client):
                    self._identify(slot, engine, client)
                case SessionOpened(credentials):
                    self._session_opened(slot, engine, credentials)
                case Refused(reason, detail, limit):
                    self._count(reason)
                    if limit is not None:
                        self._metrics.add(words.RATE_LIMITED + limit)
                    log.limited(
                        reason, logging.INFO, detail, peer=self.reactor.peer(slot),
                        device=engine.credentials.device_name if engine.credentials else None,
                    )  # fmt: skip
                case Ask():
                    self._ask(slot, engine, effect)
                case Listen(attributes, rpc, pending):
                    self._listen(slot, engine, attributes, rpc, pending)
                case Delivered(push, state):
                    self._operations.delivered(push, state)
                case Finish():
                    self._send(slot, engine)
                    self._forget_session(engine)
                    self.reactor.finish(slot)
                    return
                case Abort():
                    self._forget_session(engine)
                    self.reactor.abort(slot)
                    return
        self._send(slot, engine)
        self.reactor.set_deadline(slot, engine.deadline())

    def _send(self, slot: int, engine: MqttSession) -> None:
        if data := engine.output():
            self.reactor.send(slot, data)

    def _identify(
        self, slot: int, engine: MqttSession, client: Presented, *, late: bool = False
    ) -> None:
        """late: the device connects too often and has waited for it."""
        assert self.commits is not None
        if self.commits.stalled:  # a session more would only wait, and come again (promises 8)
            engine.busy(self.reactor.mono_ms)
            self._pump(slot, engine)
            return
        expired = "the client certificate is outside its validity period"
        if (
            self._certificates_expire
            and client.certificate is not None
            and not client.certificate.valid_at(self.reactor.wall_ms)
        ):
            self._authenticated(slot, engine, None, expired)
            return

        def found(credentials: StoredCredentials | None) -> None:
            if late or credentials is None or not self._postpone(slot, engine, client, credentials):
                self._authenticated(slot, engine, credentials)

        self._directory.find(client, found, lambda: self._unavailable(slot, engine))

    def _postpone(
        self, slot: int, engine: MqttSession, client: Presented, who: StoredCredentials
    ) -> bool:
        """Whether a device that connects again and again has to wait for its answer."""
        wait_ms, say = self._flapping.connects(who.device, self.reactor.mono_ms)
        if say:
            log.warning(
                "a device connects again and again; it is let in late",
                device=who.device_name, peer=self.reactor.peer(slot),
            )  # fmt: skip
        if wait_ms:
            self._metrics.add(words.FLAPPING)
            self._loop.call_later(wait_ms / 1000, lambda: self._late(slot, engine, client))
        return wait_ms > 0

    def _late(self, slot: int, engine: MqttSession, client: Presented) -> None:
        if self._engines.get(slot) is engine:
            self._identify(slot, engine, client, late=True)

    def _authenticated(
        self,
        slot: int,
        engine: MqttSession,
        found: StoredCredentials | None,
        why: str = "credentials are not known",
    ) -> None:
        if self._engines.get(slot) is not engine:
            return
        self.reactor.tick()
        if found is None:
            self._wrong_credentials(slot)
        engine.authenticated(found, self.reactor.mono_ms, why)
        self._pump(slot, engine)
        if not self._ingest.group.empty:
            # Early PUBLISHes are in it, and the reactor may have no turn of its own for a while.
            self._loop.call_soon(self._end_turn)

    def _wrong_credentials(self, slot: int) -> None:
        if self._blocks is not None and self._blocks.failed(
            self.reactor.address(slot), self.reactor.mono_ms
        ):
            log.limited(
                "block", logging.WARNING, "wrong credentials too often: the address is blocked",
                peer=self.reactor.peer(slot),
            )  # fmt: skip

    def _end_turn(self) -> None:
        if not self._ingest.group.empty:
            self.turn_ended()

    def _unavailable(self, slot: int, engine: MqttSession) -> None:
        if self._engines.get(slot) is engine:
            engine.auth_unavailable(self.reactor.mono_ms)
            self._pump(slot, engine)

    # --- operations --------------------------------------------------------------------------

    def _ask(self, slot: int, engine: MqttSession, effect: Ask) -> None:
        waits = self._asked.setdefault(slot, set())

        def done(result: Result) -> None:
            waits.discard(request)
            if not waits:
                self._asked.pop(slot, None)
            self.reactor.tick()
            engine.answered(effect, result, self.reactor.mono_ms)
            self._pump(slot, engine)

        calls = isinstance(effect.operation, CallServer)
        who = engine.credentials
        request = self._operations.ask(
            NOBODY if who is None else who.device,
            effect.operation,
            done,
            timeout_s=self._call_s if calls else None,
        )
        waits.add(request)

    def _listen(
        self, slot: int, engine: MqttSession, attributes: bool, rpc: bool, pending: bool
    ) -> None:
        assert engine.credentials is not None
        generation = self._ingest.generation(slot)
        device = engine.credentials.device
        self._operations.listen(device, slot, generation, attributes, rpc, pending)

    def notified(self, device: int, slot: int, generation: int, notice: Notice, push: int) -> None:
        """The controller tells a session something."""
        live = self._live.get(device)
        if live is None or (live.slot, live.generation) != (slot, generation):
            self._operations.delivered(push, "dropped")
            return
        engine = self._engines[slot]
        self.reactor.tick()
        engine.notify(notice, push, self.reactor.mono_ms)
        self._pump(slot, engine)

    # --- sessions ----------------------------------------------------------------------------

    def _session_opened(self, slot: int, engine: MqttSession, who: StoredCredentials) -> None:
        self._strangers.remove(slot)
        self.reactor.accepted(slot)
        if self._blocks is not None:
            self._blocks.succeeded(self.reactor.address(slot))
        older = self._live.get(who.device)
        live = _Live(
            who.device,
            slot,
            self._ingest.generation(slot),
            self.reactor.mono_ms,
            who.credentials_id,
        )
        self._live[who.device] = live
        self._metrics.put(words.SESSIONS_MQTT, len(self._live))
        if older is not None:
            self._shut(older.slot, ReasonCode.SESSION_TAKEN_OVER, _TAKEN_OVER)
        self._directory.session_opened(live.device, slot, live.generation, live.at_ms)

    def _forget_session(self, engine: MqttSession) -> None:
        who = engine.credentials
        if who is None:
            return
        live = self._live.get(who.device)
        if live is not None and live.slot == engine.slot:
            del self._live[live.device]
            self._metrics.put(words.SESSIONS_MQTT, len(self._live))
            self._directory.session_closed(live.device, live.slot, live.generation)
            with contextlib.suppress(RateLimited):  # counts as a message, and cannot be refused
                self._ingest.spend(who.device, who.scope)

    def _shut(self, slot: int, code: ReasonCode, reason: str) -> None:
        engine = self._engines.get(slot)
        if engine is not None:
            engine.shutdown(code, reason, self.reactor.mono_ms)
            self._pump(slot, engine)

    def active_since(self, since_ms: int) -> list[tuple[int, int]]:
        """(device, when) of those that did something since then of which no row tells."""
        engines = self._engines
        found = ((d, engines[live.slot].last_ms) for d, live in self._live.items())
        return [
            *((device, at_ms) for device, at_ms in found if at_ms >= since_ms),
            *self._ingest.take_quiet(),  # of HTTP too
        ]

    def open_sessions(self) -> list[tuple[int, int, int, int, bool, bool]]:
        """(device, slot, generation, accepted at ms, listens to attributes, to calls) of each."""
        return [
            (s.device, s.slot, s.generation, s.at_ms, *self._engines[s.slot].listens)
            for s in self._live.values()
        ]

    def open_credentials(self) -> list[str]:
        """Credentials ids that open sessions were accepted with."""
        return [s.credentials_id for s in self._live.values()]

    def close_device(self, device: int, reason: str, *, removed: bool) -> None:
        """The device was removed or its credentials changed."""
        if (live := self._live.get(device)) is not None:
            if removed:
                self._wrong_credentials(live.slot)
            self._shut(live.slot, ReasonCode.ADMINISTRATIVE_ACTION, reason)

    def taken_over(self, device: int, slot: int, generation: int) -> None:
        """A newer session of the device is open on another worker."""
        self._shut_same(device, slot, generation, ReasonCode.SESSION_TAKEN_OVER, _TAKEN_OVER)

    def unresponsive(self, device: int, slot: int, generation: int) -> None:
        """The device does not acknowledge calls (MQTT spec 5.1)."""
        why = "a call was not acknowledged"
        self._shut_same(device, slot, generation, ReasonCode.ADMINISTRATIVE_ACTION, why)

    def _shut_same(
        self, device: int, slot: int, generation: int, code: ReasonCode, reason: str
    ) -> None:
        live = self._live.get(device)
        if live is not None and (live.slot, live.generation) == (slot, generation):
            self._shut(slot, code, reason)

    def rechecked(self, credentials_id: str, found: StoredCredentials | None) -> None:
        """What the registry holds under these credentials now; None = they let nobody in."""
        for live in [s for s in self._live.values() if s.credentials_id == credentials_id]:
            was = self._engines[live.slot].credentials
            if found is None or was is None or not _same_secret(found, was):
                self._shut(live.slot, ReasonCode.ADMINISTRATIVE_ACTION, "credentials were revoked")
            else:
                self._engines[live.slot].profile_changed(found.mqtt)

    def profile_changed(self, profile: str, mqtt: MqttProfile) -> None:
        """Sessions of that profile go by these settings from the next packet on."""
        for live in self._live.values():
            engine = self._engines[live.slot]
            if engine.credentials is not None and engine.credentials.profile == profile:
                engine.profile_changed(mqtt)

    # --- time and the end --------------------------------------------------------------------

    def _sweep(self) -> None:
        self.reactor.sweep()
        self._sweep_timer = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    def _resume(self) -> None:
        self._resume_scheduled = False
        self.reactor.resume()

    def _shake(self) -> None:
        self._shake_scheduled = False
        self.reactor.shake()

    def _count(self, reason: str) -> None:
        self._metrics.add(words.REFUSED_MQTT + getattr(words, f"REASON_{reason.upper()}"))

    def shut_all(self) -> None:
        """Graceful stop: every session hears "server shutting down" after its last answers."""
        self.reactor.stop_listening()
        for slot in list(self._engines):
            self._shut(slot, ReasonCode.SERVER_SHUTTING_DOWN, "the server is stopping")

    def close(self) -> None:
        """Drops what is left."""
        self._sweep_timer.cancel()
        self.reactor.close_all()
        self._loop.remove_reader(self.reactor.fileno())

    @property
    def draining(self) -> int:
        """Connections whose engine has not ended yet."""
        return sum(e.state is not State.CLOSED for e in self._engines.values())


def _same_secret(a: StoredCredentials, b: StoredCredentials) -> bool:
    return (a.device, a.type, a.value) == (b.device, b.type, b.value)


def _random_client_id() -> str:
    return "tbfast-" + secrets.token_hex(8)
