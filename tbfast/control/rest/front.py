"""The interface as people reach it, through the workers: behind a login, for any web page.

Only workers can open its socket, so the peer address they put into a header is true.
"""

from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from tbfast.control.rest import build_app
from tbfast.control.rest.gate import AccountsGate
from tbfast.control.rest.peer import Border, Network
from tbfast.control.services import Services

_PREFLIGHT_S: Final = 1_800  # browsers ask again after so long (HTTP spec 1.1)
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_HEADERS: Final = ("*",)  # those that the page asks for
_EXPOSED: Final = ("Content-Disposition", "Retry-After", "x-filename")


def build_front(services: Services, networks: Sequence[Network]) -> ASGIApp:
    """The application for `Layout.front`; networks: whose addresses may use it, none = all."""
    app: ASGIApp = build_app(services, AccountsGate(services.accounts))
    # Nothing is authorised by cookie or address, so another site's page gains nothing by asking.
    app = CORSMiddleware(
        app,
        allow_origins=("*",),
        allow_methods=_METHODS,
        allow_headers=_HEADERS,
        expose_headers=_EXPOSED,
        max_age=_PREFLIGHT_S,
    )
    return Border(app, networks) if networks else app
