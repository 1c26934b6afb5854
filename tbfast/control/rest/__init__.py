"""The controller's HTTP interface: ThingsBoard's management API subset and tbfast's own paths.

It is served twice: on a Unix socket that only the owner of the data directory can open, where
whoever connects is trusted, and through the workers behind a login (`front`). A path or method that
is not here is answered with the error envelope of REST spec 1.3.
"""

from tbfast.control.queries import EntityQueries
from tbfast.control.rest.api_keys import ApiKeyRoutes
from tbfast.control.rest.attributes import AttributeRoutes
from tbfast.control.rest.auth import AuthRoutes
from tbfast.control.rest.callers import Gate, OwnersGate
from tbfast.control.rest.claims import ClaimRoutes
from tbfast.control.rest.connectivity import ConnectivityRoutes
from tbfast.control.rest.customers import CustomerRoutes
from tbfast.control.rest.device_calls import DeviceCallRoutes
from tbfast.control.rest.device_lists import DeviceLists
from tbfast.control.rest.devices import DeviceRoutes
from tbfast.control.rest.endpoints import Endpoint, routes
from tbfast.control.rest.errors import HANDLERS
from tbfast.control.rest.left_out import left_out
from tbfast.control.rest.lwm2m import Lwm2mRoutes
from tbfast.control.rest.node import NodeRoutes
from tbfast.control.rest.openapi import OpenApiRoutes
from tbfast.control.rest.package_devices import PackageDeviceRoutes
from tbfast.control.rest.packages import PackageRoutes
from tbfast.control.rest.persistent_rpc import PersistentRpcRoutes
from tbfast.control.rest.profiles import ProfileRoutes
from tbfast.control.rest.queries import QueryRoutes
from tbfast.control.rest.relations import RelationRoutes
from tbfast.control.rest.resources import ResourceRoutes
from tbfast.control.rest.router import Router
from tbfast.control.rest.rpc import RpcRoutes
from tbfast.control.rest.series_delete import SeriesDeleteRoutes
from tbfast.control.rest.system import SystemRoutes
from tbfast.control.rest.telemetry import TelemetryRoutes
from tbfast.control.rest.tenant_profiles import TenantProfileRoutes
from tbfast.control.rest.upkeep import UpkeepRoutes
from tbfast.control.rest.users import UserRoutes
from tbfast.control.services import Services
from tbfast.control.ws.endpoint import WebSocketRoutes


def build_app(services: Services, gate: Gate | None = None) -> Router:
    """The ASGI application; it starts nothing and owns nothing.

    gate: who lets callers in; None = whoever can open the socket owns the data directory.
    """
    gate = gate or OwnersGate()
    endpoints = _endpoints(services)
    return Router(
        routes([*left_out(), *endpoints, *OpenApiRoutes(endpoints).endpoints()], gate),
        WebSocketRoutes(services, services.watches, gate).handlers(),
        HANDLERS,
    )


def _endpoints(services: Services) -> list[Endpoint]:
    """All of them, in the order in which paths must be tried."""
    accounts, tenant_id = services.accounts, services.registry.tenant_id
    lists = DeviceLists(services.registry, services.attributes)
    queries = EntityQueries(services.registry, services.series, services.attributes)
    return [
        *QueryRoutes(services.registry, queries).endpoints(),
        *AuthRoutes(accounts, tenant_id).endpoints(),
        *UserRoutes(accounts, tenant_id).endpoints(),
        *ApiKeyRoutes(accounts, tenant_id).endpoints(),
        *lists.endpoints(),
        *DeviceRoutes(services.registry, lists).endpoints(),
        *ConnectivityRoutes(services.registry, services.node).endpoints(),
        *CustomerRoutes(services.registry).endpoints(),
        *RelationRoutes(services.registry).endpoints(),
        *ResourceRoutes(services.registry).endpoints(),
        *Lwm2mRoutes().endpoints(),
        *PackageDeviceRoutes(services.registry, services.series).endpoints(),
        *PackageRoutes(services.registry, services.packages).endpoints(),
        *SystemRoutes(services.registry).endpoints(),
        *TenantProfileRoutes(services.registry).endpoints(),
        *ProfileRoutes(services.registry).endpoints(),
        *TelemetryRoutes(services.registry, services.series, services.writer).endpoints(),
        *AttributeRoutes(services.registry, services.attributes).endpoints(),
        *ClaimRoutes(services.registry, services.claims).endpoints(),
        *RpcRoutes(services.registry, services.rpc).endpoints(),
        *PersistentRpcRoutes(services.registry, services.rpc).endpoints(),
        *DeviceCallRoutes(services.device_calls).endpoints(),
        *SeriesDeleteRoutes(services.registry, services.deletes).endpoints(),
        *NodeRoutes(services.registry, services.live, services.node).endpoints(),
        *UpkeepRoutes(services.upkeep).endpoints(),
    ]
