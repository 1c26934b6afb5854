"""Customers' users take devices that told them a secret, on a real node (REST spec 6)."""

import http.client
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.rest_client import Person, people
from tests.support.server import Server
from tests.support.wire import Wire

NULL = "13814000-1dd2-11b2-8080-808080808080"
PASSWORD = "a long password"

_numbers = itertools.count(1)


def over_http(server: Server, token: str, body: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)
    connection.request("POST", f"/api/v1/{token}/claim", body)
    assert connection.getresponse().status == 200
    connection.close()


def over_mqtt(server: Server, token: str, body: str) -> None:
    with Wire(server.mqtt_port) as wire:
        wire.open(token).publish(body, topic="v1/devices/me/claim")


Tell = Callable[[Server, str, str], None]


@pytest.fixture(params=[over_http, over_mqtt], ids=["http", "mqtt"])
def tell(request: pytest.FixtureRequest) -> Tell:
    chosen: Tell = request.param
    return chosen


class World:
    """A node, its administrator and customers' users."""

    def __init__(self, server: Server, person: Any) -> None:
        self.server = server
        self.person = person
        self.tenant: Person = person().login("tenant@thingsboard.org", "tenant")

    def customer_user(self) -> tuple[str, Person]:
        """Id of a new customer, and its user."""
        number = next(_numbers)
        customer = self.tenant.ok("POST", "/api/customer", {"title": f"C{number}"})["id"]
        email = f"c{number}@example.org"
        body = {"email": email, "authority": "CUSTOMER_USER", "customerId": customer}
        made = self.tenant.ok("POST", "/api/user", body, sendActivationMail="false")
        path = f"/api/user/{made['id']['id']}/password"
        self.tenant.ok("POST", path, {"password": PASSWORD})
        return customer["id"], self.person().login(email, PASSWORD)

    def device(self) -> str:
        """Name of a new device, which is its token."""
        name = f"claimed-{next(_numbers)}"
        self.tenant.ok("POST", "/api/device", {"name": name}, accessToken=name)
        return name

    def owner(self, name: str) -> str:
        found = self.tenant.ok("GET", "/api/tenant/device", deviceName=name)
        return str(found["customerId"]["id"])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Server(flags=("--demo",)) as server, people(server.http_port) as person:
        yield World(server, person)


def claim(user: Person, name: str, secret: str | None = None) -> tuple[int, Any]:
    body = {} if secret is None else {"secretKey": secret}
    return user("POST", f"/api/customer/device/{name}/claim", body)


def test_a_device_goes_to_who_knows_its_secret(world: World, tell: Tell) -> None:
    name = world.device()
    customer, user = world.customer_user()
    rival = world.customer_user()[1]
    assert claim(user, name, "s") == (400, "FAILURE")  # the device said nothing yet
    tell(world.server, name, '{"secretKey":"s","durationMs":60000}')
    assert claim(user, name, "wrong") == (400, "FAILURE")
    assert claim(user, name, "s") == (400, "FAILURE")  # one guess, then the device must say again
    tell(world.server, name, '{"secretKey":"s","durationMs":60000}')
    status, answer = claim(user, name, "s")
    assert (status, answer["response"]) == (200, "SUCCESS")
    assert answer["device"]["customerId"]["id"] == customer == world.owner(name)
    assert claim(rival, name, "s") == (400, "CLAIMED")
    assert rival.refusal("DELETE", f"/api/customer/device/{name}/claim") == (403, 20)

    found = user.ok("GET", f"/api/customer/{customer}/devices", pageSize=10, page=0)
    assert [device["name"] for device in found["data"]] == [name]
    device_id = found["data"][0]["id"]["id"]
    assert rival.refusal("GET", f"/api/device/{device_id}") == (403, 20)

    path = f"/api/customer/device/{name}/claim"
    for _ in range(2):  # also when it is nobody's
        assert user("DELETE", path) == (200, None)
    assert world.owner(name) == NULL
    assert claim(rival, name, "s") == (400, "FAILURE")  # the secret was used up


def test_no_secret_is_an_empty_one(world: World, tell: Tell) -> None:
    name = world.device()
    customer, user = world.customer_user()
    tell(world.server, name, "{}")
    assert claim(user, name)[0] == 200
    assert world.owner(name) == customer


def test_a_secret_does_not_last(world: World, tell: Tell) -> None:
    name = world.device()
    user = world.customer_user()[1]
    tell(world.server, name, '{"secretKey":"s","durationMs":1}')
    assert claim(user, name, "s") == (400, "FAILURE")


def test_an_administrator_may_set_the_secret(world: World) -> None:
    name = world.device()
    user = world.customer_user()[1]
    found = world.tenant.ok("GET", "/api/tenant/device", deviceName=name)["id"]["id"]
    data = {"claimingData": json.dumps({"secretKey": "a", "expirationTime": 1 << 60})}
    world.tenant.ok("POST", f"/api/plugins/telemetry/{found}/SERVER_SCOPE", data)
    assert claim(user, name, "a")[0] == 200


def test_who_may_not_claim(world: World) -> None:
    name = world.device()
    assert world.tenant.refusal("POST", f"/api/customer/device/{name}/claim", {}) == (403, 20)
    user = world.customer_user()[1]
    assert user.refusal("POST", "/api/customer/device/nobody/claim", {}) == (404, 32)
    nobody = world.person()
    assert nobody.refusal("POST", f"/api/customer/device/{name}/claim", {}) == (401, 10)
