"""The controller's HTTP interface: ThingsBoard's management API subset and tbfast's own paths.

It is served on a Unix socket that only the owner of the data directory can open; whoever connects
is trusted. A path or method that is not here is answered with the error envelope of REST spec 1.3.
"""

from starlette.applications import Starlette

from tbfast.control.rest.attributes import AttributeRoutes
from tbfast.control.rest.callers import Gate, OwnersGate
from tbfast.control.rest.claims import ClaimRoutes
from tbfast.control.rest.customers import CustomerRoutes
from tbfast.control.rest.device_calls import DeviceCallRoutes
from tbfast.control.rest.device_lists import DeviceLists
from tbfast.control.rest.devices import DeviceRoutes
from tbfast.control.rest.endpoints import Endpoint, routes
from tbfast.control.rest.errors import HANDLERS
from tbfast.control.rest.node import NodeRoutes
from tbfast.control.rest.persistent_rpc import PersistentRpcRoutes
from tbfast.control.rest.profiles import ProfileRoutes
from tbfast.control.rest.relations import RelationRoutes
from tbfast.control.rest.resources import ResourceRoutes
from tbfast.control.rest.rpc import RpcRoutes
from tbfast.control.rest.series_delete import SeriesDeleteRoutes
from tbfast.control.rest.system import SystemRoutes
from tbfast.control.rest.telemetry import TelemetryRoutes
from tbfast.control.services import Services
from tbfast.control.ws.endpoint import WebSocketRoutes


def build_app(services: Services, gate: Gate | None = None) -> Starlette:
    """The ASGI application; it starts nothing and owns nothing.

    gate: who lets callers in; None = whoever can open the socket owns the data directory.
    """
    gate = gate or OwnersGate()
    return Starlette(
        routes=[
            *routes(_endpoints(services), gate),
            *WebSocketRoutes(services, services.watches, gate).routes(),
        ],
        exception_handlers=HANDLERS,
    )


def _endpoints(services: Services) -> list[Endpoint]:
    """All of them, in the order in which paths must be tried."""
    lists = DeviceLists(services.registry, services.attributes)
    return [
        *lists.endpoints(),
        *DeviceRoutes(services.registry, lists).endpoints(),
        *CustomerRoutes(services.registry).endpoints(),
        *RelationRoutes(services.registry).endpoints(),
        *ResourceRoutes(services.registry).endpoints(),
        *SystemRoutes(services.registry).endpoints(),
        *ProfileRoutes(services.registry).endpoints(),
        *TelemetryRoutes(services.registry, services.series, services.writer).endpoints(),
        *AttributeRoutes(services.registry, services.attributes).endpoints(),
        *ClaimRoutes(services.registry, services.claims).endpoints(),
        *RpcRoutes(services.registry, services.rpc).endpoints(),
        *PersistentRpcRoutes(services.registry, services.rpc).endpoints(),
        *DeviceCallRoutes(services.device_calls).endpoints(),
        *SeriesDeleteRoutes(services.registry, services.deletes).endpoints(),
        *NodeRoutes(services.registry, services.live, services.node).endpoints(),
    ]
