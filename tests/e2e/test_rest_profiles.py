"""Profiles, devices of profiles and their credentials over REST (REST spec 3, 4, 5)."""

import base64
import json
import re
import uuid
from pathlib import Path

import pytest

from tests.support.api import Api
from tests.support.certificates import Certificate
from tests.support.rest_server import running_app

NULL_UUID = "13814000-1dd2-11b2-8080-808080808080"


@pytest.fixture
def api(tmp_path: Path):
    with running_app(tmp_path / "data") as app:
        api = Api(app)
        yield api
        api.connection.close()


def profile(api: Api, name: str, **members: object):
    return api.done("POST", "/api/deviceProfile", {"name": name, **members})


METER = {
    "description": "of the load generator",
    "image": "data:image/png;base64,AAAA",
    "type": "DEFAULT",
    "transportType": "MQTT",
    "provisionType": "ALLOW_CREATE_NEW_DEVICES",
    "provisionDeviceKey": "K",
    "defaultRuleChainId": {"entityType": "RULE_CHAIN", "id": str(uuid.UUID(int=7))},
    "defaultDashboardId": {"entityType": "DASHBOARD", "id": str(uuid.UUID(int=8))},
    "defaultQueueName": "Main",
    "defaultEdgeRuleChainId": None,
    "profileData": {
        "configuration": {"type": "DEFAULT"},
        "transportConfiguration": {"type": "MQTT", "deviceTelemetryTopic": "/t", "extra": [1.5]},
        "provisionConfiguration": {
            "type": "ALLOW_CREATE_NEW_DEVICES", "provisionDeviceSecret": "S",
        },
        "alarms": [{"id": "1", "createRules": {"CRITICAL": {"condition": {"spec": None}}}}],
    },
    "firmwareId": None,
    "softwareId": None,
    "externalId": None,
}  # fmt: skip


def test_a_profile_comes_back_as_it_was_given(api: Api) -> None:
    made = profile(api, "SMART_METER", **METER, unknown=1)
    tenant = {"entityType": "TENANT", "id": api.app.registry.tenant_id}
    assert made == {
        **METER,
        "id": {"entityType": "DEVICE_PROFILE", "id": made["id"]["id"]},
        "createdTime": made["createdTime"],
        "tenantId": tenant,
        "name": "SMART_METER",
        "version": 1,
        "default": False,
    }
    path = f"/api/deviceProfile/{made['id']['id']}"
    assert api("GET", path, inlineImages=True) == (200, made)
    info = {
        "id": made["id"], "tenantId": tenant, "name": "SMART_METER", "image": METER["image"],
        "defaultDashboardId": METER["defaultDashboardId"], "type": "DEFAULT",
        "transportType": "MQTT",
    }  # fmt: skip
    assert api("GET", f"/api/deviceProfileInfo/{made['id']['id']}") == (200, info)
    saved = api.done("POST", "/api/deviceProfile", {**made, "description": None})
    assert saved == {**made, "description": None, "version": 2}
    assert api.error("POST", "/api/deviceProfile", made)[:2] == (409, 35)
    response, text = api.raw("DELETE", path)
    assert (response.status, text) == (200, b"")
    assert api.error("GET", path)[:2] == (404, 32)


def test_lists_of_profiles(api: Api) -> None:
    meter = profile(api, "meter", transportType="MQTT")
    tracker = profile(api, "tracker", transportType="COAP")
    page = api.done("GET", "/api/deviceProfiles", pageSize=1000, page=0)
    assert {p["name"] for p in page["data"]} == {"default", "meter", "tracker"}
    assert (page["totalElements"], page["totalPages"], page["hasNext"]) == (3, 1, False)
    assert page["data"][0]["profileData"]["alarms"] is None
    second = api.done(
        "GET", "/api/deviceProfiles", pageSize=2, page=1, sortProperty="name", sortOrder="DESC"
    )
    assert [p["name"] for p in second["data"]] == ["default"]
    found = api.done("GET", "/api/deviceProfiles", pageSize=2, page=0, textSearch="MET")
    assert [p["name"] for p in found["data"]] == ["meter"]
    infos = api.done("GET", "/api/deviceProfileInfos", pageSize=9, page=0, transportType="COAP")
    assert [p["name"] for p in infos["data"]] == ["tracker"]
    ids = ",".join([tracker["id"]["id"], str(uuid.UUID(int=1)), meter["id"]["id"]])
    for path in ("/api/deviceProfileInfos", "/api/deviceProfileInfos/list"):
        named = api.done("GET", path, deviceProfileIds=ids)
        assert [p["name"] for p in named] == ["tracker", "meter"]
    api.done("POST", "/api/device", {"name": "d", "deviceProfileId": meter["id"]})
    names = api.done("GET", "/api/deviceProfile/names")
    assert [entry["name"] for entry in names] == ["default", "meter", "tracker"]
    active = api.done("GET", "/api/deviceProfile/names", activeOnly="true")
    assert active == [{"id": meter["id"], "name": "meter"}]


def test_rules_of_profiles(api: Api) -> None:
    meter = profile(api, "meter", provisionDeviceKey="K")
    path = f"/api/deviceProfile/{meter['id']['id']}"
    for wrong in (
        {"name": "meter"},
        {"name": "b", "provisionDeviceKey": "K"},
        {"name": "b", "transportType": "PIGEON"},
        {"name": "b", "type": "OTHER"},
        {"name": "b", "profileData": []},
        {"name": "b", "firmwareId": {"id": str(uuid.UUID(int=9))}},
        {"name": ""},
        {},
    ):
        assert api.error("POST", "/api/deviceProfile", wrong)[:2] == (400, 31)
    device = api.done("POST", "/api/device", {"name": "d", "type": "meter"})
    assert device["deviceProfileId"] == meter["id"]
    assert api.error("DELETE", path)[:2] == (400, 31)
    changed = {**meter, "transportType": "MQTT", "profileData": None}
    assert api.error("POST", "/api/deviceProfile", changed)[:2] == (400, 31)
    default = api.done("GET", "/api/deviceProfileInfo/default")
    assert default["name"] == "default"
    assert api.error("DELETE", f"/api/deviceProfile/{default['id']['id']}")[:2] == (400, 31)
    chosen = api.done("POST", path + "/default")
    assert chosen["default"] is True
    assert api.done("GET", f"/api/deviceProfile/{default['id']['id']}")["default"] is False
    assert api.done("GET", "/api/deviceProfileInfo/default")["name"] == "meter"
    unknown = {"name": "x", "id": {"id": str(uuid.UUID(int=9))}}
    assert api.error("POST", "/api/deviceProfile", unknown)[:2] == (404, 32)


def test_a_device_of_a_profile_takes_its_transport(api: Api) -> None:
    coap = profile(api, "coap", transportType="COAP")
    made = api.done("POST", "/api/device", {"name": "d", "deviceProfileId": coap["id"]})
    transport = made["deviceData"]["transportConfiguration"]
    assert transport == {
        "type": "COAP", "powerMode": None, "psmActivityTimer": None, "edrxCycle": None,
        "pagingTransmissionWindow": None,
    }  # fmt: skip
    given = {**transport, "powerMode": "PSM", "psmActivityTimer": 5}
    made["deviceData"]["transportConfiguration"] = given
    saved = api.done("POST", "/api/device", made)
    assert saved["deviceData"] == {
        "configuration": {"type": "DEFAULT"}, "transportConfiguration": given,
    }  # fmt: skip
    given["powerMode"] = "SLEEPY"
    assert api.error("POST", "/api/device", made)[0] == 409
    made["version"] = None
    assert api.error("POST", "/api/device", made)[:2] == (400, 31)


def test_a_taken_name_may_be_made_unique(api: Api) -> None:
    api.device("d")
    assert api.error("POST", "/api/device", {"name": "d"}, nameConflictPolicy="FAIL")[0] == 400
    numbered = {"nameConflictPolicy": "UNIQUIFY", "uniquifyStrategy": "INCREMENTAL"}
    made = api.done("POST", "/api/device", {"name": "d"}, **numbered, uniquifySeparator="/")
    assert made["name"] == "d/1"
    assert api.error("POST", "/api/device", {"name": "d"}, nameConflictPolicy="X")[0] == 400


def test_a_package_that_nobody_has_is_refused(api: Api) -> None:
    body = {"name": "d", "firmwareId": {"entityType": "OTA_PACKAGE", "id": str(uuid.uuid1())}}
    assert api.error("POST", "/api/device", body) == (
        400, 31, "Can't assign non-existent firmware!",
    )  # fmt: skip


def test_a_device_with_its_credentials(api: Api) -> None:
    basic = {"clientId": "c", "userName": "u", "password": "p"}
    body = {
        "device": {"name": "d", "customerId": {"entityType": "CUSTOMER", "id": NULL_UUID}},
        "credentials": {"credentialsType": "MQTT_BASIC", "credentialsValue": json.dumps(basic)},
    }
    device = api.done("POST", "/api/device-with-credentials", body)
    path = f"/api/device/{device['id']['id']}/credentials"
    secret = api.done("GET", path)
    assert secret["credentialsType"] == "MQTT_BASIC"
    assert json.loads(secret["credentialsValue"]) == basic
    body = {"device": device, "credentials": {"credentialsId": "token"}}
    assert api.done("POST", "/api/device-with-credentials", body)["version"] == 2
    assert api.done("GET", path)["credentialsId"] == "token"
    bad = {"device": {"name": "e"}, "credentials": {"credentialsId": "token"}}
    assert api.error("POST", "/api/device-with-credentials", bad)[:2] == (400, 31)
    assert api("GET", "/api/tenant/device", deviceName="e")[0] == 404


def test_lwm2m_credentials(api: Api) -> None:
    device = api.device("d")
    secret = api.done("GET", f"/api/device/{device}/credentials")
    value = {
        "client": {
            "securityConfigClientMode": "PSK", "endpoint": "ep", "identity": "id1", "key": "0" * 32,
        },
        "bootstrap": {
            "bootstrapServer": {"securityMode": "NO_SEC"},
            "lwm2mServer": {"securityMode": "NO_SEC"},
        },
    }  # fmt: skip
    given = {
        **secret, "credentialsType": "LWM2M_CREDENTIALS", "credentialsValue": json.dumps(value),
    }  # fmt: skip
    saved = api.done("POST", "/api/device/credentials", given)
    assert (saved["credentialsId"], saved["credentialsValue"]) == ("id1", json.dumps(value))
    other = api.done("GET", f"/api/device/{api.device('e')}/credentials")
    same = {**given, "deviceId": other["deviceId"], "id": other["id"]}
    assert api.error("POST", "/api/device/credentials", same)[:2] == (400, 31)


def chain_profile(certificate: str) -> dict[str, object]:
    return {
        "provisionType": "X509_CERTIFICATE_CHAIN",
        "profileData": {
            "provisionConfiguration": {
                "type": "X509_CERTIFICATE_CHAIN",
                "provisionDeviceSecret": certificate,
                "certificateRegExPattern": "(.*)",
            }
        },
    }


def test_an_authority_that_everybody_trusts_registers_no_devices(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, own = Certificate("known", authority=True), Certificate("own", authority=True)
    below = Certificate("below", issuer=known, authority=True)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Known\n{Certificate('other').pem}\n# and\n{known.pem}")
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    body = {"name": "p", **chain_profile(known.pem)}
    refused = (400, 31, "Device profile certificate cannot be well known root CA!")
    assert api.error("POST", "/api/deviceProfile", body) == refused
    made = profile(api, "p", **chain_profile(own.pem))
    assert api.error("POST", "/api/deviceProfile", made | chain_profile(known.pem)) == refused
    profile(api, "q", **chain_profile(below.pem + known.pem))


SERVER = {
    "shortServerId": 123, "bootstrapServerIs": False, "host": "0.0.0.0", "port": 5685,
    "clientHoldOffTime": 1, "serverPublicKey": "", "serverCertificate": "",
    "bootstrapServerAccountTimeout": 0, "lifetime": 300, "defaultMinPeriod": 1,
    "notifIfDisabled": True, "binding": "U", "securityHost": "0.0.0.0", "securityPort": 5686,
}  # fmt: skip
BOOTSTRAP = SERVER | {
    "shortServerId": None, "bootstrapServerIs": True, "port": 5687, "securityPort": 5688,
}  # fmt: skip


def lwm2m(*servers: object, update: bool = True) -> dict[str, object]:
    transport = {
        "type": "LWM2M", "bootstrapServerUpdateEnable": update, "bootstrap": list(servers),
        "observeAttr": {"keyName": {}, "observe": []},
    }  # fmt: skip
    return {"transportType": "LWM2M", "profileData": {"transportConfiguration": transport}}


def test_lwm2m_servers_for_a_profile(api: Api) -> None:
    """The node describes itself, and a profile with that description is taken."""
    path = "/api/lwm2m/deviceProfile/bootstrap"
    assert api("GET", f"{path}/false") == (200, SERVER)
    assert api("GET", f"{path}/true") == (200, BOOTSTRAP)
    assert api.error("GET", f"{path}/maybe")[:2] == (400, 31)
    made = profile(api, "l", **lwm2m(SERVER, BOOTSTRAP | {"shortServerId": 0}))
    transport = made["profileData"]["transportConfiguration"]
    assert transport["bootstrap"] == [SERVER, BOOTSTRAP]
    assert transport["observeAttr"] == {"keyName": {}, "observe": []}
    profile(api, "none", transportType="LWM2M")
    key = base64.b64encode(Certificate("server").der).decode()
    secure = {"securityMode": "X509", "serverPublicKey": key, "port": 5686}
    profile(api, "secure", **lwm2m(SERVER | secure))


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        ([SERVER | {"shortServerId": None}], "ShortServerId"),
        ([SERVER | {"shortServerId": 0}], "ShortServerId"),
        ([SERVER | {"shortServerId": 65535}], "ShortServerId"),
        ([BOOTSTRAP | {"shortServerId": 65536}], "ShortServerId must be null"),
        ([BOOTSTRAP | {"shortServerId": -1}], "ShortServerId must be null"),
        ([SERVER, SERVER | {"host": "h"}], '"Short server Id" 123'),
        ([SERVER, SERVER | {"shortServerId": 7}], '"Host [+] port" 0.0.0.0:5685'),
        ([SERVER | {"port": 5686}], "must be 5685"),
        ([SERVER | {"securityMode": "PSK"}], "must be 5686"),
        ([BOOTSTRAP | {"securityMode": "PSK"}], "must be 5688"),
        ([SERVER | {"securityMode": "RPK", "port": 5686}], "RPK public key"),
        ([SERVER | {"securityMode": "X509", "port": 5686, "serverPublicKey": "?"}], "base64"),
        ([SERVER | {"securityMode": "NONE"}], "securityMode"),
        ([{"port": 5685}], "host"),
        (["server"], "bootstrap"),
    ],
)
def test_lwm2m_servers_no_client_could_use(api: Api, servers: list[object], message: str) -> None:
    status, code, text = api.error("POST", "/api/deviceProfile", {"name": "l", **lwm2m(*servers)})
    assert (status, code) == (400, 31)
    assert re.search(message, text), text


def test_a_bootstrap_server_needs_leave(api: Api) -> None:
    body = {"name": "l", **lwm2m(SERVER, BOOTSTRAP, update=False)}
    assert "must not include" in api.error("POST", "/api/deviceProfile", body)[2]
