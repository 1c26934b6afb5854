"""Entity queries: devices by conditions on their fields, attributes and latest values.

Work is bounded: values are read of at most `limits.REST_QUERY_DEVICES` devices for a query, and
the loop runs on meanwhile (REST spec 11).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from tbfast import limits
from tbfast.control.attributes import AttributeService
from tbfast.control.predicates import holds, name_matches, number_of
from tbfast.control.registry import Registry
from tbfast.errors import NotFound, PeerError
from tbfast.model.device import Device
from tbfast.model.entity_query import (
    CountQuery,
    DataQuery,
    DeviceType,
    EntityList,
    EntityName,
    EntityType,
    Filter,
    Key,
    KeyType,
    PageLink,
    SingleEntity,
)
from tbfast.store.attributes import SCOPES, Scope

Sees = Callable[[Device], bool]
Value = tuple[int, str]  # time, text
Values = dict[Key, Value]  # of one device; a key without a value is missing

_SCOPES_OF: Final[dict[KeyType, Sequence[Scope]]] = {
    "ATTRIBUTE": ("SERVER_SCOPE", "SHARED_SCOPE", "CLIENT_SCOPE"),
    "SERVER_ATTRIBUTE": ("SERVER_SCOPE",),
    "SHARED_ATTRIBUTE": ("SHARED_SCOPE",),
    "CLIENT_ATTRIBUTE": ("CLIENT_SCOPE",),
}


class LatestSeries(Protocol):
    """Latest values of many devices."""

    async def latest_of(self, devices: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """As SeriesReader.latest, for each device."""

    async def keys(self, device: int) -> list[str]:
        """Names of a device's series."""


class _Point(msgspec.Struct):
    ts: int
    value: msgspec.Raw


class Found(msgspec.Struct, frozen=True):
    """Ids of one page, in order, and how many devices match altogether."""

    ids: list[str]
    total: int


_points = msgspec.json.Decoder(dict[str, list[_Point]])


class EntityQueries:
    """All methods belong to one event loop; PeerError for a query that cannot be answered."""

    def __init__(
        self, registry: Registry, series: LatestSeries, attributes: AttributeService
    ) -> None:
        self._registry = registry
        self._series = series
        self._attributes = attributes

    async def count(self, query: CountQuery, sees: Sees) -> int:
        """How many of the devices that a caller sees match."""
        total = 0
        async for batch in self._matching(query, None, (), sees):
            total += len(batch)
        return total

    async def find(self, query: DataQuery, sees: Sees) -> Found:
        """One page of them."""
        link = query.page_link
        if link.page_size < 1 or link.page < 0:
            raise PeerError("pageLink should have a pageSize of at least 1 and a page from 0")
        order = link.sort_order
        needed = [order.key] if order is not None else []
        rows = [
            (_sort_key(values.get(order.key)) if order is not None else (0, 0.0, ""), device.id)
            async for batch in self._matching(query, link, needed, sees)
            for device, values in batch
        ]
        rows.sort(reverse=order is not None and order.direction == "DESC")
        first = link.page * link.page_size
        return Found([id for _key, id in rows[first : first + link.page_size]], len(rows))

    async def values(self, ids: Iterable[str], keys: Sequence[Key]) -> list[tuple[Device, Values]]:
        """Values of devices; those deleted meanwhile are left out."""
        devices = []
        for device_id in ids:
            try:
                devices.append(await self._registry.device(device_id))
            except NotFound:
                continue
        return await self._with_values(devices, keys)

    async def key_names(
        self, query: CountQuery, sees: Sees, scopes: Sequence[Scope] = SCOPES
    ) -> tuple[list[str], list[str]]:
        """Names of series and of attributes that matching devices have.

        At most `limits.REST_KEYS_DEVICES` of them are looked at.
        """
        numbers: list[int] = []
        async for batch in self._matching(query, None, (), sees):
            numbers += [device.number for device, _values in batch]
            if len(numbers) >= limits.REST_KEYS_DEVICES:
                break
        return await self.names_of(numbers[: limits.REST_KEYS_DEVICES], scopes)

    async def names_of(
        self, numbers: Sequence[int], scopes: Sequence[Scope]
    ) -> tuple[list[str], list[str]]:
        """Names of series and of attributes that these devices have, sorted."""
        series: set[str] = set()
        attributes: set[str] = set()
        for number in numbers:
            series.update(await self._series.keys(number))
            for scope in scopes:
                attributes.update(a.name for a in self._attributes.stored(number, scope, None))
        return sorted(series), sorted(attributes)

    async def _matching(
        self, query: CountQuery, link: PageLink | None, needed: Sequence[Key], sees: Sees
    ) -> AsyncIterator[list[tuple[Device, Values]]]:
        """Matching devices with the values that were needed for that, batch by batch."""
        filters = query.key_filters or []
        combine = any if query.key_filters_operation == "OR" and filters else all
        keys = list(dict.fromkeys([*needed, *(f.key for f in filters)]))
        costly = any(key.type != "ENTITY_FIELD" for key in keys)
        text = ((link.text_search if link else None) or "").casefold()
        looked_at = 0
        async for batch in self._candidates(query.entity_filter):
            wanted = [d for d in batch if sees(d) and (not text or _mentions(d, text))]
            looked_at += len(wanted)
            if costly and looked_at > limits.REST_QUERY_DEVICES:
                raise PeerError(
                    f"the query would read values of more than {limits.REST_QUERY_DEVICES} "
                    "devices; narrow its entityFilter"
                )
            yield [
                (device, values)
                for device, values in await self._with_values(wanted, keys)
                if combine(holds(f.predicate, _text(values.get(f.key))) for f in filters)
            ]
            await asyncio.sleep(0)

    async def _candidates(self, wanted: Filter) -> AsyncIterator[list[Device]]:
        """Devices that pass the entity filter, in batches."""
        batch: list[Device] = []
        async for device in self._filtered(wanted):
            batch.append(device)
            if len(batch) >= limits.REST_SCAN_ROWS:
                yield batch
                batch = []
        yield batch

    async def _filtered(self, wanted: Filter) -> AsyncIterator[Device]:
        match wanted:
            case SingleEntity(entity):
                async for device in self._by_ids([entity.id]):
                    yield device
            case EntityList(_type, ids):
                async for device in self._by_ids(ids):
                    yield device
            case EntityName(_type, name):
                async for device in self._registry.all_devices():
                    if name_matches(name, device.name):
                        yield device
            case EntityType():
                async for device in self._registry.all_devices():
                    yield device
            case DeviceType(types, type_, name):
                names = types if types else [type_] if type_ else []
                if not names:
                    raise PeerError("a deviceType filter should have deviceTypes")
                for profile_name in dict.fromkeys(names):
                    profile = await self._registry.profiles.by_name(profile_name)
                    if profile is None:
                        continue
                    async for device in self._registry.devices_of(profile.id):
                        if name_matches(name or "", device.name):
                            yield device

    async def _by_ids(self, ids: Sequence[str]) -> AsyncIterator[Device]:
        for device_id in dict.fromkeys(id.lower() for id in ids):
            try:
                yield await self._registry.device(device_id)
            except NotFound:
                continue

    async def _with_values(
        self, devices: Sequence[Device], keys: Sequence[Key]
    ) -> list[tuple[Device, Values]]:
        found: list[Values] = [self._stored(device, keys) for device in devices]
        series = [key for key in keys if key.type == "TIME_SERIES"]
        if series and devices:
            texts = await self._series.latest_of(
                [device.number for device in devices], [key.key for key in series]
            )
            for values, text in zip(found, texts, strict=True):
                points = _points.decode(text)
                for key in series:
                    if points.get(key.key):
                        point = points[key.key][0]
                        values[key] = (point.ts, as_text(bytes(point.value)))
        return list(zip(devices, found, strict=True))

    def _stored(self, device: Device, keys: Sequence[Key]) -> Values:
        """Fields and attributes."""
        values: Values = {}
        for key in keys:
            if key.type == "ENTITY_FIELD":
                text = _field(device, key.key)
                if text is not None:
                    values[key] = (0, text)
            for scope in _SCOPES_OF.get(key.type, ()):
                stored = self._attributes.stored(device.number, scope, (key.key,))
                if stored:
                    values[key] = (stored[0].ts_ms, as_text(stored[0].text))
                    break
        return values


def _field(device: Device, name: str) -> str | None:
    match name:
        case "name":
            return device.name
        case "type":
            return device.type
        case "label":
            return device.label
        case "createdTime":
            return str(device.created_ms)
        case "entityType":
            return "DEVICE"
        case _:
            return None


def as_text(value: bytes) -> str:
    """A stored JSON text as clients read it: strings without quotes."""
    if value[:1] != b'"':
        return value.decode("utf-8", "replace")
    return str(json.loads(value.decode("utf-8", "replace"), strict=False))


def _text(value: Value | None) -> str | None:
    return None if value is None else value[1]


def _mentions(device: Device, text: str) -> bool:
    return text in device.name.casefold() or text in (device.label or "").casefold()


def _sort_key(value: Value | None) -> tuple[int, float, str]:
    """Missing ones first, numbers by size, then texts."""
    text = _text(value)
    if text is None:
        return (0, 0.0, "")
    number = number_of(text)
    return (2, 0.0, text.casefold()) if number is None else (1, number, "")
