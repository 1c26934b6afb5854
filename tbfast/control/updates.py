"""Who is told of an update and when (REST spec 9, MQTT spec 6.3).

A device whose package changes is QUEUED: telemetry says so, and the server attribute `fw_package`
(`sw_package`) remembers it.  When its turn comes the shared attributes are written and pushed and
the state is INITIATED.  The attribute is written last, so that a crash in between repeats the step
and skips none; after a restart every device is compared with what its attribute says.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from tbfast import limits
from tbfast.control.attributes import AttributeService
from tbfast.control.package_finder import PackageFinder
from tbfast.control.registry import Registry
from tbfast.control.writer import TelemetryWriter
from tbfast.errors import NotFound, StoreFull, StoreStall
from tbfast.model.device import Change, Device
from tbfast.model.package import PREFIXES, Package, PackageType
from tbfast.obs.log import get_logger

log = get_logger("tbfast.updates")

_QUEUED: Final = b'"QUEUED '
_INITIATED: Final = b'"INITIATED '
_RETRY_S: Final = 1.0  # after a full or busy disk
_DESCRIBED: Final = (
    "title", "version", "ts", "state", "size", "checksum", "checksum_algorithm", "url", "tag",
)  # fmt: skip


class _Key(NamedTuple):
    device_id: str
    type: PackageType


class Updates:
    """All methods belong to one event loop; `run` does the work."""

    def __init__(
        self,
        registry: Registry,
        finder: PackageFinder,
        attributes: AttributeService,
        writer: TelemetryWriter,
        now_ms: Callable[[], int],
        *,
        pack_size: int,
        pack_interval_s: float,
    ) -> None:
        self._registry = registry
        self._finder = finder
        self._attributes = attributes
        self._writer = writer
        self._now_ms = now_ms
        self._pack_size = pack_size
        self._pack_interval_s = pack_interval_s
        self._pack_ends_s = 0.0
        self._started = 0  # in this interval
        self._changed: dict[tuple[bool, str], None] = {}  # (is a profile, id)
        self._waiting: dict[_Key, str] = {}  # package id; longest first
        self._look_at_all = True
        self._wake = asyncio.Event()

    def registry_changed(self, change: Change) -> None:
        """Something may have got another package."""
        is_profile = change.kind == "device_profile"
        if not is_profile and change.kind not in ("device", "credentials"):
            return
        if change.op == "deleted" or not self._registry.packages.ever:
            return
        if len(self._changed) >= limits.UPDATES_CHANGED:
            self._look_at_all = True
        else:
            self._changed[is_profile, change.id] = None
        self._wake.set()

    async def run(self) -> None:
        """Looks at what changed and tells devices at the configured rate, for ever."""
        while True:
            self._wake.clear()
            try:
                await self._look()
                wait_s = await self._start_some()
            except (StoreFull, StoreStall) as error:
                log.limited(
                    "updates", logging.ERROR, "updates wait for the store", error=str(error)
                )
                wait_s = _RETRY_S
            else:
                if self._changed or (self._look_at_all and not self._waiting):
                    continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    # --- what is to be done ------------------------------------------------------------------

    async def _look(self) -> None:
        """Compares devices with what they were told; a bounded number of changes a time."""
        if self._look_at_all and not self._waiting:
            self._look_at_all = False
            self._changed.clear()
            try:
                if self._registry.packages.ever:
                    await self._all(self._registry.all_devices())
            except BaseException:
                self._look_at_all = True
                raise
            return
        changed = list(self._changed)[: limits.UPDATES_AT_ONCE]
        for key in changed:
            del self._changed[key]  # what changes from now on is looked at again
        try:
            for is_profile, id in changed:
                if is_profile:
                    await self._all(self._registry.devices_of(id))
            await _gathered(self._check_id(id) for is_profile, id in changed if not is_profile)
        except BaseException:
            self._changed.update(dict.fromkeys(changed))
            raise

    async def _all(self, devices: AsyncIterable[Device]) -> None:
        batch: list[Device] = []
        async for device in devices:
            batch.append(device)
            if len(batch) >= limits.UPDATES_AT_ONCE:
                await _gathered(map(self._check, batch))
                batch.clear()
                await self._start_some()
        await _gathered(map(self._check, batch))

    async def _check_id(self, device_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._check(await self._registry.device(device_id))

    async def _check(self, device: Device) -> None:
        for type in PREFIXES:
            key = _Key(device.id, type)
            package = await self._finder.of_device(device, type)
            told = self._told(device.number, type)
            if package is None or not package.usable:
                self._waiting.pop(key, None)
                if told is not None:
                    await self._withdraw(device.number, type)
            elif told == _INITIATED + package.id.encode() + b'"':
                self._waiting.pop(key, None)
            elif len(self._waiting) >= limits.UPDATES_WAITING and key not in self._waiting:
                self._look_at_all = True  # once there is room
            else:
                if told != _QUEUED + package.id.encode() + b'"':
                    await self._queue(device.number, type, package)
                self._waiting[key] = package.id
                self._wake.set()

    def _told(self, device: int, type: PackageType) -> bytes | None:
        return self._attributes.text_of(device, "SERVER_SCOPE", f"{PREFIXES[type]}_package")

    async def _remember(
        self, device: int, type: PackageType, state: bytes, package: Package
    ) -> None:
        text = state + package.id.encode() + b'"'
        await self._attributes.save_server({device: {f"{PREFIXES[type]}_package": text}})

    # --- the steps of one device -------------------------------------------------------------

    async def _queue(self, device: int, type: PackageType, package: Package) -> None:
        prefix, now_ms = PREFIXES[type], self._now_ms()
        values: dict[str, str | int] = {
            f"target_{prefix}_title": package.title,
            f"target_{prefix}_version": package.version,
            f"target_{prefix}_ts": now_ms,
            f"{prefix}_state": "QUEUED",
        }
        if package.tag:
            values[f"target_{prefix}_tag"] = package.tag
        await self._save(device, now_ms, values)
        await self._remember(device, type, _QUEUED, package)

    async def _start_some(self) -> float:
        """Tells as many devices as may be told now; s until the next may be, at most."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._pack_ends_s:
            self._started = 0
            self._pack_ends_s = now_s + self._pack_interval_s
        while self._waiting and self._started < self._pack_size:
            count = min(self._pack_size - self._started, limits.UPDATES_AT_ONCE)
            keys = list(self._waiting)[:count]
            self._started += len(keys)
            await _gathered(self._start(key, self._waiting[key]) for key in keys)
        rest_s = self._pack_ends_s - asyncio.get_running_loop().time()
        return max(rest_s, 0.0) if self._waiting else self._pack_interval_s

    async def _start(self, key: _Key, package_id: str) -> None:
        try:
            device = await self._registry.device(key.device_id)
        except NotFound:
            self._forget(key, package_id)
            return
        package = await self._finder.of_device(device, key.type)
        if package is not None and package.id == package_id:
            await self._initiate(device.number, key.type, package)
        self._forget(key, package_id)

    def _forget(self, key: _Key, package_id: str) -> None:
        """Unless another package was queued meanwhile."""
        if self._waiting.get(key) == package_id:
            del self._waiting[key]

    async def _initiate(self, device: int, type: PackageType, package: Package) -> None:
        prefix = PREFIXES[type]
        await self._save(device, self._now_ms(), {f"{prefix}_state": "INITIATED"})
        values, missing = described(package)
        if missing:
            await self._attributes.delete(device, "SHARED_SCOPE", missing)
        await self._attributes.save(device, "SHARED_SCOPE", values)
        await self._remember(device, type, _INITIATED, package)

    async def _withdraw(self, device: int, type: PackageType) -> None:
        prefix = PREFIXES[type]
        names = tuple(f"{prefix}_{name}" for name in _DESCRIBED)
        await self._attributes.delete(device, "SHARED_SCOPE", names)
        await self._attributes.delete(device, "SERVER_SCOPE", (f"{prefix}_package",))

    async def _save(self, device: int, now_ms: int, values: dict[str, str | int]) -> None:
        payload = msgspec.json.encode({"ts": now_ms, "values": values})
        await self._writer.save(device, payload, exact=True)


def described(package: Package) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Shared attributes of a package as JSON text, and names of those it does not have."""
    prefix = PREFIXES[package.type]
    known = {
        "title": package.title,
        "version": package.version,
        "tag": package.tag or None,
        "size": package.size,
        "checksum_algorithm": package.checksum_algorithm if package.checksum else None,
        "checksum": package.checksum or None,
        "url": package.url,
    }
    values = {
        f"{prefix}_{name}": msgspec.json.encode(value)
        for name, value in known.items()
        if value is not None
    }
    missing = tuple(f"{prefix}_{name}" for name, value in known.items() if value is None)
    return values, missing


async def _gathered(work: Iterable[Awaitable[None]]) -> None:
    """All of them are over on return; then the first error."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
