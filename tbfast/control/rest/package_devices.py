"""How far an update is: the devices that are to have a package and what they say of it."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint
from tbfast.control.services import SeriesReader
from tbfast.model.device import Device
from tbfast.model.package import PREFIXES, Package


class PackageDevice(msgspec.Struct, frozen=True, rename="camel"):
    """What a device last said of its update; None = nothing."""

    id: shapes.EntityId
    name: str
    state: Any
    error: Any
    current_title: Any
    current_version: Any


class _Point(msgspec.Struct):
    value: Any


class PackageDeviceRoutes:
    """GET /api/otaPackage/{id}/devices; ThingsBoard has no such call."""

    def __init__(self, registry: Registry, series: SeriesReader) -> None:
        self._registry = registry
        self._series = series

    def endpoints(self) -> list[Endpoint]:
        """The one path."""
        answer = shapes.Page[PackageDevice]
        path = "/api/otaPackage/{id}/devices"
        return [Endpoint("GET", path, self.page, "tenant", answer=answer, query=PAGING[:2])]

    async def page(self, request: Request) -> Response:
        """A page of them: those with a package of their own first, then by profile."""
        package = await self._registry.packages.get(params.path_id(request))
        page = params.integer(request, "page")
        size = params.integer(request, "pageSize", least=1)
        first, total = page * size, 0
        shown: list[PackageDevice] = []
        async for device in self._devices(package):
            if first <= total < first + size:
                shown.append(await self._state(device, package))
            total += 1
        tail = msgspec.to_builtins(shapes.page_tail(page, size, total))
        return json_answer({"data": shown, **tail})

    async def _devices(self, package: Package) -> AsyncIterator[Device]:
        async for device in self._registry.devices_of(package.id):
            yield device
        for profile_id in self._registry.packages.profile_ids_of(package.id):
            async for device in self._registry.devices_of(profile_id):
                firmware = package.type == "FIRMWARE"
                if (device.firmware_id if firmware else device.software_id) is None:
                    yield device

    async def _state(self, device: Device, package: Package) -> PackageDevice:
        prefix = PREFIXES[package.type]
        names = (
            f"{prefix}_state", f"{prefix}_error", f"current_{prefix}_title",
            f"current_{prefix}_version",
        )  # fmt: skip
        text = await self._series.latest(device.number, names)
        found = msgspec.json.decode(text, type=dict[str, list[_Point]])
        values = [found[name][0].value if found.get(name) else None for name in names]
        return PackageDevice(shapes.EntityId("DEVICE", device.id), device.name, *values)
