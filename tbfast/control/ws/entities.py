"""Devices that match a query, with values and their changes (REST spec 14.5).

The page is found once; who enters it later is not followed, as in ThingsBoard without `dynamic`.
Values of its devices are.  A device that is deleted, or that the caller does not see any more,
leaves it: the page is sent again without it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.control.queries import EntityQueries
from tbfast.control.rest import shapes
from tbfast.control.rest.callers import Caller
from tbfast.control.rest.queries import EntityData, entity_data
from tbfast.control.services import Services
from tbfast.control.ws.history import Histories, History, Points, Room
from tbfast.control.ws.messages import WatchEntities, part
from tbfast.control.ws.updates import BAD_REQUEST, Point, json_string
from tbfast.control.ws.watches import EARLY_BYTES, Watch, Watches
from tbfast.errors import NotFound, PeerError
from tbfast.model.device import Device
from tbfast.model.entity_query import DataQuery, Key, KeyType, PageLink
from tbfast.store.attributes import Scope

_SCOPES: Final[dict[KeyType, Scope | None]] = {
    "ATTRIBUTE": None,
    "SERVER_ATTRIBUTE": "SERVER_SCOPE",
    "SHARED_ATTRIBUTE": "SHARED_SCOPE",
    "CLIENT_ATTRIBUTE": "CLIENT_SCOPE",
}

Send = Callable[[bytes], None]
SendAnswer = Callable[[bytes], Awaitable[None]]


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
        self,
        cmd_id: int,
        caller: Caller,
        services: Services,
        histories: Histories,
        watches: Watches,
        send: Send,
        send_answer: SendAnswer,
    ) -> None:
        self._cmd_id = cmd_id
        self._caller = caller
        self._services = services
        self._histories = histories
        self._watches = watches
        self._send = send
        self._send_answer = send_answer
        self._queries = EntityQueries(services.registry, services.series, services.attributes)
        self._devices: dict[str, Device] = {}  # of the page, by id
        self._stops: dict[str, list[Callable[[], None]]] = {}  # by id of the device
        self._ended = False
        self._asked: list[Key] = []  # what the query shows
        self._keys: list[Key] = []  # what the page shows: these and the latest values
        self._link = PageLink(page_size=1, page=0)
        self._total = 0
        self._busy = asyncio.Lock()

    def stop(self) -> None:
        """Ends it."""
        self._ended = True
        self._watch_nothing()

    def _watch_nothing(self) -> None:
        for device_id in list(self._stops):
            self._drop(device_id)

    def concerns(self, device_id: str) -> bool:
        """Whether a change of this device is one of the page, or may be: it is being found."""
        return device_id in self._devices or self._busy.locked()

    async def drop_hidden(self, device_ids: Iterable[str] | None) -> None:
        """Of these (None: of all) devices those that are not there, or not to be seen, leave.

        Tells if one did.
        """
        async with self._busy:
            looked_at = self._devices if device_ids is None else device_ids
            gone = [
                device_id
                for device_id in looked_at
                if device_id in self._devices and not await self._sees(device_id)
            ]
            for device_id in gone:
                self._drop(device_id)
                del self._devices[device_id]
            if gone:
                self._total -= len(gone)
                data = await self._data(self._keys, None)
                if not self._ended:
                    self._send(self._page(data))

    async def _sees(self, device_id: str) -> bool:
        try:
            return self._caller.sees(await self._services.registry.device(device_id))
        except NotFound:
            return False

    def _drop(self, device_id: str) -> None:
        for stop in self._stops.pop(device_id, ()):
            stop()

    async def carry_out(self, command: WatchEntities) -> None:
        """A new query, or more of the devices of the former one."""
        async with self._busy:
            await self._carry_out(command)

    async def _carry_out(self, command: WatchEntities) -> None:
        latest = part(command.latest_cmd, _Latest)
        live, past = part(command.ts_cmd, History), part(command.history_cmd, History)
        wanted = list(latest.keys) if latest is not None else []
        query = part(command.query, DataQuery)
        if query is None and not self._devices and (latest or live or past):
            raise PeerError("there is no query with this cmdId", code=BAD_REQUEST)
        if query or latest or live or past:
            self._watch_nothing()  # the command takes the place of the one before, as ThingsBoard
        if query is not None:
            self._devices = {}
            await self._find(query)
            self._asked = [*(query.entity_fields or ()), *(query.latest_values or ())]
        if query or wanted:
            self._keys = list(dict.fromkeys([*self._asked, *wanted]))
        try:
            await self._begin(wanted, live, past, page=query is not None)
        except BaseException:
            self._watch_nothing()
            raise

    async def _begin(
        self, wanted: list[Key], live: History | None, past: History | None, *, page: bool
    ) -> None:
        """Sends the values there are, and from then on their changes."""
        started = [one for d in self._devices.values() for one in self._watch(d, wanted, live)]
        data = await self._data(self._keys if page else wanted, live or past)
        if page:
            await self._send_answer(self._page(data))
        elif data:
            await self._send_answer(self._reply(None, data))
        sent = {one.entity_id.id: one for one in data}
        for device_id, type_, watch in started:
            if device_id in sent:
                one = sent[device_id]
                watch.begin(_flowed(one) if type_ is None else _seen(one, type_))

    async def _find(self, query: DataQuery) -> None:
        """The devices of the page."""
        if query.page_link.page_size > limits.WS_ENTITIES:
            raise PeerError(
                f"pageSize should be at most {limits.WS_ENTITIES} in a subscription",
                code=BAD_REQUEST,
            )
        found = await self._queries.find(query, self._caller.sees)
        values = await self._queries.values(found.ids, ())
        self._devices = {device.id: device for device, _ in values}
        self._link, self._total = query.page_link, found.total

    async def _data(self, keys: Sequence[Key], history: History | None) -> list[EntityData]:
        data: list[EntityData] = []
        room = Room()
        for device, values in await self._queries.values(list(self._devices), keys):
            one = entity_data(device, values, list(keys))
            if history is not None:
                series = await self._histories.read(device.number, history, _shown, room)
                filled = {key: series.get(key, []) for key in history.keys or ()}
                one = msgspec.structs.replace(one, timeseries=filled)
            data.append(one)
        return data

    def _page(self, data: list[EntityData]) -> bytes:
        tail = shapes.page_tail(self._link.page, self._link.page_size, self._total)
        return self._reply({"data": data, **msgspec.to_builtins(tail)}, None)

    # --- changes -----------------------------------------------------------------------------

    def _watch(
        self, device: Device, keys: Iterable[Key], live: History | None
    ) -> list[tuple[str, KeyType | None, Watch]]:
        """Watches with their device and type; None: of a series, not of the latest."""
        by_type: dict[KeyType, list[str]] = {}
        for key in keys:
            by_type.setdefault(key.type, []).append(key.key)
        started: list[tuple[str, KeyType | None, Watch]] = []
        for type_, names in by_type.items():
            if type_ == "ENTITY_FIELD":
                continue  # a device's own fields change by hand
            watch = Watch(names, partial(self._changed, device.id, type_))
            started.append((device.id, type_, watch))
            if type_ == "TIME_SERIES":
                stop = self._watches.watch_series(device.number, watch)
            else:
                scope = _SCOPES[type_]
                stop = self._watches.watch_attributes(device.number, scope, watch)
            self._stops.setdefault(device.id, []).append(stop)
        if live is not None and live.keys:
            room = EARLY_BYTES // len(self._devices)
            watch = Watch(live.keys, partial(self._flowed, device.id), room)
            started.append((device.id, None, watch))
            stop = self._watches.watch_series(device.number, watch)
            self._stops.setdefault(device.id, []).append(stop)
        return started

    def _changed(self, device_id: str, type_: str, values: dict[str, list[Point]]) -> None:
        latest = {key: _value(points[0]) for key, points in values.items()}
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
        changed = _Changed(shapes.EntityId("DEVICE", device_id), latest, timeseries)
        self._send(self._reply(None, [changed]))

    def _reply(self, data: Any, update: Any) -> bytes:
        answer = {
            "cmdId": self._cmd_id,
            "data": data,
            "update": update,
            "errorCode": 0,
            "errorMsg": None,
            "cmdUpdateType": "ENTITY_DATA",
            "allowedEntities": limits.WS_ENTITIES,
        }
        return msgspec.json.encode(answer)


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


def _value(point: Point) -> dict[str, Any]:
    return {"ts": point[0], "value": msgspec.Raw(json_string(point[1]))}


def _shown(points: Points) -> dict[str, list[dict[str, Any]]]:
    return {key: [_value(point) for point in found] for key, found in points.items()}


def _seen(data: EntityData, type_: KeyType) -> dict[str, list[Point]]:
    """The values that were just sent: neither they nor what is older are news."""
    values = data.latest.get(type_, {})
    return {
        key: [(value.ts, msgspec.json.encode(value.value))]
        for key, value in values.items()
        if value.ts or value.value
    }


def _flowed(data: EntityData) -> dict[str, list[Point]]:
    """Likewise the newest point of each series."""
    found: dict[str, list[Point]] = {}
    for key, points in data.timeseries.items():
        if points:
            newest = max(points, key=lambda point: int(point["ts"]))
            found[key] = [(newest["ts"], bytes(newest["value"]))]
    return found
