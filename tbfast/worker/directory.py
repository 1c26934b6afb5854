"""Who devices are, as far as this worker knows, and the worker's end of the link.

Answers of the controller are cached by credentials id, refusals included; every registry change
names the ids it touches.  While the controller is away, what is cached still answers; what is not
waits, at most the time it is given and `LOOKUP_TIMEOUT_S`, holding up only the connection that
asked.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from tbfast import limits
from tbfast.errors import StoreFull, StoreStall, TbfastError
from tbfast.link import messages as msg
from tbfast.link.channel import Channel
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.model.transport import DEFAULT_MQTT, MqttProfile
from tbfast.obs.log import get_logger
from tbfast.ops.auth import Lookup, candidate_ids, identify
from tbfast.store.journal import Journal, Position
from tbfast.worker.feed import BlockFeed
from tbfast.worker.operations import Operations

log = get_logger("tbfast.directory")

LOOKUP_TIMEOUT_S = 5.0  # well within MQTT_CONNECT_TIMEOUT_MS, which would end it unanswered
KNOWN_CREDENTIALS = 200_000  # cached positive answers, oldest forgotten
UNKNOWN_CREDENTIALS = 20_000  # cached refusals, oldest forgotten


class Sessions(Protocol):
    """The sessions of this worker: tbfast.net.mqtt.MqttPort."""

    def open_sessions(self) -> list[tuple[int, int, int, int, bool, bool]]: ...
    def open_credentials(self) -> list[str]: ...
    def close_device(self, device: int, reason: str, *, removed: bool) -> None: ...
    def active_since(self, since_ms: int) -> list[tuple[int, int]]: ...
    def taken_over(self, device: int, slot: int, generation: int) -> None: ...
    def unresponsive(self, device: int, slot: int, generation: int) -> None: ...
    def rechecked(self, credentials_id: str, found: StoredCredentials | None) -> None: ...
    def profile_changed(self, profile: str, mqtt: MqttProfile) -> None: ...


class Polls(Protocol):
    """Requests of devices that wait without a session: tbfast.net.http_device.DeviceApi."""

    def close_device(self, device: int, *, removed: bool) -> None: ...


class _Pending:
    """One client whose credentials are being looked up."""

    __slots__ = ("chain", "decide", "done", "expires", "ids", "unavailable")

    def __init__(
        self,
        ids: list[str],
        decide: Callable[[Lookup], StoredCredentials | None],
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
        expires: float,
        chain: tuple[bytes, ...],
    ) -> None:
        self.ids = ids
        self.chain = chain
        self.decide = decide
        self.done = done
        self.unavailable = unavailable
        self.expires = expires


class Directory:
    """Credentials cache and link peer of one worker."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        worker: int,
        journal: Journal,
        feed: BlockFeed,
        operations: Operations,
        *,
        timeout_s: float = LOOKUP_TIMEOUT_S,
    ) -> None:
        self._loop = loop
        self._timeout_s = min(timeout_s, LOOKUP_TIMEOUT_S)
        self._operations = operations
        self._worker = worker
        self._journal = journal
        self._feed = feed
        self._channel: Channel | None = None
        self._welcomed = False
        self._revision = 0
        self._known: dict[str, StoredCredentials] = {}
        self._unknown: dict[str, None] = {}
        self._profiles: dict[str, MqttProfile] = {}  # as many as are not all defaults
        self._pending: dict[int, _Pending] = {}  # bounded: the rest hears "try later"
        self._rechecks: dict[int, str] = {}
        self._request = 0
        self._reported_ms = 0
        self.sessions: Sessions | None = None
        self.polls: Polls | None = None

    # --- credentials -------------------------------------------------------------------------

    def find(
        self,
        client: Presented,
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
    ) -> None:
        """Calls `done` with the credentials that accept the client, at once if they are cached."""
        ids = candidate_ids(client)
        if client.certificate is not None and ids[0] not in self._known:
            # Also if it was refused before: profiles that provision it may have come since.
            chain = client.certificate.chain
            self._look_up(ids, partial(identify, client), done, unavailable, chain)
        elif all(i in self._known or i in self._unknown for i in ids):
            done(identify(client, self._known.get))
        elif not self._welcomed and (found := self._cached_token(client)) is not None:
            # Only the refusal of the composite id is unknown: a token we know lets in.
            done(found)
        else:
            self._look_up(ids, partial(identify, client), done, unavailable)

    def token(self, token: str) -> StoredCredentials | None:
        """The credentials of an access token, if they are cached."""
        return _accept_token(token, self._known.get)

    def find_token(
        self,
        token: str,
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
    ) -> None:
        """As `find`, for a protocol that presents nothing but an access token."""
        if token in self._known or token in self._unknown:
            done(self.token(token))
        else:
            self._look_up([token], partial(_accept_token, token), done, unavailable)

    def _look_up(
        self,
        ids: list[str],
        decide: Callable[[Lookup], StoredCredentials | None],
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
        chain: tuple[bytes, ...] = (),
    ) -> None:
        if len(self._pending) >= limits.UNAUTHENTICATED_CONNECTIONS:
            unavailable()
            return
        self._request += 1
        expires = self._loop.time() + self._timeout_s
        pending = _Pending(ids, decide, done, unavailable, expires, chain)
        self._pending[self._request] = pending
        if self._welcomed:
            self._ask(self._request, pending)

    def _cached_token(self, client: Presented) -> StoredCredentials | None:
        return None if client.certificate is not None else self.token(client.user_name or "")

    def _ask(self, request: int, pending: _Pending) -> None:
        assert self._channel is not None
        self._channel.send(msg.Lookup(request, pending.ids, pending.chain))

    def _found(self, answer: msg.Found) -> None:
        credentials = [self._with_profile(found) for found in answer.credentials]
        if (recheck := self._rechecks.pop(answer.request, None)) is not None:
            self._learn([recheck], credentials)
            if self.sessions is not None:
                self.sessions.rechecked(recheck, credentials[0])
            return
        pending = self._pending.pop(answer.request, None)
        if pending is None:
            return
        self._learn(pending.ids, credentials)
        fresh = dict(zip(pending.ids, credentials, strict=True))
        pending.done(pending.decide(fresh.get))

    def _with_profile(self, found: StoredCredentials | None) -> StoredCredentials | None:
        """The same object of settings for all devices of a profile."""
        mqtt = self._profiles.get(found.profile) if found is not None else None
        if found is None or mqtt is None:
            return found
        return msgspec.structs.replace(found, mqtt=mqtt)

    def _profile(self, profile: str, mqtt: MqttProfile | None) -> None:
        """Sessions and what is cached go by the new settings at once (MQTT spec 1.7)."""
        if mqtt is None or mqtt == DEFAULT_MQTT:
            mqtt = DEFAULT_MQTT
            self._profiles.pop(profile, None)
        else:
            self._profiles[profile] = mqtt
        for credentials_id, known in self._known.items():
            if known.profile == profile:
                self._known[credentials_id] = msgspec.structs.replace(known, mqtt=mqtt)
        if self.sessions is not None:
            self.sessions.profile_changed(profile, mqtt)

    def _learn(self, ids: list[str], credentials: list[StoredCredentials | None]) -> None:
        for credentials_id, found in zip(ids, credentials, strict=True):
            if found is not None:
                self._unknown.pop(credentials_id, None)
                self._known[credentials_id] = found
                if len(self._known) > KNOWN_CREDENTIALS:
                    del self._known[next(iter(self._known))]
            else:
                self._known.pop(credentials_id, None)
                self._unknown[credentials_id] = None
                if len(self._unknown) > UNKNOWN_CREDENTIALS:
                    del self._unknown[next(iter(self._unknown))]

    def expire(self) -> None:
        """Gives up on lookups that nobody answered; called a few times a second."""
        now = self._loop.time()
        for request in [r for r, p in self._pending.items() if p.expires <= now]:
            self._pending.pop(request).unavailable()

    # --- sessions ----------------------------------------------------------------------------

    def session_opened(self, device: int, slot: int, generation: int, at_ms: int) -> None:
        """Tells the controller, which ends older sessions of the device on other workers."""
        if self._channel is not None:
            self._channel.send(msg.SessionOpened(msg.OpenSession(device, slot, generation, at_ms)))

    def report_activity(self) -> None:
        """Tells which sessions were active since the last report; called every few seconds."""
        if self._channel is not None and self.sessions is not None:
            since_ms, self._reported_ms = self._reported_ms, int(self._loop.time() * 1000)
            devices = self.sessions.active_since(since_ms)
            if devices:
                self._channel.send(msg.Active(devices))

    def session_closed(self, device: int, slot: int, generation: int) -> None:
        """The session has ended."""
        if self._channel is not None:
            self._channel.send(msg.SessionClosed(device, slot, generation))

    # --- the link ----------------------------------------------------------------------------

    def channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        again = self._operations.introduced(channel)
        sessions = self.sessions.open_sessions() if self.sessions is not None else []
        channel.send(
            msg.Hello(
                msg.LINK_VERSION,
                self._worker,
                self._journal.journal_id,
                os.getpid(),
                self._journal.epoch,
                self._revision,
                [msg.OpenSession(*s, again=again.get(s[0]) == (s[1], s[2])) for s in sessions],
            )
        )
        for definitions in self._journal.definitions():
            channel.send(msg.KeyTable(definitions.epoch, definitions.first, definitions.defs))

    def channel_closed(self, channel: Channel) -> None:
        self._channel = None
        self._welcomed = False
        self._feed.stop()
        self._operations.unlinked()

    def block(self, channel: Channel, block: bytes) -> None:
        raise TbfastError("the controller sent a block")

    def message(self, channel: Channel, message: msg.Message) -> None:
        match message:
            case msg.Found():
                self._found(message)
            case msg.Credit(nbytes):
                self._feed.add_credit(nbytes)
            case msg.Changed():
                self._changed(message)
            case msg.Profile(profile, mqtt):
                self._profile(profile, mqtt)
            case msg.TakenOver(device, slot, generation):
                if self.sessions is not None:
                    self.sessions.taken_over(device, slot, generation)
            case msg.Unresponsive(device, slot, generation):
                if self.sessions is not None:
                    self.sessions.unresponsive(device, slot, generation)
            case msg.WhereNow(request):
                self._feed.flush()
                durable = self._journal.durable
                channel.send(msg.Position(request, durable.epoch, durable.seq))
            case msg.Answer():
                self._operations.answered(message)
            case msg.Notify():
                self._operations.notify(message)
            case msg.Trim(epoch, seq):
                self._trim(Position(epoch, seq))
            case msg.Welcome():
                self._welcome(channel, message)
            case _:
                log.error("unexpected link message", type=type(message).__name__)

    def _trim(self, position: Position) -> None:
        try:
            self._journal.trim(position)
        except (StoreFull, StoreStall) as error:  # the next run asks for more
            log.limited("trim", logging.WARNING, "the journal is not trimmed", error=str(error))

    def _welcome(self, channel: Channel, welcome: msg.Welcome) -> None:
        self._welcomed = True
        self._revision = welcome.revision
        unchecked = set(self._rechecks.values())  # the link went down before they were answered
        self._rechecks.clear()
        if welcome.flush:
            self._known.clear()
            self._unknown.clear()
            self._profiles.clear()
            unchecked.update(self.sessions.open_credentials() if self.sessions else ())
        for credentials_id in unchecked:
            self._request += 1
            self._rechecks[self._request] = credentials_id
            channel.send(msg.Lookup(self._request, [credentials_id]))
        self._feed.start(channel, Position(welcome.epoch, welcome.seq), welcome.credit_bytes)
        for request, pending in self._pending.items():
            self._ask(request, pending)
        self._operations.linked(channel)

    def _changed(self, change: msg.Changed) -> None:
        self._revision = max(self._revision, change.revision)  # Welcome may be ahead of the log
        for credentials_id in change.credentials_ids:
            self._known.pop(credentials_id, None)
            self._unknown.pop(credentials_id, None)
        for device in change.closed_devices:
            if self.sessions is not None:
                self.sessions.close_device(device, change.reason, removed=change.removed)
            if self.polls is not None:
                self.polls.close_device(device, removed=change.removed)


def _accept_token(token: str, lookup: Lookup) -> StoredCredentials | None:
    found = lookup(token)
    return found if found is not None and found.type == "ACCESS_TOKEN" else None
