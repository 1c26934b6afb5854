"""The one tenant, its profile, the one rule chain, and what clients ask a server about (13.3)."""

import uuid
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from tbfast import __version__
from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import GENERAL, RestError
from tbfast.control.rest.paging import page_of
from tbfast.errors import NotFound

_NO_EDITOR: Final = (
    "Rule chains cannot be edited: this node stores what devices send and passes it on; "
    "process it where it is passed on to"
)

_EPOCH_100NS: Final = 0x01B21DD213814000  # from 1582-10-15 to 1970-01-01

JsonObject = dict[str, Any]


class SystemRoutes:
    """Endpoints that answer what is fixed here; ids follow from the tenant's."""

    def __init__(self, registry: Registry) -> None:
        self._tenant = registry.tenant_id
        self._profiles = registry.tenant_profiles
        self._chain = _derived(registry.tenant_id, "rule chain")

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        chain = "/api/ruleChain"
        return [
            Endpoint("GET", "/api/tenant/info/{id}", self.tenant_info, "admin", answer=JsonObject),
            Endpoint("GET", "/api/tenant/{id}", self.tenant, "admin", answer=JsonObject),
            Endpoint("GET", "/api/system/info", self.info, "user", answer=JsonObject),
            Endpoint("GET", "/api/system/params", self.params, "user", answer=JsonObject),
            Endpoint(
                "GET", "/api/ruleChains", self.chains, "tenant",
                answer=shapes.Page[JsonObject], query=(*PAGING, Query(name="type")),
            ),
            Endpoint("GET", chain + "/{id}", self.chain, "tenant", answer=JsonObject),
            Endpoint("POST", chain, self.no_editor, "tenant"),
            Endpoint("POST", chain + "/metadata", self.no_editor, "tenant"),
        ]  # fmt: skip

    async def tenant(self, request: Request) -> Response:
        """GET /api/tenant/{id}."""
        self._check(request, self._tenant, "Tenant")
        return json_answer(self._tenant_body())

    async def tenant_info(self, request: Request) -> Response:
        """GET /api/tenant/info/{id}."""
        self._check(request, self._tenant, "Tenant")
        profile = self._profiles.get()
        return json_answer({**self._tenant_body(), "tenantProfileName": profile.name})

    async def info(self, _request: Request) -> Response:
        """GET /api/system/info: what this is."""
        return json_answer(
            {"version": __version__, "artifact": "tbfast", "name": "tbfast", "type": "CE"}
        )

    async def params(self, _request: Request) -> Response:
        """GET /api/system/params: which parts of ThingsBoard are here."""
        return json_answer(
            {
                "userTokenAccessEnabled": True,
                "allowedDashboardIds": [],
                "edgesSupportEnabled": False,
                "hasRepository": False,
                "tbelEnabled": False,
                "persistDeviceStateToTelemetry": False,
                "userSettings": {},
                "maxDatapointsLimit": 50_000,
                "maxResourceSize": 0,
                "mobileQrEnabled": False,
                "maxDebugModeDurationMinutes": 0,
                "ruleChainDebugPerTenantLimitsConfiguration": None,
                "calculatedFieldDebugPerTenantLimitsConfiguration": None,
                "trendzSettings": None,
            }
        )

    async def chains(self, request: Request) -> Response:
        """GET /api/ruleChains: the one that everything passes through."""
        wanted = request.query_params.get("type") or "CORE"
        found = [self._chain_body()] if wanted == "CORE" else []
        return page_of(
            request, found, lambda chain: chain, text=lambda chain: str(chain["name"]), sort=_SORT
        )

    async def chain(self, request: Request) -> Response:
        """GET /api/ruleChain/{id}."""
        self._check(request, self._chain, "Rule chain")
        return json_answer(self._chain_body())

    async def no_editor(self, _request: Request) -> Response:
        """POST /api/ruleChain: 501."""
        raise RestError(501, GENERAL, _NO_EDITOR)

    def _check(self, request: Request, known: str, what: str) -> None:
        asked = params.path_id(request)
        if asked != known:
            raise NotFound(f"{what} with id [{asked}] is not found")

    def _tenant_body(self) -> JsonObject:
        contact = ("country", "state", "city", "address", "address2", "zip", "phone", "email")
        return {
            "id": _id("TENANT", self._tenant),
            "createdTime": _created_ms(self._tenant),
            "title": "Tenant",
            "name": "Tenant",
            "region": "Global",
            "tenantProfileId": _id("TENANT_PROFILE", self._profiles.id),
            **dict.fromkeys(contact),
            "additionalInfo": None,
            "version": 1,
        }

    def _chain_body(self) -> JsonObject:
        return {
            "id": _id("RULE_CHAIN", self._chain),
            "createdTime": _created_ms(self._tenant),
            "tenantId": _id("TENANT", self._tenant),
            "name": "Root Rule Chain",
            "type": "CORE",
            "firstRuleNodeId": None,
            "root": True,
            "debugMode": False,
            "configuration": None,
            "externalId": None,
            "additionalInfo": None,
            "version": 1,
        }


_SORT: Final = {
    "name": lambda chain: chain["name"],
    "createdTime": lambda chain: chain["createdTime"],
    "root": lambda chain: chain["root"],
}


def _id(type_: shapes.EntityType, id: str) -> shapes.EntityId:
    return shapes.EntityId(type_, id)


def _derived(tenant: str, what: str) -> str:
    """The same id whenever it is asked for."""
    return str(uuid.uuid5(uuid.UUID(tenant), what))


def _created_ms(version1: str) -> int:
    """Unix time at which a UUID of version 1 was made."""
    return (uuid.UUID(version1).time - _EPOCH_100NS) // 10_000
