"""Attributes over REST (REST spec 7)."""

from typing import Final, cast

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.attributes import AttributeService
from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.errors import PeerError
from tbfast.ops.payload import members, typed_members
from tbfast.store.attributes import SCOPES, Attribute, Scope

_PREFIX: Final = "/api/plugins/telemetry"
_DEVICE: Final = _PREFIX + "/DEVICE/{id}"
_WRITABLE: Final = ("SHARED_SCOPE", "SERVER_SCOPE")


class AttributeRoutes:
    """Endpoints on top of the attribute service."""

    def __init__(self, registry: Registry, attributes: AttributeService) -> None:
        self._registry = registry
        self._attributes = attributes

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        return [
            Endpoint("GET", _DEVICE + "/keys/attributes", self.keys, "user"),
            Endpoint("GET", _DEVICE + "/keys/attributes/{scope}", self.keys, "user"),
            Endpoint("GET", _DEVICE + "/values/attributes", self.values, "user"),
            Endpoint("GET", _DEVICE + "/values/attributes/{scope}", self.values, "user"),
            Endpoint("POST", _DEVICE + "/attributes/{scope}", self.save, "user"),
            Endpoint("POST", _DEVICE + "/{scope}", self.save, "user"),
            Endpoint("DELETE", _DEVICE + "/{scope}", self.delete, "user"),
            Endpoint("POST", _PREFIX + "/{id}/{scope}", self.save, "user"),
            Endpoint("DELETE", _PREFIX + "/{id}/{scope}", self.delete, "user"),
        ]

    async def keys(self, request: Request) -> Response:
        """GET keys/attributes[/{scope}]: names of the attributes."""
        found = await self._read(request, None)
        names = list(dict.fromkeys(attribute.name for attribute in found))
        return _json(msgspec.json.encode(names))

    async def values(self, request: Request) -> Response:
        """GET values/attributes[/{scope}]: [{"lastUpdateTs","key","value"}, ...], values typed."""
        found = await self._read(request, params.keys(request))
        rows = (
            b'{"lastUpdateTs":%d,"key":%b,"value":%b}'
            % (a.ts_ms, msgspec.json.encode(a.name), a.text)
            for a in found
        )
        return _json(b"[%b]" % b",".join(rows))

    async def save(self, request: Request) -> Response:
        """POST {scope}: a JSON object of attributes; shared ones are pushed to the device."""
        number, scope = await self._number(request), _scope(request)
        if scope not in _WRITABLE:
            raise bad_request(f"Invalid scope: {scope}; devices write CLIENT_SCOPE themselves")
        try:
            values = _values(await params.raw_body(request))
        except PeerError as error:
            raise bad_request(f"Request is not a JSON object: {error}") from error
        if not values:
            raise bad_request("No attributes data found in request body!")
        await self._attributes.save(number, scope, values)
        return Response()

    async def delete(self, request: Request) -> Response:
        """DELETE {scope}?keys=a,b: in every scope; names that do not exist are no error."""
        number, scope = await self._number(request), _scope(request)
        keys = params.keys(request)
        if not keys:
            raise bad_request("No keys specified!")
        await self._attributes.delete(number, scope, tuple(keys))
        return Response()

    async def _read(self, request: Request, names: list[str] | None) -> list[Attribute]:
        number = await self._number(request)
        scopes = (_scope(request),) if "scope" in request.path_params else SCOPES
        return await self._attributes.read(number, scopes, names)

    async def _number(self, request: Request) -> int:
        device = await visible_device(request, self._registry)
        return device.number


def _values(body: bytes) -> dict[str, bytes]:
    """Typed as those of devices, but for strings: what people write as text stays text.

    So does ThingsBoard: a version "1.10" is not the number 1.1.
    """
    given = members(body)
    return {
        name: given[name] if given[name][:1] == b'"' else value
        for name, value in typed_members(body, type_cast=True).items()
    }


def _scope(request: Request) -> Scope:
    scope = request.path_params["scope"]
    if scope not in SCOPES:
        raise bad_request(f"Invalid scope: {scope[:32]}; it must be one of {', '.join(SCOPES)}")
    return cast(Scope, scope)


def _json(text: bytes) -> Response:
    return Response(text, media_type="application/json")
