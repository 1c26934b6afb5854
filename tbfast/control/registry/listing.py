"""Pages of devices (REST spec 1.2, 3)."""

import heapq
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from tbfast.control.registry.devices import Devices
from tbfast.model.device import Device

SortProperty = Literal["id", "name", "label", "type", "createdTime"]


class DeviceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices to list, in which order (REST spec 1.2)."""

    page: int = 0
    page_size: int = 100
    text_search: str = ""
    type: str | None = None
    sort_property: SortProperty = "id"
    descending: bool = False


class DevicePage(msgspec.Struct, frozen=True):
    """Ids of one page, in order, and how many devices match altogether."""

    ids: list[str]
    total: int


async def device_page(devices: Devices, query: DeviceQuery) -> DevicePage:
    """One page; the loop runs on while a long list is searched."""
    first = query.page * query.page_size
    if query.sort_property == "id" and not query.descending:
        ids: list[str] = []
        total = 0
        async for device in _matching(devices, query):
            if first <= total < first + query.page_size:
                ids.append(device.id)
            total += 1
        return DevicePage(ids, total)
    keys = [(_sort_key(query, device), device.id) async for device in _matching(devices, query)]
    pick = heapq.nlargest if query.descending else heapq.nsmallest
    top = pick(first + query.page_size, keys) if query.page_size < len(keys) else None
    if top is None:
        top = sorted(keys, reverse=query.descending)
    ordered = top[first : first + query.page_size]
    return DevicePage([device_id for _key, device_id in ordered], len(keys))


async def _matching(devices: Devices, query: DeviceQuery) -> AsyncIterator[Device]:
    wanted = query.text_search.casefold()
    async for device in devices.all_devices():
        if query.type is not None and device.type != query.type:
            continue
        if wanted in device.name.casefold() or wanted in (device.label or "").casefold():
            yield device


def _sort_key(query: DeviceQuery, device: Device) -> str | int:
    match query.sort_property:
        case "id":
            return device.id
        case "name":
            return device.name.casefold()
        case "label":
            return (device.label or "").casefold()
        case "type":
            return device.type.casefold()
        case "createdTime":
            return device.created_ms
