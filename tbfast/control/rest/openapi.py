"""The OpenAPI 3.1 document of the interface, made from the table of endpoints."""

import functools
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast import __version__
from tbfast.control.rest.callers import Access
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.errors import Envelope

PATHS: Final = ("/v3/api-docs", "/api/openapi.json")  # ThingsBoard's, and the usual one

_REF: Final = "#/components/schemas/{name}"
_PARAMETER: Final = re.compile(r"{(\w+)(?::\w+)?}")
_FOR: Final[dict[Access, str]] = {
    "anyone": "Needs no login.",
    "user": "For every account; a customer's user sees what belongs to that customer.",
    "tenant": "For tenant administrators.",
    "system": "For system administrators.",
    "admin": "For administrators of the tenant or the system.",
    "owner": "For the owner of the data directory, on the socket in it.",
}
_SECURITY: Final = {
    "token": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Authorization",
        "description": "`Bearer <token>` of POST /api/auth/login, or `ApiKey <key>`",
    },
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
}


class OpenApiRoutes:
    """Serves the document of other endpoints."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = (*endpoints, *self.endpoints())

    def endpoints(self) -> list[Endpoint]:
        """Both paths have the same document."""
        return [Endpoint("GET", path, self.document, "anyone") for path in PATHS]

    async def document(self, _request: Request) -> Response:
        """This document."""
        return Response(self._text, media_type="application/json")

    @functools.cached_property
    def _text(self) -> bytes:
        return msgspec.json.encode(document(self._endpoints))


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document as plain values."""
    types = [Envelope, *_types(endpoints)]
    found, components = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = {id(type_): schema for type_, schema in zip(types, found, strict=True)}
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = _PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tbfast",
            "version": __version__,
            "summary": "Management API, a compatible subset of ThingsBoard's",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SECURITY},
    }


def _types(endpoints: Sequence[Endpoint]) -> Iterator[Any]:
    for endpoint in endpoints:
        yield from (type_ for type_ in (endpoint.body, *_answers(endpoint)) if type_ is not None)
        yield from (query.type for query in endpoint.query)


def _answers(endpoint: Endpoint) -> tuple[Any, ...]:
    """Types of its answer, more than one where the query decides."""
    answer = endpoint.answer
    if isinstance(answer, tuple):
        return answer
    return () if answer is None else (answer,)


def _operation(endpoint: Endpoint, schemas: dict[int, Any]) -> dict[str, Any]:
    summary, description = _words(endpoint)
    answer: dict[str, Any] = {"description": "Done"}
    answers = [schemas[id(type_)] for type_ in _answers(endpoint)]
    if answers:
        answer["content"] = _json(answers[0] if len(answers) == 1 else {"anyOf": answers})
    operation: dict[str, Any] = {
        "operationId": _identifier(endpoint),
        "tags": [_tag(endpoint.path)],
        "summary": summary,
        "description": description,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint, schemas)],
        "responses": {
            "200": answer,
            "default": {"description": "Refused", "content": _json(schemas[id(Envelope)])},
        },
        "security": [] if endpoint.access == "anyone" else [{"token": []}, {"bearer": []}],
    }
    if endpoint.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _json(schemas[id(endpoint.body)]),
        }
    return operation


def _words(endpoint: Endpoint) -> tuple[str, str]:
    """First line of the handler's docstring; the rest of it and who may call."""
    handler: Any = endpoint.handler
    if isinstance(handler, functools.partial):
        handler = handler.func
    first, _, rest = (inspect.getdoc(handler) or "").partition("\n")
    return first, "\n\n".join(part for part in (rest.strip(), _FOR[endpoint.access]) if part)


def _identifier(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path.removeprefix("/api"))
    return "_".join([endpoint.method.lower(), *words])


def _tag(path: str) -> str:
    words = [word for word in path.split("/") if word and word not in ("api", "plugins")]
    return words[0]


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(endpoint: Endpoint, schemas: dict[int, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": query.name,
            "in": "query",
            "required": query.required,
            "schema": schemas[id(query.type)],
        }
        for query in endpoint.query
    ]


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
