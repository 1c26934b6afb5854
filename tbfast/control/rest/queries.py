"""Entity queries, and which keys devices have, over REST (REST spec 5, 11)."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast import limits
from tbfast.control.queries import EntityQueries, Found, Values
from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of
from tbfast.control.rest.endpoints import Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.errors import PeerError
from tbfast.model.device import Device
from tbfast.model.entity_query import CountQuery, DataQuery, EntityType, Key
from tbfast.store.attributes import SCOPES, Scope


class _Value(msgspec.Struct, frozen=True):
    ts: int
    value: str


class EntityData(msgspec.Struct, frozen=True, rename="camel"):
    """One device of an answer; ``latest`` by key type and key."""

    entity_id: shapes.EntityId
    latest: dict[str, dict[str, _Value]]
    timeseries: dict[str, Any] = {}
    agg_latest: dict[str, Any] = {}


class KeyNames(msgspec.Struct, frozen=True, rename="camel"):
    """Answer to find/keys."""

    entity_types: list[str]
    timeseries: list[str]
    attribute: list[str]


_MISSING = _Value(0, "")


def entity_data(device: Device, values: Values, keys: list[Key]) -> EntityData:
    """A device with the values that were asked for; a missing one is an empty text."""
    latest: dict[str, dict[str, _Value]] = {}
    for key in keys:
        found = values.get(key)
        latest.setdefault(key.type, {})[key.key] = _MISSING if found is None else _Value(*found)
    return EntityData(shapes.EntityId("DEVICE", device.id), latest)


class QueryRoutes:
    """Endpoints on top of the entity queries."""

    def __init__(self, registry: Registry, queries: EntityQueries) -> None:
        self._registry = registry
        self._queries = queries

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        path, keys = "/api/entitiesQuery", "/api/deviceProfile/devices/keys"
        flags = (
            Query(name="timeseries", type=bool),
            Query(name="attributes", type=bool),
            Query(name="scope", type=Scope),
        )
        profile = (Query(name="deviceProfileId"),)
        return [
            Endpoint(
                "POST", path + "/find", self.find, "user",
                body=DataQuery, answer=shapes.Page[EntityData], public=True,
            ),
            Endpoint(
                "POST", path + "/count", self.count, "user",
                body=CountQuery, answer=int, public=True,
            ),
            Endpoint(
                "POST", path + "/find/keys", self.keys, "user",
                body=CountQuery, answer=KeyNames, query=flags, public=True,
            ),
            Endpoint(
                "GET", keys + "/timeseries", self.series_keys, "tenant",
                answer=list[str], query=profile,
            ),
            Endpoint(
                "GET", keys + "/attributes", self.attribute_keys, "tenant",
                answer=list[str], query=profile,
            ),
        ]  # fmt: skip

    async def find(self, request: Request) -> Response:
        """POST /api/entitiesQuery/find: a page of devices with values."""
        query = await params.body(request, DataQuery)
        try:
            found = await self._queries.find(query, caller_of(request).sees)
        except PeerError as error:
            raise bad_request(str(error)) from error
        return StreamingResponse(self._parts(query, found), media_type="application/json")

    async def count(self, request: Request) -> Response:
        """POST /api/entitiesQuery/count: a number."""
        query = await params.body(request, CountQuery)
        try:
            return json_answer(await self._queries.count(query, caller_of(request).sees))
        except PeerError as error:
            raise bad_request(str(error)) from error

    async def keys(self, request: Request) -> Response:
        """POST /api/entitiesQuery/find/keys: names of series and attributes."""
        query = await params.body(request, CountQuery)
        named = request.query_params.get("scope")
        scopes = (params.word(named, Scope),) if named else SCOPES
        try:
            series, attributes = await self._queries.key_names(
                query, caller_of(request).sees, scopes
            )
        except PeerError as error:
            raise bad_request(str(error)) from error
        return json_answer(
            KeyNames(
                ["DEVICE"],
                series if params.flag(request, "timeseries") else [],
                attributes if params.flag(request, "attributes") else [],
            )
        )

    async def series_keys(self, request: Request) -> Response:
        """GET /api/deviceProfile/devices/keys/timeseries[?deviceProfileId]."""
        return json_answer((await self._keys_of_profile(request))[0])

    async def attribute_keys(self, request: Request) -> Response:
        """GET /api/deviceProfile/devices/keys/attributes[?deviceProfileId]."""
        return json_answer((await self._keys_of_profile(request))[1])

    async def _keys_of_profile(self, request: Request) -> tuple[list[str], list[str]]:
        profile_id = request.query_params.get("deviceProfileId")
        if not profile_id:
            query = CountQuery(entity_filter=EntityType("DEVICE"))
            return await self._queries.key_names(query, caller_of(request).sees)
        profile = await self._registry.profiles.get(params.entity_id(profile_id))
        numbers = []
        async for device in self._registry.devices_of(profile.id):
            numbers.append(device.number)
            if len(numbers) >= limits.REST_KEYS_DEVICES:
                break
        return await self._queries.names_of(numbers, SCOPES)

    async def _parts(self, query: DataQuery, found: Found) -> AsyncIterator[bytes]:
        """The page as its values are read, so that a huge ``pageSize`` costs no memory."""
        keys = [*(query.entity_fields or ()), *(query.latest_values or ())]
        yield b'{"data":['
        separator = b""
        for start in range(0, len(found.ids), limits.REST_SCAN_ROWS):
            out = bytearray()
            ids = found.ids[start : start + limits.REST_SCAN_ROWS]
            for device, values in await self._queries.values(ids, keys):
                out += separator + msgspec.json.encode(entity_data(device, values, keys))
                separator = b","
            yield bytes(out)
        link = query.page_link
        tail = msgspec.json.encode(shapes.page_tail(link.page, link.page_size, found.total))
        yield b"]," + tail[1:]
