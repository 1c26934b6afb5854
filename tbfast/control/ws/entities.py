"""Devices that match a query, with values and their changes (REST spec 14.5).

The page is found once; who enters or leaves it later is not followed, as in ThingsBoard without
`dynamic`.  Values of its devices are.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.control.queries import EntityQueries
from tbfast.control.rest import shapes
from tbfast.control.rest.callers import Caller
from tbfast.control.rest.queries import EntityData, entity_data
from tbfast.control.services import Services
from tbfast.control.ws.history import History, read_history
from tbfast.control.ws.messages import CountEntities, WatchEntities
from tbfast.control.ws.updates import BAD_REQUEST, Point, json_string
from tbfast.control.ws.watches import Watch, Watches
from tbfast.errors import PeerError
from tbfast.model.device import Device
from tbfast.model.entity_query import CountQuery, DataQuery, Key, KeyType
from tbfast.store.attributes import Scope

COUNT_S: Final = 10.0  # a count is looked at again so often

_SCOPES: Final[dict[KeyType, Scope | None]] = {
    "ATTRIBUTE": None,
    "SERVER_ATTRIBUTE": "SERVER_SCOPE",
    "SHARED_ATTRIBUTE": "SHARED_SCOPE",
    "CLIENT_ATTRIBUTE": "CLIENT_SCOPE",
}

Send = Callable[[bytes], None]


class _Latest(msgspec.Struct, frozen=True):
    keys: list[Key] = []


class _Changed(msgspec.Struct, frozen=True, rename="camel"):
    """One device of an update: nothing but what is new."""

    entity_id: shapes.EntityId
    latest: dict[str, dict[str, Any]]
    timeseries: dict[str, list[Any]]
    agg_latest: dict[str, Any] = {}


class EntitySubscription:
    """One cmdId: the devices of its page and what is watched of them."""

    def __init__(
        self, cmd_id: int, caller: Caller, services: Services, watches: Watches, send: Send
    ) -> None:
        self._cmd_id = cmd_id
        self._caller = caller
        self._services = services
        self._watches = watches
        self._send = send
        self._queries = EntityQueries(services.registry, services.series, services.attributes)
        self._devices: list[Device] = []
        self._stops: list[Callable[[], None]] = []

    def stop(self) -> None:
        """Ends what is watched."""
        for stop in self._stops:
            stop()
        self._stops.clear()

    async def carry_out(self, command: WatchEntities) -> None:
        """A new query, or more of the devices of the former one."""
        latest = _part(command.latest_cmd, _Latest)
        live, past = _part(command.ts_cmd, History), _part(command.history_cmd, History)
        wanted = list(latest.keys) if latest is not None else []
        query = _part(command.query, DataQuery)
        if query is not None:
            self.stop()
            self._devices = []
        elif not self._devices and (latest or live or past):
            raise PeerError("there is no query with this cmdId", code=BAD_REQUEST)
        if query is not None:
            found = await self._found(query)
            self._devices = found[0]
        started = [one for d in self._devices for one in self._watch(d, wanted, live)]
        keys = [*(query.entity_fields or ()), *(query.latest_values or ())] if query else []
        keys = list(dict.fromkeys([*keys, *wanted]))
        data = await self._data(keys, live or past)
        if query is not None:
            link = query.page_link
            tail = shapes.page_tail(link.page, link.page_size, found[1])
            page = {"data": data, **msgspec.to_builtins(tail)}
            self._reply(page, None)
        elif data:
            self._reply(None, data)
        sent = {one.entity_id.id: one for one in data}
        for device_id, type_, watch in started:
            if device_id in sent:
                watch.begin(_seen(sent[device_id], type_))

    async def _found(self, query: DataQuery) -> tuple[list[Device], int]:
        if query.page_link.page_size > limits.WS_ENTITIES:
            raise PeerError(
                f"pageSize should be at most {limits.WS_ENTITIES} in a subscription",
                code=BAD_REQUEST,
            )
        found = await self._queries.find(query, self._caller.sees)
        values = await self._queries.values(found.ids, ())
        return [device for device, _ in values], found.total

    async def _data(self, keys: Sequence[Key], history: History | None) -> list[EntityData]:
        ids = [device.id for device in self._devices]
        data: list[EntityData] = []
        for device, values in await self._queries.values(ids, keys):
            one = entity_data(device, values, list(keys))
            if history is not None:
                points = await read_history(self._services.series, device.number, history)
                series = {key: [_value(p) for p in found] for key, found in points.items()}
                filled = {key: series.get(key, []) for key in history.keys or ()}
                one = msgspec.structs.replace(one, timeseries=filled)
            data.append(one)
        # One that was deleted meanwhile has nothing to show and nothing to watch.
        shown = {one.entity_id.id for one in data}
        self._devices = [device for device in self._devices if device.id in shown]
        return data

    # --- changes -----------------------------------------------------------------------------

    def _watch(
        self, device: Device, keys: Iterable[Key], live: History | None
    ) -> list[tuple[str, KeyType, Watch]]:
        by_type: dict[KeyType, list[str]] = {}
        for key in keys:
            by_type.setdefault(key.type, []).append(key.key)
        started: list[tuple[str, KeyType, Watch]] = []
        for type_, names in by_type.items():
            if type_ == "ENTITY_FIELD":
                continue  # a device's own fields change by hand
            watch = Watch(names, partial(self._changed, device.id, type_))
            started.append((device.id, type_, watch))
            if type_ == "TIME_SERIES":
                self._stops.append(self._watches.watch_series(device.number, watch))
            else:
                scope = _SCOPES[type_]
                self._stops.append(self._watches.watch_attributes(device.number, scope, watch))
        if live is not None and live.keys:
            watch = Watch(live.keys, partial(self._flowed, device.id))
            started.append((device.id, "TIME_SERIES", watch))
            self._stops.append(self._watches.watch_series(device.number, watch))
        return started

    def _changed(self, device_id: str, type_: str, values: dict[str, list[Point]]) -> None:
        latest = {key: _value(points[-1]) for key, points in values.items() if points}
        self._update(device_id, {type_: latest}, {})

    def _flowed(self, device_id: str, values: dict[str, list[Point]]) -> None:
        series = {key: [_value(point) for point in points] for key, points in values.items()}
        self._update(device_id, {}, series)

    def _update(
        self,
        device_id: str,
        latest: dict[str, dict[str, Any]],
        timeseries: dict[str, list[Any]],
    ) -> None:
        self._reply(None, [_Changed(shapes.EntityId("DEVICE", device_id), latest, timeseries)])

    def _reply(self, data: Any, update: Any) -> None:
        answer = {
            "cmdId": self._cmd_id,
            "data": data,
            "update": update,
            "errorCode": 0,
            "errorMsg": None,
            "cmdUpdateType": "ENTITY_DATA",
            "allowedEntities": limits.WS_ENTITIES,
        }
        self._send(msgspec.json.encode(answer))


class CountSubscription:
    """One cmdId: a number, and again whenever it has become another."""

    def __init__(
        self,
        cmd_id: int,
        caller: Caller,
        services: Services,
        send: Send,
        failed: Callable[[PeerError], None],
    ) -> None:
        self._cmd_id = cmd_id
        self._caller = caller
        self._queries = EntityQueries(services.registry, services.series, services.attributes)
        self._send = send
        self._failed = failed
        self._count = -1
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()

    async def carry_out(self, command: CountEntities) -> None:
        """The number now, and its changes from now on."""
        query = _part(command.query, CountQuery)
        if query is None:
            raise PeerError("query is missing", code=BAD_REQUEST)
        await self._look(query)
        self._task = asyncio.create_task(self._follow(query))

    async def _follow(self, query: CountQuery) -> None:
        while True:
            await asyncio.sleep(COUNT_S)
            try:
                await self._look(query)
            except PeerError as error:  # the devices have become too many for it
                self._failed(error)
                return

    async def _look(self, query: CountQuery) -> None:
        count = await self._queries.count(query, self._caller.sees)
        if count != self._count:
            self._count = count
            answer = {
                "cmdId": self._cmd_id,
                "count": count,
                "cmdUpdateType": "COUNT_DATA",
                "errorCode": 0,
                "errorMsg": None,
            }
            self._send(msgspec.json.encode(answer))


def failure(cmd_id: int, code: int, message: str, kind: str) -> bytes:
    """The command is not served; the connection stays."""
    return msgspec.json.encode(
        {
            "cmdId": cmd_id,
            "data": None,
            "update": None,
            "errorCode": code,
            "errorMsg": message,
            "cmdUpdateType": kind,
        }
    )


def _part(raw: msgspec.Raw, type_: Any) -> Any:
    """A part of a command, None where it is missing; PeerError if it cannot be understood."""
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"the command cannot be understood: {error}", code=BAD_REQUEST) from error


def _value(point: Point) -> dict[str, Any]:
    return {"ts": point[0], "value": msgspec.Raw(json_string(point[1]))}


def _seen(data: EntityData, type_: KeyType) -> dict[str, list[Point]]:
    """Times of the values that were just sent: what is older is no news."""
    values = data.latest.get(type_, {})
    return {key: [(value.ts, b"")] for key, value in values.items() if value.ts}
