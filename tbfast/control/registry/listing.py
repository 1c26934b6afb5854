"""Pages of devices (REST spec 1.2, 3)."""

import heapq
from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

import msgspec

from tbfast.model.device import Device

SortProperty = Literal[
    "id", "name", "label", "type", "createdTime", "customerTitle", "deviceProfileName"
]


class Source(Protocol):
    """What pages are made from: the registry."""

    def all_devices(self) -> AsyncIterator[Device]: ...
    def devices_of(self, owner_id: str) -> AsyncIterator[Device]: ...
    def customer_title(self, customer_id: str | None) -> str: ...


class DeviceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which devices to list, in which order (REST spec 1.2)."""

    page: int = 0
    page_size: int = 100
    text_search: str = ""
    type: str | None = None
    profile_id: str | None = None
    customer_id: str | None = None
    keep: Callable[[Device], bool] | None = None  # further condition
    sort_property: SortProperty = "id"
    rank: Callable[[Device], int] | None = None  # sorts by this instead
    descending: bool = False


class DevicePage(msgspec.Struct, frozen=True):
    """Ids of one page, in order, and how many devices match altogether."""

    ids: list[str]
    total: int


async def device_page(registry: Source, query: DeviceQuery) -> DevicePage:
    """One page; the loop runs on while a long list is searched."""
    first = query.page * query.page_size
    if query.sort_property == "id" and query.rank is None and not query.descending:
        ids: list[str] = []
        total = 0
        async for device in _matching(registry, query):
            if first <= total < first + query.page_size:
                ids.append(device.id)
            total += 1
        return DevicePage(ids, total)
    keys = [
        (_sort_key(registry, query, device), device.id)
        async for device in _matching(registry, query)
    ]
    pick = heapq.nlargest if query.descending else heapq.nsmallest
    top = pick(first + query.page_size, keys) if query.page_size < len(keys) else None
    if top is None:
        top = sorted(keys, reverse=query.descending)
    ordered = top[first : first + query.page_size]
    return DevicePage([device_id for _key, device_id in ordered], len(keys))


async def _matching(registry: Source, query: DeviceQuery) -> AsyncIterator[Device]:
    wanted = query.text_search.casefold()
    async for device in _candidates(registry, query):
        if query.type is not None and device.type != query.type:
            continue
        if query.profile_id is not None and device.profile_id != query.profile_id:
            continue
        if query.keep is not None and not query.keep(device):
            continue
        if wanted in device.name.casefold() or wanted in (device.label or "").casefold():
            yield device


def _candidates(registry: Source, query: DeviceQuery) -> AsyncIterator[Device]:
    """Devices in id order; those of a customer or profile are found by index."""
    owner = query.customer_id or query.profile_id
    return registry.all_devices() if owner is None else registry.devices_of(owner)


def _sort_key(registry: Source, query: DeviceQuery, device: Device) -> str | int:
    if query.rank is not None:
        return query.rank(device)
    match query.sort_property:
        case "id":
            return device.id
        case "name":
            return device.name.casefold()
        case "label":
            return (device.label or "").casefold()
        case "type" | "deviceProfileName":
            return device.type.casefold()
        case "createdTime":
            return device.created_ms
        case "customerTitle":
            return registry.customer_title(device.customer_id).casefold()
