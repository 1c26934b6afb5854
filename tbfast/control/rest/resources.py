"""LwM2M object models over REST (REST spec 12)."""

import base64
import binascii
import hashlib
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.paging import page_of
from tbfast.model.lwm2m import ObjectModel
from tbfast.model.resource import Resource, ResourceType

_PATH: Final = "/api/resource"


class ResourceInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/resource; ``data`` is base64."""

    title: str
    file_name: str
    data: str
    id: shapes.Reference | None = None
    resource_type: ResourceType = "LWM2M_MODEL"


class ResourceInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A resource without its data."""

    id: shapes.EntityId
    created_time: int
    tenant_id: shapes.EntityId
    title: str
    name: str
    resource_type: ResourceType
    resource_key: str
    file_name: str
    etag: str
    external_id: None = None
    version: int


class _ObjectResource(msgspec.Struct, frozen=True, rename="camel"):
    id: int
    name: str
    key_name: str
    observe: bool = False
    attribute: bool = False
    telemetry: bool = False


class _Instance(msgspec.Struct, frozen=True):
    id: int
    resources: list[_ObjectResource]


class LwM2mObject(msgspec.Struct, frozen=True, rename="camel"):
    """An object as profile editors read it: one instance with what can be read of it."""

    id: int
    key_id: str
    name: str
    multiple: bool
    mandatory: bool
    instances: list[_Instance]


class ResourceRoutes:
    """Endpoints on top of the registry's resources."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._resources = registry.resources

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        objects = list[LwM2mObject]
        return [
            Endpoint(
                "POST", _PATH, self.save, "tenant", body=ResourceInput, answer=ResourceInfo
            ),
            Endpoint("POST", _PATH + "/upload", self.upload, "tenant", answer=ResourceInfo),
            Endpoint(
                "GET", _PATH, self.page, "tenant",
                answer=shapes.Page[ResourceInfo], query=(*PAGING, Query(name="resourceType")),
            ),
            Endpoint(
                "GET", _PATH + "/lwm2m/page", self.models, "tenant", answer=objects, query=PAGING
            ),
            Endpoint(
                "GET", _PATH + "/lwm2m", self.models_by_key, "tenant",
                answer=objects, query=(Query(name="objectIds", required=True),),
            ),
            Endpoint("GET", _PATH + "/info/{id}", self.info, "tenant", answer=ResourceInfo),
            Endpoint("GET", _PATH + "/{id}/download", self.download, "tenant"),
            Endpoint("DELETE", _PATH + "/{id}", self.delete, "tenant"),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """POST /api/resource: the same object and version again replaces it."""
        given = await params.body(request, ResourceInput)
        try:
            data = base64.b64decode(given.data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise bad_request("data should be base64") from error
        resource_id = None if given.id is None else params.entity_id(given.id.id)
        saved = await self._resources.save(given.title, given.file_name, data, resource_id)
        return json_answer(self._info(saved))

    async def upload(self, request: Request) -> Response:
        """POST /api/resource/upload: the same as a form, with the file as it is."""
        form = await params.form(request)
        try:
            return await self._uploaded(form)
        finally:
            await form.close()

    async def _uploaded(self, form: FormData) -> Response:
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise bad_request("Part 'file' with a file name is missing")
        try:
            title = msgspec.convert(form.get("title"), str)
            msgspec.convert(form.get("resourceType") or "LWM2M_MODEL", ResourceType)
        except msgspec.ValidationError as error:
            raise bad_request(f"Invalid form: {error}") from error
        saved = await self._resources.save(title, file.filename, await file.read(), None)
        return json_answer(self._info(saved))

    async def page(self, request: Request) -> Response:
        """GET /api/resource: a page."""
        params.choice(request, "resourceType", ResourceType, "LWM2M_MODEL")
        found = [self._info(resource) async for resource in self._resources.all()]
        return page_of(request, found, lambda info: info, text=lambda r: r.title, sort=_SORT_KEYS)

    async def models(self, request: Request) -> Response:
        """GET /api/resource/lwm2m/page: an array; by object id unless sorted otherwise."""
        first = params.integer(request, "page")
        size = params.integer(request, "pageSize", least=1)
        by_name = params.choice(request, "sortProperty", Literal["id", "name"], "id") == "name"
        descending = params.descending(request, "sortOrder", "ASC")
        wanted = request.query_params.get("textSearch", "").casefold()
        found = [m for m in await self._models() if wanted in m.name.casefold()]
        found.sort(key=lambda m: (m.id, m.version))
        if by_name:
            found.sort(key=lambda m: m.name.casefold())
        if descending:
            found.reverse()
        return json_answer([_object(model) for model in found[first * size :][:size]])

    async def models_by_key(self, request: Request) -> Response:
        """GET /api/resource/lwm2m?objectIds=3_1.2,5_1.0: those that are known."""
        wanted = set(request.query_params.get("objectIds", "").split(","))
        return json_answer([_object(m) for m in await self._models() if m.key in wanted])

    async def info(self, request: Request) -> Response:
        """GET /api/resource/info/{id}."""
        return json_answer(self._info(await self._resources.get(params.path_id(request))))

    async def download(self, request: Request) -> Response:
        """GET /api/resource/{id}/download: the file as it was given."""
        found = await self._resources.get(params.path_id(request))
        name = quote(found.file_name)
        headers = {
            "Content-Disposition": f"attachment;filename*=UTF-8''{name}",
            "x-filename": name,
        }
        return Response(found.data, 200, headers, "application/octet-stream")

    async def delete(self, request: Request) -> Response:
        """DELETE /api/resource/{id}."""
        await self._resources.delete(params.path_id(request))
        return Response()

    async def _models(self) -> list[ObjectModel]:
        return [resource.model async for resource in self._resources.all()]

    def _info(self, resource: Resource) -> ResourceInfo:
        return ResourceInfo(
            id=shapes.EntityId("TB_RESOURCE", resource.id),
            created_time=resource.created_ms,
            tenant_id=shapes.EntityId("TENANT", self._registry.tenant_id),
            title=resource.title,
            name=resource.title,
            resource_type=resource.type,
            resource_key=resource.key,
            file_name=resource.file_name,
            etag=hashlib.sha256(resource.data).hexdigest(),
            version=resource.version,
        )


def _object(model: ObjectModel) -> LwM2mObject:
    readable = [
        _ObjectResource(resource.id, resource.name, _camel(resource.name))
        for resource in model.resources
        if "R" in resource.operations
    ]
    return LwM2mObject(
        model.id, model.key, model.name, model.multiple, model.mandatory, [_Instance(0, readable)]
    )


def _camel(name: str) -> str:
    """Battery Level -> batteryLevel."""
    words = "".join(c if c.isalnum() else " " for c in name).split()
    return "".join(
        word.lower() if index == 0 else word[:1].upper() + word[1:].lower()
        for index, word in enumerate(words)
    )


_SORT_KEYS: Final = {
    "title": lambda info: info.title.casefold(),
    "resourceKey": lambda info: info.resource_key,
    "resourceType": lambda info: info.resource_type,
    "createdTime": lambda info: info.created_time,
}
