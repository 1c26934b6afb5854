"""Somebody who uses the management API over HTTP."""

import base64
import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

PEER = "192.0.2.7"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


class Person:
    """One keep-alive connection to a Unix socket (as the workers use it) or a TCP port.

    ``headers`` go with every request.
    """

    def __init__(self, where: Path | int, *, peer: str = PEER, **headers: str) -> None:
        self._where = where
        self.headers = headers
        self.tokens: dict[str, str] = {}
        if isinstance(where, int):
            self.connection = http.client.HTTPConnection("127.0.0.1", where, timeout=30)
        else:
            self.connection = _UnixConnection(where)
            self.headers = {"x-tbfast-peer": peer, **headers}

    def close(self) -> None:
        self.connection.close()

    def raw(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self.connection.request(method, path, body, {**self.headers, **headers})
        response = self.connection.getresponse()
        return response, response.read()

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status and JSON (None without a body)."""
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        response, text = self.raw(method, target, None if body is None else json.dumps(body))
        return response.status, json.loads(text) if text else None

    def refusal(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, int]:
        """Status and error code of an answer in the error envelope."""
        status, envelope = self(method, path, body, **query)
        assert envelope.keys() == {"status", "message", "errorCode", "timestamp"}
        assert envelope["status"] == status
        return status, envelope["errorCode"]

    def ok(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """JSON of an answer that must be 200."""
        status, answer = self(method, path, body, **query)
        assert status == 200, (method, path, status, answer)
        return answer

    def login(self, email: str, password: str) -> "Person":
        """Itself, with the tokens of a login in every request from now on."""
        body = {"username": email, "password": password}
        return self.use(self.ok("POST", "/api/auth/login", body))

    def use(self, tokens: dict[str, str]) -> "Person":
        """Itself, with other tokens."""
        self.tokens = tokens
        self.headers["X-Authorization"] = f"Bearer {tokens['token']}"
        return self


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, read as clients do: without the key."""
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return claims


@contextlib.contextmanager
def people(where: Path | int) -> Iterator[Any]:
    """A function that makes persons, whose connections are closed at the end."""
    made: list[Person] = []

    def person(**headers: str) -> Person:
        made.append(Person(where, **headers))
        return made[-1]

    yield person
    for one in made:
        one.close()
