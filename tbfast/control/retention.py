"""Which retention class a device belongs to: by its profile, as `series.retention` says."""

import asyncio

from tbfast.config import Series
from tbfast.control.registry import Registry
from tbfast.model.device import Change


class RetentionClasses:
    """Follows the registry; knows the devices that are not in the default class.

    A device that changes its profile goes to its new class with the next run; rows that are sealed
    stay where they are.
    """

    def __init__(self, registry: Registry, settings: Series) -> None:
        self._registry = registry
        self._classes = {
            profile: place
            for profile in settings.retention
            if (place := settings.retention_class(profile))
        }
        self._known: dict[int, int] = {}  # device number -> class, without the default one
        self._changed: set[int] = set()  # devices to look at again
        self._renamed = False  # perhaps a profile
        self._tasks: set[asyncio.Task[None]] = set()

    async def load(self) -> None:
        """Looks at all devices, if there is anything to look for, and follows changes."""
        if self._classes:
            self._registry.subscribe(self._registry_changed)
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        async for device in self._registry.all_devices():
            self._put(device.number, device.type)

    def of(self, number: int) -> int:
        """Place of a device's class in `Series.retention_classes`; any thread may ask."""
        return self._known.get(number, 0)

    def _put(self, number: int, profile: str) -> None:
        place = self._classes.get(profile, 0)
        if place:
            self._known[number] = place
        else:
            self._known.pop(number, None)

    def _registry_changed(self, change: Change) -> None:
        if change.kind == "device" and change.op == "deleted":
            self._known.pop(change.number, None)
        elif change.kind in ("device", "credentials"):  # one write may change both
            self._changed.add(change.number)
        elif change.kind == "device_profile" and change.op == "updated":
            self._renamed = True
        else:
            return
        if not self._tasks:
            task = asyncio.get_running_loop().create_task(self._look())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        while self._changed or self._renamed:
            if self._renamed:
                self._renamed = False
                await self._look_at_all()
                continue
            device = await self._registry.device_by_number(self._changed.pop())
            if device is not None:
                self._put(device.number, device.type)
