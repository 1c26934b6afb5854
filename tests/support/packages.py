"""Packages of running nodes, and readers for tests that have none."""

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tbfast.cli.client import SOCKET_NAME
from tbfast.store.packages import PackageFiles
from tbfast.worker.packages import PackageReader
from tests.support.api import Connection
from tests.support.multipart import CONTENT_TYPE, form
from tests.support.server import Server


def no_packages(loop: asyncio.AbstractEventLoop) -> PackageReader:
    """A reader that finds no file."""
    return PackageReader(loop, PackageFiles(Path("/nonexistent")))


def add_package(
    server: Server,
    title: str,
    version: str = "1.0",
    data: bytes | None = b"bytes",
    *,
    profile: str = "default",
    algorithm: str = "SHA256",
    **members: Any,
) -> str:
    """A package of a running node over REST; its id.  data: None = no upload."""
    with closing(Connection(server.data_dir / SOCKET_NAME)) as rest:
        infos = _asked(rest, "GET", "/api/deviceProfileInfos?pageSize=100&page=0")["data"]
        body = {
            "type": "FIRMWARE", "title": title, "version": version,
            "deviceProfileId": next(p["id"] for p in infos if p["name"] == profile),
        } | members  # fmt: skip
        made: str = _asked(rest, "POST", "/api/otaPackage", json.dumps(body).encode())["id"]["id"]
        if data is not None:
            path = f"/api/otaPackage/{made}?checksumAlgorithm={algorithm}"
            _asked(rest, "POST", path, form(data), CONTENT_TYPE)
        return made


def assign(server: Server, device: str, package: str | None, member: str = "firmwareId") -> None:
    """Gives a device a package of its own, or none."""
    found = server.rest("GET", f"/api/device/{server.device_id(device)}")[1]
    found[member] = package and {"entityType": "OTA_PACKAGE", "id": package}
    status, answer = server.rest("POST", "/api/device", found)
    assert status == 200, answer


def assign_profile(server: Server, profile: str, package: str | None) -> None:
    """Gives the devices of a profile a firmware, or none."""
    pages = server.rest("GET", "/api/deviceProfiles?pageSize=100&page=0")[1]["data"]
    found = next(p for p in pages if p["name"] == profile)
    found["firmwareId"] = package and {"entityType": "OTA_PACKAGE", "id": package}
    status, answer = server.rest("POST", "/api/deviceProfile", found)
    assert status == 200, answer


def _asked(
    rest: Connection, method: str, path: str, body: bytes | None = None, kind: str = "a/b"
) -> Any:
    rest.request(method, path, body, {"Content-Type": kind})
    answer = rest.getresponse()
    text = answer.read()
    assert answer.status == 200, text
    return json.loads(text)
