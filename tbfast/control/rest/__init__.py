"""The controller's HTTP interface: ThingsBoard's management API subset and tbfast's own paths.

It is served on a Unix socket that only the owner of the data directory can open; whoever connects
is trusted. A path or method that is not here is answered with the error envelope of REST spec 1.3.
"""

from starlette.applications import Starlette

from tbfast.control.rest.attributes import AttributeRoutes
from tbfast.control.rest.devices import DeviceRoutes
from tbfast.control.rest.errors import HANDLERS
from tbfast.control.rest.node import NodeRoutes
from tbfast.control.rest.rpc import RpcRoutes
from tbfast.control.rest.series_delete import SeriesDeleteRoutes
from tbfast.control.rest.telemetry import TelemetryRoutes
from tbfast.control.services import Services


def build_app(services: Services) -> Starlette:
    """The ASGI application; it starts nothing and owns nothing."""
    return Starlette(
        routes=[
            *DeviceRoutes(services.registry).routes(),
            *TelemetryRoutes(services.registry, services.series).routes(),
            *AttributeRoutes(services.registry, services.attributes).routes(),
            *RpcRoutes(services.registry, services.rpc).routes(),
            *SeriesDeleteRoutes(services.registry, services.deletes).routes(),
            *NodeRoutes(services.registry, services.live, services.node).routes(),
        ],
        exception_handlers=HANDLERS,
    )
