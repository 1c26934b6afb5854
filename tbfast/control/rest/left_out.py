"""Paths of ThingsBoard that are left out here, where a pattern would take them for something else.

Without these a client would hear that "dashboards" is no id, or that the method is wrong; it should
hear that there is no such thing (REST spec 16).
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.rest.endpoints import Endpoint, Method
from tbfast.control.rest.errors import ITEM_NOT_FOUND, RestError

_PATHS: Final[tuple[tuple[Method, str], ...]] = (
    ("POST", "/api/devices"),
    ("POST", "/api/device/bulk_import"),
    *(
        ("GET", f"/api/tenant/{kind}")
        for kind in (
            "asset", "assets", "assetInfos", "dashboards", "entityView", "entityViews",
            "entityViewInfos", "edge", "edges", "edgeInfos",
        )
    ),
    ("GET", "/api/user/dashboards"),
    ("GET", "/api/user/settings"),
    ("POST", "/api/user/settings"),
    ("PUT", "/api/user/settings"),
)  # fmt: skip


def left_out() -> list[Endpoint]:
    """Endpoints of whoever is logged in; they are no part of the OpenAPI document."""
    return [Endpoint(method, path, _nothing, "user") for method, path in _PATHS]


async def _nothing(_request: Request) -> Response:
    raise RestError(404, ITEM_NOT_FOUND, "Requested item wasn't found!")
