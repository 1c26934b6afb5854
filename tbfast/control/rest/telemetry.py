"""Stored telemetry over REST (REST spec 7).

The series reader answers JSON text, which is passed on untouched.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast import limits
from tbfast._ext.stringify import stringified
from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.long_answers import LongAnswer, LongAnswers
from tbfast.control.services import SeriesReader, SeriesWriter
from tbfast.errors import PeerError
from tbfast.model.ranges import Aggregation, IntervalType, RangeQuery

DEFAULT_LIMIT: Final = 100
_PREFIX: Final = "/api/plugins/telemetry/DEVICE/{id}"
_SHORT_POINTS: Final = 1_000  # of a key: no room is set aside for so few
_INLINE_BYTES: Final = 65_536  # longer answers are turned into strings outside the loop
_LEAST: Final = -(1 << 63)
_NULL: Final = msgspec.Raw(b"null")


class _Point(msgspec.Struct):
    ts: int
    value: msgspec.Raw


class TelemetryRoutes:
    """Endpoints on top of the series reader."""

    def __init__(self, registry: Registry, series: SeriesReader, writer: SeriesWriter) -> None:
        self._registry = registry
        self._series = series
        self._writer = writer
        self._long = LongAnswers()

    def endpoints(self) -> list[Endpoint]:
        """Paths below /api/plugins/telemetry."""
        return [
            Endpoint("GET", _PREFIX + "/keys/timeseries", self.keys, "user"),
            Endpoint("GET", _PREFIX + "/values/timeseries", self.values, "user"),
            Endpoint("GET", _PREFIX + "/values/timeseries/history", self.history, "user"),
            Endpoint("POST", _PREFIX + "/timeseries/{scope}", self.save, "user"),
            Endpoint("POST", _PREFIX + "/timeseries/{scope}/{ttl}", self.save, "user"),
        ]

    async def keys(self, request: Request) -> Response:
        """GET keys/timeseries: names of the stored series."""
        return _json(msgspec.json.encode(await self._series.keys(await self._number(request))))

    async def values(self, request: Request) -> Response:
        """GET values/timeseries: history with both startTs and endTs, latest values otherwise."""
        if request.query_params.get("startTs") and request.query_params.get("endTs"):
            return await self.history(request)
        number = await self._number(request)
        strict = params.flag(request, "useStrictDataTypes")
        keys = params.keys(request)
        text = await self._series.latest(number, keys)
        if keys is not None:
            text = _with_missing(text, keys, time.time_ns() // 1_000_000)
        return _json(text if strict else await _as_strings(text))

    async def history(self, request: Request) -> Response:
        """GET values/timeseries/history; unlike ThingsBoard either end and keys may be left out."""
        number = await self._number(request)
        strict = params.flag(request, "useStrictDataTypes")
        query = _range_query(request, strings=not strict)
        start, end = query.start_ms, query.end_ms
        if start is not None and end is not None and start >= end:
            return _json(b"{}")
        long = not query.aggregates and query.limit > _SHORT_POINTS
        share = await self._long.take(limits.REST_ANSWER_BYTES if long else 0)
        with share.unless_failed():
            try:
                text = await self._series.range(number, query)
            except PeerError as error:
                raise bad_request(str(error)) from error
        share.shrink(len(text))
        return LongAnswer(text, share.free)

    async def save(self, request: Request) -> Response:
        """POST timeseries/{scope}[/{ttl}]: what a device would send; scope and ttl do not matter.

        Retention is a matter of the node, so that rows cannot live shorter or longer than others.
        """
        number = await self._number(request)
        if not request.path_params.get("ttl", "0").isdecimal():
            raise bad_request("The TTL should be a number of seconds")
        try:
            points = await self._writer.save(number, await params.raw_body(request))
        except PeerError as error:
            raise bad_request(f"Request is no telemetry: {error}") from error
        if not points:
            raise bad_request("No timeseries data found in request body!")
        return Response()

    async def _number(self, request: Request) -> int:
        device = await visible_device(request, self._registry)
        return device.number


def _time(request: Request, name: str) -> int | None:
    if not request.query_params.get(name):
        return None
    return params.integer(request, name, least=_LEAST)


def _range_query(request: Request, *, strings: bool) -> RangeQuery:
    keys = params.keys(request)
    query = RangeQuery(
        keys=None if keys is None else tuple(keys),
        start_ms=_time(request, "startTs"),
        end_ms=_time(request, "endTs"),
        ascending=not params.descending(request, "orderBy", "DESC"),
        aggregation=params.choice(request, "agg", Aggregation, "NONE"),
        interval_ms=params.integer(request, "interval", 0),
        interval_type=params.choice(request, "intervalType", IntervalType, "MILLISECONDS"),
        time_zone=request.query_params.get("timeZone") or "UTC",
        strings=strings,
    )
    # Buckets have no limit, so whatever it says is no mistake there.
    limit = params.integer(request, "limit", DEFAULT_LIMIT, least=_LEAST if query.aggregates else 1)
    return msgspec.structs.replace(query, limit=min(max(limit, 1), limits.REST_POINTS))


def _with_missing(text: bytes, keys: Sequence[str], now_ms: int) -> bytes:
    """Latest values where a key asked for and absent has the value null and the present time."""
    series = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    missing = {key: [_Point(now_ms, _NULL)] for key in keys if key not in series}
    return msgspec.json.encode({**series, **missing}) if missing else text


async def _as_strings(text: bytes) -> bytes:
    if len(text) <= _INLINE_BYTES:
        return stringified(text)
    return await asyncio.to_thread(stringified, text)


def _json(text: bytes) -> Response:
    return Response(text, media_type="application/json")
