"""OTA packages over REST (REST spec 9)."""

import base64
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast.control.packages import PackageService
from tbfast.control.registry import Registry
from tbfast.control.registry.packages import PackageDraft
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.paging import page_of
from tbfast.control.rest.uploads import UploadedFile
from tbfast.model.package import ChecksumAlgorithm, Package, PackageType, disposition, media_type

_PATH: Final = "/api/otaPackage"


class PackageInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/otaPackage; a url counts unless ``usesUrl`` is false."""

    type: PackageType
    title: str
    version: str
    id: shapes.Reference | None = None
    device_profile_id: shapes.Reference | None = None
    tag: str | None = None
    url: str | None = None
    uses_url: bool | None = None
    file_name: str | None = None
    content_type: str | None = None
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum: str | None = None
    data_size: int | None = None
    additional_info: dict[str, Any] | None = None


class PackageInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A package without its data."""

    id: shapes.EntityId
    created_time: int
    additional_info: dict[str, Any] | None
    tenant_id: shapes.EntityId
    device_profile_id: shapes.EntityId
    type: PackageType
    title: str
    version: str
    tag: str | None
    url: str | None
    has_data: bool
    file_name: str | None
    content_type: str | None
    checksum_algorithm: ChecksumAlgorithm | None
    checksum: str | None
    data_size: int | None
    external_id: None = None
    name: str


class PackageWithData(PackageInfo, frozen=True, rename="camel", kw_only=True):
    """A package with its data in base64."""

    data: str | None


class PackageRoutes:
    """Endpoints on top of the packages of the registry and their files."""

    def __init__(self, registry: Registry, packages: PackageService) -> None:
        self._registry = registry
        self._service = packages
        self._packages = registry.packages

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        checksum = (
            Query(name="checksum"),
            Query(name="checksumAlgorithm", type=ChecksumAlgorithm),
        )
        listing = shapes.Page[PackageInfo]
        return [
            Endpoint("POST", _PATH, self.save, "tenant", body=PackageInput, answer=PackageInfo),
            Endpoint(
                "POST", _PATH + "/{id}", self.upload, "tenant", answer=PackageInfo, query=checksum
            ),
            Endpoint("GET", _PATH + "/info/{id}", self.info, "tenant", answer=PackageInfo),
            Endpoint("GET", _PATH + "/{id}/download", self.download, "tenant"),
            Endpoint("GET", _PATH + "/{id}", self.whole, "tenant", answer=PackageWithData),
            Endpoint("DELETE", _PATH + "/{id}", self.delete, "tenant"),
            Endpoint("GET", _PATH + "s", self.page, "tenant", answer=listing, query=PAGING),
            Endpoint(
                "GET", _PATH + "s/{profile}/{type}", self.page_of_profile, "tenant",
                answer=listing, query=PAGING,
            ),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """POST /api/otaPackage: create, or with an id change additionalInfo."""
        given = await params.body(request, PackageInput)
        url = None if given.uses_url is False else given.url
        if given.uses_url and not (url or "").strip():
            raise bad_request("Ota package URL should be specified!")
        draft = PackageDraft(
            profile_id=params.referred(given.device_profile_id),
            type=given.type,
            title=given.title,
            version=given.version,
            tag=given.tag or None,
            url=url or None,
            file_name=given.file_name,
            content_type=given.content_type,
            checksum_algorithm=given.checksum_algorithm,
            checksum=given.checksum,
            size=given.data_size,
            additional_info=given.additional_info,
        )
        package_id = None if given.id is None else params.entity_id(given.id.id)
        return json_answer(self._info(await self._packages.save(draft, package_id)))

    async def upload(self, request: Request) -> Response:
        """POST /api/otaPackage/{id}: the file, as the part "file" of a form."""
        algorithm: ChecksumAlgorithm = params.choice(
            request, "checksumAlgorithm", ChecksumAlgorithm, "SHA256"
        )
        wanted = request.query_params.get("checksum", "").strip()
        file = UploadedFile(request, "file", self._service.max_bytes)
        async with self._service.receiving(params.path_id(request), algorithm) as upload:
            async for part in file.parts():
                await upload.write(part)
            package = await upload.keep(
                file_name=file.file_name, content_type=file.content_type, checksum=wanted
            )
        return json_answer(self._info(package))

    async def info(self, request: Request) -> Response:
        """GET /api/otaPackage/info/{id}."""
        return json_answer(self._info(await self._packages.get(params.path_id(request))))

    async def whole(self, request: Request) -> Response:
        """GET /api/otaPackage/{id}: with the data in base64, streamed."""
        package = await self._packages.get(params.path_id(request))
        info = msgspec.json.encode(self._info(package))
        if not package.has_data:
            return Response(info[:-1] + b',"data":null}', media_type="application/json")
        return StreamingResponse(self._in_base64(info, package), media_type="application/json")

    async def _in_base64(self, info: bytes, package: Package) -> AsyncIterator[bytes]:
        yield info[:-1] + b',"data":"'
        left = b""
        async for part in self._service.read(package):
            left += part
            whole = len(left) // 3 * 3
            yield base64.b64encode(left[:whole])
            left = left[whole:]
        yield base64.b64encode(left) + b'"}'

    async def download(self, request: Request) -> Response:
        """GET /api/otaPackage/{id}/download: the file as it was given."""
        package = await self._packages.get(params.path_id(request))
        if package.url is not None:
            raise bad_request("This otaPackage is at its URL; there is nothing to download here")
        if not package.has_data:
            raise bad_request("This otaPackage has no data yet")
        assert package.file_name is not None
        return StreamingResponse(
            self._service.read(package),
            headers={**dict(disposition(package.file_name)), "Content-Length": str(package.size)},
            media_type=media_type(package.content_type),
        )

    async def delete(self, request: Request) -> Response:
        """DELETE /api/otaPackage/{id}: 400 while a device or a profile refers to it."""
        await self._service.delete(params.path_id(request))
        return Response()

    async def page(self, request: Request) -> Response:
        """GET /api/otaPackages: a page."""
        return self._page(request, [package async for package in self._packages.all()])

    async def page_of_profile(self, request: Request) -> Response:
        """GET /api/otaPackages/{profile}/{type}: those that devices can be given."""
        profile_id = params.path_id(request, "profile")
        type_ = params.word(request.path_params["type"], PackageType)
        found = [
            p
            async for p in self._packages.all()
            if p.usable and (p.profile_id, p.type) == (profile_id, type_)
        ]
        return self._page(request, found)

    def _page(self, request: Request, found: list[Package]) -> Response:
        return page_of(request, found, self._info, text=lambda p: p.title, sort=_SORT_KEYS)

    def _info(self, package: Package) -> PackageInfo:
        return PackageInfo(
            id=shapes.EntityId("OTA_PACKAGE", package.id),
            created_time=package.created_ms,
            additional_info=package.additional_info,
            tenant_id=shapes.EntityId("TENANT", self._registry.tenant_id),
            device_profile_id=shapes.EntityId("DEVICE_PROFILE", package.profile_id),
            type=package.type,
            title=package.title,
            version=package.version,
            tag=package.tag,
            url=package.url,
            has_data=package.has_data,
            file_name=package.file_name,
            content_type=package.content_type,
            checksum_algorithm=package.checksum_algorithm,
            checksum=package.checksum,
            data_size=package.size,
            name=package.title,
        )


_SORT_KEYS: Final = {
    "title": lambda p: p.title.casefold(),
    "version": lambda p: p.version,
    "type": lambda p: p.type,
    "tag": lambda p: p.tag or "",
    "url": lambda p: p.url or "",
    "fileName": lambda p: p.file_name or "",
    "dataSize": lambda p: p.size or 0,
    "checksum": lambda p: p.checksum or "",
    "createdTime": lambda p: p.created_ms,
}
