"""The attribute service: reads, saves that are pushed to the device, and what journals bring."""

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from tbfast import limits
from tbfast.control.sessions import Sessions
from tbfast.errors import StoreError
from tbfast.model.device import Change
from tbfast.model.operations import (
    Attributes,
    AttributesDeleted,
    AttributesUpdated,
    Keys,
    ReadAttributes,
)
from tbfast.store.attributes import Attribute, AttributeStore, Scope

# (device number, scope, saved attributes, names of deleted ones)
Listener = Callable[[int, Scope, list[Attribute], Sequence[str]], None]

Rows = Sequence[tuple[int, str, int, bytes]]  # device number, name, time, JSON text
_Block = tuple[int, tuple[int, int], Rows]  # journal, position


class AttributeService:
    """All methods belong to one event loop."""

    def __init__(
        self, store: AttributeStore, sessions: Sessions, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._now_ms = now_ms
        self._listeners: list[Listener] = []
        self.caught_up: Callable[[], Awaitable[object]] | None = None  # the journals are applied
        # Server attributes of a device that are newer in memory than on disk.
        self.overlay: Callable[[int], Mapping[str, bytes]] = _nothing
        self._backlog: deque[_Block] = deque()  # a full disk; sealing waits, so journals keep it

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call back after every change, from any source; returns the way to stop."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def read(
        self, device: int, scopes: Iterable[Scope], names: Sequence[str] | None
    ) -> list[Attribute]:
        """Those of these names that exist, with what was acknowledged before; None = all."""
        if self.caught_up is not None:
            await self.caught_up()
        return [a for scope in scopes for a in self.stored(device, scope, names)]

    def stored(self, device: int, scope: Scope, names: Sequence[str] | None) -> list[Attribute]:
        """As `read`, of one scope and without waiting for what journals still hold."""
        found = self._store.read(device, scope, names)
        newer = self.overlay(device) if scope == "SERVER_SCOPE" else None
        if not newer:
            return found
        kept = [a for a in found if a.name not in newer]
        now_ms = self._now_ms()
        fresh = [
            Attribute(name, now_ms, text)
            for name, text in newer.items()
            if names is None or name in names
        ]
        return sorted(kept + fresh)

    def text_of(self, device: int, scope: Scope, name: str) -> bytes | None:
        """The JSON text of one attribute as it is on disk; None where there is none."""
        found = self._store.read(device, scope, (name,))
        return found[0].text if found else None

    def devices_with_true(self, scope: Scope, name: str, after: int) -> list[int]:
        """Some of the devices above a number whose attribute is true, in order; [] = no more."""
        return self._store.devices_with(scope, name, b"true", after, limits.REST_SCAN_ROWS)

    async def save_server(self, values: Mapping[int, Mapping[str, bytes]]) -> None:
        """Server attributes of many devices as JSON text, in one write; durable on return."""
        now_ms = self._now_ms()
        await self._store.save_many("SERVER_SCOPE", values, now_ms)
        for device, named in values.items():
            saved = [Attribute(name, now_ms, text) for name, text in named.items()]
            self._changed(device, "SERVER_SCOPE", saved, ())

    def active(self, device: int) -> bool:
        """The server's attribute of that name (REST spec 3)."""
        found = self.stored(device, "SERVER_SCOPE", ("active",))
        return bool(found) and found[0].text == b"true"

    def for_device(self, device: int, request: ReadAttributes) -> Attributes:
        """What a device asked for (MQTT spec 4.2)."""
        return Attributes(
            self._objects(device, "CLIENT_SCOPE", request.client),
            self._objects(device, "SHARED_SCOPE", request.shared),
        )

    async def save(self, device: int, scope: Scope, values: dict[str, bytes]) -> None:
        """Values as JSON text; durable on return.  Shared ones are pushed to the device."""
        if not values:
            return
        now_ms = self._now_ms()
        await self._store.save(device, scope, values.items(), now_ms)
        if scope == "SHARED_SCOPE":
            self._sessions.tell(device, AttributesUpdated(_object(values.items())))
        self._changed(device, scope, [Attribute(n, now_ms, t) for n, t in values.items()], ())

    async def delete(self, device: int, scope: Scope, names: Keys) -> None:
        """Durable on return.  Names of shared ones are pushed, whether they existed or not."""
        await self._store.delete(device, scope, names)
        if scope == "SHARED_SCOPE":
            self._sessions.tell(device, AttributesDeleted(names))
        self._changed(device, scope, [], names)

    def registry_changed(self, change: Change) -> None:
        """A device that leaves the registry takes its attributes along.

        Numbers are never used again: what a crash or a full disk leaves of it is seen by nobody.
        """
        if change.kind == "device" and change.op == "deleted" and change.number:
            with contextlib.suppress(StoreError):
                self._store.delete_device(change.number)

    def applied(self, journal: int, position: tuple[int, int], rows: Rows) -> None:
        """Client attributes of one journal block, as (device, name, time, JSON text)."""
        if position <= self._store.cursor(journal):
            return  # a replay after a crash
        self._backlog.append((journal, position, rows))
        with contextlib.suppress(StoreError):  # sealing finds the same, and nothing is trimmed
            self._write_backlog()
        if self._listeners:
            for device in dict.fromkeys(row[0] for row in rows):
                saved = [Attribute(n, ts, text) for d, n, ts, text in rows if d == device]
                self._changed(device, "CLIENT_SCOPE", saved, ())

    async def settle(self) -> None:
        """Everything applied is on disk on return; StoreFull or StoreStall when it cannot be."""
        self._write_backlog()
        await self._store.synced()

    def _write_backlog(self) -> None:
        while self._backlog:
            self._store.apply(*self._backlog[0])
            self._backlog.popleft()

    def _objects(self, device: int, scope: Scope, names: Keys | None) -> bytes:
        if names is None:
            return b""
        found = self._store.read(device, scope, names or None)
        return _object((a.name, a.text) for a in found) if found else b""

    def _changed(
        self, device: int, scope: Scope, saved: list[Attribute], deleted: Sequence[str]
    ) -> None:
        for listener in list(self._listeners):
            listener(device, scope, saved, deleted)


def _nothing(device: int) -> Mapping[str, bytes]:
    return {}


def _object(values: Iterable[tuple[str, bytes]]) -> bytes:
    return b"{%b}" % b",".join(msgspec.json.encode(n) + b":" + t for n, t in values)
