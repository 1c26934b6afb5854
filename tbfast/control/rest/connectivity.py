"""Commands ready to paste that publish a device's first telemetry (REST spec 3)."""

import shlex
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import visible_device
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.services import NodeStatus
from tbfast.model.device import Credentials
from tbfast.ops.auth import BasicSecret

_TELEMETRY: Final = '{"temperature":25}'
_TOPIC: Final = "v1/devices/me/telemetry"
_DOCKER: Final = "docker run --rm -it --network=host thingsboard/mosquitto-clients"

Commands = dict[str, str | dict[str, str]]


class ConnectivityRoutes:
    """One endpoint: commands for the protocols that are on and that the credentials fit."""

    def __init__(self, registry: Registry, node: NodeStatus) -> None:
        self._registry = registry
        self._node = node

    def endpoints(self) -> list[Endpoint]:
        """One path."""
        path = "/api/device-connectivity/{id}"
        return [
            Endpoint("GET", path, self.commands, "user", answer=dict[str, Commands], public=False)
        ]

    async def commands(self, request: Request) -> Response:
        """GET /api/device-connectivity/{id}: by protocol; one that is off is missing."""
        device = await visible_device(request, self._registry)
        secret = (await self._registry.record(device.id)).credentials
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or "localhost"
        node = await self._node.status()
        found: dict[str, Commands] = {}
        if node.http_port and secret.type == "ACCESS_TOKEN":
            found["http"] = {"http": _curl("http", host, node.http_port, secret.credentials_id)}
            if node.https_port:
                curl = _curl("https", host, node.https_port, secret.credentials_id)
                found["http"]["https"] = curl
        words = _mqtt_words(secret)
        if node.mqtt_port and words is not None:
            command = _mosquitto(host, node.mqtt_port, words)
            found["mqtt"] = {"mqtt": command, "docker": {"mqtt": f"{_DOCKER} {command}"}}
        return json_answer(found)


def _curl(scheme: str, host: str, port: int, token: str) -> str:
    named = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{named}:{port}/api/v1/{quote(token, safe='')}/telemetry"
    return shlex.join(
        ["curl", "-v", "-X", "POST", url, "-H", "Content-Type: application/json", "-d", _TELEMETRY]
    )


def _mosquitto(host: str, port: int, words: list[str]) -> str:
    where = ["-h", host, "-p", str(port), "-t", _TOPIC]
    return shlex.join(["mosquitto_pub", "-d", "-q", "1", *where, *words, "-m", _TELEMETRY])


def _mqtt_words(secret: Credentials) -> list[str] | None:
    """Options that show these credentials; None where an option cannot."""
    if secret.type == "ACCESS_TOKEN":
        return ["-u", secret.credentials_id]
    if secret.type != "MQTT_BASIC":
        return None
    basic = msgspec.json.decode(secret.value or "{}", type=BasicSecret)
    options = (("-i", basic.client_id), ("-u", basic.user_name), ("-P", basic.password))
    return [word for option, text in options if text for word in (option, text)]
