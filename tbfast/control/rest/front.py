"""The interface as people reach it, through the workers: behind a login, for any web page.

Only workers can open its socket, so the peer address they put into a header is true.
"""

import re
from collections.abc import Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from tbfast.control.rest import build_app
from tbfast.control.rest.gate import AccountsGate
from tbfast.control.rest.peer import Border, Network
from tbfast.control.services import Services

_PREFLIGHT_S: Final = 1_800  # browsers ask again after so long (HTTP spec 1.1)
_METHODS: Final = ("GET", "POST", "PUT", "DELETE")
_HEADERS: Final = ("*",)  # those that the page asks for
_PACKED_BYTES: Final = 1_024  # smaller answers are sent as they are
_PACKING: Final = 1  # level of zlib: on small machines time is scarcer than bytes
_EXPOSED: Final = ("Content-Disposition", "Retry-After", "x-filename")


class Compressed:
    """Answers are compressed for clients that take gzip; small ones and downloads are not.

    Downloads may be asked for in ranges, which count bytes of the file, and rarely get smaller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain = app
        self._packed = GZipMiddleware(app, _PACKED_BYTES, _PACKING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        plain = scope["type"] != "http" or scope["path"].endswith("/download")
        await (self._plain if plain else self._packed)(scope, receive, send)


def build_front(
    services: Services,
    networks: Sequence[Network],
    *,
    origins: re.Pattern[str] | None = None,
    compress: bool = False,
) -> ASGIApp:
    """The application for `Layout.front`.

    networks: whose addresses may use it, none = all.  origins: web pages of which may use it from
    a browser, as the whole of an origin looks; None = all.
    """
    app: ASGIApp = build_app(services, AccountsGate(services.accounts))
    if compress:
        app = Compressed(app)
    # Nothing is authorised by cookie or address, so another site's page gains nothing by asking.
    app = CORSMiddleware(
        app,
        allow_origins=("*",) if origins is None else (),
        allow_origin_regex=None if origins is None else origins.pattern,
        allow_methods=_METHODS,
        allow_headers=_HEADERS,
        expose_headers=_EXPOSED,
        max_age=_PREFLIGHT_S,
    )
    return Border(app, networks) if networks else app
