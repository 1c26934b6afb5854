"""Persistent calls of devices over REST (REST spec 8)."""

from typing import Any, Final, Literal, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of, refused, visible_device
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.paging import page_of
from tbfast.control.rpc import RpcService
from tbfast.model.rpc import PersistentCall, Status

_PATH: Final = "/api/rpc/persistent"
StatusWord = Literal[Status, "DELETED"]


class CallBody(msgspec.Struct, frozen=True):
    """What the device is told; the parameters as a string of JSON."""

    method: str
    params: str


class CallRequest(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The request that made a call."""

    id: str
    tenant_id: shapes.EntityId
    device_id: shapes.EntityId
    oneway: bool
    expiration_time: int
    body: CallBody
    persisted: bool = True
    retries: int | None


class RpcBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A persistent call as clients read it."""

    id: shapes.EntityId
    created_time: int
    tenant_id: shapes.EntityId
    device_id: shapes.EntityId
    expiration_time: int
    request: CallRequest
    response: msgspec.Raw
    status: Status
    additional_info: msgspec.Raw


class PersistentRpcRoutes:
    """Endpoints on top of the registry's calls; deleting goes through the RPC service."""

    def __init__(self, registry: Registry, rpc: RpcService) -> None:
        self._registry = registry
        self._rpc = rpc

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        return [
            Endpoint(
                "GET", _PATH + "/device/{id}", self.page, "user",
                answer=shapes.Page[RpcBody], query=(*PAGING, Query(name="rpcStatus", type=Status)),
            ),
            Endpoint("GET", _PATH + "/{id}", self.show, "user", answer=RpcBody),
            Endpoint("DELETE", _PATH + "/{id}", self.delete, "tenant"),
        ]  # fmt: skip

    async def show(self, request: Request) -> Response:
        """GET persistent/{id}."""
        return json_answer(self._shape(await self._visible(request)))

    async def page(self, request: Request) -> Response:
        """GET persistent/device/{deviceId}: a page, the newest last unless sorted otherwise."""
        device = await visible_device(request, self._registry)
        status = request.query_params.get("rpcStatus")
        if status and params.word(status, StatusWord) == "DELETED":
            raise bad_request("RpcStatus: DELETED")
        found = [
            call
            for call in await self._registry.calls.of_device(device.id)
            if not status or call.status == status
        ]
        return page_of(request, found, self._shape, text=_searched, sort=_SORT_KEYS)

    async def delete(self, request: Request) -> Response:
        """DELETE persistent/{id}: an open one is withdrawn."""
        await self._rpc.delete((await self._visible(request)).id)
        return Response()

    async def _visible(self, request: Request) -> PersistentCall:
        call = await self._registry.calls.get(params.path_id(request))
        if not caller_of(request).sees(await self._registry.device(call.device_id)):
            raise refused()
        return call

    def _shape(self, call: PersistentCall) -> RpcBody:
        tenant = shapes.EntityId("TENANT", self._registry.tenant_id)
        device = shapes.EntityId("DEVICE", call.device_id)
        return RpcBody(
            id=shapes.EntityId("RPC", call.id),
            created_time=call.created_ms,
            tenant_id=tenant,
            device_id=device,
            expiration_time=call.expires_ms,
            request=CallRequest(
                id=call.id,
                tenant_id=tenant,
                device_id=device,
                oneway=call.oneway,
                expiration_time=call.expires_ms,
                body=CallBody(call.method, call.params.decode()),
                retries=call.retries,
            ),
            response=msgspec.Raw(call.response or b"null"),
            status=call.status,
            additional_info=msgspec.Raw(call.info or b"null"),
        )


def _searched(call: PersistentCall) -> str:
    return " ".join((call.method, call.params.decode(), call.response.decode()))


_SORT_KEYS: Final[dict[str, Any]] = {
    "createdTime": lambda call: call.created_ms,
    "expirationTime": lambda call: call.expires_ms,
    "request": lambda call: (call.method, call.params),
    "response": lambda call: call.response,
    "status": lambda call: get_args(Status).index(call.status),
}
