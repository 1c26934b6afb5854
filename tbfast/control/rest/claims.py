"""Customers claim devices over REST (REST spec 6)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.claims import Claims
from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.callers import caller_of, refused
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import ITEM_NOT_FOUND, RestError
from tbfast.model.device import Device

_PATH = "/api/customer/device/{name}/claim"


class ClaimInput(msgspec.Struct, frozen=True, rename="camel"):
    """The secret that the device told; an absent one is empty."""

    secret_key: str | None = None


class ClaimRoutes:
    """Endpoints on top of the claims."""

    def __init__(self, registry: Registry, claims: Claims) -> None:
        self._registry = registry
        self._claims = claims

    def endpoints(self) -> list[Endpoint]:
        """The path below /api/customer."""
        return [
            Endpoint("POST", _PATH, self.claim, "user", body=ClaimInput),
            Endpoint("DELETE", _PATH, self.release, "user"),
        ]

    async def claim(self, request: Request) -> Response:
        """POST claim: the device becomes the caller's customer's."""
        customer_id = caller_of(request).customer_id
        if customer_id is None:
            raise refused()
        device = await self._device(request)
        raw = await params.raw_body(request)
        given = params.parsed(raw, ClaimInput) if raw.strip() else ClaimInput()
        outcome = await self._claims.claim(device, customer_id, given.secret_key or "")
        if outcome != "SUCCESS":
            return Response(msgspec.json.encode(outcome), 400, media_type="application/json")
        saved = await self._registry.device(device.id)
        body = {
            "device": shapes.device_body(saved, self._registry.tenant_id),
            "response": outcome,
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

    async def release(self, request: Request) -> Response:
        """DELETE claim: the device is nobody's; 200 also when it was."""
        device = await self._device(request)
        if device.customer_id is not None and not caller_of(request).sees(device):
            raise refused()
        await self._claims.release(device)
        return Response()

    async def _device(self, request: Request) -> Device:
        device = await self._registry.device_by_name(request.path_params["name"])
        if device is None:
            raise RestError(404, ITEM_NOT_FOUND, "Requested item wasn't found!")
        return device
