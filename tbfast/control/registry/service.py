"""The registry as one service."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from tbfast import limits
from tbfast.control.registry.calls import Calls
from tbfast.control.registry.customers import Customers
from tbfast.control.registry.devices import Devices
from tbfast.control.registry.listing import DevicePage, DeviceQuery, device_page
from tbfast.control.registry.relations import Relations
from tbfast.control.registry.resources import Resources
from tbfast.control.registry.tenant_profiles import TenantProfiles
from tbfast.control.rules import random_token
from tbfast.errors import Conflict, NotFound, TbfastError
from tbfast.model.device import Change
from tbfast.store.registry import RegistryStore


def wall_clock_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Registry(Devices):
    """All methods belong to one event loop; writes return when they are on disk.

    Raises Conflict for a taken name or token and for a stale version, InvalidEntity for a value
    we refuse, NotFound for an id that does not exist, StoreError when the disk fails.
    """

    def __init__(
        self,
        store: RegistryStore,
        *,
        now_ms: Callable[[], int] = wall_clock_ms,
        new_token: Callable[[], str] = random_token,
    ) -> None:
        super().__init__(store, now_ms=now_ms, new_token=new_token)
        self.customers = Customers(store, self.references, now_ms)
        self.relations = Relations(store, self.references)
        self.resources = Resources(store, now_ms)
        self.tenant_profiles = TenantProfiles(store)
        self.calls = Calls(store)

    @classmethod
    async def open(cls, path: Path) -> "Registry":
        """Open the registry at ``path``; the first opening makes the default profile."""
        registry = cls(RegistryStore(path))
        try:
            await registry.profiles.start()
            await registry.tenant_profiles.start()
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

    async def delete_device(self, device_id: str) -> None:
        """Delete a device with its credentials and relations."""
        await super().delete_device(device_id)
        await self.relations.forget(device_id)

    async def delete_profile(self, profile_id: str) -> None:
        """Delete a profile that is not the default and that no device has."""
        await self.profiles.delete(profile_id)
        await self.relations.forget(profile_id)

    async def delete_customer(self, customer_id: str) -> None:
        """Delete a customer; its devices are nobody's from then on."""
        await self.customers.delete(customer_id, self._take_devices)
        await self.relations.forget(customer_id)

    async def _take_devices(self, customer_id: str) -> None:
        while ids := self.device_ids_of(customer_id, limit=limits.REST_SCAN_ROWS):
            await asyncio.gather(*(self._take_device(id, customer_id) for id in ids))

    async def _take_device(self, device_id: str, customer_id: str) -> None:
        """Whoever changes the device meanwhile is faster; the caller looks again."""
        with contextlib.suppress(NotFound, Conflict):
            if (await self.device(device_id)).customer_id == customer_id:
                await self.assign_device(device_id, None)

    def customer_title(self, customer_id: str | None) -> str:
        """Title of a customer; empty where there is none."""
        customer = self.customers.peek(customer_id)
        return "" if customer is None else customer.title

    async def page(self, query: DeviceQuery) -> DevicePage:
        """Ids of one page of devices; the loop runs on while a long list is searched."""
        return await device_page(self, query)
