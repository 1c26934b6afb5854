"""Lists of devices and their info forms over REST (REST spec 3)."""

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast import limits
from tbfast.control.attributes import AttributeService
from tbfast.control.registry import DevicePage, DeviceQuery, Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of, refused, visible_device
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.errors import NotFound
from tbfast.model.device import Device
from tbfast.model.package import PackageType

Shape = Callable[[Device], object]

DEVICE_LIST: Final = (*PAGING, Query(name="type"), Query(name="deviceProfileId"))
_INFO_LIST: Final = (*DEVICE_LIST, Query(name="active", type=bool))


class DeviceLists:
    """Endpoints that answer with many devices, or with more than the registry knows of one."""

    def __init__(self, registry: Registry, attributes: AttributeService) -> None:
        self._registry = registry
        self._attributes = attributes

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        bodies, infos = shapes.Page[shapes.DeviceBody], shapes.Page[shapes.DeviceInfoBody]
        customer = "/api/customer/{customer}"
        return [
            Endpoint(
                "GET", "/api/device/info/{id}", self.info, "user", answer=shapes.DeviceInfoBody
            ),
            Endpoint(
                "GET", "/api/device/types", self.types, "user", answer=list[shapes.DeviceType]
            ),
            Endpoint(
                "GET", "/api/devices", self.by_ids, "user",
                answer=list[shapes.DeviceBody], query=(Query(name="deviceIds", required=True),),
            ),
            Endpoint(
                "GET", "/api/devices/count/{package}/{profile}", self.count, "tenant", answer=int
            ),
            Endpoint(
                "GET", "/api/tenant/deviceInfos", self.infos, "tenant",
                answer=infos, query=_INFO_LIST,
            ),
            Endpoint(
                "GET", customer + "/devices", self.page, "user", answer=bodies, query=DEVICE_LIST
            ),
            Endpoint(
                "GET", customer + "/deviceInfos", self.infos, "user",
                answer=infos, query=_INFO_LIST,
            ),
        ]  # fmt: skip

    async def page(self, request: Request) -> Response:
        """A page of devices: all of them, or a customer's."""
        query = params.device_query(request, await self._customer(request))
        return self._streamed(query, await self._registry.page(query), self._body)

    async def infos(self, request: Request) -> Response:
        """The same in info form; ``active`` picks those that are, or are not."""
        ranks = {"active": lambda device: int(self._attributes.active(device.number))}
        query = params.device_query(request, await self._customer(request), ranks)
        if request.query_params.get("active"):
            wanted = params.flag(request, "active")
            query = msgspec.structs.replace(
                query, keep=lambda device: self._attributes.active(device.number) is wanted
            )
        return self._streamed(query, await self._registry.page(query), self._info)

    async def info(self, request: Request) -> Response:
        """GET /api/device/info/{id}."""
        return json_answer(self._info(await visible_device(request, self._registry)))

    async def types(self, _request: Request) -> Response:
        """GET /api/device/types: names of the profiles that devices have."""
        tenant = shapes.EntityId("TENANT", self._registry.tenant_id)
        used = [
            profile.name
            for profile in await self._registry.profiles.all()
            if self._registry.profiles.in_use(profile.id)
        ]
        return json_answer([shapes.DeviceType(tenant, "DEVICE", name) for name in sorted(used)])

    async def by_ids(self, request: Request) -> Response:
        """GET /api/devices?deviceIds=a,b: those that exist and that the caller may see."""
        caller = caller_of(request)
        found = []
        for device_id in params.ids(request, "deviceIds"):
            try:
                device = await self._registry.device(device_id)
            except NotFound:
                continue
            if caller.sees(device):
                found.append(self._body(device))
        return json_answer(found)

    async def count(self, request: Request) -> Response:
        """GET /api/devices/count/{FIRMWARE|SOFTWARE}/{profile}: devices that follow the profile.

        Those with a package of their own do not.
        """
        profile = await self._registry.profiles.get(params.path_id(request, "profile"))
        total = 0
        firmware = params.word(request.path_params["package"], PackageType)
        async for device in self._registry.devices_of(profile.id):
            own = device.firmware_id if firmware == "FIRMWARE" else device.software_id
            total += own is None
        return json_answer(total)

    async def _customer(self, request: Request) -> str | None:
        """The customer in the path, if it has one, and if the caller may look at it."""
        if "customer" not in request.path_params:
            return None
        customer_id = params.path_id(request, "customer")
        if not caller_of(request).of_customer(customer_id):
            raise refused()
        return (await self._registry.customers.get(customer_id)).id

    def _body(self, device: Device) -> shapes.DeviceBody:
        return shapes.device_body(device, self._registry.tenant_id)

    def _info(self, device: Device) -> shapes.DeviceInfoBody:
        return shapes.device_info(
            device,
            self._registry.tenant_id,
            self._registry.customers.peek(device.customer_id),
            self._attributes.active(device.number),
        )

    def _streamed(self, query: DeviceQuery, page: DevicePage, shape: Shape) -> Response:
        return StreamingResponse(self._parts(query, page, shape), media_type="application/json")

    async def _parts(
        self, query: DeviceQuery, page: DevicePage, shape: Shape
    ) -> AsyncIterator[bytes]:
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
                out += separator + msgspec.json.encode(shape(device))
                separator = b","
            yield bytes(out)
        tail = msgspec.json.encode(shapes.page_tail(query.page, query.page_size, page.total))
        yield b"]," + tail[1:]
