"""The error envelope of REST spec 1.3, and which of our errors gets which code."""

import http
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.accounts import Denied, KeyExpired, TokenExpired, TooManyFailures
from tbfast.control.accounts.passwords import WeakPassword
from tbfast.control.rules import InvalidEntity, UniqueConflict
from tbfast.errors import Conflict, NotFound, ResourceError, StoreError, StoreStall

GENERAL: Final = 2
AUTHENTICATION: Final = 10
TOKEN_EXPIRED: Final = 11
CREDENTIALS_EXPIRED: Final = 15
PERMISSION_DENIED: Final = 20
BAD_REQUEST: Final = 31
ITEM_NOT_FOUND: Final = 32
TOO_MANY_REQUESTS: Final = 33
VERSION_CONFLICT: Final = 35
PASSWORD_POLICY: Final = 45
DATABASE: Final = 46

Handler = Callable[[Request, Any], Awaitable[Response]]


class RestError(Exception):
    """A request refused by the interface itself."""

    def __init__(self, status: int, error_code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class Envelope(msgspec.Struct, rename="camel"):
    """Body of a refusal."""

    status: int
    message: str
    error_code: int
    timestamp: int


def bad_request(message: str) -> RestError:
    """400 with the code for bad parameters and broken validation."""
    return RestError(400, BAD_REQUEST, message)


def not_let_in(error: Denied) -> RestError:
    """401 with the code for the reason."""
    match error:
        case TokenExpired():
            code = TOKEN_EXPIRED
        case KeyExpired():
            code = CREDENTIALS_EXPIRED
        case _:
            code = AUTHENTICATION
    return RestError(401, code, str(error))


def envelope(
    status: int, error_code: int, message: str, headers: Mapping[str, str] | None = None
) -> Response:
    """The answer to a refused request."""
    body = Envelope(status, message, error_code, time.time_ns() // 1_000_000)
    return Response(msgspec.json.encode(body), status, headers, "application/json")


async def _refused(_request: Request, error: RestError) -> Response:
    return envelope(error.status, error.error_code, str(error))


async def _unrouted(_request: Request, error: HTTPException) -> Response:
    if error.status_code == 404:
        return envelope(404, ITEM_NOT_FOUND, "Requested item wasn't found!")
    message = error.detail or http.HTTPStatus(error.status_code).phrase
    code = BAD_REQUEST if error.status_code == 405 else GENERAL
    return envelope(error.status_code, code, message, error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    # The router raises the error again after this answer, so that it reaches the log.
    return envelope(500, GENERAL, "Internal error; the server's log has the details")


async def _denied(_request: Request, error: Denied) -> Response:
    return await _refused(_request, not_let_in(error))


async def _too_many(_request: Request, error: TooManyFailures) -> Response:
    return envelope(429, TOO_MANY_REQUESTS, str(error), {"Retry-After": str(error.wait_s)})


def _with(status: int, error_code: int, headers: Mapping[str, str] | None = None) -> Handler:
    async def handle(_request: Request, error: Exception) -> Response:
        return envelope(status, error_code, str(error), headers)

    return handle


HANDLERS: Final[dict[Any, Handler]] = {
    RestError: _refused,
    HTTPException: _unrouted,
    Denied: _denied,
    TooManyFailures: _too_many,
    WeakPassword: _with(400, PASSWORD_POLICY),
    NotFound: _with(404, ITEM_NOT_FOUND),
    UniqueConflict: _with(400, BAD_REQUEST),
    InvalidEntity: _with(400, BAD_REQUEST),
    Conflict: _with(409, VERSION_CONFLICT),
    StoreError: _with(500, DATABASE),
    StoreStall: _with(503, GENERAL, {"Retry-After": "1"}),
    ResourceError: _with(503, GENERAL, {"Retry-After": "1"}),
    Exception: _unexpected,
}
