"""Logins, tokens, users and API keys over HTTP (REST spec 1.3, 1.4, 2, 13.2)."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tbfast import limits
from tbfast.control.accounts import passwords
from tests.support.rest_client import Person, claims_of, people
from tests.support.rest_server import RunningApp, running_app
from tests.support.waiting import wait_until

TENANT = ("tenant@thingsboard.org", "tenant")
SYSTEM = ("sysadmin@thingsboard.org", "sysadmin")
NULL = "13814000-1dd2-11b2-8080-808080808080"
MANY = {"pageSize": 100, "page": 0}


class World:
    """An application and the people who use it."""

    def __init__(self, app: RunningApp, person: Any) -> None:
        self.app = app
        self.person = person
        self.tenant: Person = person().login(*TENANT)
        self._made = 0

    def user(self, password: str = "a long password", **fields: Any) -> dict[str, Any]:
        """A new tenant administrator with a password."""
        self._made += 1
        sent = {"email": f"u{self._made}@example.org", "authority": "TENANT_ADMIN", **fields}
        made = self.tenant.ok("POST", "/api/user", sent, sendActivationMail="false")
        path = f"/api/user/{made['id']['id']}/password"
        self.tenant.ok("POST", path, {"password": password})
        return made

    def customer(self) -> str:
        """Id of a new customer."""
        made = self.tenant.ok("POST", "/api/customer", {"title": str(uuid.uuid4())})
        return made["id"]["id"]

    def device(self, customer: str | None = None) -> str:
        """Id of a new device, of a customer if it is given to one."""
        device = self.tenant.ok("POST", "/api/device", {"name": str(uuid.uuid4())})["id"]["id"]
        if customer is not None:
            self.tenant.ok("POST", f"/api/customer/{customer}/device/{device}")
        return device


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everybody's: tests make users of their own in it; their passwords cost little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_CHOSEN", passwords._CHEAP)
        with running_app(tmp_path_factory.mktemp("accounts") / "data", demo=True) as app:
            with people(app.layout.front) as person:
                yield World(app, person)


@pytest.fixture
def later(world: World) -> Iterator[Any]:
    """A function that moves the accounts' clock."""

    def move(seconds: int) -> None:
        world.app.ahead_ms += seconds * 1000

    yield move
    world.app.ahead_ms = 0


# Logins and tokens


def test_login_and_what_the_tokens_say(world: World) -> None:
    pair = world.tenant.ok(
        "POST", "/api/auth/login", {"username": TENANT[0].upper(), "password": TENANT[1]}
    )
    assert pair.keys() == {"token", "refreshToken"}
    user = world.tenant.ok("GET", "/api/auth/user")
    access, refresh = claims_of(pair["token"]), claims_of(pair["refreshToken"])
    assert access == {
        "sub": TENANT[0], "userId": user["id"]["id"], "scopes": ["TENANT_ADMIN"],
        "sessionId": access["sessionId"], "iss": "thingsboard.io", "iat": access["iat"],
        "exp": access["iat"] + 9000, "enabled": True, "isPublic": False,
        "tenantId": user["tenantId"]["id"], "customerId": NULL,
    }  # fmt: skip
    assert refresh == {
        "sub": TENANT[0], "userId": user["id"]["id"], "scopes": ["REFRESH_TOKEN"],
        "sessionId": access["sessionId"], "iss": "thingsboard.io", "iat": access["iat"],
        "exp": access["iat"] + 604800, "isPublic": False, "jti": refresh["jti"],
    }  # fmt: skip
    assert user == {
        "id": {"entityType": "USER", "id": user["id"]["id"]}, "createdTime": user["createdTime"],
        "additionalInfo": None, "tenantId": user["tenantId"],
        "customerId": {"entityType": "CUSTOMER", "id": NULL}, "email": TENANT[0],
        "authority": "TENANT_ADMIN", "firstName": None, "lastName": None, "phone": None,
        "version": 1, "name": TENANT[0],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("username", "password"),
    [("nobody@x.y", "tenant"), (TENANT[0], "Tenant"), (TENANT[0], ""), ("", ""), ("\ud800", "x")],
)
def test_bad_logins(world: World, username: str, password: str) -> None:
    response, text = world.person(peer=str(uuid.uuid4())).raw(
        "POST", "/api/auth/login", json.dumps({"username": username, "password": password})
    )
    envelope = json.loads(text)
    if username == "\ud800":  # JSON that is not Unicode
        assert (response.status, envelope["errorCode"]) == (400, 31)
        return
    assert (response.status, envelope["errorCode"]) == (401, 10)
    assert envelope["message"] == "Invalid username or password"


@pytest.mark.parametrize("header", ["X-Authorization", "Authorization"])
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 10), ("Bearer", 11), ("Bearer x.y.z", 11), ("Basic dGVuYW50OnRlbmFudA==", 10),
        ("ApiKey", 10), ("ApiKey tb_unknown", 10), ("ApiKey " + "x" * 8000, 10),
        ("Bearer " + "x" * 8000, 11), ("{token}", 10), ("Bearer {refresh}", 10),
        ("Bearer {token}x", 11),
    ],
)  # fmt: skip
def test_headers_that_let_nobody_in(world: World, header: str, text: str, code: int) -> None:
    tokens = world.tenant.tokens
    filled = text.replace("{token}", tokens["token"]).replace("{refresh}", tokens["refreshToken"])
    someone = world.person(**{header: filled})
    for path in ("/api/auth/user", "/api/tenant/devices?pageSize=1&page=0"):
        assert someone.refusal("GET", path) == (401, code)
    assert world.person().refusal("GET", "/api/auth/user") == (401, 10)


def test_either_header_lets_in(world: World) -> None:
    token = world.tenant.tokens["token"]
    for header, scheme in (("Authorization", "Bearer"), ("X-Authorization", "bearer")):
        someone = world.person(**{header: f"{scheme} {token}"})
        assert someone.ok("GET", "/api/auth/user")["email"] == TENANT[0]


def test_refresh_keeps_the_session(world: World) -> None:
    someone = world.person().login(*TENANT)
    before = someone.tokens
    again = world.person().ok("POST", "/api/auth/token", {"refreshToken": before["refreshToken"]})
    assert claims_of(again["token"])["sessionId"] == claims_of(before["token"])["sessionId"]
    assert someone.use(again).ok("GET", "/api/auth/user")["email"] == TENANT[0]
    for no_refresh in (before["token"], "x.y.z", ""):
        status, code = world.person().refusal(
            "POST", "/api/auth/token", {"refreshToken": no_refresh}
        )
        assert (status, code) == (401, 10 if no_refresh == before["token"] else 11)


def test_tokens_expire(world: World, later: Any) -> None:
    someone = world.person().login(*TENANT)
    later(limits.ACCESS_TOKEN_S + 1)
    assert someone.refusal("GET", "/api/auth/user") == (401, 11)
    refresh = {"refreshToken": someone.tokens["refreshToken"]}
    assert someone.use(someone.ok("POST", "/api/auth/token", refresh)).ok("GET", "/api/auth/user")
    later(limits.REFRESH_TOKEN_S)
    assert someone.refusal("POST", "/api/auth/token", refresh) == (401, 11)


def test_logout_ends_one_session(world: World) -> None:
    one, other = world.person().login(*TENANT), world.person().login(*TENANT)
    assert one("POST", "/api/auth/logout") == (200, None)
    assert one.refusal("GET", "/api/auth/user") == (401, 11)
    refresh = {"refreshToken": one.tokens["refreshToken"]}
    assert one.refusal("POST", "/api/auth/token", refresh) == (401, 11)
    assert other.ok("GET", "/api/auth/user")["email"] == TENANT[0]


def test_logouts_without_room_end_every_session_of_the_user(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = world.user()["email"]
    one, other = (world.person().login(email, "a long password") for _ in range(2))
    monkeypatch.setattr(limits, "LOGGED_OUT_SESSIONS", 0)
    one.ok("POST", "/api/auth/logout")
    assert one.refusal("GET", "/api/auth/user") == (401, 11)
    assert other.refusal("GET", "/api/auth/user") == (401, 11)
    assert world.tenant.ok("GET", "/api/auth/user")["email"] == TENANT[0]


def test_change_password_ends_older_tokens(world: World) -> None:
    email = world.user()["email"]
    one, other = (world.person().login(email, "a long password") for _ in range(2))

    def change(current: str, new: str) -> tuple[int, Any]:
        body = {"currentPassword": current, "newPassword": new}
        return one("POST", "/api/auth/changePassword", body)

    assert (change("wrong", "another password")[1])["errorCode"] == 31
    assert (change("a long password", "short")[1])["errorCode"] == 45
    assert (change("a long password", "a long password")[1])["errorCode"] == 31
    status, pair = change("a long password", "another password")
    assert status == 200
    for someone in (one, other):
        assert someone.refusal("GET", "/api/auth/user") == (401, 11)
        refresh = {"refreshToken": someone.tokens["refreshToken"]}
        assert someone.refusal("POST", "/api/auth/token", refresh) == (401, 11)
    assert one.use(pair).ok("GET", "/api/auth/user")["email"] == email
    body = {"username": email, "password": "a long password"}
    assert other.refusal("POST", "/api/auth/login", body) == (401, 10)
    other.login(email, "another password")


# Failed logins


def test_failures_are_limited_per_user(
    world: World, later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGIN_FAILURE_MS", 600_000)
    email = world.user()["email"]

    def tried(password: str, who: str = email) -> tuple[Any, int]:
        someone = world.person(peer=str(uuid.uuid4()))
        response, _ = someone.raw(
            "POST", "/api/auth/login", json.dumps({"username": who, "password": password})
        )
        return response, response.status

    for _ in range(3):
        assert tried("a long password")[1] == 200  # right ones do not count
    for _ in range(limits.LOGIN_FAILURES_PER_USER):
        assert tried("wrong")[1] == 401
    response, status = tried("a long password")
    assert status == 429
    wait_s = int(response.headers["Retry-After"])
    assert 1 <= wait_s <= limits.LOGIN_FAILURE_MS // 1000
    assert tried("a long password", world.user()["email"])[1] == 200
    later(wait_s)
    assert tried("a long password")[1] == 200


def test_failures_are_limited_per_address(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGIN_FAILURE_MS", 600_000)
    someone, neighbour = world.person(peer="198.51.100.1"), world.person(peer="198.51.100.2")
    answers = [
        someone("POST", "/api/auth/login", {"username": f"guess{n}@example.org", "password": "x"})[
            1
        ]["errorCode"]
        for n in range(limits.LOGIN_FAILURES_PER_ADDRESS + 1)
    ]
    assert answers == [10] * limits.LOGIN_FAILURES_PER_ADDRESS + [33]
    body = {"username": TENANT[0], "password": TENANT[1]}
    assert someone.refusal("POST", "/api/auth/login", body) == (429, 33)
    neighbour.login(*TENANT)


# Users


def test_a_user_from_creation_to_deletion(world: World) -> None:
    tenant = world.tenant
    sent = {
        "email": "New@example.org", "authority": "TENANT_ADMIN", "firstName": "Ada",
        "additionalInfo": {"lang": "en"}, "unknown": 1,
    }  # fmt: skip
    made = tenant.ok("POST", "/api/user?sendActivationMail=false", sent)
    assert (made["email"], made["firstName"], made["additionalInfo"]) == (
        "New@example.org", "Ada", {"lang": "en"},
    )  # fmt: skip
    user_id = made["id"]["id"]
    path = f"/api/user/{user_id}"
    assert tenant.ok("GET", path) == made
    body = {"username": "new@example.org", "password": ""}
    assert world.person().refusal("POST", "/api/auth/login", body) == (401, 10)

    response, link = tenant.raw("GET", f"{path}/activationLink")
    assert response.headers["content-type"].startswith("text/plain")
    address, _, token = link.decode().partition("?activateToken=")
    assert address == "http://localhost/api/noauth/activate"
    info = tenant.ok("GET", f"{path}/activationLinkInfo")
    assert info["ttlMs"] == 86_400_000
    body = {"activateToken": token, "password": "short"}
    assert world.person().refusal("POST", "/api/noauth/activate", body) == (400, 45)
    body["password"] = "a good password"
    pair = world.person().ok("POST", "/api/noauth/activate", body)
    assert world.person().refusal("POST", "/api/noauth/activate", body) == (400, 31)
    assert tenant.refusal("GET", f"{path}/activationLink") == (400, 31)
    someone = world.person().use(pair)
    assert someone.ok("GET", "/api/auth/user") == made
    world.person().login("new@example.org", "a good password")

    changed = tenant.ok("POST", "/api/user", {**made, "lastName": "L", "email": "n@example.org"})
    assert (changed["lastName"], changed["email"], changed["version"]) == ("L", "n@example.org", 2)
    assert tenant.refusal("POST", "/api/user", made) == (409, 35)
    assert tenant.refusal("POST", "/api/user", {**changed, "authority": "CUSTOMER_USER"}) == (
        400, 31,
    )  # fmt: skip
    assert someone.ok("GET", "/api/auth/user")["email"] == "n@example.org"
    assert someone.refusal("DELETE", path) == (400, 31)  # not itself
    assert tenant("DELETE", path) == (200, None)
    assert someone.refusal("GET", "/api/auth/user") == (401, 11)
    assert tenant.refusal("GET", path) == (404, 32)
    tenant.ok("POST", "/api/user", sent)  # the email is free again


@pytest.mark.parametrize(
    "sent",
    [
        {"email": TENANT[0], "authority": "TENANT_ADMIN"},
        {"email": TENANT[0].upper(), "authority": "TENANT_ADMIN"},
        {"email": "", "authority": "TENANT_ADMIN"},
        {"email": "no address", "authority": "TENANT_ADMIN"},
        {"email": "a@b@c", "authority": "TENANT_ADMIN"},
        {"email": "a\n@b", "authority": "TENANT_ADMIN"},
        {"email": "x" * 300 + "@b.c", "authority": "TENANT_ADMIN"},
        {"email": "a@b.c"},
        {"email": "a@b.c", "authority": "ROOT"},
        {"email": "a@b.c", "authority": "CUSTOMER_USER"},
        {"email": "a@b.c", "authority": "CUSTOMER_USER", "customerId": {"id": "x"}},
        {"email": "a@b.c", "authority": "CUSTOMER_USER", "customerId": {"id": str(uuid.uuid1())}},
        {"email": "a@b.c", "authority": "TENANT_ADMIN", "customerId": {"id": str(uuid.uuid1())}},
        {"email": "a@b.c", "authority": "TENANT_ADMIN", "firstName": "\0"},
    ],
)
def test_bad_users(world: World, sent: dict[str, Any]) -> None:
    before = world.app.registry.revision
    assert world.tenant.refusal("POST", "/api/user", sent) == (400, 31)
    assert world.app.registry.revision == before


def test_the_number_of_users_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "USERS", 2)
    sent = {"email": "late@example.org", "authority": "TENANT_ADMIN"}
    assert world.tenant.refusal("POST", "/api/user", sent) == (400, 31)


def test_lists_of_users(world: World) -> None:
    customer = world.customer()
    emails = [f"list{n}@example.org" for n in range(3)]
    for email in emails:
        world.tenant.ok("POST", "/api/user", {
            "email": email, "authority": "CUSTOMER_USER",
            "customerId": {"entityType": "CUSTOMER", "id": customer},
        })  # fmt: skip
    page = world.tenant.ok(
        "GET", "/api/users", pageSize=2, page=0, textSearch="LIST", sortProperty="email",
        sortOrder="DESC",
    )  # fmt: skip
    assert [user["email"] for user in page["data"]] == emails[:0:-1]
    assert (page["totalPages"], page["totalElements"], page["hasNext"]) == (2, 3, True)
    page = world.tenant.ok("GET", f"/api/customer/{customer}/users", **MANY)
    assert [user["email"] for user in page["data"]] == emails
    system = world.person().login(*SYSTEM)
    seen = {user["email"] for user in system.ok("GET", "/api/users", **MANY)["data"]}
    assert seen >= {TENANT[0], SYSTEM[0]}
    assert not seen & set(emails)
    for query in ({}, {"pageSize": 1}, {"pageSize": 0, "page": 0}, {**MANY, "sortProperty": "x"}):
        assert world.tenant.refusal("GET", "/api/users", **query) == (400, 31)


def test_acting_as_another_user(world: World) -> None:
    made = world.user()
    pair = world.tenant.ok("GET", f"/api/user/{made['id']['id']}/token")
    assert world.person().use(pair).ok("GET", "/api/auth/user") == made


# Roles


def customers_user(world: World, customer: str) -> tuple[Person, dict[str, Any]]:
    made = world.user(
        email=f"{uuid.uuid4()}@example.org", authority="CUSTOMER_USER",
        customerId={"entityType": "CUSTOMER", "id": customer},
    )  # fmt: skip
    return world.person().login(made["email"], "a long password"), made


def test_who_may_do_what(world: World) -> None:
    tenant, system = world.tenant, world.person().login(*SYSTEM)
    user, made = customers_user(world, world.customer())
    tenants = tenant.ok("GET", "/api/auth/user")["id"]["id"]
    systems = system.ok("GET", "/api/auth/user")["id"]["id"]
    device = world.device()
    own = made["id"]["id"]
    page = "?pageSize=1&page=0"
    refused = [
        (user, "POST", "/api/device", {"name": "x"}),
        (user, "DELETE", f"/api/device/{device}", None),
        (user, "GET", f"/api/tenant/devices{page}", None),
        (user, "POST", "/api/device/credentials", {}),
        (user, "GET", f"/api/users{page}", None),
        (user, "GET", f"/api/user/{own}/token", None),
        (user, "DELETE", f"/api/user/{own}", None),
        (user, "GET", f"/api/user/{tenants}", None),
        (user, "POST", "/api/user", {"email": "z@z.z", "authority": "TENANT_ADMIN"}),
        (user, "POST", f"/api/user/{tenants}/password", {"password": "a long password"}),
        (user, "POST", "/api/apiKey", {"userId": {"id": tenants}, "description": "x"}),
        (user, "GET", f"/api/apiKeys/{tenants}{page}", None),
        (tenant, "GET", f"/api/user/{systems}", None),
        (tenant, "GET", f"/api/user/{systems}/token", None),
        (tenant, "DELETE", f"/api/user/{systems}", None),
        (tenant, "POST", "/api/user", {"email": "z@z.z", "authority": "SYS_ADMIN"}),
        (tenant, "POST", f"/api/user/{systems}/password", {"password": "a long password"}),
        (tenant, "GET", "/api/node", None),
        (tenant, "GET", "/api/tail", None),
        (tenant, "POST", "/api/tenantProfile", {"name": "Default"}),
        (system, "GET", f"/api/user/{own}/token", None),
        (system, "GET", f"/api/device/{device}", None),
        (system, "POST", "/api/device", {"name": "x"}),
        (system, "GET", "/api/node", None),
    ]
    for who, method, path, body in refused:
        assert who.refusal(method, path, body) == (403, 20), (method, path)
    assert system.ok("GET", f"/api/user/{tenants}")["email"] == TENANT[0]
    for path in ("/api/tenant", "/api/tenant/info"):
        tenant_id = made["tenantId"]["id"]
        assert system.ok("GET", f"{path}/{tenant_id}") == tenant.ok("GET", f"{path}/{tenant_id}")
    assert system.ok("POST", "/api/tenantProfile", {"name": "Ours"})["name"] == "Ours"
    assert user.ok("GET", f"/api/user/{own}") == made
    assert user.ok("POST", "/api/user", {**made, "firstName": "Me"})["firstName"] == "Me"


def test_a_customers_user_sees_only_its_devices(world: World) -> None:
    customer = world.customer()
    user, _ = customers_user(world, customer)
    ours, theirs = world.device(customer), world.device(world.customer())
    for path in (
        "/api/device/{}", "/api/device/{}/credentials",
        "/api/plugins/telemetry/DEVICE/{}/values/timeseries",
        "/api/plugins/telemetry/DEVICE/{}/values/attributes/SERVER_SCOPE",
    ):  # fmt: skip
        assert user("GET", path.format(ours))[0] == 200
        assert user.refusal("GET", path.format(theirs)) == (403, 20)
        assert user.refusal("GET", path.format(uuid.uuid1())) == (404, 32)
    attributes = "/api/plugins/telemetry/DEVICE/{}/SERVER_SCOPE"
    assert user("POST", attributes.format(ours), {"a": 1})[0] == 200
    assert user.refusal("POST", attributes.format(theirs), {"a": 1}) == (403, 20)
    telemetry = "/api/plugins/telemetry/DEVICE/{}/timeseries/ANY"
    point = {"ts": 1, "values": {"t": 1}}
    assert user("POST", telemetry.format(ours), point)[0] == 200
    assert user.refusal("POST", telemetry.format(theirs), point) == (403, 20)
    call = {"method": "m", "params": {}}
    assert user.refusal("POST", f"/api/rpc/twoway/{theirs}", call) == (403, 20)


def test_the_public_looks_and_touches_nothing(world: World) -> None:
    device, private = world.device(), world.customer()
    published = world.tenant.ok("POST", f"/api/customer/public/device/{device}")
    customer = published["customerId"]["id"]
    someone = world.person()
    for nobody in (private, str(uuid.uuid1())):
        body = {"publicId": nobody}
        assert someone.refusal("POST", "/api/auth/login/public", body) == (401, 10)
    assert someone.refusal("POST", "/api/auth/login/public", {"publicId": "x"}) == (400, 31)
    pair = someone.ok("POST", "/api/auth/login/public", {"publicId": customer})
    assert claims_of(pair["token"])["isPublic"] is True
    public = someone.use(pair)
    values = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
    assert public("GET", values)[0] == 200
    assert public("GET", f"/api/device/{device}")[0] == 200
    assert public.refusal("GET", f"/api/device/{device}/credentials") == (403, 20)
    attributes = f"/api/plugins/telemetry/DEVICE/{device}/SERVER_SCOPE"
    assert public.refusal("POST", attributes, {"a": 1}) == (403, 20)
    telemetry = f"/api/plugins/telemetry/DEVICE/{device}/timeseries/ANY"
    assert public.refusal("POST", telemetry, {"t": 1}) == (403, 20)
    assert public.refusal("POST", f"/api/rpc/oneway/{device}", {"method": "m"}) == (403, 20)
    assert public.refusal("GET", "/api/auth/user") == (404, 32)
    again = public.ok("POST", "/api/auth/token", {"refreshToken": pair["refreshToken"]})
    assert public.use(again)("GET", values)[0] == 200


def test_a_deleted_customers_users_go_with_it(world: World) -> None:
    customer = world.customer()
    user, made = customers_user(world, customer)
    assert user.ok("GET", "/api/auth/user") == made
    world.tenant.ok("DELETE", f"/api/customer/{customer}")
    wait_until(lambda: user("GET", "/api/auth/user")[0] == 401)
    assert world.tenant.refusal("GET", f"/api/user/{made['id']['id']}") == (404, 32)


# API keys


def test_an_api_key_from_creation_to_deletion(world: World, later: Any) -> None:
    user = world.user()
    someone = world.person().login(user["email"], "a long password")
    sent = {"userId": user["id"], "description": "ci", "enabled": True, "expirationTime": 0}
    made = someone.ok("POST", "/api/apiKey", sent)
    assert made == {
        "id": {"entityType": "API_KEY", "id": made["id"]["id"]},
        "createdTime": made["createdTime"], "tenantId": user["tenantId"], "userId": user["id"],
        "description": "ci", "enabled": True, "expirationTime": 0, "expired": False,
        "value": made["value"],
    }  # fmt: skip
    value = made.pop("value")
    assert value.startswith("tb_")
    listed = f"/api/apiKeys/{user['id']['id']}"
    assert someone.ok("GET", listed, **MANY)["data"] == [made]
    program = world.person(Authorization=f"ApiKey {value}")
    assert program.ok("GET", "/api/auth/user") == user
    assert program("POST", "/api/auth/logout") == (200, None)  # it has no session
    assert program.ok("GET", "/api/auth/user") == user

    path = f"/api/apiKey/{made['id']['id']}"
    response, text = someone.raw("PUT", f"{path}/description", "für die Pumpe".encode())
    assert (response.status, json.loads(text)["description"]) == (200, "für die Pumpe")
    assert someone.ok("PUT", f"{path}/enabled/false")["enabled"] is False
    assert program.refusal("GET", "/api/auth/user") == (401, 10)
    assert someone.ok("PUT", f"{path}/enabled/true")["enabled"] is True
    assert program.ok("GET", "/api/auth/user") == user
    assert someone.refusal("PUT", f"{path}/enabled/maybe") == (400, 31)
    assert someone.raw("PUT", f"{path}/description", b"\xff")[0].status == 400
    assert someone.raw("PUT", f"{path}/description", b"")[0].status == 400
    assert someone("DELETE", path) == (200, None)
    assert program.refusal("GET", "/api/auth/user") == (401, 10)
    assert someone.refusal("DELETE", path) == (404, 32)

    soon = world.app.registry.store.revision  # any number: far in the past
    old = someone.ok("POST", "/api/apiKey", {**sent, "expirationTime": soon})
    assert old["expired"] is True
    expired = world.person(**{"X-Authorization": f"ApiKey {old['value']}"})
    assert expired.refusal("GET", "/api/auth/user") == (401, 15)


def test_keys_end_with_their_user(world: World) -> None:
    user = world.user()
    sent = {"userId": user["id"], "description": "ci"}
    value = world.tenant.ok("POST", "/api/apiKey", sent)["value"]
    program = world.person(Authorization=f"ApiKey {value}")
    assert program.ok("GET", "/api/auth/user") == user
    world.tenant.ok("DELETE", f"/api/user/{user['id']['id']}")
    assert program.refusal("GET", "/api/auth/user") == (401, 10)
    assert world.app.call(world.app.accounts.keys.of_user(user["id"]["id"])) == []


def test_bad_api_keys(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    user = world.user()
    good = {"userId": user["id"], "description": "ci"}
    for bad in (
        {}, {**good, "description": ""}, {"userId": user["id"]}, {**good, "userId": {"id": "x"}},
        {**good, "expirationTime": -1}, {**good, "expirationTime": 1 << 64},
        {**good, "enabled": "yes"},
    ):  # fmt: skip
        assert world.tenant.refusal("POST", "/api/apiKey", bad) == (400, 31)
    nobody = {**good, "userId": {"id": str(uuid.uuid1())}}
    assert world.tenant.refusal("POST", "/api/apiKey", nobody) == (404, 32)
    monkeypatch.setattr(limits, "API_KEYS_PER_USER", 1)
    world.tenant.ok("POST", "/api/apiKey", good)
    assert world.tenant.refusal("POST", "/api/apiKey", good) == (400, 31)


# Around it


def test_web_pages_of_other_sites_may_ask(world: World) -> None:
    response, _ = world.person().raw(
        "OPTIONS", "/api/tenant/devices", Origin="http://ui.example",
        **{
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "x-authorization, content-type, x-own",
        },
    )  # fmt: skip
    assert response.status == 200
    assert response.headers["access-control-allow-origin"] == "*"
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert {"x-authorization", "content-type", "x-own"} <= set(allowed)
    assert response.headers["access-control-max-age"] == "1800"
    assert {"GET", "POST", "PUT", "DELETE"} <= set(
        response.headers["access-control-allow-methods"].split(", ")
    )
    assert "access-control-allow-credentials" not in response.headers
    response, _ = world.person().raw("GET", "/api/auth/user", Origin="http://ui.example")
    assert (response.status, response.headers["access-control-allow-origin"]) == (401, "*")


def test_the_owners_socket_needs_no_login(world: World) -> None:
    with people(world.app.layout.api) as person:
        owner = person()
        assert owner.ok("GET", "/api/tenant/devices", **MANY)
        assert owner.ok("GET", "/api/users", **MANY)["totalElements"] >= 2
        assert owner.refusal("GET", "/api/auth/user") == (404, 32)


def test_only_listed_networks(tmp_path: Path) -> None:
    networks = "127.0.0.0/8, 2001:db8::/32"
    with running_app(tmp_path / "data", demo=True, networks=networks) as app:
        with people(app.layout.front) as person:
            body = {"username": TENANT[0], "password": TENANT[1]}
            for inside in ("127.0.0.1", "127.9.9.9", "2001:db8::5", "::ffff:127.0.0.1"):
                person(peer=inside).ok("POST", "/api/auth/login", body)
            for outside in ("192.0.2.1", "::1", "2001:db9::", "", "127.0.0.1, 192.0.2.1", "x"):
                refusal = person(peer=outside).refusal("POST", "/api/auth/login", body)
                assert refusal == (403, 20)
        with people(app.layout.api) as person:
            assert person().ok("GET", "/api/tenant/devices", **MANY)
