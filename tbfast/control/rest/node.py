"""tbfast's own paths: the live stream and the state of the node."""

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast import limits
from tbfast.control.registry import Registry
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.services import LiveFeed, LiveRows, NodeStatus
from tbfast.errors import ResourceError
from tbfast.model.device import Change, Device


class _LiveRow(msgspec.Struct):
    device: int
    ts: int
    key: str
    value: msgspec.Raw


class _TailRow(msgspec.Struct):
    device: str
    id: str
    ts: int
    key: str
    value: msgspec.Raw


_decoder = msgspec.json.Decoder(_LiveRow)
_encoder = msgspec.json.Encoder()


class NodeRoutes:
    """Endpoints on top of the live feed and the node's status."""

    def __init__(self, registry: Registry, live: LiveFeed, node: NodeStatus) -> None:
        self._registry = registry
        self._live = live
        self._node = node

    def endpoints(self) -> list[Endpoint]:
        """Paths that ThingsBoard does not have."""
        return [
            Endpoint("GET", "/api/tail", self.tail, "owner"),
            Endpoint("GET", "/api/node", self.status, "owner"),
        ]

    async def status(self, _request: Request) -> Response:
        """GET /api/node: version, processes, journals."""
        body = msgspec.json.encode(await self._node.status())
        return Response(body, media_type="application/json")

    async def tail(self, request: Request) -> Response:
        """GET /api/tail?device=X: lines {"device":name,"id":..,"ts":..,"key":..,"value":..}.

        X is an id or a name; ``device`` may be repeated; without it every device is followed.
        """
        wanted = request.query_params.getlist("device")
        numbers = frozenset([(await self._named(text)).number for text in wanted])
        rows = self._live.subscribe(numbers if wanted else None)
        return StreamingResponse(self._lines(rows), media_type="application/x-ndjson")

    async def _named(self, text: str) -> Device:
        device = await self._registry.device_by_name(text)
        return device if device is not None else await self._registry.device(text.lower())

    async def _lines(self, rows: LiveRows) -> AsyncIterator[bytes]:
        """Rows with device names; those of devices deleted meanwhile are left out."""
        known: dict[int, Device | None] = {}

        def forget(change: Change) -> None:
            known.pop(change.number, None)

        stop = self._registry.subscribe(forget)
        try:
            async for chunk in rows:
                found: list[_TailRow] = []
                for row in _decoder.decode_lines(chunk):
                    if row.device not in known:
                        if len(known) >= limits.REST_TAIL_CACHE_DEVICES:
                            known.clear()
                        known[row.device] = await self._registry.device_by_number(row.device)
                    device = known[row.device]
                    if device is not None:
                        found.append(_TailRow(device.name, device.id, row.ts, row.key, row.value))
                if found:
                    yield _encoder.encode_lines(found)
        except ResourceError:
            return  # too slow: the stream ends, and the reader may ask again
        finally:
            stop()
            await rows.aclose()
