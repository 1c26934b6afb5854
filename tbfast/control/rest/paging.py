"""Pages of lists short enough to be held whole (REST spec 1.2)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.errors import bad_request

T = TypeVar("T")


def page_of(
    request: Request,
    rows: Sequence[T],
    shape: Callable[[T], object],
    *,
    text: Callable[[T], str],
    sort: Mapping[str, Callable[[T], Any]],
) -> Response:
    """The page the request asks for.

    rows: in default order. text: what textSearch looks at. sort: keys by sortProperty.
    """
    page = params.integer(request, "page")
    size = params.integer(request, "pageSize", least=1)
    wanted = request.query_params.get("textSearch", "").casefold()
    found = [row for row in rows if wanted in text(row).casefold()]
    name = request.query_params.get("sortProperty")
    descending = params.descending(request, "sortOrder", "ASC")
    if name and name != "id":
        if name not in sort:
            raise bad_request(f"Unsupported sortProperty: {name[:64]}")
        found.sort(key=sort[name])
    if descending:
        found.reverse()
    data = [shape(row) for row in found[page * size : (page + 1) * size]]
    body = {"data": data, **msgspec.to_builtins(shapes.page_tail(page, size, len(found)))}
    return json_answer(body)
