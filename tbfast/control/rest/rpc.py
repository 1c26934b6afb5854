"""Calls of devices over REST (REST spec 8)."""

import time
import uuid
from functools import partial
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast import limits
from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.control.rpc import Mode, RpcService, RpcTimeout
from tbfast.errors import Conflict
from tbfast.model.rpc import PersistentCall

DEFAULT_TIMEOUT_MS: Final = 10_000
LEAST_TIMEOUT_MS: Final = 5_000
LONGEST_TIMEOUT_MS: Final = 315_360_000_000  # ten years

_NULL: Final = msgspec.Raw(b"null")


class _Body(msgspec.Struct, rename="camel"):
    method: str
    params: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)
    timeout: int | None = None
    expiration_time: int | None = None
    persistent: bool | None = None
    retries: int | None = None
    additional_info: msgspec.Raw = msgspec.field(default_factory=lambda: _NULL)
    request_uuid: str | None = msgspec.field(default=None, name="requestUUID")


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
        body = await params.body(request, _Body, strict=False)  # "timeout": "5000", as ThingsBoard
        if not body.method.strip():
            raise bad_request("The RPC method should be specified!")
        given = None if body.request_uuid is None else params.entity_id(body.request_uuid)
        now_ms = time.time_ns() // 1_000_000
        timeout_ms = max(body.timeout or DEFAULT_TIMEOUT_MS, LEAST_TIMEOUT_MS)
        if body.expiration_time is not None:
            timeout_ms = body.expiration_time - now_ms
            if timeout_ms <= 0:
                return Response(status_code=absent)
        if timeout_ms > LONGEST_TIMEOUT_MS:
            raise bad_request(f"A call may wait at most {LONGEST_TIMEOUT_MS} ms")
        compact = _compact(body.params, limits.RPC_CALL_BYTES - len(body.method), "method, params")
        if body.persistent:
            info = _compact(body.additional_info, limits.RPC_INFO_BYTES, "additionalInfo")
            wanted = PersistentCall(
                id=given or str(uuid.uuid4()),
                device_id=device.id,
                device=device.number,
                number=0,
                created_ms=now_ms,
                expires_ms=now_ms + timeout_ms,
                oneway=mode == "oneway",
                method=body.method,
                params=compact,
                retries=None if body.retries is None else max(body.retries, 0),
                info=b"" if info == b"null" else info,
            )
            return json_answer({"rpcId": await self._kept(wanted)})
        try:
            answer = await self._rpc.call(
                device.number, body.method, compact, mode, timeout_ms / 1000
            )
        except RpcTimeout as error:
            return Response(status_code=no_answer if error.delivered else absent)
        if not answer:
            return Response()
        answer = answer.decode("utf-8", "replace").encode()
        try:
            msgspec.json.decode(answer, type=msgspec.Raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return Response(status_code=406)
        return Response(answer, media_type="application/json")

    async def _kept(self, wanted: PersistentCall) -> str:
        """The id of the call; the same request again, by its requestUUID, makes no second one."""
        try:
            await self._rpc.keep(wanted)
        except Conflict:
            present = await self._registry.calls.get(wanted.id)
            if _asked(present) != _asked(wanted):
                raise
        return wanted.id


def _asked(call: PersistentCall) -> tuple[object, ...]:
    return call.device_id, call.oneway, call.method, call.params


def _compact(raw: msgspec.Raw, most: int, what: str) -> bytes:
    """The same JSON without white space."""
    text = msgspec.json.encode(msgspec.json.decode(bytes(raw), type=Any))
    if len(text) > most:
        raise bad_request(f"{what}: too long, by {len(text) - most} bytes")
    return text
