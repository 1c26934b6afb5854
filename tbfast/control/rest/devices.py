"""Devices, credentials and profile infos over REST (REST spec 3, 4, 5)."""

from collections.abc import AsyncIterator

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast import limits
from tbfast.control.registry import DevicePage, DeviceQuery, Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import ITEM_NOT_FOUND, RestError
from tbfast.errors import NotFound
from tbfast.model.device import Device


class DeviceRoutes:
    """Endpoints on top of the registry service."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        return [
            Endpoint("POST", "/api/device", self.save, "tenant"),
            Endpoint("POST", "/api/device/credentials", self.save_credentials, "tenant"),
            Endpoint("GET", "/api/device/{id}/credentials", self.credentials, "user"),
            Endpoint("GET", "/api/device/{id}", self.get, "user"),
            Endpoint("DELETE", "/api/device/{id}", self.delete, "tenant"),
            Endpoint("GET", "/api/tenant/devices", self.list, "tenant"),
            Endpoint("GET", "/api/tenant/device", self.by_name, "tenant"),
            Endpoint("GET", "/api/deviceProfileInfo/default", self.default_profile, "user"),
            Endpoint("GET", "/api/deviceProfileInfos", self.profiles, "user"),
        ]

    async def save(self, request: Request) -> Response:
        """POST /api/device: create, or update when the body has an id."""
        given = await params.body(request, shapes.DeviceInput)
        profile_id = (
            params.entity_id(given.device_profile_id.id) if given.device_profile_id else None
        )
        if given.id is None:
            record = await self._registry.create_device(
                given.name,
                request.query_params.get("accessToken") or None,
                label=given.label,
                type=given.type,
                profile_id=profile_id,
                additional_info=given.additional_info,
            )
        else:
            record = await self._registry.update_device(
                params.entity_id(given.id.id),
                name=given.name,
                label=given.label,
                type=given.type,
                profile_id=profile_id,
                additional_info=given.additional_info,
                version=given.version,
            )
        return self._device(record.device)

    async def get(self, request: Request) -> Response:
        """GET /api/device/{id}."""
        return self._device(await visible_device(request, self._registry))

    async def delete(self, request: Request) -> Response:
        """DELETE /api/device/{id}: 200 and an empty body."""
        await self._registry.delete_device(_path_id(request))
        return Response()

    async def list(self, request: Request) -> Response:
        """GET /api/tenant/devices: a page, or with deviceName one device."""
        if "deviceName" in request.query_params:
            return await self.by_name(request)
        query = params.device_query(request)
        page = await self._registry.page(query)
        return StreamingResponse(self._page(query, page), media_type="application/json")

    async def by_name(self, request: Request) -> Response:
        """GET /api/tenant/device?deviceName=X."""
        name = request.query_params.get("deviceName", "")
        device = await self._registry.device_by_name(name)
        if device is None:
            raise RestError(404, ITEM_NOT_FOUND, "Requested item wasn't found!")
        return self._device(device)

    async def credentials(self, request: Request) -> Response:
        """GET /api/device/{id}/credentials."""
        device = await visible_device(request, self._registry)
        record = await self._registry.record(device.id)
        return _json(shapes.credentials_body(record.credentials))

    async def save_credentials(self, request: Request) -> Response:
        """POST /api/device/credentials: sessions of the old credentials are closed."""
        given = await params.body(request, shapes.CredentialsInput)
        saved = await self._registry.update_credentials(
            params.entity_id(given.device_id.id),
            given.credentials_id or "",
            type=given.credentials_type,
            value=given.credentials_value,
            version=given.version,
        )
        return _json(shapes.credentials_body(saved))

    async def default_profile(self, _request: Request) -> Response:
        """GET /api/deviceProfileInfo/default."""
        profile = await self._registry.default_profile()
        return _json(shapes.profile_info(profile, self._registry.tenant_id))

    async def profiles(self, request: Request) -> Response:
        """GET /api/deviceProfileInfos: a page; there are few profiles."""
        page = params.integer(request, "page")
        size = params.integer(request, "pageSize", least=1)
        wanted = request.query_params.get("textSearch", "").casefold()
        found = [p for p in await self._registry.profiles() if wanted in p.name.casefold()]
        shown = found[page * size : (page + 1) * size]
        data = [shapes.profile_info(p, self._registry.tenant_id) for p in shown]
        tail = shapes.page_tail(page, size, len(found))
        return _json({"data": data, **msgspec.to_builtins(tail)})

    def _device(self, device: Device) -> Response:
        return _json(shapes.device_body(device, self._registry.tenant_id))

    async def _page(self, query: DeviceQuery, page: DevicePage) -> AsyncIterator[bytes]:
        """The page as it is read, so that a huge ``pageSize`` costs no memory."""
        yield b'{"data":['
        separator = b""
        for start in range(0, len(page.ids), limits.REST_SCAN_ROWS):
            out = bytearray()
            for device_id in page.ids[start : start + limits.REST_SCAN_ROWS]:
                try:
                    device = await self._registry.device(device_id)
                except NotFound:  # deleted since the page was selected
                    continue
                out += separator
                out += msgspec.json.encode(shapes.device_body(device, self._registry.tenant_id))
                separator = b","
            yield bytes(out)
        tail = msgspec.json.encode(shapes.page_tail(query.page, query.page_size, page.total))
        yield b"]," + tail[1:]


def _path_id(request: Request) -> str:
    return params.entity_id(request.path_params["id"])


def _json(body: object) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
