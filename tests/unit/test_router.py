"""Which handler gets a request, and what becomes of what it raises (REST spec 1.3)."""

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from tbfast.control.rest.router import Route, Router


class Broken(Exception):
    pass


async def _breaks(_request: Request) -> Response:
    raise Broken


async def _breaks_late(_request: Request) -> Response:
    async def parts():
        yield b"some"
        raise Broken

    return StreamingResponse(parts())


def _tells(name: str):
    async def handler(request: Request) -> Response:
        return Response(f"{name} {request.path_params}")

    return handler


async def _refused(_request: Request, error: HTTPException) -> Response:
    return Response(status_code=error.status_code, headers=error.headers)


async def _unexpected(_request: Request, _error: Exception) -> Response:
    return Response(status_code=500)


ROUTER = Router(
    [
        Route("GET", "/a/fixed", _tells("fixed")),
        Route("GET", "/a/{id}", _tells("id")),
        Route("DELETE", "/a/{id}", _tells("deleted")),
        Route("POST", "/a/{id}/{ttl:int}", _tells("integer")),
        Route("POST", "/a/{first}/{second}", _tells("words")),
        Route("GET", "/a.b/{id}", _tells("dot")),
        Route("GET", "/breaks", _breaks),
        Route("GET", "/breaks/late", _breaks_late),
    ],
    {},
    {HTTPException: _refused, Exception: _unexpected},
)


def ask(method: str, path: str) -> tuple[int, bytes, dict[bytes, bytes]]:
    return asyncio.run(_asked(method, path, []))


async def _asked(method: str, path: str, sent: list[Any]) -> tuple[int, bytes, dict[bytes, bytes]]:
    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http", "method": method, "path": path, "headers": [], "query_string": b"",
        "asgi": {"spec_version": "2.4"},
    }  # fmt: skip
    await ROUTER(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], body, dict(sent[0]["headers"])


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/a/fixed", b"fixed {}"),
        ("HEAD", "/a/fixed", b"fixed {}"),
        ("GET", "/a/fixed.", b"id {'id': 'fixed.'}"),
        ("DELETE", "/a/fixed", b"deleted {'id': 'fixed'}"),
        ("POST", "/a/x/12", b"integer {'id': 'x', 'ttl': 12}"),
        ("POST", "/a/x/1y", b"words {'first': 'x', 'second': '1y'}"),
        ("GET", "/a.b/\u00e4 \n", "dot {'id': 'ä \\n'}".encode()),
    ],
)
def test_the_first_that_fits(method: str, path: str, answer: bytes) -> None:
    assert ask(method, path)[:2] == (200, answer)


@pytest.mark.parametrize("path", ["/", "", "/a", "/a/", "/a/x/", "//a/x", "/axb/x", "/a/b/c/d"])
def test_nothing_there(path: str) -> None:
    assert ask("GET", path)[0] == 404


def test_another_method() -> None:
    status, _body, headers = ask("PUT", "/a/fixed")
    assert (status, headers[b"allow"]) == (405, b"DELETE, GET, HEAD")
    assert ask("GET", "/a/x/1")[0] == 405


def test_what_nobody_expected_is_answered_and_raised() -> None:
    sent: list[Any] = []
    with pytest.raises(Broken):
        asyncio.run(_asked("GET", "/breaks", sent))
    assert sent[0]["status"] == 500


def test_after_the_first_byte_there_is_no_second_answer() -> None:
    sent: list[Any] = []
    with pytest.raises(Broken):
        asyncio.run(_asked("GET", "/breaks/late", sent))
    assert [message["type"] for message in sent].count("http.response.start") == 1
