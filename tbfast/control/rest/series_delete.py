"""Deleting stored telemetry over REST (REST spec 7)."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.control.services import SeriesDeletes

_PATH: Final = "/api/plugins/telemetry/DEVICE/{id}/timeseries/delete"
_FIRST_MS: Final = -(1 << 63)


class SeriesDeleteRoutes:
    """One endpoint on top of the delete service."""

    def __init__(self, registry: Registry, deletes: SeriesDeletes) -> None:
        self._registry = registry
        self._deletes = deletes

    def endpoints(self) -> list[Endpoint]:
        """The path below /api/plugins/telemetry."""
        return [Endpoint("DELETE", _PATH, self.delete, "tenant")]

    async def delete(self, request: Request) -> Response:
        """DELETE timeseries/delete: 200 and an empty body once it is on disk.

        With deleteAllDataForKeys the times do not matter; points of the future go too.
        """
        device = await visible_device(request, self._registry)
        keys = params.keys(request)
        if keys is None:
            raise bad_request("Can't parse keys: name at least one in 'keys' or 'key'")
        start: int | None = None
        end: int | None = None
        if not params.flag(request, "deleteAllDataForKeys"):
            if not (request.query_params.get("startTs") and request.query_params.get("endTs")):
                raise bad_request(
                    "StartTs and endTs could not be empty when deleteAllDataForKeys equals [false]"
                )
            start = params.integer(request, "startTs", least=_FIRST_MS)
            end = params.integer(request, "endTs", least=_FIRST_MS)
        await self._deletes.delete(
            device.number,
            keys,
            start_ms=start,
            end_ms=end,
            latest=params.flag(request, "deleteLatest", default=True),
            rewrite_latest=params.flag(request, "rewriteLatestIfDeleted"),
        )
        return Response()
