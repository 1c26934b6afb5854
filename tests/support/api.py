"""A client of the REST application that tests read: status and JSON of each answer."""

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlencode

from tests.support.rest_server import RunningApp


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


class Api:
    """One keep-alive connection to the application."""

    def __init__(self, app: RunningApp) -> None:
        self.app = app
        self.connection = Connection(app.layout.api)

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str):
        self.connection.request(method, path, body, headers)
        response = self.connection.getresponse()
        return response, response.read()

    def __call__(self, method: str, path: str, body: object = None, **query: object):
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        response, text = self.raw(
            method, target, None if body is None else json.dumps(body).encode()
        )
        return response.status, json.loads(text) if text else None

    def done(self, method: str, path: str, body: object = None, **query: object):
        """The answer of a request that must succeed."""
        status, answer = self(method, path, body, **query)
        assert status == 200, answer
        return answer

    def error(self, method: str, path: str, body: object = None, **query: object):
        status, envelope = self(method, path, body, **query)
        assert envelope.keys() == {"status", "message", "errorCode", "timestamp"}
        assert envelope["status"] == status
        return status, envelope["errorCode"], envelope["message"]

    def device(self, name: str, **query: object) -> str:
        return self.done("POST", "/api/device", {"name": name}, **query)["id"]["id"]

    def number(self, device_id: str) -> int:
        return self.app.call(self.app.registry.device(device_id)).number
