"""Sealing and backups, for the owner of the data directory."""

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.services import StoreUpkeep


class UpkeepRoutes:
    """Endpoints on top of the stores' upkeep."""

    def __init__(self, upkeep: StoreUpkeep) -> None:
        self._upkeep = upkeep

    def endpoints(self) -> list[Endpoint]:
        """Paths that ThingsBoard does not have."""
        return [
            Endpoint("POST", "/api/node/seal", self.seal, "owner"),
            Endpoint("POST", "/api/node/backup", self.backup, "owner"),
        ]

    async def seal(self, _request: Request) -> Response:
        """POST /api/node/seal: seals what is not sealed yet; says what that was."""
        body = msgspec.json.encode(await self._upkeep.seal())
        return Response(body, media_type="application/json")

    async def backup(self, _request: Request) -> Response:
        """POST /api/node/backup: a line with a snapshot, which exists while the answer is read."""
        lines = self._upkeep.snapshot()
        first = await anext(lines)  # its errors still have a status
        return StreamingResponse(_rest(first, lines), media_type="application/x-ndjson")


async def _rest(first: bytes, lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for line in lines:
            yield line
    finally:
        await lines.aclose()  # type: ignore[attr-defined]
