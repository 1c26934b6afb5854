"""Uploads of packages that are cut short: by a crash, by the peer, by a full disk."""

import hashlib
import http.client
import json
import random
from contextlib import closing, suppress
from pathlib import Path

from tbfast.model import mqtt as m
from tests.support.api import Connection
from tests.support.faulty_disk import small_disk
from tests.support.mqtt_client import connected
from tests.support.multipart import CONTENT_TYPE, form
from tests.support.node import running_node
from tests.support.packages import add_package
from tests.support.server import Server
from tests.support.waiting import wait_until

DATA = random.Random(3).randbytes(4_000_000)


def files(server: Server) -> list[str]:
    return sorted(p.name for p in (server.data_dir / "packages").iterdir())


def half_sent(server: Server, package: str) -> Connection:
    """A connection on which the first half of an upload has arrived."""
    rest = Connection(server.data_dir / "tbfast.sock")
    rest.putrequest("POST", f"/api/otaPackage/{package}")
    body = form(DATA)
    rest.putheader("Content-Type", CONTENT_TYPE)
    rest.putheader("Content-Length", str(len(body)))
    rest.endheaders()
    rest.send(body[: len(body) // 2])
    part = server.data_dir / "packages" / f"{package}.part"
    wait_until(lambda: part.exists() and part.stat().st_size > 1_000_000, what="half is there")
    return rest


def upload(server: Server, package: str) -> dict[str, object]:
    with closing(Connection(server.data_dir / "tbfast.sock")) as rest:
        path = f"/api/otaPackage/{package}"
        rest.request("POST", path, form(DATA), {"Content-Type": CONTENT_TYPE})
        answer = rest.getresponse()
        found: dict[str, object] = json.loads(answer.read())
        assert answer.status == 200, found
        return found


def test_a_crash_in_the_middle_of_an_upload() -> None:
    with Server() as server:
        whole = add_package(server, "whole", data=DATA)
        package = add_package(server, "half", data=None)
        with closing(half_sent(server, package)):
            assert files(server) == sorted([whole, f"{package}.part"])
            server.crash_controller()
        wait_until(lambda: files(server) == [whole], what="what was left is removed")
        info = server.rest("GET", f"/api/otaPackage/info/{package}")[1]
        assert (info["hasData"], info["checksum"]) == (False, None)
        assert upload(server, package)["checksum"] == hashlib.sha256(DATA).hexdigest()
        server.crash_controller()
        assert files(server) == sorted([whole, package])
        with closing(Connection(server.data_dir / "tbfast.sock")) as rest:
            rest.request("GET", f"/api/otaPackage/{package}/download")
            assert rest.getresponse().read() == DATA


def test_a_peer_that_goes_in_the_middle_of_an_upload() -> None:
    with Server() as server:
        package = add_package(server, "half", data=None)
        with closing(half_sent(server, package)):
            status, answer = server.rest("DELETE", f"/api/otaPackage/{package}")
            assert status == 400 and "in use" in answer["message"]
        wait_until(lambda: files(server) == [], what="nothing stays")
        assert upload(server, package)["dataSize"] == len(DATA)


def test_more_uploads_than_the_bound_wait_for_another_time() -> None:
    with Server() as server:
        packages = [add_package(server, f"p{n}", data=None) for n in range(5)]
        halves = [half_sent(server, package) for package in packages[:4]]
        with closing(Connection(server.data_dir / "tbfast.sock")) as rest:
            path = f"/api/otaPackage/{packages[4]}"
            with suppress(BrokenPipeError, http.client.HTTPException):
                rest.request("POST", path, form(b"small"), {"Content-Type": CONTENT_TYPE})
            answer = rest.getresponse()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            path = f"/api/otaPackage/{packages[0]}"
        with closing(Connection(server.data_dir / "tbfast.sock")) as rest:
            rest.request("POST", path, form(b"small"), {"Content-Type": CONTENT_TYPE})
            answer = rest.getresponse()
            assert answer.status == 400 and b"uploaded already" in answer.read()
        for half in halves:
            half.close()
        wait_until(lambda: files(server) == [], what="nothing stays")
        assert upload(server, packages[4])["hasData"] is True


def test_a_full_disk_refuses_an_upload_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    file = tmp_path / "fw.bin"
    with small_disk(tmp_path / "disk", 64) as disk:
        with running_node(disk.path / "data", workers=1, log=tmp_path / "log") as node:
            (token,) = node.add_devices(1)
            words = ("ota", "upload", str(file), "--version", "1", "--title")
            file.write_bytes(bytes(50_000_000))
            done = node.cli(*words, "large")
            assert done.returncode == 1 and "the disk is full" in done.stderr, done
            assert list((disk.path / "data" / "packages").iterdir()) == []
            file.write_bytes(bytes(1_000_000))
            done = node.cli(*words, "small")
            assert done.returncode == 0, done
            with connected(node.mqtt_port, token) as client:  # telemetry had room all the time
                client.publish(b'{"ts":1,"values":{"n":1}}')
                assert isinstance(client.receive(), m.Puback)
