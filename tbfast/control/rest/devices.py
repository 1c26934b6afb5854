"""Devices and credentials over REST (REST spec 3, 4)."""

from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.credentials import CredentialsDraft
from tbfast.control.registry import DeviceDraft, Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.device_lists import DEVICE_LIST, DeviceLists
from tbfast.control.rest.endpoints import NAMING, Endpoint, Query
from tbfast.control.rest.errors import ITEM_NOT_FOUND, RestError
from tbfast.model.device import Device


class DeviceRoutes:
    """Endpoints on top of the registry service."""

    def __init__(self, registry: Registry, lists: DeviceLists) -> None:
        self._registry = registry
        self._lists = lists

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        return [
            Endpoint(
                "POST", "/api/device", self.save, "tenant",
                body=shapes.DeviceInput, answer=shapes.DeviceBody,
                query=(Query(name="accessToken"), Query(name="entityGroupId"), *NAMING),
            ),
            Endpoint(
                "POST", "/api/device-with-credentials", self.save_with_credentials, "tenant",
                body=shapes.DeviceWithCredentials, answer=shapes.DeviceBody, query=NAMING,
            ),
            Endpoint(
                "POST", "/api/device/credentials", self.save_credentials, "tenant",
                body=shapes.CredentialsInput, answer=shapes.CredentialsBody,
            ),
            Endpoint(
                "GET", "/api/device/{id}/credentials", self.credentials, "user",
                answer=shapes.CredentialsBody, public=False,
            ),
            Endpoint("GET", "/api/device/{id}", self.get, "user", answer=shapes.DeviceBody),
            Endpoint("DELETE", "/api/device/{id}", self.delete, "tenant"),
            Endpoint(
                "GET", "/api/tenant/devices", self.list, "tenant",
                answer=(shapes.Page[shapes.DeviceBody], shapes.DeviceBody),
                query=(*DEVICE_LIST, Query(name="deviceName")),
            ),
            Endpoint(
                "GET", "/api/tenant/device", self.by_name, "tenant",
                answer=shapes.DeviceBody, query=(Query(name="deviceName", required=True),),
            ),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """POST /api/device: create, or update when the body has an id."""
        given = await params.body(request, shapes.DeviceInput)
        token = request.query_params.get("accessToken") or None
        secret = CredentialsDraft("ACCESS_TOKEN", token) if token and given.id is None else None
        return await self._saved(request, given, secret)

    async def save_with_credentials(self, request: Request) -> Response:
        """POST /api/device-with-credentials: both in one step."""
        given = await params.body(request, shapes.DeviceWithCredentials)
        return await self._saved(request, given.device, _secret(given.credentials))

    async def _saved(
        self, request: Request, given: shapes.DeviceInput, secret: CredentialsDraft | None
    ) -> Response:
        naming = params.naming(request)
        draft = DeviceDraft(
            name=given.name,
            label=given.label,
            type=given.type,
            profile_id=params.referred(given.device_profile_id),
            customer_id=params.referred(given.customer_id),
            additional_info=given.additional_info,
            data=given.device_data,
            firmware_id=params.referred(given.firmware_id),
            software_id=params.referred(given.software_id),
        )
        if given.id is None:
            record = await self._registry.add_device(draft, secret, naming)
        else:
            record = await self._registry.change_device(
                params.entity_id(given.id.id),
                draft,
                version=given.version,
                secret=secret,
                naming=naming,
            )
        return self._device(record.device)

    async def get(self, request: Request) -> Response:
        """GET /api/device/{id}."""
        return self._device(await visible_device(request, self._registry))

    async def delete(self, request: Request) -> Response:
        """DELETE /api/device/{id}: 200 and an empty body."""
        await self._registry.delete_device(params.path_id(request))
        return Response()

    async def list(self, request: Request) -> Response:
        """GET /api/tenant/devices: a page, or with deviceName one device."""
        if "deviceName" in request.query_params:
            return await self.by_name(request)
        return await self._lists.page(request)

    async def by_name(self, request: Request) -> Response:
        """GET /api/tenant/device?deviceName=X."""
        name = params.text(request, "deviceName")
        device = await self._registry.device_by_name(name)
        if device is None:
            raise RestError(404, ITEM_NOT_FOUND, "Requested item wasn't found!")
        return self._device(device)

    async def credentials(self, request: Request) -> Response:
        """GET /api/device/{id}/credentials."""
        device = await visible_device(request, self._registry)
        record = await self._registry.record(device.id)
        return json_answer(shapes.credentials_body(record.credentials))

    async def save_credentials(self, request: Request) -> Response:
        """POST /api/device/credentials: sessions of the old credentials are closed."""
        given = await params.body(request, shapes.CredentialsInput)
        secret = _secret(given)
        saved = await self._registry.update_credentials(
            params.entity_id(given.device_id.id),
            secret.id,
            type=secret.type,
            value=secret.value,
            version=given.version,
        )
        return json_answer(shapes.credentials_body(saved))

    def _device(self, device: Device) -> Response:
        return json_answer(shapes.device_body(device, self._registry.tenant_id))


def _secret(given: shapes.SecretInput) -> CredentialsDraft:
    return CredentialsDraft(
        given.credentials_type, given.credentials_id or "", given.credentials_value
    )
