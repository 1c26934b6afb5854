"""What a worker answers itself: the pages of the node, and paths that are nobody's."""

import time
from typing import Final

from tbfast import limits
from tbfast.codec.http import Head, Response
from tbfast.net.http_exchange import Exchange, error_response
from tbfast.obs.http import HealthPages
from tbfast.obs.metrics import NodeMetrics

_PATHS: Final = (b"/healthz", b"/readyz", b"/metrics")


class Pages:
    """The pages of the node itself."""

    streamed = False
    prefixes: tuple[bytes, ...] = _PATHS

    def __init__(self, node: NodeMetrics) -> None:
        self._pages = HealthPages(node)

    def admit(self, head: Head) -> int | None:
        known = head.path in _PATHS
        return limits.HTTP_BODY_BYTES if known else None

    def begin(self, exchange: Exchange) -> None:
        assert exchange.request is not None
        head = exchange.request.head
        page = self._pages.page(head.path, time.monotonic())
        assert page is not None
        if head.method not in ("GET", "HEAD"):
            response = error_response(405, "Method not allowed", [("Allow", "GET, HEAD")])
        else:
            response = Response(page.status, page.body, page.content_type)
        exchange.answer(response)


class Nobody:
    """Every other path."""

    streamed = False
    prefixes: tuple[bytes, ...] = ()

    def admit(self, head: Head) -> int | None:
        return limits.HTTP_BODY_BYTES

    def begin(self, exchange: Exchange) -> None:
        exchange.answer(error_response(404, "Not found"))
