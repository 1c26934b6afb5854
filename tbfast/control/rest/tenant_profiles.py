"""The tenant profile over REST: where rate limits are read and set (REST spec 13.3)."""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import Endpoint
from tbfast.model.tenant_profile import TenantProfile

_PATH: Final = "/api/tenantProfile"
_INFO: Final = "/api/tenantProfileInfo"


class TenantProfileInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/tenantProfile; without an id it is the only one there is."""

    name: str
    id: shapes.Reference | None = None
    description: str | None = None
    isolated_tb_rule_engine: bool = False
    profile_data: dict[str, Any] | None = None
    version: int | None = None


class TenantProfileBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A tenant profile as ThingsBoard's clients read it."""

    id: shapes.EntityId
    name: str
    description: str | None
    isolated_tb_rule_engine: bool
    default: bool = True
    profile_data: dict[str, Any]
    version: int


class TenantProfileRoutes:
    """Endpoints on top of the one tenant profile."""

    def __init__(self, registry: Registry) -> None:
        self._profiles = registry.tenant_profiles

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        body = TenantProfileBody
        return [
            Endpoint("POST", _PATH, self.save, "system", body=TenantProfileInput, answer=body),
            Endpoint("GET", _PATH + "/{id}", self.get, "system", answer=body),
            Endpoint("GET", _INFO + "/default", self.info, "user", answer=shapes.EntityName),
        ]

    async def save(self, request: Request) -> Response:
        """POST /api/tenantProfile: its rate limits hold for the next message."""
        given = await params.body(request, TenantProfileInput)
        saved = await self._profiles.save(
            params.referred(given.id),
            name=given.name,
            description=given.description,
            isolated=given.isolated_tb_rule_engine,
            data=given.profile_data,
            version=given.version,
        )
        return json_answer(_body(saved))

    async def get(self, request: Request) -> Response:
        """GET /api/tenantProfile/{id}."""
        return json_answer(_body(self._profiles.get(params.path_id(request))))

    async def info(self, _request: Request) -> Response:
        """GET /api/tenantProfileInfo/default."""
        profile = self._profiles.get()
        return json_answer(shapes.EntityName(_id(profile), profile.name))


def _id(profile: TenantProfile) -> shapes.EntityId:
    return shapes.EntityId("TENANT_PROFILE", profile.id)


def _body(profile: TenantProfile) -> TenantProfileBody:
    return TenantProfileBody(
        id=_id(profile),
        name=profile.name,
        description=profile.description,
        isolated_tb_rule_engine=profile.isolated,
        profile_data=profile.data,
        version=profile.version,
    )
