"""Customers, who sees what, lists of devices and relations over REST (REST spec 1.4, 3, 10, 13)."""

import uuid
from pathlib import Path

import pytest

from tbfast.control.rest.callers import Caller
from tests.support.api import Api
from tests.support.rest_server import running_app

NULL_UUID = "13814000-1dd2-11b2-8080-808080808080"
NOBODY = str(uuid.UUID(int=1))


@pytest.fixture
def api(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


class HeaderGate:
    """The user of the customer that a header names; nobody else is asked who he is."""

    async def caller(self, request):
        customer = request.headers.get("x-customer")
        if customer is None:
            return Caller()
        return Caller(authority="CUSTOMER_USER", user_id="u", customer_id=customer)


class CustomerApi(Api):
    """The interface as a customer's user sees it."""

    customer = NOBODY

    def raw(self, method: str, path: str, body: bytes | None = None, **headers: str):
        return super().raw(method, path, body, **{"x-customer": self.customer})


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The administrator's side and a customer's."""
    monkeypatch.setattr("tbfast.control.rest.OwnersGate", HeaderGate)
    with running_app(tmp_path / "data") as app:
        sides = Api(app), CustomerApi(app)
        yield sides
        for side in sides:
            side.connection.close()


def customer(api: Api, title: str, **members: object):
    return api.done("POST", "/api/customer", {"title": title, **members})


def test_customer_shape(api: Api) -> None:
    made = customer(api, "C1", city="Bonn", email="a@b.c", additionalInfo={"a": 1})
    assert made == {
        "id": {"entityType": "CUSTOMER", "id": made["id"]["id"]},
        "createdTime": made["createdTime"],
        "tenantId": {"entityType": "TENANT", "id": api.app.registry.tenant_id},
        "title": "C1", "name": "C1", "country": None, "state": None, "city": "Bonn",
        "address": None, "address2": None, "zip": None, "phone": None, "email": "a@b.c",
        "additionalInfo": {"a": 1}, "externalId": None, "version": 1,
    }  # fmt: skip
    path = f"/api/customer/{made['id']['id']}"
    assert api("GET", path) == (200, made)
    changed = api.done("POST", "/api/customer", {**made, "title": "C2"})
    assert (changed["title"], changed["version"]) == ("C2", 2)
    assert api.error("POST", "/api/customer", made)[:2] == (409, 35)
    for wrong in ({"title": "C2"}, {"title": " "}, {}, {"title": "x", "email": "no"}):
        assert api.error("POST", "/api/customer", wrong)[:2] == (400, 31)
    customer(api, "A")
    page = api.done("GET", "/api/customers", pageSize=1, page=0, sortProperty="title")
    assert [c["title"] for c in page["data"]] == ["A"]
    assert (page["totalElements"], page["hasNext"]) == (2, True)
    assert api("DELETE", path) == (200, None)
    assert api.error("GET", path)[:2] == (404, 32)


def test_devices_of_a_customer(api: Api) -> None:
    owner, device = customer(api, "C1")["id"], api.device("d1")
    api.device("d2")
    path = f"/api/customer/{owner['id']}"
    given = api.done("POST", f"{path}/device/{device}")
    assert given["customerId"] == owner
    page = api.done("GET", path + "/devices", pageSize=10, page=0)
    assert [d["name"] for d in page["data"]] == ["d1"]
    info = api.done("GET", f"/api/device/info/{device}")
    assert info == {
        **given, "customerTitle": "C1", "customerIsPublic": False,
        "deviceProfileName": "default", "active": False,
    }  # fmt: skip
    infos = api.done("GET", path + "/deviceInfos", pageSize=10, page=0)
    assert infos["data"] == [info]
    released = api.done("DELETE", f"/api/customer/device/{device}")
    assert released["customerId"]["id"] == NULL_UUID
    assert api.error("DELETE", f"/api/customer/device/{device}")[:2] == (400, 31)
    assert api.done("GET", path + "/devices", pageSize=10, page=0)["totalElements"] == 0
    for refused in (
        ("POST", f"/api/customer/{NOBODY}/device/{device}"),
        ("POST", f"{path}/device/{NOBODY}"),
        ("POST", f"/api/customer/public/device/{NOBODY}"),
        ("GET", f"/api/customer/{NOBODY}/devices?pageSize=1&page=0"),
    ):
        assert api.error(*refused)[:2] == (404, 32)


def test_a_customer_by_title(api: Api) -> None:
    made = customer(api, "Höfe & Co")
    path = "/api/tenant/customers"
    assert api.done("GET", path, customerTitle="Höfe & Co") == made
    assert api.error("GET", path, customerTitle="höfe & co")[:2] == (404, 32)


def test_a_public_device(api: Api) -> None:
    device = api.device("d")
    made = api.done("POST", f"/api/customer/public/device/{device}")
    public = api.done("GET", f"/api/customer/{made['customerId']['id']}")
    assert (public["title"], public["additionalInfo"]) == ("Public", {"isPublic": True})
    assert api.done("GET", f"/api/device/info/{device}")["customerIsPublic"] is True
    again = api.done("POST", f"/api/customer/public/device/{api.device('e')}")
    assert again["customerId"] == made["customerId"]
    private = {**public, "additionalInfo": None}
    assert api.error("POST", "/api/customer", private)[:2] == (400, 31)


def test_a_deleted_customer_leaves_its_devices(api: Api) -> None:
    owner = customer(api, "C1")["id"]["id"]
    devices = [api.device(f"d{i}") for i in range(5)]
    for device in devices:
        api.done("POST", f"/api/customer/{owner}/device/{device}")
    api.done("DELETE", f"/api/customer/{owner}")
    for device in devices:
        found = api.done("GET", f"/api/device/{device}")
        assert found["customerId"]["id"] == NULL_UUID
    assert api.error("GET", f"/api/customer/{owner}")[0] == 404


def test_an_update_of_a_device_says_whose_it_is(api: Api) -> None:
    owner = customer(api, "C1")["id"]
    made = api.done("POST", "/api/device", {"name": "d", "customerId": owner})
    assert made["customerId"] == owner
    saved = api.done("POST", "/api/device", {**made, "label": "L"})
    assert saved["customerId"] == owner
    free = api.done("POST", "/api/device", {**saved, "customerId": None})
    assert free["customerId"]["id"] == NULL_UUID
    wrong = {"name": "e", "customerId": {"entityType": "CUSTOMER", "id": NOBODY}}
    assert api.error("POST", "/api/device", wrong)[:2] == (400, 31)


def test_a_customers_user_sees_its_own_only(both) -> None:
    admin, user = both
    owner, other = customer(admin, "C1")["id"]["id"], customer(admin, "C2")["id"]["id"]
    user.customer = owner
    mine, free = admin.device("mine"), admin.device("free")
    admin.done("POST", f"/api/customer/{owner}/device/{mine}")
    assert user.done("GET", f"/api/device/{mine}")["name"] == "mine"
    assert user.done("GET", f"/api/device/info/{mine}")["customerTitle"] == "C1"
    both_ids = f"{mine},{free},{NOBODY}"
    found = user.done("GET", "/api/devices", deviceIds=both_ids)
    assert [d["name"] for d in found] == ["mine"]
    assert len(admin.done("GET", "/api/devices", deviceIds=both_ids)) == 2
    paging = {"pageSize": 10, "page": 0}
    page = user.done("GET", f"/api/customer/{owner}/deviceInfos", **paging)
    assert [d["name"] for d in page["data"]] == ["mine"]
    assert user.done("GET", f"/api/customer/{owner}")["title"] == "C1"
    assert user.done("GET", "/api/relations", fromId=mine, fromType="DEVICE") == []
    for method, path, query in (
        ("GET", f"/api/device/{free}", {}),
        ("GET", f"/api/device/info/{free}", {}),
        ("GET", f"/api/device/{free}/credentials", {}),
        ("GET", f"/api/customer/{other}", {}),
        ("GET", f"/api/customer/{other}/devices", paging),
        ("GET", f"/api/customer/{other}/deviceInfos", paging),
        ("GET", "/api/tenant/devices", paging),
        ("GET", "/api/tenant/deviceInfos", paging),
        ("GET", "/api/customers", paging),
        ("GET", "/api/deviceProfiles", paging),
        ("GET", "/api/relations", {"fromId": free, "fromType": "DEVICE"}),
        ("GET", f"/api/relations/to/DEVICE/{NOBODY}", {}),
        ("POST", "/api/device", {}),
        ("POST", "/api/customer", {}),
        ("POST", "/api/deviceProfile", {}),
        ("POST", "/api/relation", {}),
        ("DELETE", f"/api/device/{mine}", {}),
        ("POST", f"/api/customer/{owner}/device/{free}", {}),
        ("DELETE", f"/api/customer/device/{mine}", {}),
    ):
        assert user.error(method, path, **query)[:2] == (403, 20), path


def test_lists_by_profile_type_activity_and_title(api: Api) -> None:
    owner = customer(api, "Zoo")["id"]["id"]
    first = customer(api, "alpha")["id"]["id"]
    for name, type_ in (("a", "meter"), ("b", "meter"), ("c", "default")):
        api.done("POST", "/api/device", {"name": name, "type": type_})
    ids = {d["name"]: d for d in api.done("GET", "/api/tenant/devices", pageSize=9, page=0)["data"]}
    api.done("POST", f"/api/customer/{owner}/device/{ids['a']['id']['id']}")
    api.done("POST", f"/api/customer/{first}/device/{ids['c']['id']['id']}")
    path = f"/api/plugins/telemetry/DEVICE/{ids['b']['id']['id']}/SERVER_SCOPE"
    api.done("POST", path, {"active": True})

    def names(**query: object) -> list[str]:
        page = api.done("GET", "/api/tenant/deviceInfos", pageSize=9, page=0, **query)
        assert page["totalElements"] == len(page["data"])
        return [device["name"] for device in page["data"]]

    assert sorted(names()) == ["a", "b", "c"]
    assert sorted(names(type="meter")) == ["a", "b"]
    assert sorted(names(deviceProfileId=ids["a"]["deviceProfileId"]["id"])) == ["a", "b"]
    assert names(active="true") == ["b"]
    assert sorted(names(active="false")) == ["a", "c"]
    assert names(sortProperty="customerTitle") == ["b", "c", "a"]
    assert names(sortProperty="deviceProfileName", sortOrder="DESC")[2] == "c"
    assert names(sortProperty="active")[2] == "b"
    assert names(sortProperty="active", sortOrder="DESC", type="meter") == ["b", "a"]
    types = api.done("GET", "/api/device/types")
    tenant = {"entityType": "TENANT", "id": api.app.registry.tenant_id}
    assert types == [
        {"tenantId": tenant, "entityType": "DEVICE", "type": type_}
        for type_ in ("default", "meter")
    ]
    profile = ids["a"]["deviceProfileId"]["id"]
    assert api.done("GET", f"/api/devices/count/FIRMWARE/{profile}") == 2
    assert api.error("GET", f"/api/devices/count/HARDWARE/{profile}")[:2] == (400, 31)
    assert api.error("GET", f"/api/devices/count/SOFTWARE/{NOBODY}")[:2] == (404, 32)


def relation(origin: str, target: str, **members: object) -> dict[str, object]:
    return {
        "from": {"entityType": "DEVICE", "id": origin},
        "to": {"entityType": "DEVICE", "id": target},
        "type": "Created",
        **members,
    }


def test_relations(api: Api) -> None:
    gateway, child, other = (api.device(name) for name in ("g", "c", "o"))
    saved = api.done("POST", "/api/v2/relation", relation(gateway, child))
    assert saved == {
        **relation(gateway, child), "typeGroup": "COMMON", "version": 1, "additionalInfo": None,
    }  # fmt: skip
    again = relation(gateway, child, typeGroup="COMMON", additionalInfo={"a": 1})
    assert api.done("POST", "/api/relation", again)["version"] == 2
    stale = {**again, "version": 1}
    assert api.error("POST", "/api/relation", stale)[:2] == (409, 35)
    api.done("POST", "/api/relation", relation(gateway, other, type="Contains"))

    origin = {"fromId": gateway, "fromType": "DEVICE"}
    listed = api.done("GET", "/api/relations", **origin)
    assert {r["to"]["id"] for r in listed} == {child, other}
    assert api.done("GET", f"/api/relations/from/DEVICE/{gateway}") == listed
    created = api.done("GET", "/api/relations", **origin, relationType="Created")
    assert [r["additionalInfo"] for r in created] == [{"a": 1}]
    assert api.done("GET", f"/api/relations/from/DEVICE/{gateway}/Created") == created
    assert api.done("GET", "/api/relations", toId=child, toType="DEVICE") == created
    assert api.done("GET", f"/api/relations/to/DEVICE/{child}") == created
    assert api.done("GET", "/api/relations", **origin, relationTypeGroup="EDGE") == []
    one = {**origin, "relationType": "Created", "toId": child, "toType": "DEVICE"}
    assert api.done("GET", "/api/relation", **one) == created[0]
    assert api.done("DELETE", "/api/v2/relation", **one) == created[0]
    assert api.error("GET", "/api/relation", **one)[:2] == (404, 32)
    assert api.error("DELETE", "/api/relation", **one)[:2] == (404, 32)


def test_relations_end_with_their_devices(api: Api) -> None:
    gateway, child = api.device("g"), api.device("c")
    api.done("POST", "/api/relation", relation(gateway, child))
    api.done("POST", "/api/relation", relation(child, gateway))
    api.done("DELETE", f"/api/device/{child}")
    for path in (f"/api/relations/from/DEVICE/{gateway}", f"/api/relations/to/DEVICE/{gateway}"):
        assert api.done("GET", path) == []
    assert api.app.call(api.app.registry.store.count("relation")) == 0


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, 31)),
        (relation(NOBODY, NOBODY), (404, 32)),
        (relation(NOBODY, NOBODY, type=" "), (400, 31)),
        (relation(NOBODY, NOBODY, typeGroup="FAMILY"), (400, 31)),
        (relation("x", NOBODY), (400, 31)),
    ],
)
def test_relations_that_cannot_be(api: Api, body: object, expected: tuple[int, int]) -> None:
    assert api.error("POST", "/api/relation", body)[:2] == expected


def test_queries_for_relations_name_an_end(api: Api) -> None:
    for query in ({}, {"fromId": NOBODY}, {"fromId": NOBODY, "fromType": "PLANET"}):
        assert api.error("GET", "/api/relations", **query)[:2] == (400, 31)
