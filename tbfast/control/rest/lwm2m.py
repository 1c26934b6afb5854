"""What LwM2M clients are told of this node (REST spec 12)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.model.lwm2m import BOOTSTRAP, SERVER


class ServerSecurity(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A server as an entry of a profile's ``bootstrap`` list; keys are base64, or empty."""

    short_server_id: int | None
    bootstrap_server_is: bool
    host: str
    port: int
    client_hold_off_time: int = 1
    server_public_key: str = ""
    server_certificate: str = ""
    bootstrap_server_account_timeout: int = 0
    lifetime: int = 300
    default_min_period: int = 1
    notif_if_disabled: bool = True
    binding: str = "U"
    security_host: str
    security_port: int


class Lwm2mRoutes:
    """One endpoint."""

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        return [
            Endpoint(
                "GET", "/api/lwm2m/deviceProfile/bootstrap/{isBootstrapServer}", self.server,
                "admin", answer=ServerSecurity,
            ),
        ]  # fmt: skip

    async def server(self, request: Request) -> Response:
        """GET /api/lwm2m/deviceProfile/bootstrap/{isBootstrapServer}."""
        text = request.path_params["isBootstrapServer"].lower()
        if text not in ("true", "false"):
            raise bad_request("isBootstrapServer should be true or false")
        is_bootstrap = text == "true"
        server = BOOTSTRAP if is_bootstrap else SERVER
        return json_answer(
            ServerSecurity(
                short_server_id=server.short_id,
                bootstrap_server_is=is_bootstrap,
                host=server.host,
                port=server.port,
                security_host=server.host,
                security_port=server.security_port,
            )
        )
