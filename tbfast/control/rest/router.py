"""From a request's path and method to its handler, and from what the handler raises to an answer.

Starlette tries one pattern after the other and puts two layers around every request, which counts
with our number of endpoints. Here a path without parameters is one look into a table, one with them
tries the patterns of its length.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

Handler = Callable[[Request], Awaitable[Response]]
WebSocketHandler = Callable[[WebSocket], Awaitable[None]]
ErrorHandlers = Mapping[type[Exception], Callable[[Request, Any], Awaitable[Response]]]

_PARAMETER: Final = re.compile(r"{(\w+)(:int)?}")
_NO_PARAMETERS: Final[dict[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Route:
    """``path`` may hold ``{name}``, a word without a slash, and ``{name:int}``."""

    method: str
    path: str
    handler: Handler


class _Pattern:
    """A path with parameters."""

    def __init__(self, path: str) -> None:
        text, end = "", 0
        self._integers = []
        for found in _PARAMETER.finditer(path):
            name, integer = found.groups()
            text += re.escape(path[end : found.start()])
            text += f"(?P<{name}>{'[0-9]+' if integer else '[^/]+'})"
            end = found.end()
            if integer:
                self._integers.append(name)
        self._match = re.compile(text + re.escape(path[end:])).fullmatch

    def parameters(self, path: str) -> dict[str, Any] | None:
        found = self._match(path)
        if found is None:
            return None
        values: dict[str, Any] = found.groupdict()
        for name in self._integers:
            values[name] = int(values[name])
        return values


class Router:
    """The ASGI application; a path without parameters goes before patterns, then the first fits."""

    def __init__(
        self,
        routes: Sequence[Route],
        websockets: Mapping[str, WebSocketHandler],
        errors: ErrorHandlers,
    ) -> None:
        self._websockets = dict(websockets)
        self._errors = dict(errors)
        self._patterns: dict[int, list[tuple[_Pattern, dict[str, Handler]]]] = {}
        self._fixed: dict[str, dict[str, Handler]] = {}
        by_path: dict[str, dict[str, Handler]] = {}
        for route in routes:
            by_path.setdefault(route.path, {}).setdefault(route.method, route.handler)
        for path, methods in by_path.items():
            if "GET" in methods:
                methods.setdefault("HEAD", methods["GET"])
            if "{" in path:
                self._patterns.setdefault(path.count("/"), []).append((_Pattern(path), methods))
            else:
                self._fixed[path] = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            handler, scope["path_params"] = self._found(scope["path"], scope["method"])
            response = await handler(request)
            await response(scope, receive, sending)
        except Exception as error:
            kind = next(kind for kind in type(error).__mro__ if kind in self._errors)
            if started:
                raise
            response = await self._errors[kind](request, error)
            await response(scope, receive, send)
            if kind is Exception:
                raise  # so that it reaches the log

    def _found(self, path: str, method: str) -> tuple[Handler, dict[str, Any]]:
        """HTTPException 404 or 405 where there is no handler."""
        fixed = self._fixed.get(path, {})
        handler = fixed.get(method)
        if handler is not None:
            return handler, _NO_PARAMETERS
        allowed = set(fixed)
        for pattern, methods in self._patterns.get(path.count("/"), ()):
            parameters = pattern.parameters(path)
            if parameters is None:
                continue
            handler = methods.get(method)
            if handler is not None:
                return handler, parameters
            allowed.update(methods)
        if allowed:
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})
        raise HTTPException(404)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._websockets.get(scope["path"])
        if handler is None:
            await send({"type": "websocket.close", "code": 1000})
            return
        await handler(WebSocket(scope, receive, send))
