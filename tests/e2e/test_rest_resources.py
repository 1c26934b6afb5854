"""LwM2M object models, tenant, system and rule chain over REST (REST spec 12, 13.3)."""

import base64
import uuid
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.ddf import DEVICE, definition, item
from tests.support.rest_server import running_app

NOBODY = str(uuid.UUID(int=1))


@pytest.fixture
def api(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


def upload(file: bytes, title: str = "Device", **members: object) -> dict[str, object]:
    return {
        "title": title,
        "resourceType": "LWM2M_MODEL",
        "fileName": "3.xml",
        "data": base64.b64encode(file).decode(),
        **members,
    }


def test_an_object_definition(api: Api) -> None:
    made = api.done("POST", "/api/resource", upload(DEVICE))
    assert (made["resourceKey"], made["title"], made["fileName"]) == ("3_1.2", "Device", "3.xml")
    assert made["id"]["entityType"] == "TB_RESOURCE"
    path = f"/api/resource/{made['id']['id']}"
    assert api("GET", f"/api/resource/info/{made['id']['id']}") == (200, made)
    response, text = api.raw("GET", path + "/download")
    assert text == DEVICE
    assert response.getheader("Content-Disposition") == "attachment;filename*=UTF-8''3.xml"
    again = api.done("POST", "/api/resource", upload(DEVICE, "Again"))
    assert (again["id"], again["version"]) == (made["id"], 2)
    other = api.done("POST", "/api/resource", upload(definition(5, item(0))))
    taken = upload(DEVICE, id=other["id"])
    assert api.error("POST", "/api/resource", taken)[:2] == (400, 31)
    page = api.done("GET", "/api/resource", pageSize=1, page=0, sortProperty="title")
    assert (page["data"], page["totalElements"]) == ([again], 2)
    assert api("DELETE", path) == (200, None)
    for method, gone in (("GET", path + "/download"), ("DELETE", path)):
        assert api.error(method, gone)[:2] == (404, 32)


def test_models_for_profiles(api: Api) -> None:
    api.done("POST", "/api/resource", upload(DEVICE))
    api.done("POST", "/api/resource", upload(definition(1, item(0, "A"), name="Alpha")))
    path = "/api/resource/lwm2m/page"
    first, second = api.done("GET", path, pageSize=100, page=0)
    assert first["id"] == 1
    assert second == {
        "id": 3, "keyId": "3_1.2", "name": "Device", "multiple": False, "mandatory": True,
        "instances": [
            {"id": 0, "resources": [
                {
                    "id": 9, "name": "Battery Level & more", "keyName": "batteryLevelMore",
                    "observe": False, "attribute": False, "telemetry": False,
                }
            ]}
        ],
    }  # fmt: skip
    found = api.done("GET", path, pageSize=1, page=0, sortProperty="name", sortOrder="DESC")
    assert found == [second]
    assert api.done("GET", path, pageSize=9, page=0, textSearch="alp") == [first]
    assert api.done("GET", "/api/resource/lwm2m", objectIds="3_1.2,9_1.0") == [second]


@pytest.mark.parametrize(
    "body",
    [
        {},
        upload(b"text"),
        upload(b"<!DOCTYPE x [<!ENTITY a 'b'>]><LWM2M/>"),
        upload(DEVICE, data="?"),
        upload(DEVICE, resourceType="JKS"),
        upload(DEVICE, ""),
        upload(DEVICE, fileName="a\nb"),
        upload(b" " * 1_048_577),
    ],
)
def test_refusals(api: Api, body: dict[str, object]) -> None:
    assert api.error("POST", "/api/resource", body)[:2] == (400, 31)


def test_tenant_system_and_rule_chain(api: Api) -> None:
    tenant = api.app.registry.tenant_id
    body = api.done("GET", f"/api/tenant/{tenant}")
    assert (body["id"], body["title"]) == ({"entityType": "TENANT", "id": tenant}, "Tenant")
    assert body["createdTime"] > 1_600_000_000_000
    info = api.done("GET", f"/api/tenant/info/{tenant}")
    assert info == {**body, "tenantProfileName": "Default"}
    assert api.error("GET", f"/api/tenant/{NOBODY}")[:2] == (404, 32)
    profile = api.done("GET", "/api/tenantProfileInfo/default")
    assert profile["id"] == body["tenantProfileId"]
    assert api.done("GET", "/api/system/info")["type"] == "CE"
    assert api.done("GET", "/api/system/params")["userTokenAccessEnabled"] is True
    page = api.done("GET", "/api/ruleChains", pageSize=10, page=0, type="CORE")
    (chain,) = page["data"]
    assert (chain["name"], chain["root"]) == ("Root Rule Chain", True)
    assert api.done("GET", f"/api/ruleChain/{chain['id']['id']}") == chain
    edge = api.done("GET", "/api/ruleChains", pageSize=10, page=0, type="EDGE")
    assert edge["data"] == []
    for path in ("/api/ruleChain", "/api/ruleChain/metadata"):
        status, code, message = api.error("POST", path, {})
        assert (status, code) == (501, 2)
        assert "cannot be edited" in message
