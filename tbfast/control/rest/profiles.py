"""Device profiles over REST (REST spec 5)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import ProfileDraft, Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.paging import page_of
from tbfast.errors import NotFound
from tbfast.model.profile import DeviceProfile
from tbfast.model.transport import TransportType

_PROFILE: Final = "/api/deviceProfile"
_INFO: Final = "/api/deviceProfileInfo"
_IDS: Final = (Query(name="deviceProfileIds"),)


class ProfileRoutes:
    """Endpoints on top of the registry's profiles."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._profiles = registry.profiles

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        body, info = shapes.ProfileBody, shapes.ProfileInfo
        transport = (Query(name="transportType", type=TransportType),)
        return [
            Endpoint(
                "POST", _PROFILE, self.save, "tenant", body=shapes.ProfileInput, answer=body
            ),
            Endpoint(
                "GET", _PROFILE + "/names", self.names, "user",
                answer=list[shapes.EntityName], query=(Query(name="activeOnly", type=bool),),
            ),
            Endpoint("POST", _PROFILE + "/{id}/default", self.make_default, "tenant", answer=body),
            Endpoint("GET", _PROFILE + "/{id}", self.get, "user", answer=body),
            Endpoint("DELETE", _PROFILE + "/{id}", self.delete, "tenant"),
            Endpoint(
                "GET", "/api/deviceProfiles", self.page, "tenant",
                answer=shapes.Page[shapes.ProfileBody], query=PAGING,
            ),
            Endpoint("GET", _INFO + "/default", self.default_info, "user", answer=info),
            Endpoint("GET", _INFO + "/{id}", self.info, "user", answer=info),
            Endpoint(
                "GET", _INFO + "s/list", self.infos_by_id, "user",
                answer=list[shapes.ProfileInfo], query=_IDS,
            ),
            Endpoint(
                "GET", _INFO + "s", self.infos, "user",
                answer=(shapes.Page[shapes.ProfileInfo], list[shapes.ProfileInfo]),
                query=(*PAGING, *transport, *_IDS),
            ),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """POST /api/deviceProfile: create, or update when the body has an id."""
        given = await params.body(request, shapes.ProfileInput)
        draft = ProfileDraft(
            name=given.name,
            description=given.description,
            image=given.image,
            transport_type=given.transport_type or "DEFAULT",
            provision_type=given.provision_type,
            provision_key=given.provision_device_key,
            rule_chain_id=params.referred(given.default_rule_chain_id),
            edge_rule_chain_id=params.referred(given.default_edge_rule_chain_id),
            dashboard_id=params.referred(given.default_dashboard_id),
            queue_name=given.default_queue_name,
            firmware_id=params.referred(given.firmware_id),
            software_id=params.referred(given.software_id),
            data=given.profile_data,
        )
        profile_id = None if given.id is None else params.entity_id(given.id.id)
        return self._profile(await self._profiles.save(draft, profile_id, given.version))

    async def get(self, request: Request) -> Response:
        """GET /api/deviceProfile/{id}."""
        return self._profile(await self._profiles.get(params.path_id(request)))

    async def delete(self, request: Request) -> Response:
        """DELETE /api/deviceProfile/{id}: 400 for the default one and for one in use."""
        await self._profiles.delete(params.path_id(request))
        return Response()

    async def make_default(self, request: Request) -> Response:
        """POST /api/deviceProfile/{id}/default: the former default loses the flag."""
        return self._profile(await self._profiles.set_default(params.path_id(request)))

    async def page(self, request: Request) -> Response:
        """GET /api/deviceProfiles: a page."""
        found = await self._profiles.all()
        return page_of(request, found, self._body, text=_name, sort=_SORT_KEYS)

    async def default_info(self, _request: Request) -> Response:
        """GET /api/deviceProfileInfo/default."""
        return json_answer(self._info(await self._profiles.default()))

    async def info(self, request: Request) -> Response:
        """GET /api/deviceProfileInfo/{id}."""
        return json_answer(self._info(await self._profiles.get(params.path_id(request))))

    async def infos(self, request: Request) -> Response:
        """GET /api/deviceProfileInfos: a page, or with deviceProfileIds those."""
        if "deviceProfileIds" in request.query_params:
            return await self.infos_by_id(request)
        transport: str | None = params.choice(request, "transportType", TransportType, None)
        found = [
            profile
            for profile in await self._profiles.all()
            if transport is None or profile.transport_type == transport
        ]
        return page_of(request, found, self._info, text=_name, sort=_SORT_KEYS)

    async def infos_by_id(self, request: Request) -> Response:
        """GET /api/deviceProfileInfos/list?deviceProfileIds=a,b: unknown ones are left out."""
        found = []
        for profile_id in params.ids(request, "deviceProfileIds"):
            try:
                found.append(self._info(await self._profiles.get(profile_id)))
            except NotFound:
                continue
        return json_answer(found)

    async def names(self, request: Request) -> Response:
        """GET /api/deviceProfile/names: by name; with activeOnly those that devices have."""
        active_only = params.flag(request, "activeOnly")
        found = [
            shapes.EntityName(shapes.EntityId("DEVICE_PROFILE", profile.id), profile.name)
            for profile in await self._profiles.all()
            if not active_only or self._profiles.in_use(profile.id)
        ]
        return json_answer(sorted(found, key=lambda entity: entity.name))

    def _profile(self, profile: DeviceProfile) -> Response:
        return json_answer(self._body(profile))

    def _body(self, profile: DeviceProfile) -> shapes.ProfileBody:
        return shapes.profile_body(profile, self._registry.tenant_id)

    def _info(self, profile: DeviceProfile) -> shapes.ProfileInfo:
        return shapes.profile_info(profile, self._registry.tenant_id)


def _name(profile: DeviceProfile) -> str:
    return profile.name


_SORT_KEYS: Final[Mapping[str, Callable[[DeviceProfile], Any]]] = {
    "name": lambda profile: profile.name.casefold(),
    "type": lambda profile: "DEFAULT",
    "transportType": lambda profile: profile.transport_type,
    "description": lambda profile: (profile.description or "").casefold(),
    "isDefault": lambda profile: profile.default,
    "createdTime": lambda profile: profile.created_ms,
}
