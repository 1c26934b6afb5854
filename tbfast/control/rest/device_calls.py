"""Calls of the server by devices, fetched and answered by whoever handles them (tbfast's own)."""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tbfast import limits
from tbfast.control.device_calls import DeviceCalls, WaitingCall, strict_json
from tbfast.control.rest import params
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.errors import PeerError

_PATH: Final = "/api/rpc/calls"
_DEFAULT_TIMEOUT_MS: Final = 30_000


class DeviceCallRoutes:
    """A long poll and the answer to what it brings."""

    def __init__(self, calls: DeviceCalls) -> None:
        self._calls = calls

    def endpoints(self) -> list[Endpoint]:
        """Both paths."""
        return [
            Endpoint(
                "GET", _PATH, self.fetch, "tenant",
                answer=WaitingCall, query=(Query(name="timeout", type=int),),
            ),
            Endpoint("POST", _PATH + "/{id}", self.answer, "tenant"),
        ]  # fmt: skip

    async def fetch(self, request: Request) -> Response:
        """GET calls?timeout=ms: the call that has waited longest; 204 when none comes in time."""
        timeout_ms = params.integer(request, "timeout", _DEFAULT_TIMEOUT_MS)
        timeout_s = min(timeout_ms, limits.HTTP_POLL_TIMEOUT_MAX_MS) / 1000
        loop = asyncio.get_running_loop()
        fetching = loop.create_task(self._calls.fetch(timeout_s))
        leaving = loop.create_task(_left(request))
        try:
            await asyncio.wait({fetching, leaving}, return_when=asyncio.FIRST_COMPLETED)
            call = fetching.result() if fetching.done() else None
            if call is not None and leaving.done():
                await self._calls.give_back(call)
                call = None
        finally:
            fetching.cancel()
            leaving.cancel()
        return Response(status_code=204) if call is None else json_answer(call)

    async def answer(self, request: Request) -> Response:
        """POST calls/{id}: any JSON, which the device gets verbatim; 404 when it waits no more."""
        call_id = params.path_id(request)
        body = await params.raw_body(request)
        if len(body) > limits.RPC_ANSWER_BYTES:
            raise bad_request(f"The answer is longer than {limits.RPC_ANSWER_BYTES} bytes")
        try:
            self._calls.answered(call_id, strict_json(body))
        except PeerError as error:
            raise bad_request(str(error)) from error
        return Response()


async def _left(request: Request) -> None:
    """Returns when whoever asked has gone: a call must not be handed to nobody."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
