"""Calls of devices over REST (REST spec 8)."""

import time
from functools import partial
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.control.rpc import Mode, RpcService, RpcTimeout

DEFAULT_TIMEOUT_MS: Final = 10_000
LEAST_TIMEOUT_MS: Final = 5_000

_NULL: Final = msgspec.Raw(b"null")


class _Body(msgspec.Struct, rename="camel"):
    method: str
    params: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)
    timeout: int | None = None
    expiration_time: int | None = None
    persistent: bool = False


class RpcRoutes:
    """Endpoints on top of the RPC service; two generations differ in what a timeout is answered."""

    def __init__(self, registry: Registry, rpc: RpcService) -> None:
        self._registry = registry
        self._rpc = rpc

    def endpoints(self) -> list[Endpoint]:
        """Paths below /api/rpc and /api/plugins/rpc."""
        modes: tuple[Mode, Mode] = ("oneway", "twoway")
        return [
            Endpoint(
                "POST",
                f"{prefix}/{mode}/{{id}}",
                partial(self._call, mode=mode, no_answer=no_answer, absent=absent),
                "user",
                body=_Body,
            )
            for prefix, no_answer, absent in (
                ("/api/rpc", 504, 504),
                ("/api/plugins/rpc", 408, 409),
            )
            for mode in modes
        ]

    async def _call(self, request: Request, *, mode: Mode, no_answer: int, absent: int) -> Response:
        """POST {mode}/{deviceId}: the device's answer verbatim; empty for a one-way call."""
        device = await visible_device(request, self._registry)
        body = await params.body(request, _Body)
        if not body.method.strip():
            raise bad_request("The RPC method should be specified!")
        if body.persistent:
            raise bad_request("persistent RPC is not served by this version")
        timeout_ms = max(body.timeout or DEFAULT_TIMEOUT_MS, LEAST_TIMEOUT_MS)
        if body.expiration_time is not None:
            timeout_ms = body.expiration_time - time.time_ns() // 1_000_000
            if timeout_ms <= 0:
                return Response(status_code=absent)
        compact = msgspec.json.encode(msgspec.json.decode(bytes(body.params), type=Any))
        try:
            answer = await self._rpc.call(
                device.number, body.method, compact, mode, timeout_ms / 1000
            )
        except RpcTimeout as error:
            return Response(status_code=no_answer if error.delivered else absent)
        if not answer:
            return Response()
        try:
            msgspec.json.decode(answer, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Response(status_code=406)
        return Response(answer, media_type="application/json")
