"""WebSockets on port 8080: who is let in, what they see and when they must go (REST spec 14.1)."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tbfast.control.accounts.installation import signing_key
from tbfast.control.accounts.tokens import Signer
from tbfast.store.layout import Layout
from tbfast.store.registry import RegistryStore
from tests.support.rest_client import Person, people
from tests.support.server import Server

TENANT = ("tenant@thingsboard.org", "tenant")
PASSWORD = "a long password"
PATH = "/api/ws/plugins/telemetry"
UNAUTHORIZED = 3

_numbers = itertools.count(1)


class World:
    """A node and the people who use it."""

    def __init__(self, server: Server, person: Any, signer: Signer) -> None:
        self.server = server
        self.person = person
        self.signer = signer
        self.tenant: Person = person().login(*TENANT)

    def user(self, **fields: Any) -> tuple[str, Person]:
        """Id of a new user, and the user, logged in."""
        email = f"u{next(_numbers)}@example.org"
        body = {"email": email, "authority": "TENANT_ADMIN", **fields}
        made = self.tenant.ok("POST", "/api/user", body, sendActivationMail="false")["id"]["id"]
        self.tenant.ok("POST", f"/api/user/{made}/password", {"password": PASSWORD})
        return made, self.person().login(email, PASSWORD)

    def customer_user(self) -> tuple[str, Person]:
        """Id of a new customer, and its user."""
        title = f"C{next(_numbers)}"
        customer = self.tenant.ok("POST", "/api/customer", {"title": title})["id"]
        user = self.user(authority="CUSTOMER_USER", customerId=customer)[1]
        return customer["id"], user

    def device(self, customer: str | None = None) -> str:
        """Id of a new device."""
        made = self.tenant.ok("POST", "/api/device", {"name": f"D{next(_numbers)}"})["id"]["id"]
        if customer is not None:
            self.tenant.ok("POST", f"/api/customer/{customer}/device/{made}")
        return str(made)

    def save(self, device: str, **values: Any) -> None:
        path = f"/api/plugins/telemetry/DEVICE/{device}/timeseries/ANY"
        self.tenant.ok("POST", path, {"ts": next(_numbers), "values": values})

    def expired(self, token: str) -> str:
        """The same token, made long ago."""
        now_s = int(time.time())
        claims = self.signer.claims(token, now_s)
        return self.signer.sign(msgspec.structs.replace(claims, iat=now_s - 99, exp=now_s - 9))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Server(flags=("--demo",)) as server:
        assert server.stop() == 0
        signer = asyncio.run(signer_of(server))
        server.start()
        with people(server.http_port) as person:
            yield World(server, person, signer)


async def signer_of(server: Server) -> Signer:
    store = RegistryStore(Layout(server.data_dir).registry)
    try:
        return Signer(await signing_key(store))
    finally:
        await store.close()


class Socket:
    """A client; messages in and out are JSON."""

    def __init__(self, world: World, query: str = "", **headers: str) -> None:
        url = f"ws://127.0.0.1:{world.server.http_port}{PATH}{query}"
        self._stack = contextlib.ExitStack()
        self.connection: ClientConnection = self._stack.enter_context(
            connect(url, additional_headers=headers)
        )

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def receive(self) -> Any:
        return json.loads(self.connection.recv(10))

    def watch(self, device: str, cmd_id: int = 1, **message: Any) -> Any:
        """Subscribes to everything a device sends; the first answer."""
        command = {"cmdId": cmd_id, "entityType": "DEVICE", "entityId": device}
        self.send(tsSubCmds=[command], **message)
        return self.receive()

    def end(self, wait_s: float = 10.0) -> int:
        """The code it is closed with, after whatever else comes."""
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                self.connection.recv(wait_s)
        assert ended.value.rcvd is not None
        return ended.value.rcvd.code


def by_token(world: World, someone: Person) -> Socket:
    return Socket(world, f"?token={someone.tokens['token']}")


def test_every_way_in(world: World) -> None:
    device = world.device()
    world.save(device, t=1)
    token = world.tenant.tokens["token"]
    user = world.tenant.ok("GET", "/api/auth/user")["id"]
    key = world.tenant.ok("POST", "/api/apiKey", {"userId": user, "description": "ci"})["value"]
    with (
        by_token(world, world.tenant) as query,
        Socket(world, **{"X-Authorization": f"Bearer {token}"}) as header,
        Socket(world, Authorization=f"ApiKey {key}") as key_header,
        Socket(world) as command,
        Socket(world) as key_command,
    ):
        assert query.watch(device)["data"]["t"][0][1] == "1"
        assert header.watch(device)["data"]["t"][0][1] == "1"
        assert key_header.watch(device)["data"]["t"][0][1] == "1"
        auth = {"cmdId": 0, "token": token}
        assert command.watch(device, authCmd=auth)["data"]["t"][0][1] == "1"
        auth = {"cmdId": 0, "apiKey": key}
        assert key_command.watch(device, authCmd=auth)["data"]["t"][0][1] == "1"
        world.save(device, t=2)
        for socket in (query, header, key_header, command, key_command):
            assert socket.receive()["data"]["t"][0][1] == "2"


def test_who_is_not_let_in(world: World) -> None:
    token = world.tenant.tokens["token"]
    expired = world.expired(token)
    refresh = world.tenant.tokens["refreshToken"]
    for query, code in ((expired, 1011), ("x.y.z", 1007), (refresh, 1007)):
        with Socket(world, f"?token={query}") as socket:
            assert socket.end() == code
    for auth in ({"token": "x.y.z"}, {"token": expired}, {"apiKey": "tb_no"}, {"token": refresh}):
        with Socket(world) as socket:
            socket.send(authCmd={"cmdId": 0, **auth})
            assert socket.end() == 1007
    with Socket(world) as socket:
        socket.send(tsSubCmds=[])
        assert socket.end() == 1008


def test_who_says_nothing_must_go(world: World) -> None:
    with Socket(world) as socket:
        assert socket.end(wait_s=30) == 1008


def test_a_customers_user_sees_its_devices_only(world: World) -> None:
    customer, user = world.customer_user()
    own, foreign = world.device(customer), world.device()
    with by_token(world, user) as socket:
        assert socket.watch(own)["errorCode"] == 0
        for command in ("tsSubCmds", "attrSubCmds", "historyCmds"):
            request = {"cmdId": 9, "entityType": "DEVICE", "entityId": foreign, "keys": "t"}
            socket.send(**{command: [{**request, "startTs": 0, "endTs": 9}]})
            refused = socket.receive()
            assert (refused["subscriptionId"], refused["errorCode"]) == (9, UNAUTHORIZED)
        world.save(foreign, t=1)
        world.save(own, t=2)
        assert socket.receive()["data"]["t"][0][1] == "2"

        # What is taken from the customer is told no more.
        world.tenant.ok("DELETE", f"/api/customer/device/{own}")
        gone = socket.receive()
        assert (gone["subscriptionId"], gone["errorCode"]) == (1, UNAUTHORIZED)
        other = world.device(customer)
        world.save(own, t=3)
        assert socket.watch(other, cmd_id=2)["subscriptionId"] == 2


def page_of(*devices: str) -> dict[str, Any]:
    return {
        "entityFilter": {
            "type": "entityList", "entityType": "DEVICE", "entityList": list(devices),
        },
        "latestValues": [{"type": "TIME_SERIES", "key": "t"}],
        "pageLink": {"pageSize": 10, "page": 0},
    }  # fmt: skip


@pytest.mark.parametrize("deleted", [False, True])
def test_a_device_that_is_taken_away_leaves_the_page(world: World, deleted: bool) -> None:
    customer, user = world.customer_user()
    kept, taken = world.device(customer), world.device(customer)
    with by_token(world, user) as socket:
        latest = {"keys": [{"type": "TIME_SERIES", "key": "t"}]}
        command = {"cmdId": 3, "query": page_of(kept, taken), "latestCmd": latest}
        socket.send(entityDataCmds=[command])
        assert socket.receive()["data"]["totalElements"] == 2
        world.save(taken, t=1)
        assert socket.receive()["update"][0]["entityId"]["id"] == taken
        world.save(kept, t=5)
        assert socket.receive()["update"][0]["entityId"]["id"] == kept

        path = f"/api/device/{taken}" if deleted else f"/api/customer/device/{taken}"
        world.tenant.ok("DELETE", path)
        told = socket.receive()
        if told["update"]:  # a deleted device lost its values first
            assert deleted
            assert told["update"][0]["latest"]["TIME_SERIES"]["t"]["value"] == ""
            told = socket.receive()
        assert (told["cmdId"], told["errorCode"], told["update"]) == (3, 0, None)
        (left,) = told["data"]["data"]
        assert (left["entityId"]["id"], told["data"]["totalElements"]) == (kept, 1)
        assert left["latest"]["TIME_SERIES"]["t"]["value"] == "5"
        if not deleted:
            world.save(taken, t=2)
        world.save(kept, t=6)
        assert socket.receive()["update"][0]["entityId"]["id"] == kept  # and nothing before it


def test_a_deleted_device_is_told(world: World) -> None:
    customer, user = world.customer_user()
    own = world.device(customer)
    with by_token(world, user) as socket, by_token(world, world.tenant) as tenant:
        for one in (socket, tenant):
            assert one.watch(own)["errorCode"] == 0
        world.tenant.ok("DELETE", f"/api/device/{own}")
        for one in (socket, tenant):
            gone = one.receive()
            assert (gone["subscriptionId"], gone["errorCode"]) == (1, UNAUTHORIZED)


def test_a_count_follows_what_a_customer_has(world: World) -> None:
    customer, user = world.customer_user()
    devices = [world.device(customer) for _ in range(3)]
    query = {"entityFilter": {"type": "entityType", "entityType": "DEVICE"}}
    with by_token(world, user) as socket:
        socket.send(entityCountCmds=[{"cmdId": 4, "query": query}])
        assert socket.receive()["count"] == 3
        for device in devices[:2]:
            world.tenant.ok("DELETE", f"/api/customer/device/{device}")
        count = 3
        while count != 1:  # both changes may be one message, or two
            count = socket.receive()["count"]
        world.device(customer)
        assert socket.receive()["count"] == 2


def ends_with_logout(world: World, _id: str, user: Person) -> None:
    user.ok("POST", "/api/auth/logout")


def ends_with_password(world: World, _id: str, user: Person) -> None:
    body = {"currentPassword": PASSWORD, "newPassword": PASSWORD + "!"}
    user.ok("POST", "/api/auth/changePassword", body)


def ends_with_user(world: World, id: str, _user: Person) -> None:
    world.tenant.ok("DELETE", f"/api/user/{id}")


@pytest.mark.parametrize("ends", [ends_with_logout, ends_with_password, ends_with_user])
def test_it_ends_with_the_session_of_its_token(world: World, ends: Any) -> None:
    id, user = world.user()
    other = world.user()[1]
    device = world.device()
    with by_token(world, user) as socket, Socket(world) as command, by_token(world, other) as stays:
        assert socket.watch(device)["errorCode"] == 0
        auth = {"cmdId": 0, "token": user.tokens["token"]}
        assert command.watch(device, authCmd=auth)["errorCode"] == 0
        assert stays.watch(device)["errorCode"] == 0
        ends(world, id, user)
        assert socket.end() == 1008
        assert command.end() == 1008
        world.save(device, t=1)
        assert stays.receive()["data"]["t"][0][1] == "1"


def test_it_ends_with_its_api_key(world: World) -> None:
    user = world.tenant.ok("GET", "/api/auth/user")["id"]
    device = world.device()
    made = world.tenant.ok("POST", "/api/apiKey", {"userId": user, "description": "ci"})
    with Socket(world, Authorization=f"ApiKey {made['value']}") as socket:
        assert socket.watch(device)["errorCode"] == 0
        world.tenant.ok("PUT", f"/api/apiKey/{made['id']['id']}/enabled/false")
        assert socket.end() == 1008
