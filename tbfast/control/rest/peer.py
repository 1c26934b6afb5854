"""Where a request comes from: what the workers say in a header."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tbfast.control.rest.errors import PERMISSION_DENIED, envelope

PEER_HEADER: Final = "x-tbfast-peer"
Network = IPv4Network | IPv6Network


def peer_of(request: HTTPConnection) -> str | None:
    """Address of whoever asks; None on the owner's socket."""
    said = request.headers.get(PEER_HEADER)
    return None if said is None else said.partition(";")[0]


def scheme_of(request: HTTPConnection) -> str:
    """Of links that lead whoever asks back here: https if the request came so."""
    return "https" if request.headers.get(PEER_HEADER, "").endswith(";proto=https") else "http"


class Border:
    """403 for requests from outside some networks, before anything else is looked at."""

    def __init__(self, app: ASGIApp, networks: Sequence[Network]) -> None:
        self._app = app
        self._networks = tuple(networks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] not in ("http", "websocket") or self._inside(HTTPConnection(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            refusal = envelope(403, PERMISSION_DENIED, "This network may not use the admin API")
            await refusal(scope, receive, send)

    def _inside(self, connection: HTTPConnection) -> bool:
        try:
            address = ip_address(peer_of(connection) or "")
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
