"""The registry as one service."""

import time
from collections.abc import Callable
from pathlib import Path

from tbfast.control.registry.devices import Devices
from tbfast.control.registry.listing import DevicePage, DeviceQuery, device_page
from tbfast.control.rules import random_token
from tbfast.errors import TbfastError
from tbfast.model.device import Change
from tbfast.store.registry import RegistryStore


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Registry(Devices):
    """All methods belong to one event loop; writes return when they are on disk.

    Raises Conflict for a taken name or token and for a stale version, InvalidEntity for a value
    we refuse, NotFound for an id that does not exist, StoreError when the disk fails. Whoever
    serves OTA packages sets ``check_package``: it says which ones devices and profiles may have.
    """

    def __init__(
        self,
        store: RegistryStore,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        new_token: Callable[[], str] = random_token,
    ) -> None:
        super().__init__(store, now_ms=now_ms, new_token=new_token)

    @classmethod
    async def open(cls, path: Path) -> "Registry":
        """Open the registry at ``path``; the first opening makes the default profile."""
        registry = cls(RegistryStore(path))
        try:
            await registry.profiles.start()
        except BaseException:
            await registry.close()
            raise
        return registry

    async def close(self) -> None:
        """Finish what was begun and release the store."""
        await self.store.close()

    @property
    def tenant_id(self) -> str:
        """UUID of the one tenant."""
        return self.store.tenant_id

    @property
    def failed(self) -> TbfastError | None:
        """Why nothing can be written until the registry is opened again; None if all is well."""
        return self.store.failed

    @property
    def revision(self) -> int:
        """Revision of the newest change."""
        return self.store.revision

    def subscribe(self, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call back once per durable change, in order; returns the way to stop."""
        return self.store.subscribe(callback)

    async def changes_since(self, revision: int) -> list[Change] | None:
        """Changes after ``revision``; None when the log does not reach back: start afresh."""
        return await self.store.changes_since(revision)

    async def page(self, query: DeviceQuery) -> DevicePage:
        """Ids of one page of devices; the loop runs on while a long list is searched."""
        return await device_page(self, query)
