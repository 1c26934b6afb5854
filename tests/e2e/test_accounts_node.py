"""Accounts on a real node: its first start, its restarts and what an attacker sees of it."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import uuid

import pytest

from tbfast import limits
from tests.support.rest_client import Person, people
from tests.support.server import Server
from tests.support.waiting import wait_until

ADMIN = "admin@tbfast.local"
TENANT = ("tenant@thingsboard.org", "tenant")


def logins(person: Person, *accounts: tuple[str, str]) -> list[int]:
    """Statuses of logins."""
    return [
        person("POST", "/api/auth/login", {"username": email, "password": password})[0]
        for email, password in accounts
    ]


def front(server: Server):
    return server.data_dir / "front.sock"


def controller(server: Server) -> int | None:
    """Its process id; None while it does not answer."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.pids()["controller"]
    return None


def test_the_first_start_says_a_password_once() -> None:
    with Server() as server:
        password = server.first_password()
        assert password not in (TENANT[1], "")
        with people(front(server)) as person:
            admin = person().login(ADMIN, password)
            assert admin.ok("GET", "/api/auth/user")["authority"] == "TENANT_ADMIN"
            assert logins(person(), TENANT, ("sysadmin@thingsboard.org", "sysadmin")) == [401, 401]
        logged_out = admin.tokens
        with people(front(server)) as person:
            person().use(logged_out).ok("POST", "/api/auth/logout")
            kept = person().login(ADMIN, password).tokens

        killed = server.kill9("controller")
        wait_until(lambda: controller(server) not in (None, killed), 30, "the controller is back")
        with people(front(server)) as person:
            assert person().use(kept).ok("GET", "/api/auth/user")["email"] == ADMIN
            assert person().use(logged_out).refusal("GET", "/api/auth/user") == (401, 11)

        assert server.stop() == 0
        server.start()
        with people(front(server)) as person:
            assert person().use(kept).ok("GET", "/api/auth/user")["email"] == ADMIN
            assert person().use(logged_out).refusal("GET", "/api/auth/user") == (401, 11)
            person().login(ADMIN, password)
        assert len(re.findall(password, server.log())) == 1


def test_accounts_of_the_demo_work_in_no_other_server() -> None:
    with Server(flags=("--demo",)) as server:
        assert "the password" not in server.log()
        with people(front(server)) as person:
            tenant = person().login(*TENANT)
            user = tenant.ok("GET", "/api/auth/user")
            body = {"userId": user["id"], "description": "ci"}
            key = tenant.ok("POST", "/api/apiKey", body)["value"]
        assert server.stop() == 0

        server._words.remove("--demo")
        server.start()
        with people(front(server)) as person:
            assert logins(person(), TENANT) == [401]
            assert person().use(tenant.tokens).refusal("GET", "/api/auth/user") == (401, 10)
            refresh = {"refreshToken": tenant.tokens["refreshToken"]}
            assert person().refusal("POST", "/api/auth/token", refresh) == (401, 10)
            program = person(Authorization=f"ApiKey {key}")
            assert program.refusal("GET", "/api/auth/user") == (401, 10)
            admin = person().login(ADMIN, server.first_password())
            path = f"/api/user/{user['id']['id']}/password"
            admin.ok("POST", path, {"password": "no longer known"})
            person().login(TENANT[0], "no longer known")


@pytest.fixture(scope="module")
def node():
    with Server(flags=("--demo",)) as server:
        yield server


def test_hostile_requests_leave_the_node_well(node: Server) -> None:
    """Heads and bodies beyond every bound; judged by somebody who goes on working beside it."""
    before = node.pids()
    with people(front(node)) as person:
        canary = person().login(*TENANT)
        canary.ok("POST", "/api/device", {"name": "canary"})

        def well() -> None:
            found = canary.ok("GET", "/api/tenant/device", deviceName="canary")
            assert found["name"] == "canary"

        for path in ("/api/auth/login", "/api/auth/token", "/api/noauth/activate", "/api/user"):
            attacker = person(**canary.headers) if path == "/api/user" else person()
            headers = {"Content-Length": str(limits.REST_BODY_BYTES + 1)}
            response, text = attacker.raw("POST", path, b"", **headers)
            assert (response.status, json.loads(text)["errorCode"]) == (413, 31)
            well()
        deep = b'{"username":' + b"[" * 100_000
        many = b"{" + b",".join(b'"k%d":0' % n for n in range(100_000)) + b"}"
        long = json.dumps({"username": "u" * 4_000_000, "password": "p" * 4_000_000}).encode()
        for body in (deep, many, long, b"\0" * 1_000_000):
            response, _ = person().raw("POST", "/api/auth/login", body)
            assert response.status in (400, 401)
            well()
        for name in ("Authorization", "X-Authorization"):
            for value in ("Bearer " + "a." * 7_000, "ApiKey " + "\xff" * 7_000, "\t" * 100 + "x"):
                attacker = person(**{name: value})
                assert attacker.refusal("GET", "/api/auth/user")[0] == 401
        well()
    assert node.pids() == before


def test_a_flood_of_logins_stops_nobody_who_is_in(node: Server) -> None:
    with people(front(node)) as person:
        canary = person().login(*TENANT)
        statuses = asyncio.run(flood(node, 60))
        assert set(statuses) <= {401, 429, 503}
        assert statuses.count(503) > 0  # more than may wait for their turn
        canary.ok("GET", "/api/auth/user")
        log = node.log()
        assert "Traceback" not in log


async def flood(node: Server, count: int) -> list[int]:
    """Statuses of so many logins at once, each from an address of its own."""

    async def one(number: int) -> int:
        reader, writer = await asyncio.open_unix_connection(str(front(node)))
        body = json.dumps({"username": f"{uuid.uuid4()}@example.org", "password": "x"})
        writer.write(
            f"POST /api/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"x-tbfast-peer: 192.0.2.{number}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        status = (await reader.read()).split()[1]
        writer.close()
        return int(status)

    return await asyncio.gather(*(one(number) for number in range(count)))


def test_refreshing_costs_little(node: Server) -> None:
    """Old Python clients do it about once a second."""
    with people(front(node)) as person:
        someone = person().login(*TENANT)
        refresh = {"refreshToken": someone.tokens["refreshToken"]}
        pid = node.pids()["controller"]
        before = cpu_s(pid)
        for _ in range(200):
            someone.ok("POST", "/api/auth/token", refresh)
        assert (cpu_s(pid) - before) / 200 < 0.005


def cpu_s(pid: int) -> float:
    """Processor seconds a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
