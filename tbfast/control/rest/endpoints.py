"""One endpoint: where it is, who may call it, what goes in and what comes out.

The table of these makes the routes and the OpenAPI document, so that the two cannot disagree.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tbfast.control.rest.callers import Access, Caller, Gate, refused

Method = Literal["GET", "POST", "PUT", "DELETE"]
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query parameter."""

    name: str
    type: Any = str
    required: bool = False


PAGING = (
    Query(name="pageSize", type=int, required=True),
    Query(name="page", type=int, required=True),
    Query(name="textSearch"),
    Query(name="sortProperty"),
    Query(name="sortOrder", type=Literal["ASC", "DESC"]),
)

NAMING = (
    Query(name="nameConflictPolicy", type=Literal["FAIL", "UNIQUIFY"]),
    Query(name="uniquifySeparator"),
    Query(name="uniquifyStrategy", type=Literal["RANDOM", "INCREMENTAL"]),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``body`` and ``answer`` are types msgspec knows; None: none, or not JSON.

    ``answer`` is a tuple of types where the query decides which of them comes.

    ``public``: whether a public caller, who may only look, is let in; None: if it is a GET.
    """

    method: Method
    path: str
    handler: Handler
    access: Access
    _: KW_ONLY
    body: Any = None
    answer: Any = None
    query: tuple[Query, ...] = ()
    public: bool | None = None

    def admits(self, caller: Caller) -> bool:
        """Whether this caller may call it."""
        if caller.public and not (self.method == "GET" if self.public is None else self.public):
            return False
        return caller.may(self.access)


def routes(endpoints: Iterable[Endpoint], gate: Gate) -> list[Route]:
    """Routes in the order given; each lets in whom its endpoint wants."""
    return [Route(e.path, _guarded(e, gate), methods=[e.method]) for e in endpoints]


def _guarded(endpoint: Endpoint, gate: Gate) -> Handler:
    async def guarded(request: Request) -> Response:
        if endpoint.access != "anyone":
            caller = await gate.caller(request)
            if not endpoint.admits(caller):
                raise refused()
            request.state.caller = caller
        return await endpoint.handler(request)

    return guarded
