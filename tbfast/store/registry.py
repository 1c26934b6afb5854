"""The registry's entities on disk, behind an interface narrow enough for a shared registry.

Reads, one-entity compare-and-set with reserved unique index keys, and a change log: nothing else.
An entity, its index keys, its change entry and the counters are one write batch, so the indexes
agree with the entities after any crash. A commit returns when it is on disk; commits that arrive
while one is being synced share the next sync. A read of one entity waits for it as well: else a
device could be let in, its rows made durable, and its number given to another after a power cut.

Every value starts with one format byte. Column families: one per kind, ``unique`` (index key to
kind and id), ``number`` (device number to id), ``change`` (revision to Change), ``meta``.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec
from rocksdict import ColumnFamily, Rdict, WriteBatch, WriteOptions

from tbfast import limits
from tbfast.errors import Conflict, StoreError, StoreStall, TbfastError
from tbfast.model.device import Change, ChangeKind, ChangeOp
from tbfast.store import rocks

Kind = Literal[
    "device",
    "device_profile",
    "tenant_profile",
    "customer",
    "user",
    "api_key",
    "relation",
    "resource",
    "ota_package",
    "rpc",
    "claim",  # what a device told whoever wants to claim it, under its id
    "node",  # what this installation made up for itself: keys, the first administrator
]

STORE_FORMAT: Final = 1
_VALUE_FORMAT: Final = b"\x01"
_FAMILIES: Final = (*get_args(Kind), "unique", "number", "change", "meta")
_NUMBERED: Final = ("device",)
_WRITE_BUFFER_BYTES: Final = 4_194_304
_STALL_WAITS_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_FORMAT_KEY: Final = b"format"
_STATE_KEY: Final = b"state"

T = TypeVar("T")


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """One stored entity: its compare-and-set version, index keys and encoded value."""

    id: str
    version: int
    number: int
    unique: tuple[str, ...]
    value: bytes


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """One change to one entity.

    ``expected`` is the version the caller read, 0 to create. ``value`` None deletes. ``unique``
    are all index keys the entity holds afterwards. ``change`` names the kind in the change log.
    """

    kind: Kind
    id: str
    expected: int
    value: bytes | None
    unique: tuple[str, ...] = ()
    change: ChangeKind


class _State(msgspec.Struct, frozen=True):
    tenant_id: str
    revision: int = 0
    next_number: int = 1
    counts: dict[str, int] = {}


_entities = msgspec.msgpack.Decoder(Entity)
_changes = msgspec.msgpack.Decoder(Change)
_states = msgspec.msgpack.Decoder(_State)
_owners = msgspec.msgpack.Decoder(tuple[Kind, str])


class RegistryStore:
    """The registry database. One event loop owns it; every method is called from that loop."""

    def __init__(self, path: Path) -> None:
        """Open or create; raises StoreBusy, StoreError, also when a newer tbfast wrote it."""
        self._path = path
        self._db = rocks.open_families(path, _FAMILIES, write_buffer_bytes=_WRITE_BUFFER_BYTES)
        try:
            self._families: dict[str, Rdict] = {
                name: self._db.get_column_family(name) for name in _FAMILIES
            }
            self._handles: dict[str, ColumnFamily] = {
                name: self._db.get_column_family_handle(name) for name in _FAMILIES
            }
            self._write_options = WriteOptions()
            self._write_options.no_slowdown = True
            self._state = self._open_state()
        except BaseException:
            self._release()
            raise
        self._thread = ThreadPoolExecutor(1, "registry-sync")
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._syncing: asyncio.Task[None] | None = None
        self._unsynced: dict[str, asyncio.Future[None]] = {}  # by entity id
        self._failed: TbfastError | None = None
        self._subscribers: list[Callable[[Change], None]] = []

    @property
    def tenant_id(self) -> str:
        """UUID of this installation's one tenant."""
        return self._state.tenant_id

    @property
    def failed(self) -> TbfastError | None:
        """Why nothing can be written until the store is opened again; None if all is well."""
        return self._failed

    @property
    def revision(self) -> int:
        """Revision of the newest change, 0 before the first."""
        return self._state.revision

    async def get(self, kind: Kind, id: str) -> Entity | None:
        """The entity with this id, once what was last written to it is on disk."""
        while (synced := self._unsynced.get(id)) is not None:
            await asyncio.shield(synced)
        return self._entity(kind, id)

    async def find(self, unique: str) -> tuple[Kind, str] | None:
        """Kind and id of the entity that holds an index key."""
        return self._owner(unique)

    def holder(self, unique: str) -> tuple[Kind, str] | None:
        """As `find`, of what was last written, which may not be on disk yet."""
        return self._owner(unique)

    def peek(self, kind: Kind, id: str) -> Entity | None:
        """The entity as last written, which may not be on disk yet."""
        return self._entity(kind, id)

    def keys(self, prefix: str, after: str = "", limit: int | None = None) -> list[str]:
        """Index keys that begin with ``prefix``, without it and in order; after ``after``."""
        found: list[str] = []
        start = prefix.encode()
        from_key = (prefix + after).encode() + (b"\0" if after else b"")
        for key, _raw in rocks.pairs(self._families["unique"], self._path, from_key):
            if not key.startswith(start) or len(found) == limit:
                break
            found.append(key[len(start) :].decode())
        return found

    async def id_of_number(self, number: int) -> str | None:
        """Id of the device with this number."""
        if number < 1 or number >= self._state.next_number:
            return None
        raw = self._get("number", _u64(number))
        return None if raw is None else raw.decode()

    def has_number(self, number: int) -> bool:
        """Whether a device has this number."""
        return self._get("number", _u64(number)) is not None

    async def count(self, kind: Kind) -> int:
        """How many entities of a kind exist."""
        return self._state.counts.get(kind, 0)

    async def scan(self, kind: Kind, after: str, limit: int) -> list[Entity]:
        """At most ``limit`` entities with ids greater than ``after``, in id order."""
        found: list[Entity] = []
        for _key, raw in rocks.pairs(self._families[kind], self._path, after.encode() + b"\0"):
            found.append(self._decoded(raw, _entities))
            if len(found) >= limit:
                break
        return found

    async def entities(self, kind: Kind) -> AsyncIterator[Entity]:
        """All entities of a kind, in id order; the loop runs on meanwhile."""
        after = ""
        while rows := await self.scan(kind, after, limits.REST_SCAN_ROWS):
            for row in rows:
                yield row
            after = rows[-1].id
            await asyncio.sleep(0)

    async def changes_since(self, revision: int) -> list[Change] | None:
        """Changes after ``revision``; None if the log no longer (or not yet) reaches it."""
        oldest = max(0, self._state.revision - limits.REGISTRY_CHANGES)
        if revision < oldest or revision > self._state.revision:
            return None
        rows = rocks.pairs(self._families["change"], self._path, _u64(revision + 1))
        return [self._decoded(raw, _changes) for _key, raw in rows]

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back per change, in revision order, once it is on disk; returns the way to stop."""
        self._subscribers.append(callback)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return stop

    async def commit(self, write: Write) -> Change:
        """Apply one write; returns when it is on disk.

        Raises Conflict (version differs, or an index key belongs to another entity; nothing is
        changed), StoreStall (trying later may work) or StoreError. After a failed sync every
        further commit fails: what the disk holds is unknown until the store is opened again.
        """
        if self._failed is not None:
            raise self._failed
        change = await self._applied(write)
        synced = asyncio.get_running_loop().create_future()
        self._waiting.append((change, synced))
        self._unsynced[write.id] = synced
        if self._syncing is None:
            self._syncing = asyncio.create_task(self._sync())
        await asyncio.shield(synced)  # a cancelled caller does not undo it
        return change

    async def close(self) -> None:
        """Finish outstanding syncs and release the database."""
        if self._syncing is not None:
            await self._syncing
        self._thread.shutdown()
        self._release()

    async def _applied(self, write: Write) -> Change:
        """Apply, waiting out a write stall; each attempt checks and builds the batch anew."""
        for wait_s in _STALL_WAITS_S:
            try:
                return self._apply(write)
            except StoreStall:
                await asyncio.sleep(wait_s)
        return self._apply(write)

    # No await between the checks and the write: the loop makes them one step.
    def _apply(self, write: Write) -> Change:
        before = self._entity(write.kind, write.id)
        if (before.version if before else 0) != write.expected:
            raise Conflict(f"{write.change} {write.id} was changed by someone else; read it again")
        held = before.unique if before else ()
        kept = write.unique if write.value is not None else ()
        reserved = tuple(key for key in kept if key not in held)
        released = tuple(key for key in held if key not in kept)
        for key in reserved:
            if self._owner(key) is not None:
                raise Conflict(f"{key.partition(':')[2]!r} is already in use")

        batch = WriteBatch(raw_mode=True)
        state = self._next_state(write, before)
        if before is not None:
            number = before.number
        else:
            number = self._state.next_number if write.kind in _NUMBERED else 0
        self._put_entity(batch, write, number)
        for key in released:
            batch.delete(key.encode(), self._handles["unique"])
        for key in reserved:
            self._put(batch, "unique", key.encode(), (write.kind, write.id))
        op: ChangeOp = "deleted" if write.value is None else "updated" if before else "created"
        change = Change(
            revision=state.revision, kind=write.change, op=op, id=write.id, number=number,
            reserved=reserved, kept=tuple(key for key in kept if key in held), released=released,
        )  # fmt: skip
        self._put(batch, "change", _u64(change.revision), change)
        if change.revision > limits.REGISTRY_CHANGES:
            batch.delete(_u64(change.revision - limits.REGISTRY_CHANGES), self._handles["change"])
        self._put(batch, "meta", _STATE_KEY, state)
        self._write(batch)
        self._state = state
        return change

    def _next_state(self, write: Write, before: Entity | None) -> _State:
        counts = dict(self._state.counts)
        counts[write.kind] = counts.get(write.kind, 0) + (before is None) - (write.value is None)
        fresh = before is None and write.kind in _NUMBERED
        return msgspec.structs.replace(
            self._state,
            revision=self._state.revision + 1,
            next_number=self._state.next_number + fresh,
            counts=counts,
        )

    def _put_entity(self, batch: WriteBatch, write: Write, number: int) -> None:
        key = write.id.encode()
        if write.value is None:
            batch.delete(key, self._handles[write.kind])
            if number:
                batch.delete(_u64(number), self._handles["number"])
            return
        entity = Entity(write.id, write.expected + 1, number, write.unique, write.value)
        self._put(batch, write.kind, key, entity)
        if number and write.expected == 0:
            batch.put(_u64(number), key, self._handles["number"])

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, self._flush)
            except TbfastError as error:
                self._failed = error
                group += self._waiting
                self._waiting = []
            for change, synced in group:
                if self._failed is not None:
                    # Stays in _unsynced: whoever reads this entity must not trust it either.
                    synced.set_exception(self._failed)
                    synced.exception()  # retrieved, should the caller have been cancelled
                    continue
                synced.set_result(None)
                if self._unsynced.get(change.id) is synced:
                    del self._unsynced[change.id]
                # Through the loop, so that a callback that raises is reported there.
                for callback in self._subscribers:
                    loop.call_soon(callback, change)
        self._syncing = None

    def _flush(self) -> None:
        with rocks.translated(self._path):
            self._db.flush_wal(True)

    def _open_state(self) -> _State:
        raw = self._get("meta", _FORMAT_KEY)
        if raw is not None and int(raw) > STORE_FORMAT:
            raise StoreError(
                f"the registry at {self._path} was written by a newer tbfast (format "
                f"{int(raw)}, this one reads {STORE_FORMAT}); run that version"
            )
        stored = self._get("meta", _STATE_KEY)
        if stored is not None:
            return self._decoded(stored, _states)
        state = _State(tenant_id=str(uuid.uuid1()))
        batch = WriteBatch(raw_mode=True)
        batch.put(_FORMAT_KEY, b"%d" % STORE_FORMAT, self._handles["meta"])
        self._put(batch, "meta", _STATE_KEY, state)
        self._write(batch)
        self._flush()
        return state

    def _entity(self, kind: Kind, id: str) -> Entity | None:
        raw = self._get(kind, id.encode())
        return None if raw is None else self._decoded(raw, _entities)

    def _owner(self, unique: str) -> tuple[Kind, str] | None:
        raw = self._get("unique", unique.encode())
        return None if raw is None else self._decoded(raw, _owners)

    def _get(self, family: str, key: bytes) -> bytes | None:
        with rocks.translated(self._path):
            raw: bytes | None = self._families[family].get(key)
        return raw

    def _put(self, batch: WriteBatch, family: str, key: bytes, value: Any) -> None:
        batch.put(key, _VALUE_FORMAT + msgspec.msgpack.encode(value), self._handles[family])

    def _write(self, batch: WriteBatch) -> None:
        with rocks.translated(self._path):
            self._db.write(batch, self._write_options)

    def _decoded(self, raw: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
        if raw[:1] != _VALUE_FORMAT:
            raise StoreError(
                f"the registry at {self._path} holds a value of unknown format {raw[:1]!r}; "
                "a newer tbfast wrote it"
            )
        try:
            return decoder.decode(memoryview(raw)[1:])
        except msgspec.DecodeError as error:
            raise StoreError(f"the registry at {self._path} is damaged: {error}") from error

    def _release(self) -> None:
        # The database stays locked until its handles are gone, hence the clearing.
        self._handles = {}
        for family in getattr(self, "_families", {}).values():
            rocks.close(family, self._path)
        self._families = {}
        rocks.close(self._db, self._path)


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")
